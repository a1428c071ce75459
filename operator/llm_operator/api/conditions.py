"""metav1 conditions: a list with one entry per type, whose time changes only with its status."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from llm_operator.api.common import Condition
from llm_operator.api.text import cut


def timestamp(seconds: float) -> str:
    """RFC 3339, as Kubernetes writes times, of seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time; 0, long ago, of what is none: anybody may have written it."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def find(conditions: Iterable[Condition], kind: str) -> Condition | None:
    return next((condition for condition in conditions if condition.type == kind), None)


def is_true(conditions: Iterable[Condition], kind: str) -> bool:
    found = find(conditions, kind)
    return found is not None and found.status == "True"


def with_bounded_messages(conditions: Iterable[Condition]) -> list[Condition]:
    """As long as may be written."""
    return [condition.model_copy(update={"message": cut(condition.message)}) for condition in conditions]


def with_condition(conditions: Iterable[Condition], new: Condition) -> list[Condition]:
    """The list with this condition in it; the time of its last transition stays if its status does."""
    kept = list(conditions)
    old = find(kept, new.type)
    if old is None:
        return [*kept, new]
    if old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    return [new if condition is old else condition for condition in kept]
