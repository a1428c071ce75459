"""The main job on two real nodes, with the faults that it must survive. The tests build on each other, in order."""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from demo.chat import Answer, ask, post
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm_trainer.checkpoint.files import MANIFEST, read_manifest
from tests.bench import audit
from tests.cluster.control_plane import ControlPlane
from tests.e2e import rbac
from tests.e2e.specs import BASE_STEPS, SERVING_RESOURCES, TRAINING
from tests.e2e.user import Seen, User, condition, stage, step

OPERATOR = "system:serviceaccount:llm-operator:llm-operator"
QUIET_SECONDS = 120
KILL = """
import os, pathlib, signal, time
gate, process = sorted(map(int, pathlib.Path("/proc/1/task/1/children").read_text().split()))
print(time.time())
os.kill(process, signal.SIGKILL)
"""


@pytest.fixture(scope="module", autouse=True)
def applied(user: User) -> None:
    user.apply("LLMTraining", "main", TRAINING)
    user.apply("LLMServing", "main", {"model": {"training": {"name": "main"}}, "resources": SERVING_RESOURCES})


def test_two_pods_on_two_nodes(user: User) -> None:
    status = user.until("base runs", "llmtraining", "main", lambda s: step(s, "base") >= 60)
    base = stage(status, "base")
    assert {worker["node"] for worker in base["workers"]} == {"node-a", "node-b"}
    assert [worker["rank"] for worker in base["workers"]] == [0, 1]
    assert base["progress"]["worldSize"] == 2
    assert status["phase"] == "Running"
    assert base["checkpoint"]["step"] >= 50


def test_a_killed_process_starts_again_from_its_checkpoint(
    user: User, plane: ControlPlane, record_property: Seen
) -> None:
    before = user.status("llmtraining", "main")
    victim = stage(before, "base")["workers"][1]["pod"]
    killed_at = float(user.kubectl.run("exec", victim, "--", "python", "-c", KILL))
    status = user.until("attempt 2", "llmtraining", "main", lambda s: len(stage(s, "base")["attempts"]) == 2)
    first, second = stage(status, "base")["attempts"]
    assert (first["reason"], first["fault"]) == ("Killed", "Own")
    assert victim in first["message"]
    assert "signal 9" in first["message"]
    status = user.until("attempt 2 trains", "llmtraining", "main", lambda s: s["phase"] == "Running")
    created = [
        request.at - killed_at
        for request in audit.requests(plane.audit_log, since=killed_at)
        if request.verb == "create" and request.resource == "pods" and request.namespace == user.namespace
    ]
    record_property("from the kill to the new pods", f"{created[0]:.2f} and {created[1]:.2f} s")

    def log() -> str:
        return user.kubectl.run("logs", "-l", f"batch.kubernetes.io/job-name={second['job']}", "--tail=-1")

    user.until("attempt 2 steps", "llmtraining", "main", lambda _: "started in" in log())
    assert "resumed from step-" in log()
    record_property("from the kill to the next first step", f"{first_step(user, attempt=2) - killed_at:.1f} s")
    record_property("of which in the pod", next(line for line in log().splitlines() if line.startswith("started in")))


def first_step(user: User, attempt: int) -> float:
    """When an attempt at the stage `base` made its first step, in seconds since the epoch."""
    (history,) = user.folder("models").glob("**/stages/base/history.jsonl")
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    return next(float(row["time"]) for row in rows if row["attempt"] == attempt and "loss" in row)


def test_the_operator_may_go(user: User, plane: ControlPlane) -> None:
    job = stage(user.status("llmtraining", "main"), "base")["attempts"][-1]["job"]
    uid = user.kubectl.run("get", "job", job, "-o", "jsonpath={.metadata.uid}")
    since = time.time()
    plane.kubectl("-n", "llm-operator", "delete", "pods", "-l", "app.kubernetes.io/name=llm-operator", "--wait=true")
    at = step(user.status("llmtraining", "main"), "base")
    status = user.until(
        "the new operator tells", "llmtraining", "main",
        lambda s: step(s, "base") > at or stage(s, "base")["state"] == "Succeeded",
    )  # fmt: skip
    assert user.kubectl.run("get", "job", job, "-o", "jsonpath={.metadata.uid}") == uid
    assert len(stage(status, "base")["attempts"]) == 2
    written = {
        request.resource
        for request in audit.requests(plane.audit_log, OPERATOR, since)
        if request.write and (stage(status, "base")["state"] != "Succeeded")
    }
    assert written <= {"leases", "llmtrainings/status", "llmservings/status"}


