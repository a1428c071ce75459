"""A model over the GPUs of a pod."""

from __future__ import annotations

import pytest

from llm_operator.api.parallel import head_problem, parallel_problems, tensor_parallel_size


@pytest.mark.parametrize(
    ("gpus", "arguments", "tensor"),
    [
        (0, [], 1),
        (1, [], 1),
        (8, [], 8),
        (8, ["--pipeline-parallel-size=2"], 4),
        (8, ["-dp", "2", "--pipeline_parallel_size", "2"], 2),
        (8, ["--tensor-parallel-size=8"], 1),
        (8, ["-tp=4", "-pp=2"], 1),
        (4, ["--pipeline-parallel=2"], 2),
        (4, ["--tensor-par=4"], 1),
        (0, ["--tensor-parallel-size=2"], 1),
    ],
)
def test_tensor_parallelism_is_what_the_others_leave(gpus: int, arguments: list[str], tensor: int) -> None:
    assert tensor_parallel_size(gpus, arguments) == tensor
    assert not list(parallel_problems(gpus, arguments))


@pytest.mark.parametrize(
    ("gpus", "arguments", "says"),
    [
        (8, ["--tensor-parallel-size=4"], "--tensor-parallel-size 4 is 4, and a pod has 8 GPUs"),
        (8, ["-tp", "8", "-pp", "2"], "--tensor-parallel-size 8 × --pipeline-parallel-size 2 is 16, and"),
        (4, ["--tensor-parallel=2"], "--tensor-parallel-size 2 is 2, and a pod has 4 GPUs"),
        (8, ["--data-parallel-size=3"], "--data-parallel-size 3 does not divide the 8 GPUs"),
    ],
)
def test_a_product_that_is_not_the_gpus(gpus: int, arguments: list[str], says: str) -> None:
    (problem,) = parallel_problems(gpus, arguments)
    assert problem.startswith("spec.extraArguments: ")
    assert says in problem


@pytest.mark.parametrize(
    ("keys", "size", "says"),
    [
        ({"n_head": 12}, 8, "12 heads are not divisible by the 8 GPUs; use one of 1, 2, 3, 4, 6, 12"),
        ({"num_attention_heads": 12, "num_key_value_heads": 4}, 6, "num_key_value_heads 4 and the 6 GPUs"),
        ({"num_attention_heads": 32, "num_key_value_heads": 2}, 8, None),
        ({"num_attention_heads": 32, "num_key_value_heads": None}, 8, None),
        ({"hidden_size": 8}, 8, None),
    ],
)
def test_heads(keys: dict[str, int | None], size: int, says: str | None) -> None:
    problem = head_problem(keys, size)
    assert problem is None if says is None else says in (problem or "")
