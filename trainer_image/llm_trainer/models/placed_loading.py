"""Reading a model whose weights find their place one by one, by transformers' own loading, which knows each family.

transformers maps the files' names to the model's, merges what its families store apart, and gives each weight to a
function, which is replaced here. With ZeRO-3 each tensor is read once, by one process, and told to the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any
from unittest import mock

import torch
from safetensors import safe_open
from torch import distributed
from transformers import PreTrainedModel, core_model_loading, modeling_utils

from llm_trainer.models.placement import Placement, marked_tied, without_transformers_zero3

give = core_model_loading.set_param_for_module


Change = Callable[[str, torch.Tensor], torch.Tensor]


@contextmanager
def placing(placement: Placement, change: Change | None = None) -> Iterator[None]:
    """`from_pretrained` in here makes a model whose weights are placed, but for the tied and for those it made up.

    ``change``: what a weight becomes before, by its name.
    """
    numbers = count()

    def place(model: PreTrainedModel, target_name: str, value: torch.Tensor, *rest: Any, **named: Any) -> None:
        give(model, target_name, change(target_name, value) if change else value, *rest, **named)
        path, _, name = target_name.rpartition(".")
        module = model.get_submodule(path)
        if name in module._parameters and target_name not in marked_tied(model):
            placement.place(module, name)

    with ExitStack() as stack:
        stack.enter_context(without_transformers_zero3())
        stack.enter_context(mock.patch.object(core_model_loading, "set_param_for_module", place))
        # else its threads would read all files ahead of the places
        stack.enter_context(mock.patch.dict(os.environ, {"HF_DEACTIVATE_ASYNC_LOAD": "1"}))
        if placement.spread:

            def opened(path: str, **_: Any) -> SharedFile:
                return SharedFile(path, next(numbers) % distributed.get_world_size())

            stack.enter_context(mock.patch.object(modeling_utils, "safe_open", opened))
            # it takes as much of a GPU as the whole model
            stack.enter_context(mock.patch.object(modeling_utils, "caching_allocator_warmup"))
        yield


class SharedFile:
    """In the place of safetensors' `safe_open`: one process reads the file's tensors, and all get them."""

    def __init__(self, path: str, reader: int) -> None:
        """`reader`: the rank of the process that reads, the same on all."""
        # not mapped: what is mapped counts as this process's memory while it is open
        self._file: Any = safe_open(path, framework="pt", device="cpu", backend="pread")
        self._reader = reader
        # NCCL tells from GPU to GPU
        self._device = torch.device("cuda") if distributed.get_backend() == "nccl" else torch.device("cpu")

    def __enter__(self) -> SharedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__(None, None, None)

    def keys(self) -> list[str]:
        return list(self._file.keys())

    def metadata(self) -> dict[str, str] | None:
        found: dict[str, str] | None = self._file.metadata()
        return found

    def get_slice(self, name: str) -> SharedTensor:
        return SharedTensor(self, name)

    def header(self, name: str) -> Any:
        return self._file.get_slice(name)

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """A collective."""
        tensor: torch.Tensor
        if self._reader == distributed.get_rank():
            tensor = self._file.get_tensor(name).to(self._device)
        else:
            tensor = torch.empty(self.header(name).get_shape(), dtype=dtype, device=self._device)
        if tensor.numel() and distributed.get_world_size() > 1:
            distributed.broadcast(tensor.contiguous().view(-1).view(torch.uint8), self._reader)
        return tensor


class SharedTensor:
    """As safetensors' slices are, for those who want all of a tensor."""

    def __init__(self, file: SharedFile, name: str) -> None:
        self._file, self._name = file, name

    def get_shape(self) -> list[int]:
        shape: list[int] = self._file.header(self._name).get_shape()
        return shape

    def get_dtype(self) -> str:
        dtype: str = self._file.header(self._name).get_dtype()
        return dtype

    def __getitem__(self, _: Any) -> torch.Tensor:
        from llm_trainer.models.weights import DATA_TYPES

        return self._file.read(self._name, DATA_TYPES[self.get_dtype()])
