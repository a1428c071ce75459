"""The processes of one stage: who we are, and the few things that all must agree on."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from pydantic import TypeAdapter
from torch._C._distributed_c10d import TCPStore  # what torch.distributed exports, which mypy does not see

from llm_trainer.runtime.errors import PeerLostError
from llm_trainer.runtime.exchange import array_bytes, array_of, first_bytes, forbid_pickles, gather_bytes
from llm_trainer.runtime.startup import importing
from llm_trainer.runtime.topology import PLACE, agreed_rank
from llm_trainer.runtime.unpickling import allow_deepspeed

T = TypeVar("T")
Array = np.ndarray[Any, Any]
TIMEOUT = timedelta(minutes=30)
NAME_SECONDS = 300.0  # until the first pod must be scheduled and its name resolve


@dataclass
class ProcessGroup:
    """Collectives over all ranks; with one process they return at once."""

    rank: int  # until they meet that of the pod's index
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

    def join(self, patience: timedelta | None = None) -> None:
        """Meet the other processes at rank 0's store; once. Raises PeerLostError if that fails or its name never
        resolves.

        ``patience``: of every collective, TIMEOUT by default; what one process does alone must end in it.

        DeepSpeed's initialisation comes before accelerate's, or ZeRO-3 computes batch sizes for one process.
        """
        if dist.is_initialized():
            return
        patience = patience or TIMEOUT
        with importing():
            import deepspeed
        forbid_pickles()
        allow_deepspeed()
        await_name(os.environ["MASTER_ADDR"], NAME_SECONDS)
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        try:
            store = self._store(patience)
            self._take_rank(store)
            dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.world_size, timeout=patience)
            deepspeed.init_distributed(dist_backend=backend, timeout=patience, verbose=False)
        except dist.DistError as error:  # another pod is gone or never came
            first_pod = os.environ["MASTER_ADDR"]
            raise PeerLostError(f"could not meet the others at {first_pod}: {str(error).splitlines()[0]}") from error

    def _store(self, patience: timedelta) -> TCPStore:
        """Behind the gates of the pods; rank 0 holds it, at the socket that the launcher has opened."""
        host, port = os.environ["LLM_STORE_HOST"], int(os.environ["LLM_STORE_PORT"])
        listener = int(os.environ["LLM_STORE_FD"]) if self.is_first else None
        return TCPStore(host, port, self.world_size, self.is_first, patience, master_listen_fd=listener)

    def _take_rank(self, store: TCPStore) -> None:
        """By the topology of the pods (runtime/topology.py); libraries that come later read it of the environment."""
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", self.world_size))
        if self.world_size == processes:
            return
        index = self.rank // processes
        agreed = agreed_rank(store, index, self.world_size // processes, os.environ.get(PLACE, ""))
        if agreed != index:
            self.rank = agreed * processes + self.local_rank
            os.environ.update({"RANK": str(self.rank), "GROUP_RANK": str(agreed)})
            print(f"rank {self.rank}: pod {index} is the {agreed}. by the network's topology", flush=True)

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

    def gather(self, value: T, kind: TypeAdapter[T]) -> list[T]:
        """Every rank's value, on every rank, by rank; what the others tell is validated by `kind`."""
        if self.world_size == 1:
            return [value]
        return [kind.validate_json(told) for told in gather_bytes(kind.dump_json(value), self.device)]

    def first(self, value: T, kind: TypeAdapter[T]) -> T:
        """Rank 0's value on every rank, validated by `kind`."""
        if self.world_size == 1:
            return value
        return kind.validate_json(first_bytes(kind.dump_json(value) if self.is_first else b"", self.device))

    def gather_array(self, array: Array) -> list[Array]:
        """Every rank's numbers, on every rank, by rank."""
        if self.world_size == 1:
            return [array]
        return [array_of(told) for told in gather_bytes(array_bytes(array), self.device)]

    def first_array(self, array: Array | None) -> Array | None:
        """Rank 0's numbers, if it has any, on every rank."""
        if self.world_size == 1:
            return array
        told = first_bytes(b"" if array is None else array_bytes(array), self.device)
        return array_of(told) if told else None

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
