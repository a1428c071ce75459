"""Whether the claims that a training mounts can be mounted by all its pods at a time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_operator.api.pods import Affinity, NodeSelectorTerm
from llm_operator.api.resolve import pods_of
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.training_status import StageStatus
from llm_operator.kube.plan import Manifest
from llm_operator.training.stages import claims_of

HOSTNAME = "kubernetes.io/hostname"
ONE_NODE, ONE_POD = "ReadWriteOnce", "ReadWriteOncePod"


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
            if modes <= {ONE_NODE, ONE_POD} and modes and not on_one_node(spec, stage.name):
                return f"{told(name, ONE_NODE, stage)}; or pin the pods to one node by nodeSelector {HOSTNAME}"
    return None


def told(claim: str, mode: str, stage: StageStatus) -> str:
    one = "node" if mode == ONE_NODE else "pod"
    return (
        f"PersistentVolumeClaim {claim} has the access mode {mode}, so one {one} can mount it, and stage {stage.name} "
        f"has {stage.nodes} pods; use a claim of access mode ReadWriteMany, or nodes: 1"
    )


def access_modes(claim: Manifest) -> set[str]:
    return set((claim.get("spec") or {}).get("accessModes") or ())


def on_one_node(spec: LLMTrainingSpec, stage: str) -> bool:
    """Whether the stage's pods run on one node only, or may do so: who can't tell doesn't refuse."""
    written = next((one for one in spec.stages if one.name == stage), None)
    pods = pods_of(spec, written)
    return HOSTNAME in pods.node_selector or (pods.affinity is not None and holds_together(pods.affinity))


def holds_together(affinity: Affinity) -> bool:
    """Pins the pods to one node by its name, or to the node of other pods, which their own gang may be."""
    near = affinity.pod_affinity.required_during_scheduling_ignored_during_execution if affinity.pod_affinity else []
    if any(term.topology_key == HOSTNAME for term in near):
        return True
    nodes = affinity.node_affinity and affinity.node_affinity.required_during_scheduling_ignored_during_execution
    names = {node_of(term) for term in nodes.node_selector_terms} if nodes else set()
    return len(names) == 1 and None not in names


def node_of(term: NodeSelectorTerm) -> str | None:
    """The only node that it lets in, if its name tells that."""
    found = (one.values for one in term.match_expressions if (one.key, one.operator) == (HOSTNAME, "In"))
    return next((values[0] for values in found if len(set(values)) == 1), None)
