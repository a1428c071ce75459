"""What the chart lets the operator do, and what it did."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

Right = tuple[str, str, str]  # API group, resource with its subresource, verb

# The API server asks for `create` as well when an apply meets no object; the audit log shows the patch only.
APPLIED = {"services", "deployments", "poddisruptionbudgets", "networkpolicies"}


def granted(rendered: str) -> set[Right]:
    """Rights in the Roles and ClusterRoles of rendered manifests that something is bound to; others are for users."""
    manifests = [m for m in yaml.safe_load_all(rendered) if m]
    bound = {(m["roleRef"]["kind"], m["roleRef"]["name"]) for m in manifests if m["kind"].endswith("RoleBinding")}
    roles = [m for m in manifests if (m["kind"], m["metadata"]["name"]) in bound]
    return {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(log: Path, user: str) -> set[Right]:
    """Rights that a user has used, from the audit log; look-ups of what there is need none."""
    with log.open() as lines:
        entries = [json.loads(line) for line in lines if user in line and line.endswith("\n")]
    return set(rights(entry for entry in entries if entry["user"]["username"] == user))


def rights(entries: Iterable[dict[str, Any]]) -> Iterable[Right]:
    for entry in entries:
        target = entry.get("objectRef")
        if not target or entry.get("responseStatus", {}).get("code") == 403:
            continue
        resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
        group = target.get("apiGroup", "")
        yield group, resource, entry["verb"]
        if entry["verb"] == "patch" and resource in APPLIED:
            yield group, resource, "create"
