"""How the questions of a task are shared over processes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_trainer.config import Pretrain, TrainingSettings
from llm_trainer.runtime.process_group import ProcessGroup
from llm_trainer.stages.shared_requests import LIKELIHOODS, Sharing, share


@dataclass
class Question:
    doc_id: int | None


@given(st.lists(st.integers(0, 12), max_size=40), st.integers(1, 9))
def test_each_request_is_asked_once_and_those_of_a_question_together(numbers: list[int], size: int) -> None:
    requests = [Question(number) for number in sorted(numbers)]
    parts = [share(requests, rank, size) for rank in range(size)]
    assert sorted(place for part in parts for place in part) == list(range(len(requests)))
    asked = [{requests[place].doc_id for place in part} for part in parts]
    assert sum(map(len, asked)) == len(set(numbers)), "no question is two processes'"
    assert max(map(len, asked)) - min(map(len, asked)) <= 1


def test_likelihoods_are_told_exactly() -> None:
    told = [(-0.1, True), (-float("inf"), False), (-1.2345678901234567e-300, False)]
    assert LIKELIHOODS.validate_json(LIKELIHOODS.dump_json(told)) == told


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (Pretrain(sequence_length=8, steps=1), [0, 1, 2, 3]),
        (Pretrain(sequence_length=8, steps=1, tensor_parallel=2), [0, 0, 1, 1]),
        (Pretrain(sequence_length=8, steps=1, expert_parallel=2), [0, 0, 0, 0]),
    ],
)
def test_who_computes_together_asks_the_same(settings: TrainingSettings, parts: list[int]) -> None:
    """Of a model whose experts are spread all make every pass."""
    groups = [ProcessGroup(rank, 0, 4, torch.device("cpu")) for rank in range(4)]
    assert [Sharing(settings, group).own.rank for group in groups] == parts
