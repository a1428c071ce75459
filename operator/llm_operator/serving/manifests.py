"""Deployment, Service, PodDisruptionBudget and NetworkPolicy of a serving. Pure.

Flags are those of vLLM 0.31. A rollout loses no request: a new pod must answer before an old one goes, and an old one
first leaves the Service (preStop), then finishes what it has (--shutdown-timeout).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_operator.api.parallel import tensor_parallel_size
from llm_operator.api.resolve import LEAVE_SECONDS, drain_seconds
from llm_operator.api.serving import ChatTemplate, LLMServingSpec, ServedAdapter, ServedResult
from llm_operator.api.vllm_environment import API_KEY, DOORS
from llm_operator.kube.network import ALL, Network, namespaces, policy, tcp
from llm_operator.kube.plan import Manifest
from llm_operator.kube.templates import (
    CONTAINER_SECURITY,
    POD_SECURITY,
    SCRATCH_MOUNTS,
    SCRATCH_VOLUMES,
    digest_of,
    marked,
    owner_reference,
    pod_template,
    resource_requirements,
    variables,
)
from llm_operator.serving.adapters import max_lora_rank
from llm_operator.serving.annotations import CHAT_TEMPLATE, PLACE, TEMPLATE, folder_of, served
from llm_operator.serving.fetch_manifests import cache_mount, cache_volume, init_containers, secret_volumes
from llm_operator.serving.names import CONTAINER, HTTP, HTTPS, LAUNCHER_PORT, PORT, common_metadata, selector
from llm_operator.serving.probes import launcher_probes, probes
from llm_operator.serving.rollout import place_of
from llm_trainer.config import claim_of

LAUNCHER = ("python", "-m", "llm_server.launch")
VLLM = ("vllm", "serve")
ANY_IPV4, ANY = "0.0.0.0", "::"  # noqa: S104 -- the pod's own; the second is of both families
CHAT_TEMPLATES = "/etc/llm-operator/chat-template"
TLS = "/etc/llm-operator/tls"
CACHE = "/var/cache/llm-operator"


@dataclass(frozen=True)
class Image:
    """The trainer image has a launcher for vLLM (trainer_image/llm_server); any other is taken for vLLM's own."""

    name: str
    has_launcher: bool = False

    @classmethod
    def of(cls, name: str, trainer_image: str) -> Image:
        return cls(name, name == trainer_image)


@dataclass(frozen=True)
class Surroundings:
    """What of the cluster goes into the pods beside the spec."""

    image: Image
    host: str = ANY_IPV4
    chat_template: str = ""  # annotation
    pull_secrets: tuple[str, ...] = ()  # of every pod, beside the user's
    trainer_image: str = ""  # which fetches


def addressed(serving: Manifest, spec: LLMServingSpec, network: Network | None = None) -> tuple[Manifest, ...]:
    """The children that a serving has whatever it serves: Service, PodDisruptionBudget and, if any, NetworkPolicy."""
    metadata = common_metadata(serving, owner_reference(serving))
    made = [service(serving, spec, metadata), disruption_budget(serving, metadata)]
    if network:
        made.append(network_policy(serving, spec, metadata, network))
    return tuple(map(marked, made))


def workload(serving: Manifest, spec: LLMServingSpec, pods: Manifest, strategy: dict[str, Any]) -> Manifest:
    """The Deployment."""
    return marked(deployment(serving, spec, pods, common_metadata(serving, owner_reference(serving)), strategy))


def service(serving: Manifest, spec: LLMServingSpec, metadata: dict[str, Any]) -> Manifest:
    port = HTTPS if spec.tls else HTTP
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "ipFamilyPolicy": "PreferDualStack",
            "selector": selector(serving),
            "ports": [{"name": port.name, "port": port.port, "targetPort": "http"}],
        },
    }


