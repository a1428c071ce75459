"""A training from its first pass to its end, with an operator that dies at every write: no stage runs twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from typing import Any

import pytest

from llm_operator.kube.cache import Cache
from llm_operator.kube.client import Client
from llm_operator.kube.execute import Executor
from llm_operator.kube.kinds import CLAIM, CONFIG_MAP, JOB, POD, SERVICE, TRAINING
from llm_operator.kube.login import Connection
from llm_operator.kube.plan import Key, Manifest
from llm_operator.settings import Settings
from llm_operator.training.names import run_name
from llm_operator.training.room import TrainingRoom
from llm_trainer.protocol import Progress, Result, Termination
from tests import specs
from tests.bench import audit
from tests.cluster.control_plane import ControlPlane

NAME = "chat"
SEEN = (CLAIM, CONFIG_MAP, SERVICE, POD, JOB, TRAINING)
STAGES = ["data", "base", "chat"]


class DeathError(Exception):
    """The process ended here."""


class MortalClient(Client):
    """Dies once at each write of all that a training needs: before it is sent, or before the answer is known."""

    def __init__(self, connection: Connection, *, after: bool) -> None:
        super().__init__(connection)
        self.deaths: set[tuple[str, str, str]] = set()
        self._after = after

    async def request(self, method: str, path: str, **options: Any) -> Manifest:
        write = (method, path, self._what(options.get("body") or {}))
        dies = method != "GET" and write not in self.deaths
        if dies:
            self.deaths.add(write)
        if dies and not self._after:
            raise DeathError
        answer = await super().request(method, path, **options)
        if dies:
            raise DeathError
        return answer

    def _what(self, body: Manifest) -> str:
        """A status by what it says of the stages: the next one is another write."""
        if "status" in body:
            stages = body["status"].get("stages", ())
            return json.dumps([(stage["name"], stage["state"], len(stage["attempts"])) for stage in stages])
        return str(body.get("metadata", {}).get("name", ""))


class Life:
    """One operator after the other. Each begins with what the API server tells; a death ends it."""

    def __init__(self, client: Client, mortal: MortalClient, namespace: str) -> None:
        self.client, self._mortal, self._namespace = client, mortal, namespace

    async def live(self) -> bool:
        """Passes until nothing is to be done; False if the operator died."""
        cache = Cache()
        for kind in SEEN:
            for item in (await self.client.get(kind.path(self._namespace)))["items"]:
                cache.put(kind.name, item)
        room = TrainingRoom(cache, self._mortal, Settings())
        executor = Executor(self._mortal, cache, lambda *_: None, "test")
        key = Key("LLMTraining", self._namespace, NAME)
        try:
            while True:
                observed = room.observe(key)
                assert observed is not None
                plan = room.reconcile(observed, time.time())
                if plan.empty:
                    return True
                await executor.execute(observed.training, plan)
        except DeathError:
            return False

    async def training(self) -> Manifest:
        return await self.client.get(TRAINING.path(self._namespace, NAME))

    async def pods_end(self) -> None:
        """The Job controller makes the pods; this is what a kubelet would say of them."""
        for pod in (await self.client.get(POD.path(self._namespace)))["items"]:
            if (pod.get("status") or {}).get("phase") == "Pending":
                await self._end(pod)

    async def _end(self, pod: Manifest) -> None:
        metadata = pod["metadata"]
        stage, rank = (metadata["labels"][name] for name in
                       ("llm-operator.io/stage", "batch.kubernetes.io/job-completion-index"))  # fmt: skip
        owner = (await self.client.get(TRAINING.path(self._namespace, NAME)))["metadata"]
        where = "data" if stage == "data" else f"stages/{stage}/results/step-00000100"
        digest = f"sha256:{hashlib.sha256(stage.encode()).hexdigest()}"
        result = Result(uri=f"pvc://models/{run_name(NAME, owner['uid'])}/{where}", digest=digest, kind="model")
        last = Progress(stage=stage, attempt=1, phase="Done", result=result, heartbeat=time.time())
        word = Termination(reason="Succeeded", rank=int(rank), progress=last)
        terminated = {"exitCode": 0, "reason": "Completed", "message": word.model_dump_json(by_alias=True),
                      "finishedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip
        container = {"name": "trainer", "image": "t", "imageID": "", "ready": False, "restartCount": 0,
                     "state": {"terminated": terminated}}  # fmt: skip
        pod["status"] = {**pod["status"], "phase": "Succeeded", "containerStatuses": [container]}
        await self.client.request("PUT", POD.path(self._namespace, metadata["name"], "status"), body=pod)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_an_operator_that_dies_at_every_write(
    connection: Connection, client: Client, namespace: str, api_server: ControlPlane, after: bool
) -> None:
    for name in ("models", "corpus"):
        spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        claim = {"metadata": {"name": name, "namespace": namespace}, "spec": spec}
        await client.create(CLAIM, {"apiVersion": "v1", "kind": CLAIM.name, **claim})
    metadata = {"name": NAME, "namespace": namespace}
    training = {"apiVersion": TRAINING.api_version, "kind": TRAINING.name, "metadata": metadata, "spec": specs.TRAINING}
    await client.create(TRAINING, training)
    mortal = MortalClient(connection, after=after)
    life, deaths = Life(client, mortal, namespace), 0
    while (await life.training()).get("status", {}).get("phase") != "Succeeded":
        deaths += not await life.live()
        await life.pods_end()
        await asyncio.sleep(0.05)
    await mortal.close()
    assert deaths == len(mortal.deaths)
    assert deaths > len(STAGES) * 4, "each stage has a ConfigMap, a Job, a status of its start and one of its end"
    status = (await life.training())["status"]
    assert [(stage["name"], len(stage["attempts"])) for stage in status["stages"]] == [(name, 1) for name in STAGES]
    made = [r.code for r in audit.requests(api_server.audit_log)
            if (r.verb, r.resource, r.namespace, r.code) == ("create", "jobs", namespace, 201)]  # fmt: skip
    assert len(made) == len(STAGES), "no stage ran twice"
