"""The processes of one stage: who we are, and the few things that all must agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class ProcessGroup:
    """Collectives over all ranks; with one process they return at once."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the ranks, in float64."""
        if self.world_size == 1:
            return list(values)
        # float64 on CUDA too: counts of tokens outgrow float32
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def any(self, flag: bool) -> bool:  # noqa: FBT001 -- the flag is the subject
        return self.sum(float(flag))[0] > 0

    def gather(self, value: T) -> list[T]:
        """Every rank's value, on every rank, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def first(self, value: T) -> T:
        """Rank 0's value on every rank."""
        if self.world_size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[no-any-return]

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def process_group(device: str) -> Iterator[ProcessGroup]:
    """Join the group that torchrun describes in the environment; leave it together.

    DeepSpeed's initialisation comes before any use of transformers, or ZeRO-3 computes batch sizes for one process.
    """
    import deepspeed

    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "127.0.0.1")):
        os.environ.setdefault(name, default)
    os.environ.setdefault("MASTER_PORT", "29500")
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    deepspeed.init_distributed(dist_backend="nccl" if device == "cuda" else "gloo", timeout=TIMEOUT, verbose=False)
    where = torch.device("cuda", local_rank) if device == "cuda" else torch.device("cpu")
    yield ProcessGroup(rank, local_rank, world_size, where)
    # Only after a good end: after a failure the others are gone, and a barrier would wait for them.
    # Without it some runs abort in their last moment (a gloo thread outlives the group).
    dist.barrier()
    dist.destroy_process_group()
