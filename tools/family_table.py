"""The table of docs/families.md: which family was run in which kind of stage, made from what the test saw."""

from __future__ import annotations

from typing import Any

BEGIN = "<!-- made by tests/trainer/test_whole_way.py -->\n\n"
END = "<!-- end -->\n"
SERVED = (
    "gpt2", "llama", "qwen3", "mixtral", "qwen3_moe", "deepseek_v3", "mamba", "mamba2", "jamba",
    "gemma3_text", "cohere", "qwen2", "mistral",
)  # fmt: skip
# By tests/trainer/test_trl_on_families.py, in every run of it or before a release.
STAGES_RUN = {
    "qwen2": True, "gpt_oss": True, "qwen3_next": True, "mistral": False, "gemma2": False, "gemma3_text": False,
    "phi3": False, "olmo2": False, "smollm3": False, "granite": False, "qwen3_moe": False, "jamba": False,
    "falcon_h1": False,
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
    served = "run" if family not in NOT_SERVED_ON_CPU else "not on CPU"
    return [
        f"`{family}`",
        f"`{row['class']}`",
        "run",
        "run" if row["pretrain"]["reload"] < 1e-6 else "differs",
        "run" if row["lora"]["merged"] < 1e-5 else "differs",
        "run" if family in STAGES_RUN or family == "llama" else "not run",
        "there" if row["scores"] else "transformers has none: no `rewardModel`, no `ppo`",
        served if family in SERVED else "not run",
    ]


def table_in(text: str) -> str:
    """The table in a page, its marks included; raises ValueError for a page without them."""
    return text[text.index(BEGIN) : text.index(END) + len(END)]
