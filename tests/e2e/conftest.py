"""The two-node cluster with both images pushed; left as it was found."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.cluster import cluster
from tests.cluster.control_plane import ControlPlane


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """The running cluster: kubeconfig, audit_log, kubectl(*arguments). LLM_OPERATOR_KEEP_CLUSTER=1 keeps it up."""
    found_up = cluster.is_up()
    cluster.up()
    try:
        yield cluster.control_plane()
    finally:
        if not found_up and not os.environ.get("LLM_OPERATOR_KEEP_CLUSTER"):
            cluster.down()


@pytest.fixture(scope="session")
def images(plane: ControlPlane) -> dict[str, str]:
    """Names by which pods pull llm-operator and llm-trainer."""
    return cluster.push_images()
