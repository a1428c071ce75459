"""What decays and what Muon takes, family by family."""

from __future__ import annotations

import pytest
import torch

from llm_trainer.models.parameters import decaying, hidden_matrices, tag_for_muon
from tests.trainer.tiny import ALL, tiny


@pytest.mark.parametrize("family", ALL)
def test_what_decays_and_what_muon_takes(family: str) -> None:
    model = tiny(family)
    decay, muon = decaying(model), hidden_matrices(model)
    for name, parameter in model.named_parameters():
        leaf = name.rpartition(".")[2]
        if leaf in ("A_log", "D", "dt_bias") or leaf.endswith("bias") or parameter.dim() < 2 or "norm" in name:
            assert name not in decay, name
            assert id(parameter) not in muon, name
        else:
            assert name in decay, name
        if leaf in ("wte", "wpe") or any(part in name for part in ("embed", "wte.", "wpe.", "lm_head", "conv1d")):
            assert id(parameter) not in muon, name
    names = {name for name, parameter in model.named_parameters() if id(parameter) in muon}
    assert any(part in name for name in names for part in ("proj", "c_attn", "query_key_value", "fc")), names


def test_a_tied_output_under_any_name() -> None:
    model = tiny("gpt2")
    assert model.get_output_embeddings().weight is model.transformer.wte.weight
    assert id(model.transformer.wte.weight) not in hidden_matrices(model)
    assert id(model.transformer.wpe.weight) not in hidden_matrices(model)


def test_stacked_experts_are_matrices_and_their_biases_are_not() -> None:
    model = tiny("gpt_oss")
    experts = model.model.layers[0].mlp.experts
    assert {id(experts.gate_up_proj), id(experts.down_proj)} <= hidden_matrices(model)
    assert experts.gate_up_proj_bias.dim() == 2
    assert id(experts.gate_up_proj_bias) not in hidden_matrices(model)


def test_deepspeed_is_told() -> None:
    class Config:
        optimizer_name = "Muon"

    model = torch.nn.Sequential(torch.nn.Embedding(4, 4), torch.nn.Linear(4, 4))
    tag_for_muon(Config(), model)
    assert [vars(parameter)["use_muon"] for parameter in model.parameters()] == [False, True, False]
