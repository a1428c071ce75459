"""How a served model is spread over the GPUs of its pod, and whether that can work. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_operator.api.resources import MOST_GPUS
from llm_server.arguments import OTHER_SIZES, TENSOR, number_of

PATH = "spec.extraArguments"


def size_of(arguments: Sequence[str], flag: str) -> int | None:
    """What a flag says; None where it is not there or no size, which vLLM tells."""
    said = number_of(arguments, flag)
    return said if said and said > 0 else None


def tensor_parallel_size(gpus: int, arguments: Sequence[str]) -> int:
    """What we add to the arguments: as many as the other sizes leave; 1 where the user has said it."""
    if size_of(arguments, TENSOR):
        return 1
    return max(1, gpus // others(arguments))


def others(arguments: Sequence[str]) -> int:
    return math.prod(size_of(arguments, flag) or 1 for flag in OTHER_SIZES)


def parallel_problems(gpus: int, arguments: Sequence[str]) -> Iterator[str]:
    """On CPU each is a process, of which a pod may hold any number."""
    if not gpus:
        return
    own, rest = size_of(arguments, TENSOR), others(arguments)
    given = [f"{flag} {size}" for flag in (TENSOR, *OTHER_SIZES) if (size := size_of(arguments, flag))]
    if own and own * rest != gpus:
        yield f"{PATH}: {' × '.join(given)} is {own * rest}, and a pod has {gpus} GPUs; make them equal"
    elif not own and gpus % rest:
        yield f"{PATH}: {' × '.join(given)} does not divide the {gpus} GPUs of a pod; use a divisor"


def head_problem(keys: Mapping[str, Any], tensor_parallel: int) -> str | None:
    """Why a model can't be spread over so many GPUs; ``keys``: of its configuration, with the family's defaults."""
    heads = next((keys[name] for name in ("num_attention_heads", "n_head", "num_heads") if keys.get(name)), None)
    if heads and heads % tensor_parallel:  # of which a model may have a hundred million
        fitting = ", ".join(str(count) for count in range(1, min(heads, MOST_GPUS) + 1) if heads % count == 0)
        return f"{heads} heads are not divisible by the {tensor_parallel} GPUs; use one of {fitting}"
    shared = keys.get("num_key_value_heads")
    if shared and shared % tensor_parallel and tensor_parallel % shared:
        return (
            f"num_key_value_heads {shared} and the {tensor_parallel} GPUs do not divide one another; "
            f"use a divisor or a multiple of {shared}"
        )
    return None
