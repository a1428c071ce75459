"""What a room (training, serving) gives the operator. ``app`` knows the rooms only by this."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from llm_operator.kube.kinds import Kind
from llm_operator.kube.plan import Key, Manifest, Plan
from llm_operator.kube.poller import Wake


class Room(Protocol):
    """The controller of one kind: it looks, then decides. The operator carries the plan out.

    ``about``: the condition that says so when a pass fails.
    """

    about: str

    def observe(self, key: Key) -> Any | None:
        """All that a decision needs, read from the cache and what ``run`` was told; None if the object is gone.

        Waits for nobody: what is slow must not keep a pass, and so other objects, waiting.
        """

    def forget(self, key: Key) -> None:
        """The object is gone, is going, or may not be seen: what is kept of it outside of the cache goes too."""

    def reconcile(self, observed: Any, now: float) -> Plan:
        """Pure. ``now`` is in seconds since the epoch."""

    def refused(self, observed: Any, problem: str, now: float) -> Plan:
        """What is said when the API server refuses to make a child: a status, events, nothing applied. Pure."""

    def wrote(self, key: Key, owner: Manifest, status: Manifest) -> None:
        """The status of ``owner``, which the decision saw, is this now; for what is counted of it."""

    def unseen(self, observed: Any) -> Iterable[tuple[Kind, str]]:
        """Children that must be there by the status, and that the cache does not have, by kind and name.

        The operator asks for them before it decides: a watch may be late, or half dead.
        """

    def wakes(self, kind: str, manifest: Manifest) -> Iterable[Key]:
        """Keys that must be looked at when this object, which is neither theirs nor their child, changed."""

    async def run(self, wake: Wake) -> None:
        """Asks for what no watch tells while this replica leads, and wakes the keys that have news."""
