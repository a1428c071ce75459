"""What a room (training, serving) gives the operator. ``app`` knows the rooms only by this."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from llm_operator.kube.plan import Key, Manifest, Plan


class Room(Protocol):
    """The controller of one kind: it looks, then decides. The operator carries the plan out."""

    async def observe(self, key: Key) -> Any | None:
        """All that a decision needs, read from the cache and the pods; None if the object is gone."""

    def reconcile(self, observed: Any, now: float) -> Plan:
        """Pure. ``now`` is in seconds since the epoch."""

    def refused(self, observed: Any, problem: str, now: float) -> Plan:
        """What is said when the API server refuses a child of a plan: a status, events, nothing applied. Pure."""

    def wakes(self, kind: str, manifest: Manifest) -> Iterable[Key]:
        """Keys that must be looked at when this object, which is neither theirs nor their child, changed."""
