"""What the operator adds: one attempt of one stage, fully resolved."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from llm_trainer.config.base import AnyUri, Settings, Uri, local_path
from llm_trainer.config.corpus import Data, Tokenizer
from llm_trainer.config.evaluation import EvaluationTask
from llm_trainer.config.fine_tuning import FineTuning, Kto, Sft
from llm_trainer.config.mixture import Mixture
from llm_trainer.config.reinforcement import OnlineRl, Ppo
from llm_trainer.config.stages import StageKinds
from llm_trainer.config.tracking import Tracker
from llm_trainer.config.training import (
    Architecture,
    FunctionUse,
    ResolvedOptimizer,
    StageModel,
    TrainingSettings,
    UserFunction,
)


class DatasetCheck(Settings):
    """A dataset of a later stage and how it is read, which data preparation does before any GPU is taken."""

    field: str = Field(description="Where the user wrote it, such as spec.stages[1].sft.dataset.uri.")
    stage: str = Field(default="", description="Its name.")
    warmup_rows: int = Field(default=0, ge=0, description="With so many or fewer all steps would be warm-up.")
    uri: AnyUri
    any_of_columns: list[list[str]] = Field(description="The row must have all columns of one of these sets.")
    optional_columns: list[str] = Field(
        default_factory=list, description="Read as well where a row has them; *: all others."
    )
    columns: dict[str, str] = Field(default_factory=dict, description="As of the stage's dataset.")
    training_tokenizer: bool = Field(default=True, description="Its stage reads by the tokenizer of this training.")
    model_uri: AnyUri | None = Field(
        default=None, description="Else by that of the model there, if it is known before."
    )
    kind: str = Field(default="sft", description="Of the stage, as a user writes it.")
    assistant_only_loss: bool = Field(default=False, description="The loss is on the assistant's turns only.")
    length_field: str = Field(default="", description="Which of the stage's fields holds the next figure.")
    length: int = Field(default=1024, description="Tokens of a row; of the prompt, if the stage writes the answers.")
    rows_per_step: int = Field(default=1, description="Of the dataset, over all processes.")
    micro_batch_size: int = Field(default=1, description="Rows that are compared with each other.")
    validation_fraction: float = Field(default=0.0, description="Share of the prompts whose rows are held out.")
    seed: int = Field(default=0, description="By which the held-out ones are chosen.")

    @classmethod
    def of(
        cls,
        settings: FineTuning,
        stage: str,
        name: str = "",
        *,
        training_tokenizer: bool = True,
        model_uri: str | None = None,
    ) -> DatasetCheck:
        """What `stage`, such as spec.stages[1].sft, needs of its dataset."""
        online = isinstance(settings, OnlineRl)
        kind = type(settings).__name__
        return cls(
            field=f"{stage}.dataset.uri",
            stage=name,
            uri=settings.dataset.uri,
            warmup_rows=math.floor(settings.schedule.warmup_steps / settings.epochs) * settings.rows_per_step,
            any_of_columns=[list(columns) for columns in settings.columns],
            optional_columns=list(settings.optional_columns),
            columns=settings.dataset.columns,
            training_tokenizer=training_tokenizer,
            model_uri=model_uri,
            kind=kind[:1].lower() + kind[1:],
            assistant_only_loss=isinstance(settings, Sft) and settings.assistant_only_loss,
            length_field=f"{stage}.{'maxPromptLength' if online else 'maxLength'}",
            length=settings.max_prompt_length if isinstance(settings, OnlineRl) else settings.length,
            rows_per_step=settings.rows_per_step,
            micro_batch_size=settings.micro_batch_size if isinstance(settings, Kto) else 1,
            validation_fraction=settings.dataset.validation_fraction,
            seed=settings.seed,
        )


class FunctionCheck(Settings):
    """A function of the user's that a later stage calls: it must be in the image or on its volumes, and work."""

    field: str = Field(description="Where the user wrote it, such as spec.stages[3].grpo.rewards[0].function.")
    function: str
    use: FunctionUse = Field(default="reward", description="How it is called.")
    optimizer: ResolvedOptimizer | None = Field(default=None, description="That it makes.")
    flat: bool = Field(default=True, description="ZeRO gives an optimizer flat parts of the parameters.")

    @classmethod
    def of(cls, function: UserFunction, stage: str, settings: TrainingSettings, device: str) -> FunctionCheck:
        """`stage`: such as spec.stages[1]; `function`: its field as it is written below the stage."""
        # weights in bfloat16 are never without ZeRO: models.engine_config.actual_zero_stage
        flat = settings.zero_stage > 0 or (device == "cuda" and settings.precision != "float32")
        optimizer = settings.optimizer
        if isinstance(settings, Ppo) and function.field.startswith("ppo."):
            optimizer = settings.critic_optimizer
        return cls(
            field=f"{stage}.{function.field}",
            function=function.name,
            use=function.use,
            optimizer=optimizer if function.use == "optimizer" else None,
            flat=flat,
        )


