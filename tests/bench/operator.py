"""The operator against a bare client, on a real etcd, API server and controller manager; no nodes, no scheduler.

Both create N LLMTrainings and bring each to a ConfigMap, a headless Service, an Indexed Job and one status write. The
bare client is this process, which knows beforehand what to write; the operator is a process of its own, while this
one only creates the LLMTrainings and watches. "Status" is the time at which the status names the first attempt's Job;
pods can't run without nodes, so the phase stays Pending.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from llm_operator.kube.client import Client
from llm_operator.kube.kinds import JOB, TRAINING, Kind
from llm_operator.kube.login import Connection
from tests.bench import audit
from tests.cluster.cluster import binaries
from tests.cluster.control_plane import ControlPlane
from tests.cluster.settings import REPOSITORY

CLAIM = Path(__file__).parent / "claim.yaml"
OPERATOR_USER = "llm-operator-under-test"
BARE, MEASURED = "bare", "measured"
CONCURRENCY = 16
QUIET_SECONDS = 6.0
# The controller manager asks at most 20 times a second by default, and would be the only thing that is measured.
CONTROLLERS = ("--kube-api-qps=500", "--kube-api-burst=1000", "--concurrent-job-syncs=10")


def training(name: str, namespace: str) -> dict[str, Any]:
    """A small LLMTraining whose first stage needs a ConfigMap, a Service and a Job."""
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


# --- the bare client -------------------------------------------------------------------------------------------------


async def bare(client: Client, names: list[str], children: list[dict[str, Any]], status: dict[str, Any]) -> float:
    """Seconds for creating all trainings, their children and their status. ``children`` hold NAME and UID."""
    template = json.dumps(children)

    async def bring_up(name: str) -> None:
        owner = await client.create(TRAINING, training(name, BARE))
        text = template.replace("NAME", name).replace("UID", owner["metadata"]["uid"])
        for manifest in json.loads(text):
            await client.apply(manifest)
        await client.replace_status(owner, status)

    began = time.monotonic()
    await for_all(names, bring_up)
    return time.monotonic() - began


async def learn(client: Client, plane: ControlPlane, name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What the operator wrote for this training, as it wrote it: the fields that its field manager owns."""
    owner = await client.get(TRAINING.path(MEASURED, name))
    uid = owner["metadata"]["uid"]
    children = []
    for resource in ("configmaps", "services", "jobs.batch"):
        found = json.loads(plane.kubectl("get", resource, "-n", MEASURED, "--show-managed-fields", "-o", "json"))
        for item in found["items"]:
            if any(reference["uid"] == uid for reference in item["metadata"].get("ownerReferences", ())):
                applied = next(m for m in item["metadata"]["managedFields"] if m["operation"] == "Apply")
                manifest = only_fields(item, applied["fieldsV1"])
                manifest |= {"apiVersion": item["apiVersion"], "kind": item["kind"]}
                manifest["metadata"] |= {"name": item["metadata"]["name"], "namespace": BARE}
                children.append(manifest)
    text = json.dumps(children).replace(uid, "UID").replace(name, "NAME")
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


# --- the operator ----------------------------------------------------------------------------------------------------


