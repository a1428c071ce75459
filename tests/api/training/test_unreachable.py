"""Trainings whose rank 0 can't be reached, say because of a NetworkPolicy: they are as quickly helped as others."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llm_operator import app
from llm_operator.kube import labels, pull
from llm_operator.kube.cache import Cache
from llm_operator.kube.client import Client
from llm_operator.kube.kinds import CLAIM, POD, TRAINING
from llm_operator.kube.login import Connection
from llm_operator.kube.operator import Operator
from llm_operator.kube.plan import Manifest
from llm_operator.kube.workers import share_of_one
from llm_operator.settings import Settings
from llm_trainer.protocol import PROGRESS_PORT, Progress
from tests.api.kube.manifests import training
from tests.api.training.conftest import CLAIM as CLAIM_SPEC
from tests.cluster.control_plane import ControlPlane

ADDRESS = "127.94.0.2"
NAMES = [f"silent-{number:03}" for number in range(120)]
_numbers = itertools.count(1)


class SilentRank0:
    """Takes connections and says nothing, as a firewall that drops packets; knows which are still waited on."""

    def __init__(self) -> None:
        self.waiting: list[socket.socket] = []
        self._listener = socket.create_server((ADDRESS, PROGRESS_PORT), backlog=256)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                self.waiting.append(self._listener.accept()[0])

    def given_up(self) -> int:
        """Requests that their sender has ended."""
        return sum(closed(connection) for connection in list(self.waiting))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.waiting:
            connection.close()


def closed(connection: socket.socket) -> bool:
    """Whether the other side has ended; what it has sent is read and forgotten."""
    with suppress(BlockingIOError):
        while connection.recv(4096, socket.MSG_DONTWAIT):
            pass
        return True
    return False


@asynccontextmanager
async def operating(settings: Settings) -> AsyncIterator[None]:
    """The operator in a thread of its own: when kopf ends it cancels every task of its event loop."""
    started: Future[tuple[Operator, asyncio.AbstractEventLoop]] = Future()

    async def operate() -> None:
        cache, connection = Cache(), await Connection.open()
        client = Client(connection)
        operator = Operator(settings, connection, client, cache, app.rooms(cache, client, settings))
        started.set_result((operator, asyncio.get_running_loop()))
        await app.serve(operator)

    ended = asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(operate()))
    operator, loop = await asyncio.wrap_future(started)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(operator.stop.set)
        await ended


@dataclass(frozen=True)
class Cluster:
    """A namespace without nodes: the test says of the pods what a kubelet would."""

    client: Client
    namespace: str

    @property
    def settings(self) -> Settings:
        return Settings(namespaces=(self.namespace,), pod_namespace=self.namespace, progress_interval_seconds=0.1,
                        metrics_port=0, probe_port=0)  # fmt: skip

    async def set_pod(self, pod: Manifest, phase: str, state: dict[str, Any]) -> None:
        container = {"name": "trainer", "image": "trainer:1", "imageID": "", "ready": "running" in state,
                     "restartCount": 0, "state": state}  # fmt: skip
        status = {"phase": phase, "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}], "containerStatuses": [container]}
        path = POD.path(self.namespace, pod["metadata"]["name"], "status")
        merge = {"Content-Type": "application/merge-patch+json"}
        await self.client.request("PATCH", path, body={"status": status}, headers=merge)

    async def pods(self) -> dict[str, Manifest]:
        """By training."""
        items = (await self.client.get(POD.path(self.namespace)))["items"]
        return {item["metadata"]["labels"][labels.TRAINING]: item for item in items}

    async def training(self, name: str) -> Manifest:
        return await self.client.get(TRAINING.path(self.namespace, name))

    async def message(self, name: str) -> str:
        """Of the condition Running."""
        conditions = (await self.training(name))["status"]["conditions"]
        return str(next(condition["message"] for condition in conditions if condition["type"] == "Running"))

    async def run(self, *names: str) -> None:
        """Trainings of one pod each, until their pods run and the status says so."""
        for name in names:
            await self.client.create(TRAINING, training(self.namespace, name))

        async def all_made() -> bool:
            return len(await self.pods()) == len(names)

        await until(all_made)
        for pod in (await self.pods()).values():
            await self.set_pod(pod, "Running", {"running": {"startedAt": "2026-01-01T00:00:00Z"}})

        async def all_run() -> bool:
            found = (await self.client.get(TRAINING.path(self.namespace)))["items"]
            return all((item.get("status") or {}).get("phase") == "Running" for item in found)

        await until(all_run)


@pytest.fixture
async def cluster(api_server: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    namespace = f"unreachable-{next(_numbers)}"
    api_server.kubectl("create", "namespace", namespace)
    api_server.authority.issue(namespace, f"/O=system:masters/CN={namespace}")
    api_server.authority.kubeconfig(namespace, api_server.server, tmp_path / "kubeconfig")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    client = Client(await Connection.open())
    metadata = {"name": "models", "namespace": namespace}
    await client.create(CLAIM, {"apiVersion": "v1", "kind": CLAIM.name, "metadata": metadata, "spec": CLAIM_SPEC})
    yield Cluster(client, namespace)
    await client.close()
    api_server.kubectl("delete", "namespace", namespace, "--wait=false")


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """pytest's time limit ends a wait for what never comes."""
    while True:
        if await true():
            return
        await asyncio.sleep(0.1)


