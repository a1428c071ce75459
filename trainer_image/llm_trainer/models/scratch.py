"""A model from scratch whose weights find their place one by one, with the values that it would have as a whole.

Chance is drawn in the order of transformers' own construction: every layer is made with its contents, which are
dropped when it becomes part of another, and is made up again when transformers initialises the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.nn import Module, ModuleList, Parameter
from torch.nn.modules.module import register_module_module_registration_hook
from transformers import PreTrainedModel, initialization

from llm_trainer.models.placement import Placement, is_spread

KEPT = 1 << 16  # elements: a weight so small stays as its layer has made it


class NotPlacedError(Exception):
    """The family's initialisation needs more of the model than what is made at a time."""


def made(make: Callable[[], PreTrainedModel], placement: Placement) -> PreTrainedModel:
    """What `make` makes, on CPU in float32, with each weight in its place; the values are those that it has there."""
    if not placement.moves:
        return make()
    before = torch.random.get_rng_state()
    model, said = None, ""
    for by_layer in (False, True):  # mamba's layers make some weights of their modules anew
        try:
            model = piece_by_piece(make, placement, by_layer=by_layer)
            break
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 -- as many ways as families; what is wrong of itself fails again
            said = f"{type(error).__name__}: {error}"
            torch.random.set_rng_state(before)
    if model is None:
        print(f"the model is made as a whole, and spread then: {said}", flush=True)
        model = make()
    placement.place_all(model)
    return model


def piece_by_piece(make: Callable[[], PreTrainedModel], placement: Placement, *, by_layer: bool) -> PreTrainedModel:
    """A module at a time, or a layer. Raises NotPlacedError, in the first layer that needs more."""
    placed: dict[Parameter, int] = {}
    with (
        dropped_contents(),
        mock.patch.object(PreTrainedModel, "initialize_weights", Initialisation(placement, placed, by_layer=by_layer)),
    ):
        model = make()
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise NotPlacedError(f"{name} was not initialised")
        refuse_changed(name, parameter, placed)
    return model


def refuse_changed(name: str, parameter: Parameter, placed: dict[Parameter, int]) -> None:
    if placed.get(parameter, parameter._version) != parameter._version:
        raise NotPlacedError(f"{name} was changed after it had its place")


@contextmanager
def dropped_contents() -> Iterator[None]:
    """What becomes part of a module loses its large weights' contents."""

    def drop(_: Module, __: str, child: Module | None) -> None:
        for module in child.modules() if child is not None else ():
            for key, parameter in module._parameters.items():
                here = parameter is not None and parameter.device.type == "cpu" and not is_spread(parameter)
                if parameter is not None and here and parameter.numel() > KEPT:
                    module._parameters[key] = like(parameter, "meta")

    hook = register_module_module_registration_hook(drop)
    try:
        yield
    finally:
        hook.remove()


class Empty(NamedTuple):
    """A weight of a module that is to be initialised, and its version before."""

    module: Module
    name: str
    weight: Parameter
    version: int


class Initialisation:
    """In the place of transformers' `initialize_weights`: module by module, in its order."""

    def __init__(self, placement: Placement, placed: dict[Parameter, int], *, by_layer: bool) -> None:
        """`placed`: each weight that got its place, with its version then; `by_layer`: when its whole layer is made."""
        self.placement, self.placed, self.by_layer = placement, placed, by_layer

    def __get__(self, model: PreTrainedModel | None, _: type) -> Any:
        return self if model is None else lambda: self(model)

    @torch.no_grad()
    def __call__(self, model: PreTrainedModel) -> None:
        with initialization.guard_torch_init_functions():
            self._apply(model, model._initialize_weights)

    def _apply(self, module: Module, initialise: Callable[..., None], layer: list[Empty] | None = None) -> None:
        """`layer`: of which the module is a part; gets its weights, which wait for the rest of it."""
        for child in module.children():
            own = child._initialize_weights if isinstance(child, PreTrainedModel) else initialise
            begins = self.by_layer and layer is None and isinstance(module, ModuleList)
            inside = [] if begins else layer
            self._apply(child, own, inside)
            if begins and inside:
                self._place(inside)
        empty = []
        for name, weight in module._parameters.items():
            if weight is not None and weight.is_meta:
                module._parameters[name] = made = like(weight, "cpu")
                empty.append(Empty(module, name, made, made._version))
        initialise(module, False)  # noqa: FBT003 -- as transformers calls it
        if layer is not None:
            layer += empty
            return
        if not isinstance(module, PreTrainedModel):  # whose weights are all looked at in the end
            for key, parameter in module.named_parameters():
                refuse_changed(f"{key} of {type(module).__name__}", parameter, self.placed)
        self._place(empty)

    def _place(self, made: list[Empty]) -> None:
        for module, name, weight, version in made:
            if weight._version == version:
                raise NotPlacedError(f"{name} of {type(module).__name__} keeps what its constructor has made")
            self.placement.place(module, name)
            self.placed[weight] = weight._version


def like(weight: Parameter, device: str) -> Parameter:
    """With all that is noted of it but its contents."""
    empty = Parameter(torch.empty_like(weight, device=device), weight.requires_grad)
    empty.__dict__.update(weight.__dict__)
    return empty
