"""The main job on two real nodes, with the faults that it must survive. The tests build on each other, in order."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from demo.chat import Answer, ask, post
from transformers import AutoModelForCausalLM, AutoTokenizer

from kubectl_llm.kubectl import Kubectl as Plugin
from llm_trainer.checkpoint.files import MANIFEST, read_manifest
from tests.bench import audit
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import wait
from tests.cluster.settings import REPOSITORY
from tests.e2e import rbac
from tests.e2e.specs import BASE_STEPS, REQUESTS, SERVING_RESOURCES, TRAINING
from tests.e2e.user import Seen, User, condition, stage, step
from tests.monitoring import panels
from tests.monitoring.scraping import Prometheus, scraping

OPERATOR = "system:serviceaccount:llm-operator:llm-operator"
QUIET_SECONDS = 120
PLUGIN = REPOSITORY / "kubectl_plugin"
MONITORING = "servicemonitors,podmonitors,prometheusrules"
KILL = """
import os, pathlib, signal, time
gate, process = sorted(map(int, pathlib.Path("/proc/1/task/1/children").read_text().split()))
print(time.time())
os.kill(process, signal.SIGKILL)
"""


@pytest.fixture(scope="module", autouse=True)
def prometheus(user: User, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes all the while, as the monitors and the rules say that helm has installed."""
    script = REPOSITORY / "tools" / "prometheus.sh"
    binaries = Path(subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
    stored = json.loads(plane.kubectl("-n", "llm-operator", "get", "-o", "json", MONITORING))["items"]
    (rules,) = (one["spec"] for one in stored if one["kind"] == "PrometheusRule")
    folder = tmp_path_factory.mktemp("prometheus")
    alerts = folder / "alerts.json"
    alerts.write_text(json.dumps(rules))
    monitors = [one for one in stored if one["kind"] != "PrometheusRule"]
    kubectl = Plugin(("--kubeconfig", str(plane.kubeconfig)), str(plane.binaries / "kubectl"))
    with scraping(binaries, folder, monitors, alerts, kubectl) as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def applied(user: User, prometheus: Prometheus) -> None:
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
    requests = audit.requests(plane.audit_log, OPERATOR, since)
    ended = stage(user.status("llmtraining", "main"), "base").get("endTime")  # after it the serving and `chat` begin
    until = datetime.fromisoformat(ended).timestamp() if ended else time.time()
    here = (user.namespace, "llm-operator")  # another may still be going, with what was in it
    written = {r.resource for r in requests if r.write and r.at < until and r.namespace in here}
    assert written <= {"leases", "llmtrainings/status", "llmservings/status"}


def test_it_ends_well(user: User) -> None:
    status = user.until("succeeded", "llmtraining", "main", lambda s: s["phase"] in ("Succeeded", "Failed"), 600)
    assert status["phase"] == "Succeeded", condition(status, "Failed")
    assert step(status, "base") == BASE_STEPS
    evaluation = stage(status, "chat")["progress"]["evaluation"]
    assert float(evaluation["loss"]) < float(evaluation["baseLoss"])
    _, row = user.kubectl.run("get", "llmt", "main").splitlines()
    assert row.split()[:3] == ["main", "Succeeded", "chat"]


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


APP: dict[str, Any] = {
    "model": {"serving": {"name": "main"}},
    "resources": REQUESTS,
    "storage": {"persistentVolumeClaim": {"claimName": "models"}},
    "knowledge": [
        {
            "name": "manual",
            "sources": [
                {"name": "notes", "inline": [{"title": "Care", "text": "The pump is oiled every 40 hours."}]},
                {"name": "faq", "configMap": {"name": "faq"}},
            ],
            "retrieval": {"topK": 1},
        }
    ],
    # the model reads 256 tokens
    "prompt": {"contextTemplate": "{{context}}\n{{question}}"},
    "parameters": {"maxTokens": 16},
    "evaluation": {"questions": {"configMap": {"name": "asked"}}},
}
ASKED = {"question": "Which colour has the valve?", "answer": ["red"], "documents": "Colours"}


def test_an_app_answers_from_its_documents(user: User) -> None:
    """What the operator makes of an LLMApp, before a real vLLM: an index by a Job, a server, an answer with sources."""
    faq = {"a.md": "# Colours\n\nThe valve is red."}
    for name, data in (("faq", faq), ("asked", {"questions.jsonl": json.dumps(ASKED)})):
        user.kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
    user.apply("LLMApp", "main", APP)
    user.until("answers", "llmapp", "main", lambda s: s.get("phase") == "Ready", 240)
    with user.kubectl.forward("service/main-app", 80) as url:
        for question, text in (("Which colour has the valve?", "red"), ("How often is the pump oiled?", "40 hours")):
            body = {"messages": [{"role": "user", "content": question}], "temperature": 0}
            answer = post(f"{url}/v1/chat/completions", body)
            assert answer["choices"][0]["finish_reason"] in ("stop", "length")
            (citation,) = answer["citations"]
            assert text in citation["text"]
    status = user.until("is asked", "llmapp", "main", lambda s: (s.get("evaluation") or {}).get("scores"), 240)
    assert {one["metric"]: one["value"] for one in status["evaluation"]["scores"]}["hitAt1"] == 1


def test_a_user_of_the_plugin(user: User, plane: ControlPlane) -> None:
    """Logs of a rank, and a conversation, as `kubectl llm` gives them."""

    def said(*words: str) -> str:
        environment = {**os.environ, "PATH": f"{plane.binaries}:{os.environ['PATH']}", "PYTHONPATH": str(PLUGIN)}
        where = ("--kubeconfig", str(plane.kubeconfig), "-n", user.namespace)
        command = [sys.executable, "-m", "kubectl_llm", *words, *where]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "training main  Succeeded" in said("status", "llmt/main")
    report = said("report", "main", "--markdown")  # its pods have ended: by one that is made for it
    assert "attempt 2 begins" in report
    assert "sha256:" in report
    wait("that is gone", lambda: "-report-" not in user.kubectl.run("get", "pods", "-o", "name"), 60)
    one, all_of_them = said("logs", "main", "--stage", "base", "--rank", "1"), said("logs", "main", "--stage", "base")
    assert {line.split("/")[1] for line in one.splitlines()} < {line.split("/")[1] for line in all_of_them.splitlines()}
    assert said("chat", "main", "What is lambda?", "--system", "Be brief.").endswith("\n")
    assert "knowledge manual  Indexed" in said("status", "llmapp/main")
    asked = json.loads(said("chat", "llmapp/main", "Which colour has the valve?", "-o", "json"))
    assert [one["source"] for one in asked["citations"]] == ["faq"]


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


# What the main job has none of.
SILENT = {
    ("training", "Most loaded expert"): "a dense model",
    ("fleet", "Why trainings don't run"): "by then all run or are over",
    ("operator", "Errors"): "no pass has failed",
    ("app", "Searches that did less than wanted"): "it searches by words alone",
    **{("app", title): "it has no agents" for title in (
        "Calls of tools", "Time of a call, 90 %", "Tokens by agent", "Turns of agents", "Answers at a limit")},
}  # fmt: skip
# What an app has none of here is seen in tests/monitoring/test_app_dashboard.py.


def test_every_panel_answers(user: User, prometheus: Prometheus, record_property: Seen) -> None:
    """And all rules load, each monitor finds its pods. LLM_OPERATOR_DRAW names a folder for pictures of them."""
    of_user = {"namespace": user.namespace, "training": "main", "serving": "main", "app": "main"}
    kinds = dict.fromkeys(("fleet", "training", "serving", "app"), of_user)
    variables = {**kinds, "operator": {"namespace": "llm-operator"}}
    told = prometheus.ask("status/runtimeinfo")["startTime"]  # RFC 3339, with nanoseconds
    began = datetime.fromisoformat(f"{told[:19]}Z").timestamp()
    assert set(variables) == {file.stem for file in panels.DASHBOARDS.iterdir()}
    found = panels.answers(prometheus, variables, began, time.time())
    if folder := os.environ.get("LLM_OPERATOR_DRAW"):
        panels.draw(found, Path(folder))
    record_property("panels", ", ".join(f"{one.dashboard}/{one.title}: {len(one.series)}" for one in found))
    silent = {(one.dashboard, one.title) for one in found if not one.series} - set(SILENT)
    assert not silent, f"no data in {sorted(silent)}"
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
    answered = prometheus.ask("query", query="count by (job) (max_over_time(up[30m]) == 1)")["result"]
    jobs = {one["metric"]["job"] for one in answered}
    pods = {f"PodMonitor-llm-operator-{kind}" for kind in ("trainings", "servings", "apps")}
    assert jobs == {"ServiceMonitor-llm-operator", *pods}, f"all were scraped: {answered}"


def test_with_nothing_to_do_nothing_is_written(user: User, plane: ControlPlane) -> None:
    asked = user.until(
        "the app is asked with the newer model", "llmapp", "main",
        lambda s: condition(s, "Evaluated").get("reason") not in (None, "Evaluating"), 240,
    )  # fmt: skip
    assert condition(asked, "Evaluated")["reason"] == "Evaluated", asked
    time.sleep(20)  # what belongs to the Jobs before goes after their pods
    since = time.time()
    time.sleep(QUIET_SECONDS)
    writes = [r for r in audit.requests(plane.audit_log, OPERATOR, since) if r.write]
    assert {request.resource for request in writes} <= {"leases"}, audit.by_verb(writes)
    assert writes, "the audit log shows nothing at all"


def test_the_chart_grants_what_is_used(plane: ControlPlane, chart: str) -> None:
    granted, used = rbac.granted(chart), rbac.used(plane.audit_log, OPERATOR)
    assert used - granted == set(), "used, but not granted"
    assert granted - used == set(), "granted, but never used"
