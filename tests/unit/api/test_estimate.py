"""A stage's memory at its peak, term by term. What a step really takes: tests/trainer/test_memory.py."""

from __future__ import annotations

from typing import Any

import pytest

from llm_operator.api.activations import Arithmetic, activations
from llm_operator.api.estimate import MemoryEstimate, memory_warnings, passing, stage_estimate
from llm_operator.api.memory import HeldModel, StageMemory, stage_memory
from llm_operator.api.resources import Resources
from llm_operator.api.training import LLMTrainingSpec
from llm_operator.api.validation import load_training
from llm_trainer.config import Pretrain
from tests.bench.gpu_cases import MODELS, VOCABULARY
from tests.specs import GPUS, PAIRS, TRAINING, changed, ppo

GIB = 2**30


def pretraining(model: str, rows: int, length: int, accumulation: int, **more: Any) -> LLMTrainingSpec:
    """On one GPU."""
    config = {key: value for key, value in MODELS[model].config.items() if key != "vocab_size"}
    stage = {
        "name": "base", "pretrain": {"sequenceLength": length, "steps": 100}, "microBatchSize": rows,
        "globalBatchSize": rows * accumulation, **more,
    }  # fmt: skip
    return load_training(
        {
            **TRAINING, "nodes": 1, "resources": {"limits": {"nvidia.com/gpu": 1}}, "stages": [stage],
            "model": {"architecture": {"family": MODELS[model].family, "config": config}},
            "tokenizer": {"train": {"vocabularySize": VOCABULARY}},
        }
    )  # fmt: skip


def estimate_of(spec: LLMTrainingSpec, index: int = 0) -> MemoryEstimate:
    found = stage_estimate(spec, index)
    assert found
    return found


@pytest.mark.parametrize(
    ("model", "rows", "length", "accumulation", "measured"),
    [
        ("125M", 32, 2048, 2, 26.9), ("1B", 8, 4096, 4, 68.1), ("3B", 4, 4096, 4, 97.1), ("mixtral", 16, 2048, 2, 30.8),
        ("mamba2", 1, 1024, 2, 43.3),
    ],
)  # fmt: skip
def test_it_is_near_what_a_gpu_showed(model: str, rows: int, length: int, accumulation: int, measured: float) -> None:
    """Docs/figures.md. Those runs had gradients and their buckets in bfloat16; CUDA's own memory wasn't counted."""
    terms = estimate_of(pretraining(model, rows, length, accumulation)).terms
    then = {"gradients": 0.5, "communication": 0.5, "runtime": 0}
    told = sum(size * then.get(name, 1) for name, size in terms.items())
    assert told / GIB == pytest.approx(measured, rel=0.15)


def test_terms_have_names_and_a_sum() -> None:
    told = estimate_of(pretraining("1B", 8, 4096, 4))
    assert set(told.terms) == {
        "weights", "optimizer", "gradients", "activations", "logits", "communication", "runtime",
    }  # fmt: skip
    assert told.per_process == sum(told.terms.values())
    assert told.moment == "the backward pass"


def test_zero_3_gathers_and_spreads() -> None:
    spread = estimate_of(pretraining("3B", 4, 4096, 4, zeroStage=3))
    whole = estimate_of(pretraining("3B", 4, 4096, 4))
    assert spread.terms["gathered"] == 2 * 10**9, "as many parameters as DeepSpeed leaves gathered"
    assert spread.terms["communication"] == whole.terms["communication"] // 2


def test_buckets_are_no_larger_than_what_learns() -> None:
    small, large = (estimate_of(pretraining(model, 8, 1024, 4)).terms["communication"] for model in ("125M", "3B"))
    assert large == 2 * 4 * 500_000_000
    assert small < large / 2
    base, adapter = (estimate_of(load_training(CHAIN), index).terms.get("communication", 0) for index in (2, 3))
    assert 0 < adapter < base / 2, "of a low-rank adapter"


def test_activations_grow_with_rows_and_eager_scores_with_the_square() -> None:
    one, four = (estimate_of(pretraining("1B", rows, 4096, 4)).terms["activations"] for rows in (1, 4))
    assert four == pytest.approx(4 * one, rel=1e-6)


def test_activation_checkpointing_keeps_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = estimate_of(pretraining("1B", 8, 4096, 4)).terms["activations"]
    monkeypatch.setattr("llm_operator.api.estimate.makes_again", lambda *_, **__: True)
    again = estimate_of(pretraining("1B", 8, 4096, 4)).terms["activations"]
    assert again < kept / 6


