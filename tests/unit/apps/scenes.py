"""An app whose serving, Jobs and pods do as they are told."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from llm_operator.api.common import Condition
from llm_operator.apps.config_maps import Content
from llm_operator.apps.evaluation import evaluates
from llm_operator.apps.knowledge import made_by
from llm_operator.apps.observe import Observed
from llm_operator.apps.reconcile import reconcile
from llm_operator.kube import labels
from llm_operator.kube.plan import Manifest, Plan
from tests.app_specs import APP
from tests.specs import Spec
from tests.unit.world import START, World, custom_resource

FAQ = {"faq": Content({"a.md": "1111"}, "1", ("a.md",)), "asked": Content({"questions.jsonl": "2222"}, "2")}


def scene(spec: Spec | None = None) -> World:
    return World(custom_resource("LLMApp", "help", copy.deepcopy(spec or APP)))


def serving(*, ready: bool = True, adapter: str = "", state: str = "Serving", **spec: Any) -> Manifest:
    made = custom_resource("LLMServing", "chat", {"model": {"uri": "pvc://models/base"}, **spec})
    condition = {"type": "Ready", "status": str(ready), "reason": "Ready", "message": "1 of 1 pods answer"}
    made["status"] = {"url": "http://chat-serving.team.svc/v1", "conditions": [condition]}
    if adapter:
        made["spec"]["adapters"] = [{"name": adapter, "uri": "pvc://models/a"}]
        told = {"name": adapter, "state": state, "reason": "AdapterFound", "message": "it comes"}
        made["status"]["adapters"] = [told]
    return made


def observed(
    world: World,
    source: Manifest | None,
    sources: Mapping[str, Content] = FAQ,
    claims: tuple[str, ...] = ("models", "corpus"),
    embedders: Mapping[str, Manifest] | None = None,
) -> Observed:
    return Observed(
        app=copy.deepcopy(world.owner),
        serving=source,
        sources=sources,
        embedders=embedders or {},
        deployments=world.of("Deployment"),
        services=world.of("Service"),
        disruption_budgets=world.of("PodDisruptionBudget"),
        network_policies=world.of("NetworkPolicy"),
        config_maps=world.of("ConfigMap"),
        jobs=world.of("Job"),
        pods=world.of("Pod"),
        claims=frozenset(claims),
        app_image="llm-app:1",
        network=world.network,
    )


def step(world: World, source: Manifest | None, now: float = START, **more: Any) -> Plan:
    plan = reconcile(observed(world, source, **more), now)
    world.execute(plan)
    for made in plan.apply:
        if made["kind"] == "Deployment":
            found = world.objects["Deployment", "help-app"]
            found["metadata"]["generation"] = found.get("status", {}).get("observedGeneration", 0) + 1
    return plan


def settle(world: World, source: Manifest | None, **more: Any) -> None:
    for _ in range(10):
        if step(world, source, **more).empty:
            return
    raise AssertionError("it never rests")


def jobs(world: World) -> dict[tuple[str, str], Manifest]:
    """Of indexes, by knowledge base and revision."""
    return {made_by(job): job for job in world.of("Job") if not evaluates(job)}


def evaluations(world: World) -> dict[str, Manifest]:
    """Jobs, by revision."""
    return {evaluates(job): job for job in world.of("Job") if evaluates(job)}


def end_jobs(world: World, *, failed: str = "", **scores: float) -> None:
    """Every Job that has not ended; ``failed``: the problem that its pod tells."""
    for job in world.of("Job"):
        if job.get("status"):
            continue
        name, kind = job["metadata"]["name"], "Failed" if failed else "Complete"
        world.objects["Job", name]["status"] = {
            "conditions": [{"type": kind, "status": "True", "message": "BackoffLimit"}]
        }
        word: dict[str, Any] = {"problem": failed} if failed else {"documents": 3, "chunks": 7}
        if evaluates(job) and not failed:
            told = [{"metric": name, "value": value, "stderr": 0.1, "count": 9} for name, value in scores.items()]
            word = {"questions": 9, "scores": told}
        ended = {"exitCode": 65 if failed else 0, "message": json.dumps(word)}
        world.objects["Pod", f"{name}-x"] = {
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-x",
                "uid": f"uid-{name}-x",
                "labels": {labels.COMPONENT: job["metadata"]["labels"][labels.COMPONENT]},
                "ownerReferences": [{"uid": job["metadata"]["uid"]}],
            },
            "status": {
                "phase": "Failed" if failed else "Succeeded",
                "containerStatuses": [{"name": "app", "state": {"terminated": ended}}],
            },
        }


def run_pods(world: World, *, ready: bool = True) -> None:
    """As the Deployment controller and a kubelet do; the pods of the newest template alone are there."""
    for at in [at for at, pod in world.objects.items() if at[0] == "Pod" and component(pod) == "server"]:
        del world.objects[at]
    deployment = world.objects["Deployment", "help-app"]
    count = deployment["spec"]["replicas"]
    seen = deployment["metadata"]["generation"]
    told = {
        "observedGeneration": seen,
        "replicas": count,
        "updatedReplicas": count,
        "readyReplicas": count if ready else 0,
    }
    deployment["status"] = told
    for number in range(count):
        name = f"help-app-{number}"
        world.objects["Pod", name] = {
            "kind": "Pod",
            "metadata": {"name": name, "uid": name, "labels": deployment["spec"]["template"]["metadata"]["labels"]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]},
        }


def component(pod: Manifest) -> str:
    return str(pod["metadata"]["labels"].get(labels.COMPONENT))


def condition(world: World, kind: str) -> Condition:
    told = world.owner["status"]["conditions"]
    return Condition.model_validate(next(one for one in told if one["type"] == kind))


def ready_app(spec: Spec | None = None) -> World:
    """Whose knowledge is indexed and whose pods answer."""
    world = scene(spec)
    settle(world, serving())
    end_jobs(world)
    settle(world, serving())
    run_pods(world)
    settle(world, serving())
    assert world.owner["status"]["phase"] == "Ready", world.owner["status"]
    return world


def config(world: World) -> dict[str, Any]:
    """That the newest pods have."""
    template = world.objects["Deployment", "help-app"]["spec"]["template"]
    [volume] = [one for one in template["spec"]["volumes"] if one["name"] == "config"]
    found: dict[str, Any] = json.loads(world.objects["ConfigMap", volume["configMap"]["name"]]["data"]["server.json"])
    return found
