"""An app and its serving on the real API server; the test says of pods what a kubelet would."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.api.serving.conftest import Lab, lab

__all__ = ["lab"]

Found = dict[str, Any]
CHILD = "help-app"
FAQ = {"a.md": "# Care\n\nOil it every 40 hours."}
SOURCES = [
    {"name": "notes", "inline": [{"text": "The valve is red."}]},
    {"name": "faq", "configMap": {"name": "faq"}},
    {"name": "files", "uri": "pvc://models/manual"},
]
SPEC: Found = {
    "model": {"serving": {"name": "chat"}},
    "storage": {"persistentVolumeClaim": {"claimName": "models"}},
    "knowledge": [{"name": "manual", "sources": SOURCES}],
    "prompt": {"system": "Help."},
}


@dataclass(frozen=True)
class AppLab:
    """``lab`` has what is of no kind."""

    lab: Lab

    def make(self, spec: Found | None = None) -> None:
        kind = {"apiVersion": "llm-operator.io/v1alpha1", "kind": "LLMApp", "metadata": {"name": "help"}}
        self.lab.apply({**kind, "spec": spec or SPEC})

    def change(self, **spec: Any) -> None:
        self.lab.patch("llmapp", "help", {"spec": spec})

    def config_map(self, **data: str) -> None:
        self.lab.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "faq"}, "data": data})

    def status(self) -> Found:
        found: Found = self.lab.get("llmapp", "help").get("status", {})
        return found

    def condition(self, kind: str) -> Found:
        nothing = {"status": "", "reason": "", "message": ""}
        return next((one for one in self.status().get("conditions", []) if one["type"] == kind), nothing)

    def items(self, kind: str, labels: str) -> list[Found]:
        items: list[Found] = json.loads(self.lab.kubectl("get", kind, "-l", labels, "-o", "json"))["items"]
        alive = [item for item in items if "deletionTimestamp" not in item["metadata"]]
        return sorted(alive, key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]))

    def jobs(self) -> list[Found]:
        return self.items("jobs", "llm-operator.io/app=help")

    def index_pods(self, component: str = "index") -> list[Found]:
        return self.items("pods", f"llm-operator.io/app=help,app.kubernetes.io/component={component}")

    def end_evaluation(self, **scores: float) -> None:
        told = [{"metric": name, "value": value, "stderr": 0.01, "count": 40} for name, value in scores.items()]
        self.end_index(component="evaluation", questions=40, scores=told)

    def end_index(self, code: int = 0, component: str = "index", **word: Any) -> None:
        """The newest pod of an index Job ends, and its Job with it."""

        def pending() -> list[Found]:
            return [pod for pod in self.index_pods(component) if pod["status"]["phase"] == "Pending"]

        self.lab.until(pending)
        pod = pending()[-1]
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        told = json.dumps(word or {"documents": 3, "chunks": 5})
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "message": told, "startedAt": now,
                 "finishedAt": now}  # fmt: skip
        container = {"name": "app", "image": "a", "imageID": "", "ready": False, "restartCount": 0,
                     "state": {"terminated": ended}}  # fmt: skip
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now}
        phase = "Failed" if code else "Succeeded"
        self.lab.tell(pod, {"phase": phase, "conditions": [scheduled], "containerStatuses": [container]})

    def config(self) -> Found:
        """That the Deployment's pods have."""
        volumes = self.lab.get("deployment", CHILD)["spec"]["template"]["spec"]["volumes"]
        [name] = [volume["configMap"]["name"] for volume in volumes if volume["name"] == "config"]
        found: Found = json.loads(self.lab.get("configmap", name)["data"]["server.json"])
        return found

    def until_ready(self, phase: str = "Ready") -> None:
        """Every pod of a server that comes runs, of the app and of its serving, until the app is as it should be."""
        while self.status().get("phase") != phase:
            for pod in self.lab.pods():
                told = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
                of_a_job = pod["metadata"]["labels"].get("app.kubernetes.io/component") in ("index", "evaluation")
                if not of_a_job and told.get("Ready") != "True":
                    self.lab.run_pod(pod)
            time.sleep(0.1)


@pytest.fixture
def app(lab: Lab) -> AppLab:
    """With its serving ready and its ConfigMap there."""
    lab.serve({"model": {"uri": "pvc://models/base"}})
    made = AppLab(lab)
    made.config_map(**FAQ)
    lab.until_ready()
    return made
