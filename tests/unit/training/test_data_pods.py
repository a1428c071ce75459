"""Data preparation on several pods: a gang like another, whose claims all of them must be able to mount."""

from __future__ import annotations

from llm_operator.training.reconcile import reconcile
from llm_trainer.config import StageConfig
from llm_trainer.protocol import ExitCode
from tests.specs import TRAINING, changed
from tests.unit.training import scenes
from tests.unit.training.scenes import end_pod, run_pods, settle, stage, status
from tests.unit.world import START

SPEC = changed(TRAINING, prepareData={"nodes": 3})


def test_it_is_an_indexed_job_of_so_many_pods() -> None:
    world = scenes.scene(SPEC)
    settle(world)
    [job], [config_map], [service] = (world.of(kind) for kind in ("Job", "ConfigMap", "Service"))
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 3, 3)
    assert service["metadata"]["name"] == job["metadata"]["name"]
    config = StageConfig.model_validate_json(config_map["data"]["stage.json"])
    assert (config.nodes, config.processes_per_node) == (3, 1)
    assert stage(world, "data")["nodes"] == 3
    assert stage(world, "base")["nodes"] == TRAINING["nodes"]
    mounts = job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {mount["mountPath"]: mount.get("readOnly", False) for mount in mounts}["/volumes/models"] is False


def test_a_pod_that_fails_ends_the_attempt_with_its_cause() -> None:
    world = scenes.scene(SPEC)
    settle(world)
    run_pods(world)
    settle(world)
    first, second, third = scenes.pods(world)
    end_pod(third, ExitCode.DATA, "a.jsonl.gz is damaged")
    for pod in (first, second):
        end_pod(pod, ExitCode.PREEMPTED, "asked to leave")
    settle(world)
    assert status(world)["phase"] == "Failed"
    assert any("a.jsonl.gz is damaged" in condition["message"] for condition in status(world)["conditions"])


def test_all_pods_must_end_well() -> None:
    world = scenes.scene(SPEC)
    settle(world)
    run_pods(world)
    for pod in scenes.pods(world)[:2]:
        end_pod(pod, 0, "", None)
    settle(world)
    assert stage(world, "data")["state"] == "Running"


def test_a_claim_of_one_node_is_told() -> None:
    world = scenes.scene(SPEC)
    claims = {**scenes.CLAIMS, "models": scenes.claim("models", "ReadWriteOnce")}
    for _ in range(3):
        world.execute(reconcile(scenes.observed(world, claims=claims), START))
    told = str(world.owner["status"]["conditions"])
    assert "stage data has 3 pods; use a claim of access mode ReadWriteMany, or nodes: 1" in told
