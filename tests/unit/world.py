"""A cluster of plain dicts: what a plan writes, and what a pass would then see."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llm_operator.api.conditions import timestamp
from llm_operator.api.network import NetworkPolicies
from llm_operator.kube.drift import FIELD_MANAGER, FIELDS
from llm_operator.kube.network import Network
from llm_operator.kube.plan import Manifest, Plan
from llm_operator.kube.sightings import Sightings

START = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def custom_resource(kind: str, name: str, spec: dict[str, Any]) -> Manifest:
    return {
        "apiVersion": "llm-operator.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "team", "uid": "0123abcd-0000", "generation": 1},
        "spec": spec,
    }


NETWORK = Network(
    "llm-operator",
    NetworkPolicies.model_validate({
        "enabled": True,
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "servingFrom": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "gateway"}}}],
        "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}],
    }),
)  # fmt: skip


@dataclass
class World:
    """``owner`` is the custom resource, ``objects`` are its children by kind and name."""

    owner: Manifest
    objects: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    departed: list[Manifest] = field(default_factory=list)  # pods that are gone, if anybody has seen them go
    sightings: Sightings = field(default_factory=Sightings)
    network: Network | None = None  # NetworkPolicies that are made

    def departed_pods(self) -> tuple[Manifest, ...]:
        return tuple(copy.deepcopy(self.departed))

    def of(self, kind: str) -> tuple[Manifest, ...]:
        return tuple(copy.deepcopy(found) for (at, _), found in sorted(self.objects.items()) if at == kind)

    def writes(self, plan: Plan) -> Iterator[tuple[str, Any]]:
        """In the order in which the executor makes them; events are no state."""
        yield from (("delete", child) for child in plan.delete)
        yield from (("create", manifest) for manifest in plan.create)
        yield from (("apply", manifest) for manifest in plan.apply)
        if plan.status is not None:
            yield "status", plan.status

    def execute(self, plan: Plan, first: int | None = None) -> int:
        """Make all writes of a plan, or the first few as if the operator had died then; how many were made."""
        made = list(self.writes(plan))[:first]
        for verb, what in made:
            match verb:
                case "create" | "apply":
                    at = (what["kind"], what["metadata"]["name"])
                    assert verb == "apply" or at not in self.objects, f"{at} is there already"
                    known = self.objects.get(at, {"metadata": {"uid": f"uid-{at[0]}-{at[1]}"}})
                    merged = {**copy.deepcopy(what), **{k: v for k, v in known.items() if k == "status"}}
                    merged["metadata"] = {"uid": known["metadata"]["uid"], **merged["metadata"]}
                    if verb == "apply":
                        merged["metadata"][FIELDS] = [applied_record(what)]
                    self.objects[at] = merged
                case "delete":
                    self.objects.pop((what.kind, what.name), None)
                    owned = f"{what.name}-" if what.kind in ("Job", "Deployment") else "\0"
                    for at in [at for at in self.objects if at[0] == "Pod" and at[1].startswith(owned)]:
                        del self.objects[at]
                case "status":
                    self.owner = {**self.owner, "status": copy.deepcopy(what)}
        return len(made)


def applied_record(manifest: Manifest) -> dict[str, Any]:
    """As the API server records an apply; lists are one field here."""
    tracked = {field: value for field, value in manifest.items() if field not in ("apiVersion", "kind")}
    tracked["metadata"] = {k: v for k, v in tracked["metadata"].items() if k not in ("name", "namespace")}
    return {"manager": FIELD_MANAGER, "operation": "Apply", "time": timestamp(START), "fieldsV1": fields_of(tracked)}


def fields_of(value: Any) -> dict[str, Any]:
    return {f"f:{key}": fields_of(item) for key, item in value.items()} if isinstance(value, dict) else {}


def check_golden(file: Path, plan: Plan) -> None:
    """Compare a plan with the file that says what it was when somebody last read it.

    UPDATE_GOLDEN=1 writes the file anew; read the difference before you commit it.
    """
    shown = {
        "create": list(plan.create),
        "apply": list(plan.apply),
        "delete": [{name: value for name, value in vars(child).items() if value} for child in plan.delete],
        "status": plan.status,
        "events": [{"type": e.type, "reason": str(e.reason), "message": e.message} for e in plan.events],
        "requeueAfter": plan.requeue_after,
    }
    text = yaml.dump(
        {key: value for key, value in shown.items() if value},
        Dumper=Dumper,
        sort_keys=True,
        allow_unicode=True,
        width=120,
    )
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert file.exists(), f"{file.name} is missing: run with UPDATE_GOLDEN=1 and read it"
    assert text == file.read_text(), f"the plan differs from {file.name}; if that is meant, run with UPDATE_GOLDEN=1"


class Dumper(yaml.SafeDumper):
    """Long texts as blocks, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _text)
Dumper.add_multi_representer(str, lambda dumper, text: _text(dumper, str(text)))
