"""What is asked outside of passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from llm_operator.kube.plan import GoneError, Key
from llm_operator.kube.poller import Poller

KEYS = [Key("LLMTraining", f"team-{number % 2}", f"training-{number}") for number in range(20)]


class Asked:
    """Targets that answer when they are let. An answer is the number of the request."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.under_way = self.most = 0
        self.let = asyncio.Event()
        self.gone: set[str] = set()

    async def __call__(self, target: str, before: int) -> tuple[int, float]:
        if target in self.gone:
            raise GoneError
        self.requests.append(target)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.let.wait()
        self.under_way -= 1
        return before + 1, 0.001


async def until(true: Callable[[], bool]) -> None:
    """pytest's time limit ends a wait for what never comes."""
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def a_moment() -> None:
    """In which what must not happen would."""
    await asyncio.sleep(0.05)


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def test_so_many_at_the_same_time_and_a_pass_waits_for_none() -> None:
    asked = Asked()
    poller = Poller("test", asked, 0, count=4, per_second=1e6)
    polling = asyncio.create_task(poller.run(lambda _: None))
    assert [poller.follow(key, key.name) for key in KEYS] == [0] * len(KEYS)
    await until(lambda: asked.under_way == 4)
    await a_moment()
    assert asked.most == len(asked.requests) == 4
    await stopped(polling)


async def test_an_answer_wakes_the_key_and_is_void_for_another_target() -> None:
    asked, woken = Asked(), asyncio.Queue[Key]()
    poller = Poller("test", asked, 0, count=4, per_second=1e6)
    polling = asyncio.create_task(poller.run(woken.put_nowait))
    poller.follow(KEYS[0], "old pod")
    await until(lambda: asked.requests == ["old pod"])
    assert poller.follow(KEYS[0], "new pod") == 0, "the old pod's answer is still on its way"
    asked.let.set()
    assert await woken.get() == KEYS[0]
    assert asked.requests[:2] == ["old pod", "new pod"]
    assert poller.follow(KEYS[0], "new pod") >= 1
    await stopped(polling)


@pytest.mark.parametrize("why", ["unfollowed", "gone"])
async def test_nobody_is_asked_any_more(why: str) -> None:
    asked = Asked()
    poller = Poller("test", asked, 0, count=4, per_second=1e6)
    polling = asyncio.create_task(poller.run(lambda _: None))
    asked.let.set()
    poller.follow(KEYS[0], "pod")
    await until(lambda: len(asked.requests) > 1)  # it is asked again and again
    if why == "gone":
        asked.gone.add("pod")
    else:
        poller.follow(KEYS[0], None)
    await until(lambda: poller._known == {})  # nothing is kept of what is over
    await until(lambda: asked.under_way == 0)
    asked.requests.clear()
    await a_moment()
    assert asked.requests == []
    await stopped(polling)


async def test_so_many_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    poller = Poller("test", Asked(), 0, count=4, per_second=10)
    monkeypatch.setattr("llm_operator.kube.poller.time.monotonic", lambda: 100.0)
    monkeypatch.setattr("llm_operator.kube.poller.asyncio.sleep", sleep)
    for _ in range(4):
        await poller.turn()
    assert waits == pytest.approx([0, 0.1, 0.2, 0.3])
