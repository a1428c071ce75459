"""Processes that share rows or layers: who gets which rows, and which families can."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from llm_operator.api.families import FAMILIES
from llm_trainer.config import SEQUENCE_PARALLEL_FAMILIES, TENSOR_PARALLEL_FAMILIES, Pretrain
from llm_trainer.models.attention import STATE_SPACE_ONLY
from llm_trainer.models.language_loss import IGNORED
from llm_trainer.models.sequence_parallel import check_sequence_parallel
from llm_trainer.models.tensor_parallel import can_be_shared, check_tensor_parallel, tensor_parallel_config
from llm_trainer.runtime.batch import DataRank, accumulation_steps
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.process_group import ProcessGroup
from llm_trainer.stages.sft import whole_rows


def settings(**given: int) -> Pretrain:
    return Pretrain.model_validate({"sequenceLength": 64, "steps": 1, **given})


def test_who_shares_gets_the_same_rows_and_counts_once() -> None:
    shared = settings(sequenceParallel=2, globalBatchSize=8)
    groups = [ProcessGroup(rank, 0, 4, torch.device("cpu")) for rank in range(4)]
    assert [DataRank.of(shared, group) for group in groups] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    assert accumulation_steps(shared, 4) == accumulation_steps(settings(globalBatchSize=8), 2) == 4
    with pytest.raises(ConfigurationError, match="4 processes / tensorParallel 2 = 2"):
        accumulation_steps(settings(tensorParallel=2, globalBatchSize=7), 4)
    with pytest.raises(ConfigurationError, match="sequenceParallel 3: the 4 processes"):
        accumulation_steps(settings(sequenceParallel=3), 4)


def test_families_whose_layers_can_be_shared() -> None:
    """What transformers' plans say today; another release may know more."""
    known = [family for family in FAMILIES if can_be_shared(AutoConfig.for_model(family))]
    assert known == list(TENSOR_PARALLEL_FAMILIES)


def test_families_whose_rows_can_be_shared() -> None:
    """Those with attention alone: the others keep a state over a row."""
    stateful = {*STATE_SPACE_ONLY, "jamba"}
    assert [family for family in FAMILIES if family not in stateful] == list(SEQUENCE_PARALLEL_FAMILIES)
    for family in SEQUENCE_PARALLEL_FAMILIES:
        config = AutoConfig.for_model(family)
        assert MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].is_backend_compatible(), family
        config._attn_implementation = "sdpa"
        check_sequence_parallel(config, 2)
        config._attn_implementation = "eager"
        with pytest.raises(ConfigurationError, match="lets nobody replace"):
            check_sequence_parallel(config, 2)


def test_heads_that_cannot_be_divided() -> None:
    heads = {"num_attention_heads": 6, "num_key_value_heads": 3}
    config = AutoConfig.for_model("llama", hidden_size=96, intermediate_size=64, **heads)
    config._attn_implementation = "sdpa"
    with pytest.raises(ConfigurationError, match="6 attention heads are not divisible by 4"):
        check_sequence_parallel(config, 4)
    check_sequence_parallel(config, 2)  # though 3 heads of keys are not
    with pytest.raises(ConfigurationError, match="num_key_value_heads 3 is not divisible by 2"):
        check_tensor_parallel(config, 2)


def test_norms_of_heads_are_summed() -> None:
    specs = tensor_parallel_config(2, AutoConfig.for_model("qwen3"))["tensor_parallel"]["partition_config"]
    norms = [spec for spec in specs["layer_specs"] if "_norm" in spec["patterns"][0]]
    assert len(norms) == 2
    assert all(spec["grad_allreduce"] for spec in norms)


def test_rows_are_filled_up_by_what_counts_nothing() -> None:
    batch = {"input_ids": torch.arange(10).view(2, 5), "labels": torch.arange(10).view(2, 5)}
    tokens, positions, targets = whole_rows(batch, 4)
    assert tokens.shape == positions.shape == targets.shape == (2, 8)
    assert tokens[0, :5].tolist() == [0, 1, 2, 3, 4]
    assert positions[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert targets[0].tolist() == [1, 2, 3, 4, *[IGNORED] * 4], "a row's last token is followed by none"
    packed = {**batch, "position_ids": torch.tensor([[0, 1, 0, 1, 2]] * 2)}
    assert whole_rows(packed, 1)[1].tolist() == [[0, 1, 0, 1, 2]] * 2
