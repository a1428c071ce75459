from __future__ import annotations

from tools.families import families

from llm_operator.api.validation import FAMILIES


def test_the_operator_knows_what_transformers_knows() -> None:
    assert families() == FAMILIES, "run python tools/families.py"
