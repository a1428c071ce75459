"""The operator against a bare client, on a real etcd, API server and controller manager; no nodes, no scheduler.

Both create LLMTrainings and bring each to a ConfigMap, an Indexed Job, an event and one status write, in turns. The
bare client is this process, which POSTs what it knows beforehand; the operator is a process of its own, and this one
then only creates the LLMTrainings. Both are watched from here. "Status" is the time at which the status names the first
attempt's Job; pods can't run without nodes, so the phase stays Pending.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from llm_operator.kube.client import Client
from llm_operator.kube.kinds import JOB, TRAINING, Kind
from llm_operator.kube.login import Connection
from tests.bench import audit
from tests.bench.bare import CONCURRENCY, bare, for_all, learn, training
from tests.bench.plane import OPERATOR_USER, control_plane, operator_kubeconfig
from tests.bench.process import OperatorProcess, ServerCpu
from tests.cluster.control_plane import ControlPlane
from tests.cluster.settings import REPOSITORY

BARE, MEASURED = "bare", "measured"
QUIET_SECONDS = 6.0
ROUNDS = 4


@asynccontextmanager
async def first_times(
    connection: Connection, namespace: str, kind: Kind, counts: Callable[[dict[str, Any]], str | None]
) -> AsyncIterator[dict[str, float]]:
    """Watches a kind; the dict fills with the time at which each name was first counted."""
    seen: dict[str, float] = {}
    session = connection.session()

    async def watch() -> None:
        url = f"{connection.server}{kind.path(namespace)}?watch=1"
        async with session, session.get(url, timeout=aiohttp.ClientTimeout(total=None)) as stream:
            async for line in stream.content:
                name = counts(json.loads(line)["object"])
                if name:
                    seen.setdefault(name, time.monotonic())

    task = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def watched(connection: Connection, namespace: str) -> AsyncIterator[tuple[dict[str, float], dict[str, float]]]:
    """When each training had its Job, and when its status said so. The bare client is watched too: it costs time."""
    async with (
        first_times(connection, namespace, JOB, job_of) as jobs,
        first_times(connection, namespace, TRAINING, says_so) as told,
    ):
        await asyncio.sleep(1)
        yield jobs, told


def job_of(job: dict[str, Any]) -> str | None:
    return next((str(owner["name"]) for owner in job["metadata"].get("ownerReferences", ())), None)


def says_so(found: dict[str, Any]) -> str | None:
    stages = (found.get("status") or {}).get("stages") or ()
    return str(found["metadata"]["name"]) if any(stage.get("attempts") for stage in stages) else None


async def measured(client: Client, connection: Connection, names: list[str]) -> tuple[list[float], list[float]]:
    """Creates the trainings; returns the sorted seconds until each had its Job, and until its status said so."""

    async def create(name: str) -> None:
        await client.create(TRAINING, training(name, MEASURED))

    async with watched(connection, MEASURED) as (jobs, told):
        began = time.monotonic()
        await for_all(names, create)
        while not set(names) <= jobs.keys() & told.keys():  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return sorted(jobs[name] - began for name in names), sorted(told[name] - began for name in names)


# --- the run ---------------------------------------------------------------------------------------------------------


def report(title: str, rows: dict[str, str]) -> None:
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:<46} {value}", flush=True)


@dataclass(frozen=True)
class Round:
    """Seconds for so many trainings: of the bare client, and of the operator until all Jobs, and all statuses."""

    count: int
    bare: float
    jobs: list[float]
    told: list[float]

    @property
    def ratio(self) -> float:
        return self.bare / self.told[-1]

    def __str__(self) -> str:
        rates = [self.count / seconds for seconds in (self.bare, self.jobs[-1], self.told[-1])]
        return f"{rates[0]:6.1f} {rates[1]:6.1f} {rates[2]:6.1f} CR/s   {self.ratio:.2f} of the bare client"


@dataclass
class Took:
    """What the operator's halves of the rounds took together."""

    cpu: float = 0.0
    servers: tuple[float, float] = (0.0, 0.0)
    verbs: Counter[str] = field(default_factory=Counter)


