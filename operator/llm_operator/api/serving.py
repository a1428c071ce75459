"""``LLMServing``: what a user writes and what the operator answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from llm_operator.api.common import ClaimReference, Condition, Spec, Status
from llm_operator.api.pods import ObjectName, PodSettings
from llm_operator.api.quantities import Quantity
from llm_operator.api.resources import Resources
from llm_trainer.config import AnyUri, Credentials, Name

# A name in the OpenAI API, such as acme/legal-v1.2: a value of requests, and no name of an object.
ServedName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][-._/:@+A-Za-z0-9]*$", max_length=253)]


ALLOWED_NAMESPACE = r"^([*]|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"


class TrainingReference(Spec):
    """A stage's result, followed as it changes."""

    name: str = Field(min_length=1, max_length=253, description="An LLMTraining of the same namespace.")
    stage: Name | None = Field(default=None, description="Default: its last stage that yields a model.")


class ServedModel(Spec):
    """Exactly one of training and uri."""

    training: TrainingReference | None = Field(default=None, description="The result of a training.")
    uri: AnyUri | None = Field(
        default=None, description="A transformers folder: pvc://CLAIM/PATH, hf://ORG/NAME[@REVISION], s3://BUCKET/PATH."
    )
    allow_pickle: bool = Field(
        default=False,
        description="Whether pickled weights at an hf:// or s3:// uri without safetensors are read, tensors alone.",
        exclude_if=lambda value: not value,
    )


MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM 0.31 takes as --max-lora-rank


class StageReference(Spec):
    """The adapter that a stage trains, followed as it changes."""

    name: str = Field(min_length=1, max_length=253, description="An LLMTraining of the same namespace.")
    stage: Name = Field(description="A stage of it with lora and without lora.merge.")


class Adapter(Spec):
    """A low-rank adapter beside the model. Exactly one of training and uri."""

    name: ServedName = Field(description="Name in the OpenAI API.")
    training: StageReference | None = Field(default=None, description="The result of a training.")
    uri: AnyUri | None = Field(default=None, description="A folder that peft has written; as of spec.model.")
    allow_pickle: bool = Field(default=False, description="As of spec.model.", exclude_if=lambda value: not value)
    rank: int | None = Field(
        default=None, ge=1, le=MAX_LORA_RANKS[-1], description="Rank of the adapter at uri. Default: 16."
    )


class RollingUpdate(Spec):
    """As in a Deployment, in pods."""

    max_surge: int = Field(default=1, ge=0, le=1000, description="Pods more than replicas.")
    max_unavailable: int = Field(default=0, ge=0, le=1000, description="Pods fewer than replicas.")


class Strategy(Spec):
    """As in a Deployment. Left out: new pods first, or old ones first where the nodes can't hold one more."""

    type: Literal["RollingUpdate", "Recreate"] = Field(
        default="RollingUpdate", description="Recreate: every old pod goes before a new one comes."
    )
    rolling_update: RollingUpdate | None = Field(
        default=None, description="Left out: one more, or one fewer where the nodes can't hold one more."
    )


class ConfigMapKey(Spec):
    name: ObjectName = Field(description="A ConfigMap of the same namespace.")
    key: str = Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="A key of its data.")


class ChatTemplate(Spec):
    """In Jinja. Exactly one of configMap and text."""

    config_map: ConfigMapKey | None = Field(default=None, description="A change of it is a rollout.")
    text: str | None = Field(default=None, min_length=1, max_length=32_768, description="The template itself.")


class SecretKey(Spec):
    name: ObjectName = Field(description="A Secret of the same namespace.")
    key: str = Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="A key of its data.")


class ApiKey(Spec):
    """Without it every request is answered with 401. The operator reads no Secret: the pods get the key from it."""

    secret_key_ref: SecretKey = Field(description="Where the key is. Pods read it when they start.")
    metrics_without_key: bool = Field(
        default=False, description="Whether /metrics tells its figures to whoever asks; /health always answers."
    )


class Tls(Spec):
    """The server then speaks HTTPS alone, and its Service listens on 443."""

    secret_name: ObjectName = Field(
        description="A Secret of the same namespace, of type kubernetes.io/tls. Pods follow its changes."
    )


