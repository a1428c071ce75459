"""Which children must be applied: missing ones, those that the spec changes, and what somebody has changed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm_operator.api.reasons import Reason
from llm_operator.kube.drift import Lost, applied, applied_at, lost_fields, ours, owned
from llm_operator.kube.kinds import SERVICE
from llm_operator.kube.plan import Delete, Event, Manifest
from llm_operator.kube.templates import APPLIED, mark_of, marked

REST_SECONDS = 10.0  # from an apply to the next that only sets back what somebody has changed
SHOWN = 3  # fields
PORTS = ("http", "https")  # of the Services that rooms apply


@dataclass(frozen=True)
class Mending:
    """``wait``: seconds until what was changed once more is set back again."""

    apply: tuple[Manifest, ...] = ()
    delete: tuple[Delete, ...] = ()
    events: tuple[Event, ...] = ()
    wait: float | None = None


def mending(wanted: Iterable[Manifest], there: Iterable[Manifest], owner: Manifest, now: float) -> Mending:
    """``there`` are the owner's children of the kinds that are wanted, one of each at most.

    Whoever changes a field again and again, say an autoscaler, is named, and overruled now and then.
    """
    known = {found["kind"]: found for found in there}
    apply: list[Manifest] = []
    delete: list[Delete] = []
    events: list[Event] = []
    waits: list[float] = []
    for child in wanted:
        found = known.get(child["kind"])
        if found is None or is_of_another_spec(found, child):
            apply.append(child)
        elif lost := list(lost_fields(child, found)):
            rest = rest_after(applied_at(found), now)
            if rest:
                waits.append(rest)
            else:
                if port_is_gone(child, lost):
                    delete.append(
                        Delete(child["apiVersion"], child["kind"], found["metadata"]["name"], found["metadata"]["uid"])
                    )
                else:
                    apply.append(child)
                events += [drift_event(owner, child, lost)] if applied(found) else []
    return Mending(tuple(apply), tuple(delete), tuple(events), min(waits, default=None))


def is_of_another_spec(found: Manifest, child: Manifest) -> bool:
    """By the mark of our last apply. One that somebody has removed tells nothing: that is drift, as of any field."""
    return owned(found, "f:metadata", "f:annotations", f"f:{APPLIED}") and mark_of(found) != mark_of(child)


def port_is_gone(child: Manifest, lost: Sequence[Lost]) -> bool:
    """Of a Service, whose number somebody has changed: ours beside theirs, of one name, would be refused.

    Nobody reaches a Service without its port, so it is made anew.
    """
    if child["kind"] != SERVICE.name:
        return False
    paths = ("spec.ports", *(f"spec.ports[{name}]" for name in PORTS))
    return any(field.path in paths for field in lost)


def rest_after(applied: float | None, now: float) -> float:
    """Seconds, of the API server's clock against ours: if they are apart, there is none."""
    age = now - applied if applied is not None else REST_SECONDS
    return max(0.0, REST_SECONDS - age) if age >= 0 else 0.0


def drift_event(owner: Manifest, child: Manifest, lost: Sequence[Lost]) -> Event:
    fields = ", ".join(f"{field.path} ({field.manager or 'removed'})" for field in lost[:SHOWN])
    more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    name = f"{owner['kind']} {owner['metadata']['name']}"
    todo = f"change {name} instead"
    if any(field.path == "spec.replicas" for field in lost):
        todo += f"; kubectl scale and an autoscaler must target {name} too"
    said = f"{child['kind']} {child['metadata']['name']}: {fields}{more}: changed by others and set back; {todo}"
    return Event("Warning", Reason.DRIFT_MENDED, said)


def scaled(found: Manifest, replicas: int) -> tuple[Manifest, ...]:
    """The Deployment that is there as it was applied last, with another number of pods; nothing if that is right."""
    applied = ours(found) if found else {}
    if "spec" not in applied or found["spec"].get("replicas") == replicas:
        return ()
    made = {**applied, "spec": {**applied["spec"], "replicas": replicas}}
    if "replicas" not in applied["spec"]:
        return (made,)  # somebody has changed it, which is drift, under the mark that it has
    metadata = {field: value for field, value in applied["metadata"].items() if field != "annotations"}
    return (marked({**made, "metadata": metadata}),)
