"""Who may reach the pods of trainings and servings, and whom they may reach: a setting of the operator.

Peers and rules are Kubernetes' own (networking.k8s.io/v1), typed so that a wrong one is told when the operator starts.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from llm_operator.api.common import Spec
from llm_operator.api.pods import LabelSelector


def _cidr(text: str) -> str:
    """Raises ValueError for what the API server would refuse with each policy."""
    if "/" not in text:
        raise ValueError(f"{text!r} needs a prefix, as 10.0.0.0/8 has one")
    return str(ip_network(text))


Cidr = Annotated[str, StringConstraints(max_length=64), AfterValidator(_cidr)]
Port = Annotated[int, Field(ge=1, le=65_535)]
PortName = Annotated[
    str, StringConstraints(max_length=15, pattern=r"^([a-z0-9]+-)*[a-z0-9]*[a-z][a-z0-9]*(-[a-z0-9]+)*$")
]


class IPBlock(Spec):
    cidr: Cidr
    excluded: list[Cidr] = Field(default_factory=list, max_length=64, alias="except")

    @model_validator(mode="after")
    def _within(self) -> IPBlock:
        whole = ip_network(self.cidr)
        for part in map(ip_network, self.excluded):
            if part.version != whole.version or part == whole or not part.subnet_of(whole):  # type: ignore[arg-type]
                raise ValueError(f"except: {part} is no part of cidr {whole}")
        return self


class NetworkPolicyPeer(Spec):
    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None

    @model_validator(mode="after")
    def _some_peer(self) -> NetworkPolicyPeer:
        selects = self.pod_selector is not None or self.namespace_selector is not None
        if selects == (self.ip_block is not None):
            raise ValueError("must have either ipBlock, or podSelector, namespaceSelector or both")
        return self


class NetworkPolicyPort(Spec):
    protocol: Literal["TCP", "UDP", "SCTP"] | None = None
    port: Port | PortName | None = None
    end_port: Port | None = None

    @model_validator(mode="after")
    def _range(self) -> NetworkPolicyPort:
        if self.end_port is not None and not (isinstance(self.port, int) and self.port <= self.end_port):
            raise ValueError("endPort needs a port that is a number and not above it")
        return self


class NetworkPolicyEgressRule(Spec):
    ports: list[NetworkPolicyPort] = Field(default_factory=list, max_length=64)
    to: list[NetworkPolicyPeer] = Field(default_factory=list, max_length=64)


Peers = Annotated[list[NetworkPolicyPeer], Field(max_length=64)]


class NetworkPolicies(Spec):
    """The chart's value networkPolicies."""

    enabled: bool = Field(default=False, description="Whether all pods get a NetworkPolicy.")
    metrics_from: Peers = Field(default_factory=list, description="Who may read their metrics beside the operator.")
    serving_from: Peers = Field(default_factory=list, description="Who may reach every serving, such as a gateway.")
    extra_egress: Annotated[list[NetworkPolicyEgressRule], Field(max_length=64)] = Field(
        default_factory=list, description="What the pods may reach beside DNS and each other."
    )


def as_written(parts: Peers | list[NetworkPolicyEgressRule]) -> list[dict[str, Any]]:
    """As the API server takes them. An empty selector selects all, so what was set stays."""
    return [part.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True) for part in parts]
