"""What pods of a gang are told of the network between them, and where they had better run."""

from __future__ import annotations

from typing import Any

import pytest

from llm_operator.api.resources import Resources
from llm_operator.training.manifests import environment, spread
from llm_operator.training.stages import PlannedStage


def stage(nodes: int, **limits: str) -> PlannedStage:
    named = {name.replace("__", "/").replace("_", "."): amount for name, amount in limits.items()}
    return PlannedStage("base", "pretrain", 0, nodes, 1, Resources(limits=named))


def told(nodes: int, **limits: str) -> dict[str, Any]:
    return {variable["name"]: variable for variable in environment(stage(nodes, **limits), "job")}


GPU = {"nvidia_com__gpu": "8"}


@pytest.mark.parametrize(
    ("nodes", "limits", "net"),
    [
        (2, {**GPU, "rdma__hca": "8"}, "IB"),
        (2, GPU, None),  # NCCL takes the best that is there
        (2, {**GPU, "vpc_amazonaws_com__efa": "4"}, None),  # by a plugin of its own
        (1, {**GPU, "rdma__hca": "8"}, None),
    ],
)
def test_rdma_that_was_asked_for_is_used_or_told(nodes: int, limits: dict[str, str], net: str | None) -> None:
    assert told(nodes, **limits).get("NCCL_NET", {}).get("value") == net


def test_only_gangs_on_gpus_are_told_of_nccl() -> None:
    assert "NCCL_DEBUG" in told(2, **GPU)
    assert not [name for name in (*told(2), *told(1, **GPU)) if name.startswith("NCCL")]


def test_a_gang_knows_its_zone() -> None:
    path = told(2)["LLM_TOPOLOGY"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == "metadata.labels['topology.kubernetes.io/zone']"
    assert "LLM_TOPOLOGY" not in told(1)


def test_a_gang_prefers_one_zone_and_several_nodes() -> None:
    """Neither is required: it also runs where there is one node, or no zone has room for all."""
    fields = spread(stage(2), "job")
    (near,) = fields["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert near["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"
    assert fields["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "ScheduleAnyway"
    assert "affinity" not in spread(stage(1), "job")