class ModelCheck(Settings):
    """A model's folder that a user names, whose files are checked before any GPU is taken."""

    field: str = Field(description="Where the user wrote it, such as spec.stages[1].model.uri.")
    stage: str = Field(default="", description="Name of the stage; empty for spec.model.")
    uri: AnyUri
    scores: bool = Field(default=False, description="It must be a reward model, else a language model.")
    length_field: str = Field(default="", description="The stage's field that asks for the longest rows of it.")
    length: int = Field(default=0, description="Their tokens.")


InputUse = Literal["model", "tokenizer", "data"]


class RemoteInput(Settings):
    """What a user names that lies elsewhere; data preparation fetches it before anything else."""

    field: str = Field(description="Where the user wrote it, such as spec.data.sources[0].uri.")
    uri: AnyUri
    use: InputUse = Field(default="data", description="By which it is known what of a repository is needed.")
    allow_pickle: bool = Field(
        default=False, exclude_if=lambda value: not value, description="Pickled weights are made into safetensors."
    )
    stream: bool = Field(
        default=False, exclude_if=lambda value: not value, description="Only listed: it is read where it lies."
    )
    revision: str = Field(
        default="",
        max_length=128,
        exclude_if=lambda value: not value,
        description="The one that it is held to, as the hub or the bucket told it before. Default: the newest.",
    )


class MountedCredentials(Settings):
    """A Secret's keys, as files in a folder."""

    secret_name: str
    target: str = Field(description="As in spec.credentials: hf, s3://BUCKET or https://HOST.")
    folder: str


class ModelFetch(Settings):
    """What a pod fetches for a serving, whose other containers have no network and no credentials."""

    input: RemoteInput
    cache: str = Field(description="The folder that it goes to; empty: the pod only says what there is.")
    credentials: list[MountedCredentials] = Field(default_factory=list)


class TaskCheck(EvaluationTask):
    """A task of a later stage's evaluation, whose file and data are read before any GPU is taken."""

    field: str = Field(description="Where the user wrote it, such as spec.stages[1].evaluation.tasks[0].uri.")
    stage: str = Field(default="", description="Its name.")
    metrics: list[str] = Field(default_factory=list, description="Those that thresholds name, without the task.")


class MixtureCheck(Settings):
    """The mixture of a pretrain stage: whether the sources have as many tokens as it asks for."""

    field: str = Field(description="Where the user wrote it, such as spec.stages[0].pretrain.mixture.")
    stage: str = Field(description="Its name.")
    after: str = Field(default="", description="The stage whose rows it goes on with.")
    mixture: Mixture
    rows: int = Field(description="Of the stage.")
    length: int = Field(description="Tokens of a row.")


class PrepareData(Settings):
    """Corpus → tokenizer and memory-mapped shards. Empty data: only tokenizer and dataset checks."""

    data: Data | None = None
    tokenizer: Tokenizer
    architecture: Architecture | None = Field(default=None, description="Of the model; checked with the tokenizer.")
    model_uri: AnyUri | None = Field(default=None, description="Of an existing model; checked with the tokenizer.")
    sequence_length: int | None = Field(default=None, description="Longest that a pretrain stage will ask for.")
    length_field: str = Field(
        default="", description="The stage's field that asks for the longest rows of a new model."
    )
    length: int = Field(default=0, description="Their tokens.")
    datasets: list[DatasetCheck] = Field(default_factory=list)
    functions: list[FunctionCheck] = Field(default_factory=list)
    models: list[ModelCheck] = Field(default_factory=list)
    tasks: list[TaskCheck] = Field(default_factory=list)
    remote: list[RemoteInput] = Field(
        default_factory=list,
        description="To be fetched, each URI once for each use.",
        exclude_if=lambda value: not value,
    )
    credentials: list[MountedCredentials] = Field(default_factory=list, exclude_if=lambda value: not value)
    mixtures: list[MixtureCheck] = Field(default_factory=list, exclude_if=lambda value: not value)


class Model(Settings):
    """Exactly one of architecture (from scratch) and uri (a transformers folder, or an adapter of ours)."""

    architecture: Architecture | None = None
    uri: AnyUri | None = None


class StageConfig(StageKinds):
    """One attempt of one stage. Exactly one of prepare_data and the stage kinds."""

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
    patience_seconds: int = Field(default=1800, ge=1, description="For which processes wait for each other.")
    resumes: bool = Field(default=False, description="That folder was another training's: spec.resumeFrom.")
    model: Model | None = None
    results: dict[str, Uri] = Field(default_factory=dict, description="Of the stages that the settings name.")
    digests: dict[Uri, str] = Field(
        default_factory=dict,
        description="Of what it reads (results, data, its checkpoint), as the status has them.",
    )
    prepare_data: PrepareData | None = None
    tracking: list[Tracker] = Field(
        default_factory=list, exclude_if=lambda value: not value, description="A trainer of before knows none."
    )

    @property
    def world_size(self) -> int:
        return self.nodes * self.processes_per_node

    @property
    def model_folder(self) -> str | None:
        """Where the starting model lies; None for one from scratch."""
        uri = self.model.uri if self.model else None
        return local_path(uri, self.volumes_root) if uri else None

    def folder_of(self, reference: StageModel) -> str:
        """Where a model lies that the settings name."""
        return local_path(reference.uri or self.results[reference.stage or ""], self.volumes_root)

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
