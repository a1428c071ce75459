"""In which precision attention is computed on a CPU, by what comes out of it, bit by bit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from llm_trainer.models.attention import sdpa_attention

HEADS, OF_KEYS = 4, 2


def states(length: int, size: int, dtype: torch.dtype, keys: int = 0) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = ((HEADS, length), (OF_KEYS, keys or length), (OF_KEYS, keys or length))
    return [torch.randn(2, *shape, size, dtype=dtype, requires_grad=True) for shape in shapes]


def made(function: Any, given: list[torch.Tensor], mask: torch.Tensor | None) -> list[torch.Tensor]:
    """The attention and the gradients."""
    module = SimpleNamespace(is_causal=True, num_key_value_groups=HEADS // OF_KEYS, training=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=given[0].dtype is torch.bfloat16):
        states, _ = function(module, *given, mask, scaling=0.3)
    weights = torch.linspace(-1, 1, states.numel(), dtype=torch.bfloat16).view(states.shape).to(states.dtype)
    return [states, *torch.autograd.grad(states, given, weights)]


def documents(length: int) -> torch.Tensor:
    """Of documents of 11 tokens, as masks of packed rows are."""
    document = torch.arange(length) // 11
    return ((document[:, None] == document) & torch.ones(length, length, dtype=torch.bool).tril())[None, None]


@pytest.mark.parametrize("mask", [None, "bool", "float"])
@pytest.mark.parametrize(("length", "size", "wide"), [(64, 32, True), (256, 64, True), (257, 64, False)])
def test_short_rows_in_float32(length: int, size: int, mask: str | None, *, wide: bool) -> None:
    given = states(length, size, torch.bfloat16)
    seen = documents(length) if mask else None
    if mask == "float":
        seen = torch.zeros(1, 1, length, length, dtype=torch.bfloat16)
        seen.masked_fill_(~documents(length), torch.finfo(torch.bfloat16).min)
    precise = seen.float() if mask == "float" and seen is not None else seen
    exact = made(sdpa_attention_forward, [part.detach().float().requires_grad_() for part in given], precise)
    expected = [part.bfloat16() for part in exact] if wide else made(sdpa_attention_forward, given, seen)
    for one, other in zip(made(sdpa_attention, given, seen), expected, strict=True):
        assert one.dtype is torch.bfloat16
        assert torch.equal(one, other)


@pytest.mark.parametrize(("dtype", "keys"), [(torch.float32, 0), (torch.bfloat16, 40)], ids=["float32", "a cache"])
def test_all_else_as_transformers_does(dtype: torch.dtype, keys: int) -> None:
    given = states(1 if keys else 64, 32, dtype, keys)
    mask = torch.ones(1, 1, 1, keys, dtype=torch.bool) if keys else None
    expected = made(sdpa_attention_forward, given, mask)
    assert all(map(torch.equal, made(sdpa_attention, given, mask), expected))


def test_models_compute_by_it() -> None:
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention
