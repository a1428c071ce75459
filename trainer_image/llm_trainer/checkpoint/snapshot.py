"""What a process puts into a checkpoint: copied to memory while the training waits, written while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from llm_trainer.checkpoint.files import FileRecord
from llm_trainer.checkpoint.writing import Written, write_hashed


class Buffers:
    """Memory for copies, kept from one checkpoint to the next: new pages cost as much time as the copy.

    For a GPU's tensors it is page-locked, by which they come several times as fast.
    """

    def __init__(self) -> None:
        self._free: dict[tuple[int, bool], list[torch.Tensor]] = {}
        self._taken: list[tuple[tuple[int, bool], torch.Tensor]] = []

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        locked = tensor.device.type == "cuda"
        key = (tensor.numel() * tensor.element_size(), locked)
        free = self._free.get(key)
        buffer = free.pop() if free else torch.empty(key[0], dtype=torch.uint8, pin_memory=locked)
        self._taken.append((key, buffer))
        return buffer.view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())

    def missing(self, sizes: Iterator[tuple[int, bool]]) -> int:
        """Bytes to be allocated for copies of tensors of these sizes."""
        free = {key: len(buffers) for key, buffers in self._free.items()}
        needed = 0
        for key in sizes:
            if free.get(key, 0):
                free[key] -= 1
            else:
                needed += key[0]
        return needed

    def give_back(self) -> None:
        """All that were taken; those that this time nobody took are let go."""
        self._free = {}
        for key, buffer in self._taken:
            self._free.setdefault(key, []).append(buffer)
        self._taken = []


@dataclass
class Snapshot:
    """Of one process. `folder`: of the checkpoint, until it is committed; `room`: bytes that copies may still take.

    What finds no room is written at once, while the training waits: `in_line` counts its bytes.
    """

    folder: Path
    buffers: Buffers = field(default_factory=Buffers)
    room: Callable[[], int] = lambda: 1 << 62
    records: list[FileRecord] = field(default_factory=list)
    in_line: int = 0
    problem: Exception | None = None  # of what was written at once; told to all when the checkpoint lands
    progress: Written = field(default_factory=Written)
    _waiting: list[tuple[Path, Any]] = field(default_factory=list)

    def add(self, file: Path, content: Any) -> None:
        """A text, or what torch saves. `file` is within the folder."""
        if isinstance(content, str):
            self._waiting.append((file, content))
            return
        needed = self.buffers.missing(_key(tensor) for tensor in unlike(tensors(content)))
        if needed <= self.room():
            self._waiting.append((file, copied(content, self.buffers.copy)))
            return
        self.in_line += sum(_key(tensor)[0] for tensor in unlike(tensors(content)))
        if self.problem is None:
            try:
                self._write(file, copied(content, lambda tensor: tensor.detach().cpu()))
            except Exception as error:  # noqa: BLE001 -- the others would wait for this process
                self.problem = error

    def write(self) -> None:
        """What waits in memory. Raises OSError, and what came before, see `problem`."""
        if self.problem:
            raise self.problem
        for file, content in self._waiting:
            self._write(file, content)

    def _write(self, file: Path, content: Any) -> None:
        self.records.append(write_hashed(content, file, self.folder, self.progress))

    def close(self) -> None:
        self._waiting = []
        self.buffers.give_back()


def _key(tensor: torch.Tensor) -> tuple[int, bool]:
    return tensor.numel() * tensor.element_size(), tensor.device.type == "cuda"


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    """The same for two views of the same memory, as tied weights are."""
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def tensors(content: Any) -> Iterator[torch.Tensor]:
    """All within containers."""
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from tensors(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from tensors(value)


def unlike(found: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Each once."""
    seen = set()
    for tensor in found:
        if (place := _place(tensor)) not in seen:
            seen.add(place)
            yield tensor


def copied(content: Any, copy: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same containers with copies of the tensors; what is one tensor stays one."""
    made: dict[tuple[Any, ...], torch.Tensor] = {}

    def of(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            place = _place(value)
            if place not in made:
                made[place] = copy(value)
            return made[place]
        if isinstance(value, dict):
            same = type(value)()
            same.update((key, of(each)) for key, each in value.items())
            getattr(same, "__dict__", {}).update(getattr(value, "__dict__", {}))  # versions of a module's state
            return same
        if type(value) in (list, tuple):
            return type(value)(of(each) for each in value)
        return deepcopy(value) if hasattr(value, "__dict__") else value

    return of(content)
