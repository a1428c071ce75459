"""Trials before a stage's first step. What was chosen is kept, so that a resume doesn't try again."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from llm_trainer.checkpoint.files import altered, write_durably
from llm_trainer.checkpoint.rollbacks import TUNED
from llm_trainer.config import BatchRange, RateRange, Tune
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.run import Run
from llm_trainer.stages.batch_range import fitting
from llm_trainer.stages.rate_range import Tuned, chosen, is_over, rates
from llm_trainer.stages.size_trials import SizeTrials
from llm_trainer.stages.step_report import StepReport

TUNED_AS_JSON = TypeAdapter(Tuned)


class Tuning:
    """The same on every rank."""

    def __init__(self, run: Run, asked: Tune | None, peak: float) -> None:
        """``peak``: the learning rate of the settings."""
        self.run, self.peak = run, peak
        self.asked: RateRange | None = asked.learning_rate if asked else None
        self.asked_size: BatchRange | None = asked.micro_batch_size if asked else None
        self.tuned = Tuned()
        self._tried: list[float] = []
        self._losses: list[float] = []

    @property
    def makes_trials(self) -> bool:
        return self.asked is not None or self.asked_size is not None

    @property
    def size_is_due(self) -> bool:
        return self.asked_size is not None and self.tuned.micro_batch_size is None

    @property
    def rate_is_due(self) -> bool:
        return self.asked is not None and self.tuned.learning_rate is None

    @property
    def rate(self) -> float:
        """Factor of the learning rate that is in the settings."""
        return self.tuned.learning_rate / self.peak if self.tuned.learning_rate else 1.0

    def size(self, rows: int) -> int | None:
        """The micro-batch that was chosen, if any; with another number of processes one that shares their rows."""
        return fitting(self.tuned.micro_batch_size, rows) if self.tuned.micro_batch_size else None

    def try_sizes(self, trial: Callable[[int], float], checkpoints: Path, written: int, rows: int) -> None:
        """``trial`` makes steps with micro-batches of a size and tells tokens per second; ``written`` is that of the
        settings, ``rows`` are a process's in a step.
        """
        maximum = self.asked_size.maximum if self.asked_size else None
        trials = SizeTrials(self.run, checkpoints, written, rows, maximum)
        size, told = trials.make(trial)
        done = trials.journal.done
        figures = {"sizes": [one.size for one in done], "tokensPerSecond": [one.tokens_per_second for one in done],
                   "peakBytes": [one.peak for one in done]}  # fmt: skip
        self._keep(Tuned(micro_batch_size=size), checkpoints, figures, told)

    def try_rates(self, step: Callable[[int, float], StepReport]) -> None:
        """``step`` makes one of a number with a share of the peak; its figures are the same on all ranks."""
        for number, rate in enumerate(rates(self.asked) if self.asked else []):
            done = step(number, rate / self.peak)
            self._tried.append(rate)
            self._losses.append(done.loss if done.applied else math.nan)
            if is_over(self._losses):
                break

    def choose(self, checkpoints: Path) -> None:
        """After everything was taken back. Raises ConfigurationError where no rate is good."""
        whole = self.asked is not None and len(self._tried) == self.asked.steps
        rate, told = chosen(self._tried, self._losses, whole=whole)
        if rate is None:
            raise ConfigurationError(f"pretrain.tune.learningRate: {told}")
        self._keep(Tuned(learning_rate=rate), checkpoints, {"rates": self._tried, "losses": self._losses}, told)

    def _keep(self, new: Tuned, checkpoints: Path, curve: dict[str, Any], told: str) -> None:
        self.tuned = self.tuned.model_copy(update=new.model_dump(exclude_none=True))
        self.run.board.notice("Tuned", told)
        if self.run.group.is_first:
            self.run.history.append(0, tune=curve, message=told)
            write_durably(checkpoints / TUNED, self.tuned.model_dump_json(by_alias=True, exclude_none=True) + "\n")
        self.run.group.barrier()

    def take_up(self, checkpoints: Path) -> None:
        """What an attempt before has chosen."""
        own = read_tuned(checkpoints) if self.run.group.is_first and self.makes_trials else Tuned()
        self.tuned = self.run.group.first(own, TUNED_AS_JSON)

    def write(self) -> dict[str, Any]:
        """For a checkpoint's state."""
        tuned = self.tuned.model_dump(by_alias=True, exclude_none=True)
        return {"tuned": tuned} if tuned else {}

    def read(self, state: dict[str, Any]) -> None:
        """Of a checkpoint, where it knows."""
        if told := state.get("tuned"):
            self.tuned = Tuned.model_validate(told)


def read_tuned(checkpoints: Path) -> Tuned:
    """Empty where nothing was chosen. Raises ConfigurationError for a file that was altered."""
    file = checkpoints / TUNED
    try:
        return Tuned.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Tuned()
    except ValidationError as error:
        raise altered(file, error) from error
