"""Where the generators of chance are, so that a stage goes on after a resume as if nothing had happened.

Dropout and sampled answers draw from torch's, a reward function of the user's from any of these.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llm_trainer.checkpoint.snapshot import Snapshot


@dataclass(frozen=True)
class RandomStates:
    """Of one process; of types that torch loads without unpickling classes."""

    states: dict[str, Any]

    @classmethod
    def now(cls, device: torch.device) -> RandomStates:
        name, keys, place, has_gauss, gauss = np.random.get_state()
        states: dict[str, Any] = {
            "torch": torch.get_rng_state(),
            "python": random.getstate(),
            "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), place, has_gauss, gauss),
        }
        if device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(device)
        return cls(states)

    def write(self, snapshot: Snapshot, rank: int) -> None:
        snapshot.add(_file(snapshot.folder, rank), self.states)

    @classmethod
    def read(cls, folder: Path, rank: int) -> RandomStates | None:
        """None for a rank that there was not when it was written."""
        file = _file(folder, rank)
        return cls(torch.load(file, weights_only=True)) if file.exists() else None

    def restore(self, device: torch.device) -> None:
        torch.set_rng_state(self.states["torch"])
        random.setstate(self.states["python"])
        name, keys, *rest = self.states["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        if "cuda" in self.states:
            torch.cuda.set_rng_state(self.states["cuda"], device)


@contextmanager
def kept_chance(device: torch.device) -> Iterator[None]:
    """What draws in here takes nothing from whoever draws after it."""
    states = RandomStates.now(device)
    try:
        yield
    finally:
        states.restore(device)


def _file(folder: Path, rank: int) -> Path:
    return folder / f"random-{rank}.pt"