def test_it_ends_well(user: User) -> None:
    status = user.until("succeeded", "llmtraining", "main", lambda s: s["phase"] in ("Succeeded", "Failed"), 600)
    assert status["phase"] == "Succeeded", condition(status, "Failed")
    assert step(status, "base") == BASE_STEPS
    evaluation = stage(status, "chat")["progress"]["evaluation"]
    assert float(evaluation["loss"]) < float(evaluation["baseLoss"])
    assert user.kubectl.run("get", "llmt", "main").split()[8:11] == ["main", "Succeeded", "chat"]


def model_folder(user: User, uri: str) -> Path:
    return user.folder("models") / uri.removeprefix("pvc://models/")


def copy_result(result: Path, other: Path) -> str:
    """As the result of the next step; its digest."""
    shutil.copytree(result, other)
    manifest = read_manifest(other)
    manifest.step += 1
    (other / MANIFEST).write_text(manifest.model_dump_json(by_alias=True))
    return manifest.digest()


def ready(status: dict[str, Any]) -> bool:
    return bool(condition(status, "Ready").get("status") == "True")


def test_served_log_probabilities_are_those_of_transformers(user: User, record_property: Seen) -> None:
    status = user.until("serves", "llmserving", "main", ready, 420)
    folder = model_folder(user, status["model"]["uri"])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = [json.loads(line) for line in (user.folder("corpus") / "topics.jsonl").read_text().splitlines()]
    worst = 0.0
    with user.kubectl.forward("service/main-serving", 80) as url:
        answer = ask(url, "main", "What is lambda?", max_tokens=16)
        assert answer.finish_reason in ("stop", "length")
        for row in rows[:20]:
            ids = tokenizer(row["text"])["input_ids"][:100]
            body = {"model": "main", "prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
            told = post(f"{url}/v1/completions", body)["choices"][0]["prompt_logprobs"]
            served = [entry[str(token)]["logprob"] for token, entry in zip(ids[1:], told[1:], strict=True)]
            with torch.no_grad():
                expected = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
            own = expected.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
            worst = max(worst, *(abs(a - b) for a, b in zip(served, own, strict=True)))
    record_property("largest difference", f"{worst:.1e} nats")
    assert worst < 1e-3


def test_a_new_result_rolls_out_without_a_failed_request(user: User, plane: ControlPlane) -> None:
    training = user.status("llmtraining", "main")
    old = stage(training, "chat")["result"]
    newer = old["uri"] + "1"  # the same weights as the result of another step
    digest = copy_result(model_folder(user, old["uri"]), model_folder(user, newer))
    stop = threading.Event()
    failed: list[str] = []
    answered: list[Answer] = []

    def ask_without_pause() -> None:
        """From inside the cluster's network, through the Service's address."""
        while not stop.is_set():
            try:
                answered.append(ask(url, "main", "What is lambda?", max_tokens=4))
            except (urllib.error.URLError, OSError, KeyError) as error:
                failed.append(str(error))

    url = "http://" + user.kubectl.run("get", "service", "main-serving", "-o", "jsonpath={.spec.clusterIP}")
    client = threading.Thread(target=ask_without_pause)
    client.start()
    try:
        stages = [
            {**one, "result": {**one["result"], "uri": newer, "digest": digest}} if one["name"] == "chat" else one
            for one in training["stages"]
        ]
        patch = json.dumps({"status": {"stages": stages}})
        user.kubectl.run("patch", "llmtraining", "main", "--subresource=status", "--type=merge", "-p", patch)
        user.until(
            "rolled out", "llmserving", "main",
            lambda s: s["model"]["uri"] == newer and s["phase"] == "Ready", 600,
        )  # fmt: skip
        time.sleep(3)
    finally:
        stop.set()
        client.join()
    assert len(answered) > 20
    assert failed == []


def test_with_nothing_to_do_nothing_is_written(user: User, plane: ControlPlane) -> None:
    time.sleep(5)
    since = time.time()
    time.sleep(QUIET_SECONDS)
    writes = [r for r in audit.requests(plane.audit_log, OPERATOR, since) if r.write]
    assert {request.resource for request in writes} <= {"leases"}, audit.by_verb(writes)
    assert writes, "the audit log shows nothing at all"


def test_the_chart_grants_what_is_used(plane: ControlPlane, chart: str) -> None:
    granted, used = rbac.granted(chart), rbac.used(plane.audit_log, OPERATOR)
    assert used - granted == set(), "used, but not granted"
    assert granted - used == set(), "granted, but never used"