class KernelCache(Spec):
    """Where the kernels are kept that vLLM compiles."""

    persistent_volume_claim: ClaimReference = Field(
        description="ReadWriteMany unless all pods run on one node. Shared by them."
    )


class PodCache(Spec):
    """A volume of each pod, on its node."""

    size_limit: Quantity = Field(description="More than the model and its adapters take.")


class ModelCache(Spec):
    """Where hf:// and s3:// URIs are fetched to. Exactly one of persistentVolumeClaim and emptyDir."""

    persistent_volume_claim: ClaimReference | None = Field(
        default=None,
        description="Fetched once for all pods, by a Job, before they start. ReadWriteMany unless all run on one node.",
    )
    empty_dir: PodCache | None = Field(default=None, description="Each pod fetches for itself before it starts.")
    refresh_interval_seconds: int | None = Field(
        default=None,
        ge=60,
        le=2_592_000,
        description="Look for a new revision so often, and roll it out. Default: the first one is kept.",
    )


class LLMServingSpec(Spec):
    model: ServedModel = Field(description="What is served.")
    adapters: list[Adapter] = Field(
        default_factory=list,
        max_length=32,
        description="Low-rank adapters of the model, each served under its own name. One that is not there yet joins "
        "by a rollout.",
    )
    model_cache: ModelCache | None = Field(
        default=None, description="Where models and adapters are fetched to that are on no claim."
    )
    credentials: list[Credentials] = Field(
        default_factory=list,
        max_length=16,
        description="For what hf:// and s3:// URIs name. Never in vLLM's container.",
    )
    served_model_name: ServedName | None = Field(
        default=None, description="Name in the OpenAI API. Default: the LLMServing's name."
    )
    served_model_aliases: list[ServedName] = Field(
        default_factory=list, max_length=16, description="Further names of the model; answers carry the first."
    )
    replicas: int = Field(default=1, ge=0, le=1000, description="Pods.")
    resources: Resources = Field(default_factory=Resources, description="Per pod.")
    max_model_length: int | None = Field(
        default=None, ge=8, le=16_777_216, description="Tokens of context. Default: the model's, or what fits."
    )
    task: Literal["generate", "embed"] = Field(
        default="generate",
        description="embed: it answers /v1/embeddings and writes no text, as an LLMApp's knowledge wants it.",
    )
    data_type: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] = Field(
        default="auto", description="vLLM's --dtype; auto is float32 on CPU."
    )
    chat_template: ChatTemplate | None = Field(default=None, description="In place of the model's own.")
    extra_arguments: list[str] = Field(
        default_factory=list, max_length=64, description="Further arguments of `vllm serve`."
    )
    api_key: ApiKey | None = Field(default=None, description="What requests must show. Default: none.")
    tls: Tls | None = Field(default=None, description="Certificate and key of the server. Default: HTTP.")
    allowed_namespaces: list[Annotated[str, StringConstraints(max_length=63, pattern=ALLOWED_NAMESPACE)]] = Field(
        default_factory=list,
        max_length=64,
        description="Whose pods may send requests beside the own namespace's; '*' is everybody, also outside of the "
        "cluster. Of no effect where the operator makes no NetworkPolicies.",
    )
    startup_timeout_seconds: int = Field(default=1800, ge=10, le=86_400, description="Until a new pod must answer.")
    drain_timeout_seconds: int = Field(default=60, ge=0, le=3600, description="For open requests when a pod leaves.")
    strategy: Strategy = Field(default_factory=Strategy, description="How new pods take the place of old ones.")
    cache: KernelCache | None = Field(
        default=None, description="Of compiled kernels. Default: the pod's own, which a restart of its container keeps."
    )
    image: str | None = Field(default=None, max_length=512, description="vLLM image. Default: the operator's.")
    pods: PodSettings = Field(default_factory=PodSettings, description="Placement and environment of the pods.")


class ServedResult(Status):
    """A model that pods serve."""

    uri: str = Field(description="Its folder, pvc://CLAIM/PATH, or where it was fetched from.")
    revision: str | None = Field(default=None, description="Of what was fetched: a commit, or of what a bucket lists.")
    digest: str | None = Field(default=None, description="sha256:… over the manifest of its files, if it has one.")
    step: int | None = Field(default=None, description="Optimizer step at which it was exported.")


