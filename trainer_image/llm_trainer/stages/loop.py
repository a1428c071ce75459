"""The life of every stage that trains: when it saves, evaluates and publishes, how it leaves and ends.

A kind of stage gives what a step is; `trl_stage` gives it for the kinds whose loss and rows are TRL's.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from llm_trainer.checkpoint.rollbacks import target
from llm_trainer.config import TrainingSettings
from llm_trainer.models.engine import Engine
from llm_trainer.models.engine_config import computes_in_bfloat16
from llm_trainer.models.schedule import learning_rate_share
from llm_trainer.protocol import Result
from llm_trainer.report.write import Reporter
from llm_trainer.runtime.allocator import keep_freed_memory
from llm_trainer.runtime.batch import DataRank
from llm_trainer.runtime.errors import ConfigurationError, DivergedError, PreemptedError, StageError
from llm_trainer.runtime.peaks import device_name, peak_flops
from llm_trainer.runtime.process_figures import ProcessFigures
from llm_trainer.runtime.run import Run
from llm_trainer.runtime.speed import Speed
from llm_trainer.stages.evaluation import Examiner
from llm_trainer.stages.loss_watch import LEAD, Action, Seen
from llm_trainer.stages.resumable import Resumable
from llm_trainer.stages.step_report import StepReport


class Loop(Resumable):
    """One process of one attempt. The methods that a stage gives are called by all ranks together."""

    def __init__(self, run: Run, settings: TrainingSettings, steps: int) -> None:
        """Raises ConfigurationError for a schedule that doesn't fit into the steps."""
        super().__init__(run, settings, steps)
        check_warmup(settings, steps)
        self.evaluated = -1  # step of the newest evaluation
        self.speed = Speed()
        self.flops_per_token = 0.0  # of training; 0 where it is not known
        device = run.group.device
        run.board.update(device=device_name(device))
        self.peak_flops = peak_flops(device_name(device), bfloat16=computes_in_bfloat16(settings, device))
        self.examiner = Examiner(run, settings)
        self.reporter = Reporter(run.config, run.board)
        self.stepped_seconds = 0.0  # of this attempt
        self.process_figures = ProcessFigures(run.group.rank)

    # --- what a stage gives ---

    @abstractmethod
    def make_step(self, learning_rate_share: float) -> StepReport:
        """Number `self.step`, from 0, on the data of `self.place`; the share is of the peak learning rate."""

    def before_step(self) -> None:
        """What is no part of a step and changes how it is made."""

    def share_rows_by(self, micro_batch_size: int) -> None:
        """Make a step by micro-batches of this size from now on; of a stage that has a `tune` for it."""
        raise NotImplementedError

    @abstractmethod
    def held_out_figures(self) -> dict[str, float]:
        """By name; empty if nothing is held out."""

    @abstractmethod
    def learner(self) -> tuple[Engine, PreTrainedTokenizerBase]:
        """What learns, and the tokenizer by which it reads."""

    @abstractmethod
    def export(self) -> Result | None:
        """Write the model as a result; it is known on rank 0."""

    def named_data(self, begin: int, end: int) -> str:
        """What the steps of these places learn from, for who looks what is wrong with it."""
        return f"batches {begin} to {end - 1} of its data, counted from 0"

    # --- the loop ---

    def fit(self) -> str:
        """From the newest good checkpoint to the end; the message of the end.

        Raises PreemptedError when any rank was asked to leave: a checkpoint is committed. Raises what CheckpointStore
        raises, StageError or DivergedError when the loss is lost, and ConfigurationError if nothing was learned.
        """
        resumed = self._resume()
        if self.run.group.device.type == "cpu":
            keep_freed_memory()  # not before: what reading a model has freed is no step's
        board = self.run.board
        board.update(phase="Training", total_steps=self.steps)
        board.startup.reached("engine")
        if not resumed:
            self._evaluate()
            board.startup.reached("evaluation")
            if self.watching.rolls_back or self.tuning.makes_trials:
                self._save()  # so that there is one to go back to
                self._land()
        self._tune()
        while not self.over:
            self.before_step()
            began = time.monotonic()
            share = self._learning_rate_share()
            done = self.make_step(share)
            with self.run.board.parts.of("agree"):
                leave, written, done = self._agree(done)
            self.step += 1
            self.tokens += done.tokens
            seconds = time.monotonic() - began
            self._tell_parts(seconds)
            self._show(done, share * self.settings.optimizer.learning_rate, seconds)
            self._count(done)
            rolled_back = self._watch(done)
            if written:
                self._land()  # only now: the watch tells which checkpoints must stay
            if not rolled_back:
                self._after_step(leave=leave)
            if leave and not self.over:
                self._land()
                self._note_time()
                raise PreemptedError(f"asked to leave; the checkpoint of step {self.step} is committed")
        self._evaluate()
        self._publish(last=True)
        board.update(phase="Done")
        self._note_time()
        self.run.show_peak_memory()
        early = f"stopped early, after {self.step} of {self.steps} steps: " if self.step < self.steps else ""
        return early + self.summary()

    @property
    def over(self) -> bool:
        return self.step == self.steps or self.watching.memory.stopped

    @property
    def place(self) -> int:
        """Which share of the data the next step has: its number, and what rollbacks have jumped over before it."""
        return self.watching.place(self.step)

    def _learning_rate_share(self) -> float:
        """Of the peak in the settings, for the next step: by the schedule, trials, and what the watch has done."""
        share = learning_rate_share(self.settings.schedule, self.step, self.steps)
        return share * self.tuning.rate * self.watching.rate

    def _tune(self) -> None:
        """Try on the first steps' data what is still to be chosen; each time everything is taken back."""
        if self.step == 0 and self.tuning.size_is_due:
            rows, written = self.rows_of_a_process, self.settings.micro_batch_size
            with self.run.long():
                self.tuning.try_sizes(self._try_size, self.store.folder, written, rows)
                self._go_back()
        if size := self.tuning.size(self.rows_of_a_process):
            self.share_rows_by(size)
        if self.step == 0 and self.tuning.rate_is_due:
            self.tuning.try_rates(self._try_step)
            with self.run.long():
                self._go_back()
            self.tuning.choose(self.store.folder)

    @property
    def rows_of_a_process(self) -> int:
        """In a step."""
        return self.settings.global_batch_size // DataRank.of(self.settings, self.run.group).size

    def _try_step(self, number: int, share: float) -> StepReport:
        self.step = number
        leave, _, done = self._agree(self.make_step(share))
        self.run.watchdog.beat()
        if leave:
            raise PreemptedError("asked to leave while settings were tried; the checkpoint of step 0 is committed")
        return done

    def _try_size(self, size: int) -> float:
        """Tokens per second of a step, after one in which memory was taken and kernels chosen; it changes no weight."""
        self.share_rows_by(size)
        self._try_step(0, 0.0)
        began = time.monotonic()
        return self._try_step(1, 0.0).tokens / (time.monotonic() - began)

    def summary(self) -> str:
        """How the stage ended, in one line."""
        evaluation = self.run.board.progress.evaluation
        parts = [f"{self.step} steps", f"{self.tokens:,} tokens"]
        parts += [f"held-out {name} {value:.3f}" for name, value in evaluation.items() if name != "loss"]
        return ", ".join(parts)

    def _agree(self, done: StepReport) -> tuple[bool, bool, StepReport]:
        """Whether any rank was asked to leave, and whether all have written the checkpoint; a collective.

        And the step as rank 0 has seen it: what the ranks decide by it must not hang on a last bit.
        """
        writing, group = self.flight is not None and not self.flight.written, self.run.group
        own = (done.loss, done.gradient_norm, float(done.applied)) if group.is_first else (0.0, 0.0, 0.0)
        asked, still, loss, norm, applied = group.sum(float(self.run.stop.asked), float(writing), *own)
        return asked > 0, not still, replace(done, loss=loss, gradient_norm=norm, applied=applied > 0)

    def _count(self, done: StepReport) -> None:
        """Raises StageError or ConfigurationError for a stage that is lost; it is neither saved nor published.

        Where the loss is watched, the watch tells what is lost.
        """
        self.applied += done.applied
        self.bad = 0 if done.applied else self.bad + 1
        if self.settings.loss_watch:
            return
        if self.bad >= self.patience:
            self._land()  # of a step before, which was good
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

    def _watch(self, done: StepReport) -> bool:
        """What the loss watch makes of the step; whether it was rolled back. Raises DivergedError."""
        seen = Seen(self.step, done.loss, done.gradient_norm, done.applied)
        decision = self.watching.see(seen, last=self.step == self.steps)
        if decision is None:
            return False
        if decision.action is Action.SKIP:
            self.watching.tell(decision, self.step)
            return False
        self._land()  # what is being written may be the newest good one
        data = self.named_data(*self.watching.suspects(decision, self.step))
        to = target(decision.safe, LEAD, self.store.steps())
        if to is None and decision.early:
            return False
        if to is None or decision.action is Action.DIVERGED:
            why = "" if to is not None else "; there is no checkpoint from before to go back to"
            decision = replace(decision, action=Action.DIVERGED, message=decision.message + why)
            self.watching.tell(decision, self.step)
            raise DivergedError(
                f"{decision.message}. Look at {data}; lower optimizer.learningRate, or raise lossWatch.rollbacks to go "
                "on from the last good checkpoint"
            )
        self.store.check_fence()
        with self.run.long():
            self.watching.roll_back(decision, self.step, to, data, self.store.folder)
            self._go_back()
        self.evaluated = -1
        return True

    def _after_step(self, *, leave: bool) -> None:
        every = self.settings.publish_every_steps
        publish = not self.over and every is not None and self.step % every == 0 and not self.watching.is_worried
        judged = publish and bool(self.settings.evaluation.thresholds)
        if not leave and not self.over and (judged or self.step % self.settings.evaluation.every_steps == 0):
            self._evaluate()  # before the save: who goes on from it has the figures, and chance where it was after them
        last = self.over
        if leave or last or self.step % self.settings.checkpoint.every_steps == 0:
            self._save()
        if publish and not leave and not last:
            self._publish(last=False)

    # --- what is seen of it ---

    def _show(self, done: StepReport, learning_rate: float, seconds: float) -> None:
        board, metrics = self.run.board, self.run.board.metrics
        self.run.watchdog.stepped(seconds)
        self.speed.see(done.tokens, seconds)
        board.update(
            phase="Training",
            step=self.step,
            tokens=self.tokens,
            loss=done.loss,
            learning_rate=learning_rate,
            tokens_per_second=round(self.speed.tokens_per_second, 1),
            eta_seconds=round(self.speed.seconds_per_step * (self.steps - self.step), 1),
            mfu=self.mfu,
        )
        metrics.loss.set(done.loss)
        metrics.learning_rate.set(learning_rate)
        metrics.gradient_norm.set(done.gradient_norm)
        metrics.step.set(self.step)
        metrics.tokens.set(self.tokens)
        metrics.tokens_per_second.set(self.speed.tokens_per_second)
        if self.mfu is not None:
            metrics.mfu.set(self.mfu)
        metrics.last_step.set_to_current_time()
        metrics.step_seconds.observe(seconds)
        for name, value in done.figures.items():
            metrics.figures.labels(self.run.config.stage, name).set(value)
        if not done.applied:
            metrics.skipped_steps.inc()
        if self.run.group.is_first:
            self._write_down(done, learning_rate, round(done.tokens / seconds, 1))
        board.stepped()

    def _tell_parts(self, seconds: float) -> None:
        """`seconds`: of this step."""
        self.stepped_seconds += seconds
        parts = self.run.board.parts
        told = sum(spent for part, spent in parts.seconds.items() if part != "compute")
        parts.seconds["compute"] = max(0.0, self.stepped_seconds - told)
        self.process_figures.tell(parts, self.run.group.peak_memory)

    @property
    def mfu(self) -> float | None:
        """Of the last steps; None where the model's arithmetic or the device's is not known."""
        if not self.peak_flops or not self.flops_per_token:
            return None
        per_device = self.speed.tokens_per_second / self.run.group.world_size
        return self.flops_per_token * per_device / self.peak_flops

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
        with self.run.long():
            figures = self.held_out_figures() | self.examiner.look(self.step, self.learner)
        if self.step == 0:
            self.examiner.check(figures)
        self.evaluated = self.step
        self._note_time()
        if figures and self.run.group.is_first:
            self.run.history.append(self.step, evaluation=figures)
            print(f"step {self.step} held out: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()), flush=True)
        for name, value in figures.items():
            self.run.board.metrics.evaluation.labels(self.run.config.stage, name).set(value)
        if self.run.group.is_first:
            with self.run.long():
                self.reporter.write_if_cheap()
        self.run.board.update(phase="Training", evaluation=figures)
        if decision := self.watching.see_evaluation(figures, self.step, last=self.over):
            self.watching.tell(decision, self.step)

    def _publish(self, *, last: bool) -> None:
        """The others wait for rank 0. Raises as `Fence.check` does, and EvaluationError for a last result that is
        blocked.
        """
        self._land()
        self.store.check_fence()  # before weights are gathered; rank 0 asks again before the result appears
        if not self._passes(last=last):
            return
        self.run.board.update(phase="Exporting")
        with self.run.long():
            result = self.export()
            if result:
                self.run.board.update(result=result)
            self.run.group.barrier()
        self.run.board.update(phase="Training")

    def _passes(self, *, last: bool) -> bool:
        evaluation, board = self.settings.evaluation, self.run.board
        if not evaluation.tasks and not evaluation.thresholds:
            return True
        if evaluation.thresholds:
            self._evaluate()
        board.update(phase="Evaluating")
        with self.run.long():
            passes = self.examiner.passes(self.step, board.progress.evaluation, self.learner, last=last)
        board.update(phase="Training")
        return passes

    def _note_time(self) -> None:
        if self.run.group.is_first:
            self.run.history.spent(self.step, self.run.board.clock)


def check_warmup(settings: TrainingSettings, steps: int) -> None:
    """Raises ConfigurationError when all steps would be warm-up."""
    if (warmup := settings.schedule.warmup_steps) >= steps:
        raise ConfigurationError(f"schedule.warmupSteps: {warmup} leaves none of the stage's {steps} steps; lower it")
