"""The two-node cluster with the operator installed by its chart; left as it was found."""

from __future__ import annotations

import itertools
import json
import os
import pydoc_data.topics
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo.kubectl import Kubectl
from demo.run import Images, install

from tests.cluster import cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import run
from tests.cluster.prometheus_operator import definitions
from tests.cluster.settings import SHARED
from tests.e2e.user import User

_numbers = itertools.count(os.getpid())


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """The running cluster: kubeconfig, audit_log, kubectl(*arguments). LLM_OPERATOR_KEEP_CLUSTER=1 keeps it up."""
    found_up = cluster.is_up()
    cluster.up()
    try:
        yield cluster.control_plane()
    finally:
        for left in SHARED.glob("e2e-*"):  # pods of users who moved out may have written to the end
            shutil.rmtree(left, ignore_errors=True)
        if not found_up and not os.environ.get("LLM_OPERATOR_KEEP_CLUSTER"):
            cluster.down()


@pytest.fixture(scope="session")
def images(plane: ControlPlane) -> dict[str, str]:
    """Names by which pods pull our images."""
    return cluster.push_images()


@pytest.fixture(scope="session")
def chart(plane: ControlPlane, images: dict[str, str]) -> str:
    """The operator is installed with all that the chart can make; the manifests that helm made of it.

    With the policies of its children, which nothing enforces here, so that their rights are compared too, and with the
    Prometheus operator's definitions, so that monitors, rules and dashboards are there.
    """
    files = [word for file in sorted(definitions().glob("*.yaml")) for word in ("-f", str(file))]
    plane.kubectl("apply", "--server-side", *files)
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    helm = plane.binaries / "helm"
    ours = Images(images["llm-operator"], images["llm-trainer"], images["llm-app"])
    install(helm, Kubectl(plane.binaries / "kubectl", plane.kubeconfig, "llm-operator"), ours,
            "networkPolicies.enabled=true", "monitoring.enabled=true", "monitoring.dashboards=true")  # fmt: skip
    asked = (helm, "--kubeconfig", plane.kubeconfig, "--namespace", "llm-operator")
    return run(*asked, "get", "manifest", "llm-operator").stdout


@pytest.fixture(scope="module")
def user(plane: ControlPlane, chart: str) -> Iterator[User]:
    """In a namespace of this module's own, with a little text on the claim `corpus`."""
    user = User(plane, f"e2e-{next(_numbers)}")
    user.move_in()
    write_text(user.folder("corpus"))
    yield user
    user.move_out()


def write_text(folder: Path) -> None:
    """Python's own documentation, and questions about it."""
    topics = pydoc_data.topics.topics
    (folder / "topics.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in topics.values()))
    rows = [
        {"messages": [{"role": "user", "content": f"What is {key}?"}, {"role": "assistant", "content": text[:80]}]}
        for key, text in topics.items()
    ]
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
