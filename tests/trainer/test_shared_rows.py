"""Gradients of rows that two processes share, in families that no stage of ours is tested with otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.trainer.pods import END_SECONDS, ROOT, free_port
from tests.trainer.warm import ENVIRONMENT

SIZE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MIXED = {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": SIZE,
    "mistral": {**SIZE, "sliding_window": 8},
    "gemma3_text": {**SIZE, **MIXED},
    "lfm2": {**SIZE, "layer_types": ["conv", "full_attention"]},
}
SCRIPT = """
import json, os, sys, torch
from torch import distributed
from transformers import AutoConfig, AutoModelForCausalLM
from llm_trainer.models.language_loss import add_loss
from llm_trainer.models.sequence_parallel import check_shared_rows, share_rows
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.process_group import ProcessGroup
import deepspeed

deepspeed.init_distributed(dist_backend="gloo", verbose=False)
group = ProcessGroup(int(os.environ["RANK"]), 0, 2, torch.device("cpu"))
tokens, positions = torch.arange(130).view(2, 65) % 61, (torch.arange(64) % 23).expand(2, -1)

def run(family, keys):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **keys), attn_implementation="sdpa")
    add_loss(model)
    shared = share_rows(model, 2, group)

    def logits(tokens, positions):
        shared.begin(model.config, positions)
        return model(shared.own(tokens), position_ids=shared.own(positions), use_cache=False).logits

    def gradients():
        model.zero_grad()
        shared.begin(model.config, positions)
        own, aims, places = map(shared.own, (tokens[:, :-1], tokens[:, 1:], positions))
        model(own, targets=aims, position_ids=places, use_cache=False).nats.backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    try:
        check_shared_rows(shared, logits, model, group, apart=False, bfloat16=False)
    except ConfigurationError as error:
        return str(error)
    model.train()
    with shared.whole():
        expected = gradients()
    apart = []
    for again in (False, True):
        if again:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        for gradient, whole in zip(made := gradients(), expected, strict=True):
            distributed.all_reduce(gradient)
            apart.append(float((gradient - whole).abs().max() / whole.abs().max().clamp(min=1e-9)))
    return max(apart)

done = {family: run(family, keys) for family, keys in json.loads(sys.argv[1]).items()}
print("found", json.dumps(done))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """How far the gradients of each family are apart, layers that are computed again included; or the refusal."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, json.dumps(FAMILIES)],
            env={**os.environ, **ENVIRONMENT, **shared, "PYTHONPATH": str(ROOT / "trainer_image"), "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=END_SECONDS)[0] for process in processes]
    lines = [line for line in said[0].splitlines() if line.startswith("found ")]
    assert lines, said[0]
    made: dict[str, Any] = json.loads(lines[0].removeprefix("found "))
    return made


@pytest.mark.parametrize("family", ["qwen2", "mistral", "gemma3_text"])
def test_gradients_are_those_of_whole_rows(family: str, found: dict[str, Any]) -> None:
    """One head of keys for two processes, sliding windows in all layers and in some, packed documents."""
    assert found[family] < 1e-5, found[family]


def test_a_layer_that_looks_at_its_neighbours(found: dict[str, Any]) -> None:
    assert "sequenceParallel: 2 is not for this lfm2 model" in str(found["lfm2"])
