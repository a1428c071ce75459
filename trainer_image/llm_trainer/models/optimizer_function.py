"""A torch optimizer that a function of the user's makes, and what it must do to be trusted with a model.

All is tried with a small model on CPU before any GPU is taken: an optimizer that makes no step, that loses its state in
a checkpoint, or that looks at the shapes which ZeRO takes away, would show only in the losses.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from llm_trainer.config import ResolvedOptimizer
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.functions import call, check_signature, load_function

Group = dict[str, Any]
WRITTEN = "(groups, lr, betas, eps, weight_decay)"
STEPS, RATE = 4, 0.01  # of the small model: a step by the stage's own rate may be too small for float32
SHAPES = (("matrices", (6, 4)), ("vectors", (6,)), ("matrices", (4, 8)))  # of the small model, and their groups
TOLERANCE = 1e-5  # relative: sums in another order


@dataclass(frozen=True)
class Maker:
    """`function` called as it is for a model. ``field`` is for messages."""

    name: str
    settings: ResolvedOptimizer
    field: str
    function: Callable[..., Any]

    def __call__(self, groups: Iterable[Group]) -> Optimizer:
        """Raises ConfigurationError for what is no optimizer of all parameters."""
        given = list(groups)
        wanted = {id(parameter) for group in given for parameter in group["params"]}
        optimizer = call(self.function, self.name, self.field, given, **arguments(self.settings))
        if not isinstance(optimizer, Optimizer):
            raise self.error(f"gave a {type(optimizer).__name__}; it must return a torch.optim.Optimizer")
        taken = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
        if sorted(taken) != sorted(wanted):
            raise self.error(
                f"made an optimizer of {len(taken)} of the {len(wanted)} parameters; it must take all, each once"
            )
        for group in optimizer.param_groups:
            if not isinstance(rate := group.get("lr"), int | float) or not math.isfinite(rate):
                raise self.error(
                    f"made a group whose lr is {rate!r}; each needs a number, of which the schedule takes a share"
                )
        return optimizer

    def error(self, said: str) -> ConfigurationError:
        return ConfigurationError(f"{self.field}: {self.name} {said}")


def arguments(settings: ResolvedOptimizer) -> dict[str, Any]:
    """As torch names them; the groups have a weight decay each, which goes before this one."""
    return {
        "lr": settings.learning_rate,
        "betas": (settings.beta1, settings.beta2),
        "eps": settings.epsilon,
        "weight_decay": settings.weight_decay,
    }


def optimizer_maker(name: str, settings: ResolvedOptimizer, field: str, *, flat: bool) -> Maker:
    """Checked. `flat`: ZeRO is going to give the optimizer flat parts of the parameters in their place.

    Raises ConfigurationError, with what to do.
    """
    function = load_function(name, field)
    check_signature(function, name, field, WRITTEN, [], **arguments(settings))
    maker = Maker(name, settings, field, function)
    with torch.random.fork_rng(devices=[]):
        check(maker, flat=flat)
    return maker


def check(maker: Maker, *, flat: bool) -> None:
    """Raises ConfigurationError."""
    made = Trial(maker).run(STEPS)
    if not torch.isfinite(made).all():
        raise maker.error("made weights that are not finite from small gradients; mend its step")
    if torch.equal(made, Trial(maker).weights):
        raise maker.error("makes no step: the weights are what they were; mend its step")
    if not torch.equal(made, Trial(maker).run(STEPS)):
        raise maker.error("makes other steps from the same gradients; every process must make the same one")
    if torch.equal(made, Trial(maker, rate=0.5).run(STEPS)):
        raise maker.error(
            "pays no heed to the lr of its groups, so that the schedule would do nothing; use group['lr']"
        )
    check_state(maker, made)
    if flat and not torch.allclose(parts_of(maker), made, rtol=TOLERANCE, atol=1e-7):
        raise maker.error(
            "makes other steps of flat parts of the parameters than of the whole ones, and ZeRO gives it flat parts; "
            "set zeroStage: 0, on GPUs with precision: float32, or let each weight's step depend on that weight alone"
        )


def check_state(maker: Maker, made: torch.Tensor) -> None:
    """Whether a checkpoint holds all that the optimizer knows. Raises ConfigurationError."""
    before, file = Trial(maker), io.BytesIO()
    before.run(STEPS // 2)
    torch.save(before.optimizer.state_dict(), file)
    file.seek(0)
    after = Trial(maker, begun=before)
    try:
        after.optimizer.load_state_dict(torch.load(file, weights_only=True))
    except Exception as error:
        raise maker.error(
            f"has a state that a checkpoint can't give back ({type(error).__name__}); keep tensors, numbers and texts "
            "in state_dict()"
        ) from error
    if not torch.equal(after.run(STEPS - STEPS // 2, first=STEPS // 2), made):
        raise maker.error(
            "goes on otherwise after a checkpoint: it knows what its state_dict() doesn't have; keep all in self.state"
        )


def parts_of(maker: Maker) -> torch.Tensor:
    """The weights by two processes of ZeRO, each of which has half of every group as one tensor."""
    halves = [FlatTrial(maker, part) for part in range(2)]
    for half in halves:
        half.run(STEPS)
    made: dict[int, torch.Tensor] = {}  # by the place of a parameter
    for places, *parts in zip(halves[0].places, *(half.flat for half in halves), strict=True):
        sizes = [halves[0].parameters[place].numel() for place in places]
        made |= zip(places, torch.split(torch.cat([part.detach() for part in parts]), sizes), strict=True)
    return torch.cat([made[place] for place in sorted(made)])


class Trial:
    """A small model and an optimizer of it; its gradients are always the same."""

    def __init__(self, maker: Maker, *, rate: float = 1.0, begun: Trial | None = None) -> None:
        """`rate`: factor of lr; `begun`: whose weights it goes on with."""
        generator = torch.Generator().manual_seed(0)
        self.maker = maker = replace(maker, settings=maker.settings.model_copy(update={"learning_rate": RATE}))
        self.parameters = [Parameter(torch.randn(shape, generator=generator)) for _, shape in SHAPES]
        if begun:
            self.parameters = [Parameter(parameter.detach().clone()) for parameter in begun.parameters]
        decay = {"matrices": maker.settings.weight_decay, "vectors": 0.0}
        self.optimizer = maker(
            {"name": group, "params": self._of(group), "weight_decay": share} for group, share in decay.items()
        )
        for group in self.optimizer.param_groups:
            group["lr"] *= rate

    def _of(self, group: str) -> list[Parameter]:
        return [parameter for parameter, (name, _) in zip(self.parameters, SHAPES, strict=True) if name == group]

    @property
    def weights(self) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters])

    def run(self, steps: int, first: int = 0) -> torch.Tensor:
        """The weights after so many steps, of which the first has this number."""
        for step in range(first, first + steps):
            self.give(gradients(step))
            call(self.optimizer.step, self.maker.name, self.maker.field)
        return self.weights

    def give(self, found: list[torch.Tensor]) -> None:
        for parameter, gradient in zip(self.parameters, found, strict=True):
            parameter.grad = gradient


class FlatTrial(Trial):
    """As DeepSpeed does it: what each group holds becomes one tensor after the optimizer was made."""

    def __init__(self, maker: Maker, part: int) -> None:
        """`part`: of two."""
        super().__init__(maker)
        self.part = part
        place = {id(parameter): place for place, parameter in enumerate(self.parameters)}
        self.places = [[place[id(parameter)] for parameter in group["params"]] for group in self.optimizer.param_groups]
        self.flat = [Parameter(self._part_of(self.parameters, places)) for places in self.places]
        for group, parameter in zip(self.optimizer.param_groups, self.flat, strict=True):
            group["params"] = [parameter]

    def give(self, found: list[torch.Tensor]) -> None:
        for parameter, places in zip(self.flat, self.places, strict=True):
            parameter.grad = self._part_of(found, places)

    def _part_of(self, tensors: Sequence[torch.Tensor], places: list[int]) -> torch.Tensor:
        whole = torch.cat([tensors[place].detach().flatten() for place in places])
        return whole.chunk(2)[self.part].clone()


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step + 1)
    return [torch.randn(shape, generator=generator) for _, shape in SHAPES]
