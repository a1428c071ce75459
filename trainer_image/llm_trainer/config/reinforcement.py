"""The stages that learn from rewards for answers of their own, as a user writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from llm_trainer.config.base import Settings
from llm_trainer.config.fine_tuning import FineTuning
from llm_trainer.config.training import PreferenceOptimizer, Reference, StageModel

FunctionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", max_length=253)]


class Reward(Settings):
    """What an answer is worth. Exactly one of model and function."""

    model: StageModel | None = Field(default=None, description="A reward model; exactly one of stage and uri.")
    function: FunctionName | None = Field(
        default=None,
        description="A Python function module:function of the trainer image, called as TRL calls one: with prompts, "
        "completions and the dataset's other columns as keyword arguments; it returns a number for each completion.",
    )
    weight: float = Field(default=1.0, description="Factor in the sum of the rewards.")


class OnlineRl(FineTuning):
    """What the stages that write answers have in common. Prompts that are too long are left out."""

    columns = (("prompt",),)
    optional_columns = ("*",)  # for the reward functions
    length_field: ClassVar[str] = "max_completion_length"

    optimizer: PreferenceOptimizer = Field(default_factory=PreferenceOptimizer, description="Optimizer settings.")
    max_prompt_length: int = Field(default=512, ge=1, description="Tokens of the longest prompt.")
    max_completion_length: int = Field(default=512, ge=1, description="Tokens of an answer; TRL's default.")
    temperature: float = Field(default=1.0, gt=0, description="Of the sampled answers; TRL's default.")
    rewards: list[Reward] = Field(min_length=1, max_length=8, description="Summed by their weights.")

    @property
    def length(self) -> int:
        return self.max_prompt_length + self.max_completion_length

    def references(self) -> Iterator[Reference]:
        yield from super().references()
        for index, reward in enumerate(self.rewards):
            if reward.model:
                yield Reference(f"rewards[{index}].model", reward.model, "rewardModel")


class Grpo(OnlineRl):
    """Group relative policy optimisation (Shao et al. 2024), by TRL's GRPOTrainer.

    globalBatchSize counts answers; numGenerations of them belong to one prompt.
    """

    num_generations: int = Field(default=8, ge=2, description="Answers to each prompt; TRL's default.")
    beta: float = Field(
        default=0.0, ge=0, description="Weight of the KL term, above 0 with a reference; TRL's default."
    )
    epsilon: float = Field(default=0.2, gt=0, description="Clipping of the probability ratio; TRL's default.")
    epsilon_high: float | None = Field(default=None, gt=0, description="Upper clipping; DAPO: 0.28. Default: epsilon.")
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = Field(
        default="dapo", description="How the tokens' losses are averaged; TRL's default."
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group", description="Whose standard deviation divides the advantages; TRL's default."
    )
    mask_truncated_completions: bool = Field(default=False, description="No loss on answers that were cut off.")
