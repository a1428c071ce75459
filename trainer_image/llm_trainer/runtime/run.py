"""What every stage that trains holds: its configuration, its processes, and how it speaks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llm_trainer.config import StageConfig
from llm_trainer.protocol import Worker
from llm_trainer.runtime.history import History
from llm_trainer.runtime.process_group import ProcessGroup, process_group
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.signals import StopSignal
from llm_trainer.runtime.watchdog import Watchdog


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

    def stop_agreed(self) -> bool:
        """Whether any rank was asked to leave; a collective."""
        return self.group.any(self.stop.asked)


@contextmanager
def start(config: StageConfig, board: Board) -> Iterator[Run]:
    """Join the other processes; rank 0 tells the world who they are."""
    stop = StopSignal()
    with process_group(config.device) as group:
        host = socket.gethostname()
        workers = group.gather(Worker(rank=group.rank, host=host, node=os.environ.get("NODE_NAME", host)))
        board.update(world_size=group.world_size, workers=workers)
        history = History(Path(config.stage_folder) / "history.jsonl", config.attempt)
        yield Run(config, group, board, history, stop, Watchdog())
