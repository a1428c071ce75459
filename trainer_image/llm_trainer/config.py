"""What one stage needs, fully resolved: the operator writes it as JSON, the pod reads it.

The settings of each stage are also what a user writes in an ``LLMTraining``, so that a field, its default and its
description exist once. This module imports nothing heavy: the operator's image has no torch.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
Uri = Annotated[str, StringConstraints(pattern=r"^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+$", max_length=1024)]


class Settings(BaseModel):
    """camelCase in YAML and JSON, snake_case in Python; an unknown key is an error."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


# --- what a user writes ------------------------------------------------------------------------------------------


class Architecture(Settings):
    """A model from scratch: a family and the keys of its transformers config class."""

    family: Literal["llama", "gpt2"] = Field(description="The transformers model type.")
    config: dict[str, Any] = Field(
        default_factory=dict, description="Keys of the family's transformers config, as in its config.json."
    )


class Dataset(Settings):
    """Rows for a fine-tuning stage: JSONL or Parquet in one of TRL's dataset formats."""

    uri: Uri = Field(description="pvc://CLAIM/PATH, the path may be a glob. JSONL or Parquet.")
    validation_fraction: float = Field(
        default=0.05, ge=0, lt=1, description="Share of the rows that is held out for evaluation."
    )


class Optimizer(Settings):
    """AdamW, or Muon on the hidden matrices with AdamW on the rest."""

    type: Literal["adamw", "muon"] = Field(default="adamw", description="Muon: Jordan et al. 2024.")
    learning_rate: float = Field(default=3e-4, gt=0, description="Peak learning rate of AdamW.")
    muon_learning_rate: float = Field(default=0.02, gt=0, description="Peak learning rate of Muon; unused by AdamW.")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's first moment decay.")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="AdamW's second moment decay.")
    epsilon: float = Field(default=1e-8, gt=0, description="AdamW's epsilon.")
    weight_decay: float = Field(default=0.1, ge=0, description="Decoupled weight decay.")
    gradient_clipping: float = Field(
        default=1.0, gt=0, description="Global gradient norm above which it is scaled; unused by Muon."
    )


class Schedule(Settings):
    """Learning rate over the run: linear warm-up, then the named shape."""

    type: Literal["wsd", "cosine", "constant"] = Field(
        default="cosine", description="wsd: warm-up, stable, decay (linear over the last decayFraction)."
    )
    warmup_steps: int = Field(default=0, ge=0, description="Steps of linear warm-up from 0.")
    decay_fraction: float = Field(default=0.3, gt=0, le=1, description="wsd: share of the steps that decays.")
    minimum_ratio: float = Field(default=0.1, ge=0, le=1, description="Final learning rate over the peak.")


class Checkpointing(Settings):
    """When a checkpoint is committed and how many are kept. One is always committed at the end and on SIGTERM."""

    every_steps: int = Field(default=100, ge=1, description="Optimizer steps between two checkpoints.")
    keep: int = Field(default=2, ge=1, description="Newest checkpoints to keep.")


class TrainingSettings(Settings):
    """What every stage that trains has in common."""

    seed: int = Field(default=0, ge=0, description="Seed of initialisation and data order.")
    micro_batch_size: int = Field(default=1, ge=1, description="Sequences per process and forward pass.")
    global_batch_size: int = Field(
        default=8,
        ge=1,
        description="Sequences per optimizer step over all processes; gradient accumulation follows from it.",
    )
    zero_stage: int = Field(default=1, ge=0, le=3, description="DeepSpeed ZeRO stage.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 where the device computes in it natively, else float32."
    )
    optimizer: Optimizer = Field(default_factory=Optimizer, description="Optimizer settings.")
    schedule: Schedule = Field(default_factory=Schedule, description="Learning rate schedule.")
    checkpoint: Checkpointing = Field(default_factory=Checkpointing, description="Checkpoint settings.")
    evaluate_every_steps: int = Field(default=50, ge=1, description="Optimizer steps between two evaluations.")
    publish_every_steps: int | None = Field(
        default=None,
        ge=1,
        description="Also publish a result (an exported model) every so many steps, so that a serving can follow the "
        "training while it runs. By default only the final result is published.",
    )


class Pretrain(TrainingSettings):
    """Next-token prediction on the prepared corpus. Exactly one of steps and tokens."""

    sequence_length: int = Field(ge=8, description="Tokens per sequence.")
    steps: int | None = Field(default=None, ge=1, description="Optimizer steps of the run.")
    tokens: int | None = Field(default=None, ge=1, description="Training tokens of the run; steps follow from it.")