class ServedAdapter(ServedResult):
    """An adapter that pods have loaded."""

    name: str = Field(description="As in spec.adapters.")
    rank: int = Field(description="Its rank.")


class AdapterStatus(Status):
    """One of spec.adapters. uri, digest and step are those that the newest ready pods have loaded."""

    name: str = Field(description="As in spec.adapters.")
    uri: str | None = Field(default=None, description="Its folder, pvc://CLAIM/PATH, or where it was fetched from.")
    revision: str | None = Field(default=None, description="Of what was fetched.")
    digest: str | None = Field(default=None, description="sha256:… over the manifest of its files, if it has one.")
    step: int | None = Field(default=None, description="Optimizer step at which it was exported.")
    state: Literal["Serving", "Starting", "Waiting", "Refused"] = Field(
        description="Waiting: it joins by itself. Refused: it needs a change."
    )
    reason: str = Field(description="Why, in one word.")
    message: str = Field(default="", description="Why, for people.")


class ServingInput(Status):
    """What is fetched from a hub or a bucket, for the model or for adapters."""

    uri: str = Field(description="As in the spec.")
    revision: str | None = Field(default=None, description="That pods are given: a commit, or of what a bucket lists.")
    bytes: int | None = Field(default=None, description="Of that revision.")
    license: str | None = Field(default=None, description="As the hub tells it.")
    job: str | None = Field(default=None, description="The Job that has found or fetched that revision.")
    fetch_seconds: float | None = Field(default=None, description="That its Job took to fetch it into a claim.")
    fetched_bytes: int | None = Field(default=None, description="While a Job fetches: those that are there.")
    fetch_bytes: int | None = Field(default=None, description="While a Job fetches: all.")
    eta_seconds: int | None = Field(default=None, description="While a Job fetches: what is left takes.")
    reason: str = Field(description="How it stands, in one word.")
    message: str = Field(default="", description="How it stands, for people.")


class ServingStartup(Status):
    """What the newest pod that answers spent on its start, in seconds. Absent is what nobody tells."""

    pod: str = Field(description="Its name.")
    restarts: int = Field(default=0, description="Of its container before this start.")
    fetch_seconds: float | None = Field(
        default=None, description="Of its init containers that fetch into modelCache.emptyDir, before the container."
    )
    import_seconds: float | None = Field(default=None, description="Until vLLM began to load the model.")
    load_seconds: float | None = Field(default=None, description="Loading the weights, as vLLM tells it.")
    compile_seconds: float | None = Field(default=None, description="torch.compile, as vLLM tells it.")
    warm_up_seconds: float | None = Field(
        default=None, description="The rest of setting up the engine: profile, KV cache, warm-up, as vLLM tells it."
    )
    total_seconds: float = Field(description="From the container's start to the first answer.")


class LLMServingStatus(Status):
    observed_generation: int | None = Field(default=None, description="metadata.generation that this is about.")
    phase: str = Field(default="Pending", description="The conditions in one word; for people, not for programs.")
    url: str | None = Field(
        default=None, description="Base URL of the OpenAI API inside the cluster, if the Service exists."
    )
    model: ServedResult | None = Field(
        default=None, description="What the newest ready pods serve, or served last; Ready tells of pods that differ."
    )
    adapters: list[AdapterStatus] = Field(default_factory=list, description="In the order of spec.adapters.")
    inputs: list[ServingInput] = Field(default_factory=list, description="What hf:// and s3:// URIs name.")
    startup: ServingStartup | None = Field(default=None, description="How long the newest pod took to answer.")
    replicas: int = Field(default=0, description="Pods that exist and don't leave.")
    ready_replicas: int = Field(default=0, description="Those that answer.")
    updated_replicas: int = Field(default=0, description="Those of the newest model and spec.")
    selector: str = Field(default="", description="Label selector of the pods, for the scale subresource.")
    conditions: list[Condition] = Field(
        default_factory=list,
        description="ModelAvailable, AdaptersAvailable if spec.adapters names any, Progressing and Ready.",
    )
