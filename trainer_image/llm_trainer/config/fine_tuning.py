"""The stages that learn from a dataset's rows, by TRL, as a user writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, field_validator

from llm_trainer.config.base import AnyUri, Settings
from llm_trainer.config.training import (
    LossFunctionName,
    PreferenceOptimizer,
    RewardModelOptimizer,
    SftOptimizer,
    TrainingSettings,
    UserFunction,
)

# What a stage, a chat template or a known format reads, and so what a column of the files may stand for.
READ_COLUMNS = (
    "messages", "prompt", "completion", "text", "chosen", "rejected", "label", "margin", "tools",
    "chat_template_kwargs", "instruction", "input", "output", "system", "history", "conversations",
)  # fmt: skip
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=253)]


class Dataset(Settings):
    """Rows for a fine-tuning stage: JSONL or Parquet in one of TRL's dataset formats."""

    uri: AnyUri = Field(description="As of a source of the corpus. JSONL or Parquet.")
    columns: dict[str, ColumnName] = Field(
        default_factory=dict,
        max_length=len(READ_COLUMNS),
        description="What the files' columns are here, by their names, such as {prompt: question, completion: answer}.",
    )
    validation_fraction: float = Field(
        default=0.05, ge=0, lt=1, description="Share of the rows that is held out for evaluation."
    )

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        if unknown := [name for name in columns if name not in READ_COLUMNS]:
            raise ValueError(f"{unknown[0]!r} is no column that a stage reads; they are {', '.join(READ_COLUMNS)}")
        if len(set(columns.values())) < len(columns):
            raise ValueError("a column of the files can stand for one only")
        return columns


class FineTuning(TrainingSettings):
    """What the stages on a dataset have in common. ``columns``: a row must have all of one of these sets."""

    columns: ClassVar[tuple[tuple[str, ...], ...]] = ()
    optional_columns: ClassVar[tuple[str, ...]] = ()  # "*": all that a row has

    dataset: Dataset = Field(description="Rows in one of TRL's formats for this stage.")
    epochs: float = Field(default=1, gt=0, le=100_000, description="Passes over the dataset.")

    @property
    def rows_per_step(self) -> int:
        """Of the dataset, over all processes."""
        return self.global_batch_size


class Offline(FineTuning):
    """What the stages that learn from given answers have in common."""

    max_length: int = Field(default=1024, ge=8, le=16_777_216, description="Tokens per row; TRL's default.")


RouterAuxLossCoef = Annotated[
    float | None,
    Field(ge=0, description="Weight of the experts' load-balance loss. Default: the model's config."),
]


class Sft(Offline):
    """Supervised fine-tuning on conversations (`messages`), `prompt`/`completion` or `text` rows, by TRL's SFTTrainer.

    Longer rows are cut at max_length.
    """

    held_out = ("loss", "baseLoss")
    columns = (("messages",), ("prompt", "completion"), ("text",))

    optimizer: SftOptimizer = Field(default_factory=SftOptimizer, description="Optimizer settings.")
    router_aux_loss_coef: RouterAuxLossCoef = None
    assistant_only_loss: bool = Field(default=True, description="Loss on the assistant's turns only.")
    packing: bool = Field(
        default=True,
        description="Several rows of a step share a place of maxLength tokens, which changes no loss. Not where the "
        "model would see one row from another.",
    )
    loss_function: LossFunctionName = None

    def functions(self) -> Iterator[UserFunction]:
        yield from super().functions()
        if self.loss_function:
            yield UserFunction("lossFunction", self.loss_function, "loss")


PAIRS = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))


class RewardModel(Offline):
    """A model that scores answers, learned from pairs, by TRL's RewardTrainer. Longer pairs are left out."""

    yields = "rewardModel"
    held_out = ("loss", "accuracy", "margin")
    columns = PAIRS
    optional_columns = ("margin",)

    optimizer: RewardModelOptimizer = Field(default_factory=RewardModelOptimizer, description="Optimizer settings.")
    center_rewards_coefficient: float | None = Field(
        default=None, gt=0, description="Of the squared sum of a pair's rewards; Eisenstein et al. 2023: 0.01."
    )


DpoLossType = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip


class Dpo(Offline):
    """Direct preference optimisation (Rafailov et al. 2023), by TRL's DPOTrainer.

    The reference is the starting model; with `lora` it is the base with the adapter off.
    """

    held_out = ("accuracy", "margin", "logProbability/chosen", "logProbability/rejected")
    columns = PAIRS

    optimizer: PreferenceOptimizer = Field(default_factory=PreferenceOptimizer, description="Optimizer settings.")
    beta: float = Field(default=0.1, gt=0, description="Weight of staying near the reference; TRL's default.")
    router_aux_loss_coef: RouterAuxLossCoef = None
    loss_type: list[DpoLossType] = Field(
        default=["sigmoid"], min_length=1, max_length=8, description="One loss, or several that are summed (MPO)."
    )
    loss_weights: list[float] | None = Field(
        default=None, max_length=8, description="A weight for each of lossType. Default: 1 for each."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, le=0.49, description="Share of wrong labels that robust losses expect; TRL's default."
    )


class Kto(Offline):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024) on answers marked good or bad, by TRL's KTOTrainer.

    The reference is the starting model; with `lora` it is the base with the adapter off.
    """

    held_out = ("reward/good", "reward/bad", "margin")
    columns = (("prompt", "completion", "label"),)

    optimizer: PreferenceOptimizer = Field(default_factory=PreferenceOptimizer, description="Optimizer settings.")
    micro_batch_size: int = Field(
        default=2,
        ge=2,
        le=65_536,
        description="Sequences per process and forward pass; the loss compares those of a batch.",
    )
    beta: float = Field(default=0.1, gt=0, description="Weight of staying near the reference; TRL's default.")
    router_aux_loss_coef: RouterAuxLossCoef = None
    desirable_weight: float = Field(default=1.0, gt=0, description="Weight of the good answers; TRL's default.")
    undesirable_weight: float = Field(default=1.0, gt=0, description="Weight of the bad answers; TRL's default.")
