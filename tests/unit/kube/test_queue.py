"""The work queue: no key is lost, none waits twice, none runs twice at the same time."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llm_operator.kube.queue import FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, WorkQueue

KEYS = st.sampled_from("abcde")
REST = 0.7
DELAYS = st.sampled_from([0.0, 0.5, 1.0, 7.0])


class QueueMachine(RuleBasedStateMachine):
    """Compares the queue with a plain account of what was asked for and what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: WorkQueue[str] = WorkQueue(jitter=lambda: 1.0, rest=REST)
        self.now = 100.0
        self.rested: dict[str, float] = {}
        self.wanted: dict[str, float] = {}
        self.running: set[str] = set()
        self.failing: set[str] = set()
        self.own: dict[str, float] = {}  # asked for by own writes of keys that run

    @rule(key=KEYS, delay=DELAYS)
    def add_own(self, key: str, delay: float) -> None:
        self.queue.add(key, self.now + delay, own=True)
        if key in self.running:
            self.own[key] = min(self.own.get(key, float("inf")), self.now + delay)
        elif key not in self.failing:
            self.want(key, delay)

    @rule(key=KEYS, delay=DELAYS)
    def add(self, key: str, delay: float) -> None:
        self.queue.add(key, self.now + delay)
        self.want(key, delay)

    def want(self, key: str, delay: float) -> None:
        at = max(self.now + delay, self.rested.get(key, 0.0))
        self.wanted[key] = min(self.wanted.get(key, float("inf")), at)

    @rule(seconds=DELAYS)
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        due = {key: at for key, at in self.wanted.items() if at <= self.now and key not in self.running}
        key = self.queue.take(self.now)
        if not due:
            assert key is None
            return
        assert key is not None
        assert self.wanted[key] == min(due.values()), "the longest waiting key comes first"
        assert key not in self.running, "two workers on one key"
        assert self.rested.pop(key, 0.0) <= self.now, "no rest between two passes"
        del self.wanted[key]
        self.running.add(key)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), failed=st.booleans())
    def finish(self, data: st.DataObject, failed: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        if failed:
            at = self.now + self.queue.retry(key, self.now)
            self.wanted[key] = min(self.wanted.get(key, float("inf")), at)
            self.failing.add(key)
        else:
            self.queue.succeeded(key)
            self.failing.discard(key)
            if key in self.own:
                self.wanted[key] = min(self.wanted.get(key, float("inf")), self.own[key])
        self.own.pop(key, None)
        self.queue.done(key, self.now)
        self.running.remove(key)
        if key in self.wanted:
            self.rested[key] = self.now + REST
            self.wanted[key] = max(self.wanted[key], self.rested[key])

    @invariant()
    def next_due_is_right(self) -> None:
        waiting = [at for key, at in self.wanted.items() if key not in self.running]
        assert self.queue.next_due() == min(waiting, default=None)
        assert self.queue.running == len(self.running)
        assert self.queue.depth(self.now) == sum(at <= self.now for at in self.wanted.values())

    def teardown(self) -> None:
        """Whatever was asked for is given in the end, once."""
        for key in sorted(self.running):
            self.queue.done(key, self.now)
        given = []
        while (next_key := self.queue.take(float("inf"))) is not None:
            given.append(next_key)
        assert sorted(given) == sorted(self.wanted)


QueueMachine.TestCase.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=60)
TestQueue = QueueMachine.TestCase


def test_backoff_doubles_up_to_its_limit_and_starts_anew_after_a_success() -> None:
    queue: WorkQueue[str] = WorkQueue(jitter=lambda: 1.0)
    delays = [queue.retry("a", 0.0) for _ in range(40)]
    assert delays[:4] == [FIRST_BACKOFF_SECONDS * 2**n for n in range(4)]
    assert delays[-1] == LONGEST_BACKOFF_SECONDS
    queue.succeeded("a")
    assert queue.retry("a", 0.0) == FIRST_BACKOFF_SECONDS


