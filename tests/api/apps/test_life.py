"""What an app follows, and what it survives, on a real API server."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from tests.api.apps.conftest import CHILD, FAQ, SPEC, AppLab
from tests.api.serving.conftest import CLAIM, Lab
from tests.specs import changed

SOURCE = "knowledge__0__sources__2"


def test_the_life_of_an_app(app: AppLab) -> None:
    """Index, server, a new revision, one that fails, and the end."""
    app.make()
    app.lab.until(lambda: app.status().get("phase") == "Indexing")
    assert not app.lab.get("deployment", CHILD), "no pod before its knowledge is there"
    app.end_index()
    app.until_ready()
    status = app.status()
    assert status["url"] == f"http://{CHILD}.{app.lab.namespace}.svc/v1"
    assert status["model"] == {"url": f"http://chat-serving.{app.lab.namespace}.svc/v1", "name": "chat"}
    [knowledge] = status["knowledge"]
    assert (knowledge["documents"], knowledge["chunks"], knowledge["reason"]) == (3, 5, "Indexed")
    shown = app.lab.kubectl("get", "llmapp", "help").split()
    assert shown[:6] == ["NAME", "PHASE", "READY", "SERVING", "URL", "AGE"]
    first = app.config()["knowledge"][0]["revision"]

    app.config_map(**{"a.md": "other"})
    app.lab.until(lambda: app.status()["phase"] == "Degraded")
    assert app.config()["knowledge"][0]["revision"] == first
    app.end_index()
    app.lab.until(lambda: app.config()["knowledge"][0]["revision"] != first)
    app.until_ready()
    app.lab.until(lambda: len(app.jobs()) == 1)
    second = app.config()["knowledge"][0]["revision"]

    app.make(changed(SPEC, knowledge__0__edition="3"))
    app.lab.until(lambda: len(app.jobs()) == 2)
    app.end_index(65, problem="models/manual/a.txt: is UTF-16; write it as UTF-8")
    app.lab.until(lambda: app.condition("KnowledgeReady")["reason"] == "IndexFailed")
    assert "is UTF-16" in app.condition("KnowledgeReady")["message"]
    assert (app.condition("Ready")["status"], app.status()["phase"]) == ("True", "Degraded")
    assert app.config()["knowledge"][0]["revision"] == second
    app.lab.kubectl("delete", "job", app.status()["knowledge"][0]["job"])
    app.lab.until(lambda: app.condition("KnowledgeReady")["reason"] == "Indexing")
    app.end_index()
    app.until_ready()

    app.lab.kubectl("delete", "llmapp", "help")
    kinds = ("deployment", "service", "poddisruptionbudget", "networkpolicy")
    app.lab.until(lambda: not any(app.lab.get(kind, CHILD) for kind in kinds))
    app.lab.until(lambda: not app.jobs() and not app.items("configmaps", "llm-operator.io/app=help"))


def test_what_an_index_waits_for_or_dies_of_is_told(app: AppLab) -> None:
    app.make(changed(SPEC, **{SOURCE: {"name": "files", "uri": "pvc://late/x"}}))
    app.lab.until(lambda: app.condition("KnowledgeReady")["reason"] == "PersistentVolumeClaimNotFound")
    assert "late" in app.condition("Ready")["message"]
    app.lab.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "late"}, "spec": CLAIM})
    app.lab.until(app.index_pods)
    app.lab.find_no_room(app.index_pods()[0])
    app.lab.until(lambda: app.condition("KnowledgeReady")["reason"] == "Unschedulable")
    app.end_index(73, problem="[Errno 28] No space left on device")
    app.lab.until(lambda: "No space left" in app.condition("KnowledgeReady")["message"])
    assert "claim of spec.storage is full" in app.condition("KnowledgeReady")["message"]
    app.end_index()
    app.until_ready()
    app.lab.kubectl("delete", "configmap", "faq")
    app.lab.until(lambda: app.condition("KnowledgeReady")["reason"] == "SourceNotFound")
    assert app.status()["phase"] == "Degraded", "what answers goes on"


def test_a_configuration_is_used_when_it_has_passed(app: AppLab) -> None:
    """The questions are another ConfigMap of the user's; a change of them asks again."""
    questions = {"a.md": FAQ["a.md"], "questions.jsonl": '{"question": "How often?", "answer": "every 40 hours"}'}
    app.config_map(**questions)
    evaluation = {"questions": {"configMap": {"name": "faq"}}, "gate": "block",
                  "thresholds": [{"metric": "contains", "min": 0.8}]}  # fmt: skip
    spec = {"model": SPEC["model"], "prompt": {"system": "First."}, "evaluation": evaluation}
    app.make(spec)
    app.lab.until(lambda: app.status().get("phase") == "Evaluating")
    app.end_evaluation(contains=0.9)
    app.until_ready()
    assert app.status()["evaluation"]["passed"] is True
    app.change(prompt={"system": "Second."})
    app.lab.until(lambda: app.condition("Evaluated")["reason"] == "Evaluating")
    app.end_evaluation(contains=0.5)
    app.lab.until(lambda: app.condition("Evaluated")["reason"] == "ThresholdMissed")
    assert (app.config()["prompt"]["system"], app.status()["phase"]) == ("First.", "HeldBack")
    app.lab.until(lambda: "contains is 0.500" in app.lab.told("ThresholdMissed"))
    app.config_map(**{**questions, "questions.jsonl": '{"question": "Why?", "answer": "so"}'})
    app.lab.until(lambda: app.condition("Evaluated")["reason"] == "Evaluating")
    app.end_evaluation(contains=1.0)
    app.until_ready()
    assert app.config()["prompt"]["system"] == "Second."
    app.lab.until(lambda: len(app.jobs()) == 1)
    app.change(evaluation=None)
    app.lab.until(lambda: not app.jobs() and "evaluation" not in app.status())


