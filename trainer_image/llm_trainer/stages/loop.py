"""The life of every stage that trains: when it saves, evaluates and publishes, how it resumes, leaves and ends.

A kind of stage gives what a step is; `trl_stage` gives it for the kinds whose loss and rows are TRL's.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_trainer.checkpoint.random_states import RandomStates
from llm_trainer.checkpoint.store import CheckpointStore
from llm_trainer.config import TrainingSettings
from llm_trainer.models.schedule import learning_rate_share
from llm_trainer.protocol import Result
from llm_trainer.runtime.errors import ConfigurationError, PreemptedError, StageError
from llm_trainer.runtime.history import dump_json
from llm_trainer.runtime.run import Run
from llm_trainer.stages.fingerprints import changed_functions, function_digests

BAD_STEPS = 10  # so many steps in a row whose gradient is not finite end the attempt; half of them, of a short stage
STATE = "state.json"  # of a checkpoint
COUNTS = ("step", "tokens", "applied", "bad")  # of a loop, over all attempts
SPEED_STEPS = 20  # tokens per second is a mean over so many steps


@dataclass(frozen=True)
class StepReport:
    """What one step gave, the same on every rank."""

    loss: float
    tokens: int  # that it learned from, over all ranks
    gradient_norm: float  # before clipping; NaN where there is none
    applied: bool  # False if it was left out because a gradient is not finite
    figures: dict[str, float]  # others, by name


@dataclass
class Speed:
    """Mean over the last steps; saving and evaluating don't count."""

    tokens: deque[int] = field(default_factory=lambda: deque(maxlen=SPEED_STEPS))
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=SPEED_STEPS))

    def see(self, tokens: int, seconds: float) -> None:
        self.tokens.append(tokens)
        self.seconds.append(seconds)

    @property
    def seconds_per_step(self) -> float:
        return sum(self.seconds) / max(1, len(self.seconds))

    @property
    def tokens_per_second(self) -> float:
        return sum(self.tokens) / max(1e-9, sum(self.seconds))


