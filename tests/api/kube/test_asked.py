"""What the rooms ask for outside of passes costs no more than they need, whatever others have written."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from aiohttp import web

from llm_operator.kube.cache import Cache
from llm_operator.kube.client import JSON, METADATA_LIST, Client
from llm_operator.kube.execute import event_manifest
from llm_operator.kube.kinds import CONFIG_MAP, EVENT, TRAINING
from llm_operator.kube.login import Connection
from llm_operator.kube.plan import Event
from llm_operator.serving.chat_template import ChatTemplates, Place, Word
from llm_operator.training import missing
from llm_operator.training.missing import Suspect, Troubles
from tests.api.kube.manifests import training
from tests.api.kube.proxy import Fault, Proxy


async def test_of_any_number_of_events_some_pages_are_read(
    connection: Connection, client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write events could else have the operator hold all of them in memory."""
    monkeypatch.setattr(missing, "MOST_PAGES", 3)
    owner = await client.create(TRAINING, training(namespace))
    for number in range(10):
        when = datetime(2026, 1, 1, 0, 0, number, tzinfo=UTC)
        made = event_manifest(owner, Event("Warning", "Trouble", f"number {number}"), "test", when)
        made["metadata"]["name"] = f"event-{number}"
        await client.create(EVENT, made)
    cache = Cache()
    cache.put(TRAINING.name, owner)
    async with Proxy.before(connection) as (proxy, through_proxy):
        paged = Client(through_proxy, page=2)
        told, _ = await Troubles(cache, paged)._next(Suspect.of(owner), None)
        await paged.close()
    assert told is not None
    assert told.note == "number 5", "the newest of those that were read"
    assert len(proxy.lists) == 3


async def test_a_config_map_is_read_when_it_has_changed(connection: Connection, client: Client, namespace: str) -> None:
    """It may have 1 MiB, is asked for every ten seconds, and any number of servings may name it."""
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": "templates"}}
    await client.create(CONFIG_MAP, config_map)
    asked: list[str] = []

    def noted(request: web.BaseRequest) -> bool:
        asked.append(request.headers["Accept"])
        return False

    words, accepted = [Word()], []
    async with Proxy.before(connection) as (proxy, through_proxy):
        proxy.faults.append(Fault(noted, 1))
        asking = Client(through_proxy)
        templates = ChatTemplates(asking)
        for data in ({"a": "one"}, {"a": "one"}, {"a": "two"}, {"b": "two"}, {"b": "two"}):
            await client.request("PUT", CONFIG_MAP.path(namespace, "templates"), body={**config_map, "data": data})
            asked.clear()
            word, _ = await templates._ask(Place(namespace, "templates", "a"), words[-1])
            words.append(word)
            accepted.append(list(asked))
        await asking.close()
    assert accepted == [[JSON], [METADATA_LIST], [METADATA_LIST, JSON], [METADATA_LIST, JSON], [METADATA_LIST]]
    assert words[1] == words[2] != words[3]
    assert "its keys are b" in words[5].problem
