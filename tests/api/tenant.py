"""A tenant in a process of his own, as others' are: what he waits for is not delayed by what a test does itself.

    python -m tests.api.tenant NAMESPACE

makes one training after another, with the cluster of KUBECONFIG, until it is ended. Each is a line of JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from llm_operator.kube import labels
from llm_operator.kube.client import Client
from llm_operator.kube.kinds import JOB, TRAINING
from llm_operator.kube.login import Connection
from tests.specs import TRAINING as SPEC

LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Reaction:
    """Seconds from the request for a training until the API server has taken it, and until its Job is there."""

    taken: float
    job: float


async def reaction(client: Client, namespace: str, name: str) -> Reaction:
    """The training goes again. The time limit of the test ends a wait for what never comes."""
    metadata = {"name": name, "namespace": namespace}
    training = {"apiVersion": TRAINING.api_version, "kind": TRAINING.name, "metadata": metadata, "spec": SPEC}
    query = {"labelSelector": f"{labels.TRAINING}={name}"}
    began = time.monotonic()
    await client.create(TRAINING, training)
    taken = time.monotonic() - began
    while not (await client.get(JOB.path(namespace), query))["items"]:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_SECONDS)
    job = time.monotonic() - began
    await client.request("DELETE", TRAINING.path(namespace, name))
    return Reaction(taken, job)


@asynccontextmanager
async def at_work(namespace: str, told: Path) -> AsyncIterator[list[Reaction]]:
    """He works all the while, and then until one more training has its Job. The list has all of them at the end."""
    found: list[Reaction] = []
    with told.open("wb") as stream:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, namespace, stdout=stream)
    try:
        yield found
        before = len(read(told))
        while len(read(told)) == before:
            assert process.returncode is None, "the tenant's process has ended; its words are above"
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    found += read(told)


def read(told: Path) -> list[Reaction]:
    return [Reaction(**json.loads(line)) for line in told.read_text().splitlines()]


async def main(namespace: str) -> None:
    client = Client(await Connection.open())
    for number in itertools.count(1):
        found = await reaction(client, namespace, f"tenant-{os.getpid()}-{number}")
        print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
