"""The real API server accepts what is right and refuses what is wrong, by its field."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_operator.api.app_rules import APP_RULES
from llm_operator.api.rules import Rule
from llm_operator.api.serving_rules import SERVING_RULES
from llm_operator.api.training_rules import TRAINING_RULES
from tests.app_specs import APP, RIGHT_APPS, WRONG_APPS
from tests.cluster.control_plane import ControlPlane
from tests.pod_cases import WRONG_PODS, WRONG_SERVING_PODS
from tests.right_trainings import RIGHT_TRAININGS
from tests.serving_specs import RIGHT_SERVINGS, WRONG_SERVINGS
from tests.specs import REMOVE, SERVING, TRAINING, Spec, Wrong, changed
from tests.wrong_trainings import WRONG_TRAININGS

Manifest = dict[str, Any]
LEGAL = {"name": "legal", "sft": {"dataset": {"uri": "pvc://corpus/legal.jsonl"}, "maxLength": 128}}


def manifest(kind: str, name: str, spec: Spec) -> Manifest:
    return {"apiVersion": "llm-operator.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def apply(
    api_server: ControlPlane, made: Manifest, *arguments: str, file: str = "-"
) -> subprocess.CompletedProcess[str]:
    """kubectl's own answer."""
    return subprocess.run(
        [api_server.binaries / "kubectl", "--kubeconfig", api_server.kubeconfig, "apply", "-f", file, *arguments],
        input=json.dumps(made), capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in RIGHT_TRAININGS.items()])
def test_right_trainings_are_accepted(api_server: ControlPlane, spec: Spec) -> None:
    answer = apply(api_server, manifest("LLMTraining", "right", spec), "--dry-run=server")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("case", [case for case in WRONG_TRAININGS if case.at_server], ids=lambda case: case.name)
def test_wrong_trainings_are_refused(api_server: ControlPlane, case: Wrong) -> None:
    refused_by_field(apply(api_server, manifest("LLMTraining", "wrong", case.spec), "--dry-run=server"), case)


@pytest.mark.parametrize("spec", RIGHT_SERVINGS)
def test_right_servings_are_accepted(api_server: ControlPlane, spec: Spec) -> None:
    answer = apply(api_server, manifest("LLMServing", "right", spec), "--dry-run=server")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("case", [case for case in WRONG_SERVINGS if case.at_server], ids=lambda case: case.name)
def test_wrong_servings_are_refused(api_server: ControlPlane, case: Wrong) -> None:
    refused_by_field(apply(api_server, manifest("LLMServing", "wrong", case.spec), "--dry-run=server"), case)


@pytest.mark.parametrize("spec", RIGHT_APPS)
def test_right_apps_are_accepted(api_server: ControlPlane, spec: Spec) -> None:
    answer = apply(api_server, manifest("LLMApp", "right", spec), "--dry-run=server")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("case", [case for case in WRONG_APPS if case.at_server], ids=lambda case: case.name)
def test_wrong_apps_are_refused(api_server: ControlPlane, case: Wrong) -> None:
    refused_by_field(apply(api_server, manifest("LLMApp", "wrong", case.spec), "--dry-run=server"), case)


def refused_by_field(answer: subprocess.CompletedProcess[str], case: Wrong) -> None:
    assert answer.returncode != 0, "the API server accepted it"
    assert case.path in answer.stderr, answer.stderr


