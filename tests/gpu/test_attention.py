"""torch's variable-length attention against a plain loop over the documents in float64, and against SDPA."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from llm_trainer.models.attention import VARLEN, varlen_attention

LENGTHS = (5, 300, 1, 718)  # documents of one row
BFLOAT16 = 1e-2  # relative error of what is rounded to bfloat16 once or twice


def positions_of(lengths: tuple[int, ...]) -> torch.Tensor:
    """(1, length) on the GPU."""
    return torch.cat([torch.arange(length) for length in lengths])[None].cuda()


def error(made: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative; not a number never passes."""
    return float((made.double() - expected.double()).norm() / expected.double().norm())


def by_hand(states: list[torch.Tensor], lengths: tuple[int, ...], window: int | None) -> torch.Tensor:
    """(1, length, heads, size) of (1, heads, length, size), each document for itself."""
    query, key, value = (part.double() for part in states)
    group = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(group, dim=1) for part in (key, value))
    outputs, begin = [], 0
    for length in lengths:
        q, k, v = (part[:, :, begin : begin + length] for part in (query, key, value))
        place = torch.arange(length, device=query.device)
        distance = place[:, None] - place[None, :]
        seen = (distance >= 0) & (distance < (window or length))
        scores = (q @ k.transpose(2, 3) / query.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
        outputs.append(scores.softmax(dim=-1) @ v)
        begin += length
    return torch.cat(outputs, dim=2).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.parametrize(("heads", "groups", "size"), [(8, 8, 64), (8, 2, 128), (4, 1, 96), (4, 4, 256), (4, 2, 8)])
def test_forward_and_backward(heads: int, groups: int, size: int, window: int | None, record_property: Any) -> None:
    torch.manual_seed(heads * size)
    length = sum(LENGTHS)
    shapes = ((1, heads, length, size), (1, groups, length, size), (1, groups, length, size))
    states = [torch.randn(shape, device="cuda").bfloat16().requires_grad_() for shape in shapes]
    exact = [part.detach().double().requires_grad_() for part in states]
    positions = positions_of(LENGTHS)
    module = torch.nn.Module()
    query, key, value = states
    made, _ = varlen_attention(module, query, key, value, None, position_ids=positions, sliding_window=window)
    expected = by_hand(exact, LENGTHS, window)
    weight = torch.randn_like(made)
    torch.autograd.backward([(made * weight).sum(), (expected * weight.double()).sum()])
    errors = {"output": error(made, expected)}
    for name, part, truth in zip(("query", "key", "value"), states, exact, strict=True):
        assert part.grad is not None
        assert truth.grad is not None
        errors[name] = error(part.grad, truth.grad)
    record_property("seen", ", ".join(f"{name}: {value:.1e}" for name, value in errors.items()))
    assert all(value < BFLOAT16 for value in errors.values()), errors


def llama(implementation: str, dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048,
    )  # fmt: skip
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    return model.to("cuda", dtype)


def test_a_model_says_the_same_by_each_attention() -> None:
    """And a packed row says what its documents say alone. Float32 by SDPA is the truth."""
    tokens = torch.randint(512, (1, sum(LENGTHS)), device="cuda")
    positions = positions_of(LENGTHS)
    truth = llama("sdpa", torch.float32)(input_ids=tokens, position_ids=positions, use_cache=False).logits
    alone = [
        llama(VARLEN, torch.bfloat16)(input_ids=part, use_cache=False).logits
        for part in torch.split(tokens, list(LENGTHS), dim=1)
    ]
    errors = {"alone": error(torch.cat(alone, dim=1), truth)}
    for name in (VARLEN, "sdpa"):
        model = llama(name, torch.bfloat16)
        errors[name] = error(model(input_ids=tokens, position_ids=positions, use_cache=False).logits, truth)
    assert all(value < 2 * BFLOAT16 for value in errors.values()), errors
    assert errors[VARLEN] < 1.5 * errors["sdpa"], errors
