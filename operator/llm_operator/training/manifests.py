"""The children of one attempt: ConfigMap, Indexed Job and, for pods to find each other, a headless Service. Pure.

And a NetworkPolicy, where the operator makes any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from llm_operator.api.resolve import pods_of
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.kube import labels
from llm_operator.kube.credentials import credential_mounts, credential_volumes, mounted_credentials
from llm_operator.kube.network import Network, pods, policy, tcp
from llm_operator.kube.plan import Manifest
from llm_operator.kube.templates import (
    CONTAINER_SECURITY,
    POD_SECURITY,
    SCRATCH_MOUNTS,
    SCRATCH_VOLUMES,
    marked,
    owner_reference,
    pod_template,
    resource_requirements,
    variables,
)
from llm_operator.training.names import child_name
from llm_operator.training.patience import grace_seconds
from llm_operator.training.stages import PlannedStage, claims_of, remote_inputs, run_uri
from llm_trainer.config import StageConfig
from llm_trainer.config.tracking import KEYS, variable
from llm_trainer.protocol import PROGRESS_PORT, RENDEZVOUS_PORT

CONTAINER = "trainer"
CONFIG_FOLDER, CONFIG_FILE = "/etc/llm-operator", "stage.json"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"  # Kueue's unit is the Job
NODE_LOST_SECONDS = 30  # a node that doesn't answer for so long loses the pod
JOB_UID_LABEL = "batch.kubernetes.io/controller-uid"  # the Job controller sets it
ZONE = "topology.kubernetes.io/zone"  # of nodes; Kubernetes 1.35 gives it to their pods
RDMA = "rdma/"  # devices of the shared RDMA device plugin, which NCCL's own transport uses; others have a plugin of it
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"


def children(
    training: Manifest,
    spec: LLMTrainingSpec,
    stage: PlannedStage,
    config: StageConfig,
    image: str,
    pull_secrets: Sequence[str] = (),
    network: Network | None = None,
) -> tuple[Manifest, ...]:
    """In the order in which they must exist. ``pull_secrets``: names of those of every pod, beside the user's."""
    metadata = training["metadata"]
    name = child_name(metadata["name"], metadata["uid"], stage.name, config.attempt)
    common = {
        "name": name,
        "namespace": metadata["namespace"],
        "labels": {
            labels.MANAGED_BY: labels.OPERATOR,
            labels.TRAINING: metadata["name"],
            labels.STAGE: stage.name,
            labels.ATTEMPT: str(config.attempt),
        },
        "ownerReferences": [owner_reference(training)],
    }
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": common,
        "immutable": True,
        "data": {CONFIG_FILE: config.model_dump_json(by_alias=True, exclude_none=True, indent=1)},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": common,
        "spec": {
            "clusterIP": "None",
            "ipFamilyPolicy": "PreferDualStack",  # the name of rank 0 has all addresses that its pod has
            "publishNotReadyAddresses": True,  # they look for each other before any is ready
            "selector": {JOB_NAME_LABEL: name},
            "ports": [
                {"name": "progress", "port": PROGRESS_PORT, "targetPort": "progress"},
                {"name": "rendezvous", "port": RENDEZVOUS_PORT},
            ],
        },
    }
    processes = job(training, spec, stage, common, image, pull_secrets)
    made: list[Manifest] = [config_map]
    if stage.nodes > 1:
        made.append(service)
    if network:
        fetches = bool(stage.index < 0 and remote_inputs(spec))
        made.append(gang_policy(common, network, fetches=fetches))
    return tuple(marked(manifest) for manifest in (*made, processes))


def gang_policy(common: dict[str, Any], network: Network, *, fetches: bool = False) -> Manifest:
    """The gang speaks to itself, on any port as gloo and NCCL do; rank 0's figures are for operator and Prometheus.

    ``fetches``: it also reaches hubs, buckets and servers, whose addresses only their names tell.
    """
    gang = {JOB_NAME_LABEL: common["name"]}
    ingress = [{"from": [pods(gang)]}, tcp(PROGRESS_PORT, [network.operator, *network.metrics_from])]
    anywhere: list[Manifest] = [{"ports": [{"protocol": "TCP"}]}] if fetches else []
    return policy(common, gang, ingress, [{"to": [pods(gang)]}, *network.egress, *anywhere])


def job(
    training: Manifest,
    spec: LLMTrainingSpec,
    stage: PlannedStage,
    common: dict[str, Any],
    image: str,
    pull_secrets: Sequence[str],
) -> Manifest:
    """A gang: all pods or none; whoever fails ends it, and the next attempt is another Job."""
    queue = (training["metadata"].get("labels") or {}).get(QUEUE_LABEL)
    own = {labels.PROCESSES: str(stage.processes_per_node), **({QUEUE_LABEL: queue} if queue else {})}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**common, "labels": {**common["labels"], **own}},
        "spec": {
            "completionMode": "Indexed",
            "completions": stage.nodes,
            "parallelism": stage.nodes,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": pod_template(
                pods_of(spec, spec.stages[stage.index] if stage.index >= 0 else None),
                {"labels": common["labels"]},
                pod_spec(spec, stage, common["name"], image, run_uri(training, spec)),
                {JOB_NAME_LABEL: common["name"]},
                pull_secrets,
            ),
        },
    }


