"""The work queue: a key waits at most once, and never runs twice at the same time; tenants take turns."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
NOBODY = object()

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 300.0


class WorkQueue(Generic[K]):
    """Which key is next, as a pure structure: every method is told the time (seconds on any monotonic clock).

    A key rests for ``rest`` seconds between two passes: what a pass sets off is looked at once, not piecemeal. Of the
    keys that are due each tenant's is taken in turn, and at most ``most`` of one run at a time: neither many nor slow
    passes of one keep another waiting.
    """

    def __init__(
        self,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1),  # noqa: S311
        rest: float = 0.0,
        tenant: Callable[[K], Hashable] = lambda _: None,
        most: int | None = None,
    ) -> None:
        self._jitter, self._rest, self._tenant, self._most = jitter, rest, tenant, most
        self._rested: dict[K, float] = {}  # until when each key rests that has run and waits
        self._due: dict[K, float] = {}  # when each waiting key is due; the only truth
        self._heap: list[tuple[float, int, K]] = []  # may hold entries that _due no longer confirms
        self._order = itertools.count()
        self._turns: OrderedDict[Hashable, deque[tuple[float, K]]] = OrderedDict()  # what was due, as in the heap
        self._taken_at = float("-inf")
        self._running: set[K] = set()
        self._running_of: Counter[Hashable] = Counter()  # tenant
        self._failures: dict[K, int] = {}
        self._own: dict[K, float] = {}  # asked for by running keys' own writes

    def add(self, key: K, at: float, *, own: bool = False) -> None:
        """Asks for a pass at this time; of two requests the earlier holds. A key that runs now runs again after.

        ``own``: because of what a pass over the key has written itself. That is no reason to try again what fails.
        """
        if own and key in self._running:
            self._own[key] = min(at, self._own.get(key, at))
            return
        if own and key in self._failures:
            return
        at = max(at, self._rested.get(key, at))
        if self._due.get(key, float("inf")) > at:
            self._due[key] = at
            if key not in self._running:
                self._push(key)

    def take(self, now: float) -> K | None:
        """Of the tenant whose turn it is, the key that has been due longest and doesn't run. None if there is none.

        Call ``done`` when its pass is over.
        """
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            self._turns.setdefault(self._tenant(key), deque()).append((at, key))
        while (tenant := next((one for one in self._turns if self._may_run(one)), NOBODY)) is not NOBODY:
            waiting = self._turns.pop(tenant)
            found = self._first(waiting)
            if waiting:
                self._turns[tenant] = waiting  # behind all others
            if found is not None:
                del self._due[found]
                self._rested.pop(found, None)
                self._running.add(found)
                self._running_of[tenant] += 1
                self._taken_at = now
                return found
        return None

    def _may_run(self, tenant: Hashable) -> bool:
        return self._most is None or self._running_of[tenant] < self._most

    def _first(self, waiting: deque[tuple[float, K]]) -> K | None:
        while waiting:
            at, key = waiting.popleft()
            if self._holds(at, key):
                return key
        return None

    def _holds(self, at: float, key: K) -> bool:
        """Whether the entry is not void."""
        return key not in self._running and self._due.get(key) == at

    def done(self, key: K, now: float) -> None:
        """The pass of a taken key is over."""
        self._running.remove(key)
        self._running_of -= Counter([self._tenant(key)])  # forgets whoever has none
        self._own.pop(key, None)
        if key in self._due:
            self._rested[key] = now + self._rest
            self._due[key] = max(self._due[key], self._rested[key])
            self._push(key)

    def retry(self, key: K, now: float, at_most: float | None = None) -> float:
        """Asks for another pass after a failed one: 0.5 s to 5 min, doubling, with jitter. Returns the delay.

        ``at_most``: the seconds after which a pass is wanted for something else.
        """
        failures = self._failures[key] = self.failures(key) + 1
        delay = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 30), LONGEST_BACKOFF_SECONDS) * self._jitter()
        delay = delay if at_most is None else min(delay, at_most)
        self.add(key, now + delay)
        return delay

    def succeeded(self, key: K) -> None:
        """The next failure of this key starts from the shortest delay again."""
        self._failures.pop(key, None)
        if key in self._own:
            self.add(key, self._own.pop(key))

    def failures(self, key: K) -> int:
        """In a row."""
        return self._failures.get(key, 0)

    def next_due(self) -> float | None:
        """When ``take`` has something to give, if nothing is added before. None: not before that."""
        while self._heap and not self._holds(self._heap[0][0], self._heap[0][2]):
            heapq.heappop(self._heap)
        return min([*self._ready(self._may_run), *(at for at, _, _ in self._heap[:1])], default=None)

    def _ready(self, of: Callable[[Hashable], bool]) -> Iterator[float]:
        """Since when the first key of each tenant has been due."""
        for tenant, waiting in self._turns.items():
            while waiting and not self._holds(*waiting[0]):
                waiting.popleft()
            if waiting and of(tenant):
                yield waiting[0][0]

    def depth(self, now: float) -> int:
        """Keys that are due, those that also run among them."""
        return sum(at <= now for at in self._due.values())

    def oldest(self, now: float) -> float:
        """Seconds for which the longest waiting key has been due."""
        due = min([*self._ready(lambda _: True), self.next_due() or now])
        return max(0.0, now - due)

    def stalled(self, now: float) -> float:
        """Seconds for which a key was due and none was taken. A long queue that moves is none that stands still."""
        due = self.next_due()
        return max(0.0, now - max(due, self._taken_at)) if due is not None else 0.0

    @property
    def running(self) -> int:
        return len(self._running)

    def _push(self, key: K) -> None:
        heapq.heappush(self._heap, (self._due[key], next(self._order), key))
        if len(self._heap) > 2 * len(self._due) + 64:  # mostly entries that an earlier request made void
            self._turns.clear()
            self._heap = [(at, next(self._order), key) for key, at in self._due.items() if key not in self._running]
            heapq.heapify(self._heap)
