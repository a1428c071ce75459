"""Names, addresses and folders of the test cluster. No address of it may leave the machine (see network.py)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
CACHE = Path(os.environ.get("LLM_OPERATOR_CACHE", Path.home() / ".cache/llm-operator"))
LOGS = CACHE / "log"  # of what is built and pushed
STATE = Path(os.environ.get("LLM_OPERATOR_CLUSTER", "/srv/llm-operator-cluster"))
SHARED = STATE / "shared"  # behind the ReadWriteMany volumes; inside a node it is /mnt/shared

BRIDGE = "llmbr0"
HOST_IP = "10.213.0.1"
NODE_RANGE, POD_RANGE, SERVICE_RANGE = "10.213.0.0/24", "10.214.0.0/16", "10.215.0.0/16"
DNS_IP = "10.215.0.10"
REGISTRY_PORT = 5000
REGISTRY = f"{HOST_IP}:{REGISTRY_PORT}"  # for pushing from this machine
REGISTRY_NAME = "registry.test"  # for pulling inside the cluster


@dataclass(frozen=True)
class Node:
    name: str
    address: str
    pods: str  # CIDR

    @property
    def home(self) -> Path:
        return STATE / self.name

    @property
    def cgroup(self) -> str:
        return f"llm-{self.name}"


NODES = (
    Node("node-a", "10.213.0.11", "10.214.1.0/24"),
    Node("node-b", "10.213.0.12", "10.214.2.0/24"),
)


def node(name: str) -> Node:
    """The node of that name; raises KeyError with the names there are."""
    for one in NODES:
        if one.name == name:
            return one
    raise KeyError(f"no node {name!r}; there are {', '.join(n.name for n in NODES)}")
