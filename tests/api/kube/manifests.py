"""Objects that the tests of the kube room use, and a room that is as small as a room can be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_operator.kube import labels
from llm_operator.kube.cache import Cache
from llm_operator.kube.kinds import SERVING, TRAINING, Kind
from llm_operator.kube.plan import Delete, Event, Key, Manifest, Plan
from llm_operator.kube.poller import Wake


def training(namespace: str, name: str = "chat", nodes: int = 1) -> Manifest:
    return {
        "apiVersion": TRAINING.api_version,
        "kind": TRAINING.name,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodes": nodes,
            "storage": {"persistentVolumeClaim": {"claimName": "models"}},
            "model": {"architecture": {"family": "llama", "config": {"hidden_size": 64}}},
            "tokenizer": {"train": {"vocabularySize": 512}},
            "data": {"sources": [{"name": "text", "uri": "pvc://models/*.txt"}]},
            "stages": [{"name": "base", "pretrain": {"sequenceLength": 16, "steps": 1}}],
        },
    }


def serving(namespace: str, name: str = "chat") -> Manifest:
    return {
        "apiVersion": SERVING.api_version,
        "kind": SERVING.name,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"uri": "pvc://models/chat"}},
    }


def child(owner: Manifest, kind: str, name: str, **fields: Any) -> Manifest:
    api_version = "batch/v1" if kind == "Job" else "v1"
    metadata = owner["metadata"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": metadata["name"],
                 "uid": metadata["uid"], "controller": True}  # fmt: skip
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {labels.MANAGED_BY: labels.OPERATOR, labels.TRAINING: metadata["name"]},
            "ownerReferences": [reference],
        },
        **fields,
    }


def config_map(owner: Manifest, name: str = "") -> Manifest:
    return child(
        owner, "ConfigMap", name or f"{owner['metadata']['name']}-config", data={"key": "value"}, immutable=True
    )


def job(owner: Manifest, name: str = "") -> Manifest:
    container = {"name": "main", "image": "none", "command": ["true"]}
    pod_labels = {labels.MANAGED_BY: labels.OPERATOR, labels.TRAINING: owner["metadata"]["name"]}
    template = {"metadata": {"labels": pod_labels}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    name = name or f"{owner['metadata']['name']}-job"
    return child(owner, "Job", name, spec={"backoffLimit": 0, "template": template})


class SmallRoom:
    """Wants a ConfigMap and a Job for each training, none of the ConfigMaps named old, and says so in the status."""

    about = "Running"

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.forgotten: list[Key] = []

    def forget(self, key: Key) -> None:
        self.forgotten.append(key)

    def observe(self, key: Key) -> tuple[Manifest, list[Manifest]] | None:
        owner = self._cache.get(key.kind, key.namespace, key.name)
        return None if owner is None else (owner, [*self._children(key)])

    def reconcile(self, observed: tuple[Manifest, list[Manifest]], now: float) -> Plan:
        owner, children = observed
        del now
        there = {(child["kind"], child["metadata"]["name"]) for child in children}
        wanted = [config_map(owner), job(owner)]
        missing = [child for child in wanted if (child["kind"], child["metadata"]["name"]) not in there]
        old = [child for child in children if child["metadata"]["name"] == "old"]
        status = {
            "phase": "Running",
            "conditions": [],
            "stages": [],
            "observedGeneration": owner["metadata"]["generation"],
        }
        return Plan(
            create=tuple(missing),
            delete=tuple(Delete("v1", "ConfigMap", "old", child["metadata"]["uid"]) for child in old),
            status=None if _within(status, owner.get("status") or {}) else status,
            events=(Event("Normal", "Started", "the job was made"),) if missing else (),
        )

    def refused(self, observed: tuple[Manifest, list[Manifest]], problem: str, now: float) -> Plan:
        del now
        status = {"phase": "Pending", "conditions": [], "stages": []}
        return Plan(status=status, events=(Event("Warning", "ApplyRefused", problem),))

    def wrote(self, key: Key, owner: Manifest, status: Manifest) -> None:
        del key, owner, status

    def unseen(self, observed: tuple[Manifest, list[Manifest]]) -> Iterable[tuple[Kind, str]]:
        del observed
        return ()

    def wakes(self, kind: str, manifest: Manifest) -> Iterable[Key]:
        del kind, manifest
        return ()

    async def run(self, wake: Wake) -> None:
        """The watches tell all."""

    def _children(self, key: Key) -> Iterable[Manifest]:
        for kind in ("ConfigMap", "Job"):
            yield from self._cache.children(kind, key)


def _within(part: Manifest, whole: Manifest) -> bool:
    """The API server adds the schema's defaults to what was written."""
    return all(whole.get(key) == value for key, value in part.items())