def test_every_rule_refuses_something(api_server: ControlPlane, tmp_path: Path) -> None:
    wrong = [("LLMTraining", case) for case in (*WRONG_TRAININGS, *WRONG_PODS)]
    wrong += [("LLMServing", case) for case in (*WRONG_SERVINGS, *WRONG_SERVING_PODS)]
    wrong += [("LLMApp", case) for case in WRONG_APPS]
    made = [manifest(kind, f"wrong-{n}", case.spec) for n, (kind, case) in enumerate(wrong) if case.at_server]
    made += [
        manifest("LLMTraining", "a" * 64, TRAINING),
        manifest("LLMServing", "a" * 64, SERVING),
        manifest("LLMApp", "a" * 64, APP),
    ]
    file = tmp_path / "wrong.yaml"
    file.write_text("\n---\n".join(json.dumps(one) for one in made))
    said = apply(api_server, {}, "--dry-run=server", file=str(file)).stderr
    silent = [rule for rule in rules() if "oldSelf" not in rule.rule and rule.message not in said]
    assert not silent, f"no case in tests/wrong_trainings.py is refused by {silent}"


def rules() -> Iterator[Rule]:
    for found in (*TRAINING_RULES.values(), *SERVING_RULES.values(), *APP_RULES.values()):
        yield from found


def test_an_unknown_field_is_refused_by_strict_validation(api_server: ControlPlane) -> None:
    answer = apply(api_server, manifest("LLMTraining", "typo", changed(TRAINING, stagse=[])), "--dry-run=server")
    assert answer.returncode != 0
    assert "stagse" in answer.stderr


def test_a_long_name_is_refused(api_server: ControlPlane) -> None:
    for kind, spec in (("LLMTraining", TRAINING), ("LLMServing", SERVING), ("LLMApp", APP)):
        answer = apply(api_server, manifest(kind, "a" * 64, spec), "--dry-run=server")
        assert "metadata.name" in answer.stderr


def test_what_has_started_is_fixed(api_server: ControlPlane) -> None:
    made = manifest("LLMTraining", "started", TRAINING)
    assert apply(api_server, made).returncode == 0
    later = copy.deepcopy(made)
    later["spec"] = changed(TRAINING, stages__0__pretrain__steps=200, tokenizer__train__vocabularySize=2048)
    assert apply(api_server, later).returncode == 0, "nothing has started yet"
    started = [
        {
            "name": "data",
            "kind": "prepareData",
            "state": "Succeeded",
            "startTime": "2026-01-01T00:00:00Z",
            "result": {"uri": "pvc://models/started-0123abcd/data", "digest": "sha256:0", "kind": "data"},
        },
        {"name": "base", "kind": "pretrain", "state": "Running", "startTime": "2026-01-01T00:00:00Z"},
        {"name": "chat", "kind": "sft"},
    ]
    api_server.kubectl(
        "patch", "llmt", "started", "--subresource=status", "--type=merge", "-p",
        json.dumps({"status": {"stages": started}}),
    )  # fmt: skip
    changes: dict[str, dict[str, Any]] = {
        "spec.model": {"model__architecture__config__hidden_size": 128},
        "spec.tokenizer": {"tokenizer__train__vocabularySize": 4096},
        "spec.data": {"data__sources__0__uri": "pvc://corpus/other.txt"},
        "spec.storage": {"storage__persistentVolumeClaim__claimName": "other"},
        "spec.resumeFrom": {"resumeFrom": {"uri": "pvc://models/other-0123abcd"}},
        "spec.stages": {"stages__0__pretrain__steps": 300},
    }
    for path, change in changes.items():
        answer = apply(api_server, {**made, "spec": changed(later["spec"], **change)})
        assert path in answer.stderr, f"{change} was accepted: {answer.stdout} {answer.stderr}"
    fixed = {rule.field_path.lstrip(".") for rule in rules() if "oldSelf" in rule.rule}
    assert fixed == changes.keys(), "a rule about what has started has no case"
    allowed: list[dict[str, Any]] = [
        {"stages__1__sft__epochs": 3},
        {"suspend": True},
        {"nodes": 4},
        {"stages__0__nodes": 4},
    ]
    for change in allowed:
        answer = apply(api_server, {**made, "spec": changed(later["spec"], **change)})
        assert answer.returncode == 0, answer.stderr


