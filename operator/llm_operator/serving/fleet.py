"""The pods of a serving as they are: which live, which answer, which are of the newest template. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_operator.kube.drift import ours
from llm_operator.kube.plan import Manifest
from llm_operator.kube.pods import holds
from llm_operator.serving.annotations import TEMPLATE, model_in

ENDED = ("Failed", "Succeeded")


@dataclass(frozen=True)
class Fleet:
    """``newest`` and ``older`` are the pods that live, by their template; ``leaving`` those that are being deleted.

    ``ended``: those of the newest template that the kubelet has rejected or evicted, and no younger one lives: the
    Deployment makes others in their place, and they stay for months.
    """

    newest: tuple[Manifest, ...] = ()
    older: tuple[Manifest, ...] = ()
    leaving: tuple[Manifest, ...] = ()
    ended: tuple[Manifest, ...] = ()

    @property
    def living(self) -> tuple[Manifest, ...]:
        return (*self.newest, *self.older)

    @property
    def ready(self) -> tuple[Manifest, ...]:
        return tuple(pod for pod in self.living if holds(pod, "Ready"))

    def rolled_out(self, replicas: int) -> bool:
        """Whether there are the newest pods alone, as many as wanted, and all answer."""
        return not self.older and len(self.newest) == len(self.ready) == replicas

    def serves(self) -> Counter[str]:
        """How many ready pods serve which model."""
        told = (model_in(annotations_of(pod)) for pod in self.ready)
        steps = (f"{model.uri}{'' if model.step is None else f' of step {model.step}'}" for model in told if model)
        return Counter(steps)


def fleet_of(pods: Sequence[Manifest], deployment: Manifest, template: Manifest | None) -> Fleet:
    """``template`` is that of the pods as it will be applied, None if it stays; what others have added to it stays."""
    marks = marks_of(deployment, template)
    leaving = tuple(pod for pod in pods if "deletionTimestamp" in pod["metadata"])
    ended = [pod for pod in pods if has_ended(pod) and pod not in leaving]
    living = [pod for pod in pods if pod not in leaving and pod not in ended]
    newest = [pod for pod in living if is_of(pod, marks)]
    younger = max((age_of(pod) for pod in newest), default="")
    told = tuple(pod for pod in ended if is_of(pod, marks) and (not newest or age_of(pod) > younger))
    return Fleet(tuple(newest), tuple(pod for pod in living if pod not in newest), leaving, told)


def marks_of(deployment: Manifest, template: Manifest | None) -> dict[str, dict[str, Any]]:
    """The labels and annotations by which a pod is of the newest template: our hash of it, and what others have added.

    Of what we set no values are compared: an admission webhook may change them, in the template or in each pod.
    """
    there = template_metadata(deployment)
    own = template["metadata"] if template else template_metadata(ours(deployment) if deployment else {})
    marks = {
        field: {key: value for key, value in (there.get(field) or {}).items() if key not in own.get(field, {})}
        for field in ("labels", "annotations")
    }
    if TEMPLATE in own.get("annotations", {}):
        marks["annotations"][TEMPLATE] = own["annotations"][TEMPLATE]
    return marks


def is_of(pod: Manifest, marks: dict[str, dict[str, Any]]) -> bool:
    metadata = pod["metadata"]
    return all((metadata.get(field) or {}).items() >= wanted.items() for field, wanted in marks.items())


def age_of(pod: Manifest) -> str:
    """When it was made; of two the greater is the younger."""
    return str(pod["metadata"].get("creationTimestamp", ""))


def template_metadata(deployment: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = ((deployment.get("spec") or {}).get("template") or {}).get("metadata") or {}
    return found


def annotations_of(pod: Manifest) -> dict[str, str]:
    return pod["metadata"].get("annotations") or {}


def has_ended(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") in ENDED
