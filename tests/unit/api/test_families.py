"""Sizes are those of the models that transformers builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tools.families import families as of_transformers
from tools.families import transformers as all_of_transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from llm_operator.api import families
from llm_operator.api.families import model_size
from llm_operator.api.memory import HeldModel, StageMemory
from llm_trainer.config import Architecture
from llm_trainer.models.size import size_of
from tests.trainer.test_families import DENSE, FAMILIES

VOCABULARY = 300


def test_the_operator_knows_what_transformers_knows() -> None:
    for file, told in (("families.json", of_transformers), ("transformers.json", all_of_transformers)):
        written = json.loads((Path(families.__file__).parent / file).read_text())
        assert written == told(), "run python tools/families.py"


CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", DENSE),
    ("llama", {**DENSE, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    ("llama", {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 8}),
    ("gpt2", {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "n_inner": 40}),
    ("qwen3", {**DENSE, "tie_word_embeddings": True}),
    ("qwen3_moe", {**FAMILIES["qwen3_moe"], "decoder_sparse_step": 2}),
    ("deepseek_v3", {**FAMILIES["deepseek_v3"], "q_lora_rank": None, "n_shared_experts": 2}),
    ("mamba", {**FAMILIES["mamba"], "use_bias": True, "time_step_rank": 3, "tie_word_embeddings": False}),
    ("mamba2", {**FAMILIES["mamba2"], "use_bias": True, "use_conv_bias": False}),
    ("jamba", {**FAMILIES["jamba"], "mamba_proj_bias": True, "num_experts": 1, "num_experts_per_tok": 1}),
    *FAMILIES.items(),
]


@pytest.mark.parametrize(("family", "config"), CASES)
def test_parameters(family: str, config: dict[str, Any]) -> None:
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, vocab_size=VOCABULARY, **config))
    size = model_size(Architecture(family=family, config=config), VOCABULARY)
    assert size
    told = size_of(made)  # which the trainer asks of any model
    same = ("total", "active", "embedding", "attention_width")
    assert [getattr(told, name) for name in same] == [getattr(size, name) for name in same]
    assert size.total == sum(parameter.numel() for parameter in made.parameters())
    unused = 0
    for name, parameter in made.named_parameters():
        if ".experts." in name:
            unused += parameter.numel() * (parameter.shape[0] - 2) // parameter.shape[0]
    assert size.active == size.total - unused
    assert size.routed == sum(p.numel() for name, p in made.named_parameters() if ".experts." in name)
    if family != "mamba" and family != "mamba2":  # transformers has no reward model of them
        with torch.device("meta"):
            judge = AutoModelForSequenceClassification.from_config(
                AutoConfig.for_model(family, vocab_size=VOCABULARY, num_labels=1, **config)
            )
        assert size.scoring == sum(parameter.numel() for parameter in judge.parameters())


def test_flops_of_gpt3() -> None:
    """About 6 per parameter: 3.14e23 for 300 G tokens of 175 G parameters (Brown et al. 2020, table D.1)."""
    config = {"n_embd": 12288, "n_layer": 96, "n_head": 96, "n_positions": 2048}
    size = model_size(Architecture(family="gpt2", config=config), 50257)
    assert size
    assert size.total == pytest.approx(175e9, rel=0.01)
    assert size.training_flops_per_token(2048) * 300e9 == pytest.approx(3.14e23, rel=0.05)


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_memory_of_the_zero_paper(stage: int, gigabytes: float) -> None:
    """7.5 G parameters on 64 devices: Rajbhandari et al. 2020, figure 1."""
    model = HeldModel(7_500_000_000, routed=0, learns=True)
    memory = StageMemory((model,), weights=2, gradients=2, state=12, zero_stage=stage, processes=64)
    assert memory.per_process / 1e9 == pytest.approx(gigabytes, abs=0.05)
