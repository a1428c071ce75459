"""The processes of one stage: who we are, and the few things that all must agree on."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from llm_trainer.runtime.errors import PeerLostError
from llm_trainer.runtime.startup import importing

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
NAME_SECONDS = 300.0  # until the first pod must be scheduled and its name resolve


@dataclass(frozen=True)
class ProcessGroup:
    """Collectives over all ranks; with one process they return at once."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device

    @classmethod
    def from_environment(cls, device: str) -> ProcessGroup:
        """The process that the launcher describes; it has not joined the others yet."""
        rank, local_rank, world_size = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
        if device == "cuda":
            torch.cuda.set_device(local_rank)
        where = torch.device("cuda", local_rank) if device == "cuda" else torch.device("cpu")
        return cls(rank, local_rank, world_size, where)

    def join(self) -> None:
        """Meet the other processes at rank 0's address. Raises PeerLostError if that fails or its name never resolves.

        DeepSpeed's initialisation comes before accelerate's, or ZeRO-3 computes batch sizes for one process.
        """
        with importing():
            import deepspeed
        await_name(os.environ["MASTER_ADDR"], NAME_SECONDS)
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        try:
            deepspeed.init_distributed(dist_backend=backend, timeout=TIMEOUT, verbose=False)
        except dist.DistError as error:  # another pod is gone or never came
            raise PeerLostError(f"the processes could not meet: {str(error).splitlines()[0]}") from error

    def leave(self) -> None:
        """After a good end only: after a failure the others are gone, and a barrier would wait for them.

        Without the barrier some runs abort in their last moment (a gloo thread outlives the group).
        """
        dist.barrier(device_ids=self._device_ids)
        dist.destroy_process_group()

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
            dist.barrier(device_ids=self._device_ids)

    @property
    def _device_ids(self) -> list[int] | None:
        """Of a barrier, which NCCL makes of a collective: it would guess the GPU from the rank."""
        return [self.local_rank] if self.device.type == "cuda" else None

    @property
    def peak_memory(self) -> int:
        """Bytes that this process's tensors took at most on its GPU; 0 on CPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0


def await_name(name: str, limit_seconds: float) -> None:
    """Wait until a name resolves: a new pod's may lag behind the pod. Raises PeerLostError after the limit."""
    end = time.monotonic() + limit_seconds
    while True:
        try:
            socket.getaddrinfo(name, None)
        except OSError as error:
            if time.monotonic() > end:
                raise PeerLostError(
                    f"the name of the first pod, {name}, did not resolve within {limit_seconds:.0f} s"
                ) from error
            time.sleep(0.5)
        else:
            return
