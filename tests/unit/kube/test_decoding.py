"""JSON as somebody may have written it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_operator.kube.cache import Cache, trim
from llm_operator.kube.decoding import MOST_DEEP, TOO_DEEP, decoded, shallow
from llm_operator.kube.kinds import KINDS, TRAINING
from tests import hostile

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(VALUES)
def test_what_is_not_deep_stays(value: Any) -> None:
    text = json.dumps(value).encode()
    assert shallow(text) == text


@given(VALUES, st.integers(0, 4))
def test_what_is_deeper_is_left_out_and_the_rest_stays_json(value: Any, most: int) -> None:
    assert depth(json.loads(shallow(json.dumps(value).encode(), most))) <= most


@pytest.mark.parametrize("kind", ["list", "object"])
@pytest.mark.parametrize("deep", [900, 10_000, 500_000])
def test_any_depth_is_read(kind: str, deep: int) -> None:
    text = hostile.written({"before": 1, "nested": hostile.nested(kind, deep), "after": '"]}\\'})
    found = decoded(text.encode())
    assert (found["before"], found["after"]) == (1, '"]}\\')


@pytest.mark.parametrize("text", [b"[" * 10_000, b'"' + b"a" * 100_000, b"{]", b"]" * 5])
def test_what_is_no_json_is_told(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the class is all that is relied upon
        decoded(text)


def metadata(**more: Any) -> dict[str, Any]:
    return {"name": "a", "namespace": "team", "uid": "1", "resourceVersion": "1", "generation": 1, **more}


@pytest.mark.parametrize("name", hostile.MONSTERS)
@pytest.mark.parametrize("field", ["spec", "status"])
def test_the_cache_keeps_objects_that_anything_may_walk_over(name: str, field: str) -> None:
    whole = {"metadata": metadata(), field: hostile.MONSTERS[name]()}
    kept = trim(KINDS[TRAINING.name], decoded(hostile.written(whole).encode()))
    assert isinstance(kept.get(field, {}), dict)
    assert depth(kept.get(field, {})) <= MOST_DEEP + 1
    assert json.loads(json.dumps(kept)) == kept


def test_what_is_too_deep_is_named() -> None:
    whole = {"metadata": metadata(), "spec": {"pods": hostile.nested("object", 900)}}
    assert TOO_DEEP in json.dumps(trim(KINDS[TRAINING.name], decoded(hostile.written(whole).encode())))


def test_an_index_that_fails_loses_its_own_object_alone() -> None:
    cache = Cache()
    cache.index(TRAINING.name, lambda manifest: [manifest["spec"]["place"]])
    cache.put(TRAINING.name, {"metadata": metadata()})
    cache.put(TRAINING.name, {"metadata": metadata(name="b", uid="2"), "spec": {"place": "here"}})
    assert [found["metadata"]["name"] for found in cache.at(TRAINING.name, "team", "here")] == ["b"]
    assert cache.put(TRAINING.name, {"metadata": metadata(resourceVersion="2"), "spec": {"place": "here"}})
    assert [found["metadata"]["name"] for found in cache.at(TRAINING.name, "team", "here")] == ["a", "b"]
