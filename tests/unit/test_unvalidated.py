"""Specs and statuses of any shape, as an older definition or somebody's hand has left them, before any validation.

The cache asks for places, a change for who is woken, a pass for what is observed, Prometheus for counts: none of them
may fail by what an object holds, so that a pass comes to say what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from llm_operator.apps.room import AppRoom
from llm_operator.kube.cache import Cache
from llm_operator.kube.fields import at, list_at, object_at, objects_at, text_at, texts_at
from llm_operator.kube.plan import Key, Manifest
from llm_operator.objects import counts
from llm_operator.serving.results import language_models, rank_of, stages_of, unreadable
from llm_operator.serving.room import ServingRoom
from llm_operator.settings import Settings
from llm_operator.training.room import TrainingRoom
from tests.app_specs import EVERYTHING
from tests.hostile import places, replaced
from tests.specs import SERVING, TRAINING
from tests.unit.world import custom_resource

WRONG: tuple[Any, ...] = (1.5, "x", True, [1], [[]], {"x": 1}, {"name": 1})
STATUS = {
    "runUri": "pvc://models/run",
    "phase": "Running",
    "stages": [
        {"name": "base", "attempts": [{"number": 1, "job": "j"}], "checkpoint": {"time": "2026-01-01T00:00:00Z"}}
    ],
    "model": {"uri": "pvc://models/x", "digest": "d"},
    "adapters": [{"name": "a", "reason": "ClaimNotFound"}],
    "evaluation": {"scores": [{"metric": "exact", "value": 0.5}]},
    "inputs": [{"reason": "Fetching", "uri": "hf://a/b", "fetchedBytes": 1}],
    "conditions": [{"type": "KnowledgeReady", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
}  # fmt: skip
TEMPLATED = {**SERVING, "chatTemplate": {"configMap": {"name": "templates", "key": "chat.jinja"}}}
ROOMS: dict[str, tuple[Callable[..., Any], Manifest]] = {
    "LLMTraining": (TrainingRoom, TRAINING),
    "LLMServing": (ServingRoom, TEMPLATED),
    "LLMApp": (AppRoom, EVERYTHING),
}


def spoiled(kind: str) -> Iterator[tuple[str, Manifest]]:
    """The object with each of its values replaced by each wrong one."""
    good = {**custom_resource(kind, "chat", ROOMS[kind][1]), "status": STATUS}
    for part in ("spec", "status"):
        for place in ((part,), *((part, *below) for below in places(good[part]))):
            for value in WRONG:
                yield f"{'.'.join(map(str, place))}: {value!r}", replaced(good, place, value)


def versioned(manifest: Manifest, version: str) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": version}}


@pytest.mark.parametrize("kind", ROOMS)
def test_what_is_read_before_validation_never_fails(kind: str) -> None:
    cache = Cache()
    room = ROOMS[kind][0](cache, cast(Any, None), Settings())
    key = Key(kind, "team", "chat")
    claim = {**custom_resource("PersistentVolumeClaim", "models", {}), "kind": "PersistentVolumeClaim"}
    collectors = counts(cache)
    failed: dict[str, str] = {}
    for version, (said, manifest) in enumerate(spoiled(kind), 1):
        manifest["metadata"] |= {"generation": version}
        try:
            cache.put(kind, versioned(manifest, f"{version}1"))
            [*room.wakes("PersistentVolumeClaim", claim)]
            for collector in collectors:
                [*collector.collect()]
            cache.put(kind, versioned({**manifest, "status": {}}, f"{version}2"))  # a training's is validated first
            assert room.observe(key) is not None
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # all are told at once
            failed[said] = repr(error)
    assert not failed, f"{len(failed)}, such as {dict([*failed.items()][:10])}"


def test_a_foreign_training_of_any_shape_is_read_by_a_serving() -> None:
    for said, training in spoiled("LLMTraining"):
        if unreadable(training) is None:
            assert set(language_models(training)) <= set(stages_of(training)), said
            assert all(rank_of(training, name) >= 0 for name in stages_of(training)), said
    told = unreadable({**custom_resource("LLMTraining", "chat", {"stages": [{"name": 1}]})})
    assert told is not None
    assert "each of spec.stages must be an object with a name of its own" in told.message


def test_fields_of_another_type_are_as_if_they_were_not_there() -> None:
    found = {"a": {"b": "text", "c": [1, "x", {"d": 1}]}}
    assert at(found, "a", "b") == "text"
    assert at(found, "a", "b", "c") is None
    assert at(None) is None
    assert text_at(found, "a", "b") == "text"
    assert text_at(found, "a") == ""
    assert object_at(found, "a", "b") == {}
    assert object_at(found, "a") == found["a"]
    assert list_at(found, "a") == []
    assert objects_at(found, "a", "c") == [{"d": 1}]
    assert texts_at(found, "a", "c") == ["x"]
