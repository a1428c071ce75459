"""What a restart of the operator costs when there are many trainings, on a real etcd and API server.

Each training has the ConfigMap, Job and pod of its first stage and its status as the operator and the Job
controller have made them for one. So all is settled: a restarted operator has only to read, and to look at each once.
No controllers run meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_operator.kube.client import Client
from llm_operator.kube.kinds import CLAIM, CONFIG_MAP, JOB, KINDS, POD, TRAINING
from llm_operator.kube.labels import TRAINING as TRAINING_LABEL
from llm_operator.kube.login import Connection
from llm_operator.training.names import child_name
from tests.bench import audit
from tests.bench.bare import for_all, training
from tests.bench.operator import settled
from tests.bench.plane import OPERATOR_USER, control_plane, operator_kubeconfig
from tests.bench.process import OperatorProcess
from tests.cluster.control_plane import ControlPlane

SIZES = (500, 1000, 2000, 10_000)
BESIDE = 1000  # trainings, in a namespace of their own, beside which there are claims of others
CLAIMS = 5000
FIRST, MORE, OTHERS = "first", "more", "others"
MODEL = "learned-from-this-one"
CHILDREN = (CONFIG_MAP, JOB, POD)  # in the order in which they can be made
OF_THE_SERVER = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields")
OF_THE_JOB = ("controller-uid", "job-name")  # labels that the API server itself puts on a Job's template
HEAD = ("LLMTrainings", "CPU s until /readyz", "a training", "wall s", "peak MiB", "CPU s until idle", "peak MiB",
        "writes", "slowest /healthz")  # fmt: skip


@dataclass(frozen=True)
class Settled:
    """A settled training as JSON texts, with a word in place of what differs from one to the other."""

    children: tuple[str, ...]
    job_status: str
    status: str

    @classmethod
    def learn(cls, plane: ControlPlane) -> Settled:
        def get(plural: str) -> list[dict[str, Any]]:
            selector = () if plural == TRAINING.plural else ("-l", f"{TRAINING_LABEL}={MODEL}")
            text = plane.kubectl("get", plural, "-n", FIRST, *selector, "-o", "json")
            found: list[dict[str, Any]] = json.loads(text)["items"]
            return found

        (owner,), children = get(TRAINING.plural), [child for kind in CHILDREN for child in get(kind.plural)]
        job = next(child for child in children if child["kind"] == JOB.name)
        words = {
            job["metadata"]["name"]: "@CHILD@",
            job["metadata"]["uid"]: "@JOB@",
            owner["metadata"]["uid"]: "@OWNER@",
            MODEL: "@NAME@",
        }

        def text(value: dict[str, Any]) -> str:
            return replaced(json.dumps(value), words)

        return cls(tuple(text(as_posted(child)) for child in children), text(job["status"]), text(owner["status"]))

    async def write(self, client: Client, namespace: str, name: str) -> None:
        """Another training like it."""
        owner = await client.create(TRAINING, training(name, namespace))
        uid = owner["metadata"]["uid"]
        words = {"@CHILD@": child_name(name, uid, "data", 1), "@OWNER@": uid, "@NAME@": name}
        for text in self.children:
            child = json.loads(replaced(text, words))
            child["metadata"]["namespace"] = namespace
            made = await client.create(KINDS[child["kind"]], child)
            if child["kind"] == JOB.name:
                words["@JOB@"] = made["metadata"]["uid"]
                path = JOB.path(namespace, made["metadata"]["name"], "status")
                status = json.loads(replaced(self.job_status, words))
                await client.request("PUT", path, body=made | {"status": status})
        await client.replace_status(owner, json.loads(replaced(self.status, words)))


def replaced(text: str, words: dict[str, str]) -> str:
    for this, that in words.items():
        text = text.replace(this, that)
    return text


def as_posted(child: dict[str, Any]) -> dict[str, Any]:
    """Without what the API server adds."""
    metadata = {field: value for field, value in child["metadata"].items() if field not in OF_THE_SERVER}
    posted = {field: value for field, value in child.items() if field != "status"} | {"metadata": metadata}
    if child["kind"] == JOB.name:
        spec = {field: value for field, value in child["spec"].items() if field != "selector"}
        labels = spec["template"]["metadata"]["labels"]
        for label in list(labels):
            if label.rpartition("/")[2] in OF_THE_JOB:
                del labels[label]
        posted["spec"] = spec
    return posted


async def restarted(plane: ControlPlane, kubeconfig: Path, log: Path, namespaces: str) -> list[float]:
    """What the table's row says after the number of trainings and before the writes, and those and the answers."""
    began = time.time()
    async with OperatorProcess.started(kubeconfig, log, namespaces=namespaces, probed=True) as operator:
        cpu, wall, peak = operator.cpu_seconds(), operator.wall_seconds, operator.memory_mib()[1]
        await operator.idle()
        writes = (
            r for r in audit.requests(plane.audit_log, OPERATOR_USER, began) if r.write and r.resource != "leases"
        )
        idle = [operator.cpu_seconds(), operator.memory_mib()[1], len(list(writes)), max(operator.answers)]
    return [cpu, wall, peak, *idle]


def row(what: str, count: int, found: Sequence[float]) -> str:
    cpu, wall, peak, idle_cpu, idle_peak, writes, slowest = found
    cells = (what, f"{cpu:.1f}", f"{cpu * 1000 / count:.1f} ms", f"{wall:.1f}", f"{peak:.0f}", f"{idle_cpu:.1f}",
             f"{idle_peak:.0f}", f"{writes:.0f}", f"{slowest * 1000:.0f} ms")  # fmt: skip
    return f"| {' | '.join(cells)} |"


async def measure(plane: ControlPlane, sizes: Sequence[int]) -> None:
    os.environ["KUBECONFIG"] = str(plane.kubeconfig)
    client = Client(await Connection.open())
    kubeconfig, log = operator_kubeconfig(plane), plane.state / "operator.log"
    async with OperatorProcess.started(kubeconfig, log, namespaces=FIRST):
        await client.create(TRAINING, training(MODEL, FIRST))
        await settled(plane)
    model = Settled.learn(plane)
    plane.processes.stop("kube-controller-manager")
    print(f"\nA restart; each training has 3 children\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
    made = 1

    async def grow(to: int, namespace: str) -> None:
        nonlocal made
        numbers = range(made, max(made, to))
        await for_all([f"llm-{number:05d}" for number in numbers], lambda name: model.write(client, namespace, name))
        made += len(numbers)

    for size in sorted(sizes):
        await grow(min(size, BESIDE), FIRST)
        await grow(size, MORE)
        print(row(f"{made:,}", made, await restarted(plane, kubeconfig, log, "")), flush=True)

    async def claim(name: str) -> None:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        metadata = {"name": name, "namespace": OTHERS}
        await client.create(CLAIM, {"apiVersion": "v1", "kind": CLAIM.name, "metadata": metadata, "spec": spec})

    await for_all([f"claim-{number:05d}" for number in range(CLAIMS)], claim)
    beside = min(made, BESIDE)
    for what, namespaces in (
        (f"{beside:,}, in their namespace", FIRST),
        (f"and {CLAIMS:,} claims", f"{FIRST},{OTHERS}"),
    ):
        print(row(what, beside, await restarted(plane, kubeconfig, log, namespaces)), flush=True)
    await client.close()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.startup", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    sizes = parser.parse_args(arguments).sizes
    with control_plane(FIRST, MORE, OTHERS) as plane:
        asyncio.run(measure(plane, sizes))


if __name__ == "__main__":
    main()
