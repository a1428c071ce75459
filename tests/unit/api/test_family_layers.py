"""What is counted by a formula is what a loop over the layers would count."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llm_operator.api.families import expert_layers, in_period, size_by_formula
from llm_trainer.config import Architecture

COUNTS = st.integers(0, 1024)
PERIODS = st.integers(1, 40)


@given(COUNTS, st.integers(1, 1100), COUNTS)
def test_layers_at_an_offset_of_a_period(layers: int, period: int, offset: int) -> None:
    assert in_period(layers, period, offset) == sum(layer % period == offset for layer in range(layers))


@given(COUNTS, PERIODS, st.lists(COUNTS, max_size=60))
def test_layers_of_qwen3_with_experts(layers: int, step: int, dense: list[int]) -> None:
    found = expert_layers("qwen3_moe", {"decoder_sparse_step": step, "mlp_only_layers": dense}, layers)
    assert found == sum(layer not in dense and (layer + 1) % step == 0 for layer in range(layers))


@given(COUNTS, COUNTS)
def test_layers_of_deepseek_with_experts(layers: int, dense: int) -> None:
    found = expert_layers("deepseek_v3", {"first_k_dense_replace": dense}, layers)
    assert found == sum(layer >= dense for layer in range(layers))


@given(st.integers(1, 1024), PERIODS, PERIODS, st.integers(0, 40), st.integers(0, 40), st.integers(1, 5))
def test_a_jamba_is_the_sum_of_its_layers(
    layers: int, attention: int, routed: int, attention_at: int, routed_at: int, experts: int
) -> None:
    """Each layer is one of four, whose parameters a model of that layer alone tells."""
    config = {"num_experts": experts, "num_experts_per_tok": 1}

    def size(count: int, **places: Any) -> tuple[int, ...]:
        made = Architecture(family="jamba", config={**config, "num_hidden_layers": count, **places})
        found = size_by_formula(made, 300)
        return found.total, found.active, found.attention_width, found.routed

    def one(*, attends: bool, has_experts: bool) -> tuple[int, ...]:
        """A layer more: of two where the second is like this one and of one without it."""
        of = {
            "attn_layer_period": 2, "attn_layer_offset": int(attends),
            "expert_layer_period": 2, "expert_layer_offset": int(has_experts),
        }  # fmt: skip
        return tuple(both - first for both, first in zip(size(2, **of), size(1, **of), strict=True))

    kinds = {(a, e): one(attends=a, has_experts=e) for a in (False, True) for e in (False, True)}
    base = tuple(
        whole - layer
        for whole, layer in zip(
            size(1, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1),
            kinds[False, False],
            strict=True,
        )
    )
    stack = [kinds[layer % attention == attention_at, layer % routed == routed_at] for layer in range(layers)]
    expected = tuple(sum(column) for column in zip(base, *stack, strict=True))
    places = {
        "attn_layer_period": attention, "attn_layer_offset": attention_at,
        "expert_layer_period": routed, "expert_layer_offset": routed_at,
    }  # fmt: skip
    assert size(layers, **places) == expected
