"""Deployment, Service and PodDisruptionBudget of a serving. Pure.

Flags are those of vLLM 0.31. A rollout loses no request: a new pod must answer before an old one goes, and an old one
first leaves the Service (preStop), then finishes what it has (--shutdown-timeout).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from llm_operator.api.common import GROUP
from llm_operator.api.resolve import cpus_of, gpus_of
from llm_operator.api.serving import LLMServingSpec, ServedResult
from llm_operator.kube.plan import Manifest
from llm_operator.kube.templates import (
    CONTAINER_SECURITY,
    POD_SECURITY,
    SCRATCH_MOUNTS,
    SCRATCH_VOLUMES,
    owner_reference,
    placement,
    resource_requirements,
    variables,
)
from llm_operator.serving.names import CONTAINER, PORT, common_metadata, selector
from llm_operator.serving.probes import probes
from llm_trainer.config import claim_of, local_path

APPLIED = f"{GROUP}/applied"  # annotation: hash of what we last applied; the same again is not written
MODEL_URI, MODEL_DIGEST, MODEL_STEP = (f"{GROUP}/model-{part}" for part in ("uri", "digest", "step"))
LEAVE_SECONDS = 10  # until every node's kube-proxy and every client's connection pool has learned that a pod leaves
SPARE_SECONDS = 10  # from the end of the drain to SIGKILL


def children(serving: Manifest, spec: LLMServingSpec, model: ServedResult, image: str) -> tuple[Manifest, ...]:
    metadata = common_metadata(serving, owner_reference(serving))
    made = (
        service(serving, metadata),
        disruption_budget(serving, metadata),
        deployment(serving, spec, model, image, metadata),
    )
    return tuple(marked(manifest) for manifest in made)


def marked(manifest: Manifest) -> Manifest:
    """With the hash of itself as annotation."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": {APPLIED: digest}}}


def service(serving: Manifest, metadata: dict[str, Any]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "selector": selector(serving),
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def disruption_budget(serving: Manifest, metadata: dict[str, Any]) -> Manifest:
    """One pod at a time; it must not block the drain of a node for a serving of one pod."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(serving)}},
    }


def deployment(
    serving: Manifest, spec: LLMServingSpec, model: ServedResult, image: str, metadata: dict[str, Any]
) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": spec.replicas,
            "selector": {"matchLabels": selector(serving)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "progressDeadlineSeconds": spec.startup_timeout_seconds + 60,
            "revisionHistoryLimit": 2,
            "template": {
                "metadata": {"labels": metadata["labels"], "annotations": model_annotations(model)},
                "spec": pod_spec(serving, spec, model, image),
            },
        },
    }


def model_annotations(model: ServedResult) -> dict[str, str]:
    """What a pod serves; another model so is another pod template, to which the Deployment rolls."""
    return {
        MODEL_URI: model.uri,
        **({MODEL_DIGEST: model.digest} if model.digest else {}),
        **({MODEL_STEP: str(model.step)} if model.step is not None else {}),
    }


def pod_spec(serving: Manifest, spec: LLMServingSpec, model: ServedResult, image: str) -> dict[str, Any]:
    claim = claim_of(model.uri)
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a Service named vllm would set VLLM_* variables
        "terminationGracePeriodSeconds": LEAVE_SECONDS + spec.drain_timeout_seconds + SPARE_SECONDS,
        "securityContext": POD_SECURITY,
        "containers": [
            {
                "name": CONTAINER,
                "image": image,
                "command": ["vllm", "serve", local_path(model.uri)],
                "args": arguments(serving, spec),
                "env": variables(environment(spec), spec.pods),
                "ports": [{"name": "http", "containerPort": PORT}],
                "resources": resource_requirements(spec.resources),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": CONTAINER_SECURITY,
                "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}},
                **probes(model_name(serving, spec), spec.startup_timeout_seconds),
                "volumeMounts": [
                    {"name": "model", "mountPath": f"/volumes/{claim}", "readOnly": True},
                    *SCRATCH_MOUNTS,
                ],
            }
        ],
        "volumes": [
            {"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}},
            *SCRATCH_VOLUMES,
        ],
        **placement(spec.pods),
    }


def arguments(serving: Manifest, spec: LLMServingSpec) -> list[str]:
    gpus = gpus_of(spec.resources)
    given = [
        f"--served-model-name={model_name(serving, spec)}",
        "--host=0.0.0.0",
        f"--port={PORT}",
        f"--dtype={data_type(spec)}",
        f"--shutdown-timeout={spec.drain_timeout_seconds}",
    ]
    if spec.max_model_length is not None:
        given.append(f"--max-model-len={spec.max_model_length}")
    if gpus > 1:
        given.append(f"--tensor-parallel-size={gpus}")
    if not gpus:
        given.append("--enforce-eager")  # a pod has no compiler
    return [*given, *spec.extra_arguments]


def model_name(serving: Manifest, spec: LLMServingSpec) -> str:
    """Under which the OpenAI API knows the model."""
    return spec.served_model_name or str(serving["metadata"]["name"])


def data_type(spec: LLMServingSpec) -> str:
    """bfloat16 may trap on CPUs that advertise AMX in a virtual machine."""
    return "float32" if spec.data_type == "auto" and not gpus_of(spec.resources) else spec.data_type


def environment(spec: LLMServingSpec) -> dict[str, str]:
    fixed = {
        "HOME": "/tmp",  # noqa: S108 -- the pod's own emptyDir
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": "/tmp/huggingface",  # noqa: S108
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",  # noqa: S108
        "TRITON_CACHE_DIR": "/tmp/triton",  # noqa: S108
        "VLLM_CACHE_ROOT": "/tmp/vllm",  # noqa: S108
        "VLLM_CONFIG_ROOT": "/tmp/vllm-config",  # noqa: S108
        "VLLM_NO_USAGE_STATS": "1",
    }
    if gpus_of(spec.resources):
        return fixed
    threads = cpus_of(spec.resources)
    return {
        **fixed,
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        # vLLM compiles the random sampler at the first request that samples, and a pod has no C++ compiler.
        "TORCH_COMPILE_DISABLE": "1",
        # It would bind its threads to the first cores of the node, as every other pod on it does: under load a second
        # one then doesn't even start.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        **({"OMP_NUM_THREADS": str(threads)} if threads else {}),
    }