def disruption_budget(serving: Manifest, metadata: dict[str, Any]) -> Manifest:
    """One pod at a time; it must not block the drain of a node of one pod, nor for a pod that doesn't answer."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector(serving)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def network_policy(serving: Manifest, spec: LLMServingSpec, metadata: dict[str, Any], network: Network) -> Manifest:
    """In: requests of namespaces that may. Out: no more than DNS, as the model lies on a volume.

    Pods that fetch for themselves reach hubs and buckets too, whose addresses only their names tell.
    """
    own = str(metadata["namespace"])
    peers = [namespaces(sorted({own, *spec.allowed_namespaces})), *network.serving_from, *network.metrics_from]
    everybody = ALL in spec.allowed_namespaces  # also who is no pod, such as a load balancer
    fetches = spec.model_cache is not None and spec.model_cache.empty_dir is not None
    anywhere: list[Manifest] = [{"ports": [{"protocol": "TCP"}]}] if fetches else []
    ingress = [tcp(PORT, [] if everybody else peers), tcp(LAUNCHER_PORT, [network.operator])]
    return policy(metadata, selector(serving), ingress, [*network.egress, *anywhere])


def deployment(
    serving: Manifest, spec: LLMServingSpec, pods: Manifest, metadata: dict[str, Any], strategy: dict[str, Any]
) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": spec.replicas,
            "selector": {"matchLabels": selector(serving)},
            "strategy": strategy,
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
    surroundings: Surroundings,
) -> Manifest:
    """Of the Deployment's pods."""
    chat = {CHAT_TEMPLATE: surroundings.chat_template} if surroundings.chat_template else {}
    made = pod_template(
        spec.pods,
        {"labels": selector(serving), "annotations": served(model, adapters) | chat},
        pod_spec(serving, spec, model, adapters, surroundings),
        selector(serving),
        surroundings.pull_secrets,
    )
    made["metadata"]["annotations"] |= {PLACE: place_of(made["spec"]), TEMPLATE: digest_of(made)}
    return made


def pod_spec(
    serving: Manifest,
    spec: LLMServingSpec,
    model: ServedResult,
    adapters: Sequence[ServedAdapter],
    surroundings: Surroundings,
) -> dict[str, Any]:
    volumes, extra = claim_volumes(model, adapters), extra_volumes(spec)
    claims = [
        {"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for name, claim in volumes.items()
    ]
    mounts = [{"name": name, "mountPath": f"/volumes/{claim}", "readOnly": True} for name, claim in volumes.items()]
    server = container(serving, spec, model, adapters, surroundings)
    fetched = {served.uri: served.revision for served in (model, *adapters) if served.revision}
    fetching = init_containers(spec, fetched, surroundings.trainer_image) if fetched else []
    if fetched:
        mounts.append(cache_mount(read_only=True))
        claims += [cache_volume(spec, read_only=True), *(secret_volumes(spec) if fetching else ())]
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a Service named vllm would set VLLM_* variables
        "terminationGracePeriodSeconds": drain_seconds(spec),
        "securityContext": POD_SECURITY,
        **({"initContainers": fetching} if fetching else {}),
        "containers": [{**server, "volumeMounts": [*mounts, *(mount for _, mount in extra), *SCRATCH_MOUNTS]}],
        "volumes": [*claims, *(volume for volume, _ in extra), *SCRATCH_VOLUMES],
    }


def container(
    serving: Manifest,
    spec: LLMServingSpec,
    model: ServedResult,
    adapters: Sequence[ServedAdapter],
    surroundings: Surroundings,
) -> dict[str, Any]:
    """The server's, without what it mounts."""
    image, timeout = surroundings.image, spec.startup_timeout_seconds
    if image.has_launcher:
        probed = launcher_probes(timeout)
    else:
        probed = probes(surroundings.host, PORT, model_name(serving, spec), timeout, tls=spec.tls is not None)
    return {
        "name": CONTAINER,
        "image": image.name,
        "command": [*(LAUNCHER if image.has_launcher else VLLM), literal(folder_of(model))],
        "args": arguments(serving, spec, adapters, None if image.has_launcher else surroundings.host),
        "env": [
            *variables(environment(spec, launcher=image.has_launcher)),
            *(variables(digests(model, adapters)) if image.has_launcher else ()),
            *api_key(spec),
        ],
        "ports": ports(image),
        "resources": resource_requirements(spec.resources),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": CONTAINER_SECURITY,
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}},
        **probed,
    }


