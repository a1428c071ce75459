"""Passes that fail, in the whole operator against a real API server: what is said, and how often it is tried."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llm_operator.kube.cache import Cache
from llm_operator.kube.client import ApiError, Client
from llm_operator.kube.kinds import CLAIM, EVENT, JOB, TRAINING
from llm_operator.kube.plan import Delete, Key, Manifest, Plan
from llm_operator.kube.room import Room
from tests import specs
from tests.api.kube.manifests import SmallRoom, training
from tests.api.kube.replica import running, until
from tests.bench import audit
from tests.cluster.control_plane import ControlPlane

TRY_SECONDS = 20.0
SOON = 1.0
FEW = 7  # tries that fit into this time when the pause doubles from half a second, half of it at least
CASE = "changing-refusal"
POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: changing-refusal}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [batch], apiVersions: [v1], operations: [CREATE, DELETE], resources: [jobs]}
  validations:
  - expression: >-
      request.operation == 'DELETE' || has(object.metadata.labels) && 'cost-center' in object.metadata.labels
    messageExpression: "'label cost-center is required; request for ' + string(object.metadata.uid)"
  - {expression: "request.operation == 'CREATE'", message: jobs are kept for the auditors}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: changing-refusal}
spec:
  policyName: changing-refusal
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {case: changing-refusal}}}
"""


@pytest.fixture
def refusing(api_server: ControlPlane, namespace: str) -> str:
    """The namespace, in which an admission policy names another uid at every try to make a Job."""
    file = api_server.state / f"{CASE}.yaml"
    file.write_text(POLICY)
    api_server.kubectl("apply", "--server-side", "-f", file)
    api_server.kubectl("label", "namespace", namespace, f"case={CASE}")
    return namespace


async def in_force(client: Client, namespace: str) -> None:
    """The API server takes a policy into account some time after it was made."""
    probe = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"generateName": "probe-", "namespace": namespace}}
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}

    async def denied() -> bool:
        try:
            await client.request("POST", JOB.path(namespace), query={"dryRun": "All"},
                                 body={**probe, "spec": {"template": template}})  # fmt: skip
        except ApiError as error:
            return "cost-center" in str(error)
        return False

    await until(denied)


async def found(client: Client, namespace: str) -> Manifest:
    return await client.get(TRAINING.path(namespace, "chat"))


async def running_condition(client: Client, namespace: str) -> Manifest:
    conditions = (await found(client, namespace)).get("status", {}).get("conditions", ())
    return next((one for one in conditions if one["type"] == "Running"), {"reason": "", "message": "", "status": ""})


