"""When the layers of a stage are compiled: it was asked for, or what is still to come is worth it.

What compiling takes is known only here: a minute or so, and a compiler's memory. So by itself it waits for the speed of
the first steps, keeps what is seen to be faster, and is noted down before, as size trials are: a pod that dies of it
(no memory is left, an instruction that its CPU traps) comes back and goes on without.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from llm_trainer.checkpoint.files import write_durably
from llm_trainer.checkpoint.memory import room
from llm_trainer.checkpoint.rollbacks import COMPILING
from llm_trainer.config import Pretrain
from llm_trainer.models.compiled_layers import CompiledLayers, layers_of
from llm_trainer.models.engine import Engine
from llm_trainer.models.experts import has_experts
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.run import Run
from llm_trainer.runtime.variables import seconds

LEAST_SECONDS = 1800.0  # still to come, or $LLM_COMPILE_SECONDS; compiling takes up to a minute and a half of them
SEEN_STEPS = 5  # whose speed tells what is still to come
LEAST_MEMORY = 1 << 30  # of a process and its compiler (docs/figures.md)
LEAST_GAIN = 1.03  # of the layers' speed; less may be noise
FIELD = "pretrain.compile"
LEAVING = "asked to leave"


class Outcome(NamedTuple):
    """Of a process: seconds of all layers as they are and compiled, or why they can't be."""

    eager: float = 0.0
    compiled: float = 0.0
    problem: str = ""


OUTCOME = TypeAdapter(Outcome)
WHETHER = TypeAdapter(bool)


class Compiling:
    """The same on every rank."""

    def __init__(self, run: Run, settings: Pretrain, engine: Engine, checkpoints: Path) -> None:
        """``checkpoints``: where it is noted down. Raises ConfigurationError for what was asked for and can't be."""
        self.run, self.settings, self.engine = run, settings, engine
        self.file = checkpoints / COMPILING
        self.steps = 0  # of this attempt
        why_not = "" if settings.compile is False else settings.against_compiling() or against(engine)
        if settings.compile and why_not:
            raise ConfigurationError(f"{FIELD}: true does not go with {why_not}; leave it out")
        self.least_seconds = seconds("LLM_COMPILE_SECONDS", LEAST_SECONDS)
        self.decided = settings.compile is False or bool(why_not)

    def before_step(self, rows: int, seconds_left: float) -> None:
        """Of micro-batches with so many rows. Raises ConfigurationError where it was asked for and can't be."""
        if self.decided:
            return
        self.steps += 1
        if not self.settings.compile and self.steps <= SEEN_STEPS:
            return
        self.decided = True
        if self.settings.compile or self._is_worth_it(seconds_left):
            with self.run.long():
                self._compile(rows)

    def _is_worth_it(self, seconds_left: float) -> bool:
        worth = seconds_left >= self.least_seconds
        if self.run.group.is_first and worth and self.file.exists():
            print("layers stay as they are: an attempt ended while it compiled them", flush=True)
            worth = False
        return self.run.group.first(worth, WHETHER)

    def _compile(self, rows: int) -> None:
        began, group, layers = time.monotonic(), self.run.group, CompiledLayers(self.engine.model)
        if group.is_first:
            write_durably(self.file, json.dumps({"attempt": self.run.config.attempt}) + "\n")
        group.barrier()
        told = group.gather(self._outcome(layers, rows), OUTCOME)
        if group.is_first:
            self.file.unlink()
        gain, why_not = verdict(told, asked=bool(self.settings.compile))
        if not why_not:
            layers.adopt()
            took = f"after {time.monotonic() - began:.0f} s of compiling"
            self.run.board.notice("LayersCompiled", f"{gain:.2f} times as fast as before, {took}")
        elif group.is_first:
            print(f"layers stay as they are: {why_not}", flush=True)

    def _outcome(self, layers: CompiledLayers, rows: int) -> Outcome:
        try:
            self._check_memory()
            return Outcome(*self.engine.compare_compiled(layers, rows, self.settings.sequence_length, self._alive))
        except InterruptedError:
            return Outcome(problem=LEAVING)
        except Exception as error:  # noqa: BLE001 -- no compiler, what it can't compile; the layers are as they were
            return Outcome(problem=f"{type(error).__name__}: {first_line(error)}")

    def _check_memory(self) -> None:
        if self.run.group.device.type == "cpu" and (left := room(self.run.config.processes_per_node)) < LEAST_MEMORY:
            raise MemoryError(f"{left / 2**30:.2f} GiB are left for each process, and a compiler may take 1")

    def _alive(self) -> None:
        """Raises InterruptedError when the process is asked to leave, which it does after the next step."""
        self.run.watchdog.beat()
        if self.run.stop.asked:
            raise InterruptedError(LEAVING)


def verdict(told: Sequence[Outcome], *, asked: bool) -> tuple[float, str]:
    """How many times as fast compiled layers are, and why they aren't taken; empty if they are. All or none.

    Raises ConfigurationError where they were asked for and can't be.
    """
    if problems := [outcome.problem for outcome in told if outcome.problem]:
        if asked and LEAVING not in problems:
            raise ConfigurationError(f"{FIELD}: the layers can't be compiled here ({problems[0]}); leave it out")
        return 0.0, problems[0]
    gain = sum(outcome.eager for outcome in told) / sum(outcome.compiled for outcome in told)
    return gain, "" if asked or gain >= LEAST_GAIN else f"compiled they would be {gain:.2f} times as fast"


def against(engine: Engine) -> str:
    """What of the model compiling doesn't go with. A collective."""
    family = engine.model.config.model_type
    if has_experts(engine.model.config):
        return f"the experts of {family}"
    if not layers_of(engine.model):
        return f"{family}, of which transformers marks no layers"
    return "" if engine.keeps_documents_apart() else f"{family}, whose documents have rows of their own"


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