def extra_volumes(spec: LLMServingSpec) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Those that fields of the spec ask for beside the models', each with its mount."""
    made: list[tuple[dict[str, Any], dict[str, Any]]] = []
    if source := spec.chat_template and spec.chat_template.config_map:
        items = [{"key": source.key, "path": source.key}]
        made.append(
            (
                {"name": "chat-template", "configMap": {"name": source.name, "items": items}},
                {"name": "chat-template", "mountPath": CHAT_TEMPLATES, "readOnly": True},
            )
        )
    if spec.tls:
        items = [{"key": key, "path": key} for key in ("tls.crt", "tls.key")]
        made.append(
            (
                {"name": "tls", "secret": {"secretName": spec.tls.secret_name, "items": items}},
                {"name": "tls", "mountPath": TLS, "readOnly": True},
            )
        )
    if spec.cache:
        claim = spec.cache.persistent_volume_claim.claim_name
        made.append(
            (
                {"name": "cache", "persistentVolumeClaim": {"claimName": claim}},
                {"name": "cache", "mountPath": CACHE},
            )
        )
    return made


def claim_volumes(model: ServedResult, adapters: Sequence[ServedAdapter]) -> dict[str, str | None]:
    """Names of volumes → claims, each once; a claim's own name may be no name of a volume."""
    claim = claim_of(model.uri)
    named = {claim_of(adapter.uri) for adapter in adapters if not adapter.revision}
    others = sorted(str(other) for other in named - {claim})
    return {**({"model": claim} if claim else {}), **{f"adapters-{index}": other for index, other in enumerate(others)}}


def ports(image: Image) -> list[dict[str, Any]]:
    launcher = [{"name": "health", "containerPort": LAUNCHER_PORT}] if image.has_launcher else []
    return [{"name": "http", "containerPort": PORT}, *launcher]


def arguments(
    serving: Manifest, spec: LLMServingSpec, adapters: Sequence[ServedAdapter], host: str | None = ANY_IPV4
) -> list[str]:
    """``host``: None for the launcher, which chooses it by the addresses that its pod may have."""
    gpus = spec.resources.gpus
    given = [
        *("--served-model-name", model_name(serving, spec), *spec.served_model_aliases),
        *([f"--host={host}"] if host else []),
        f"--port={PORT}",
        f"--dtype={data_type(spec)}",
        f"--shutdown-timeout={spec.drain_timeout_seconds}",
    ]
    if spec.max_model_length is not None:
        given.append(f"--max-model-len={spec.max_model_length}")
    elif host is None:
        given.append("--max-model-len=auto")  # the model's, or as much of it as the KV cache holds
    if spec.task == "embed":
        given.append("--runner=pooling")  # of a model that writes text vLLM takes the last token's state
    if spec.chat_template:
        given.append(f"--chat-template={chat_template(spec.chat_template)}")
    if spec.tls:
        given += [f"--ssl-certfile={TLS}/tls.crt", f"--ssl-keyfile={TLS}/tls.key", "--enable-ssl-refresh"]
    if (size := tensor_parallel_size(gpus, spec.extra_arguments)) > 1:
        given.append(f"--tensor-parallel-size={size}")
    if not gpus:
        given.append("--enforce-eager")  # compiling would make a start a minute longer
        # vLLM's own kernel takes each head for a token where queries come as (tokens, heads, width), as those of latent
        # attention do.
        given.append('--compilation-config={"custom_ops": ["-rotary_embedding"]}')
    return [*given, *adapter_arguments(adapters), *spec.extra_arguments]


