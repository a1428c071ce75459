"""What a reconcile pass wants done: decided by the rooms, carried out by ``kube.execute``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Manifest = dict[str, Any]  # a Kubernetes object as plain JSON


@dataclass(frozen=True)
class Key:
    """One object of ours in the work queue."""

    kind: Literal["LLMTraining", "LLMServing", "LLMApp"]
    namespace: str
    name: str


class GoneError(Exception):
    """The object that a pass is about no longer exists, or can't be seen."""


@dataclass(frozen=True)
class Delete:
    """A child to delete, if it still has this uid; its pods go in the background, or with ``foreground`` before it."""

    api_version: str
    kind: str
    name: str
    uid: str
    foreground: bool = False


@dataclass(frozen=True)
class Event:
    """A Kubernetes event on the reconciled object, sent only after its status was written."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """Carried out in this order: delete, create, apply, status, events. Crash between any two: the next pass converges.

    What is deleted makes room, in a quota say, for what is created. A status is written when the children are there.

    A child is either created, and then left as it is, or applied whenever it differs. Not both: fields that a POST has
    set stay when a later server-side apply no longer has them.
    """

    create: tuple[Manifest, ...] = ()  # in order: the first that is refused ends it
    apply: tuple[Manifest, ...] = ()  # each by itself
    delete: tuple[Delete, ...] = ()
    status: Manifest | None = None  # the whole new status; None: it is right as it is
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None  # seconds; None: wait for the next event or resync

    @property
    def empty(self) -> bool:
        """Nothing would be written."""
        return not (self.create or self.apply or self.delete or self.status or self.events)
