"""The stages that learn from rewards for answers of their own, as a user writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from llm_trainer.config.base import FunctionName, Settings
from llm_trainer.config.fine_tuning import FineTuning
from llm_trainer.config.training import (
    CriticOptimizer,
    PreferenceOptimizer,
    Reference,
    StageModel,
    UserFunction,
)


class Reward(Settings):
    """What an answer is worth. Exactly one of model and function."""

    model: StageModel | None = Field(default=None, description="A reward model; exactly one of stage and uri.")
    function: FunctionName | None = Field(
        default=None,
        description="module:function, called as TRL does, by keyword: prompts, completions, other columns; gives a "
        "number for each completion.",
    )
    weight: float = Field(default=1.0, description="Factor in the sum of the rewards.")


class VllmRollouts(Settings):
    """Answers written by a vLLM engine in the training's own processes, on the same GPUs."""

    gpu_memory_utilization: float = Field(
        default=0.3, gt=0, lt=1, description="Share of a GPU's memory for vLLM; TRL's default."
    )
    tensor_parallel_size: int = Field(
        default=1, ge=1, le=1024, description="GPUs that an engine spans, a divisor of all."
    )
    sleep: bool = Field(default=True, description="vLLM's sleep mode: memory is free while the model learns.")


class OnlineRl(FineTuning):
    """What the stages that write answers have in common. Prompts that are too long are left out."""

    held_out: ClassVar[tuple[str, ...]] = ("reward",)
    columns = (("prompt",),)
    optional_columns = ("*",)  # for the reward functions
    length_field: ClassVar[str] = "max_completion_length"

    optimizer: PreferenceOptimizer = Field(default_factory=PreferenceOptimizer, description="Optimizer settings.")
    max_prompt_length: int = Field(default=512, ge=1, le=16_777_216, description="Tokens of the longest prompt.")
    max_completion_length: int = Field(
        default=512, ge=1, le=16_777_216, description="Tokens of an answer; TRL's default."
    )
    temperature: float = Field(default=1.0, gt=0, description="Of the sampled answers; TRL's default.")
    vllm: VllmRollouts | None = Field(
        default=None, description="Answers by vLLM, on GPUs only. Default: by transformers' generate."
    )
    rewards: list[Reward] = Field(min_length=1, max_length=8, description="Summed by their weights.")

    @property
    def length(self) -> int:
        return self.max_prompt_length + self.max_completion_length

    def references(self) -> Iterator[Reference]:
        for index, reward in enumerate(self.rewards):
            if reward.model:
                yield Reference(f"rewards[{index}].model", reward.model, "rewardModel")

    def functions(self) -> Iterator[UserFunction]:
        yield from super().functions()
        for index, reward in enumerate(self.rewards):
            if reward.function:
                yield UserFunction(f"rewards[{index}].function", reward.function, "reward")


class Grpo(OnlineRl):
    """Group relative policy optimisation (Shao et al. 2024), by TRL's GRPOTrainer.

    globalBatchSize counts answers; numGenerations of them belong to one prompt.
    """

    num_generations: int = Field(default=8, ge=2, le=4096, description="Answers to each prompt; TRL's default.")
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

    @property
    def rows_per_step(self) -> int:
        """Prompts."""
        return self.global_batch_size // self.num_generations


class Ptx(Settings):
    """Pretraining goes on beside the updates (PPO-ptx, Ouyang et al. 2022), on the prepared corpus."""

    coefficient: float = Field(default=27.8, gt=0, description="Weight of the pretraining loss; Ouyang et al. 2022.")
    sequence_length: int = Field(ge=8, le=16_777_216, description="Tokens per sequence.")


class Ppo(OnlineRl):
    """Proximal policy optimisation (Schulman et al. 2017; Ziegler et al. 2019; Ouyang et al. 2022).

    A step is a rollout of rolloutBatchSize answers and the updates on it, each on globalBatchSize of them. With `lora`
    the policy and the critic are adapters, and the reference is the policy's base.
    """

    held_out = ("reward", "eosRate")

    critic: StageModel | None = Field(
        default=None,
        description="A reward model that the critic starts from. Default: the first of rewards that is a model; "
        "without one the starting model with a new head.",
    )
    critic_optimizer: CriticOptimizer = Field(default_factory=CriticOptimizer, description="The critic's optimizer.")
    critic_warmup_steps: int = Field(
        default=0, ge=0, le=1_000_000_000, description="First steps, in which only the critic learns."
    )
    rollout_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=16_777_216,
        description="Answers of a rollout, a multiple of globalBatchSize. Default: globalBatchSize.",
    )
    update_epochs: int = Field(default=4, ge=1, le=1000, description="Passes over a rollout; TRL's num_ppo_epochs.")
    kl_coefficient: float = Field(
        default=0.05, ge=0, description="Weight of the KL from the reference in the reward; TRL's default."
    )
    target_kl: float | None = Field(
        default=None,
        gt=0,
        description="Nats per answer to which the weight adapts (Ziegler et al. 2019). Default: constant.",
    )
    kl_horizon: int = Field(
        default=10000, ge=1, le=1_000_000_000, description="Answers over which it adapts; Ziegler et al. 2019."
    )
    gamma: float = Field(default=1.0, gt=0, le=1, description="Discount; TRL's default.")
    gae_lambda: float = Field(default=0.95, ge=0, le=1, description="Of the advantages (Schulman et al. 2016).")
    clip_range: float = Field(default=0.2, gt=0, lt=1, description="Clipping of the probability ratio; TRL's default.")
    clip_range_high: float | None = Field(
        default=None, gt=0, description="Upper clipping; DAPO: 0.28. Default: clipRange."
    )
    value_clip_range: float = Field(default=0.2, gt=0, description="Clipping of the values; TRL's default.")
    reward_clip: float = Field(
        default=5.0, gt=0, description="Rewards beyond it, either way, are cut; DeepSpeed-Chat's default."
    )
    missing_eos_penalty: float = Field(default=0.0, ge=0, description="Taken off for an answer that was cut off.")
    entropy_coefficient: float = Field(default=0.0, ge=0, description="Weight of the policy's entropy in its loss.")
    stop_at_kl: float | None = Field(
        default=None,
        gt=0,
        description="Nats per token between the policy before and after, at which updates on a rollout end.",
    )
    ptx: Ptx | None = Field(default=None, description="Pretraining beside the updates. Default: none.")

    @property
    def rollout_size(self) -> int:
        """Answers of a rollout, over all processes."""
        return self.rollout_batch_size or self.global_batch_size

    @property
    def rows_per_step(self) -> int:
        """Prompts, each with one answer."""
        return self.rollout_size

    def references(self) -> Iterator[Reference]:
        yield from super().references()
        if self.critic:
            yield Reference("critic", self.critic, "rewardModel")

    def functions(self) -> Iterator[UserFunction]:
        yield from super().functions()
        if self.critic_optimizer.function:
            yield UserFunction("criticOptimizer.function", self.critic_optimizer.function, "optimizer")

    @property
    def critic_start(self) -> StageModel | None:
        """The reward model that the critic starts from, if there is one."""
        return self.critic or next((reward.model for reward in self.rewards if reward.model), None)