CHAIN = changed(
    TRAINING,
    resources=GPUS,
    stages__0__globalBatchSize=16,
    stages__1__globalBatchSize=16,
    stages__2={"name": "taste", "rewardModel": PAIRS, "globalBatchSize": 16},
    stages__3={"name": "direct", "dpo": PAIRS, "model": {"stage": "chat"}, "lora": {"rank": 8}, "globalBatchSize": 16},
    stages__4=ppo(globalBatchSize=16),
)


def test_every_kind_of_stage_is_estimated() -> None:
    spec = load_training(CHAIN)
    told = [estimate_of(spec, index) for index in range(5)]
    for index, one in enumerate(told):
        sure = stage_memory(spec, index)
        assert sure
        assert one.per_process > sure.per_process, spec.stages[index].name
    assert "logits" not in told[2].terms, "a reward model gives one number"
    assert told[3].terms["adapter"] > 0
    assert "optimizer" not in told[3].terms, "the base of an adapter does not learn"
    sft, dpo = told[1].terms, told[3].terms
    assert dpo["logits"] > sft["logits"], "both answers of a pair go through at once"


def test_a_loss_of_the_users_is_given_all_logits() -> None:
    own = changed(CHAIN, stages__0__pretrain__lossFunction="losses:smooth")
    tile, whole = (estimate_of(load_training(spec)).terms["logits"] for spec in (CHAIN, own))
    assert whole > tile


def test_rollouts_hold_keys_and_values() -> None:
    """Of all answers of a process; with ZeRO 3 beside the whole model."""
    spec = load_training(changed(CHAIN, resources={}, stages__4__ppo__rolloutBatchSize=1_048_576))
    told = estimate_of(spec, 4)
    assert told.moment == "the rollouts"
    assert told.terms["cache"] > told.per_process / 2


def test_four_bits_are_four_bits() -> None:
    """QLoRA was refused where it fits."""
    lora = {"rank": 8, "quantization": "nf4"}
    plain, small = (
        stage_memory(load_training(changed(CHAIN, stages__3__lora=written)), 3) for written in ({"rank": 8}, lora)
    )
    assert plain
    assert small
    assert small.terms["weights"] < plain.terms["weights"]


def test_what_only_the_estimate_says_is_a_warning() -> None:
    """It is told with its terms, and nothing is refused."""
    spec = pretraining("1B", 8, 4096, 4)
    assert not list(memory_warnings(spec))
    (warning,) = memory_warnings(spec.model_copy(update={"gpu_memory": "40Gi"}))
    for part in ("spec.stages[0]", "activations 46.", "spec.gpuMemory 40Gi", "set activationCheckpointing"):
        assert part in warning, warning
    limits = {"nvidia.com/gpu": 1, "memory": "2Gi"}
    (warning,) = memory_warnings(
        pretraining("125M", 1, 1024, 1).model_copy(update={"resources": Resources(limits=limits)})
    )
    assert "above its limit 2Gi" in warning


def test_a_host_holds_the_snapshot_of_a_checkpoint() -> None:
    spec = pretraining("1B", 8, 4096, 4)
    told = estimate_of(spec)
    assert told.host > told.terms["optimizer"] + told.terms["weights"]


def test_a_model_of_unknown_size_has_no_estimate() -> None:
    spec = load_training(changed(CHAIN, stages__4__ppo__rewards__0={"model": {"uri": "pvc://models/judge"}}))
    assert stage_estimate(spec, 4) is None


class Shared(Pretrain):
    """Rows and layers shared by processes."""

    sequence_parallel: int = 4
    tensor_parallel: int = 2


def test_shared_rows_and_layers_take_their_part() -> None:
    model = HeldModel(1000, routed=0, learns=True)
    memory = StageMemory((model,), 2, 4, 12, zero_stage=1, processes=16, tensor_parallel=2)
    assert memory.terms == {"weights": 1000, "gradients": 2000, "optimizer": 12 * 1000 // 16}
    settings = Shared(sequence_length=4096, steps=1, micro_batch_size=2, global_batch_size=4)
    once = passing(settings, memory, gpu=True)
    assert once.tokens == 2 * 4096 / 4
    assert not once.accumulated, "two replicas of two rows are the whole batch"


def test_layers_of_several_processes_keep_less_of_their_products() -> None:
    how = Arithmetic(half=True, gpu=True, kernel="flash")
    whole, half = (activations(MODELS["1B"], how, 1024, 1024, shards) for shards in (1, 2))
    assert whole
    assert half
    assert whole.all_layers / 2 < half.all_layers < whole.all_layers, "what enters the norms is whole in each"
