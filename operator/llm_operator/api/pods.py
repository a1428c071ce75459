"""What a user may set of the pods: fields of Kubernetes' PodSpec and Container, by its names and in its shapes.

Every field has a type and a bound: an object of any shape could be nested until nobody can read it. Fields without a
description are documented by Kubernetes. Left out is what nobody has asked for yet: each costs space in every CRD.
"""

from __future__ import annotations

import posixpath
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from llm_operator.api.common import GROUP, Spec
from llm_operator.api.quantities import Quantity


def folder(mount_path: str) -> str:
    """A path as it is compared: /tmp/ is /tmp."""
    return posixpath.normpath("/" + mount_path.lstrip("/"))


def matching(pattern: str) -> AfterValidator:
    """Checked by us alone: in the CRD the pattern would stand at dozens of places."""
    expected = re.compile(pattern)

    def check(value: str) -> str:
        if not expected.fullmatch(value):
            raise ValueError(f"must match {pattern}")
        return value

    return AfterValidator(check)


# Labels and annotations that are ours or a controller's: keys, and what other keys begin with.
OUR_KEYS = ("app.kubernetes.io/managed-by", "job-name", "controller-uid", "pod-template-hash")
OUR_DOMAINS = (f"{GROUP}/", "batch.kubernetes.io/")
CREDENTIALS = "/credentials"  # a folder for each of spec.credentials, in the pods that fetch or publish

