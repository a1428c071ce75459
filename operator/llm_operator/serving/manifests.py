"""Deployment, Service and PodDisruptionBudget of a serving. Pure.

Flags are those of vLLM 0.31. A rollout loses no request: a new pod must answer before an old one goes, and an old one
first leaves the Service (preStop), then finishes what it has (--shutdown-timeout).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from llm_operator.api.resolve import LEAVE_SECONDS, drain_seconds
from llm_operator.api.serving import LLMServingSpec, ServedAdapter, ServedResult
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
from llm_operator.serving.adapters import max_lora_rank
from llm_operator.serving.annotations import served
from llm_operator.serving.names import CONTAINER, PORT, common_metadata, selector
from llm_operator.serving.probes import probes
from llm_trainer.config import claim_of, local_path


def children(
    serving: Manifest,
    spec: LLMServingSpec,
    model: ServedResult,
    adapters: Sequence[ServedAdapter],
    image: str,
    pull_secrets: Sequence[str] = (),
) -> tuple[Manifest, ...]:
    """``pull_secrets``: names of those of every pod, beside the user's."""
    metadata = common_metadata(serving, owner_reference(serving))
    made = (
        service(serving, metadata),
        disruption_budget(serving, metadata),
        deployment(serving, spec, template(serving, spec, model, adapters, image, metadata, pull_secrets), metadata),
    )
    return tuple(marked(manifest) for manifest in made)


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


def deployment(serving: Manifest, spec: LLMServingSpec, pods: Manifest, metadata: dict[str, Any]) -> Manifest:
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
            "template": pods,
        },
    }


def template(
    serving: Manifest,
    spec: LLMServingSpec,
    model: ServedResult,
    adapters: Sequence[ServedAdapter],
    image: str,
    metadata: dict[str, Any],
    pull_secrets: Sequence[str],
) -> Manifest:
    return pod_template(
        spec.pods,
        {"labels": metadata["labels"], "annotations": served(model, adapters)},
        pod_spec(serving, spec, model, adapters, image),
        selector(serving),
        pull_secrets,
    )


def pod_spec(
    serving: Manifest, spec: LLMServingSpec, model: ServedResult, adapters: Sequence[ServedAdapter], image: str
) -> dict[str, Any]:
    volumes = claim_volumes(model, adapters)
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a Service named vllm would set VLLM_* variables
        "terminationGracePeriodSeconds": drain_seconds(spec),
        "securityContext": POD_SECURITY,
        "containers": [
            {
                "name": CONTAINER,
                "image": image,
                "command": ["vllm", "serve", local_path(model.uri)],
                "args": arguments(serving, spec, adapters),
                "env": variables(environment(spec)),
                "ports": [{"name": "http", "containerPort": PORT}],
                "resources": resource_requirements(spec.resources),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": CONTAINER_SECURITY,
                "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}},
                **probes(model_name(serving, spec), spec.startup_timeout_seconds),
                "volumeMounts": [
                    *(
                        {"name": name, "mountPath": f"/volumes/{claim}", "readOnly": True}
                        for name, claim in volumes.items()
                    ),
                    *SCRATCH_MOUNTS,
                ],
            }
        ],
        "volumes": [
            *(
                {"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
                for name, claim in volumes.items()
            ),
            *SCRATCH_VOLUMES,
        ],
    }


def claim_volumes(model: ServedResult, adapters: Sequence[ServedAdapter]) -> dict[str, str | None]:
    """Names of volumes → claims, each once; a claim's own name may be no name of a volume."""
    claim = claim_of(model.uri)
    others = sorted({str(claim_of(adapter.uri)) for adapter in adapters} - {claim})
    return {"model": claim, **{f"adapters-{index}": other for index, other in enumerate(others)}}


def arguments(serving: Manifest, spec: LLMServingSpec, adapters: Sequence[ServedAdapter]) -> list[str]:
    gpus = spec.resources.gpus
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
        # vLLM's own kernel takes each head for a token where queries come as (tokens, heads, width), as those of latent
        # attention do.
        given.append('--compilation-config={"custom_ops": ["-rotary_embedding"]}')
    return [*given, *adapter_arguments(adapters), *spec.extra_arguments]


def adapter_arguments(adapters: Sequence[ServedAdapter]) -> list[str]:
    """VLLM's short form NAME=PATH breaks at a comma or '=' in the path, its JSON form does not."""
    if not adapters:
        return []
    modules = [json.dumps({"name": adapter.name, "path": local_path(adapter.uri)}) for adapter in adapters]
    limits = [f"--max-loras={len(adapters)}", f"--max-lora-rank={max_lora_rank(adapters)}"]
    return ["--enable-lora", "--lora-modules", *modules, *limits]


def model_name(serving: Manifest, spec: LLMServingSpec) -> str:
    """Under which the OpenAI API knows the model."""
    return spec.served_model_name or str(serving["metadata"]["name"])


def data_type(spec: LLMServingSpec) -> str:
    """bfloat16 may trap on CPUs that advertise AMX in a virtual machine."""
    return "float32" if spec.data_type == "auto" and not spec.resources.gpus else spec.data_type


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
    if spec.resources.gpus:
        return fixed
    cpus = spec.resources.cpus
    return {
        **fixed,
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        # vLLM compiles the random sampler at the first request that samples, and a pod has no C++ compiler.
        "TORCH_COMPILE_DISABLE": "1",
        # It would bind its threads to the first cores of the node, as every other pod on it does: under load a second
        # one then doesn't even start.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Its kernels for latent attention know one width of heads, and with AMX no float32; plain attention knows many.
        "VLLM_MLA_DISABLE": "1",
        **({} if cpus is None else {"OMP_NUM_THREADS": str(max(1, math.ceil(cpus)))}),
    }
