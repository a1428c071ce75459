"""What lets a result pass, and what is said of one that doesn't."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llm_trainer.config import Threshold
from llm_trainer.protocol import Score
from llm_trainer.stages.thresholds import metrics_of, missed

SCORES = [
    Score(task="capitals", metric="acc", value=0.25, stderr=0.1, samples=20),
    Score(task="capitals", metric="exact_match", filter="first", value=0.5),
    Score(task="prose", metric="word_perplexity", value=40.0, higher_is_better=False),
]
OWN = metrics_of({"loss": 2.5, "bitsPerByte": 1.1, "bitsPerByte/books": 1.3, "reward": math.nan}, SCORES)
BASE = metrics_of(
    {"loss": 2.4, "bitsPerByte": 1.0, "margin": math.inf}, [score.model_copy(update={"value": 0.3}) for score in SCORES]
)


@pytest.mark.parametrize(
    "threshold",
    [
        {"metric": "loss", "max": 2.5},
        {"metric": "loss", "min": 2.5},
        {"metric": "capitals/acc", "min": 0.2, "max": 0.3},
        {"metric": "capitals/exact_match,first", "min": 0.5},
        {"metric": "capitals/acc", "atLeast": {"stage": "base", "delta": 0.05}},  # 0.3 - 0.25 is more, by rounding
        {"metric": "bitsPerByte", "atLeast": {"stage": "base", "delta": 0.1}},
        {"metric": "capitals/exact_match,first", "atLeast": {"stage": "base"}},
        {"metric": "bitsPerByte/books", "atLeast": {"stage": "base", "metric": "bitsPerByte", "delta": 0.3}},
    ],
)
def test_what_passes(threshold: dict[str, Any]) -> None:
    assert missed([Threshold.model_validate(threshold)], OWN, {"base": BASE}) == []


@pytest.mark.parametrize(
    ("threshold", "says"),
    [
        ({"metric": "loss", "max": 2.4}, "loss is 2.5, more than max 2.4"),
        ({"metric": "capitals/acc", "min": 0.3}, "capitals/acc is 0.25, less than min 0.3"),
        ({"metric": "capitals/acc", "atLeast": {"stage": "base", "delta": 0.04}},
         "capitals/acc is 0.25, less than capitals/acc 0.3 of stage base by more than delta 0.04"),
        ({"metric": "bitsPerByte", "atLeast": {"stage": "base"}},
         "bitsPerByte is 1.1, more than bitsPerByte 1 of stage base"),
        ({"metric": "prose/word_perplexity", "atLeast": {"stage": "base", "delta": 39}},
         "prose/word_perplexity is 40, more than prose/word_perplexity 0.3 of stage base by more than delta 39"),
        ({"metric": "reward", "min": 0}, "reward is nan"),
        ({"metric": "margin", "min": 0}, "margin isn't known"),
        ({"metric": "loss", "atLeast": {"stage": "other"}}, "can't be compared: loss of stage other isn't known"),
        ({"metric": "loss", "atLeast": {"stage": "base", "metric": "margin"}}, "margin of stage base is inf"),
    ],
)  # fmt: skip
def test_what_does_not(threshold: dict[str, Any], says: str) -> None:
    (problem,) = missed([Threshold.model_validate(threshold)], OWN, {"base": BASE})
    assert says in problem


def test_each_problem_is_told() -> None:
    given = [{"metric": "loss", "max": 2}, {"metric": "capitals/acc", "min": 1}, {"metric": "loss", "max": 9}]
    assert len(missed([Threshold.model_validate(one) for one in given], OWN, {})) == 2
