"""The kinds of stage. A new kind is a model, a field of StageKinds, and a module of its name in ``stages``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from llm_trainer.config.base import Settings
from llm_trainer.config.fine_tuning import Dpo, Kto, RewardModel, Sft
from llm_trainer.config.mixture import Mixture
from llm_trainer.config.reinforcement import Grpo, Ppo
from llm_trainer.config.training import LossFunctionName, SharedSettings, TrainingSettings, UserFunction
from llm_trainer.config.tune import Tune


class Pretrain(TrainingSettings):
    """Next-token prediction on the prepared corpus. Exactly one of steps and tokens."""

    length_field: ClassVar[str] = "sequence_length"
    held_out: ClassVar[tuple[str, ...]] = ("loss", "bitsPerByte")
    checkpoints_on_gpus: ClassVar[bool] = False  # what costs a fourth of the speed is for who lacks the memory

    sequence_length: int = Field(ge=8, le=16_777_216, description="Tokens per sequence.")
    router_aux_loss_coef: float = Field(
        default=0.001, ge=0, description="Weight of the experts' load-balance loss; transformers' default."
    )
    router_z_loss_coef: float = Field(default=0.0, ge=0, description="Weight of the routers' z-loss; ST-MoE: 0.001.")
    expert_parallel: int = Field(
        default=1,
        ge=1,
        le=4096,
        description="Processes that share the experts of a layer, by DeepSpeed's AutoEP; a divisor of processes and "
        "experts, with ZeRO 1 or 2 and AdamW.",
    )
    loss_function: LossFunctionName = None
    compile: bool | None = Field(
        default=None,
        description="Compile the model's layers by torch.compile; dense families, with ZeRO 0 to 2. Default: where "
        "half an hour is still to come, a compiler is there and the layers are seen to be faster.",
    )
    steps: int | None = Field(default=None, ge=1, le=1_000_000_000, description="Optimizer steps of the run.")
    tokens: int | None = Field(
        default=None, ge=1, le=1_000_000_000_000_000, description="Training tokens of the run; steps follow from it."
    )

    tune: Tune | None = Field(default=None, description="Choose settings by short trials. Default: as written.")
    mixture: Mixture | None = Field(
        default=None,
        description="Shares of the sources, limits and changes. Default: all sources as one text, once before any "
        "twice.",
    )

    @property
    def total_rows(self) -> int:
        return self.total_steps * self.global_batch_size

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the run; 0 if neither steps nor tokens is given."""
        if self.steps is not None:
            return self.steps
        return -(-(self.tokens or 0) // (self.global_batch_size * self.sequence_length))

    def against_compiling(self) -> str:
        """The setting that `compile` doesn't go with; empty if there is none."""
        asked = {"expertParallel": self.expert_parallel, **self.shared_work}
        shared = (f"{name} {size}" for name, size in asked.items() if size > 1)
        return next(shared, "zeroStage 3" if self.zero_stage == 3 else "")

    def functions(self) -> Iterator[UserFunction]:
        yield from super().functions()
        if self.loss_function:
            yield UserFunction("lossFunction", self.loss_function, "loss")


class StageKinds(Settings):
    """Exactly one is set."""

    pretrain: Pretrain | None = Field(default=None, description="Pretrain on the prepared corpus.")
    sft: Sft | None = Field(default=None, description="Supervised fine-tuning.")
    reward_model: RewardModel | None = Field(default=None, description="Learn to score answers.")
    dpo: Dpo | None = Field(default=None, description="Direct preference optimisation.")
    kto: Kto | None = Field(default=None, description="Kahneman-Tversky optimisation.")
    ppo: Ppo | None = Field(default=None, description="Proximal policy optimisation.")
    grpo: Grpo | None = Field(default=None, description="Group relative policy optimisation.")


KINDS: dict[str, str] = {name: field.alias or name for name, field in StageKinds.model_fields.items()}
"""The fields of StageKinds and how a user writes them, such as reward_model: rewardModel."""


def kind_of(kinds: StageKinds) -> str:
    """The field that is set; the first if there are more, empty if there is none."""
    return next((kind for kind in KINDS if getattr(kinds, kind) is not None), "")


def settings_of(kinds: StageKinds) -> TrainingSettings | None:
    """The settings under that field."""
    settings: TrainingSettings | None = getattr(kinds, kind_of(kinds), None)
    return settings


def functions_of(kinds: StageKinds) -> list[UserFunction]:
    """Those of the user's that a stage calls, by their fields as they are written below the stage."""
    settings, kind = settings_of(kinds), KINDS.get(kind_of(kinds), "")
    shared = {field.alias or name for name, field in SharedSettings.model_fields.items()}
    return [
        UserFunction(field if field.partition(".")[0] in shared else f"{kind}.{field}", name, use)
        for field, name, use in (settings.functions() if settings else ())
    ]
