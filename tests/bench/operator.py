"""The operator against a bare client, on a real etcd, API server and controller manager; no nodes, no scheduler.

Both create N LLMTrainings and bring each to a ConfigMap, a headless Service, an Indexed Job, an event and one status
write. The bare client is this process, which POSTs what it knows beforehand; the operator is a process of its own, and
this one then only creates the LLMTrainings and watches. "Status" is the time at which the status names the first
attempt's Job; pods can't run without nodes, so the phase stays Pending.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable
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
        bare_seconds = [await bare(client, BARE, [f"before-{name}" for name in names], children, status)]
        await settled(plane)
        cpu, server, began = operator.cpu_seconds(), ServerCpu.now(plane), time.time()
        jobs, told = await measured(client, connection, names)
        running = time.time()
        await settled(plane)
        took = what_it_took(plane, operator, len(names), began, running)
        took["CPU until settled, per 1,000"] = f"{(operator.cpu_seconds() - cpu) * 1000 / len(names):.1f} s"
        took |= servers_took(ServerCpu.now(plane).since(server, idle), len(names))
        bare_seconds.append(await bare(client, BARE, [f"after-{name}" for name in names], children, status))
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
    parser.add_argument("--steady-minutes", type=float, default=10)
    parser.add_argument("--module", default="llm_operator", help=argparse.SUPPRESS)
    parser.add_argument("--crds", type=Path, default=REPOSITORY / "crds", help="folder, to compare with an older one")
    arguments = parser.parse_args()
    with control_plane(BARE, MEASURED, crds=arguments.crds) as plane:
        asyncio.run(compare(plane, arguments))


if __name__ == "__main__":
    main()
