"""What the room keeps beside the cache goes with its serving."""

from __future__ import annotations

from typing import Any, cast

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