class Sft(TrainingSettings):
    """Supervised fine-tuning on conversations (`messages`) or `prompt`/`completion` rows, by TRL's SFTTrainer."""

    dataset: Dataset = Field(description="Rows with `messages`, or `prompt` and `completion`.")
    epochs: float = Field(default=1, gt=0, description="Passes over the dataset.")
    max_length: int = Field(default=1024, ge=8, description="Tokens per row; longer rows are cut.")
    assistant_only_loss: bool = Field(default=True, description="Loss on the assistant's turns only.")


class Source(Settings):
    """One named part of the corpus."""

    name: Name = Field(description="Unique name; metrics and the manifest use it.")
    uri: Uri = Field(description="pvc://CLAIM/PATH, the path may be a glob. .txt, .jsonl (field text) or .parquet.")
    language: str = Field(default="", max_length=35, description="BCP 47 tag, such as ja.")
    domain: str = Field(default="", max_length=63, description="Free label, such as reference.")
    license: str = Field(default="", max_length=256, description="SPDX expression or a few words.")
    text_field: str = Field(default="text", min_length=1, max_length=63, description="JSONL/Parquet field of the text.")


class TrainTokenizer(Settings):
    """Byte-level BPE, trained on the corpus."""

    vocabulary_size: int = Field(ge=512, le=1_048_576, description="Tokens of the vocabulary, special ones included.")


class Tokenizer(Settings):
    """Exactly one of train and uri."""

    train: TrainTokenizer | None = Field(default=None, description="Train a byte-level BPE tokenizer on the corpus.")
    uri: Uri | None = Field(default=None, description="A folder with a tokenizer that transformers loads.")


class Data(Settings):
    """The corpus and how it is prepared."""

    sources: list[Source] = Field(min_length=1, max_length=256, description="Parts of the corpus.")
    validation_fraction: float = Field(
        default=0.05, gt=0, lt=1, description="Share of each source's documents that is held out, chosen by hash."
    )
    max_invalid_fraction: float = Field(
        default=0.01, ge=0, le=1, description="Share of documents that may be skipped as not UTF-8; above it: refused."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the held-out choice.")


# --- what the operator adds: one stage, fully resolved -------------------------------------------------------------


class DatasetCheck(Settings):
    """A dataset of a later stage, whose files and columns are checked before any GPU is taken."""

    field: str = Field(description="Where the user wrote it, such as spec.stages[1].sft.dataset.uri.")
    uri: Uri
    any_of_columns: list[list[str]] = Field(description="The row must have all columns of one of these sets.")


class PrepareData(Settings):
    """Corpus → tokenizer and memory-mapped shards. Empty data: only tokenizer and dataset checks."""

    data: Data | None = None
    tokenizer: Tokenizer
    sequence_length: int | None = Field(default=None, description="Longest sequence any stage will ask for.")
    datasets: list[DatasetCheck] = Field(default_factory=list)


class Model(Settings):
    """Exactly one of architecture (from scratch) and path (a transformers folder inside the pod)."""

    architecture: Architecture | None = None
    path: str | None = None


class StageConfig(Settings):
    """One attempt of one stage. Exactly one of prepare_data, pretrain and sft."""

    training: str = Field(description="metadata.name of the LLMTraining.")
    namespace: str
    uid: str
    stage: str
    attempt: int = Field(ge=1)
    nodes: int = Field(ge=1)
    processes_per_node: int = Field(ge=1)
    device: Literal["cpu", "cuda"]
    volumes_root: str = Field(default="/volumes", description="A claim is mounted at volumes_root/CLAIM.")
    run_uri: Uri = Field(description="pvc://CLAIM/RUN: all that this training writes lies below.")
    model: Model | None = None
    prepare_data: PrepareData | None = None
    pretrain: Pretrain | None = None
    sft: Sft | None = None

    @property
    def world_size(self) -> int:
        return self.nodes * self.processes_per_node

    @property
    def run_folder(self) -> str:
        return local_path(self.run_uri, self.volumes_root)

    @property
    def data_folder(self) -> str:
        """Tokenizer and shards of this training."""
        return f"{self.run_folder}/data"

    @property
    def stage_folder(self) -> str:
        """checkpoints/, results/ and history.jsonl of this stage."""
        return f"{self.run_folder}/stages/{self.stage}"


def local_path(uri: str, volumes_root: str = "/volumes") -> str:
    """The path inside a pod of a pvc:// URI; raises ValueError for any other scheme or a path that climbs out."""
    scheme, _, rest = uri.partition("://")
    if scheme != "pvc" or not rest:
        raise ValueError(f"{uri!r} is not a pvc://CLAIM/PATH URI")
    if ".." in PurePosixPath(rest).parts:
        raise ValueError(f"{uri!r} must not contain '..'")
    return f"{volumes_root}/{rest}"


def claim_of(uri: str) -> str | None:
    """The PersistentVolumeClaim of a pvc:// URI, None for any other scheme."""
    return uri.removeprefix("pvc://").split("/", 1)[0] if uri.startswith("pvc://") else None
