"""A reward function that can't work is told as the user's, with its field."""

from __future__ import annotations

from typing import Any

import pytest

from llm_trainer.rl.reward_functions import guarded, load_reward
from llm_trainer.runtime.errors import ConfigurationError

FIELD = "rewards[0].function"


def broken(completions: list[str], **_: Any) -> list[float | None]:
    raise KeyError("answer")


def narrow(prompts: list[str], completions: list[str]) -> list[float | None]:
    return [1.0 for _ in completions]


def test_a_function_of_the_image() -> None:
    assert load_reward(f"{__name__}:broken", FIELD) is broken


@pytest.mark.parametrize(
    ("name", "says"),
    [("no_such_module:f", "can't be imported"), (f"{__name__}:missing", "has no 'missing'"),
     (f"{__name__}:FIELD", "is a str and no function"),
     (f"{__name__}:narrow", r"write def narrow\(completions, \*\*columns\)")],
)  # fmt: skip
def test_functions_that_are_not_there(name: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as error:
        load_reward(name, FIELD)
    assert str(error.value).startswith(FIELD)


@pytest.mark.parametrize(
    ("rewards", "says"),
    [([1.0], "gave 1 rewards for 2 completions"), ([1.0, None], "gave None for the completion 'b'"),
     ([float("nan"), 1.0], "gave nan for the completion 'a'")],
)  # fmt: skip
def test_rewards_that_are_none(rewards: list[float | None], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        guarded(lambda **_: rewards, "checks:f", FIELD)(completions=["a", "b"])


def test_a_function_that_raises() -> None:
    with pytest.raises(ConfigurationError, match="checks:f raised KeyError: 'answer'"):
        guarded(broken, "checks:f", FIELD)(completions=["a"])
