"""What the operator estimates of a stage's memory, beside what a step takes: a process's resident memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llm_operator.api.activations import Arithmetic, Kernel, activations
from llm_operator.api.estimate import RUNTIME, stage_estimate
from llm_operator.api.validation import load_training
from llm_trainer.config import Architecture
from tests.bench.step import ALLOCATOR
from tests.specs import TRAINING
from tests.trainer.conftest import stage_config
from tests.trainer.pods import ROOT

VOCABULARY = 1024  # of the prepared corpus
MIB = 2**20


COMMON = {
    "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 160,
    "num_hidden_layers": 2, "max_position_embeddings": 256,
}  # fmt: skip
FAMILIES: dict[str, tuple[Kernel, dict[str, Any]]] = {
    "gpt2": (
        "flash",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "n_inner": 160, "attn_pdrop": 0.0,
         "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    ),
    "llama": ("flash", COMMON),
    "qwen3": ("flash", {**COMMON, "head_dim": 16}),
    "mixtral": ("flash", {**COMMON, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3_moe": (
        "flash",
        {**COMMON, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 96},
    ),
    "deepseek_v3": (
        "eager",
        {**COMMON, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
         "topk_group": 1, "moe_intermediate_size": 96, "first_k_dense_replace": 1, "q_lora_rank": 24,
         "kv_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "n_shared_experts": 1},
    ),
    "mamba": ("eager", {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 16, "expand": 2}),
    "mamba2": (
        "eager",
        {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 16, "expand": 2, "num_heads": 8, "head_dim": 16,
         "n_groups": 1, "chunk_size": 32},
    ),
    "jamba": (
        "flash",
        {**COMMON, "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
         "expert_layer_offset": 1, "num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 16, "mamba_expand": 2,
         "use_mamba_kernels": False},
    ),
}  # fmt: skip


def llama(width: int, layers: int, inner: int) -> dict[str, Any]:
    config = {
        "hidden_size": width, "num_hidden_layers": layers, "intermediate_size": inner, "num_attention_heads": 8,
        "num_key_value_heads": 4, "max_position_embeddings": 512,
    }  # fmt: skip
    return {"architecture": {"family": "llama", "config": config}}


def batch(length: int, rows: int, accumulation: int = 1, precision: str = "float32") -> dict[str, Any]:
    return {
        "sequenceLength": length, "microBatchSize": rows, "globalBatchSize": rows * accumulation,
        "precision": precision, "steps": 2,
    }  # fmt: skip


def measured(volumes: Path, model: dict[str, Any], settings: dict[str, Any]) -> int:
    """Bytes at the peak of a step, by the trainer's own."""
    config = stage_config(volumes, "memory", nodes=1, model=model, pretrain=settings)
    environment = {
        **os.environ, **ALLOCATOR, "PYTHONPATH": f"{ROOT}:{ROOT}/trainer_image", "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.bench.step", config.model_dump_json(by_alias=True)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    told = [line.removeprefix("measured ") for line in done.stdout.splitlines() if line.startswith("measured ")]
    assert told, done.stderr[-3000:]
    return int(json.loads(told[-1])["peak"])


def estimated(model: dict[str, Any], settings: dict[str, Any]) -> tuple[int, str]:
    """Above the libraries'."""
    shared = {name: settings[name] for name in ("microBatchSize", "globalBatchSize", "precision")}
    kind = {name: value for name, value in settings.items() if name not in shared}
    spec = load_training(
        {
            **TRAINING, "nodes": 1, "model": model, "tokenizer": {"train": {"vocabularySize": VOCABULARY}},
            "stages": [{"name": "base", "pretrain": kind, **shared}],
        }
    )  # fmt: skip
    estimate = stage_estimate(spec, 0)
    assert estimate
    return estimate.per_process - RUNTIME["cpu"], estimate.moment


@pytest.fixture(scope="module")
def libraries(prepared: Path) -> int:
    """What a process takes with next to no model."""
    return measured(prepared, llama(32, 1, 32), batch(32, 1))


@pytest.mark.parametrize(
    ("model", "settings", "moment"),
    [
        pytest.param(llama(768, 6, 2048), batch(64, 1), "the update", id="weights"),
        pytest.param(llama(256, 6, 704), batch(256, 8), "the backward pass", id="activations"),
        pytest.param(
            llama(512, 4, 1408), batch(256, 2, 2, "bfloat16"), "the backward pass", id="both-bfloat16",
            marks=pytest.mark.release,
        ),
    ],
)  # fmt: skip
def test_a_step_takes_what_is_estimated(
    prepared: Path, libraries: int, model: dict[str, Any], settings: dict[str, Any], moment: str, record_property: Any
) -> None:
    taken, (told, when) = measured(prepared, model, settings) - libraries, estimated(model, settings)
    record_property("seen", f"{taken / MIB:.0f} MiB measured, {told / MIB:.0f} estimated")
    assert when == moment
    assert told == pytest.approx(taken, rel=0.15), (told / MIB, taken / MIB)


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_are_what_autograd_saves(family: str) -> None:
    """In float32, of whole rows: each storage once, without the parameters."""
    kernel, written = FAMILIES[family]
    rows, length = 2, 64
    told = activations(
        Architecture(family=family, config=written), Arithmetic(half=False, gpu=False, kernel=kernel), rows * length,
        length,
    )  # fmt: skip
    assert told
    assert told.all_layers == pytest.approx(saved(family, written, rows, length), rel=0.1)


def model_of(family: str, written: dict[str, Any]) -> Any:
    config = AutoConfig.for_model(family, vocab_size=100, bos_token_id=0, eos_token_id=0, pad_token_id=0, **written)
    implementation = "eager" if "mamba" in family and family != "jamba" else "sdpa"
    return AutoModelForCausalLM.from_config(config, attn_implementation=implementation).train()


def saved(family: str, written: dict[str, Any], rows: int, length: int) -> int:
    """Bytes that the layers keep for the backward pass."""
    model = model_of(family, written)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made = model.base_model(input_ids=torch.randint(0, 100, (rows, length)), use_cache=False)
    assert made is not None
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(
    ("family", "changed"),
    [
        ("mamba", {}), ("mamba", {"state_size": 32}), ("mamba2", {}), ("mamba2", {"state_size": 32, "chunk_size": 8}),
        ("jamba", {"attn_layer_period": 4, "attn_layer_offset": 2}),
    ],
)  # fmt: skip
def test_a_scan_spreads_what_is_told(family: str, changed: dict[str, Any], tmp_path: Path) -> None:
    """By torch's own count of what it allocates in a forward and a backward pass: what is kept, and what comes and goes
    while the gradients of a scan are made.
    """
    written = {**FAMILIES[family][1], **changed}
    rows, length = 2, 64
    how = Arithmetic(half=False, gpu=False, kernel=FAMILIES[family][0])
    told = activations(Architecture(family=family, config=written), how, rows * length, length)
    assert told
    taken = allocated(model_of(family, written), torch.randint(0, 100, (rows, length)), tmp_path / "trace.json")
    assert told.kept(made_again=False) == pytest.approx(taken, rel=0.1)


def allocated(model: Any, tokens: torch.Tensor, trace: Path) -> int:
    """Bytes at the peak of a pass, above those before; gradients are there already."""

    def go_on() -> None:
        model.base_model(input_ids=tokens, use_cache=False).last_hidden_state.sum().backward()

    go_on()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        go_on()
    seen.export_chrome_trace(str(trace))
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event.get("name") == "[memory]"]
    counts = [(event["ts"], event["args"]["Total Allocated"], event["args"]["Bytes"]) for event in events]
    _, first, change = min(counts)
    return int(max(total for _, total, _ in counts) - (first - change))
