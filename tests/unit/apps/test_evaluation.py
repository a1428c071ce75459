"""What is asked of a configuration, and which pods get it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_operator.apps.config_maps import Content
from llm_operator.kube.plan import Manifest
from tests.app_specs import APP, PLAIN
from tests.specs import REMOVE, Spec, changed
from tests.unit.apps import scenes
from tests.unit.apps.scenes import condition, config, end_jobs, evaluations, run_pods, serving, settle, step
from tests.unit.world import NETWORK, World

ASKED: Spec = {"questions": {"configMap": {"name": "asked"}}, "thresholds": [{"metric": "f1", "min": 0.5}]}
SPEC = changed(APP, evaluation={**ASKED, "gate": "block"})


def status(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.owner["status"]
    return found


def answering(spec: Spec = SPEC) -> World:
    """Whose first configuration has passed."""
    world = scenes.scene(spec)
    settle(world, serving())
    end_jobs(world)
    settle(world, serving())
    end_jobs(world, f1=0.7)
    settle(world, serving())
    run_pods(world)
    settle(world, serving())
    assert status(world)["phase"] == "Ready"
    return world


def pod(world: World) -> Manifest:
    [job] = evaluations(world).values()
    found: Manifest = job["spec"]["template"]["spec"]
    return found


def test_its_pods_ask_whom_the_server_asks_and_nobody_reaches_them() -> None:
    world = scenes.scene(SPEC)
    world.network = NETWORK
    settle(world, serving())
    end_jobs(world)
    settle(world, serving())
    [job] = evaluations(world).values()
    found = world.objects["NetworkPolicy", job["metadata"]["name"]]["spec"]
    server = world.objects["NetworkPolicy", "help-app"]["spec"]
    assert found["ingress"] == []
    assert server["egress"][0] in found["egress"]
    assert found["podSelector"]["matchLabels"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}


def test_no_pod_before_the_first_configuration_passes() -> None:
    world = scenes.scene(SPEC)
    settle(world, serving())
    assert not evaluations(world), "its knowledge is not there yet"
    assert status(world)["phase"] == "Indexing"
    end_jobs(world)
    settle(world, serving())
    assert len(evaluations(world)) == 1
    assert not world.of("Deployment")
    assert (status(world)["phase"], condition(world, "Ready").reason) == ("Evaluating", "Evaluating")
    end_jobs(world, f1=0.7)
    step(world, serving())
    assert config(world)["prompt"]["system"] == "You help users of {{product}}."
    told = status(world)["evaluation"]
    assert (told["passed"], told["questions"]) == (True, 9)
    assert told["scores"] == [{"metric": "f1", "value": 0.7, "stderr": 0.1, "count": 9}]
    assert told["report"].startswith("pvc://models/llm-apps/help-")
    assert condition(world, "Evaluated").message == "f1 0.700"


def test_a_configuration_that_misses_leaves_the_old_one_in_use() -> None:
    world = answering()
    first = config(world)
    world.owner["spec"] = changed(SPEC, prompt__system="worse", replicas=3)
    settle(world, serving())
    run_pods(world)
    settle(world, serving())
    assert (config(world), status(world)["phase"]) == (first, "HeldBack")
    end_jobs(world, f1=0.3)
    settle(world, serving())
    assert config(world) == first
    assert world.objects["Deployment", "help-app"]["spec"]["replicas"] == 3
    told = condition(world, "Evaluated")
    assert (told.status, told.reason) == ("False", "ThresholdMissed")
    assert "f1 is 0.300 ± 0.100, and 0.5 is asked for; the configuration before stays in use" in told.message
    assert (condition(world, "Ready").status, condition(world, "Ready").reason) == ("True", "HeldBack")

    world.owner["spec"] = changed(SPEC, prompt__system="better", replicas=3)
    settle(world, serving())
    end_jobs(world, f1=0.9)
    step(world, serving())
    assert config(world)["prompt"]["system"] == "better"
    run_pods(world)
    settle(world, serving())
    assert status(world)["phase"] == "Ready"
    assert len(evaluations(world)) == 1
    servers = [one for one in world.of("ConfigMap") if "server.json" in one["data"]]
    assert len(servers) == 1, "those of configurations that nobody uses are gone"


def test_knowledge_waits_for_its_evaluation_too() -> None:
    world = answering()
    old = config(world)["knowledge"][0]["revision"]
    world.owner["spec"] = changed(SPEC, knowledge__0__edition="2")
    settle(world, serving())
    end_jobs(world)
    settle(world, serving())
    assert config(world)["knowledge"][0]["revision"] == old
    [knowledge] = status(world)["knowledge"]
    assert (knowledge["activeRevision"], knowledge["reason"]) == (old, "HeldBack")
    end_jobs(world, f1=0.1)
    settle(world, serving())
    assert config(world)["knowledge"][0]["revision"] == old
    world.owner["spec"] = SPEC
    settle(world, serving())
    assert status(world)["phase"] in ("Ready", "HeldBack")


def test_what_is_gone_back_to_is_in_use_and_holds_nothing_back() -> None:
    """Its scores went with its Job; its pods answer on while it is asked again."""
    world = answering()
    first = config(world)
    world.owner["spec"] = changed(SPEC, prompt__system="worse")
    settle(world, serving())
    end_jobs(world, f1=0.3)
    settle(world, serving())
    world.owner["spec"] = SPEC
    settle(world, serving())
    assert config(world) == first
    assert status(world)["phase"] == "Ready"
    assert condition(world, "Evaluated").reason == "Evaluating"


@pytest.mark.parametrize(("gate", "passes"), [("warn", "False"), ("none", "True")])
def test_other_gates_tell(gate: str, passes: str) -> None:
    world = scenes.scene(changed(SPEC, evaluation__gate=gate))
    settle(world, serving())
    end_jobs(world)
    settle(world, serving())
    run_pods(world)
    end_jobs(world, f1=0.3)
    settle(world, serving())
    assert status(world)["phase"] == "Ready"
    assert (condition(world, "Evaluated").status, condition(world, "Evaluated").reason) == (passes, "ThresholdMissed")
    assert status(world)["evaluation"]["passed"] is False


def test_a_threshold_that_changes_asks_nothing_again() -> None:
    world = answering()
    before = evaluations(world).keys()
    world.owner["spec"] = changed(SPEC, evaluation__thresholds=[{"metric": "f1", "min": 0.8}])
    settle(world, serving())
    assert evaluations(world).keys() == before
    assert condition(world, "Evaluated").reason == "ThresholdMissed"
    assert status(world)["phase"] == "Ready", "what is in use goes on"


@pytest.mark.parametrize("change", ["questions", "edition", "model"])
def test_what_answers_follow_from_is_asked_again(change: str) -> None:
    world = answering()
    before, source, more = evaluations(world).keys(), serving(), {}
    if change == "questions":
        more = {"sources": {**scenes.FAQ, "asked": Content({"questions.jsonl": "3333"}, "3")}}
    elif change == "edition":
        world.owner["spec"] = changed(SPEC, evaluation__edition="2")
    else:
        source["status"]["model"] = {"uri": "pvc://models/base", "digest": "blake3:2"}
    settle(world, source, **more)
    assert evaluations(world).keys().isdisjoint(before)
    assert status(world)["phase"] == "Ready"
    end_jobs(world, f1=0.1)
    settle(world, source, **more)
    assert (status(world)["phase"], condition(world, "Evaluated").status) == ("Ready", "False")


def test_how_the_pods_of_the_serving_are_asks_nothing_again() -> None:
    """Nor does an adapter that the app has not."""
    spec = changed(SPEC, model__serving__adapter="law")
    source = serving(adapter="law")
    source["status"]["adapters"][0]["digest"] = "sha256:1"
    world = scenes.scene(spec)
    for _ in range(3):
        settle(world, source)
        end_jobs(world, f1=0.7)
    before = evaluations(world).keys()
    assert before
    [law] = source["status"]["adapters"]
    law |= {"reason": "RollingOut", "message": "pod chat-serving-1 starts"}
    source["status"]["adapters"].append({"name": "tax", "state": "Starting", "digest": "sha256:9"})
    settle(world, source)
    assert evaluations(world).keys() == before
    law["digest"] = "sha256:2"
    settle(world, source)
    assert evaluations(world).keys().isdisjoint(before)


def test_a_job_that_fails_holds_back_and_tells_how_to_ask_again() -> None:
    world = answering()
    world.owner["spec"] = changed(SPEC, prompt__system="new")
    settle(world, serving())
    end_jobs(world, failed="asked/questions.jsonl, line 3: answer: Field required")
    settle(world, serving())
    told = condition(world, "Evaluated")
    assert told.reason == "EvaluationError"
    assert "line 3" in told.message
    assert "delete Job help-evaluation-" in told.message
    assert status(world)["phase"] == "HeldBack"
    [name] = [job["metadata"]["name"] for job in evaluations(world).values()]
    del world.objects["Job", name]
    settle(world, serving())
    end_jobs(world, f1=0.9)
    step(world, serving())
    assert config(world)["prompt"]["system"] == "new"


def test_scores_outlive_their_pod() -> None:
    world = answering()
    for at in [at for at in world.objects if at[0] == "Pod" and "evaluation" in at[1]]:
        del world.objects[at]
    settle(world, serving())
    assert condition(world, "Evaluated").reason == "Evaluated"
    del world.owner["status"]["evaluation"]
    settle(world, serving())
    assert "its scores with it; delete the Job" in condition(world, "Evaluated").message


@pytest.mark.parametrize(
    "word",
    [
        "", "{", "[]", '{"questions": 1, "scores": []}', '{"questions": -1, "scores": []}',
        '{"questions": 1, "scores": [{"metric": "f1", "value": 7, "stderr": 0, "count": 1}]}',
        '{"questions": 1, "scores": [{"metric": "f1", "value": NaN, "stderr": 0, "count": 1}]}',
        '{"questions": 1, "scores": [{"metric": "\\u0000", "value": 1, "stderr": 0, "count": 1}]}',
        json.dumps({"questions": 1, "scores": [{"metric": "f1", "value": 1, "stderr": 0, "count": 1}] * 17}),
    ],
)  # fmt: skip
def test_a_word_that_is_none_passes_nothing(word: str) -> None:
    world = scenes.scene(SPEC)
    settle(world, serving())
    end_jobs(world)
    settle(world, serving())
    end_jobs(world, f1=1.0)
    for at, found in world.objects.items():
        if at[0] == "Pod" and "evaluation" in at[1]:
            found["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = word
    settle(world, serving())
    assert condition(world, "Evaluated").reason == "EvaluationError"
    assert not world.of("Deployment")


@pytest.mark.parametrize(
    ("change", "more", "reason", "says"),
    [
        ({}, {"sources": {**scenes.FAQ, "asked": Content(problem="ConfigMap asked does not exist; create it")}},
         "SourceNotFound", "does not exist"),
        ({}, {"sources": {**scenes.FAQ, "asked": Content({}, "1", ("a",))}}, "SourceNotFound", "its keys are a"),
        ({"evaluation__questions": {"uri": "pvc://away/q.jsonl"}}, {}, "PersistentVolumeClaimNotFound", "away"),
    ],
)  # fmt: skip
def test_questions_that_are_not_there(change: dict[str, Any], more: Any, reason: str, says: str) -> None:
    world = scenes.scene(changed(SPEC, **change))
    settle(world, serving(), **more)
    end_jobs(world)
    settle(world, serving(), **more)
    assert condition(world, "Evaluated").reason == condition(world, "Ready").reason == reason
    assert says in condition(world, "Evaluated").message
    assert status(world)["phase"] == "Waiting"


def test_each_claim_is_one_volume_and_written_in_one_folder_alone() -> None:
    world = scenes.scene(changed(SPEC, evaluation__questions={"uri": "pvc://models/asked/q.jsonl"}))
    settle(world, serving())
    end_jobs(world)
    settle(world, serving())
    volumes = [one for one in pod(world)["volumes"] if "persistentVolumeClaim" in one]
    assert [one["persistentVolumeClaim"] for one in volumes] == [{"claimName": "models"}]
    mounts = [one for one in pod(world)["containers"][0]["volumeMounts"] if one["name"] == volumes[0]["name"]]
    written = [one for one in mounts if not one.get("readOnly")]
    assert [one["subPath"] for one in written] == [f"llm-apps/help-{world.owner['metadata']['uid'][:8]}/.evaluations"]
    assert len(mounts) == 2


def test_an_app_without_storage_has_no_report() -> None:
    world = scenes.scene(changed(PLAIN, evaluation=ASKED))
    settle(world, serving())
    assert "/volumes/.reports" not in str(pod(world))
    end_jobs(world, f1=0.9)
    settle(world, serving())
    assert status(world)["evaluation"].get("report", "") == ""


def test_an_evaluation_that_is_removed_leaves_nothing() -> None:
    world = answering()
    world.owner["spec"] = changed(SPEC, evaluation=REMOVE)
    settle(world, serving())
    assert not evaluations(world)
    assert "evaluation" not in status(world)
    assert "Evaluated" not in {one["type"] for one in status(world)["conditions"]}
