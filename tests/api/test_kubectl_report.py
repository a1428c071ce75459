"""`kubectl llm report` against a real API server: the pod that it makes is let in, and gone whatever happens.

That it reads the report is seen where pods run: tests/e2e/test_main_job.py.
"""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest

from kubectl_llm.kubectl import ExitCode
from tests.api.test_kubectl_plugin import RUNNING, Shell, a_shell, shell
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import wait
from tests.specs import TRAINING

__all__ = ["shell"]
IN_RUN = {**RUNNING, "runUri": "pvc://models/chat-1"}
IMAGE = ("--image", "registry.invalid/trainer:1")


@pytest.fixture
def training(shell: Shell) -> Shell:
    """In a namespace of Pod Security's restricted profile, where nothing else would be let in."""
    shell.plane.kubectl("label", "namespace", shell.namespace, "pod-security.kubernetes.io/enforce=restricted")
    shell.make("LLMTraining", "chat", TRAINING, IN_RUN)
    return shell


def pods(shell: Shell) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(shell.plane.kubectl("-n", shell.namespace, "get", "pods", "-o", "json"))[
        "items"
    ]
    return found


def asking(shell: Shell, *words: str) -> subprocess.Popen[str]:
    command = shell.command("report", "chat", *words, "-n", shell.namespace)
    return subprocess.Popen(
        command, env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_gives_up_leaves_no_pod(training: Shell, number: signal.Signals) -> None:
    process = asking(training, *IMAGE)
    wait("the pod is there", lambda: pods(training) != [], 60)
    (pod,) = pods(training)
    assert pod["metadata"]["ownerReferences"][0]["name"] == "chat", "it goes with the training too"
    (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
    assert (mount["mountPath"], mount["readOnly"]) == ("/volumes/models", True)
    assert pod["spec"]["activeDeadlineSeconds"], "and by itself"
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert pods(training) == []


def test_a_pod_that_can_not_be_read_goes_too(training: Shell) -> None:
    process = asking(training, *IMAGE)
    wait("the pod is there", lambda: pods(training) != [], 60)
    name = pods(training)[0]["metadata"]["name"]
    ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}  # and no kubelet
    training.plane.kubectl("-n", training.namespace, "patch", "pod", name, "--subresource=status", "-p",
                           json.dumps(ready))  # fmt: skip
    _, told = process.communicate(timeout=60)
    assert process.returncode != 0
    assert told.startswith("kubectl llm: "), told
    assert told.count("\n") == 1
    assert pods(training) == []


def test_what_is_missing_is_told(training: Shell) -> None:
    code, told = training.refused("report", "chat")
    assert (code, "--image" in told) == (ExitCode.USAGE, True), told
    training.make("LLMTraining", "new", TRAINING)
    code, told = training.refused("report", "new", *IMAGE)
    assert (code, "no run folder yet" in told) == (ExitCode.NOT_FOUND, True), told
    assert training.refused("report", "ghost")[0] == ExitCode.NOT_FOUND
    for bad in ("hub://x/y", "pvc://models", "pvc://models/../other"):
        training.tell("LLMTraining", "new", {"runUri": bad})
        assert training.refused("report", "new", *IMAGE)[0] == ExitCode.NOT_FOUND


def test_a_user_who_may_make_no_pods(api_server: ControlPlane, training: Shell) -> None:
    """Sees the training, its Jobs and pods."""
    kubectl, name = api_server.kubectl, "viewer"
    api_server.authority.issue(name, f"/CN={name}")
    rules = ["--verb=get,list", "--resource=llmtrainings.llm-operator.io,pods,jobs.batch"]
    kubectl("-n", training.namespace, "create", "role", name, *rules)
    kubectl("-n", training.namespace, "create", "rolebinding", name, f"--role={name}", f"--user={name}")
    folder = training.kubeconfig.parent / name
    folder.mkdir()
    theirs = api_server.authority.kubeconfig(name, api_server.server, folder / "theirs").read_text()
    viewer = a_shell(api_server, folder, theirs)
    done = viewer.run("report", "chat", "-n", training.namespace, *IMAGE, anywhere=True)
    assert done.returncode == ExitCode.FORBIDDEN, done.stderr
    assert done.stderr.count("\n") == 1
    assert "cannot create resource" in done.stderr