def test_a_failed_stage_may_be_corrected_and_not_removed(api_server: ControlPlane) -> None:
    made = manifest("LLMTraining", "failed-stage", changed(TRAINING, stages__2=LEGAL))
    assert apply(api_server, made).returncode == 0
    set_stages(api_server, "failed-stage", data="Succeeded", base="Succeeded", chat="Failed")
    refused: dict[str, dict[str, Any]] = {
        "finished": {"stages__0__pretrain__steps": 300},
        "data": {"data__sources__0__uri": "pvc://corpus/other.txt"},
        "removed": {"stages__1": REMOVE},
        "renamed": {"stages__1__name": "other"},
    }
    for name, change in refused.items():
        answer = apply(api_server, {**made, "spec": changed(made["spec"], **change)})
        assert answer.returncode != 0, name
        assert "make a new LLMTraining" in answer.stderr
    for change in ({"stages__1__sft__maxLength": 64}, {"stages__1__globalBatchSize": 16}, {"stages__2": REMOVE}):
        answer = apply(api_server, {**made, "spec": changed(made["spec"], **change)})
        assert answer.returncode == 0, answer.stderr
    set_stages(api_server, "failed-stage", data="Succeeded", base="Succeeded", chat="Pending")
    answer = apply(api_server, {**made, "spec": changed(made["spec"], stages__1__sft__maxLength=32)})
    assert "a stage that has started can't change" in answer.stderr, "it was taken up again"


def test_what_data_preparation_reads_may_be_corrected_when_it_failed(api_server: ControlPlane) -> None:
    made = manifest("LLMTraining", "failed-data", TRAINING)
    assert apply(api_server, made).returncode == 0
    set_stages(api_server, "failed-data", data="Running")
    resumed = {"resumeFrom": {"uri": "pvc://models/other-0123abcd"}}
    answer = apply(api_server, {**made, "spec": changed(TRAINING, **resumed)})
    assert "spec.resumeFrom" in answer.stderr, "pods of it are in another folder"
    set_stages(api_server, "failed-data", data="Failed")
    changes: dict[str, Any] = {
        "model__architecture__config__hidden_size": 128,
        "tokenizer__train__vocabularySize": 4096,
        "data__sources__0__uri": "pvc://corpus/other.txt",
        "stages__0__pretrain__steps": 300,
        **resumed,
    }
    answer = apply(api_server, {**made, "spec": changed(TRAINING, **changes)})
    assert answer.returncode == 0, answer.stderr


def set_stages(api_server: ControlPlane, name: str, **states: str) -> None:
    """Of a training's status: those that have started, by name."""
    stages = [
        {"name": s, "kind": "sft", "state": state, "startTime": "2026-01-01T00:00:00Z"} for s, state in states.items()
    ]
    patch = json.dumps({"status": {"stages": stages}})
    api_server.kubectl("patch", "llmt", name, "--subresource=status", "--type=merge", "-p", patch)


def test_printer_columns(api_server: ControlPlane) -> None:
    assert apply(api_server, manifest("LLMTraining", "columns", TRAINING)).returncode == 0
    shown = api_server.kubectl("get", "llmt", "columns")
    assert shown.split()[:8] == ["NAME", "PHASE", "STAGE", "PROGRESS", "LOSS", "NODES", "RESTARTS", "AGE"]


def test_scale_subresource(api_server: ControlPlane) -> None:
    assert apply(api_server, manifest("LLMServing", "scaled", SERVING)).returncode == 0
    api_server.kubectl("scale", "llms", "scaled", "--replicas=3")
    assert api_server.kubectl("get", "llms", "scaled", "-o", "jsonpath={.spec.replicas}") == "3"
    assert apply(api_server, manifest("LLMApp", "scaled", APP)).returncode == 0
    api_server.kubectl("scale", "llmapp", "scaled", "--replicas=3")
    assert api_server.kubectl("get", "llmapp", "scaled", "-o", "jsonpath={.spec.replicas}") == "3"
