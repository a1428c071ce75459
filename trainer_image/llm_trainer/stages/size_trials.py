"""Trials of micro-batches: each is noted down before it is made, as one that doesn't fit may end the process.

A container on Linux has no error for memory that is not there: the kernel kills, and often the whole pod. So a size is
tried only where those before tell that it will fit; if it kills all the same, the next attempt knows by the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from llm_trainer.checkpoint.files import altered, write_durably
from llm_trainer.checkpoint.memory import SHARE, kibibytes, room
from llm_trainer.checkpoint.rollbacks import SIZE_TRIALS
from llm_trainer.runtime.errors import PreemptedError
from llm_trainer.runtime.run import Run
from llm_trainer.stages.batch_range import SizeJournal, SizeTrial, chosen, expected_peak, ladder, next_size

JOURNAL = TypeAdapter(SizeJournal)
FIGURES = TypeAdapter(tuple[float, float])


class SizeTrials:
    """The same on every rank."""

    def __init__(self, run: Run, checkpoints: Path, written: int, rows: int, maximum: int | None) -> None:
        """``written``: the size in the settings; ``rows``: of a process and a step."""
        self.run, self.file, self.written = run, checkpoints / SIZE_TRIALS, written
        self.sizes = ladder(written, rows, maximum)
        own = read_journal(self.file) if run.group.is_first else SizeJournal()
        told = run.group.first(own, JOURNAL)
        self.journal = told if told.rows == rows else SizeJournal(rows=rows)

    def make(self, trial: Callable[[int], float]) -> tuple[int, str]:
        """The size, and what is told of it. ``trial``: makes steps of a size, and tells tokens per second."""
        memory = Memory(self.run.group.device, self.run.config.processes_per_node)
        points = [(0, memory.begin()), *((trial.size, trial.peak) for trial in self.journal.done)]
        refused = ""
        while (size := next_size(self.sizes, self.written, self.journal)) is not None:
            if len(points) > 1 and (refused := self._refusal(memory, points, size)):
                break
            memory.begin()
            points.append((size, self._make(trial, memory, size).peak))
        return chosen(self.sizes, self.journal, refused)

    def _make(self, trial: Callable[[int], float], memory: Memory, size: int) -> SizeTrial:
        self._note(self.journal.begin(size))
        try:
            speed = trial(size)
        except PreemptedError:
            self._note(self.journal.forget(size))
            raise
        told = self.run.group.gather((speed, memory.peak), FIGURES)
        made = SizeTrial(size=size, tokens_per_second=min(each for each, _ in told), peak=max(each for _, each in told))
        self._note(self.journal.end(made))
        return made

    def _refusal(self, memory: Memory, points: Sequence[tuple[int, float]], size: int) -> str:
        """Why a size isn't tried: on any rank it would take more than there is. Empty if it is."""
        needed = expected_peak(points, size) - memory.peak
        told = self.run.group.gather((needed, float(memory.room)), FIGURES)
        most, left = max(told, key=lambda each: each[0] - each[1])
        if most <= left:
            return ""
        return f"{size} would take about {most / 2**30:.2f} GiB more of each process, and {left / 2**30:.2f} are left"

    def _note(self, journal: SizeJournal) -> None:
        """Before anything goes on."""
        self.journal = journal
        if self.run.group.is_first:
            write_durably(self.file, journal.model_dump_json(by_alias=True) + "\n")
        self.run.group.barrier()


class Memory:
    """Of this process, in bytes: of its tensors on a GPU, else of all."""

    def __init__(self, device: torch.device, processes: int) -> None:
        """``processes``: that share a pod's memory."""
        self.device, self.processes = device, processes

    def begin(self) -> float:
        """What is taken now; peaks count from here on."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            return float(torch.cuda.memory_allocated(self.device))
        with suppress(OSError):  # some sandboxes don't let it be written: then no later peak is below an earlier one
            Path("/proc/self/clear_refs").write_text("5")
        return kibibytes("/proc/self/status")["VmRSS"] * 1024.0

    @property
    def peak(self) -> float:
        if self.device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self.device))
        return kibibytes("/proc/self/status")["VmHWM"] * 1024.0

    @property
    def room(self) -> int:
        """Beyond the peak."""
        if self.device.type == "cuda":
            free = torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)
            return int(SHARE * free - self.peak)
        return room(self.processes)


def read_journal(file: Path) -> SizeJournal:
    """Empty where nothing was tried. Raises ConfigurationError for a file that was altered."""
    try:
        return SizeJournal.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return SizeJournal()
    except ValidationError as error:
        raise altered(file, error) from error
