"""torch.compile of a decoder's layers, where they are seen to compute what they did, and how much faster.

A layer at a time, as torchtitan does it: layers are alike, so that one compilation serves them all, and what is between
them (the loss in tiles, activations made again, DeepSpeed's hooks) stays as it is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch.nn import Module
from transformers.modeling_layers import GradientCheckpointingLayer

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of the largest number
NOISE = 1e-3
TURNS = 3  # of which the least time counts; a layer is compiled in the first
KINDS = 64  # of layers and of what they are given; beyond torch's default of 8 it would go on eagerly, on some ranks
OPTIONS: dict[str, Any] = {"fallback_random": True}  # dropout as torch draws it
# One compiler at a time, as a process has a thread; and what the CPU says that it has isn't tried, by six processes.
ON_CPU: dict[str, Any] = {"compile_threads": 1, "cpp.vec_isa_ok": True}

Forward = Callable[..., Any]
Precision = Callable[[], AbstractContextManager[Any]]


class Call(NamedTuple):
    """What a layer was given in a pass."""

    given: tuple[Any, ...]
    named: dict[str, Any]


class Seconds(NamedTuple):
    """Of one pass of all layers, forwards and backwards."""

    eager: float
    compiled: float


class DiffersError(Exception):
    """What was compiled computes something else."""


def layers_of(model: Module) -> list[Module]:
    """Those that transformers marks as such."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


class CompiledLayers:
    """Of one model. Nothing of the model changes before `adopt`."""

    def __init__(self, model: Module) -> None:
        os.environ.pop("TORCHDYNAMO_DISABLE", None)  # of pods on CPU, see launch.py
        self.layers, options = layers_of(model), {**OPTIONS, **({} if torch.cuda.is_available() else ON_CPU)}
        self._compiled: list[Forward] = [
            torch.compile(layer.forward, options=options, recompile_limit=KINDS)  # type: ignore[call-overload]
            for layer in self.layers
        ]

    @contextmanager
    def calls(self) -> Iterator[list[Call]]:
        """What each is given in the pass that is made within, in their order."""
        found: list[Call] = []

        def note(_: Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            found.append(Call(given, named))

        hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in self.layers]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()

    def compare(
        self, calls: Sequence[Call], precision: Precision, dtype: torch.dtype, alive: Callable[[], None]
    ) -> Seconds:
        """Compile, and compute each layer both ways. Raises DiffersError, and whatever compiling raises.

        ``precision``: the context of a pass, whose products are in ``dtype``. ``alive`` is called after each layer.
        """
        eager_seconds = compiled_seconds = 0.0
        for layer, compiled, call in zip(self.layers, self._compiled, calls, strict=True):
            eager, wanted = timed(layer, layer.forward, call, precision)
            seconds, found = timed(layer, compiled, call, precision)
            if not (apart := distance(found, wanted)) <= TOLERANCE[dtype]:  # NaN is not
                raise DiffersError(f"a compiled {type(layer).__name__} is {apart:.1e} from what it is")
            eager_seconds, compiled_seconds = eager_seconds + eager, compiled_seconds + seconds
            alive()
        return Seconds(eager_seconds, compiled_seconds)

    def adopt(self) -> None:
        """Where the model learns; what it says without gradients stays eager, in whatever shape."""
        for layer, compiled in zip(self.layers, self._compiled, strict=True):
            layer.forward = MethodType(learning_by(compiled, layer.forward), layer)


def timed(layer: Module, forward: Forward, call: Call, precision: Precision) -> tuple[float, list[torch.Tensor]]:
    """The least seconds of some turns, and the last one's value and gradients."""
    least = float("inf")
    for _ in range(TURNS):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            began = time.perf_counter()
            made = values_and_gradients(layer, forward, call, precision)
            least = min(least, time.perf_counter() - began)
    return least, made


def values_and_gradients(layer: Module, forward: Forward, call: Call, precision: Precision) -> list[torch.Tensor]:
    """No weight's own gradient is touched, so DeepSpeed's hooks see nothing."""
    hidden, *others = call.given
    hidden = hidden.detach().requires_grad_()
    weights = [weight for weight in layer.parameters() if weight.requires_grad]
    with precision():
        made = forward(hidden, *others, **call.named)
    made = made if isinstance(made, torch.Tensor) else made[0]
    slope = torch.linspace(-1, 1, made.numel(), dtype=made.dtype, device=made.device).view_as(made)
    found = torch.autograd.grad(made, [hidden, *weights], slope, allow_unused=True)
    if made.is_cuda:
        torch.cuda.synchronize(made.device)
    return [made.detach(), *(part for part in found if part is not None)]


def distance(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> float:
    """The greatest, as a share of a tensor's largest number; of one that is nothing but noise, as the gradient of keys'
    biases is, of the largest of all.
    """
    sizes = [float(one.float().abs().max()) for one in wanted]
    least = NOISE * max(sizes)
    return max(
        float((one.float() - other.float()).abs().max()) / max(size, least)
        for one, other, size in zip(found, wanted, sizes, strict=True)
    )


def learning_by(compiled: Forward, eager: Forward) -> Forward:
    def forward(_: Module, *given: Any, **named: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else eager)(*given, **named)

    return forward
