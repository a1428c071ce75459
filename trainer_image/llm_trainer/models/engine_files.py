"""DeepSpeed's files of a checkpoint: into a snapshot instead of onto the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_trainer.checkpoint.snapshot import Snapshot

TAG = "engine"  # the folder that DeepSpeed makes


class IntoSnapshot:
    """In the place of DeepSpeed's checkpoint engine: what it would write goes to a snapshot."""

    def __init__(self, own: Any, snapshot: Snapshot) -> None:
        self._own, self._snapshot = own, snapshot

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def save(self, state_dict: dict[str, Any], path: str) -> None:
        self._snapshot.add(Path(path), state_dict)

    def preserves_storage_sharing(self) -> bool:
        """False, or DeepSpeed would make a copy of its own before."""
        return False


@contextmanager
def saving_into(engine: Any, snapshot: Snapshot) -> Iterator[None]:
    own, engine.checkpoint_engine = engine.checkpoint_engine, IntoSnapshot(engine.checkpoint_engine, snapshot)
    try:
        yield
    finally:
        engine.checkpoint_engine = own
