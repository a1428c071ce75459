"""Which pods can mount a claim at a time. Pure."""

from __future__ import annotations

from llm_operator.api.pods import Affinity, NodeSelectorTerm, PodSettings
from llm_operator.kube.plan import Manifest

HOSTNAME = "kubernetes.io/hostname"
ONE_NODE, ONE_POD = "ReadWriteOnce", "ReadWriteOncePod"


def access_modes(claim: Manifest) -> set[str]:
    return set((claim.get("spec") or {}).get("accessModes") or ())


def on_one_node(pods: PodSettings) -> bool:
    """Whether they run on one node only, or may do so: who can't tell doesn't refuse."""
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
