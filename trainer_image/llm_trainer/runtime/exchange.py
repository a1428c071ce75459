"""What processes tell each other: JSON and arrays of numbers as bytes, never pickles, which would run as code.

A process that isn't ours may have joined. torch's collectives of objects pickle; `forbid_pickles` has those that TRL,
accelerate and DeepSpeed call carry JSON too.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

MESSAGE_BYTES = 1 << 30  # of one process; another would make all others take its memory


class ExchangeError(RuntimeError):
    """Another process told what no process of ours tells."""


def gather_bytes(message: bytes, device: torch.device) -> list[bytes]:
    """Every rank's message on every rank, by rank. Raises ExchangeError for one that is too long."""
    own = torch.tensor([len(message)], dtype=torch.int64, device=device)
    all_lengths = [torch.zeros_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(all_lengths, own)
    lengths = [bounded(int(length)) for length in all_lengths]
    padded = torch.zeros(max(lengths), dtype=torch.uint8, device=device)
    padded[: len(message)] = as_tensor(message, device)
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return [part[:length].cpu().numpy().tobytes() for part, length in zip(parts, lengths, strict=True)]


def first_bytes(message: bytes, device: torch.device) -> bytes:
    """Rank 0's message on every rank. Raises ExchangeError if it is too long."""
    length = torch.tensor([len(message)], dtype=torch.int64, device=device)
    dist.broadcast(length, src=0)
    size = bounded(int(length))
    told = as_tensor(message, device) if dist.get_rank() == 0 else torch.empty(size, dtype=torch.uint8, device=device)
    dist.broadcast(told, src=0)
    return told.cpu().numpy().tobytes()


def bounded(length: int) -> int:
    if 0 <= length <= MESSAGE_BYTES:
        return length
    raise ExchangeError(f"a process tells {length:,} bytes at once, and {MESSAGE_BYTES:,} are the most")


def as_tensor(message: bytes, device: torch.device) -> torch.Tensor:
    return (
        torch.frombuffer(bytearray(message), dtype=torch.uint8).to(device)
        if message
        else torch.empty(0, dtype=torch.uint8, device=device)
    )


def array_bytes(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def array_of(message: bytes) -> np.ndarray[Any, Any]:
    """Raises ExchangeError for what is no array of numbers."""
    try:
        array: np.ndarray[Any, Any] = np.load(io.BytesIO(message), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ExchangeError(f"a process tells what is no array of numbers: {error}") from error
    return array


# --- what libraries exchange ---


class JsonPickler:
    """In the place of pickle.Pickler."""

    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def dump(self, value: object) -> None:
        self._stream.write(json.dumps(value).encode())


class JsonUnpickler:
    """In the place of pickle.Unpickler."""

    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def load(self) -> object:
        try:
            return json.loads(self._stream.read())
        except (ValueError, RecursionError) as error:
            raise ExchangeError("a process tells what is no JSON") from error


@contextmanager
def pickles_allowed(*, needed: bool) -> Iterator[None]:
    """For vLLM beside the training, whose processes on several GPUs tell each other of their queues as they start."""
    if not needed:
        yield
        return
    distributed_c10d._pickler, distributed_c10d._unpickler = pickle.Pickler, pickle.Unpickler
    try:
        yield
    finally:
        forbid_pickles()


def forbid_pickles() -> None:
    """torch.distributed's collectives of objects carry JSON from now on; other objects are a TypeError.

    TRL's trainers gather texts and names of figures by them. All go through these two names of torch.
    """
    for name, ours in (("_pickler", JsonPickler), ("_unpickler", JsonUnpickler)):
        if not hasattr(distributed_c10d, name):
            raise RuntimeError(
                f"torch {torch.__version__} has no distributed_c10d.{name}: its collectives would pickle"
            )
        setattr(distributed_c10d, name, ours)
