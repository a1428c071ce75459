"""The models of PPO: the policy and the critic learn, the reference stays what the policy was."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.utils import disable_dropout_in_model

from llm_trainer.config import Ppo
from llm_trainer.models.attention import computes_in_half
from llm_trainer.models.build import build, build_reward_model
from llm_trainer.models.engine import Engine
from llm_trainer.models.inference import Inference
from llm_trainer.models.language_loss import IGNORED, Scores
from llm_trainer.models.placement import whole
from llm_trainer.models.value import ValueModel
from llm_trainer.rl.rewards import load_reward_model
from llm_trainer.rl.rollout import Answers
from llm_trainer.runtime.batch import accumulation_steps
from llm_trainer.runtime.run import Run


@dataclass(frozen=True)
class PpoModels:
    policy: Engine
    critic: Engine
    reference: Inference | None  # None: the policy with its adapter off
    temperature: float

    def scores(self, model: Inference, answers: Answers) -> Scores:
        """Of the tokens that were written, (answers, length); 0 at all others."""
        targets = answers.answered_tokens.masked_fill(~answers.answered, IGNORED)
        return model.scores(answers.tokens[:, :-1], answers.positions, targets, self.temperature)

    def values(self, answers: Answers) -> torch.Tensor:
        """(answers, length)."""
        return self.critic.logits(answers.tokens[:, :-1], answers.positions).float()

    @torch.no_grad()
    def reference_log_probs(self, answers: Answers) -> torch.Tensor:
        model = self.reference or self.policy
        with nullcontext() if self.reference else self.policy.model.disable_adapter():
            return self.scores(model, answers).log_probs


def build_policy(run: Run, settings: Ppo, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    return without_dropout(build(run.config, tokenizer, settings.seed))


def build_models(run: Run, settings: Ppo, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PpoModels:
    """All but the reward models. Raises ConfigurationError."""
    config, group, lora = run.config, run.group, settings.lora
    critic = without_dropout(build_critic(run, settings))
    reference = None if lora else Inference(build_policy(run, settings, tokenizer), settings, group)
    if lora:
        from llm_trainer.models.low_rank import adapted

        policy = adapted(policy, config, lora, "CAUSAL_LM")
        adapted(critic, config, lora, "SEQ_CLS", head="score")  # in place
    steps = accumulation_steps(settings, group.world_size)
    return PpoModels(
        policy=Engine(policy, settings, group, steps * (2 if settings.ptx else 1)),
        critic=Engine(ValueModel(critic), settings, group, steps, settings.critic_optimizer),
        reference=reference,
        temperature=settings.temperature,
    )


def build_critic(run: Run, settings: Ppo) -> PreTrainedModel:
    """From a reward model, which knows what good is, or from the start with a head that says 0."""
    if start := settings.critic_start:
        return load_reward_model(
            run.config, Path(run.config.folder_of(start)), "critic", half=computes_in_half(run.config)
        )
    model = build_reward_model(run.config, settings.seed)
    with whole([model.score.weight], changed=True):
        torch.nn.init.zeros_(model.score.weight)
    return model


def without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """The probabilities before an update must be those of the rollout."""
    disable_dropout_in_model(model)
    return model
