"""Proximal policy optimisation: our own, on DeepSpeed engines. A step is a rollout and the updates on it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from llm_trainer.checkpoint.snapshot import Snapshot
from llm_trainer.config import Ppo, StageConfig
from llm_trainer.data.rendering import encode_prompt
from llm_trainer.models.attention import show_attention
from llm_trainer.models.engine import Engine
from llm_trainer.models.export import publish_result
from llm_trainer.protocol import Result
from llm_trainer.rl.experience import Experience, judge, moments
from llm_trainer.rl.objective import KlController
from llm_trainer.rl.ppo_models import build_models, build_policy
from llm_trainer.rl.rewards import FlatRewards, Rewards
from llm_trainer.rl.rollout import Answers, generate
from llm_trainer.rl.update import Update
from llm_trainer.rl.vllm_rollout import VllmRollouts
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import Run, start
from llm_trainer.stages.fine_tuning import check_model, find_tokenizer
from llm_trainer.stages.fingerprints import digest_of
from llm_trainer.stages.loop import Loop
from llm_trainer.stages.prompts import Row, decode_answer, prompt_rows
from llm_trainer.stages.ptx import Ptx
from llm_trainer.stages.step_report import StepReport


def run(config: StageConfig, board: Board) -> str:
    """Train by PPO; the message of the end.

    Raises ConfigurationError and DataError for what a user has to change, and what `Loop.fit` raises.
    """
    settings = config.ppo
    if settings is None or config.model is None:
        raise ConfigurationError("a ppo stage needs its settings and a model")
    with start(config, board) as run:
        tokenizer = find_tokenizer(config)
        rows = prompt_rows(config, settings, tokenizer, board, run.group.rank)
        return PolicyOptimisation(run, settings, tokenizer, rows).fit()


class PolicyOptimisation(Loop):
    settings: Ppo

    def __init__(self, run: Run, settings: Ppo, tokenizer: Any, rows: dict[str, Sequence[Row]]) -> None:
        self.rows, self.held_out = rows["train_dataset"], rows.get("eval_dataset")
        super().__init__(run, settings, math.ceil(settings.epochs * len(self.rows) / settings.rollout_size))
        self.tokenizer = tokenizer
        policy = build_policy(run, settings, tokenizer)
        check_model(run.config, settings, tokenizer, policy)
        show_attention(run, policy)
        run.meet()
        self.rows_digest = digest_of(self.rows, run.group)
        self.rewards = Rewards(run.config, settings, tokenizer, run.group)
        self.models = build_models(run, settings, policy, tokenizer)
        self.vllm = VllmRollouts(self.models.policy, settings, tokenizer) if settings.vllm else None
        self.ptx = Ptx(run, settings, settings.ptx, self.models.policy) if settings.ptx else None
        self.kl = KlController(settings.kl_coefficient, settings.target_kl, settings.kl_horizon)
        self.flat = FlatRewards()
        self.seconds: dict[str, float] = {}

    def make_step(self, learning_rate_share: float) -> StepReport:
        """All chance of a step follows from its number, so that a step which is made again is the same."""
        self.seconds = {}
        torch.manual_seed(self._seed(0))
        self.models.policy.set_learning_rate(learning_rate_share)
        self.models.critic.set_learning_rate(learning_rate_share)
        experience, figures = self._roll_out()
        with self._phase("Training", "train"):
            pretraining = self.ptx.micro_batches(self.place) if self.ptx else None
            update = Update(self.models, self.settings, self.run.group, pretraining, self.run.watchdog.beat)
            update.learn(experience, self._seed(1), with_policy=self.step >= self.settings.critic_warmup_steps)
        figures |= update.figures() | {f"seconds/{name}": seconds for name, seconds in self.seconds.items()}
        (tokens,) = self.run.group.sum(float(experience.answers.answered.sum()))
        norm = self.models.policy.gradient_norm
        return StepReport(figures.get("policy_loss", 0.0), int(tokens), norm, update.applied, figures)

    def _roll_out(self) -> tuple[Experience, dict[str, float]]:
        """Answers of this rank to the step's prompts, and what is to be seen of all ranks' answers."""
        group, coefficient = self.run.group, self.kl.coefficient
        rows = self._prompts()
        with self._phase("Generating", "generate"):
            answers = self._answers(rows)
        with self._phase("Scoring", "score"):
            each = self._rewards(rows, answers)
            scores = each @ self.rewards.weights
            experience = judge(self.models, answers, scores, self.settings, coefficient, group)
        figures = self._figures(each, scores, experience)
        self.kl.see(figures["kl"], self.settings.rollout_size)
        self.flat.see(torch.tensor([figures["reward"] - figures["reward_std"], figures["reward"]]))
        return experience, figures

    def _prompts(self) -> list[Row]:
        """Every pass over the dataset has an order of its own; the ranks share a step's rows out."""
        size, count, group = self.settings.rollout_size, len(self.rows), self.run.group
        places = range(self.place * size + group.rank, (self.place + 1) * size, group.world_size)
        orders = {epoch: order_of(self.settings.seed, epoch, count) for epoch in {place // count for place in places}}
        return [self.rows[int(orders[place // count][place % count])] for place in places]

    def _answers(self, rows: list[Row]) -> Answers:
        prompts = [encode_prompt(self.tokenizer, row["prompt"]) for row in rows]
        if self.vllm:
            return self.vllm.generate(prompts)
        return generate(self.models.policy, prompts, self.settings, self.tokenizer)

    def _rewards(self, rows: list[Row], answers: Answers) -> torch.Tensor:
        """(answers, rewards)."""
        written = [
            decode_answer(self.tokenizer, row["prompt"], tokens)
            for row, tokens in zip(rows, answers.completions(), strict=True)
        ]
        return self.rewards.of(rows, answers, written)

    def _figures(self, each: torch.Tensor, scores: torch.Tensor, experience: Experience) -> dict[str, float]:
        group, answers, count = self.run.group, experience.answers, self.settings.rollout_size
        everyone = torch.ones_like(scores, dtype=torch.bool)
        mean, variance = moments(scores, everyone, group)
        kl = ((experience.log_probs - experience.reference) * answers.answered).sum()
        sums = group.sum(float(kl), float(answers.lengths.sum()), float(answers.finished.sum()), *each.sum(0).tolist())
        errors = moments(experience.returns - experience.values, answers.answered, group)[1]
        spread = moments(experience.returns, answers.answered, group)[1]
        return {
            "reward": mean,
            "reward_std": math.sqrt(variance),
            "kl": sums[0] / count,
            "kl_coefficient": self.kl.coefficient,
            "completions/mean_length": sums[1] / count,
            "completions/eos_rate": sums[2] / count,
            "explained_variance": 1 - errors / max(spread, 1e-12),
            **{f"rewards/{name}": total / count for name, total in zip(self.rewards.names, sums[3:], strict=True)},
        }

    @torch.no_grad()
    def held_out_figures(self) -> dict[str, float]:
        """Mean reward of one sampled answer to each of the held-out prompts, and how far it is from the reference."""
        if self.held_out is None:
            return {}
        torch.manual_seed(self._seed(2))
        group, count = self.run.group, len(self.held_out)
        share = math.ceil(count / group.world_size)
        places = [group.rank + group.world_size * index for index in range(share)]
        rows = [self.held_out[min(place, count - 1)] for place in places]
        answers = self._answers(rows)
        counts = torch.tensor([place < count for place in places], device=group.device)
        reward, finished = group.sum(
            float((self._rewards(rows, answers) @ self.rewards.weights * counts).sum()),
            float((answers.finished & counts).sum()),
        )
        return {"reward": reward / count, "eosRate": finished / count}

    @contextmanager
    def _phase(self, phase: str, name: str) -> Iterator[None]:
        self.run.board.update(phase=phase)
        began = time.monotonic()
        yield
        spent = time.monotonic() - began
        self.seconds[name] = round(spent, 3)
        if name != "train":  # that is what a step computes
            self.run.board.parts.add(name, spent)
        self.run.watchdog.beat()

    def _seed(self, purpose: int) -> int:
        """Of this rank at this step; another one where data was jumped over."""
        words = (self.settings.seed, self.place, self.run.group.rank, purpose)
        return int(np.random.SeedSequence(words).generate_state(1)[0])

    # --- results and checkpoints ---

    def learner(self) -> tuple[Engine, PreTrainedTokenizerBase]:
        return self.models.policy, self.tokenizer

    def export(self) -> Result | None:
        return publish_result(self.run.config, self.settings, self.step, self.models.policy, self.tokenizer)

    def fingerprint(self) -> dict[str, Any]:
        return {"prompts": self.rows_digest, "seed": self.settings.seed, "rolloutBatchSize": self.settings.rollout_size}

    def write(self, snapshot: Snapshot) -> dict[str, Any]:
        self.models.policy.save(snapshot, "policy")
        self.models.critic.save(snapshot, "critic")
        return {"klCoefficient": self.kl.coefficient}

    def read(self, folder: Path, state: dict[str, Any]) -> None:
        self.models.policy.load(folder / "policy")
        self.models.critic.load(folder / "critic")
        self.kl.coefficient = state["klCoefficient"]


def order_of(seed: int, epoch: int, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The prompts' order in one pass."""
    return np.random.default_rng((seed, epoch)).permutation(count)
