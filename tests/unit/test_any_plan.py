"""`python -m llm_operator plan` of any text: it answers, and never raises."""

from __future__ import annotations

import tempfile
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from llm_operator.plan import main
from tests.app_specs import EVERYTHING
from tests.specs import TRAINING, adapters, changed
from tests.unit.test_plan import manifest

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["64Gi", "pvc://a/b"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of every value in it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in items for found in paths(item, (*path, key)))]


def replaced(whole: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = whole.copy()
    copy[path[0]] = replaced(whole[path[0]], path[1:], value)
    return copy


FULL = changed(
    TRAINING,
    gpuMemory="80Gi",
    stages__0__globalBatchSize=16,
    stages__1__globalBatchSize=16,
    resources={"limits": {"nvidia.com/gpu": 8, "cpu": 4}, "requests": {"memory": "1Gi"}},
)
WHOLE = [
    manifest("LLMTraining", "a", FULL),
    manifest("LLMServing", "a", adapters({"name": "b", "uri": "pvc://a/b"})),
    manifest("LLMApp", "a", EVERYTHING),
]


def planned(text: str) -> int:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(text)
        file.flush()
        return main([file.name])


@given(st.text() | st.builds(yaml.safe_dump, VALUES))
def test_no_text_raises(text: str) -> None:
    assert planned(text) in (1, 2)


@given(st.data())
def test_no_value_raises(data: st.DataObject) -> None:
    """Any value in any place of an object that is right."""
    whole = data.draw(st.sampled_from(WHOLE))
    made = replaced(whole, data.draw(st.sampled_from(paths(whole))), data.draw(VALUES))
    assert planned(yaml.safe_dump(made)) in (0, 1, 2)


def test_what_the_properties_begin_with_is_right() -> None:
    assert planned(yaml.safe_dump_all(WHOLE)) == 0
