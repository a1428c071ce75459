"""The stages in order, from the first pass to the last, and what a user or a queue may do between."""

from __future__ import annotations

from pathlib import Path

from llm_operator.training.reconcile import reconcile
from llm_trainer.config import StageConfig
from llm_trainer.protocol import ExitCode
from tests.specs import TRAINING, changed
from tests.unit.training import scenes
from tests.unit.training.scenes import KILLED, condition, end_pod, run_pods, settle, stage, status
from tests.unit.world import START, World, check_golden

GOLDEN = Path(__file__).parent / "golden"


def test_first_pass(world: World) -> None:
    check_golden(GOLDEN / "first_pass.yaml", scenes.step(world))


def test_prepared_data_starts_the_first_stage(world: World) -> None:
    settle(world)
    run_pods(world)
    settle(world)
    scenes.succeed(world)
    check_golden(GOLDEN / "data_done.yaml", scenes.step(world))
    check_golden(GOLDEN / "data_done_next.yaml", scenes.step(world))


def test_suspend_and_resume(at_base: World) -> None:
    at_base.owner["spec"]["suspend"] = True
    check_golden(GOLDEN / "suspend.yaml", scenes.step(at_base))
    settle(at_base)
    assert status(at_base)["phase"] == "Suspended"
    assert [name for kind, name in at_base.objects if kind == "Job" and "-base-" in name] == []
    at_base.owner["spec"]["suspend"] = False
    settle(at_base)
    base = stage(at_base, "base")
    assert base["attempts"][-1]["number"] == 2
    assert (base["ownRestarts"], base["infrastructureRestarts"]) == (0, 0)


def test_a_stage_that_succeeded_is_not_suspended_any_more(at_base: World) -> None:
    scenes.succeed(at_base)
    at_base.owner["spec"]["suspend"] = True
    settle(at_base)
    assert stage(at_base, "base")["state"] == "Succeeded"
    assert status(at_base)["phase"] == "Suspended"


def test_what_a_crash_left_over_goes_when_things_have_changed(at_base: World) -> None:
    end_pod(scenes.pods(at_base)[1], KILLED, "killed")
    scenes.step(at_base)
    plan = reconcile(scenes.observed(at_base, now=START), START)
    at_base.execute(plan, len(plan.delete) + 3)  # attempt 2 is made, and nobody says so
    at_base.owner["spec"]["suspend"] = True
    for child in (made := [o for (_, name), o in at_base.objects.items() if "-base-2-" in name]):
        child["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert len(made) == 3
    assert scenes.step(at_base, START + 1).requeue_after == 10, "its status may be on its way"
    settle(at_base, START + 11)
    assert [name for _, name in at_base.objects if "-base-" in name] == []


def test_a_queue_may_take_the_pods_and_give_them_back(at_base: World) -> None:
    job = scenes.newest_job(at_base)
    job["spec"]["suspend"] = True
    end_pod(scenes.pods(at_base)[0], ExitCode.PREEMPTED, "asked to leave")
    settle(at_base)
    assert condition(at_base, "Running")["reason"] == "Pending"
    assert stage(at_base, "base")["workers"] == []
    job["spec"]["suspend"] = False
    run_pods(at_base)
    settle(at_base)
    assert status(at_base)["phase"] == "Running"
    assert len(stage(at_base, "base")["attempts"]) == 1


def test_all_stages(world: World) -> None:
    for _ in range(2):
        scenes.run_stage(world)
    run_pods(world)
    settle(world)
    scenes.succeed(world)
    check_golden(GOLDEN / "all_done.yaml", scenes.step(world))
    assert status(world)["phase"] == "Succeeded"
    assert stage(world, "chat")["result"]["uri"] == "pvc://models/bilingual-0123abcd/stages/chat/results/step-00000100"
    assert [s["state"] for s in status(world)["stages"]] == ["Succeeded"] * 3
    assert len(world.of("Job")) == 3, "the Jobs of good attempts stay, for their logs"
    assert scenes.step(world, START + 1e6).empty, "terminal is terminal"


def test_a_stage_gets_the_model_of_the_one_before(world: World) -> None:
    for _ in range(2):
        scenes.run_stage(world)
    config_map = next(c for c in world.of("ConfigMap") if "-chat-" in c["metadata"]["name"])
    config = StageConfig.model_validate_json(config_map["data"]["stage.json"])
    assert config.model
    assert config.digests[config.model.uri or ""] == scenes.digest_of("base")
    assert config.model.uri == "pvc://models/bilingual-0123abcd/stages/base/results/step-00000100"


def test_an_invalid_spec_makes_nothing(world: World) -> None:
    world.owner["spec"] = changed(TRAINING, stages__0__globalBatchSize=9)
    plan = scenes.step(world)
    assert not plan.create
    assert status(world)["phase"] == "Invalid"
    assert "spec.stages[0].globalBatchSize: 9" in condition(world, "Accepted")["message"]
    world.owner["spec"] = changed(TRAINING)
    assert scenes.step(world).create, "correcting it is enough"


def test_a_published_result_is_not_the_last_one(at_base: World) -> None:
    """The Job succeeded, but its first pod and with it the last word are gone."""
    scenes.step(at_base, progress=scenes.told(at_base, 50, result=scenes.result(at_base)))
    scenes.succeed(at_base)
    del at_base.objects["Pod", scenes.pods(at_base)[0]["metadata"]["name"]]
    settle(at_base)
    assert stage(at_base, "base")["state"] == "Pending"
    assert stage(at_base, "base")["infrastructureRestarts"] == 1
    assert len(stage(at_base, "base")["attempts"]) == 2


def test_more_nodes_for_a_stage_to_come(at_base: World) -> None:
    at_base.owner["spec"]["stages"][1]["nodes"] = 4
    settle(at_base)
    assert status(at_base)["phase"] == "Running"
    end_pod(scenes.pods(at_base)[0], KILLED, "killed")
    settle(at_base)
    assert stage(at_base, "base")["nodes"] == scenes.newest_job(at_base)["spec"]["completions"] == 2
    run_pods(at_base)
    settle(at_base)
    scenes.succeed(at_base)
    settle(at_base)
    assert stage(at_base, "chat")["nodes"] == scenes.newest_job(at_base)["spec"]["completions"] == 4


def test_a_restarted_operator_writes_nothing(at_base: World) -> None:
    assert scenes.step(at_base, START + 3600).empty


def test_few_writes_until_running(world: World) -> None:
    """ConfigMap, Service, Job, two statuses and an event."""
    plans = [scenes.step(world)]
    run_pods(world)
    plans.append(scenes.step(world))
    assert status(world)["phase"] == "Running"
    writes = sum(len(plan.create) + len(plan.delete) + bool(plan.status) + len(plan.events) for plan in plans)
    assert writes <= 6


def test_only_the_run_folder_can_be_written(world: World) -> None:
    """Data preparation makes it, so it has the whole claim of the storage."""
    scenes.run_stage(world)
    found = {}
    for job in world.of("Job"):
        mounts = job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        claims = [mount for mount in mounts if mount["mountPath"].startswith("/volumes/")]
        found[job["metadata"]["labels"]["llm-operator.io/stage"]] = {
            mount["mountPath"]: (mount.get("subPath"), mount.get("readOnly", False)) for mount in claims
        }
    assert found["data"] == {"/volumes/models": (None, False), "/volumes/corpus": (None, True)}
    assert found["base"] == {
        "/volumes/models": (None, True),
        "/volumes/models/bilingual-0123abcd": ("bilingual-0123abcd", False),
        "/volumes/corpus": (None, True),
    }
