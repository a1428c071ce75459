"""Every family: pretrained on two processes, equal with ZeRO 1 and 3, resumed, exported and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llm_trainer.config import StageConfig, local_path
from llm_trainer.models.balance import BIAS
from tests.trainer.conftest import RunPods, Stage
from tests.trainer.pods import evaluations, history, losses

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
DENSE = {**SIZE, "intermediate_size": 64, "num_key_value_heads": 2}
EXPERTS = {**DENSE, "num_experts_per_tok": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "qwen3": {**DENSE, "head_dim": 8},
    "mixtral": {**EXPERTS, "num_local_experts": 4},
    "qwen3_moe": {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 32, "head_dim": 8},
    "deepseek_v3": {
        **EXPERTS, "n_routed_experts": 4, "moe_intermediate_size": 32, "n_group": 2, "topk_group": 1,
        "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8, "v_head_dim": 8, "num_key_value_heads": 4,
    },
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "mamba2": {
        "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 2,
        "chunk_size": 16, "expand": 2,
    },
    "jamba": {
        **EXPERTS, "num_hidden_layers": 4, "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1,
        "mamba_d_state": 8, "mamba_dt_rank": 4, "use_mamba_kernels": False,
    },
}  # fmt: skip
LIKE_ANOTHER = ("qwen3", "qwen3_moe", "mamba")  # a Llama, a mixture and Mamba 2: before a release
SHORT = {"steps": 6, "checkpoint": {"everySteps": 2}, "optimizer": {"learningRate": 0.001, "gradientClipping": 1000}}


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[pytest.mark.release] if name in LIKE_ANOTHER else []) for name in FAMILIES]
)
def test_a_family_goes_the_whole_way(family: str, pretrain: Stage, pods: RunPods, prepared: Any) -> None:
    model = {"architecture": {"family": family, "config": FAMILIES[family]}}
    name = family.replace("_", "-")
    whole = pretrain(f"{name}-1", model=model, zeroStage=1, **SHORT)
    result = pods(whole).run().result
    first = pods(pretrain(f"{name}-3", model=model, zeroStage=3, **SHORT)).start()
    first.until_step(3)
    first.pods[0].process.terminate()
    first.wait()
    second = pretrain(f"{name}-3", attempt=2, model=model, zeroStage=3, **SHORT)
    pods(second).run()
    expected, made = losses(whole), losses(second)
    assert sorted(made) == sorted(expected)
    assert max(abs(made[step] - expected[step]) for step in made) < 1e-4, (expected, made)
    assert result
    loaded = AutoModelForCausalLM.from_pretrained(local_path(result.uri, str(prepared)))
    assert bool(torch.isfinite(loaded(input_ids=torch.arange(2, 60)[None]).logits).all())
    if family == "deepseek_v3":
        biases = [state[name] for state in map(exported, (whole, second)) for name in state if name.endswith(BIAS)]
        assert bool(biases[0].any()), "its experts were not balanced"
        assert torch.equal(*biases), "the bias goes with the checkpoint, and is the same with ZeRO 1 and 3"
    if family in ("mixtral", "qwen3_moe", "jamba"):
        figures = [row["figures"] for row in history(whole) if "figures" in row][-1]
        assert figures["router/balanceLoss"] == pytest.approx(2, abs=0.5), "near experts per token"
        assert figures["router/deadExperts"] == 0, figures
        assert 1 <= figures["router/maxLoad"] < 4, figures


def exported(config: StageConfig) -> dict[str, torch.Tensor]:
    """The weights of its last result."""
    return load_file(max((Path(config.stage_folder) / "results").iterdir()) / "model.safetensors")


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3"])
def test_expert_parallelism_changes_nothing(family: str, pretrain: Stage, pods: RunPods, prepared: Any) -> None:
    """Equal losses with the experts of each layer on two processes, through a checkpoint; the result is whole."""
    model = {"architecture": {"family": family, "config": FAMILIES[family]}}
    name = family.replace("_", "-")
    alone = pretrain(f"{name}-alone", model=model, zeroStage=2, **SHORT)
    pods(alone).run()
    spread = {"model": model, "zeroStage": 2, "expertParallel": 2, **SHORT}
    first = pods(pretrain(f"{name}-spread", **spread)).start()
    first.until_step(3)
    first.pods[0].process.terminate()
    first.wait()
    second = pretrain(f"{name}-spread", attempt=2, **spread)
    result = pods(second).run().result
    expected, made = losses(alone), losses(second)
    assert sorted(made) == sorted(expected)
    assert max(abs(made[step] - expected[step]) for step in made) < 1e-4, (expected, made)
    assert result
    evaluated = [max(rows.items())[1]["loss"] for rows in (evaluations(alone), evaluations(second))]
    assert evaluated[0] == pytest.approx(evaluated[1], abs=1e-4)
    folder = Path(alone.stage_folder) / "results"
    logits = [
        AutoModelForCausalLM.from_pretrained(path)(input_ids=torch.arange(2, 60)[None]).logits
        for path in (max(folder.iterdir()), local_path(result.uri, str(prepared)))
    ]
    assert float((logits[0] - logits[1]).abs().max()) < 1e-3
