"""Whether the claims that a training mounts can be mounted by all its pods at a time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_operator.api.resolve import pods_of
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.training_status import StageStatus
from llm_operator.kube.claims import HOSTNAME, ONE_NODE, ONE_POD, access_modes, on_one_node
from llm_operator.kube.plan import Manifest
from llm_operator.training.stages import claims_of


def claim_problem(spec: LLMTrainingSpec, stages: Sequence[StageStatus], claims: Mapping[str, Manifest]) -> str | None:
    """Why stages that are still to run can't; None if they can. ``claims`` are those that exist.

    A disk that one node attaches would leave the other pods in ContainerCreating, with the GPUs of all taken.
    """
    for stage in stages:
        if stage.state == "Succeeded" or stage.nodes < 2:
            continue
        for name in claims_of(spec):
            modes = access_modes(claims.get(name) or {})
            if modes <= {ONE_POD} and modes:
                return told(name, ONE_POD, stage)
            if modes <= {ONE_NODE, ONE_POD} and modes and not on_one_node_of(spec, stage.name):
                return f"{told(name, ONE_NODE, stage)}; or pin the pods to one node by nodeSelector {HOSTNAME}"
    return None


def told(claim: str, mode: str, stage: StageStatus) -> str:
    one = "node" if mode == ONE_NODE else "pod"
    return (
        f"PersistentVolumeClaim {claim} has the access mode {mode}, so one {one} can mount it, and stage {stage.name} "
        f"has {stage.nodes} pods; use a claim of access mode ReadWriteMany, or nodes: 1"
    )


def on_one_node_of(spec: LLMTrainingSpec, stage: str) -> bool:
    written = next((one for one in spec.stages if one.name == stage), None)
    return on_one_node(pods_of(spec, written))
