"""``LLMTraining``: what a user writes. ``training_status`` has what the operator answers."""

from __future__ import annotations

from pydantic import Field

from llm_operator.api.common import PodSettings, Quantity, Resources, Spec, Storage
from llm_trainer.config import Architecture, Data, Name, StageKinds, Tokenizer, Uri

DATA_STAGE = "data"  # the name under which data preparation appears in the status; no stage may take it


class ModelSource(Spec):
    """Exactly one of architecture and uri."""

    architecture: Architecture | None = Field(default=None, description="A model from scratch.")
    uri: Uri | None = Field(default=None, description="An existing transformers folder, pvc://CLAIM/PATH.")


class Stage(StageKinds):
    """One step of the training. Exactly one of the stage kinds."""

    name: Name = Field(description="Unique in the training.")
    nodes: int | None = Field(default=None, ge=1, le=1024, description="Pods of this stage. Default: spec.nodes.")
    resources: Resources | None = Field(default=None, description="Per pod. Default: spec.resources.")


class Restarts(Spec):
    """How many attempts a stage may have beyond the first, by whose fault it was."""

    own: int = Field(default=3, ge=0, le=100, description="Restarts after a fault of the training itself.")
    infrastructure: int = Field(default=20, ge=0, le=1000, description="Restarts after evictions and lost nodes.")


class LLMTrainingSpec(Spec):
    nodes: int = Field(default=1, ge=1, le=1024, description="Pods per stage.")
    processes_per_node: int | None = Field(
        default=None, ge=1, le=64, description="Processes per pod. Default: its nvidia.com/gpu limit, 1 on CPU."
    )
    resources: Resources = Field(default_factory=Resources, description="Per pod of a stage.")
    gpu_memory: Quantity | None = Field(
        default=None,
        description="Memory of one GPU, such as 80Gi: a stage whose weights, gradients and optimizer state alone need "
        "more is refused. Default: not checked.",
    )
    storage: Storage = Field(description="Where checkpoints and results go; shared by all pods of all stages.")
    model: ModelSource = Field(description="What is trained.")
    tokenizer: Tokenizer | None = Field(
        default=None, description="Default: the tokenizer in the folder of spec.model.uri."
    )
    data: Data | None = Field(default=None, description="The corpus; a pretrain stage needs it.")
    stages: list[Stage] = Field(min_length=1, max_length=16, description="In order.")
    image: str | None = Field(default=None, max_length=512, description="Trainer image. Default: the operator's.")
    suspend: bool = Field(default=False, description="Stop the pods; progress up to the last checkpoint is kept.")
    restarts: Restarts = Field(default_factory=Restarts, description="Budget of restarts per stage.")
    pods: PodSettings = Field(default_factory=PodSettings, description="Placement and environment of the pods.")
