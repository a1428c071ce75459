"""What both resources share."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from llm_trainer.config import Settings
from llm_trainer.protocol import Message

GROUP, VERSION = "llm-operator.io", "v1alpha1"


def field_path(path: str, *parts: str | int) -> str:
    """A field's place in its object, such as spec.stages[0].resources.limits[nvidia.com/gpu]."""
    for part in parts:
        path += f".{part}" if isinstance(part, str) and part.isidentifier() else f"[{part}]"
    return path


def build_models(*of: type[BaseModel]) -> None:
    """All that would be made when they are used first, by default of specs, stages and messages: no pass waits."""
    for model in of or (Settings, Message):
        model.model_rebuild()
        if known := model.__subclasses__():
            build_models(*known)


class Spec(Settings):
    """Written by a user: unknown keys are errors."""


class Status(BaseModel):
    """Written by the operator: unknown keys, from a newer operator, are dropped."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Condition(Status):
    """metav1.Condition."""

    type: str = Field(description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    observed_generation: int | None = Field(default=None, description="metadata.generation that this is about.")
    last_transition_time: str = Field(description="When status last changed.")
    reason: str = Field(description="Why, in one word.")
    message: str = Field(default="", description="Why, for people.")


class ClaimReference(Spec):
    claim_name: str = Field(min_length=1, max_length=253, description="A PersistentVolumeClaim of the same namespace.")


class Storage(Spec):
    persistent_volume_claim: ClaimReference = Field(description="ReadWriteMany when a stage has more than one pod.")
