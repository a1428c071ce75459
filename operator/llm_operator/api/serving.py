"""``LLMServing``: what a user writes and what the operator answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llm_operator.api.common import Condition, Spec, Status
from llm_operator.api.pods import PodSettings
from llm_operator.api.resources import Resources
from llm_trainer.config import Name, Uri


class TrainingReference(Spec):
    """A stage's result, followed as it changes."""

    name: str = Field(min_length=1, max_length=253, description="An LLMTraining of the same namespace.")
    stage: Name | None = Field(default=None, description="Default: its last stage that yields a model.")


class ServedModel(Spec):
    """Exactly one of training and uri."""

    training: TrainingReference | None = Field(default=None, description="The result of a training.")
    uri: Uri | None = Field(default=None, description="A transformers folder, pvc://CLAIM/PATH.")


MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM 0.31 takes as --max-lora-rank


class StageReference(Spec):
    """The adapter that a stage trains, followed as it changes."""

    name: str = Field(min_length=1, max_length=253, description="An LLMTraining of the same namespace.")
    stage: Name = Field(description="A stage of it with lora and without lora.merge.")


class Adapter(Spec):
    """A low-rank adapter beside the model. Exactly one of training and uri."""

    name: Name = Field(description="Name in the OpenAI API.")
    training: StageReference | None = Field(default=None, description="The result of a training.")
    uri: Uri | None = Field(default=None, description="A folder that peft has written, pvc://CLAIM/PATH.")
    rank: int | None = Field(
        default=None, ge=1, le=MAX_LORA_RANKS[-1], description="Rank of the adapter at uri. Default: 16."
    )


class LLMServingSpec(Spec):
    model: ServedModel = Field(description="What is served.")
    adapters: list[Adapter] = Field(
        default_factory=list,
        max_length=32,
        description="Low-rank adapters of the model, each served under its own name. One that is not there yet joins "
        "by a rollout.",
    )
    served_model_name: str | None = Field(
        default=None, max_length=253, description="Name in the OpenAI API. Default: the LLMServing's name."
    )
    replicas: int = Field(default=1, ge=0, le=1000, description="Pods.")
    resources: Resources = Field(default_factory=Resources, description="Per pod.")
    max_model_length: int | None = Field(
        default=None, ge=8, le=16_777_216, description="Tokens of context. Default: the model's, or what fits."
    )
    data_type: str = Field(default="auto", max_length=16, description="vLLM's --dtype; auto is float32 on CPU.")
    extra_arguments: list[str] = Field(
        default_factory=list, max_length=64, description="Further arguments of `vllm serve`."
    )
    startup_timeout_seconds: int = Field(default=1800, ge=10, le=86_400, description="Until a new pod must answer.")
    drain_timeout_seconds: int = Field(default=60, ge=0, le=3600, description="For open requests when a pod leaves.")
    image: str | None = Field(default=None, max_length=512, description="vLLM image. Default: the operator's.")
    pods: PodSettings = Field(default_factory=PodSettings, description="Placement and environment of the pods.")


class ServedResult(Status):
    """A model that pods serve."""

    uri: str = Field(description="Its folder, pvc://CLAIM/PATH.")
    digest: str | None = Field(default=None, description="sha256:… over the manifest of its files, if it has one.")
    step: int | None = Field(default=None, description="Optimizer step at which it was exported.")


class ServedAdapter(ServedResult):
    """An adapter that pods have loaded."""

    name: str = Field(description="As in spec.adapters.")
    rank: int = Field(description="Its rank.")


class AdapterStatus(Status):
    """One of spec.adapters. uri, digest and step are those that the newest ready pods have loaded."""

    name: str = Field(description="As in spec.adapters.")
    uri: str | None = Field(default=None, description="Its folder, pvc://CLAIM/PATH.")
    digest: str | None = Field(default=None, description="sha256:… over the manifest of its files, if it has one.")
    step: int | None = Field(default=None, description="Optimizer step at which it was exported.")
    state: Literal["Serving", "Starting", "Waiting", "Refused"] = Field(
        description="Waiting: it joins by itself. Refused: it needs a change."
    )
    reason: str = Field(description="Why, in one word.")
    message: str = Field(default="", description="Why, for people.")


class LLMServingStatus(Status):
    observed_generation: int | None = Field(default=None, description="metadata.generation that this is about.")
    phase: str = Field(default="Pending", description="The conditions in one word; for people, not for programs.")
    url: str | None = Field(default=None, description="Base URL of the OpenAI API inside the cluster.")
    model: ServedResult | None = Field(default=None, description="What the newest ready pods serve.")
    adapters: list[AdapterStatus] = Field(default_factory=list, description="In the order of spec.adapters.")
    replicas: int = Field(default=0, description="Pods that exist.")
    ready_replicas: int = Field(default=0, description="Pods that answer.")
    updated_replicas: int = Field(default=0, description="Pods of the newest model and spec.")
    selector: str = Field(default="", description="Label selector of the pods, for the scale subresource.")
    conditions: list[Condition] = Field(
        default_factory=list, description="ModelAvailable, AdaptersAvailable if spec.adapters names any, and Ready."
    )
