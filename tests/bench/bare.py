"""The bare client: brings LLMTrainings to what the operator makes of them, with no more than the writes themselves.

What it writes it has learned from one training that the operator brought up.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from llm_operator.kube.client import Client
from llm_operator.kube.drift import FIELD_MANAGER
from llm_operator.kube.kinds import KINDS, TRAINING
from tests.cluster.control_plane import ControlPlane

CONCURRENCY = 16


def training(name: str, namespace: str) -> dict[str, Any]:
    """A small LLMTraining whose first stage needs a ConfigMap and a Job."""
    return {
        "apiVersion": TRAINING.api_version,
        "kind": TRAINING.name,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodes": 2,
            "resources": {"limits": {"cpu": "1", "memory": "2Gi"}},
            "storage": {"persistentVolumeClaim": {"claimName": "models"}},
            "model": {"architecture": {"family": "llama", "config": {"hidden_size": 64, "num_hidden_layers": 2}}},
            "tokenizer": {"train": {"vocabularySize": 1024}},
            "data": {"sources": [{"name": "manual", "uri": "pvc://models/text/*.txt", "language": "en"}]},
            "stages": [{"name": "base", "pretrain": {"sequenceLength": 128, "steps": 100}}],
        },
    }


async def for_all(names: Iterable[str], work: Callable[[str], Awaitable[None]]) -> None:
    """Does the work for every name, CONCURRENCY at a time."""
    waiting = iter(list(names))

    async def one_after_another() -> None:
        for name in waiting:
            await work(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(one_after_another())


async def bare(
    client: Client, namespace: str, names: list[str], children: list[dict[str, Any]], status: dict[str, Any]
) -> float:
    """Seconds for all trainings, their children, event and status. ``children`` hold NAME and UID."""
    template = json.dumps(children)

    async def bring_up(name: str) -> None:
        owner = await client.create(TRAINING, training(name, namespace))
        text = template.replace("NAME", name).replace("UID", owner["metadata"]["uid"])
        for manifest in json.loads(text):
            await client.create(KINDS[manifest["kind"]], manifest)
        await client.replace_status(owner, status)

    began = time.monotonic()
    await for_all(names, bring_up)
    return time.monotonic() - began


async def learn(
    client: Client, plane: ControlPlane, name: str, measured: str, namespace: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What the operator wrote for this training, for another namespace: the fields that its field manager owns."""
    owner = await client.get(TRAINING.path(measured, name))
    uid = owner["metadata"]["uid"]
    children = []
    for resource in ("configmaps", "jobs.batch", "events.events.k8s.io"):
        found = json.loads(plane.kubectl("get", resource, "-n", measured, "--show-managed-fields", "-o", "json"))
        for item in found["items"]:
            owners = (*item["metadata"].get("ownerReferences", ()), item.get("regarding", {}))
            if any(owner.get("uid") == uid for owner in owners):
                ours = next(m for m in item["metadata"]["managedFields"] if m["manager"] == FIELD_MANAGER)
                manifest = only_fields(item, ours["fieldsV1"])
                manifest |= {"apiVersion": item["apiVersion"], "kind": item["kind"]}
                place = {"name": item["metadata"]["name"], "namespace": namespace}
                manifest["metadata"] = manifest.get("metadata", {}) | place
                children.append(manifest)
    text = json.dumps(children).replace(uid, "UID").replace(name, "NAME").replace(f'"{measured}"', f'"{namespace}"')
    return json.loads(text), owner["status"]


def only_fields(value: Any, fields: dict[str, Any]) -> Any:
    """The part of an object that a managedFields entry names."""
    if not isinstance(value, dict | list) or not [key for key in fields if key != "."]:
        return value
    if isinstance(value, dict):
        return {key[2:]: only_fields(value[key[2:]], below) for key, below in fields.items() if key.startswith("f:")}
    kept = []
    for key, below in fields.items():
        if key.startswith("k:"):
            selector = json.loads(key[2:])
            item = next(item for item in value if all(item.get(k) == v for k, v in selector.items()))
            kept.append(only_fields(item, below))
        elif key.startswith("v:"):
            kept.append(json.loads(key[2:]))
    return kept