async def test_no_training_waits_for_the_rank_0_of_another(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """All requests that may be under way are, and never end; still a failed pod is answered by a new attempt."""
    monkeypatch.setattr(pull, "ANSWER_SECONDS", 3600.0)
    at_once = share_of_one(pull.REQUESTS_AT_ONCE)  # all are of one namespace
    victim = NAMES[-1]

    async def as_many_as_may_be() -> bool:
        return len(silent.waiting) == at_once

    async def second_attempt() -> bool:
        return len((await cluster.training(victim))["status"]["stages"][0]["attempts"]) == 2

    with closing(SilentRank0()) as silent:
        async with operating(cluster.settings):
            await cluster.run(*NAMES)
            await until(as_many_as_may_be)
            pod = (await cluster.pods())[victim]
            await cluster.set_pod(pod, "Failed", {"terminated": {"exitCode": 137, "reason": "Error"}})
            await until(second_attempt)
            first = (await cluster.training(victim))["status"]["stages"][0]["attempts"][0]
            assert first["reason"] == "Killed"
            assert silent.given_up() == 0, "the answer came after a request had ended, perhaps only then"
            assert len(silent.waiting) == at_once, "more requests than may be under way"


async def test_the_status_says_so_until_rank_0_speaks(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(pull, "LONGEST_PAUSE_SECONDS", 0.5)

    async def told() -> bool:
        return "can't be asked" in await cluster.message("chat")

    async def heard() -> bool:
        return "can't be asked" not in await cluster.message("chat")

    async def tried_again() -> bool:
        return len(silent.waiting) >= tries + 3

    async with operating(cluster.settings):
        with closing(SilentRank0()) as silent:
            await cluster.run("chat")
            await until(told)
            pod = (await cluster.pods())["chat"]["metadata"]["name"]
            said = await cluster.message("chat")
            assert said.startswith(f"stage data, attempt 1: 1 pod runs; rank 0 (pod {pod}, {ADDRESS}) can't be asked")
            assert "timeout after 0.1 s; allow the operator's namespace in your NetworkPolicy (TCP port 9400)" in said
            version = (await cluster.training("chat"))["metadata"]["resourceVersion"]
            tries = len(silent.waiting)
            await until(tried_again)
            after = (await cluster.training("chat"))["metadata"]["resourceVersion"]
            assert after == version, "a try that fails as the one before is nothing to write"
        with speaking():
            await until(heard)
            assert (await cluster.training("chat"))["status"]["progress"] == "3/9 33%"


@contextmanager
def speaking() -> Iterator[None]:
    """A rank 0 that answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = Progress(stage="data", attempt=1, step=3, total_steps=9, heartbeat=time.time())
            body = told.model_dump_json(by_alias=True).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((ADDRESS, PROGRESS_PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
