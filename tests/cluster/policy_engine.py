"""kube-router, which enforces NetworkPolicies: built for the second level of tests alone."""

from __future__ import annotations

from tests.cluster.go_program import GoProgram
from tests.cluster.settings import HERE

KUBE_ROUTER = GoProgram(
    "kube-router", HERE / "policy_engine", "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"
)
