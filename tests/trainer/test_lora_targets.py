"""What an adapter adapts in each family, in one process: experts if asked for, and never a layer that is passed by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from llm_trainer.config import Lora
from llm_trainer.models.low_rank import lora_config, merged
from llm_trainer.runtime.errors import ConfigurationError

SIZES = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "num_experts_per_tok": 2,
}  # fmt: skip
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8},
    "deepseek_v3": {
        "n_routed_experts": 4, "moe_intermediate_size": 16, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
        "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    },
    "jamba": {
        "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4,
        "use_mamba_kernels": False,
    },
}  # fmt: skip
SAMPLE = torch.arange(1, 33)[None]


def build(family: str, **keys: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    made: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SIZES, **keys})).eval()
    return made


def adapt(model: PreTrainedModel, **lora: Any) -> PeftModel:
    """With an adapter that changes something."""
    wrapped = get_peft_model(model, lora_config(model, Lora(rank=2, alpha=4, **lora), "CAUSAL_LM")).eval()
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return wrapped


def adapted_layers(model: PeftModel) -> set[str]:
    return {name for name, _ in model.named_parameters() if "lora_A" in name}


@pytest.mark.parametrize("family", MIXTURES)
@pytest.mark.parametrize("experts", [False, True])
def test_experts_are_adapted_when_asked_for(family: str, *, experts: bool) -> None:
    names = adapted_layers(adapt(build(family, **MIXTURES[family]), experts=experts))
    assert any("q_proj" in name or "q_a_proj" in name for name in names)
    of_experts = {name for name in names if ".experts." in name}
    assert bool(of_experts) == experts, sorted(names)
    if experts:  # the two stacked weights of a layer
        assert {name.count("base_layer") for name in of_experts} == {0, 1}


@pytest.mark.parametrize("lora", [{"experts": True}, {"experts": True, "rslora": True}, {"dora": True}])
@pytest.mark.parametrize("family", MIXTURES)
def test_merged_is_base_with_adapter(tmp_path: Path, family: str, lora: dict[str, bool]) -> None:
    base = build(family, **MIXTURES[family])
    base.save_pretrained(tmp_path / "base")
    plain = base(input_ids=SAMPLE).logits
    beside = adapt(base, **lora)
    beside.save_pretrained(tmp_path / "adapter")
    whole = merged(tmp_path / "base", tmp_path / "adapter")  # checks the logits by itself
    with torch.no_grad():
        expected, found = beside(input_ids=SAMPLE).logits, whole(input_ids=SAMPLE).logits
    assert (found - expected).abs().max() / expected.abs().max() < 1e-5
    assert (found - plain).abs().max() > 1e-3, "the adapter changes nothing"


@pytest.mark.parametrize("family", ["gpt2", "mamba", "mamba2"])
def test_other_families(family: str) -> None:
    sizes = {"mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1, "state_size": 8}, "gpt2": {"n_layer": 2}}
    names = adapted_layers(adapt(build(family, **sizes.get(family, {}))))
    assert names
    assert not any(layer in name for name in names for layer in ("out_proj", "dt_proj", "lm_head"))


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        ({"experts": True, "dora": True}, "lora.dora: .* remove dora, or experts"),
        ({"experts": True, "dropout": 0.1}, "lora.dropout: 0.1 .* set it to 0"),
        ({"target_modules": ["dt_proj"]}, "lora.targetModules: dt_proj of jamba can't be adapted"),
        ({"target_modules": ["q_projection"]}, "lora.targetModules: the model has no q_projection; .* q_proj,"),
    ],
)
def test_what_can_not_be_adapted(lora: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        adapt(build("jamba", **MIXTURES["jamba"]), **lora)


@pytest.mark.parametrize(
    "names",
    [["all-linear"], ["q_proj", "Wqkv"], ["lm_head"], ["layers.0.self_attn.q_proj"], [r".*\.q_proj"], ["embed_tokens"]],
)
def test_names_of_no_layer(names: list[str]) -> None:
    """Each is told with the layers that there are; what peft would read as a pattern or a path is no name."""
    with pytest.raises(ConfigurationError, match=r"lora.targetModules: the model has no .*; its .* q_proj, ") as told:
        adapt(build("llama"), target_modules=names)
    assert names[-1] in str(told.value)


def test_no_names_are_all_layers() -> None:
    names = adapted_layers(adapt(build("llama"), target_modules=[]))
    assert {name.split(".")[-4] for name in names} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


def test_a_dense_model_has_no_experts() -> None:
    with pytest.raises(ConfigurationError, match=r"lora.experts: llama has no experts"):
        adapt(build("llama"), experts=True)


def test_less_than_two_per_cent_is_trained() -> None:
    """Of a model of 1.2 thousand million parameters with the default rank; without memory for them."""
    with torch.device("meta"):
        config = AutoConfig.for_model("llama", hidden_size=2048, intermediate_size=8192, num_hidden_layers=16)
        model = AutoModelForCausalLM.from_config(config)
        wrapped = get_peft_model(model, lora_config(model, Lora(), "CAUSAL_LM"))
    trained, everything = wrapped.get_nb_trainable_parameters()
    assert 0 < trained < 0.02 * everything, f"{trained} of {everything}"
