"""No value of architecture.config breaks what is computed with it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_operator.api.families import FAMILIES
from llm_operator.api.validation import InvalidSpecError, load_training
from llm_operator.training.stages import planned_stages
from tests.specs import TRAINING, changed

KEYS = [(family, key) for family, known in FAMILIES.items() for key in known.keys]
VALUES: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers(-1, 10**12) | st.floats() | st.text(max_size=4) | st.just([1]) | st.just({})
)
COMPUTED = {
    "gpuMemory": "80Gi",
    "resources": {"limits": {"nvidia.com/gpu": 1}},
    "stages": [{"name": "base", "pretrain": {"sequenceLength": 8, "steps": 1}, "globalBatchSize": 2}],
}


@given(st.sampled_from(KEYS), VALUES)
def test_no_value_breaks_a_size(at: tuple[str, str], value: object) -> None:
    architecture = {"family": at[0], "config": {at[1]: value}}
    planned_stages(load_training(changed(TRAINING, **COMPUTED)))  # what the value is put into is right
    with contextlib.suppress(InvalidSpecError):
        planned_stages(load_training(changed(TRAINING, model={"architecture": architecture}, **COMPUTED)))


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("llama", "hidden_size", "big"),
        ("llama", "num_attention_heads", 0),
        ("llama", "num_hidden_layers", 10**9),
        ("mixtral", "head_dim", "auto"),
        ("gpt2", "n_inner", []),
        ("gpt2", "hidden_size", True),
        ("jamba", "attn_layer_period", 0),
        ("qwen3_moe", "mlp_only_layers", 1),
    ],
)
def test_a_value_that_is_no_number_is_named(family: str, key: str, value: object) -> None:
    architecture = {"family": family, "config": {key: value}}
    with pytest.raises(InvalidSpecError, match=rf"^spec\.model\.architecture\.config\.{key}: .* is (no|not) "):
        load_training(changed(TRAINING, model={"architecture": architecture}))
