"""A serving from a hub, with the real Job controller: one Job before any pod, and its word."""

from __future__ import annotations

import json
import time
from typing import Any

from llm_trainer.protocol import FetchedInput, Progress, Termination
from tests.api.serving.conftest import CHILD, Lab
from tests.serving_specs import FETCHED, STORE
from tests.specs import changed

COMMIT = "c" * 40


def fetch_jobs(lab: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab.kubectl("get", "jobs", "-o", "json"))["items"]
    return [job for job in found if "deletionTimestamp" not in job["metadata"]]


def fetch_pod(lab: Lab) -> dict[str, Any]:
    lab.until(lambda: [pod for pod in lab.pods() if "job-name" in pod["metadata"]["labels"]])
    return [pod for pod in lab.pods() if "job-name" in pod["metadata"]["labels"]][-1]


def end(lab: Lab, code: int, word: Termination) -> None:
    """As a kubelet tells it."""
    now, pod = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), fetch_pod(lab)
    told = word.model_dump_json(by_alias=True, exclude_none=True)
    state = {"terminated": {"exitCode": code, "message": told, "startedAt": now, "finishedAt": now}}
    container = {"name": "fetch", "image": "vllm:1", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container]}
    lab.patch("pod", pod["metadata"]["name"], {"status": status}, "--subresource=status")


def test_from_a_hub_to_ready_pods(lab: Lab) -> None:
    lab.serve(changed(FETCHED, credentials=[STORE, {"secretName": "hub", "for": "hf"}]))
    refused = Termination(reason="DataError", message="spec.model.uri: hf://org/name is gated", exit_code=65)
    end(lab, 65, refused)
    lab.until(lambda: lab.condition("ModelAvailable").get("reason") == "FetchFailed")
    assert "spec.model.uri: hf://org/name is gated" in lab.condition("ModelAvailable")["message"]
    assert not lab.get("deployment"), "no pod has taken a GPU"
    (failed,) = fetch_jobs(lab)
    lab.kubectl("delete", "job", failed["metadata"]["name"])
    lab.until(lambda: [job["metadata"]["uid"] for job in fetch_jobs(lab)] not in ([], [failed["metadata"]["uid"]]))
    lab.until(lambda: not any(pod["status"].get("phase") == "Failed" for pod in lab.pods()))
    found = FetchedInput(uri="hf://org/name@main", revision=COMMIT, bytes=5, license="mit")
    end(lab, 0, Termination(reason="Succeeded", progress=Progress(stage="fetch", attempt=0, inputs=[found])))
    lab.until(lambda: lab.get("deployment"))
    while lab.status().get("phase") != "Ready":
        for pod in lab.pods():
            if "job-name" not in pod["metadata"]["labels"] and pod["status"].get("phase") != "Running":
                lab.run_pod(pod)
        time.sleep(0.1)
    status = lab.status()
    assert status["model"] == {"uri": "hf://org/name@main", "revision": COMMIT}
    assert status["replicas"] == 1, "the pod that fetched is none of its"
    pod = lab.get("deployment")["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"][-1].endswith(f"/.fetched/hf/models/org/name/{COMMIT}")
    assert "hub" not in json.dumps(pod["volumes"])
    selected = json.loads(lab.kubectl("get", "pods", "-l", status["selector"], "-o", "json"))["items"]
    assert len(selected) == 1
    lab.patch(
        "llmserving",
        "chat",
        {"spec": {"modelCache": {"persistentVolumeClaim": None, "emptyDir": {"sizeLimit": "1Gi"}}}},
    )
    lab.until(lambda: [job["metadata"]["name"] for job in fetch_jobs(lab)] != [lab.status()["inputs"][0].get("job")])
    assert COMMIT in json.dumps(fetch_jobs(lab)[-1]["spec"]["template"]["spec"]["containers"][0]["env"])
    end(lab, 0, Termination(reason="Succeeded", progress=Progress(stage="fetch", attempt=0, inputs=[found])))
    lab.until(lambda: lab.get("deployment")["spec"]["template"]["spec"].get("initContainers"))
    assert {"ports": [{"protocol": "TCP"}]} in lab.get("networkpolicy", CHILD)["spec"]["egress"]
    assert not [write for write in (lab.log.read_text().splitlines()) if "Traceback" in write]
