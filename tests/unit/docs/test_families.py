"""The table of docs/families.md says nothing of vLLM that no test asks it."""

from __future__ import annotations

from tools.family_table import NOT_SERVED_ON_CPU, SERVED

from tests.e2e.family_models import MODELS


def test_each_family_that_is_said_to_be_served_is_asked() -> None:
    assert set(SERVED) == set(MODELS)
    assert not set(NOT_SERVED_ON_CPU) & set(SERVED)