def says(client: Client, namespace: str, reason: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return bool((await running_condition(client, namespace))["reason"] == reason)

    return check


def count(api_server: ControlPlane, namespace: str, verb: str, resource: str) -> int:
    made = ((r.verb, r.resource, r.namespace) for r in audit.requests(api_server.audit_log))
    return sum(one == (verb, resource, namespace) for one in made)


async def test_a_refusal_whose_text_changes_backs_off(client: Client, refusing: str, api_server: ControlPlane) -> None:
    await in_force(client, refusing)
    before = count(api_server, refusing, "create", "jobs")
    async with running(refusing, rooms=None) as operator:
        for name in ("models", "corpus"):
            spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
            claim = {"apiVersion": "v1", "kind": CLAIM.name, "metadata": {"name": name, "namespace": refusing}}
            await client.create(CLAIM, {**claim, "spec": spec})
        await client.create(TRAINING, {**training(refusing), "spec": specs.TRAINING})
        await until(says(client, refusing, "ApplyRefused"))
        await asyncio.sleep(TRY_SECONDS)
        tries = count(api_server, refusing, "create", "jobs") - before
        assert 1 < tries <= FEW
        assert count(api_server, refusing, "update", "llmtrainings/status") == 1, "the words stand"
        condition = await running_condition(client, refusing)
        assert "label cost-center is required" in condition["message"]
        key = Key("LLMTraining", refusing, "chat")
        assert operator.workers.queue.failures(key) == tries
        api_server.kubectl("annotate", "-n", refusing, "llmtraining", "chat", "example.com/try=again")
        await until(lambda: count(api_server, refusing, "create", "jobs") - before > tries)  # what matters has changed


class Failing(SmallRoom):
    """Raises another text at every pass, until it is told to stop."""

    fails = True
    numbers = itertools.count()

    def reconcile(self, observed: Any, now: float) -> Plan:
        if self.fails:
            raise LookupError(f"pass {next(self.numbers)}, {uuid.uuid4()}: token=hunter2 can't be read")
        return super().reconcile(observed, now)


class Blind(SmallRoom):
    """Fails before it has seen anything."""

    fails = True

    def observe(self, key: Key) -> Any:
        if self.fails:
            raise ValueError("status.stages: what is this")
        return super().observe(key)


@pytest.mark.parametrize("room", [Failing, Blind])
async def test_any_failure_stands_in_the_status_and_backs_off(
    client: Client, namespace: str, api_server: ControlPlane, room: type[Any]
) -> None:
    made: list[Any] = []

    def rooms(cache: Cache) -> dict[str, Room]:
        made.append(room(cache))
        return {"LLMTraining": made[0]}

    async with running(namespace, rooms=rooms) as operator:
        await client.create(TRAINING, training(namespace))
        await until(says(client, namespace, "ReconcileError"))
        await asyncio.sleep(TRY_SECONDS / 2)
        condition = await running_condition(client, namespace)
        assert condition["status"] == "Unknown"
        assert condition["message"].startswith(("LookupError: pass ", "ValueError: status.stages: "))
        assert "hunter2" not in condition["message"]
        assert (await found(client, namespace))["status"]["phase"] == "Unknown"
        assert count(api_server, namespace, "update", "llmtrainings/status") <= FEW
        assert operator.workers.queue.failures(Key("LLMTraining", namespace, "chat")) <= FEW
        events = [event["reason"] for event in (await client.get(EVENT.path(namespace)))["items"]]
        assert events == ["ReconcileError"]
        made[0].fails = False
        await until(lambda: mended(client, namespace))


async def mended(client: Client, namespace: str) -> bool:
    status = (await found(client, namespace))["status"]
    return bool(status["phase"] == "Running" and not status["conditions"])


async def test_a_status_that_no_stage_can_use_is_told(client: Client, namespace: str) -> None:
    """By hand, or of a restored backup: the model to start from has a URI that is none of ours. It stays as it is."""
    for name in ("models", "corpus"):
        spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        claim = {"apiVersion": "v1", "kind": CLAIM.name, "metadata": {"name": name, "namespace": namespace}}
        await client.create(CLAIM, {**claim, "spec": spec})
    owner = await client.create(TRAINING, {**training(namespace), "spec": specs.TRAINING})
    result = {"uri": "ftp://host/base", "digest": "sha256:1", "kind": "model"}
    stages = [{"name": "data", "kind": "prepareData", "state": "Succeeded", "endTime": "yesterday"},
              {"name": "base", "kind": "pretrain", "state": "Succeeded", "result": result}]  # fmt: skip
    await client.replace_status(owner, {"phase": "Pending", "stages": stages})
    async with running(namespace, rooms=None):
        await until(says(client, namespace, "ReconcileError"))
        assert (
            "ValidationError: Model: uri: String should match"
            in (await running_condition(client, namespace))["message"]
        )
        kept = (await found(client, namespace))["status"]["stages"]
        assert [(stage["name"], stage["state"]) for stage in kept] == [("data", "Succeeded"), ("base", "Succeeded")]
        assert kept[1]["result"]["uri"] == "ftp://host/base"


class Tidy(SmallRoom):
    """Wants the Job named chat-job deleted, and to look again soon for something else."""

    def reconcile(self, observed: Any, now: float) -> Plan:
        plan = super().reconcile(observed, now)
        jobs = [child for child in observed[1] if child["kind"] == "Job"]
        return Plan(plan.create, status=plan.status, events=plan.events,
                    delete=tuple(Delete("batch/v1", "Job", job["metadata"]["name"], job["metadata"]["uid"])
                                 for job in jobs), requeue_after=SOON)  # fmt: skip


async def test_a_child_that_may_not_be_deleted_is_told_and_keeps_nothing_else_back(
    client: Client, namespace: str, api_server: ControlPlane
) -> None:
    async with running(namespace):
        await client.create(TRAINING, training(namespace))
        await until(lambda: is_phase(client, namespace, "Running"))
    file = api_server.state / f"{CASE}.yaml"
    file.write_text(POLICY)
    api_server.kubectl("apply", "--server-side", "-f", file)
    api_server.kubectl("label", "namespace", namespace, f"case={CASE}")
    await in_force(client, namespace)
    api_server.kubectl("delete", "-n", namespace, "configmap", "chat-config")
    async with running(namespace, rooms=lambda cache: {"LLMTraining": Tidy(cache)}) as operator:
        await until(says(client, namespace, "DeleteRefused"))
        message = (await running_condition(client, namespace))["message"]
        assert "Job chat-job: can't be deleted: " in message
        assert "jobs are kept for the auditors" in message
        await client.get(f"/api/v1/namespaces/{namespace}/configmaps/chat-config")
        queue, key = operator.workers.queue, Key("LLMTraining", namespace, "chat")
        await until(lambda: queue.failures(key) >= FEW and not queue.running)
        assert queue.next_due() is not None
        assert (queue.next_due() or 0.0) - time.monotonic() <= SOON, "not when a refusal is tried again"


async def is_phase(client: Client, namespace: str, phase: str) -> bool:
    return bool((await found(client, namespace)).get("status", {}).get("phase") == phase)