async def compare(plane: ControlPlane, arguments: argparse.Namespace) -> None:
    os.environ["KUBECONFIG"] = str(plane.kubeconfig)
    connection = await Connection.open()
    client = Client(connection)
    names = [f"llm-{number:05d}" for number in range(arguments.trainings)]
    kubeconfig, log = operator_kubeconfig(plane), plane.state / "operator.log"
    async with OperatorProcess.started(kubeconfig, log, namespaces=MEASURED, module=arguments.module) as operator:
        report("The operator, idle", {"resident memory": f"{operator.memory_mib()[0]:.0f} MiB"})
        await measured(client, connection, ["first"])
        await settled(plane)
        children, status = await learn(client, plane, "first", MEASURED, BARE)
        idle = await ServerCpu.idle_rate(plane)
        rounds, took = [], Took()
        for number in range(ROUNDS):
            batch = names[number::ROUNDS]
            async with watched(connection, BARE):
                bare_seconds = await bare(client, BARE, batch, children, status)
            await settled(plane)
            cpu, server, began = operator.cpu_seconds(), ServerCpu.now(plane), time.time()
            jobs, told = await measured(client, connection, batch)
            await settled(plane)
            rounds.append(Round(len(batch), bare_seconds, jobs, told))
            took.cpu += operator.cpu_seconds() - cpu
            spent = ServerCpu.now(plane).since(server, idle)
            took.servers = (took.servers[0] + spent[0], took.servers[1] + spent[1])
            took.verbs += audit.by_verb(audit.requests(plane.audit_log, OPERATOR_USER, began))
        report(f"{len(names)} LLMTrainings in {ROUNDS} rounds, concurrency {CONCURRENCY}", told_of(rounds))
        report("What it took", what_it_took(operator, len(names), took))
        await steady(plane, operator, arguments.steady_minutes)
    lines = [line for line in log.read_text().splitlines() if " ERROR " in line or " WARNING " in line]
    report(
        f"Warnings and errors in the operator's log: {len(lines)}", {str(n): lines[n] for n in range(len(lines[:5]))}
    )
    await client.close()


def told_of(rounds: list[Round]) -> dict[str, str]:
    """Each round is compared with itself: the machine is faster in one than in another."""
    return {
        "round: bare client; operator's Jobs, statuses": "",
        **{str(number): str(found) for number, found in enumerate(rounds, start=1)},
        "median of the rounds": f"{median(found.ratio for found in rounds):.2f} of the bare client",
        "median until the status": f"{median(seconds for found in rounds for seconds in found.told):.2f} s",
    }


def what_it_took(operator: OperatorProcess, count: int, took: Took) -> dict[str, str]:
    """Memory, CPU, and requests by verb and resource."""
    now, most = operator.memory_mib()
    return {
        "resident memory, at most": f"{now:.0f} MiB, {most:.0f} MiB",
        **{f"{what}, per CR until settled": f"{number / count:.2f}" for what, number in sorted(took.verbs.items())},
        "CPU until settled, per 1,000": f"{took.cpu * 1000 / count:.1f} s",
        **servers_took(took.servers, count),
    }


def servers_took(spent: tuple[float, float], count: int) -> dict[str, str]:
    """With the watches, the Job controller's writes and those of this process, until all have settled."""
    names = ("API server", "etcd")
    return {
        f"CPU of {name} beyond idling, per CR": f"{cpu * 1000 / count:.1f} ms"
        for name, cpu in zip(names, spent, strict=True)
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.operator", description=__doc__)
    parser.add_argument("--trainings", type=int, default=1000)
    parser.add_argument("--steady-minutes", type=float, default=3)
    parser.add_argument("--module", default="llm_operator", help=argparse.SUPPRESS)
    parser.add_argument("--crds", type=Path, default=REPOSITORY / "crds", help="folder, to compare with an older one")
    arguments = parser.parse_args()
    with control_plane(BARE, MEASURED, crds=arguments.crds) as plane:
        asyncio.run(compare(plane, arguments))


if __name__ == "__main__":
    main()