def adapter_arguments(adapters: Sequence[ServedAdapter]) -> list[str]:
    """VLLM's short form NAME=PATH breaks at a comma or '=' in the path, its JSON form does not."""
    if not adapters:
        return []
    modules = [json.dumps({"name": adapter.name, "path": folder_of(adapter)}) for adapter in adapters]
    limits = [f"--max-loras={len(adapters)}", f"--max-lora-rank={max_lora_rank(adapters)}"]
    return ["--enable-lora", "--lora-modules", *map(literal, modules), *limits]


def chat_template(template: ChatTemplate) -> str:
    """A file's path, or the text itself."""
    if template.config_map:
        return f"{CHAT_TEMPLATES}/{template.config_map.key}"
    return literal(template.text or "")


def literal(text: str) -> str:
    """In which the kubelet replaces no $(VARIABLE), as it does in a command, its arguments and those of a probe."""
    return text.replace("$", "$$")


def model_name(serving: Manifest, spec: LLMServingSpec) -> str:
    """Under which the OpenAI API knows the model."""
    return spec.served_model_name or str(serving["metadata"]["name"])


def data_type(spec: LLMServingSpec) -> str:
    """bfloat16 may trap on CPUs that advertise AMX in a virtual machine."""
    return "float32" if spec.data_type == "auto" and not spec.resources.gpus else spec.data_type


def api_key(spec: LLMServingSpec) -> list[dict[str, Any]]:
    """The variable that the kubelet fills from the Secret."""
    if spec.api_key is None:
        return []
    source = spec.api_key.secret_key_ref
    return [{"name": API_KEY, "valueFrom": {"secretKeyRef": {"name": source.name, "key": source.key}}}]


def digests(model: ServedResult, adapters: Sequence[ServedAdapter]) -> dict[str, str]:
    """Of what trainings have made, by folder: the launcher serves nothing else there."""
    known = {folder_of(served): served.digest for served in (model, *adapters) if served.digest}
    return {"LLM_SERVER_DIGESTS": literal(json.dumps(known))} if known else {}


def environment(spec: LLMServingSpec, *, launcher: bool = False) -> dict[str, str]:
    cache = CACHE if spec.cache else "/tmp"  # noqa: S108 -- the pod's own emptyDir
    fixed = {
        "HOME": "/tmp",  # noqa: S108
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": "/tmp/huggingface",  # noqa: S108
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor",
        "TRITON_CACHE_DIR": f"{cache}/triton",
        "VLLM_CACHE_ROOT": f"{cache}/vllm",
        "VLLM_CONFIG_ROOT": "/tmp/vllm-config",  # noqa: S108
        "VLLM_NO_USAGE_STATS": "1",
        **dict.fromkeys(DOORS, "0"),
    }
    if launcher:
        fixed["LLM_SERVER_STARTUP_SECONDS"] = str(spec.startup_timeout_seconds)
        if spec.api_key and spec.api_key.metrics_without_key:
            fixed["LLM_SERVER_METRICS_WITHOUT_KEY"] = "1"
    if spec.resources.gpus:
        return fixed
    cpus = spec.resources.cpus
    return {
        **fixed,
        # GiB. The launcher sees the pod's memory and the weights, and takes what is left.
        **({} if launcher else {"VLLM_CPU_KVCACHE_SPACE": "1"}),
        # vLLM would compile the random sampler at the first request that samples, which would wait for it.
        "TORCH_COMPILE_DISABLE": "1",
        # It would bind its threads to the first cores of the node, as every other pod on it does: under load a second
        # one then doesn't even start.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Its kernels for latent attention know one width of heads, and with AMX no float32; plain attention knows many.
        "VLLM_MLA_DISABLE": "1",
        **({} if cpus is None else {"OMP_NUM_THREADS": str(max(1, math.ceil(cpus)))}),
    }
