"""What of the app's package the operator's image holds, and that the app's image needs nothing that it hasn't."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cluster.images import OF_PROMPTS

REPOSITORY = Path(__file__).parents[3]
LOADED = (
    "import sys, {module}; "
    "print(*sorted({{name.split('.')[{part}] for name in sys.modules if name.startswith({of!r})}}))"
)


def loaded(module: str, of: str, part: int) -> set[str]:
    code = LOADED.format(module=module, of=of, part=part)
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_the_operator_s_image_has_what_the_operator_imports() -> None:
    assert loaded("llm_operator.__main__", "llm_app.", 1) == {name.partition("/")[0] for name in OF_PROMPTS}
    tools = {name.removeprefix("tools/") for name in OF_PROMPTS if name.startswith("tools/")} - {"__init__"}
    assert loaded("llm_operator.__main__", "llm_app.tools.", 2) == tools
    recipe = (REPOSITORY / "operator/Containerfile").read_text()
    assert [name for name in OF_PROMPTS if f"app_image/llm_app/{name}.py" not in recipe] == []


def test_the_app_s_image_holds_neither_operator_nor_a_tensor_library() -> None:
    heavy = loaded("llm_app.server, llm_app.index", "", 0) & {
        "llm_operator",
        "kubernetes",
        "torch",
        "numpy",
        "kopf",
        "yaml",
    }
    assert not heavy
    assert loaded("llm_app.server, llm_app.index", "llm_trainer.", 1) <= {"config", "protocol"}
