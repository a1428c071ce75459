"""What the room keeps beside the cache goes with its serving."""

from __future__ import annotations

from typing import Any, cast

import pytest

from llm_operator.api.reasons import Reason
from llm_operator.kube.cache import Cache
from llm_operator.kube.plan import Key
from llm_operator.serving.room import ServingRoom
from llm_operator.settings import Settings
from tests.specs import SERVING, changed
from tests.unit.world import custom_resource


def test_the_config_map_of_a_deleted_serving_is_asked_for_no_more() -> None:
    cache = Cache()
    spec = changed(SERVING, chatTemplate={"configMap": {"name": "templates", "key": "chat.jinja"}})
    serving = custom_resource("LLMServing", "chat", spec)
    serving["metadata"]["resourceVersion"] = "1"
    cache.put("LLMServing", serving)
    room = ServingRoom(cache, cast(Any, None), Settings())
    key = Key("LLMServing", serving["metadata"]["namespace"], "chat")
    room.observe(key)
    assert list(room._chat_templates._poller._known) == [key]
    room.forget(key)
    assert not room._chat_templates._poller._known


def test_a_change_wakes_those_that_it_is_about_and_walks_over_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10,000 servings of a namespace each edit of a training would else cost the operator 14 ms."""
    cache = Cache()
    room = ServingRoom(cache, cast(Any, None), Settings())
    waits = {"conditions": [{"type": "Ready", "status": "False", "reason": str(Reason.CLAIM_NOT_FOUND)}]}
    serves = {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}]}
    names = {"waits": waits, "serves": serves, "other": serves, "new": {}}
    for version, (name, status) in enumerate(names.items(), 1):
        spec = changed(SERVING, model={"uri": "pvc://models/x"}) if name == "other" else SERVING
        serving = custom_resource("LLMServing", name, spec)
        serving["metadata"] |= {"resourceVersion": str(version), "uid": name}
        cache.put("LLMServing", {**serving, "status": status})
    monkeypatch.setattr(cache, "objects", None)
    namespace = serving["metadata"]["namespace"]

    def woken(kind: str, name: str) -> list[str]:
        return [key.name for key in room.wakes(kind, {"metadata": {"namespace": namespace, "name": name}})]

    assert woken("LLMTraining", "bilingual") == ["new", "serves", "waits"]
    assert woken("LLMTraining", "another") == []
    assert woken("PersistentVolumeClaim", "models") == ["new", "waits"]
    assert woken("Pod", "bilingual") == []