def test_it_follows_its_serving(lab: Lab) -> None:
    app = AppLab(lab)
    app.make({"model": {"serving": {"name": "chat", "adapter": "law"}}})
    lab.until(lambda: app.condition("ModelResolved")["reason"] == "ServingNotFound")
    lab.serve({"model": {"uri": "pvc://models/base"}})
    lab.until(lambda: app.condition("ModelResolved")["reason"] == "AdapterNotFound")
    law = {"name": "law", "uri": "pvc://models/law"}
    key = {"secretKeyRef": {"name": "keys", "key": "chat"}}
    lab.serve({"model": {"uri": "pvc://models/base"}, "adapters": [law], "apiKey": key})
    app.until_ready()
    assert app.config()["model"]["name"] == "law"
    [container] = lab.get("deployment", CHILD)["spec"]["template"]["spec"]["containers"]
    assert {"name": "LLM_APP_MODEL_API_KEY", "valueFrom": {"secretKeyRef": key["secretKeyRef"]}} in container["env"]
    app.change(model={"serving": {"name": "chat", "adapter": None}})
    lab.until(lambda: app.config()["model"]["name"] == "chat")
    app.until_ready()
    lab.kubectl("delete", "llmserving", "chat")
    lab.until(lambda: app.condition("ModelResolved")["reason"] == "ServingNotFound")
    assert (app.condition("Available")["status"], app.status()["phase"]) == ("True", "Waiting")
    lab.kubectl("scale", "llmapp", "help", "--replicas=0")
    lab.until(lambda: app.status()["phase"] == "ScaledToZero")


def test_drift_is_mended_and_what_others_add_stays(app: AppLab) -> None:
    app.make({"model": SPEC["model"]})
    app.until_ready()
    lab = app.lab
    lab.kubectl("label", "deployment", CHILD, "cost-center=42")
    lab.kubectl("set", "image", f"deployment/{CHILD}", "app=other:1")
    ports = [{"op": "replace", "path": "/spec/ports/0/port", "value": 81}]
    lab.kubectl("patch", "service", CHILD, "--type=json", "-p", json.dumps(ports))
    lab.patch("poddisruptionbudget", CHILD, {"spec": {"maxUnavailable": 0}})
    lab.patch("networkpolicy", CHILD, {"spec": {"ingress": [{}]}})
    lab.until(lambda: image(lab) == "llm-operator-app")
    lab.until(lambda: [port["port"] for port in lab.get("service", CHILD).get("spec", {}).get("ports", [])] == [80])
    lab.until(lambda: lab.get("poddisruptionbudget", CHILD)["spec"]["maxUnavailable"] == 1)
    lab.until(lambda: "from" in lab.get("networkpolicy", CHILD)["spec"]["ingress"][0])
    assert lab.get("deployment", CHILD)["metadata"]["labels"]["cost-center"] == "42"
    lab.until(lambda: "change LLMApp help instead" in lab.told("DriftMended"))
    for kind in ("deployment", "service", "poddisruptionbudget", "networkpolicy"):
        lab.kubectl("delete", kind, CHILD)
        lab.until(partial(lab.get, kind, CHILD))
    name = next(iter(app.items("configmaps", "llm-operator.io/app=help")))["metadata"]["name"]
    lab.kubectl("delete", "configmap", name)
    lab.until(partial(lab.get, "configmap", name))
    app.until_ready()


def image(lab: Lab) -> Any:
    return lab.get("deployment", CHILD)["spec"]["template"]["spec"]["containers"][0]["image"]


def test_a_spec_that_can_not_work_and_a_name_that_is_taken_are_told(app: AppLab) -> None:
    app.lab.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": CHILD},
                   "spec": {"ports": [{"port": 80}], "selector": {"app": "mine"}}})  # fmt: skip
    others = {
        "PodDisruptionBudget": ("policy/v1", {"maxUnavailable": 1}),
        "NetworkPolicy": ("networking.k8s.io/v1", {"podSelector": {}}),
    }
    for kind, (version, spec) in others.items():
        app.lab.apply({"apiVersion": version, "kind": kind, "metadata": {"name": CHILD}, "spec": spec})
    app.make({"model": SPEC["model"], "prompt": {"system": "{{nobody}}"}})
    app.lab.until(lambda: app.status().get("phase") == "Invalid")
    assert "spec.prompt.system: {{nobody}} is no variable" in app.condition("Accepted")["message"]
    app.change(prompt={"system": "Help."})
    app.lab.until(lambda: app.condition("Ready")["reason"] == "ApplyRefused")
    assert f"Service {CHILD}: the name is taken" in app.condition("Ready")["message"]
    app.lab.kubectl("delete", "service", CHILD)
    for kind in others:  # one after the other, and nothing of theirs is changed meanwhile
        app.lab.until(lambda: f"{kind} {CHILD}: the name is taken" in app.condition("Ready")["message"])  # noqa: B023
        assert not app.lab.get(kind, CHILD)["metadata"].get("ownerReferences")
        app.lab.kubectl("delete", kind, CHILD)
    app.until_ready()
    assert app.lab.get("service", CHILD)["spec"]["selector"]["llm-operator.io/app"] == "help"
