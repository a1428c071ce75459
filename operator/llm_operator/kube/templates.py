"""What all pods of ours have in common: owner, the restricted security profile, and what a user sets of them. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from llm_operator.api.common import GROUP
from llm_operator.api.pods import PodSettings, folder
from llm_operator.api.resources import Resources
from llm_operator.kube.plan import Manifest

APPLIED = f"{GROUP}/applied"  # annotation: hash of what was made or last applied
USER = 10001
POD_SECURITY: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
# What a pod asks for whose spec says nothing of it: without any request it is the first that goes when a node is short.
REQUESTS = {"cpu": "100m", "memory": "512Mi"}
# Size limits of pods without a limit of what these volumes count to; with one, that limit is theirs too.
SCRATCH_SIZES = {"tmp": ("ephemeral-storage", "64Gi"), "shm": ("memory", "64Gi")}
SCRATCH_VOLUMES: list[dict[str, Any]] = [
    {"name": "tmp", "emptyDir": {}},
    {"name": "shm", "emptyDir": {"medium": "Memory"}},
]
SCRATCH_MOUNTS: list[dict[str, Any]] = [
    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 -- the pod's own emptyDir
    {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
]


def owner_reference(owner: Manifest) -> dict[str, Any]:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,  # would need the right to update the owner's finalizers
    }


def marked(manifest: Manifest) -> Manifest:
    """With the hash of itself as annotation: whether a child is what would be made now."""
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": {APPLIED: digest_of(manifest)}}}


def digest_of(value: Any) -> str:
    """Equal for equal JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def mark_of(manifest: Manifest) -> str | None:
    found: str | None = (manifest["metadata"].get("annotations") or {}).get(APPLIED)
    return found


def resource_requirements(resources: Resources) -> dict[str, Any]:
    """Of a container. The request of what has a limit alone is the limit."""
    requests = {name: quantity for name, quantity in REQUESTS.items() if name not in resources.limits}
    fields = {"limits": resources.limits, "requests": requests | resources.requests}
    return {field: dict(quantities) for field, quantities in fields.items() if quantities}


def variables(fixed: Mapping[str, str]) -> list[dict[str, Any]]:
    """Environment variables of a container."""
    return [{"name": name, "value": value} for name, value in fixed.items()]


# --- what a user sets ----------------------------------------------------------------------------------------------

AS_WRITTEN = (
    "nodeSelector", "affinity", "priorityClassName", "schedulerName", "runtimeClassName", "serviceAccountName",
    "hostNetwork", "dnsPolicy", "terminationGracePeriodSeconds", "resourceClaims",
)  # fmt: skip


def pod_template(
    pods: PodSettings,
    metadata: Manifest,
    spec: Manifest,
    selector: Mapping[str, str],
    pull_secrets: Sequence[str] = (),
) -> Manifest:
    """Our template of a pod of one container, with what the user sets of it; init containers get it but for devices.

    ``selector`` selects its pods; ``pull_secrets`` are names of the operator's setting.
    """
    written = pods.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    own = {field: written.get(field, {}) | metadata.get(field, {}) for field in ("labels", "annotations")}
    return {
        "metadata": {field: found for field, found in own.items() if found},
        "spec": pod_spec(written, spec, selector, pull_secrets),
    }


def pod_spec(written: Manifest, ours: Manifest, selector: Mapping[str, str], pull_secrets: Sequence[str]) -> Manifest:
    (container,) = ours["containers"]
    mounts = written.get("volumeMounts", [])
    taken = {folder(mount["mountPath"]) for mount in mounts}
    replaced = {mount["name"] for mount in SCRATCH_MOUNTS if mount["mountPath"] in taken}
    secrets = dict.fromkeys([secret["name"] for secret in written.get("imagePullSecrets", ())] + [*pull_secrets])
    lists = {
        "imagePullSecrets": [{"name": name} for name in secrets],  # the kubelet tries all that know the registry
        "tolerations": tolerations(written.get("tolerations", []), ours.get("tolerations", [])),
        "topologySpreadConstraints": [
            {"labelSelector": {"matchLabels": dict(selector)}, **constraint}
            for constraint in written.get("topologySpreadConstraints", ())
        ]
        or ours.get("topologySpreadConstraints"),
    }

    def laid(ours: Manifest, claims: Sequence[Manifest] = ()) -> Manifest:
        kept = [mount for mount in ours["volumeMounts"] if mount["name"] not in replaced]
        return {**ours, **container_fields(written, ours, claims), "volumeMounts": [*kept, *mounts]}

    return {
        **ours,
        **({"dnsPolicy": "ClusterFirstWithHostNet"} if written.get("hostNetwork") else {}),
        **{field: written[field] for field in AS_WRITTEN if written.get(field)},
        **{field: items for field, items in lists.items() if items},
        "securityContext": ours["securityContext"] | written.get("securityContext", {}),
        **({"initContainers": [laid(first) for first in ours["initContainers"]]} if "initContainers" in ours else {}),
        "containers": [laid(container, written.get("resourceClaims", ()))],
        "volumes": [
            sized(volume, container["resources"].get("limits", {}), written.get("shmSize"))
            for volume in ours["volumes"]
            if volume["name"] not in replaced
        ]
        + [volume for volume in written.get("volumes", ()) if volume["name"] in {mount["name"] for mount in mounts}],
    }


def container_fields(written: Manifest, ours: Manifest, resource_claims: Sequence[Manifest]) -> Manifest:
    env = {variable["name"]: variable for variable in (*ours["env"], *written.get("env", ()))}
    claims = [{"name": claim["name"]} for claim in resource_claims]
    return {
        "env": list(env.values()),
        **({"envFrom": written["envFrom"]} if written.get("envFrom") else {}),
        "resources": {**ours["resources"], **({"claims": claims} if claims else {})},
        "securityContext": container_security(ours["securityContext"], written.get("containerSecurityContext", {})),
    }


def container_security(ours: Manifest, written: Manifest) -> Manifest:
    """What is added to a container's capabilities leaves those dropped that were."""
    merged = {**ours, **written, "capabilities": ours["capabilities"] | written.get("capabilities", {})}
    if written.get("privileged") and "allowPrivilegeEscalation" not in written:
        del merged["allowPrivilegeEscalation"]  # privileged implies it, and the API server refuses the two together
    return merged


def tolerations(written: list[Manifest], ours: list[Manifest]) -> list[Manifest]:
    """The user's, and ours of taints that the user doesn't name: of two for one taint the shorter time would count."""
    named = {toleration.get("key") for toleration in written if toleration.get("effect") in (None, "NoExecute")}
    return [*written, *(toleration for toleration in ours if toleration["key"] not in named)]


def sized(volume: Manifest, limits: Mapping[str, str], shm_size: str | None) -> Manifest:
    """A scratch volume with a size limit, so that no pod fills its node."""
    if volume["name"] not in SCRATCH_SIZES:
        return volume
    resource, size = SCRATCH_SIZES[volume["name"]]
    limit = (shm_size if volume["name"] == "shm" else None) or limits.get(resource, size)
    return {**volume, "emptyDir": {**volume["emptyDir"], "sizeLimit": limit}}