def test_what_fails_is_not_tried_again_because_of_its_own_writes() -> None:
    queue: WorkQueue[str] = WorkQueue(jitter=lambda: 1.0, rest=0.2)
    tries, now = 0, 0.0
    queue.add("a", now)
    while now < 30:
        if queue.take(now):
            tries += 1
            queue.add("a", now, own=True)  # its status, whose text is another one each time
            queue.retry("a", now)
            queue.done("a", now)
            queue.add("a", now, own=True)  # and the echo of that
        now += 0.1
    assert tries == 6
    queue.add("a", now)
    assert queue.take(now) == "a", "news of the world is a reason"


def test_jitter_spreads_the_retries_of_many_keys() -> None:
    queue: WorkQueue[int] = WorkQueue()
    assert len({queue.retry(key, 0.0) for key in range(100)}) > 90


def test_many_replaced_requests_leave_little_behind() -> None:
    """A key that is woken again and again before its resync must not fill the memory."""
    queue: WorkQueue[str] = WorkQueue()
    for second in range(10_000):
        queue.add("a", second)
        assert queue.take(second) == "a"
        queue.done("a", second)
        queue.add("a", second + 600)
    assert len(queue._heap) < 200


def test_oldest_counts_from_when_a_key_was_due() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", 10.0)
    assert queue.oldest(5.0) == 0.0
    assert queue.oldest(12.5) == pytest.approx(2.5)


def test_a_retry_is_no_later_than_the_pass_that_is_wanted_anyway() -> None:
    queue: WorkQueue[str] = WorkQueue(jitter=lambda: 1.0)
    queue.add("a", 0.0)
    now, delays = 0.0, []
    for _ in range(6):
        assert queue.take(now) == "a"
        delays.append(queue.retry("a", now, 4.0))
        queue.done("a", now)
        now += delays[-1]
    assert delays == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def of_tenants(most: int | None = None) -> WorkQueue[str]:
    """Keys such as a/1: the tenant comes first."""
    return WorkQueue(tenant=lambda key: key.partition("/")[0], most=most)


def test_many_keys_of_one_tenant_keep_no_other_waiting() -> None:
    queue = of_tenants()
    for number in range(10_000):
        queue.add(f"enemy/{number}", 0.0)
    queue.add("team/1", 1.0)
    queue.add("team/2", 1.0)
    first = [queue.take(2.0) for _ in range(5)]
    assert first == ["enemy/0", "team/1", "enemy/1", "team/2", "enemy/2"]


def test_passes_of_one_tenant_that_do_not_end_leave_workers_to_others() -> None:
    queue = of_tenants(most=2)
    for number in range(5):
        queue.add(f"enemy/{number}", 0.0)
    assert [queue.take(1.0) for _ in range(3)] == ["enemy/0", "enemy/1", None]
    assert queue.next_due() is None, "or the workers would look again and again"
    assert queue.oldest(1.0) == 1.0
    queue.add("team/1", 1.0)
    assert queue.take(1.0) == "team/1"
    queue.done("enemy/0", 1.0)
    assert queue.take(1.0) == "enemy/2"


def test_a_queue_that_moves_does_not_stand_still_however_long_it_is() -> None:
    queue = of_tenants()
    for number in range(3):
        queue.add(f"team/{number}", 0.0)
    assert queue.stalled(300.0) == 300.0
    queue.take(300.0)
    assert (queue.oldest(301.0), queue.stalled(301.0)) == (301.0, 1.0)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 9)), max_size=60), st.integers(1, 3)
)
def test_every_key_is_taken_once_and_in_its_tenants_order(adds: list[tuple[str, int, int]], most: int) -> None:
    queue, due = of_tenants(most), dict[str, float]()
    for tenant, number, at in adds:
        key = f"{tenant}/{number}"
        queue.add(key, at)
        due[key] = min(at, due.get(key, at))
    taken: list[str] = []
    while (found := queue.take(10.0)) is not None:
        taken.append(found)
        queue.done(found, 10.0)
    assert sorted(taken) == sorted(due)
    for tenant in "abc":
        times = [due[key] for key in taken if key.startswith(tenant)]
        assert times == sorted(times)
    assert queue.next_due() is None