Text = Annotated[str, StringConstraints(max_length=253)]
Path = Annotated[str, StringConstraints(max_length=1024)]
ObjectName = Annotated[Text, matching(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")]
PartName = Annotated[str, StringConstraints(max_length=63), matching(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")]
LabelKey = Annotated[
    str,
    StringConstraints(max_length=317),
    matching(r"([a-z0-9][-.a-z0-9]*/)?[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?"),
]
LabelValue = Annotated[str, StringConstraints(max_length=63), matching(r"([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)?")]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
Annotations = Annotated[dict[LabelKey, Annotated[str, StringConstraints(max_length=4096)]], Field(max_length=64)]
UserId = Annotated[int, Field(ge=0, le=2**31 - 1)]
Seconds = Annotated[int, Field(ge=0, le=2**31 - 1)]
FileMode = Annotated[int, Field(ge=0, le=0o777)]
Weight = Annotated[int, Field(ge=1, le=100)]


# --- where a pod runs ----------------------------------------------------------------------------------------------


class Toleration(Spec):
    key: LabelKey | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Seconds | None = None


class NodeSelectorRequirement(Spec):
    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[LabelValue] = Field(default_factory=list, max_length=64)


class NodeSelectorTerm(Spec):
    match_expressions: list[NodeSelectorRequirement] = Field(max_length=16)


class NodeSelector(Spec):
    node_selector_terms: list[NodeSelectorTerm] = Field(min_length=1, max_length=16)


class PreferredSchedulingTerm(Spec):
    weight: Weight
    preference: NodeSelectorTerm


class NodeAffinity(Spec):
    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: list[PreferredSchedulingTerm] = Field(
        default_factory=list, max_length=16
    )


class LabelSelectorRequirement(Spec):
    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[LabelValue] = Field(default_factory=list, max_length=64)


class LabelSelector(Spec):
    match_labels: Labels = Field(default_factory=dict)
    match_expressions: list[LabelSelectorRequirement] = Field(default_factory=list, max_length=16)


class PodAffinityTerm(Spec):
    label_selector: LabelSelector | None = None
    namespaces: list[PartName] = Field(default_factory=list, max_length=16)
    topology_key: LabelKey


class WeightedPodAffinityTerm(Spec):
    weight: Weight
    pod_affinity_term: PodAffinityTerm


class PodAffinity(Spec):
    required_during_scheduling_ignored_during_execution: list[PodAffinityTerm] = Field(
        default_factory=list, max_length=16
    )
    preferred_during_scheduling_ignored_during_execution: list[WeightedPodAffinityTerm] = Field(
        default_factory=list, max_length=16
    )


class Affinity(Spec):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TopologySpreadConstraint(Spec):
    max_skew: int = Field(ge=1, le=1024)
    topology_key: LabelKey
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    label_selector: LabelSelector | None = None
    match_label_keys: list[LabelKey] = Field(default_factory=list, max_length=16)
    node_affinity_policy: Literal["Honor", "Ignore"] | None = None
    node_taints_policy: Literal["Honor", "Ignore"] | None = None


# --- as whom it runs -----------------------------------------------------------------------------------------------


class LocalObjectReference(Spec):
    name: ObjectName


class SELinuxOptions(Spec):
    user: Text | None = None
    role: Text | None = None
    type: Text | None = None
    level: Text | None = None


class SeccompProfile(Spec):
    type: Literal["RuntimeDefault", "Unconfined", "Localhost"]
    localhost_profile: Path | None = None


class PodSecurityContext(Spec):
    run_as_user: UserId | None = None
    run_as_group: UserId | None = None
    run_as_non_root: bool | None = None
    fs_group: UserId | None = None
    fs_group_change_policy: Literal["OnRootMismatch", "Always"] | None = None
    supplemental_groups: list[UserId] = Field(default_factory=list, max_length=32)
    se_linux_options: SELinuxOptions | None = None
    seccomp_profile: SeccompProfile | None = None


Capability = Annotated[str, StringConstraints(max_length=63, pattern=r"^[A-Z_]+$")]


class Capabilities(Spec):
    add: list[Capability] = Field(default_factory=list, max_length=64)
    drop: list[Capability] = Field(default_factory=list, max_length=64)


class SecurityContext(Spec):
    capabilities: Capabilities | None = None
    privileged: bool | None = None
    allow_privilege_escalation: bool | None = None
    read_only_root_filesystem: bool | None = None
    run_as_user: UserId | None = None
    run_as_group: UserId | None = None
    run_as_non_root: bool | None = None
    seccomp_profile: SeccompProfile | None = None


# --- what its container is told ------------------------------------------------------------------------------------


# SecretKeySelector and ConfigMapKeySelector.
class KeySelector(Spec):
    name: ObjectName
    key: Text
    optional: bool | None = None


class ObjectFieldSelector(Spec):
    field_path: Text


class ResourceFieldSelector(Spec):
    resource: Text
    divisor: Quantity | None = None


class EnvVarSource(Spec):
    secret_key_ref: KeySelector | None = None
    config_map_key_ref: KeySelector | None = None
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None


class EnvVar(Spec):
    name: str = Field(max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")
    value: str | None = Field(default=None, max_length=4096)
    value_from: EnvVarSource | None = None


# SecretEnvSource and ConfigMapEnvSource.
class EnvSource(Spec):
    name: ObjectName
    optional: bool | None = None


class EnvFromSource(Spec):
    prefix: Text | None = None
    secret_ref: EnvSource | None = None
    config_map_ref: EnvSource | None = None


# --- what it mounts ------------------------------------------------------------------------------------------------


class EmptyDir(Spec):
    medium: str | None = Field(default=None, max_length=63, pattern=r"^(Memory|HugePages(-[0-9A-Za-z]+)?)?$")
    size_limit: Quantity | None = None


class HostPath(Spec):
    path: Path
    type: (
        Literal["DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"] | None
    ) = None


class PersistentVolumeClaimSource(Spec):
    claim_name: ObjectName
    read_only: bool | None = None


class ConfigMapSource(Spec):
    name: ObjectName
    default_mode: FileMode | None = None
    optional: bool | None = None


class SecretSource(Spec):
    secret_name: ObjectName
    default_mode: FileMode | None = None
    optional: bool | None = None


class Nfs(Spec):
    server: Text
    path: Path
    read_only: bool | None = None


class Csi(Spec):
    driver: ObjectName
    read_only: bool | None = None
    volume_attributes: dict[Text, Path] = Field(default_factory=dict, max_length=64)
    node_publish_secret_ref: LocalObjectReference | None = None


class StorageRequests(Spec):
    storage: Quantity


class VolumeResources(Spec):
    requests: StorageRequests


class PersistentVolumeClaimSpec(Spec):
    access_modes: list[Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]] = Field(
        min_length=1, max_length=4
    )
    storage_class_name: ObjectName | None = None
    resources: VolumeResources


class PersistentVolumeClaimTemplate(Spec):
    spec: PersistentVolumeClaimSpec


class Ephemeral(Spec):
    volume_claim_template: PersistentVolumeClaimTemplate


class Volume(Spec):
    name: PartName
    empty_dir: EmptyDir | None = None
    host_path: HostPath | None = None
    persistent_volume_claim: PersistentVolumeClaimSource | None = None
    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    nfs: Nfs | None = None
    csi: Csi | None = None
    ephemeral: Ephemeral | None = None


class VolumeMount(Spec):
    name: PartName
    mount_path: str = Field(max_length=1024, pattern="^/[^:]*$")
    sub_path: Path | None = None
    read_only: bool | None = None


class PodResourceClaim(Spec):
    name: PartName
    resource_claim_name: ObjectName | None = None
    resource_claim_template_name: ObjectName | None = None


# --- all of it -----------------------------------------------------------------------------------------------------


class StagePods(Spec):
    """What may differ from stage to stage. The rest, long in a CRD, is the same for all pods of a training."""

    labels: Labels = Field(default_factory=dict, description="Labels of the pods.")
    annotations: Annotations = Field(default_factory=dict, description="Annotations of the pods.")
    node_selector: Labels = Field(default_factory=dict, description="Labels a node must have.")
    tolerations: list[Toleration] = Field(default_factory=list, max_length=32, description="Taints a node may have.")
    priority_class_name: ObjectName | None = Field(default=None, description="Who goes first.")
    scheduler_name: ObjectName | None = Field(default=None, description="Who places the pods.")
    runtime_class_name: ObjectName | None = Field(default=None, description="What runs them, such as nvidia.")
    service_account_name: ObjectName | None = Field(default=None, description="Its token is not mounted.")
    termination_grace_period_seconds: int | None = Field(
        default=None, ge=1, le=86400, description="From SIGTERM to SIGKILL."
    )
    env: list[EnvVar] = Field(default_factory=list, max_length=64, description="Takes the place of ours, by name.")
    volume_mounts: list[VolumeMount] = Field(
        default_factory=list, max_length=32, description="One at /tmp or /dev/shm takes the place of ours."
    )
    shm_size: Quantity | None = Field(default=None, description="Size limit of /dev/shm.")
    resource_claims: list[PodResourceClaim] = Field(
        default_factory=list, max_length=16, description="Devices by DRA; the container gets all of them."
    )


class PodSettings(StagePods):
    """The part of a pod and of its container that a user may set."""

    host_network: bool | None = Field(default=None, description="The node's network.")
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default"] | None = Field(
        default=None, description="Default: ClusterFirst, with hostNetwork ClusterFirstWithHostNet."
    )
    env_from: list[EnvFromSource] = Field(
        default_factory=list, max_length=16, description="Variables of env and ours go before."
    )
    volumes: list[Volume] = Field(
        default_factory=list, max_length=32, description="Beside ours; those that are mounted."
    )
    affinity: Affinity | None = Field(default=None, description="Nodes and pods to be near to or far from.")
    topology_spread_constraints: list[TopologySpreadConstraint] = Field(
        default_factory=list,
        max_length=16,
        description="In place of ours. One without labelSelector is about these pods.",
    )
    image_pull_secrets: list[LocalObjectReference] = Field(
        default_factory=list, max_length=16, description="Secrets by which the image is pulled."
    )
    security_context: PodSecurityContext | None = Field(
        default=None, description="Of the pod. What is left out stays restricted."
    )
    container_security_context: SecurityContext | None = Field(
        default=None, description="Of the container. What is left out stays restricted."
    )
