"""``LLMTraining``: what a user writes. ``training_status`` has what the operator answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from llm_operator.api.common import Spec, Storage
from llm_operator.api.pods import PodSettings, StagePods
from llm_operator.api.quantities import Quantity
from llm_operator.api.resources import Resources
from llm_trainer.config import (
    KINDS,
    AnyUri,
    Architecture,
    Credentials,
    Data,
    Name,
    SharedSettings,
    StageKinds,
    Tokenizer,
    Tracker,
)

RunUri = Annotated[
    str,
    StringConstraints(pattern=r"^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9_][-A-Za-z0-9_.]*)+$", max_length=384),
]
PublishUri = Annotated[
    str,
    StringConstraints(
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]|hf://[A-Za-z0-9][A-Za-z0-9._-]{0,95})/[!-)+->@-Z^-~]+$",
        max_length=512,
    ),
]
DATA_STAGE = "data"  # the name under which data preparation appears in the status; no stage may take it


class ModelSource(Spec):
    """Exactly one of architecture and uri."""

    architecture: Architecture | None = Field(default=None, description="A model from scratch.")
    uri: AnyUri | None = Field(
        default=None,
        description="An existing transformers folder: pvc://CLAIM/PATH, hf://ORG/NAME or s3://BUCKET/PATH.",
    )
    allow_pickle: bool = Field(
        default=False,
        description="Whether pickled weights at an hf:// or s3:// uri without safetensors are read, tensors alone.",
        exclude_if=lambda value: not value,
    )


class Stage(StageKinds, SharedSettings):
    """What every kind of stage shares, and exactly one of the kinds with what is its own."""

    name: Name = Field(description="Unique in the training.")
    nodes: int | None = Field(default=None, ge=1, le=1024, description="Pods of this stage. Default: spec.nodes.")
    resources: Resources | None = Field(default=None, description="Per pod. Default: spec.resources.")
    pods: StagePods = Field(
        default_factory=StagePods, description="A field that is set here takes the place of that of spec.pods."
    )

    @model_validator(mode="before")
    @classmethod
    def resolve(cls, written: Any) -> Any:
        """Hands what stands beside the kind on to it.

        So ``stage.sft`` and the like hold both, with the kind's defaults for what is left out.
        """
        if not isinstance(written, Mapping):
            return written
        shared = {name: written[name] for name in SHARED if written.get(name) is not None}
        kinds = {kind: written[kind] for kind in KINDS.values() if isinstance(written.get(kind), Mapping)}
        for kind, settings in kinds.items():
            if misplaced := [name for name in SHARED if name in settings]:
                names, stand = ", ".join(misplaced), "stands" if len(misplaced) == 1 else "stand"
                raise ValueError(f"{names} of {kind} {stand} beside {kind}, not in it; write it one level up")
        return {**written, **{kind: {**settings, **shared} for kind, settings in kinds.items()}}


SHARED = tuple(field.alias or name for name, field in SharedSettings.model_fields.items())
"""The fields that stand beside a kind, as a user writes them."""


class DataPreparation(Spec):
    """The pods that prepare the data, before the first stage."""

    nodes: int = Field(
        default=1, ge=1, le=256, description="Pods, each with a process for each of its CPUs; a large corpus is shared."
    )
    resources: Resources | None = Field(default=None, description="Default: spec.resources without devices.")
    pods: StagePods = Field(
        default_factory=StagePods, description="A field that is set here takes the place of that of spec.pods."
    )


class ResumeFrom(Spec):
    """A run folder that another training has left, such as one that was deleted or restored from a backup."""

    uri: RunUri = Field(description="Its status.runUri, pvc://CLAIM/FOLDER, in the claim of spec.storage.")


class Publication(Spec):
    """Where a stage's result goes once it has succeeded."""

    to: PublishUri = Field(
        description="s3://BUCKET/PATH or hf://ORG/NAME[@BRANCH][/PATH]; a place of this result alone."
    )
    stage: Name | None = Field(default=None, description="Default: the last one.")
    private: bool = Field(default=True, description="Of a repository of a hub that is made for it.")


class Restarts(Spec):
    """How many faults a stage may have in a row without progress, which is a new checkpoint, by whose fault it was."""

    own: int = Field(default=3, ge=0, le=100, description="Restarts after a fault of the training itself.")
    infrastructure: int = Field(default=20, ge=0, le=1000, description="Restarts after evictions and lost nodes.")
    window_seconds: int = Field(
        default=3600, ge=1, le=31_536_000, description="An attempt that lasted so long refills infrastructure too."
    )


class LLMTrainingSpec(Spec):
    nodes: int = Field(default=1, ge=1, le=1024, description="Pods per stage.")
    processes_per_node: int | None = Field(
        default=None, ge=1, le=64, description="Processes per pod. Default: one per GPU, 1 on CPU."
    )
    resources: Resources = Field(default_factory=Resources, description="Per pod of a stage.")
    gpu_memory: Quantity | None = Field(
        default=None,
        description="Of one GPU, such as 80Gi: a stage that needs more for weights, gradients and optimizer state is "
        "refused. Default: not checked.",
    )
    storage: Storage = Field(description="For checkpoints and results; shared by all pods.")
    resume_from: ResumeFrom | None = Field(
        default=None,
        description="Take up another training's run folder: stages of the same settings are not run again. "
        "Default: a new folder.",
    )
    model: ModelSource = Field(description="What is trained.")
    tokenizer: Tokenizer | None = Field(
        default=None, description="Default: the tokenizer in the folder of spec.model.uri."
    )
    data: Data | None = Field(default=None, description="The corpus; a pretrain stage needs it.")
    credentials: list[Credentials] = Field(
        default_factory=list, max_length=16, description="For what hf://, s3:// and https:// URIs name."
    )
    publish: list[Publication] = Field(
        default_factory=list, max_length=8, description="Results that go elsewhere, by a pod of their own."
    )
    prepare_data: DataPreparation = Field(
        default_factory=DataPreparation, description="The pods that prepare the data, without devices."
    )
    stages: list[Stage] = Field(min_length=1, max_length=16, description="In order.")
    image: str | None = Field(default=None, max_length=512, description="Trainer image. Default: the operator's.")
    tracking: list[Tracker] = Field(
        default_factory=list, max_length=4, description="Who is told the figures of each stage; never waited for."
    )
    suspend: bool = Field(default=False, description="Stop the pods; progress up to the last checkpoint is kept.")
    restarts: Restarts = Field(default_factory=Restarts, description="Restarts per stage without progress.")
    restart_token: str | None = Field(
        default=None,
        max_length=253,
        description="A new value, such as a time, takes up a training that failed, or waits to restart, with new "
        "budgets.",
    )
    pods: PodSettings = Field(default_factory=PodSettings, description="Placement and environment of the pods.")
