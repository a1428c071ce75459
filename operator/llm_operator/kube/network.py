"""The NetworkPolicies of trainings, servings and apps. Pure.

Where no plugin enforces them they are without effect. The kubelet's probes come from the pod's own node, which no
policy blocks. With most plugins a policy reaches no pod that is on the node's network, and with none what goes by RDMA.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_operator.api.network import NetworkPolicies, as_written
from llm_operator.kube.kinds import JOB, NETWORK_POLICY
from llm_operator.kube.labels import JOB_NAME
from llm_operator.kube.plan import Delete, Manifest

NAMESPACE_NAME = "kubernetes.io/metadata.name"  # a label that the API server puts on every namespace
OPERATOR_PODS = {"app.kubernetes.io/name": "llm-operator"}  # labels that the chart gives them
ALL = "*"
# Of any address: a node's own cache of DNS has one that no selector describes.
DNS: Manifest = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}

# Of hubs, buckets and servers, whose addresses only their names tell.
ANYWHERE: Manifest = {"ports": [{"protocol": "TCP"}]}
PRIVATE = {
    "0.0.0.0/0": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"],
    "::/0": ["fc00::/7", "fe80::/10"],
}

Peer = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """What the policies need to know beside whose they are."""

    operator_namespace: str
    policies: NetworkPolicies

    @classmethod
    def of(cls, policies: NetworkPolicies, operator_namespace: str) -> Network | None:
        """None: no policies are made."""
        return cls(operator_namespace, policies) if policies.enabled else None

    @property
    def operator(self) -> Peer:
        return {**namespaces([self.operator_namespace]), "podSelector": {"matchLabels": OPERATOR_PODS}}

    @property
    def metrics_from(self) -> list[Peer]:
        return as_written(self.policies.metrics_from)

    @property
    def serving_from(self) -> list[Peer]:
        return as_written(self.policies.serving_from)

    @property
    def egress(self) -> list[Manifest]:
        return [DNS, *as_written(self.policies.extra_egress)]


def namespaces(names: Sequence[str]) -> Peer:
    """All pods of these namespaces."""
    return {"namespaceSelector": {"matchExpressions": [{"key": NAMESPACE_NAME, "operator": "In", "values": [*names]}]}}


def pods(selector: Mapping[str, str]) -> Peer:
    """Of the policy's own namespace."""
    return {"podSelector": {"matchLabels": dict(selector)}}


def policy(
    metadata: dict[str, Any], selector: Mapping[str, str], ingress: Sequence[Manifest], egress: Sequence[Manifest]
) -> Manifest:
    """What is in none of the rules is refused, in both directions."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": dict(selector)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [*ingress],
            "egress": [*egress],
        },
    }


def job_policy(
    metadata: dict[str, Any], network: Network, ingress: Sequence[Manifest] = (), egress: Sequence[Manifest] = ()
) -> Manifest:
    """Of the pods of a Job, which has the same metadata; it must be there before the Job. Out also to DNS."""
    return policy(metadata, {JOB_NAME: metadata["name"]}, ingress, [*network.egress, *egress])


def without_pods(policies: Iterable[Manifest], jobs: Iterable[str], pods: Iterable[Manifest]) -> Iterator[Delete]:
    """Policies of Jobs that nothing is left of: without them, pods that have not ended would be open.

    ``jobs``: names of those that are there, or that are made now.
    """
    needed = {*jobs, *(str((pod["metadata"].get("labels") or {}).get(JOB_NAME, "")) for pod in pods)}
    for found in policies:
        metadata = found["metadata"]
        if metadata["name"] not in needed and "deletionTimestamp" not in metadata:
            yield Delete(NETWORK_POLICY.api_version, NETWORK_POLICY.name, metadata["name"], metadata["uid"])


def created_jobs(create: Iterable[Manifest]) -> Iterator[str]:
    return (made["metadata"]["name"] for made in create if made["kind"] == JOB.name)


def internet(allowed: Iterable[str] = ()) -> list[Peer]:
    """Public addresses, and those of networks that are allowed beside."""
    blocks: list[dict[str, Any]] = [{"cidr": whole, "except": [*inside]} for whole, inside in PRIVATE.items()]
    return [{"ipBlock": block} for block in (*blocks, *({"cidr": one} for one in allowed))]


def tcp(port: int, peers: Sequence[Peer]) -> Manifest:
    """An ingress rule; no peers: from everywhere."""
    return {"ports": [{"port": port, "protocol": "TCP"}], **({"from": [*peers]} if peers else {})}
