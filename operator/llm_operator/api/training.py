"""``LLMTraining``: what a user writes and what the operator answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llm_operator.api.common import Condition, PodSettings, Resources, Spec, Status, Storage
from llm_trainer.config import Architecture, Data, Name, Pretrain, Sft, Tokenizer, Uri

DATA_STAGE = "data"  # the name under which data preparation appears in the status; no stage may take it


class ModelSource(Spec):
    """Exactly one of architecture and uri."""

    architecture: Architecture | None = Field(default=None, description="A model from scratch.")
    uri: Uri | None = Field(default=None, description="An existing transformers folder, pvc://CLAIM/PATH.")


class StageModel(Spec):
    """The model a stage starts from. Exactly one of stage and uri."""

    stage: Name | None = Field(default=None, description="An earlier stage that yields a model.")
    uri: Uri | None = Field(default=None, description="An existing transformers folder, pvc://CLAIM/PATH.")


class PretrainStage(Pretrain):
    model: StageModel | None = Field(default=None, description="Default: the training's spec.model.")


class SftStage(Sft):
    model: StageModel | None = Field(default=None, description="Default: the stage before that yields a model.")


class Stage(Spec):
    """One step of the training. Exactly one of the stage kinds."""

    name: Name = Field(description="Unique in the training.")
    nodes: int | None = Field(default=None, ge=1, le=1024, description="Pods of this stage. Default: spec.nodes.")
    resources: Resources | None = Field(default=None, description="Per pod. Default: spec.resources.")
    pretrain: PretrainStage | None = Field(default=None, description="Pretrain on the prepared corpus.")
    sft: SftStage | None = Field(default=None, description="Supervised fine-tuning.")


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


class Checkpoint(Status):
    step: int
    uri: str
    time: str


class Result(Status):
    uri: str
    digest: str
    kind: str
    step: int = 0
    base: str | None = None


class WorkerStatus(Status):
    rank: int
    pod: str
    node: str


class ProgressStatus(Status):
    phase: str = ""
    step: int = 0
    steps: int = 0
    percent: int = 0
    tokens: int = 0
    loss: str | None = None  # a decimal as text: CRDs discourage floats
    tokens_per_second: int | None = None
    eta_seconds: int | None = None
    evaluation: dict[str, str] = Field(default_factory=dict)
    world_size: int = 1
    last_heartbeat_time: str | None = None


class AttemptStatus(Status):
    number: int
    job: str
    start_time: str
    end_time: str | None = None
    fault: Literal["Own", "Infrastructure", "Configuration"] | None = None
    reason: str | None = None
    message: str | None = None


class NoticeStatus(Status):
    reason: str
    message: str


class StageStatus(Status):
    name: str
    kind: str
    state: Literal["Pending", "Running", "Succeeded", "Failed"] = "Pending"
    nodes: int = 1
    start_time: str | None = None
    end_time: str | None = None
    own_restarts: int = 0
    infrastructure_restarts: int = 0
    attempts: list[AttemptStatus] = Field(default_factory=list)
    workers: list[WorkerStatus] = Field(default_factory=list)
    progress: ProgressStatus | None = None
    checkpoint: Checkpoint | None = None
    result: Result | None = None
    notices: list[NoticeStatus] = Field(default_factory=list)


class LLMTrainingStatus(Status):
    observed_generation: int | None = None
    phase: str = "Pending"
    stage: str | None = None
    progress: str = ""  # for the printer column: "pretrain 120/400 30%"
    loss: str | None = None
    nodes: int = 0
    restarts: int = 0
    conditions: list[Condition] = Field(default_factory=list)
    stages: list[StageStatus] = Field(default_factory=list)
