"""The kinds of object that the operator reads or writes: where the API serves them and what the cache keeps of them."""

from __future__ import annotations

from dataclasses import dataclass

from llm_operator.api.common import GROUP, VERSION

IDENTITY = ("name", "namespace", "uid", "resourceVersion")
METADATA = (
    *IDENTITY,
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "annotations",
    "ownerReferences",
)


@dataclass(frozen=True)
class Kind:
    """One kind. ``kept`` names the top-level fields, or fields below them, that the cache keeps beside the metadata."""

    name: str
    group: str
    version: str
    plural: str
    kept: tuple[str, ...] = ()
    ours: bool = False  # made by us and selected by the managed-by label
    metadata: tuple[str, ...] = METADATA  # what the cache keeps of it

    @property
    def metadata_only(self) -> bool:
        """Nothing but the metadata is asked for: it is all that is read."""
        return not self.kept

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection (no name), an object or one of its subresources."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if namespace else ""
        return "/".join(part for part in (f"{root}{scope}/{self.plural}", name, subresource) if part)


POD_STATUS = tuple(
    f"status.{field}"
    for field in (
        "phase",
        "reason",
        "message",
        "conditions",
        "podIP",
        "startTime",
        "containerStatuses",
        "initContainerStatuses",
    )
)

TRAINING = Kind("LLMTraining", GROUP, VERSION, "llmtrainings", ("spec", "status"))
SERVING = Kind("LLMServing", GROUP, VERSION, "llmservings", ("spec", "status"))
APP = Kind("LLMApp", GROUP, VERSION, "llmapps", ("spec", "status"))
JOB = Kind(
    "Job",
    "batch",
    "v1",
    "jobs",
    ("spec.parallelism", "spec.completions", "spec.suspend", "status"),
    ours=True,
)
POD = Kind(
    "Pod",
    "",
    "v1",
    "pods",
    ("spec.nodeName", "spec.schedulingGates", *POD_STATUS),
    ours=True,
    metadata=(*METADATA, "deletionGracePeriodSeconds"),
)
CONFIG_MAP = Kind("ConfigMap", "", "v1", "configmaps", ours=True)
SERVICE = Kind("Service", "", "v1", "services", ("spec.ipFamilies", "spec.ports"), ours=True)
DEPLOYMENT = Kind("Deployment", "apps", "v1", "deployments", ("spec", "status"), ours=True)
DISRUPTION_BUDGET = Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets", ours=True)
NETWORK_POLICY = Kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies", ours=True)
CLAIM = Kind(  # of everybody
    "PersistentVolumeClaim",
    "",
    "v1",
    "persistentvolumeclaims",
    ("spec.accessModes", "status.phase"),
    metadata=IDENTITY,
)
LEASE = Kind("Lease", "coordination.k8s.io", "v1", "leases")
EVENT = Kind("Event", "events.k8s.io", "v1", "events")

# Children come before their owners, so that whoever reads the list in order meets an owner with its children there.
WATCHED = (CLAIM, CONFIG_MAP, SERVICE, DISRUPTION_BUDGET, POD, JOB, DEPLOYMENT, TRAINING, SERVING, APP)
KINDS = {kind.name: kind for kind in (*WATCHED, NETWORK_POLICY, LEASE, EVENT)}


def watched(*, network_policies: bool) -> tuple[Kind, ...]:
    """``network_policies``: whether they are made, else there is no right to see them."""
    return (NETWORK_POLICY, *WATCHED) if network_policies else WATCHED
