"""A rollout with all that an update needs of it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch

from llm_trainer.config import Ppo
from llm_trainer.rl.objective import advantages, importance, token_rewards
from llm_trainer.rl.ppo_models import PpoModels
from llm_trainer.rl.rollout import Answers, batches
from llm_trainer.runtime.process_group import ProcessGroup

Tensor = torch.Tensor


@dataclass(frozen=True)
class Experience:
    """Of one process. Tensors are (answers, length)."""

    answers: Answers
    log_probs: Tensor  # of the policy as it was when the answers were written
    reference: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    importance: Tensor  # weights of the tokens, 1 where the policy's own network wrote them

    def pick(self, rows: Tensor) -> Experience:
        """Some of the answers, no longer than the longest of them."""
        answers = self.answers.pick(rows)
        length = answers.answered.shape[1]
        tensors = {f.name: getattr(self, f.name)[rows, :length] for f in fields(self) if f.name != "answers"}
        return replace(self, answers=answers, **tensors)


@torch.no_grad()
def judge(
    models: PpoModels, answers: Answers, scores: Tensor, settings: Ppo, kl_coefficient: float, group: ProcessGroup
) -> Experience:
    """`scores`: (answers,), the weighted rewards."""
    log_probs, reference, values = score(models, answers, settings.micro_batch_size)
    return experience_of(answers, log_probs, reference, values, scores, settings, kl_coefficient, group)


def experience_of(
    answers: Answers,
    log_probs: Tensor,
    reference: Tensor,
    values: Tensor,
    scores: Tensor,
    settings: Ppo,
    kl_coefficient: float,
    group: ProcessGroup,
) -> Experience:
    """From what the models and the rewards say of the answers."""
    answered = answers.answered
    clipped = scores.clamp(-settings.reward_clip, settings.reward_clip)
    clipped = clipped - settings.missing_eos_penalty * ~answers.finished
    rewards = token_rewards(clipped, log_probs, reference, answered, kl_coefficient)
    estimates = advantages(rewards, values, answered, settings.gamma, settings.gae_lambda)
    return Experience(
        answers=answers,
        log_probs=log_probs,
        reference=reference,
        values=values,
        advantages=whiten(estimates, answered, group),
        returns=estimates + values,
        importance=torch.ones_like(log_probs) if answers.sampled is None else importance(log_probs, answers.sampled),
    )


def score(models: PpoModels, answers: Answers, micro_batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities by the policy and the reference, and values."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows in batches(len(answers.tokens), micro_batch_size):
        part = answers.pick(rows, trim=False)
        log_probs = models.scores(models.policy, part).log_probs
        found.append((log_probs, models.reference_log_probs(part), models.values(part)))
    log_probs, reference, values = (torch.cat(parts) for parts in zip(*found, strict=True))
    return log_probs, reference, values


def moments(values: Tensor, answered: Tensor, group: ProcessGroup) -> tuple[float, float]:
    """Mean and variance over the answers' tokens of all ranks."""
    picked = values[answered].double()
    total, count = group.sum(float(picked.sum()), float(len(picked)))
    mean = total / count
    (squares,) = group.sum(float((picked - mean).square().sum()))
    return mean, squares / count


def whiten(values: Tensor, answered: Tensor, group: ProcessGroup) -> Tensor:
    """To mean 0 and variance 1 over the global rollout."""
    mean, variance = moments(values, answered, group)
    return torch.where(answered, (values - mean) / (variance + 1e-8) ** 0.5, 0.0)
