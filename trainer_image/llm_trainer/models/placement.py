"""Where a model's weights go as soon as they are there, so that no process holds more of them than it needs.

With ZeRO-3 each process keeps its part of a weight, and gives back the rest before the next one is made or read.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.nn import Module, Parameter
from transformers import PreTrainedModel
from transformers.integrations import deepspeed as integration

from llm_trainer.config import StageConfig, settings_of
from llm_trainer.models.engine_config import computes_in_bfloat16
from llm_trainer.models.joined import Joined

LARGE = 1 << 18  # elements


@dataclass(frozen=True)
class Placement:
    """Of the models of a stage."""

    device: torch.device
    dtype: torch.dtype | None  # of weights, None for their own; buffers keep theirs
    spread: bool  # over all processes, which have joined each other

    @classmethod
    def of(cls, config: StageConfig) -> Placement:
        """As the stage's engine wants them: on CPU in float32, on a GPU in what it computes by."""
        settings = settings_of(config)
        spread = settings is not None and settings.zero_stage == 3
        if config.device != "cuda" or settings is None:
            return cls(torch.device("cpu"), torch.float32, spread)
        device = torch.device("cuda", torch.cuda.current_device())
        half = computes_in_bfloat16(settings, device)
        return cls(device, torch.bfloat16 if half else torch.float32, spread)

    @property
    def loading(self) -> dict[str, Any]:
        """Arguments of `from_pretrained`."""
        return {
            "dtype": self.dtype or "auto",
            **({"device_map": {"": self.device}} if self.device.type == "cuda" else {}),
        }

    @property
    def moves(self) -> bool:
        """Whether a weight does not stay where and as it was made."""
        return self.spread or self.device.type != "cpu"

    @torch.no_grad()
    def place(self, module: Module, name: str) -> None:
        """The weight `name` of the module's own; the parameter stays the same object."""
        parameter = module._parameters[name]
        if parameter is None or parameter.is_meta or is_spread(parameter):
            return
        dtype = self.dtype if self.dtype and parameter.is_floating_point() else parameter.dtype
        parameter.data = parameter.data.to(self.device, dtype)
        if self.spread:
            partition(parameter, self.device.type)
            if parameter.ds_numel >= LARGE:  # type: ignore[attr-defined]
                give_back()

    def place_all(self, model: Module) -> None:
        """What has no place yet; a collective if it is spread."""
        for module in model.modules():
            for name in module._parameters:
                self.place(module, name)


HERE = Placement(torch.device("cpu"), torch.float32, spread=False)


def is_spread(parameter: torch.Tensor) -> bool:
    return hasattr(parameter, "ds_id")


def shape_of(weight: torch.Tensor | Joined) -> torch.Size:
    """ZeRO-3 keeps the shape of a weight that it has spread apart from it."""
    shape: torch.Size = getattr(weight, "ds_shape", weight.shape)
    return shape


def whole(weights: Iterable[torch.Tensor], *, changed: bool = False) -> AbstractContextManager[Any]:
    """Weights that may be spread, whole on every process; a collective. `changed`: all change them, to the same."""
    spread = [weight for weight in weights if is_spread(weight)]
    if not spread:
        return nullcontext()
    import deepspeed

    gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(
        spread, modifier_rank=0 if changed else None
    )
    return gathered


def partition(parameter: Parameter, device: str) -> None:
    """Keep this process's part alone, on the device. All hold the same, so that nothing is told."""
    partitioner(device)._convert_to_deepspeed_param(parameter)
    parameter.partition()  # type: ignore[attr-defined]


@cache
def partitioner(device: str) -> Any:
    """DeepSpeed's own, as its engine makes it of an empty module; what it partitions, an engine takes as it is."""
    import deepspeed

    return deepspeed.zero.Init(module=Module(), dtype=torch.float32, remote_device="cpu" if device == "cpu" else None)


def give_back() -> None:
    """What was freed, to the system: glibc keeps holes of up to 32 MiB, which come to another whole of the model."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def without_transformers_zero3() -> Iterator[None]:
    """Between TRL's arguments and the end, transformers would read every model whole on each process and spread it."""
    known = integration._hf_deepspeed_config_weak_ref
    integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        integration._hf_deepspeed_config_weak_ref = known


def marked_tied(model: PreTrainedModel) -> set[str]:
    """Names of weights that transformers may yet tie, for which it compares them."""
    tied: dict[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    return {*tied.keys(), *tied.values()}
