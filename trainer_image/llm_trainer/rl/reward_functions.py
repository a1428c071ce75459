"""Reward functions that a user has built into the image. Imports nothing heavy: data preparation checks them."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from typing import Any

from llm_trainer.runtime.errors import ConfigurationError

Function = Callable[..., list[float | None]]


def load_function(name: str, field: str) -> Function:
    """Raises ConfigurationError if the image has no such function, or one that can't be called as TRL calls one."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise ConfigurationError(
            f"{field}: {name!r} can't be imported: {error}; build it into the trainer image or correct the name"
        ) from error
    except AttributeError as error:
        raise ConfigurationError(f"{field}: module {module} has no {attribute!r}; correct the name") from error
    if not callable(found):
        raise ConfigurationError(f"{field}: {name!r} is a {type(found).__name__} and no function")
    parameters = inspect.signature(found).parameters.values()
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        raise ConfigurationError(
            f"{field}: {name!r} does not take every keyword that it is called with, such as the dataset's columns; "
            f"write def {attribute}(completions, **columns)"
        )
    function: Function = found
    return function


def guarded(function: Function, name: str, field: str) -> Function:
    """The function, whose faults are told as the user's."""

    def call(*, completions: list[Any], **named: Any) -> list[float | None]:
        try:
            rewards = function(completions=completions, **named)
        except Exception as error:
            raise ConfigurationError(f"{field}: {name} raised {type(error).__name__}: {error}") from error
        if len(rewards) != len(completions):
            raise ConfigurationError(
                f"{field}: {name} gave {len(rewards)} rewards for {len(completions)} completions; "
                "it must give one for each"
            )
        for reward, completion in zip(rewards, completions, strict=True):
            if reward is None or not math.isfinite(reward):
                raise ConfigurationError(f"{field}: {name} gave {reward} for the completion {str(completion)[:200]!r}")
        return rewards

    call.__name__ = name  # TRL names its figures by it
    return call
