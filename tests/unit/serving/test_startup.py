"""What a start took, by what vLLM writes, the pod's status, and what the status knows."""

from __future__ import annotations

from typing import Any

import pytest

from llm_operator.api.serving import ServingStartup
from llm_operator.kube.plan import Manifest
from llm_operator.serving.startup import is_told, newest_started, started_of, startup_of
from llm_server.startup import Startup
from llm_trainer.protocol import ServingStart

ENGINE = "(EngineCore pid=71) INFO 11-27 05:02:0"
LOG = (  # of vLLM 0.31
    ENGINE + "1 [gpu_model_runner.py:5290] Starting to load model /volumes/models/m...",
    ENGINE + "2 [gpu_model_runner.py:5290] Starting to load model /volumes/models/draft...",
    ENGINE + "3 [default_loader.py:485] Loading weights took 1.50 seconds",
    ENGINE + "4 [gpu_model_runner.py:5355] Model loading took 14.99 GiB memory and 2.250000 seconds",
)
SET_UP = ENGINE + "5 [core.py:381] init engine (profile, create kv cache, warmup model) took 20.00 s"


@pytest.mark.parametrize(
    ("last", "engine"),
    [
        (SET_UP, {"warmUpSeconds": 20.0}),
        (f"{SET_UP} (compilation: 12.50 s)", {"warmUpSeconds": 7.5, "compileSeconds": 12.5}),
        (
            f"{SET_UP} (compilation: 12.50 s — language_model: 12.00 s, encoder: 0.50 s)",
            {"warmUpSeconds": 7.5, "compileSeconds": 12.5},
        ),
        ("nothing of the kind", {}),
    ],
)
def test_what_vllm_writes(last: str, engine: dict[str, float]) -> None:
    times = iter((100.0, 109.0, 140.0, 150.0))
    startup = Startup(lambda: next(times))
    for line in (*LOG, last):
        startup.read(line)
    assert not startup.done
    startup.answered()
    startup.read(ENGINE + "9 [default_loader.py:485] Loading weights took 99.00 seconds")
    startup.answered()
    assert startup.parts == {"importSeconds": 9.0, "loadSeconds": 2.25, **engine, "totalSeconds": 40.0}
    assert ServingStart.model_validate(startup.parts).total_seconds == 40.0


def pod(name: str = "chat-1", made: str = "2026-01-01T00:00:01Z", *, ready: bool = True, restarts: int = 0) -> Manifest:
    return {
        "metadata": {"name": name, "namespace": "team", "uid": name, "creationTimestamp": made},
        "status": {
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "vllm", "restartCount": restarts}],
        },
    }


def fetcher(index: int, start: Any, end: Any) -> dict[str, Any]:
    return {"name": f"fetch-{index}", "state": {"terminated": {"startedAt": start, "finishedAt": end}}}


def test_the_youngest_pod_that_answers_is_asked_until_it_is_told() -> None:
    pods = [pod(), pod("chat-2", "2026-01-01T00:00:02Z"), pod("chat-3", "2026-01-01T00:00:03Z", ready=False)]
    started = newest_started(pods)
    assert started == started_of(pods[1])
    assert started
    told = startup_of(pods, started, ServingStart(load_seconds=1.26, total_seconds=10), None)
    assert told == ServingStartup(pod="chat-2", load_seconds=1.3, total_seconds=10)
    assert is_told(told, started)
    assert startup_of(pods, started, None, told) == told
    again = started_of(pod("chat-2", restarts=1))
    assert again
    assert not is_told(told, again)
    assert newest_started([pod(ready=False)]) is None
    assert startup_of([], None, None, told) == told


@pytest.mark.parametrize(
    ("fetchers", "seconds"),
    [
        ([], None),
        ([fetcher(0, "2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z")], 5),
        ([fetcher(0, "2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z"),
          fetcher(1, "2026-01-01T00:00:05Z", "2026-01-01T00:00:06Z")], 6),
        ([fetcher(0, "2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z"), fetcher(1, None, None)], None),
        ([fetcher(0, "2026-01-01T00:00:09Z", "2026-01-01T00:00:05Z")], None),
        ([fetcher(0, "yesterday", "today")], None),
        ([{"name": "mesh", "state": {"running": {}}}], None),
    ],
)  # fmt: skip
def test_fetching_is_told_by_the_pod_or_not_at_all(fetchers: list[dict[str, Any]], seconds: float | None) -> None:
    made = pod()
    made["status"]["initContainerStatuses"] = fetchers
    told = startup_of([made], started_of(made), ServingStart(total_seconds=10), None)
    assert told
    assert told.fetch_seconds == seconds
