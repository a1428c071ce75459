"""The operator where the cluster has IPv6 alone: its API server, the Service of a training, and rank 0."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from llm_trainer.protocol import Progress
from tests.api.conftest import running
from tests.api.training.conftest import Lab
from tests.api.training.test_pull import IPV6, Rank0, Rank0OnIPv6, listening
from tests.cluster.cluster import binaries
from tests.cluster.control_plane import ControlPlane, free_ports


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """In place of that of the other tests, which has IPv4 alone."""
    state = tmp_path_factory.mktemp("ipv6")
    plane = ControlPlane(
        binaries(), state, address=IPV6, service_range="fd00:215::/108", port=free_ports(1), etcd_port=free_ports(2)
    )
    with running(plane):
        yield plane


@pytest.fixture
def rank_0() -> Iterator[Rank0]:
    yield from listening(Rank0OnIPv6, IPV6)


def test_a_training_goes_its_way_and_tells_its_progress(lab: Lab, training: None, rank_0: Rank0) -> None:
    lab.succeed("data", lab.start_pods("data"))
    first, _ = lab.start_pods("base")
    (service,) = json.loads(lab.kubectl("get", "services", "-o", "json"))["items"]
    assert service["spec"]["ipFamilies"] == ["IPv6"]
    told = Progress(stage="base", attempt=1, step=7, total_steps=10, heartbeat=time.time())
    rank_0.body = told.model_dump_json(by_alias=True).encode()
    addresses = json.dumps({"status": {"podIP": IPV6, "podIPs": [{"ip": IPV6}]}})
    lab.kubectl("patch", "pod", first, "--subresource=status", "--type=merge", "-p", addresses)
    lab.until(lambda: lab.training()["status"].get("progress") == "7/10 70%")
