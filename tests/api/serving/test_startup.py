"""How long a start took: the operator asks the launcher's own server, over a socket of this machine."""

from __future__ import annotations

import asyncio

import pytest

from llm_operator.kube.cache import Cache
from llm_operator.kube.plan import Key, Manifest
from llm_operator.serving import startup
from llm_operator.serving.names import LAUNCHER_PORT
from llm_operator.serving.startup import Startups, started_of
from llm_server.first_token import Server
from llm_server.startup import Startup
from llm_server.watch import Watch, serve

ADDRESS = "127.94.0.2"  # all of 127/8 is this machine; nothing else listens here
KEY = Key("LLMServing", "team", "chat")


def pod(restarts: int = 0) -> Manifest:
    return {
        "metadata": {"name": "chat-1", "namespace": "team", "uid": "chat-1", "resourceVersion": str(restarts)},
        "spec": {},
        "status": {"podIP": ADDRESS, "containerStatuses": [{"name": "vllm", "restartCount": restarts}]},
    }


async def test_a_launcher_tells_once_vllm_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "PAUSES", (0.01,) * 1000)
    cache, woken, told = Cache(), asyncio.Queue[Key](), Startup()
    watch = Watch(Server(ADDRESS, 1, "m"), 1, 1, print, print)
    launcher = serve(watch, told, ADDRESS, LAUNCHER_PORT)
    startups = Startups(cache)
    cache.put("Pod", pod())
    assert startups.follow(KEY, started_of(pod())) is None
    asking = asyncio.create_task(startups.run(woken.put_nowait))
    await asyncio.sleep(0.1)
    assert woken.empty(), "it has not answered yet"
    told.read("INFO [default_loader.py:485] Loading weights took 1.50 seconds")
    told.answered()
    assert await woken.get() == KEY
    found = startups.follow(KEY, started_of(pod()))
    assert found
    assert found.load_seconds == 1.5
    assert found.compile_seconds is None
    cache.put("Pod", pod(restarts=1))
    assert startups.follow(KEY, started_of(pod(restarts=1))) is None, "the word of the start before is void"
    asking.cancel()
    await asyncio.wait({asking})
    launcher.shutdown()
    launcher.server_close()
