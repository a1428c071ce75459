"""``LLMServing``: what a user writes and what the operator answers."""

from __future__ import annotations

from pydantic import Field

from llm_operator.api.common import Condition, PodSettings, Resources, Spec, Status
from llm_trainer.config import Name, Uri


class TrainingReference(Spec):
    """A stage's result, followed as it changes."""

    name: str = Field(min_length=1, max_length=253, description="An LLMTraining of the same namespace.")
    stage: Name | None = Field(default=None, description="Default: its last stage that yields a model.")


class ServedModel(Spec):
    """Exactly one of training and uri."""

    training: TrainingReference | None = Field(default=None, description="The result of a training.")
    uri: Uri | None = Field(default=None, description="A transformers folder, pvc://CLAIM/PATH.")


class LLMServingSpec(Spec):
    model: ServedModel = Field(description="What is served.")
    served_model_name: str | None = Field(
        default=None, max_length=253, description="Name in the OpenAI API. Default: the LLMServing's name."
    )
    replicas: int = Field(default=1, ge=0, le=1000, description="Pods.")
    resources: Resources = Field(default_factory=Resources, description="Per pod.")
    max_model_length: int | None = Field(default=None, ge=8, description="Tokens of context. Default: the model's.")
    data_type: str = Field(default="auto", max_length=16, description="vLLM's --dtype; auto is float32 on CPU.")
    extra_arguments: list[str] = Field(
        default_factory=list, max_length=64, description="Further arguments of `vllm serve`."
    )
    startup_timeout_seconds: int = Field(default=1800, ge=10, description="Until a new pod must answer.")
    drain_timeout_seconds: int = Field(default=60, ge=0, le=3600, description="For open requests when a pod leaves.")
    image: str | None = Field(default=None, max_length=512, description="vLLM image. Default: the operator's.")
    pods: PodSettings = Field(default_factory=PodSettings, description="Placement and environment of the pods.")


class ServedResult(Status):
    """A model that pods serve."""

    uri: str = Field(description="Its folder, pvc://CLAIM/PATH.")
    digest: str | None = Field(default=None, description="sha256:… over the manifest of its files, if it has one.")
    step: int | None = Field(default=None, description="Optimizer step at which it was exported.")


class LLMServingStatus(Status):
    observed_generation: int | None = Field(default=None, description="metadata.generation that this is about.")
    phase: str = Field(default="Pending", description="The conditions in one word; for people, not for programs.")
    url: str | None = Field(default=None, description="Base URL of the OpenAI API inside the cluster.")
    model: ServedResult | None = Field(default=None, description="What the newest ready pods serve.")
    replicas: int = Field(default=0, description="Pods that exist.")
    ready_replicas: int = Field(default=0, description="Pods that answer.")
    updated_replicas: int = Field(default=0, description="Pods of the newest model and spec.")
    selector: str = Field(default="", description="Label selector of the pods, for the scale subresource.")
    conditions: list[Condition] = Field(default_factory=list, description="ModelAvailable and Ready.")