class Loop(ABC):
    """One process of one attempt. The methods that a stage gives are called by all ranks together."""

    def __init__(self, run: Run, settings: TrainingSettings, steps: int) -> None:
        """Raises ConfigurationError for a schedule that doesn't fit into the steps."""
        self.run, self.settings, self.steps = run, settings, steps
        check_warmup(settings, steps)
        self.store = CheckpointStore(run.config, settings.checkpoint.keep, run.group)
        self.step = self.tokens = self.applied = 0  # steps, tokens and applied steps so far, over all attempts
        self.bad = 0  # steps in a row that were left out, over all attempts
        self.patience = min(BAD_STEPS, max(1, steps // 2))
        self.evaluated = -1  # step of the newest evaluation
        self.speed = Speed()

    # --- what a stage gives ---

    @abstractmethod
    def make_step(self, learning_rate_share: float) -> StepReport:
        """Number `self.step`, from 0; the share is of the peak learning rate."""

    @abstractmethod
    def held_out_figures(self) -> dict[str, float]:
        """By name; empty if nothing is held out."""

    @abstractmethod
    def export(self) -> Result | None:
        """Write the model as a result; it is known on rank 0."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for the data to go on where it was."""

    @abstractmethod
    def write(self, folder: Path) -> dict[str, Any]:
        """Fill a checkpoint; the state, as JSON, that `read` will be given."""

    @abstractmethod
    def read(self, folder: Path, state: dict[str, Any]) -> None:
        """Take up what `write` wrote."""

    # --- the loop ---

    def fit(self) -> str:
        """From the newest good checkpoint to the end; the message of the end.

        Raises PreemptedError when any rank was asked to leave: a checkpoint is committed. Raises what CheckpointStore
        raises, StageError when the loss is lost, and ConfigurationError if nothing was learned.
        """
        self._resume()
        board = self.run.board
        board.update(phase="Training", total_steps=self.steps)
        board.startup.reached("engine")
        if self.step == 0:
            self._evaluate()
            board.startup.reached("evaluation")
        while self.step < self.steps:
            began = time.monotonic()
            share = learning_rate_share(self.settings.schedule, self.step, self.steps)
            done = self.make_step(share)
            leave = self.run.stop_agreed()
            self.step += 1
            self.tokens += done.tokens
            self._show(done, share * self.settings.optimizer.learning_rate, time.monotonic() - began)
            self._count(done)
            self._after_step(leave=leave)
        self._evaluate()
        self._publish()
        board.update(phase="Done")
        self.run.show_peak_memory()
        return self.summary()

    def summary(self) -> str:
        """How the stage ended, in one line."""
        evaluation = self.run.board.progress.evaluation
        parts = [f"{self.steps} steps", f"{self.tokens:,} tokens"]
        parts += [f"held-out {name} {value:.3f}" for name, value in evaluation.items() if name != "loss"]
        return ", ".join(parts)

    def _count(self, done: StepReport) -> None:
        """Raises StageError or ConfigurationError for a stage that is lost; it is neither saved nor published."""
        self.applied += done.applied
        self.bad = 0 if done.applied else self.bad + 1
        if not self.applied and self.bad >= self.patience:
            raise ConfigurationError(
                f"nothing was learned: the gradient was not finite in each of the first {self.step} steps; look for "
                "values in the data that are not finite, or lower optimizer.learningRate"
            )
        if self.bad >= self.patience:
            raise StageError(
                f"the gradient was not finite in {self.bad} steps in a row, up to step {self.step}; "
                "lower optimizer.learningRate"
            )

    def _after_step(self, *, leave: bool) -> None:
        last = self.step == self.steps
        if not leave and not last and self.step % self.settings.evaluate_every_steps == 0:
            self._evaluate()  # before the save: who goes on from it has the figures, and chance where it was after them
        if leave or last or self.step % self.settings.checkpoint.every_steps == 0:
            self._save()
        if leave and not last:
            raise PreemptedError(f"asked to leave; the checkpoint of step {self.step} is committed")
        publish = self.settings.publish_every_steps
        if not last and publish and self.step % publish == 0:
            self._publish()

    # --- what is seen of it ---

    def _show(self, done: StepReport, learning_rate: float, seconds: float) -> None:
        board, metrics = self.run.board, self.run.board.metrics
        self.run.watchdog.beat()
        self.speed.see(done.tokens, seconds)
        board.update(
            phase="Training",
            step=self.step,
            tokens=self.tokens,
            loss=done.loss,
            learning_rate=learning_rate,
            tokens_per_second=round(self.speed.tokens_per_second, 1),
            eta_seconds=round(self.speed.seconds_per_step * (self.steps - self.step), 1),
        )
        metrics.loss.set(done.loss)
        metrics.learning_rate.set(learning_rate)
        metrics.gradient_norm.set(done.gradient_norm)
        metrics.step.set(self.step)
        metrics.tokens.set(self.tokens)
        metrics.tokens_per_second.set(self.speed.tokens_per_second)
        metrics.last_step.set_to_current_time()
        metrics.step_seconds.observe(seconds)
        metrics.gpu_memory.set(self.run.group.peak_memory)
        for name, value in done.figures.items():
            metrics.figures.labels(self.run.config.stage, name).set(value)
        if not done.applied:
            metrics.skipped_steps.inc()
        if self.run.group.is_first:
            self._write_down(done, learning_rate, round(done.tokens / seconds, 1))
        board.stepped()

    def _write_down(self, done: StepReport, learning_rate: float, speed: float) -> None:
        self.run.history.append(
            self.step,
            loss=done.loss,
            learningRate=learning_rate,
            gradNorm=done.gradient_norm,
            tokensPerSecond=speed,
            applied=done.applied,
            **({"figures": done.figures} if done.figures else {}),
        )
        if self.step % 10 == 0 or self.step == 1:
            print(f"step {self.step}/{self.steps} loss {done.loss:.4f} {speed:,.0f} tokens/s", flush=True)

    def _evaluate(self) -> None:
        if self.evaluated == self.step:
            return
        self.run.board.update(phase="Evaluating")
        figures = self.held_out_figures()
        self.evaluated = self.step
        if figures and self.run.group.is_first:
            self.run.history.append(self.step, evaluation=figures)
            print(f"step {self.step} held out: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()), flush=True)
        for name, value in figures.items():
            self.run.board.metrics.evaluation.labels(self.run.config.stage, name).set(value)
        self.run.board.update(phase="Training", evaluation=figures)

    def _publish(self) -> None:
        """The others wait for rank 0. Raises as `Fence.check` does."""
        self.store.check_fence()  # before weights are gathered; rank 0 asks again before the result appears
        self.run.board.update(phase="Exporting")
        result = self.export()
        if result:
            self.run.board.update(result=result)
        self.run.group.barrier()
        self.run.board.update(phase="Training")

    # --- checkpoints ---

    def _save(self) -> None:
        board = self.run.board
        board.update(phase="Saving")
        began = time.monotonic()
        folder = self.store.commit(self.step, self._write)
        board.metrics.checkpoint_seconds.observe(time.monotonic() - began)
        board.metrics.checkpoint_step.set(self.step)
        board.update(phase="Training", checkpoint=self.store.info(folder, self.step))
        self.run.watchdog.beat()

    def _write(self, folder: Path) -> None:
        RandomStates.now(self.run.group.device).write(folder, self.run.group.rank)
        counts = {name: getattr(self, name) for name in COUNTS}
        functions = function_digests(self.run.config)
        state = {**counts, "fingerprint": self.fingerprint(), "functions": functions, **self.write(folder)}
        if self.run.group.is_first:
            (folder / STATE).write_text(dump_json(state))

    def _resume(self) -> None:
        self.store.claim()
        folder, notices = self.store.newest()
        for notice in notices:
            self.run.board.notice(notice.reason, notice.message)
        if folder is not None:
            self._load(folder)
        if self.run.group.is_first:
            self.run.history.cut_after(self.step if folder else -1)

    def _load(self, folder: Path) -> None:
        state = self._state(folder)
        if state["fingerprint"] != self.fingerprint():
            raise ConfigurationError(
                f"checkpoint {folder.name} was made from other data or batch settings: {state['fingerprint']} "
                f"instead of {self.fingerprint()}; restore them, or remove {self.store.uri} to train the stage anew"
            )
        for notice in changed_functions(state.get("functions", {}), function_digests(self.run.config), folder.name):
            self.run.board.notice("FunctionChanged", notice)
        for name in COUNTS:
            setattr(self, name, int(state[name]))
        self.read(folder, state)
        RandomStates.read(folder, self.run.group.rank).restore(self.run.group.device)  # last: `read` may draw
        self.run.board.update(step=self.step, checkpoint=self.store.info(folder, self.step))
        if self.run.group.is_first:
            print(f"resumed from {folder.name}", flush=True)

    def _state(self, folder: Path) -> dict[str, Any]:
        """Raises ConfigurationError for a checkpoint of a trainer that kept it otherwise."""
        try:
            state: dict[str, Any] = json.loads((folder / STATE).read_text())
        except FileNotFoundError:
            state = {}
        if missing := [name for name in (*COUNTS, "fingerprint") if name not in state]:
            raise ConfigurationError(
                f"checkpoint {folder.name} was made by another version of the trainer: it has no {', '.join(missing)}; "
                f"set spec.image to that version, or remove {self.store.uri} to train the stage anew"
            )
        return state


def check_warmup(settings: TrainingSettings, steps: int) -> None:
    """Raises ConfigurationError when all steps would be warm-up."""
    if (warmup := settings.schedule.warmup_steps) >= steps:
        raise ConfigurationError(f"schedule.warmupSteps: {warmup} leaves none of the stage's {steps} steps; lower it")
