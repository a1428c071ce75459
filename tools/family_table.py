"""The table of docs/families.md: which family was run in which kind of stage, made from what the test saw."""

from __future__ import annotations

from typing import Any

BEGIN = "<!-- made by tests/trainer/test_whole_way.py -->\n\n"
END = "<!-- end -->\n"
# By tests/e2e/test_families.py, before a release.
SERVED = (
    "gpt2", "llama", "qwen3", "mixtral", "qwen3_moe", "deepseek_v3", "mamba2", "gemma3_text", "cohere", "qwen2",
    "mistral", "gemma2", "phi3", "phi", "olmo2", "smollm3", "granite", "gpt_oss", "gpt_neox", "starcoder2", "stablelm",
    "glm4", "opt", "olmoe", "granitemoe", "falcon_h1", "lfm2",
)  # fmt: skip
# By tests/trainer/test_trl_on_families.py, in every run of it or before a release.
STAGES_RUN = {
    "qwen2": False, "gpt_oss": True, "qwen3_next": False, "mistral": False, "gemma2": False, "gemma3_text": False,
    "phi3": False, "olmo2": False, "smollm3": False, "granite": False, "qwen3_moe": False, "jamba": False,
    "falcon_h1": False, "gpt2": False, "qwen3": False, "mixtral": False, "deepseek_v3": False, "mamba": False,
    "mamba2": False, "phi": False, "gpt_neox": False, "starcoder2": False, "stablelm": False, "cohere": False,
    "glm4": False, "opt": False, "olmoe": False, "granitemoe": False, "lfm2": False,
}  # fmt: skip
NOT_SERVED_ON_CPU = ("mamba", "jamba")


def family_table(found: dict[str, dict[str, Any]]) -> str:
    """``found``: by family, what `tests/trainer/whole_way.py` told."""
    lines = [
        "| family | class | scratch, `uri` | pretrain, export | `lora`, merge | TRL's stages, `ppo` | scores | vLLM |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(cells(family, row))} |" for family, row in found.items()]
    return BEGIN + "\n".join(lines) + "\n" + END


def cells(family: str, row: dict[str, Any]) -> list[str]:
    unserved = "not on CPU" if family in NOT_SERVED_ON_CPU else "not run"
    return [
        f"`{family}`",
        f"`{row['class']}`",
        "run",
        "run" if row["pretrain"]["reload"] < 1e-6 else "differs",
        "run" if row["lora"]["merged"] < 1e-5 else "differs",
        "run" if family in STAGES_RUN or family == "llama" else "not run",
        "there" if row["scores"] else "transformers has none: no `rewardModel`, no `ppo`",
        "run" if family in SERVED else unserved,
    ]


def table_in(text: str) -> str:
    """The table in a page, its marks included; raises ValueError for a page without them."""
    return text[text.index(BEGIN) : text.index(END) + len(END)]
