"""What must hold of pods beyond the types of their fields. A problem names the field where it was set."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from llm_operator.api.pods import CREDENTIALS, OUR_DOMAINS, OUR_KEYS, PodSettings, StagePods, folder
from llm_operator.api.resolve import (
    DRAIN_MARGIN_SECONDS,
    drain_seconds,
    nodes_of,
    pods_of,
)
from llm_operator.api.resources import is_native, resource_problems
from llm_operator.api.serving import LLMServingSpec
from llm_operator.api.training import LLMTrainingSpec

OUR_VOLUMES = re.compile(
    r"config|tmp|shm|model|cache|model-cache|chat-template|tls|result|embedding-.+|"
    r"(claim|adapters|source|credential|tool)-[0-9]+"
)
# the settings of a stage or an app, the chat template; the claims; compiled kernels; Secrets of hubs and buckets
OUR_FOLDERS = ("/etc/llm-operator", "/volumes", "/var/cache/llm-operator", CREDENTIALS)
SHM = "/dev/shm"  # noqa: S108 -- the pod's own

Where = Callable[[str], str]
"""The path of a field of the pods, by its name in Python."""


def training_pod_problems(spec: LLMTrainingSpec) -> Iterator[str]:
    """Of the pods as they will be, stage by stage; what is wrong in spec.pods is told once."""
    yield from device_problems(spec)
    found: list[str] = []
    for stage, path in [
        (None, "spec.prepareData.pods"),
        *((stage, f"spec.stages[{index}].pods") for index, stage in enumerate(spec.stages)),
    ]:
        pods, where = pods_of(spec, stage), partial(set_at, (stage or spec.prepare_data).pods, path)
        found += pod_problems(pods, where)
        if stage and nodes_of(spec, stage) > 1:
            found += dns_problems(pods, nodes_of(spec, stage), where)
    yield from dict.fromkeys(found)


def serving_pod_problems(spec: LLMServingSpec) -> Iterator[str]:
    where = partial(set_at, StagePods(), "")
    yield from pod_problems(spec.pods, where)
    given, needed = spec.pods.termination_grace_period_seconds, drain_seconds(spec)
    if given is not None and given < needed:
        yield (
            f"{where('termination_grace_period_seconds')}: {given} is below {needed}, drainTimeoutSeconds "
            f"{spec.drain_timeout_seconds} and {DRAIN_MARGIN_SECONDS} to leave the Service and to stop; "
            f"use at least {needed}"
        )


def set_at(stage: StagePods, path: str, field: str) -> str:
    """Where a field of merged pods was set."""
    return f"{path if field in stage.model_fields_set else 'spec.pods'}.{to_camel(field)}"


def pod_problems(pods: PodSettings, where: Where) -> Iterator[str]:
    yield from key_problems(pods.labels, where("labels"))
    yield from key_problems(pods.annotations, where("annotations"))
    yield from environment_problems(pods, where)
    yield from volume_problems(pods, where)
    yield from mount_problems(pods, where)
    yield from claim_problems(pods, where)
    yield from security_problems(pods, where)


def device_problems(spec: LLMTrainingSpec) -> Iterator[str]:
    resources, path = spec.prepare_data.resources, "spec.prepareData.resources"
    if resources is None:
        return
    yield from resource_problems(resources.native(), path)
    for kind in ("limits", "requests"):
        for name in getattr(resources, kind):
            if not is_native(name):
                yield f"{path}.{kind}[{name}]: data preparation uses no device; remove it"


def key_problems(keys: Iterable[str], path: str) -> Iterator[str]:
    for key in keys:
        if key in OUR_KEYS or key.startswith(OUR_DOMAINS):
            yield f"{path}[{key}]: is set by the operator or by Kubernetes; remove it"


def environment_problems(pods: PodSettings, where: Where) -> Iterator[str]:
    path = where("env")
    yield from repeated(path, "variables are named", (variable.name for variable in pods.env))
    for index, variable in enumerate(pods.env):
        if variable.value is not None and variable.value_from is not None:
            yield f"{path}[{index}]: value and valueFrom can't both be set; remove one"
        if variable.value_from is not None:
            yield from union_problems(f"{path}[{index}].valueFrom", variable.value_from)
    for index, source in enumerate(pods.env_from):
        yield from union_problems(f"{where('env_from')}[{index}]", source, beside="prefix")


def volume_problems(pods: PodSettings, where: Where) -> Iterator[str]:
    path = where("volumes")
    yield from repeated(path, "volumes are named", (volume.name for volume in pods.volumes))
    for index, volume in enumerate(pods.volumes):
        yield from union_problems(f"{path}[{index}]", volume, beside="name")
        if OUR_VOLUMES.fullmatch(volume.name):
            yield f"{path}[{index}].name: {volume.name!r} is the name of one of ours; use another"


def mount_problems(pods: PodSettings, where: Where) -> Iterator[str]:
    path, volumes = where("volume_mounts"), [volume.name for volume in pods.volumes]
    folders = [folder(mount.mount_path) for mount in pods.volume_mounts]
    yield from repeated(path, "mounts are at", folders)
    for index, (mount, at) in enumerate(zip(pods.volume_mounts, folders, strict=True)):
        if mount.name not in volumes:
            known = ", ".join(volumes) or "none"
            yield f"{path}[{index}].name: there is no volume {mount.name!r}; the volumes are {known}"
        if ours := next((ours for ours in OUR_FOLDERS if posixpath.commonpath((at, ours)) in (at, ours)), None):
            yield f"{path}[{index}].mountPath: {mount.mount_path!r} is in the way of our {ours}; use another"
    if pods.shm_size is not None and SHM in folders:
        yield f"{where('shm_size')}: {pods.shm_size} is of no use, a volume of yours is mounted at {SHM}; remove one"


def claim_problems(pods: PodSettings, where: Where) -> Iterator[str]:
    path = where("resource_claims")
    yield from repeated(path, "claims are named", (claim.name for claim in pods.resource_claims))
    for index, claim in enumerate(pods.resource_claims):
        yield from union_problems(f"{path}[{index}]", claim, beside="name")


def security_problems(pods: PodSettings, where: Where) -> Iterator[str]:
    """What no kubelet would start."""
    of_pod, of_container = pods.security_context, pods.container_security_context
    contexts = ((of_container, "container_security_context"), (of_pod, "security_context"))
    may_be_root = next((c.run_as_non_root for c, _ in contexts if c and c.run_as_non_root is not None), True) is False
    user, field = next(((c.run_as_user, f) for c, f in contexts if c and c.run_as_user is not None), (None, ""))
    if user == 0 and not may_be_root:
        yield f"{where(field)}.runAsUser: 0 is root, which runAsNonRoot forbids; set runAsNonRoot: false beside it"
    if of_container and of_container.privileged and of_container.allow_privilege_escalation is False:
        yield (
            f"{where('container_security_context')}.allowPrivilegeEscalation: false contradicts privileged: true; "
            "leave it out"
        )


def dns_problems(pods: PodSettings, nodes: int, where: Where) -> Iterator[str]:
    policy = "ClusterFirstWithHostNet" if pods.host_network else "ClusterFirst"
    if pods.dns_policy not in (None, policy, "ClusterFirstWithHostNet"):
        yield (
            f"{where('dns_policy')}: {pods.dns_policy} hides the cluster's DNS, by which {nodes} pods find each other; "
            f"leave it out, {policy} follows"
        )


def union_problems(path: str, union: BaseModel, beside: str = "") -> Iterator[str]:
    """Kubernetes' way of a union: one of its fields, but that which stands ``beside``, and no other."""
    members = [field for field in type(union).model_fields if field != beside]
    given = [to_camel(field) for field in members if getattr(union, field) is not None]
    if len(given) != 1:
        names = " and ".join(given) or "none"
        yield f"{path}: exactly one of {', '.join(map(to_camel, members))} must be set, not {names}"


def repeated(path: str, what: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{path}: {count} {what} {name!r}; leave one"
