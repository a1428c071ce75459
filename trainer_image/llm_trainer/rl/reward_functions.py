"""Reward functions of the user's. Imports nothing heavy: data preparation checks them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.functions import call, load_function

Function = Callable[..., list[float | None]]


def load_reward(name: str, field: str) -> Function:
    """Raises ConfigurationError if there is no such function, or one that can't be called as TRL calls one."""
    function = load_function(name, field)
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # one of C
        return function
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        attribute = name.partition(":")[2]
        raise ConfigurationError(
            f"{field}: {name!r} does not take every keyword that it is called with, such as the dataset's columns; "
            f"write def {attribute}(completions, **columns)"
        )
    return function


def guarded(function: Function, name: str, field: str) -> Function:
    """The function, whose faults are told as the user's."""

    def reward(*, completions: list[Any], **named: Any) -> list[float | None]:
        rewards: list[float | None] = call(function, name, field, completions=completions, **named)
        if len(rewards) != len(completions):
            raise ConfigurationError(
                f"{field}: {name} gave {len(rewards)} rewards for {len(completions)} completions; "
                "it must give one for each"
            )
        for given, completion in zip(rewards, completions, strict=True):
            if given is None or not math.isfinite(given):
                raise ConfigurationError(f"{field}: {name} gave {given} for the completion {str(completion)[:200]!r}")
        return rewards

    reward.__name__ = name  # TRL names its figures by it
    return reward
