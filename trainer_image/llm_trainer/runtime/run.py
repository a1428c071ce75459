"""What every stage that trains holds: its configuration, its processes, and how it speaks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from llm_trainer.config import StageConfig
from llm_trainer.protocol import Worker
from llm_trainer.runtime.history import History
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
        self.group.join()
        self.stop.listen()
        host = socket.gethostname()
        own = Worker(rank=self.group.rank, host=host, node=os.environ.get("NODE_NAME", host))
        workers = self.group.gather(own, WORKER)
        self.board.update(world_size=self.group.world_size, workers=workers)
        self.board.startup.reached("group")

    def stop_agreed(self) -> bool:
        """Whether any rank was asked to leave; a collective."""
        return self.group.any(self.stop.asked)

    def show_peak_memory(self) -> None:
        """In rank 0's log, for who chooses the next micro-batch."""
        if self.group.is_first and (peak := self.group.peak_memory):
            print(f"peak memory of the GPU's tensors: {peak / 2**30:.1f} GiB", flush=True)


@contextmanager
def start(config: StageConfig, board: Board) -> Iterator[Run]:
    """A stage that trains, until it leaves the others after a good end."""
    group = ProcessGroup.from_environment(config.device)
    history = History(Path(config.stage_folder) / "history.jsonl", config.attempt)
    yield Run(config, group, board, history, StopSignal(), Watchdog())
    group.leave()
