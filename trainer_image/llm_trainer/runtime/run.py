"""What every stage that trains holds: its configuration, its processes, and how it speaks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import TypeAdapter

from llm_trainer.config import StageConfig, settings_of
from llm_trainer.protocol import Worker
from llm_trainer.runtime.history import HISTORY, History
from llm_trainer.runtime.instructions import choose_instructions
from llm_trainer.runtime.process_group import ProcessGroup
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.signals import StopSignal
from llm_trainer.runtime.watchdog import Watchdog

WORKER = TypeAdapter(Worker)


@dataclass(frozen=True)
class Run:
    """One process of one attempt. Only rank 0's board is served and only rank 0's history is written."""

    config: StageConfig
    group: ProcessGroup
    board: Board
    history: History
    stop: StopSignal
    watchdog: Watchdog

    @property
    def stage_folder(self) -> Path:
        return Path(self.config.stage_folder)

    def meet(self) -> None:
        """Join the other processes; rank 0 tells the world who they are.

        A stage reads what it can by itself before: the pods do not come at the same time. Until then a SIGTERM ends
        the process at once, as there is nothing to save.
        """
        self.board.startup.reached("model")
        self.group.join(timedelta(seconds=self.config.patience_seconds))
        self.stop.listen()
        host = socket.gethostname()
        own = Worker(rank=self.group.rank, host=host, node=os.environ.get("NODE_NAME", host))
        workers = self.group.gather(own, WORKER)
        self.board.update(world_size=self.group.world_size, workers=workers)
        self.board.startup.reached("group")

    @contextmanager
    def long(self) -> Iterator[None]:
        """What may take longer than a step: the watchdog has patience, and the heartbeat goes on."""
        with self.watchdog.long(), self.board.beating():
            yield

    def show_peak_memory(self) -> None:
        """In rank 0's log, for who chooses the next micro-batch."""
        if self.group.is_first and (peak := self.group.peak_memory):
            print(f"peak memory of the GPU's tensors: {peak / 2**30:.1f} GiB", flush=True)


@contextmanager
def start(config: StageConfig, board: Board) -> Iterator[Run]:
    """A stage that trains, until it leaves the others after a good end."""
    if config.device == "cpu":
        choose_instructions()
    group = ProcessGroup.from_environment(config.device)
    settings = settings_of(config)
    if settings is not None and settings.zero_stage == 3:
        group.join(
            timedelta(seconds=config.patience_seconds)
        )  # its models are spread over the processes as they are read
    history = History(Path(config.stage_folder) / HISTORY, config.attempt)
    yield Run(config, group, board, history, StopSignal(), Watchdog(config.patience_seconds))
    group.leave()
