"""A training whose pods do as they are told."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.training_status import LLMTrainingStatus
from llm_operator.api.validation import load_training
from llm_operator.kube import labels
from llm_operator.kube.plan import Key, Manifest, Plan
from llm_operator.kube.specs import loaded
from llm_operator.training.observe import Observed, facts, publishes
from llm_operator.training.reconcile import reconcile
from llm_operator.training.status import is_over
from llm_operator.training.waiting import NO_TROUBLE, Trouble
from llm_trainer.protocol import CheckpointInfo, ExitCode, Notice, Progress, Result
from tests.specs import TRAINING, Spec, changed
from tests.unit.world import START, World, custom_resource

Progresses = Progress | None
KEY = Key("LLMTraining", "team", "bilingual")


def claim(name: str, *modes: str) -> Manifest:
    return {
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}"},
        "spec": {"accessModes": list(modes)},
        "status": {"phase": "Bound"},
    }


CLAIMS = {name: claim(name, "ReadWriteMany") for name in ("models", "corpus")}


def scene(spec: Spec | None = None) -> World:
    return World(custom_resource("LLMTraining", "bilingual", copy.deepcopy(spec or TRAINING)))


def observed(
    world: World,
    progress: Progresses = None,
    claims: Mapping[str, Manifest] = CLAIMS,
    silence: str = "",
    trouble: Trouble | None = NO_TROUBLE,
    now: float = START,
) -> Observed:
    """``now`` is also the time of the clock by which it is known how long something has been seen."""
    status = LLMTrainingStatus.model_validate(world.owner.get("status") or {})
    every = {kind: world.of(kind) for kind in ("Job", "Pod", "ConfigMap", "Service", "NetworkPolicy")}
    own = {kind: tuple(child for child in found if not publishes(child)) for kind, found in every.items()}
    jobs, pods = own["Job"], own["Pod"]
    others = (*own["ConfigMap"], *own["Service"], *own["NetworkPolicy"])
    spec = loaded(load_training, world.owner["spec"])
    return Observed(
        training=copy.deepcopy(world.owner),
        spec=None if is_over(world.owner, status) else spec,
        jobs=jobs,
        pods=pods,
        config_maps=own["ConfigMap"],
        services=own["Service"],
        network_policies=own["NetworkPolicy"],
        claims=claims,
        departed=world.departed_pods(),
        ages=world.sightings.ages(KEY, facts(status, jobs, pods, others), now),
        progress=progress,
        silence=silence,
        trouble=trouble,
        trainer_image="trainer:1",
        progress_interval=10.0,
        network=world.network,
        publishes=spec if isinstance(spec, LLMTrainingSpec) else None,
        publishing=tuple(child for kind in ("Job", "NetworkPolicy") for child in every[kind] if publishes(child)),
        publishing_pods=tuple(filter(publishes, every["Pod"])),
    )


def step(world: World, now: float = START, progress: Progresses = None, silence: str = "") -> Plan:
    """One whole pass."""
    plan = reconcile(observed(world, progress, silence=silence, now=now), now)
    world.execute(plan)
    return plan


def settle(world: World, now: float = START, progress: Progresses = None) -> None:
    for _ in range(10):
        if step(world, now, progress).empty:
            return
    raise AssertionError("the plans don't come to an end")


def edit(world: World, **paths: Any) -> None:
    """What a user changes in the spec, as `tests.specs.changed` takes it; the API server counts generations."""
    world.owner["spec"] = changed(world.owner["spec"], **paths)
    world.owner["metadata"]["generation"] += 1


def fail(world: World, code: int = 1, message: str = "boom", last: Progresses = None) -> None:
    """The first pod of the newest attempt ends badly, and the others give up."""
    if not pods(world):
        run_pods(world)
    first, *others = pods(world)
    end_pod(first, code, message, last)
    for other in others:
        end_pod(other, PEER_LOST, "Connection closed by peer")


def status(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.owner["status"]
    return found


def stage(world: World, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(stage for stage in status(world)["stages"] if stage["name"] == name)
    return found


def condition(world: World, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in status(world)["conditions"] if c["type"] == kind)
    return found


def newest_job(world: World) -> Manifest:
    open_jobs = {a["job"] for s in status(world)["stages"] for a in s["attempts"] if "endTime" not in a}
    return next(job for (kind, name), job in world.objects.items() if kind == "Job" and name in open_jobs)


def run_pods(world: World) -> list[Manifest]:
    """All pods of the newest Job start."""
    job = newest_job(world)
    name = job["metadata"]["name"]
    for index in range(job["spec"]["completions"]):
        pod: Manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-{index}-x",
                "namespace": "team",
                "uid": f"uid-{name}-{index}",
                "labels": {
                    **job["metadata"]["labels"],
                    "batch.kubernetes.io/job-name": name,
                    "batch.kubernetes.io/job-completion-index": str(index),
                },
            },
            "spec": {"nodeName": f"node-{index}"},
            "status": {"phase": "Running", "containerStatuses": [{"name": "trainer", "state": {"running": {}}}]},
        }
        world.objects["Pod", pod["metadata"]["name"]] = pod
    return pods(world)


def pods(world: World) -> list[Manifest]:
    name = newest_job(world)["metadata"]["name"]
    return [
        pod
        for (kind, at), pod in sorted(world.objects.items())
        if kind == "Pod" and at.startswith(f"{name}-") and pod["metadata"]["labels"][labels.TRAINING]
    ]


def told(world: World, step: int = 0, heartbeat: float = START, **more: Any) -> Progress:
    """What rank 0 of the newest attempt tells."""
    job = newest_job(world)["metadata"]["labels"]
    return Progress(
        stage=job[labels.STAGE], attempt=int(job[labels.ATTEMPT]), phase="Training", step=step, total_steps=100,
        loss=5.0, tokens=step * 1000, heartbeat=heartbeat, **more,
    )  # fmt: skip


def result(world: World, kind: str = "model") -> Result:
    stage = newest_job(world)["metadata"]["labels"][labels.STAGE]
    uri = f"{status(world)['runUri']}/" + ("data" if stage == "data" else f"stages/{stage}/results/step-00000100")
    return Result(uri=uri, digest=digest_of(stage), kind=kind, step=100)


def digest_of(what: str) -> str:
    return f"sha256:{hashlib.sha256(what.encode()).hexdigest()}"


def checkpoint(world: World, step: int = 100) -> CheckpointInfo:
    """What rank 0 of the newest attempt has committed."""
    stage = newest_job(world)["metadata"]["labels"][labels.STAGE]
    uri = f"{status(world)['runUri']}/stages/{stage}/checkpoints/step-{step:08d}"
    return CheckpointInfo(step=step, uri=uri, time=START, digest=digest_of(uri))


def end_pod(pod: Manifest, code: int, message: str = "", progress: Progresses = None, reason: str = "Error") -> None:
    """Its container ends and leaves a last word."""
    word = {"reason": reason, "message": message, "exitCode": code, "rank": 0}
    if progress:
        word["progress"] = progress.model_dump(mode="json", by_alias=True)
    terminated = {"exitCode": code, "reason": reason, "message": json.dumps(word), "finishedAt": "2026-01-01T00:00:00Z"}
    pod["status"] = {
        "phase": "Succeeded" if code == 0 else "Failed",
        "containerStatuses": [{"name": "trainer", "state": {"terminated": terminated}}],
    }


def succeed(world: World) -> None:
    """All pods of the newest attempt end well, and the Job says so."""
    job = newest_job(world)
    last = told(world, 100, result=result(world), checkpoint=checkpoint(world))
    for pod in pods(world):
        end_pod(pod, 0, "done", last, "Completed")
    job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}


def run_stage(world: World, now: float = START) -> None:
    """From a new Job to its good end."""
    settle(world, now)
    run_pods(world)
    settle(world, now)
    succeed(world)
    settle(world, now)


NOTICE = Notice(reason="CheckpointSetAside", message="checkpoint step-00000030 is not used")
KILLED = 128 + 9
PEER_LOST = int(ExitCode.PEER_LOST)


def fit_nowhere(pod: Manifest) -> None:
    """Leave a pod as the scheduler does when no node has room for it."""
    said = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    pod["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}],
    }