class OperatorProcess:
    """The operator as users run it, with its own identity at the API server."""

    def __init__(self, process: asyncio.subprocess.Process, probe_port: int) -> None:
        self._process = process
        self._probe = f"http://127.0.0.1:{probe_port}/readyz"

    @classmethod
    @asynccontextmanager
    async def started(cls, module: str, kubeconfig: Path, log: Path) -> AsyncIterator[OperatorProcess]:
        ports = free_port(), free_port()
        environment = os.environ | {
            "KUBECONFIG": str(kubeconfig),
            "NAMESPACES": MEASURED,
            "METRICS_PORT": str(ports[0]),
            "PROBE_PORT": str(ports[1]),
            "POD_NAME": "bench",
        }
        with log.open("w") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, env=environment, stdout=output, stderr=output
            )
        try:
            operator = cls(process, ports[1])
            await operator._ready(log)
            yield operator
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    async def _ready(self, log: Path) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                if self._process.returncode is not None:
                    raise RuntimeError(f"the operator ended:\n{log.read_text()[-3000:]}")  # noqa: ASYNC240
                with suppress(aiohttp.ClientError):
                    async with session.get(self._probe) as answer:
                        if answer.ok:
                            return
                await asyncio.sleep(0.2)

    def memory_mib(self) -> tuple[float, float]:
        """Resident now and at most."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields["VmRSS"].split()[0]) / 1024, int(fields["VmHWM"].split()[0]) / 1024

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def first_times(connection: Connection, kind: Kind, counts: Callable[[dict[str, Any]], str | None]) -> Any:
    """Watches a kind; yields a dict that fills with the time at which each name was first counted."""
    seen: dict[str, float] = {}
    session = connection.session()

    async def watch() -> None:
        url = f"{connection.server}{kind.path(MEASURED)}?watch=1"
        async with session, session.get(url, timeout=aiohttp.ClientTimeout(total=None)) as stream:
            async for line in stream.content:
                name = counts(json.loads(line)["object"])
                if name:
                    seen.setdefault(name, time.monotonic())

    return seen, asyncio.create_task(watch())


def job_of(job: dict[str, Any]) -> str | None:
    return next((str(owner["name"]) for owner in job["metadata"].get("ownerReferences", ())), None)


def says_so(found: dict[str, Any]) -> str | None:
    stages = (found.get("status") or {}).get("stages") or ()
    return str(found["metadata"]["name"]) if any(stage.get("attempts") for stage in stages) else None


async def measured(client: Client, connection: Connection, names: list[str]) -> tuple[list[float], list[float]]:
    """Creates the trainings; returns the sorted seconds until each had its Job, and until its status said so."""
    jobs, jobs_watch = await first_times(connection, JOB, job_of)
    told, told_watch = await first_times(connection, TRAINING, says_so)
    await asyncio.sleep(1)
    began = time.monotonic()

    async def create(name: str) -> None:
        await client.create(TRAINING, training(name, MEASURED))

    await for_all(names, create)
    while not set(names) <= jobs.keys() & told.keys():  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    for watch in (jobs_watch, told_watch):
        watch.cancel()
    return sorted(jobs[name] - began for name in names), sorted(told[name] - began for name in names)


# --- the run ---------------------------------------------------------------------------------------------------------


def report(title: str, rows: dict[str, str]) -> None:
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:<46} {value}", flush=True)


async def compare(plane: ControlPlane, arguments: argparse.Namespace, folder: Path) -> None:
    os.environ["KUBECONFIG"] = str(plane.kubeconfig)
    connection = await Connection.open()
    client = Client(connection)
    plane.authority.issue("operator", f"/O=system:masters/CN={OPERATOR_USER}")
    kubeconfig = folder / "operator.kubeconfig"
    plane.authority.kubeconfig("operator", plane.server, kubeconfig)
    names = [f"llm-{number:05d}" for number in range(arguments.trainings)]
    log = folder / "operator.log"
    async with OperatorProcess.started(arguments.module, kubeconfig, log) as operator:
        report("The operator, idle", {"resident memory": f"{operator.memory_mib()[0]:.0f} MiB"})
        await measured(client, connection, ["first"])
        await settled(plane)
        children, status = await learn(client, plane, "first")
        bare_seconds = [await bare(client, [f"before-{name}" for name in names], children, status)]
        await settled(plane)
        cpu, began = operator.cpu_seconds(), time.time()
        jobs, told = await measured(client, connection, names)
        running = time.time()
        await settled(plane)
        took = what_it_took(plane, operator, len(names), began, running)
        took["CPU until settled"] = f"{operator.cpu_seconds() - cpu:.1f} s"
        bare_seconds.append(await bare(client, [f"after-{name}" for name in names], children, status))
        report(f"{len(names)} LLMTrainings at once, concurrency {CONCURRENCY}", rates(bare_seconds, jobs, told))
        report("What it took", took)
        await settled(plane)
        await steady(plane, operator, arguments.steady_minutes)
    lines = [line for line in log.read_text().splitlines() if " ERROR " in line or " WARNING " in line]
    report(
        f"Warnings and errors in the operator's log: {len(lines)}", {str(n): lines[n] for n in range(len(lines[:5]))}
    )
    await client.close()


def rates(bare_seconds: list[float], jobs: list[float], told: list[float]) -> dict[str, str]:
    """The bare client ran before and after; its better time counts."""
    count, best = len(jobs), min(bare_seconds)
    rows = {
        "bare client, before": bare_seconds[0],
        "bare client, after": bare_seconds[1],
        "operator, until each has its Job": jobs[-1],
        "operator, until each status says so": told[-1],
    }
    found = {
        what: f"{count / seconds:7.1f} CR/s   {best / seconds:.2f} of the bare client" for what, seconds in rows.items()
    }
    return found | {"median until the Job, until the status": f"{median(jobs):.2f} s, {median(told):.2f} s"}


def what_it_took(
    plane: ControlPlane, operator: OperatorProcess, count: int, began: float, running: float
) -> dict[str, str]:
    """Memory, and requests by verb and resource."""
    early = [request for request in audit.requests(plane.audit_log, OPERATOR_USER, began, running) if request.write]
    writes = sum(request.resource != "leases" for request in early)
    now, most = operator.memory_mib()
    verbs = audit.by_verb(audit.requests(plane.audit_log, OPERATOR_USER, began))
    return {
        "resident memory, at most": f"{now:.0f} MiB, {most:.0f} MiB",
        "writes per CR until all statuses said so": f"{writes / count:.2f}",
        **{f"{what}, per CR until settled": f"{number / count:.2f}" for what, number in sorted(verbs.items())},
    }


async def settled(plane: ControlPlane) -> None:
    """Returns when nobody has written anything but Leases for some seconds."""
    writes = audit.Writes(plane.audit_log)
    while time.time() - writes.look() < QUIET_SECONDS:  # noqa: ASYNC110
        await asyncio.sleep(1)


async def steady(plane: ControlPlane, operator: OperatorProcess, minutes: float) -> None:
    """Nothing happens: nothing may be written but the Lease."""
    began, cpu = time.time(), operator.cpu_seconds()
    await asyncio.sleep(minutes * 60)
    found = [request for request in audit.requests(plane.audit_log, OPERATOR_USER, began) if request.write]
    others = [request for request in found if request.resource != "leases"]
    report(
        f"{minutes:g} minutes of steady state",
        {
            "writes of the Lease": str(len(found) - len(others)),
            "other writes": f"{len(others)} {dict(audit.by_verb(others))}",
            "CPU": f"{operator.cpu_seconds() - cpu:.1f} s",
            "resident memory": f"{operator.memory_mib()[0]:.0f} MiB",
        },
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--trainings", type=int, default=1000)
    parser.add_argument("--steady-minutes", type=float, default=10)
    parser.add_argument("--module", default="llm_operator", help=argparse.SUPPRESS)
    parser.add_argument("--crds", type=Path, default=REPOSITORY / "crds", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="llm-operator-bench-"))
    plane = ControlPlane(
        binaries(), folder / "plane", port=free_port(), etcd_port=14379, controller_options=CONTROLLERS
    )
    try:
        plane.start(scheduler=False)
        plane.kubectl("apply", "--server-side", "-f", arguments.crds)
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        for namespace in (BARE, MEASURED):
            plane.kubectl("create", "namespace", namespace)
            plane.kubectl("apply", "-n", namespace, "-f", CLAIM)
        asyncio.run(compare(plane, arguments, folder))
    finally:
        plane.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
