"""What policy and critic learn from a rollout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from llm_trainer.config import Ppo
from llm_trainer.models.language_loss import Scores
from llm_trainer.rl.experience import Experience
from llm_trainer.rl.objective import k3, policy_losses, value_losses
from llm_trainer.rl.ppo_models import PpoModels
from llm_trainer.rl.rollout import batches
from llm_trainer.runtime.process_group import ProcessGroup

Tensor = torch.Tensor
Sums = dict[str, float]  # over tokens, by name
Pretraining = Callable[[], torch.Tensor]  # the loss of another micro-batch of the corpus


@dataclass
class Update:
    """The optimizer steps on one rollout."""

    models: PpoModels
    settings: Ppo
    group: ProcessGroup
    pretraining: Pretraining | None
    alive: Callable[[], None]

    def __post_init__(self) -> None:
        self.sums: Sums = defaultdict(float)  # over tokens, of all ranks
        self.steps = 0
        self.applied = True

    def learn(self, experience: Experience, seed: int, *, with_policy: bool) -> None:
        """Pass over the rollout, or stop where the policy has come too far from the one that wrote it."""
        for batch in self._batches(experience, seed):
            sums = self._step(batch, with_policy=with_policy)
            for name, total in sums.items():
                self.sums[name] += total
            self.steps += 1
            limit = self.settings.stop_at_kl
            if limit is not None and sums.get("approx_kl", 0.0) / sums["tokens"] > limit:
                return

    def figures(self) -> dict[str, float]:
        """Means over the tokens of all optimizer steps."""
        tokens = self.sums["tokens"]
        figures = {name: total / tokens for name, total in self.sums.items() if name != "tokens"}
        return {**figures, "updates": float(self.steps)}

    def _batches(self, experience: Experience, seed: int) -> Iterator[Experience]:
        """What is this rank's of each optimizer step, in a new order in every pass."""
        generator = torch.Generator().manual_seed(seed)
        size = self.settings.global_batch_size // self.group.world_size
        for _ in range(self.settings.update_epochs):
            order = torch.randperm(len(experience.answers.tokens), generator=generator)
            for places in batches(len(order), size):
                yield experience.pick(order[places])

    def _step(self, batch: Experience, *, with_policy: bool) -> dict[str, float]:
        (tokens,) = self.group.sum(float(batch.answers.answered.sum()))
        sums: Sums = defaultdict(float)
        for rows in batches(len(batch.answers.tokens), self.settings.micro_batch_size):
            part = batch.pick(rows)
            if with_policy:
                self._learn_policy(part, tokens, sums)
            self._learn_critic(part, tokens, sums)
            self.alive()
        names = sorted(sums)
        return dict(zip(names, self.group.sum(*(sums[name] for name in names)), strict=True)) | {"tokens": tokens}

    def _learn_policy(self, part: Experience, tokens: float, sums: Sums) -> None:
        engine, answered = self.models.policy, part.answers.answered
        objective = policy_objective(self.models.scores(engine, part.answers), part, self.settings)
        engine.backward((objective.losses * answered).sum() * engine.share_of(tokens))
        self.applied &= engine.step()
        for name, values in objective.figures.items():
            sums[name] += float((values * answered).sum())
        if self.pretraining and self.settings.ptx:
            loss = self.pretraining()
            engine.backward(2 * self.settings.ptx.coefficient * loss)  # every other micro-batch is one of these
            self.applied &= engine.step()
            sums["ptx_loss"] += float(loss.detach()) * float(answered.sum())

    def _learn_critic(self, part: Experience, tokens: float, sums: Sums) -> None:
        engine, answered = self.models.critic, part.answers.answered
        values = self.models.values(part.answers)
        losses = value_losses(values, part.values, part.returns, self.settings.value_clip_range)
        engine.backward((losses * answered).sum() * engine.share_of(tokens))
        self.applied &= engine.step()
        sums["value_loss"] += float((losses.detach() * answered).sum())


@dataclass(frozen=True)
class Objective:
    """Tensors are (answers, length); the figures have no gradient."""

    losses: Tensor
    figures: dict[str, Tensor]


def policy_objective(scores: Scores, part: Experience, settings: Ppo) -> Objective:
    """What the policy is to make small at each token; the scores are of the policy as it is now."""
    log_probs = scores.log_probs
    high = settings.clip_range_high or settings.clip_range
    losses, clipped = policy_losses(log_probs, part.log_probs, part.advantages, settings.clip_range, high)
    losses = part.importance * losses
    entropy = scores.entropy if settings.entropy_coefficient > 0 else scores.entropy.detach()
    figures = {
        "policy_loss": losses.detach(),
        "clip_ratio": clipped,
        "entropy": entropy.detach(),
        "approx_kl": k3(part.log_probs, log_probs.detach()),
    }
    return Objective(losses - settings.entropy_coefficient * entropy, figures)
