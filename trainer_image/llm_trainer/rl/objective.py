"""PPO's arithmetic (Schulman et al. 2017; Ziegler et al. 2019), on tensors alone.

Every tensor is (answers, length); `answered` says which places are tokens of an answer, one run of them in each row.
Place t stands for the choice of token t + 1, and values are of the text up to t.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

Tensor = torch.Tensor
IMPORTANCE_LIMIT = 2.0  # of Yao et al. 2025, whose truncated importance sampling is for rollouts by vLLM


def token_rewards(
    scores: Tensor, log_probs: Tensor, reference: Tensor, answered: Tensor, kl_coefficient: float
) -> Tensor:
    """The score (answers,) at an answer's last token, less the weighted k1 estimate of the KL divergence at each."""
    rewards = -kl_coefficient * (log_probs - reference)
    return torch.where(answered, rewards + scores[:, None] * last_of(answered), 0.0)


def last_of(answered: Tensor) -> Tensor:
    """Where an answer's last token is."""
    following = torch.zeros_like(answered)
    following[:, :-1] = answered[:, 1:]
    return answered & ~following


def advantages(rewards: Tensor, values: Tensor, answered: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016); an answer's end is worth nothing more."""
    estimates = torch.zeros_like(rewards)
    later_value = later_estimate = torch.zeros_like(rewards[:, 0])
    for place in reversed(range(rewards.shape[1])):
        here = answered[:, place]
        delta = rewards[:, place] + gamma * later_value - values[:, place]
        later_estimate = torch.where(here, delta + gamma * gae_lambda * later_estimate, 0.0)
        later_value = torch.where(here, values[:, place], 0.0)
        estimates[:, place] = later_estimate
    return estimates


def policy_losses(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """Clipped surrogate losses, and where the clipping took hold."""
    ratio = torch.exp(log_probs - old_log_probs)
    free, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.maximum(free, clipped), clipped > free


def value_losses(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> Tensor:
    """Half of the larger of two squared errors: free, and with the value kept near the old one."""
    near = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)


def k3(log_probs: Tensor, others: Tensor) -> Tensor:
    """Estimates of the KL divergence from others, never negative (Schulman 2020)."""
    difference = others - log_probs
    return torch.exp(difference) - 1 - difference


def importance(log_probs: Tensor, sampled: Tensor) -> Tensor:
    """Weights that make up for a sampler whose probabilities are not quite the policy's, truncated (Ionides 2008)."""
    return torch.exp(log_probs - sampled).clamp(max=IMPORTANCE_LIMIT)


@dataclass
class KlController:
    """The weight of the KL divergence in the reward, drawn to a target in nats per answer (Ziegler et al. 2019)."""

    coefficient: float
    target: float | None
    horizon: int  # answers

    def see(self, kl: float, answers: int) -> None:
        """``kl``: mean of an answer's sum of k1 over so many new answers."""
        if self.target is not None:
            error = min(0.2, max(-0.2, kl / self.target - 1))
            self.coefficient *= 1 + error * answers / self.horizon
