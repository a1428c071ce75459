"""How long this process has seen what it sees. Times that other machines write are of other clocks: no decision
measures them against ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llm_operator.kube.plan import Key


class Sightings:
    """When each fact of a key was first seen, in seconds on a monotonic clock. What ceases to hold is forgotten.

    After a restart of the operator everything is new: what waits for an age waits for it once more, and no longer.
    """

    def __init__(self) -> None:
        self._first: dict[Key, dict[str, float]] = {}

    def ages(self, key: Key, facts: Iterable[str], now: float) -> Mapping[str, float]:
        """Seconds for which each of these facts has been seen."""
        known = self._first.get(key, {})
        first = {fact: known.get(fact, now) for fact in facts}
        if first:
            self._first[key] = first
        else:
            self._first.pop(key, None)
        return {fact: now - since for fact, since in first.items()}

    def forget(self, key: Key) -> None:
        self._first.pop(key, None)
