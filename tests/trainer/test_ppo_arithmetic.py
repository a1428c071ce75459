"""PPO's arithmetic on fixed numbers against plain NumPy in float64, written from the papers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from llm_trainer.config import Ppo
from llm_trainer.models.language_loss import IGNORED, scores_of_logits
from llm_trainer.rl.experience import experience_of
from llm_trainer.rl.objective import KlController, k3, value_losses
from llm_trainer.rl.rollout import Answers
from llm_trainer.rl.update import policy_objective
from llm_trainer.runtime.process_group import ProcessGroup

Numbers = NDArray[np.float64]

ALONE = ProcessGroup(0, 0, 1, torch.device("cpu"))
GAMMA, LAMBDA, LOW, HIGH, VALUE_CLIP, KL, ENTROPY, TEMPERATURE, LIMIT = 0.98, 0.9, 0.2, 0.28, 0.2, 0.05, 0.01, 0.7, 2.0
ANSWERS, LENGTH, VOCABULARY = 5, 9, 7
BEGINS, ENDS = [2, 0, 3, 1, 4], [9, 6, 4, 8, 7]  # of each answer, in places
SETTINGS = Ppo.model_validate(
    {
        "dataset": {"uri": "pvc://corpus/prompts.jsonl"}, "rewards": [{"function": "a:b"}], "gamma": GAMMA,
        "gaeLambda": LAMBDA, "clipRange": LOW, "clipRangeHigh": HIGH, "valueClipRange": VALUE_CLIP,
        "entropyCoefficient": ENTROPY, "temperature": TEMPERATURE, "rewardClip": 10,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Update:
    """What one update gives: `policy` and `value` are losses, each with its gradient by logits and by values."""

    advantages: Numbers
    returns: Numbers
    policy: float
    value: float
    by_logits: Numbers
    by_values: Numbers


@pytest.fixture(scope="module")
def numbers() -> dict[str, Numbers]:
    """Logits and values of the network that learns, and what the rollout left; all differ enough to be clipped."""
    draw = np.random.default_rng(7)
    logits = draw.normal(size=(ANSWERS, LENGTH, VOCABULARY))
    tokens = draw.integers(VOCABULARY, size=(ANSWERS, LENGTH))
    new = plain_log_probs(logits, tokens)
    return {
        "logits": logits,
        "tokens": tokens.astype(np.float64),
        "old": new + draw.normal(scale=0.3, size=new.shape),
        "sampler": new + draw.normal(scale=0.8, size=new.shape),
        "reference": new + draw.normal(scale=0.5, size=new.shape),
        "old_values": draw.normal(size=new.shape),
        "values": draw.normal(size=new.shape),
        "scores": draw.normal(size=ANSWERS),
    }


def plain_log_probs(logits: Numbers, tokens: NDArray[np.int64]) -> Numbers:
    scaled = logits / TEMPERATURE
    everything = scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    return np.take_along_axis(everything, tokens[..., None], axis=-1)[..., 0]


def plain_update(n: dict[str, Numbers]) -> Update:
    """Schulman et al. 2016, eq. 16 (GAE); Schulman et al. 2017, eq. 7 (clipping); Ziegler et al. 2019, eq. 2 (KL)."""
    tokens = n["tokens"].astype(np.int64)
    new = plain_log_probs(n["logits"], tokens)
    estimates, returns = np.zeros_like(new), np.zeros_like(new)
    for row, (begin, end) in enumerate(zip(BEGINS, ENDS, strict=True)):
        rewards = -KL * (n["old"][row] - n["reference"][row])
        rewards[end - 1] += n["scores"][row]
        values = np.append(n["old_values"][row, :end], 0.0)
        errors = [rewards[t] + GAMMA * values[t + 1] - values[t] for t in range(end)]
        for t in range(begin, end):
            estimates[row, t] = sum((GAMMA * LAMBDA) ** (later - t) * errors[later] for later in range(t, end))
            returns[row, t] = estimates[row, t] + values[t]
    places = [(row, t) for row, (begin, end) in enumerate(zip(BEGINS, ENDS, strict=True)) for t in range(begin, end)]
    chosen = np.array([estimates[place] for place in places])
    white, count = np.zeros_like(new), len(places)
    policy = value = 0.0
    by_logits, by_values = np.zeros_like(n["logits"]), np.zeros_like(new)
    for place in places:
        white[place] = (estimates[place] - chosen.mean()) / np.sqrt(chosen.var() + 1e-8)
        advantage, ratio = white[place], np.exp(new[place] - n["old"][place])
        weight = min(np.exp(n["old"][place] - n["sampler"][place]), LIMIT)
        free, clipped = advantage * ratio, advantage * min(max(ratio, 1 - LOW), 1 + HIGH)
        scaled = np.exp(n["logits"][place] / TEMPERATURE)
        shares = scaled / scaled.sum()
        entropy = -(shares * np.log(shares)).sum()
        policy -= (weight * min(free, clipped) + ENTROPY * entropy) / count
        by_log_prob = -weight * advantage * ratio if free <= clipped else 0.0
        chosen_token = np.eye(VOCABULARY)[tokens[place]]
        by_entropy = -shares * (np.log(shares) + entropy)
        by_logits[place] = (by_log_prob * (chosen_token - shares) - ENTROPY * by_entropy) / TEMPERATURE / count
        now, before, target = n["values"][place], n["old_values"][place], returns[place]
        near = before + min(max(now - before, -VALUE_CLIP), VALUE_CLIP)
        far, kept = (now - target) ** 2, (near - target) ** 2
        value += 0.5 * max(far, kept) / count
        by_values[place] = (now - target) / count if far >= kept else 0.0
    return Update(white, returns, policy, value, by_logits, by_values)


def our_update(n: dict[str, Numbers]) -> Update:
    t = {name: torch.from_numpy(value) for name, value in n.items()}
    place = torch.arange(LENGTH)
    answers = Answers(
        tokens=torch.cat([torch.zeros(ANSWERS, 1, dtype=torch.long), t["tokens"].long()], dim=1),
        answered=(place >= torch.tensor(BEGINS)[:, None]) & (place < torch.tensor(ENDS)[:, None]),
        finished=torch.ones(ANSWERS, dtype=torch.bool),
        sampled=t["sampler"],
    )
    rollout = (answers, t["old"], t["reference"], t["old_values"], t["scores"])
    experience = experience_of(*rollout, SETTINGS, KL, ALONE)
    logits, values = t["logits"].clone().requires_grad_(), t["values"].clone().requires_grad_()
    targets = answers.answered_tokens.masked_fill(~answers.answered, IGNORED)
    objective = policy_objective(scores_of_logits(logits, targets, TEMPERATURE), experience, SETTINGS)
    count = answers.answered.sum()
    policy = (objective.losses * answers.answered).sum() / count
    value = (value_losses(values, t["old_values"], experience.returns, VALUE_CLIP) * answers.answered).sum() / count
    (by_logits,), (by_values,) = torch.autograd.grad(policy, [logits]), torch.autograd.grad(value, [values])
    return Update(
        advantages=experience.advantages.numpy(),
        returns=(experience.returns * answers.answered).numpy(),
        policy=policy.item(),
        value=value.item(),
        by_logits=by_logits.numpy(),
        by_values=by_values.numpy(),
    )


@pytest.mark.parametrize("name", ["advantages", "returns", "policy", "value", "by_logits", "by_values"])
def test_an_update_is_that_of_the_papers(name: str, numbers: dict[str, Numbers]) -> None:
    expected, made = getattr(plain_update(numbers), name), getattr(our_update(numbers), name)
    apart = np.abs(np.asarray(made) - np.asarray(expected)).max()
    assert apart < 1e-6, f"{name} is off by {apart}"


def test_both_kinds_of_clipping_took_hold(numbers: dict[str, Numbers]) -> None:
    """Otherwise the comparison above would prove little."""
    made = our_update(numbers)
    inside = [(row, t) for row, (begin, end) in enumerate(zip(BEGINS, ENDS, strict=True)) for t in range(begin, end)]
    assert any(made.by_values[place] == 0 for place in inside)
    new = plain_log_probs(numbers["logits"], numbers["tokens"].astype(np.int64))
    ratios = np.array([np.exp(new - numbers["old"])[place] for place in inside])
    assert (ratios > 1 + HIGH).any()
    assert (ratios < 1 - LOW).any()


def test_k3_is_an_estimate_of_the_divergence() -> None:
    """Its mean over the policy's own choices is the divergence, and none of it is negative."""
    draw = np.random.default_rng(1)
    ours, others = (torch.from_numpy(draw.dirichlet(np.ones(6))) for _ in range(2))
    each = k3(ours.log(), others.log())
    assert bool((each >= 0).all())
    assert float((ours * each).sum()) == pytest.approx(float((ours * (ours / others).log()).sum()), abs=1e-12)


def test_the_controller_draws_the_divergence_to_its_target() -> None:
    """Ziegler et al. 2019, section 2.2: an error of more than 20 % counts as 20 %."""
    controller = KlController(0.1, target=2.0, horizon=100)
    controller.see(10.0, 10)
    assert controller.coefficient == pytest.approx(0.1 * 1.02)
    controller.see(1.9, 10)
    assert controller.coefficient == pytest.approx(0.1 * 1.02 * (1 - 0.05 * 0.1))
    constant = KlController(0.1, target=None, horizon=100)
    constant.see(10.0, 10)
    assert constant.coefficient == 0.1
