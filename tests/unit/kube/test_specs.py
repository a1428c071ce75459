"""A spec is validated once, and what is remembered is bounded."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import pytest

from llm_operator.api.parallel import head_problem
from llm_operator.api.training_status import LLMTrainingStatus
from llm_operator.api.validation import MOST_PROBLEMS, PROBLEM_BYTES, InvalidSpecError, load_training
from llm_operator.kube.failure import LOGGED_BYTES, trace_of
from llm_operator.kube.specs import Specs
from tests import hostile
from tests.specs import TRAINING


def owner(uid: str, spec: Any, generation: int = 1) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "generation": generation}, "spec": spec}


class Counting:
    """How often something was validated."""

    def __init__(self) -> None:
        self.loads = 0

    def __call__(self, spec: object) -> object:
        self.loads += 1
        return load_training(spec)


def test_it_is_validated_once_a_generation() -> None:
    load = Counting()
    specs = Specs(load)
    for generation in (1, 1, 2, 2, 1):
        specs.of(owner("a", TRAINING, generation))
    specs.of(owner("b", {"wrong": 1}))
    specs.of(owner("b", {"wrong": 1}))
    assert load.loads == 3


def test_large_ones_take_the_place_of_many() -> None:
    load = Counting()
    specs = Specs(load, most=10_000)
    for number in range(100):
        specs.of(owner(str(number), TRAINING))
    assert 1 < len(specs._known) < 20
    large = {**TRAINING, "resources": {"limits": {"cpu": "1" * 20_000}}}
    specs.of(owner("large", large))
    assert specs._bytes <= 10_000


def test_what_is_wrong_keeps_nothing_of_what_was_looked_at() -> None:
    class Seen(dict[str, Any]):
        """Can be referred to weakly."""

    spec = Seen({**TRAINING, "wrong": "x" * 10_000})
    seen, specs = weakref.ref(spec), Specs(load_training)
    found = specs.of(owner("a", spec))
    del spec
    gc.collect()
    assert isinstance(found, InvalidSpecError)
    assert seen() is None
    assert (found.__cause__, found.__context__, found.__traceback__) == (None, None, None)


@pytest.mark.parametrize("title", hostile.TRAININGS)
def test_what_is_told_of_any_spec_is_bounded(title: str) -> None:
    found = Specs(load_training).of(owner("a", hostile.TRAININGS[title]))
    problems = found.problems if isinstance(found, InvalidSpecError) else ()
    assert len(problems) <= MOST_PROBLEMS + 1
    assert all(len(problem.encode()) <= PROBLEM_BYTES for problem in problems)


def test_of_many_problems_the_first_are_told() -> None:
    with pytest.raises(InvalidSpecError) as refused:
        load_training(hostile.TRAININGS["unknown keys"])
    assert "spec[key-0]: there is no such field" in refused.value.problems[0]
    assert refused.value.problems[-1] == "and more; mend these first"


def test_a_failure_is_logged_in_few_words_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    try:
        LLMTrainingStatus.model_validate({"stages": ["x" * 100] * hostile.KEYS})
    except ValueError as error:
        with caplog.at_level(logging.ERROR):
            text = trace_of(error)
    assert len(text) < LOGGED_BYTES + 8192
    assert "and 24997 more" in text
    assert "test_specs.py" in text


def test_a_hundred_million_heads_are_not_tried_one_by_one() -> None:
    said = head_problem({"num_attention_heads": 10**12}, 3)
    assert said is not None
    assert said.endswith("not divisible by the 3 GPUs; use one of 1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64")
