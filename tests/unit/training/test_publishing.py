"""What becomes of spec.publish."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_operator.api.reasons import Reason
from llm_operator.kube.plan import Manifest, Plan
from llm_operator.training.reconcile import apply_refused, reconcile
from llm_trainer.config import PUBLISH_VARIABLE, PublishConfig
from llm_trainer.protocol import ExitCode
from tests.specs import TRAINING, changed
from tests.unit.training.scenes import (
    condition,
    digest_of,
    edit,
    end_pod,
    fail,
    observed,
    result,
    run_pods,
    scene,
    settle,
    status,
    step,
    succeed,
    told,
)
from tests.unit.world import NETWORK, START, World

TO = "s3://models/team/chat"
CREDENTIALS = [{"secretName": "hub", "for": "hf"}, {"secretName": "store", "for": "s3://models"}]
BOTH = [{"to": "hf://team/base", "stage": "base"}, {"to": TO}]


def published(*entries: dict[str, Any], **more: Any) -> World:
    """Before its first pass."""
    return scene(changed(TRAINING, publish=[*entries], credentials=CREDENTIALS, **more))


def finish(world: World, *stages: str) -> None:
    for _ in stages:
        settle(world)
        run_pods(world)
        settle(world)
        succeed(world)
    settle(world)


def jobs(world: World) -> dict[str, Manifest]:
    """Those that publish, by the place that they publish to."""
    return {
        config_of(job).to: job for (kind, name), job in world.objects.items() if kind == "Job" and "-publish-" in name
    }


def config_of(job: Manifest) -> PublishConfig:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    text = next(each["value"] for each in container["env"] if each["name"] == PUBLISH_VARIABLE)
    return PublishConfig.model_validate_json(text)


def run(world: World, to: str, number: int = 0) -> Manifest:
    """A pod of a Job that publishes."""
    job = jobs(world)[to]
    name = job["metadata"]["name"]
    pod: Manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-{number}",
            "namespace": "team",
            "uid": f"uid-{name}-{number}",
            "labels": {**job["metadata"]["labels"], "batch.kubernetes.io/job-name": name},
        },
        "spec": {"nodeName": "node-0"},
        "status": {"phase": "Running", "containerStatuses": [{"name": "trainer", "state": {"running": {}}}]},
    }
    world.objects["Pod", pod["metadata"]["name"]] = pod
    return pod


def end(world: World, to: str, kind: str, pod: Manifest | None = None, code: int = 0, message: str = "") -> None:
    """The pod ends, and its Job with this condition; none: it tries again."""
    if pod is not None:
        end_pod(pod, code, message)
        if code == 0:
            ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
            word = {**json.loads(ended["message"]), "published": {"revision": "e7a9", "bytes": 1234, "files": 3}}
            ended["message"] = json.dumps(word)
    jobs(world)[to]["status"] = {
        "failed": int(code != 0), "conditions": [{"type": kind, "status": "True"}] if kind else [],
    }  # fmt: skip


def publication(world: World, to: str) -> dict[str, Any]:
    return next(each for each in status(world)["publications"] if each["to"] == to)


def test_each_result_goes_when_its_stage_has_succeeded() -> None:
    world = published(*BOTH)
    finish(world, "data")
    assert not jobs(world)
    assert condition(world, "Published")["reason"] == Reason.PENDING
    finish(world, "base")
    assert [*jobs(world)] == ["hf://team/base"]
    config = config_of(jobs(world)["hf://team/base"])
    assert (config.stage, config.digest) == ("base", digest_of("base"))
    assert config.result.endswith("/stages/base/results/step-00000100")
    assert [each.secret_name for each in config.credentials] == ["hub"]
    finish(world, "chat")
    assert {*jobs(world)} == {"hf://team/base", TO}
    assert status(world)["phase"] == "Succeeded"
    for to in ("hf://team/base", TO):
        end(world, to, "Complete", run(world, to))
    settle(world)
    assert condition(world, "Published")["status"] == "True"
    told = publication(world, TO)
    assert (told["state"], told["revision"], told["bytes"]) == ("Published", "e7a9", 1234)
    assert step(world).empty


def test_the_pod_has_only_what_it_needs() -> None:
    world = published({"to": TO})
    world.network = NETWORK
    finish(world, "data", "base", "chat")
    pod = jobs(world)[TO]["spec"]["template"]["spec"]
    assert [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume] == ["store"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["result"]["readOnly"]
    assert mounts["result"]["subPath"].endswith("/stages/chat/results/step-00000100")
    assert not any("gpu" in name for name in container["resources"]["limits"])
    policy = world.objects["NetworkPolicy", jobs(world)[TO]["metadata"]["name"]]["spec"]
    assert policy["ingress"] == []
    assert {"ports": [{"protocol": "TCP"}]} in policy["egress"]


def test_a_stage_whose_result_was_blocked_is_never_published() -> None:
    world = published({"to": TO})
    finish(world, "data", "base")
    settle(world)
    run_pods(world)
    world_result = told(world, result=result(world))
    fail(world, ExitCode.EVALUATION, "loss 3 is above 2", last=world_result)
    settle(world)
    assert status(world)["phase"] == "Failed"
    assert not jobs(world)
    assert publication(world, TO)["state"] == "Pending"


def test_tries_are_told_and_a_failure_undoes_nothing() -> None:
    world = published({"to": TO})
    finish(world, "data", "base", "chat")
    end(world, TO, "", run(world, TO), code=ExitCode.STORAGE, message="the hub answers 503")
    settle(world)
    assert publication(world, TO)["state"] == "Publishing"
    assert "1 try failed, the last: the hub answers 503" in publication(world, TO)["message"]
    end(world, TO, "Failed", run(world, TO, 1), code=ExitCode.DATA, message="the key may not write it (403)")
    plan = step(world)
    assert [(event.type, event.reason) for event in plan.events] == [("Warning", Reason.PUBLISH_FAILED)]
    settle(world)
    assert condition(world, "Published")["reason"] == Reason.PUBLISH_FAILED
    assert "the key may not write it (403)" in condition(world, "Published")["message"]
    assert status(world)["phase"] == "Succeeded"
    assert [*jobs(world)] == [TO]  # for its log
    first = jobs(world)[TO]["metadata"]["name"]
    edit(world, restartToken="again")
    settle(world)
    assert jobs(world)[TO]["metadata"]["name"] != first
    end(world, TO, "Complete", run(world, TO))
    settle(world)
    assert publication(world, TO)["attempt"] == 2
    assert condition(world, "Published")["status"] == "True"


def test_edits_after_the_end() -> None:
    world = published()
    finish(world, "data", "base", "chat")
    assert not [each for each in status(world)["conditions"] if each["type"] == "Published"]
    edit(world, publish=BOTH)
    settle(world)
    assert {*jobs(world)} == {"hf://team/base", TO}
    assert status(world)["phase"] == "Succeeded"
    edit(world, publish=[{"to": TO}])
    settle(world)
    assert [*jobs(world)] == [TO]
    edit(world, publish=[])
    settle(world)
    assert not jobs(world)
    assert "publications" not in status(world)
    assert not [each for each in status(world)["conditions"] if each["type"] == "Published"]


def test_suspended_it_waits_and_goes_on() -> None:
    world = published({"to": TO})
    finish(world, "data", "base", "chat")
    edit(world, suspend=True)
    settle(world)
    assert not jobs(world)
    edit(world, suspend=False)
    settle(world)
    assert [*jobs(world)] == [TO]


def test_a_lost_last_word_is_asked_for_again() -> None:
    world = published({"to": TO})
    finish(world, "data", "base", "chat")
    end(world, TO, "Complete")
    first = step(world)
    assert [child.kind for child in first.delete] == ["Job"]
    settle(world)
    assert [*jobs(world)] == [TO]
    assert publication(world, TO)["state"] == "Publishing"


def test_what_is_refused_is_told_and_keeps_no_stage_back() -> None:
    world = published({"to": "hf://team/base", "stage": "base"})
    finish(world, "data")
    run_pods(world)
    settle(world)
    succeed(world)
    seen: list[Plan] = []
    for _ in range(10):  # whatever makes a Job that publishes is refused
        plan = step_refusing(world)
        seen.append(plan)
    assert not jobs(world)
    assert len(pods_of_next_stage(world)) == 1
    assert condition(world, "Published")["reason"] == Reason.APPLY_REFUSED
    assert condition(world, "Running")["reason"] != Reason.APPLY_REFUSED
    settle(world)
    assert [*jobs(world)] == ["hf://team/base"]


def step_refusing(world: World) -> Plan:
    seen = observed(world)
    plan = reconcile(seen, START)
    mine = [child for child in plan.create if "-publish-" in child["metadata"]["name"]]
    if mine:
        problem = f"{mine[0]['kind']} {mine[0]['metadata']['name']}: exceeded quota: team"
        plan = apply_refused(seen, problem, START)
    world.execute(plan)
    return plan


def pods_of_next_stage(world: World) -> list[str]:
    return [name for kind, name in world.objects if kind == "Job" and "-chat-" in name]


@pytest.mark.parametrize("first", range(6))
def test_a_pass_that_dies_between_two_writes(first: int) -> None:
    """The next one finds what was made."""
    world = published({"to": TO})
    finish(world, "data", "base")
    settle(world)
    run_pods(world)
    settle(world)
    succeed(world)
    for _ in range(6):
        world.execute(reconcile(observed(world), START), first)
    settle(world)
    assert [*jobs(world)] == [TO]
    end(world, TO, "Complete", run(world, TO))
    settle(world)
    assert condition(world, "Published")["status"] == "True"