def claim_mounts(spec: LLMTrainingSpec, stage: PlannedStage, run: str) -> list[dict[str, Any]]:
    """All claims are read-only but for the run folder: what is trained must not harm what others have trained.

    Data preparation, which comes first, makes that folder in the claim of the storage: the kubelet would make one that
    belongs to root, and on some volumes none.
    """
    mounts: list[dict[str, Any]] = [
        {"name": f"claim-{i}", "mountPath": f"/volumes/{claim}", "readOnly": True}
        for i, claim in enumerate(claims_of(spec))
    ]
    storage = mounts[0]
    if stage.index < 0:
        return [{key: storage[key] for key in ("name", "mountPath")}, *mounts[1:]]
    folder = run.removeprefix("pvc://").partition("/")[2].strip("/")
    inside = {"name": storage["name"], "mountPath": f"{storage['mountPath']}/{folder}", "subPath": folder}
    return [storage, inside, *mounts[1:]]


def pod_spec(spec: LLMTrainingSpec, stage: PlannedStage, name: str, image: str, run: str) -> dict[str, Any]:
    volumes = [
        {"name": f"claim-{i}", "persistentVolumeClaim": {"claimName": claim}} for i, claim in enumerate(claims_of(spec))
    ]
    credentials = mounted_credentials(spec.credentials) if stage.index < 0 else []  # data preparation alone fetches
    return {
        "restartPolicy": "Never",
        **({"subdomain": name} if stage.nodes > 1 else {}),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds(spec, stage.index),
        "securityContext": POD_SECURITY,
        "containers": [
            {
                "name": CONTAINER,
                "image": image,
                "command": ["python", "-m", "llm_trainer.launch"],
                "env": [*environment(stage, name), *(tracker_keys(spec) if stage.index >= 0 else ())],
                "ports": [
                    {"name": "progress", "containerPort": PROGRESS_PORT},
                    {"name": "rendezvous", "containerPort": RENDEZVOUS_PORT},
                ],
                "resources": resource_requirements(stage.resources),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": CONTAINER_SECURITY,
                "volumeMounts": [
                    {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
                    *SCRATCH_MOUNTS,
                    *claim_mounts(spec, stage, run),
                    *credential_mounts(credentials),
                ],
            }
        ],
        "volumes": [
            {"name": "config", "configMap": {"name": name}},
            *SCRATCH_VOLUMES,
            *volumes,
            *credential_volumes(credentials),
        ],
        **spread(stage, name),
    }


def spread(stage: PlannedStage, name: str) -> dict[str, Any]:
    """Where the pods had better run: over as many nodes of one zone as there are, and off a node that is lost.

    Never where they must: two pods may fit on the one node with GPUs, and a node without any would be an empty place.
    """
    tolerations = [
        {
            "key": f"node.kubernetes.io/{state}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": NODE_LOST_SECONDS,
        }
        for state in ("not-ready", "unreachable")
    ]
    fields: dict[str, Any] = {"tolerations": tolerations}
    if stage.nodes > 1:
        near = {"labelSelector": {"matchLabels": {JOB_NAME_LABEL: name}}, "topologyKey": ZONE}
        preferred = [{"weight": 100, "podAffinityTerm": near}]
        fields["affinity"] = {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
        fields["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "nodeTaintsPolicy": "Honor",  # a lost node would count as one that is empty
                "labelSelector": {"matchLabels": {JOB_NAME_LABEL: name}},
            }
        ]
    return fields


def environment(stage: PlannedStage, name: str) -> list[dict[str, Any]]:
    fixed = {
        "MASTER_ADDR": f"{name}-0.{name}" if stage.nodes > 1 else "localhost",
        "HOME": "/tmp",  # noqa: S108
        "OMP_NUM_THREADS": str(threads(stage)),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": "/tmp/huggingface",  # noqa: S108
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",  # noqa: S108
        "TRITON_CACHE_DIR": "/tmp/triton",  # noqa: S108
    }
    if stage.device == "cpu":
        fixed |= {"DS_ACCELERATOR": "cpu"}
    elif stage.nodes > 1:
        fixed |= network(stage)
    job_uid = f"metadata.labels['{JOB_UID_LABEL}']"  # what processes show to join each other: runtime/gate.py
    from_pod = [("NODE_NAME", "spec.nodeName"), ("POD_NAME", "metadata.name"), ("LLM_JOB_UID", job_uid)]
    if stage.nodes > 1:
        from_pod.append(("LLM_TOPOLOGY", f"metadata.labels['{ZONE}']"))  # runtime/topology.py orders ranks by it
    return [
        *variables(fixed),
        *({"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in from_pod),
    ]


def tracker_keys(spec: LLMTrainingSpec) -> Iterator[dict[str, Any]]:
    """A Secret that is missing keeps no pod from starting: a training doesn't depend on who is told of it."""
    for index, tracker in enumerate(spec.tracking):
        for key in KEYS[tracker.kind] if tracker.secret else ():
            reference = {"name": tracker.secret, "key": key, "optional": True}
            yield {"name": variable(index, key), "valueFrom": {"secretKeyRef": reference}}


def network(stage: PlannedStage) -> dict[str, str]:
    """Of NCCL between pods. Who asks for RDMA is told when it can't be had: NCCL alone would go on by TCP."""
    rdma = any(name.startswith(RDMA) for name in stage.resources.limits)
    return {"NCCL_DEBUG": "WARN", **({"NCCL_NET": "IB"} if rdma else {})}


def threads(stage: PlannedStage) -> int:
    """Of each process: its share of the pod's CPUs."""
    return max(1, math.floor((stage.resources.cpus or 1) / stage.processes_per_node))
