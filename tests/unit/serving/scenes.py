"""A serving whose training and pods do as they are told."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import ValidationError

from llm_operator.api.serving import LLMServingSpec
from llm_operator.kube.drift import FIELDS
from llm_operator.kube.plan import Key, Manifest, Plan
from llm_operator.serving.manifests import addressed
from llm_operator.serving.observe import Observed, is_of_job, job_fact, uids_without_room
from llm_operator.serving.reconcile import reconcile
from tests.specs import SERVING, TRAINING, Spec
from tests.unit.world import START, World, custom_resource

KEY = Key("LLMServing", "team", "chat")


def scene(spec: Spec | None = None) -> World:
    """With the Service there already; with a wrong spec, that of one before it."""
    world = World(custom_resource("LLMServing", "chat", copy.deepcopy(spec or SERVING)))
    try:
        written = LLMServingSpec.model_validate(world.owner["spec"])
    except ValidationError:
        written = LLMServingSpec.model_validate(SERVING)
    world.execute(Plan(apply=(addressed(world.owner, written)[0],)))
    return world


def training(digest: str | None = None, phase: str = "Running") -> Manifest:
    """The training that the serving follows; with a digest its last stage has a result."""
    made = custom_resource("LLMTraining", "bilingual", copy.deepcopy(TRAINING))
    result = {"uri": f"pvc://models/run/{digest}", "digest": f"sha256:{digest}", "kind": "model", "step": 100}
    last = {"name": "chat", "kind": "sft", "state": "Succeeded", **({"result": result} if digest else {})}
    conditions = [{"type": phase, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": phase}]
    made["status"] = {"phase": phase, "stages": [{"name": "base", "kind": "pretrain"}, last], "conditions": conditions}
    return made


def with_adapter(digest: str | None = None, base: str = "one", **lora: Any) -> Manifest:
    """The training with a stage more, which adapts the result ``base`` of the stage chat."""
    made = training("one")
    made["spec"]["stages"].append({"name": "legal", "sft": {}, "lora": {"rank": 12, **lora}})
    result = {"uri": f"pvc://models/run/legal-{digest}", "digest": f"sha256:{digest}", "kind": "adapter", "step": 7,
              "base": f"pvc://models/run/{base}", "baseDigest": f"sha256:{base}"}  # fmt: skip
    made["status"]["stages"].append({"name": "legal", "kind": "sft", **({"result": result} if digest else {})})
    return made


def observed(
    world: World, source: Manifest | None, claims: tuple[str, ...] = ("models",), now: float = START
) -> Observed:
    every, jobs = world.of("Pod"), world.of("Job")
    pods = tuple(pod for pod in every if not is_of_job(pod))
    fetching = tuple(pod for pod in every if is_of_job(pod))
    ages = world.sightings.ages(KEY, [*uids_without_room(pods), *map(job_fact, jobs)], now)
    return Observed(
        serving=copy.deepcopy(world.owner),
        trainings={"bilingual": source} if source else {},
        deployments=world.of("Deployment"),
        services=world.of("Service"),
        disruption_budgets=world.of("PodDisruptionBudget"),
        network_policies=world.of("NetworkPolicy"),
        pods=pods,
        jobs=jobs,
        fetching=fetching,
        ages=ages,
        without_room=ages,
        claims=frozenset(claims),
        serving_image="vllm:1",
        trainer_image="vllm:1",
        network=world.network,
    )


def step(world: World, source: Manifest | None, now: float = START) -> Plan:
    plan = reconcile(observed(world, source, now=now), now)
    world.execute(plan)
    return plan


def settle(world: World, source: Manifest | None, now: float = START) -> None:
    for _ in range(10):
        if step(world, source, now).empty:
            return
    raise AssertionError("the plans don't come to an end")


def run_pods(world: World, *, ready: bool = True, container: dict[str, Any] | None = None) -> None:
    """The Deployment's pods, all of the newest template."""
    deployment = world.objects["Deployment", "chat-serving"]
    template, replicas = deployment["spec"]["template"], deployment["spec"]["replicas"]
    for at in [at for at in world.objects if at[0] == "Pod"]:
        del world.objects[at]
    for index in range(replicas):
        name = f"chat-serving-{index}"
        world.objects["Pod", name] = {
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "team", "uid": name, **copy.deepcopy(template["metadata"])},
            "spec": {"nodeName": "node-a"},
            "status": {
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                "containerStatuses": [{"name": "vllm", "ready": ready, "state": {"running": {}}, **(container or {})}],
            },
        }
    deployment["status"] = {
        "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas if ready else 0,
    }  # fmt: skip


def taken(world: World, kind: str, field: str, manager: str, subresource: str = "") -> None:
    """Somebody else has set a field of a child's spec, as the API server records it."""
    [ours] = world.objects[kind, "chat-serving"]["metadata"][FIELDS]
    theirs = {"f:spec": {f"f:{field}": ours["fieldsV1"]["f:spec"].pop(f"f:{field}")}}
    record = {"manager": manager, "operation": "Update", "subresource": subresource, "fieldsV1": theirs}
    world.objects[kind, "chat-serving"]["metadata"][FIELDS].append(record)


def condition(world: World, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in world.owner["status"]["conditions"] if c["type"] == kind)
    return found
