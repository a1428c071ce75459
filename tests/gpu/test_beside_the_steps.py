"""What a stage does beside its steps, on a GPU in bfloat16: sizes tried, spikes rolled back, packed rows, answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.checkpoint.rollbacks import TUNED, read_rollbacks
from llm_trainer.config import StageConfig
from tests.gpu.conftest import GpuStage, RunPods, apart
from tests.trainer.conftest import MODEL, PRETRAIN
from tests.trainer.pods import Pods, evaluations, history
from tests.trainer.test_evaluation import PROMPTS
from tests.trainer.test_loss_watch import NOT_FINITE, SETTINGS, SHUFFLED, STEPS, WATCH, planted

HALF = {**PRETRAIN, "precision": "bfloat16"}
SFT = {
    "dataset": {"uri": "pvc://corpus/chat.jsonl", "validationFraction": 0.1}, "epochs": 1, "maxLength": 256,
    "globalBatchSize": 16, "microBatchSize": 8, "optimizer": {"learningRate": 1e-4},
    "checkpoint": {"everySteps": 100}, "evaluation": {"everySteps": 100},
}  # fmt: skip
NEAR = 0.02  # nats, of bfloat16 sums in another order


def peak(pods: Pods) -> str:
    told = re.search(r"peak memory of the GPU's tensors: (.*)", pods.pods[0].log)
    return told[1] if told else "no peak was told"


def chosen(config: StageConfig) -> int:
    told = json.loads((Path(config.stage_folder) / "checkpoints" / TUNED).read_text())
    return int(told["microBatchSize"])


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_a_micro_batch_by_trials(zero: int, stage: GpuStage, pods: RunPods, record_property: Any) -> None:
    """The run is that in which the chosen size was written; each trial tells its peak."""
    settings = {**HALF, "steps": 8, "globalBatchSize": 64, "zeroStage": zero}
    tuned = stage(
        f"sized-{zero}", model=MODEL, pretrain={**settings, "microBatchSize": 1, "tune": {"microBatchSize": {}}}
    )
    pods(tuned).run()
    (row,) = [row for row in history(tuned) if "tune" in row]
    peaks = row["tune"]["peakBytes"]
    record_property("seen", row["message"])
    assert row["tune"]["sizes"][-1] == chosen(tuned) == 64, row
    assert 0 < peaks[0] < peaks[-1], row
    written = stage(f"size-written-{zero}", model=MODEL, pretrain={**settings, "microBatchSize": 64})
    pods(written).run()
    assert apart(tuned, written) < NEAR


@pytest.mark.parametrize(
    "settings", [{}, {"activationCheckpointing": True, "zeroStage": 2}], ids=["kept", "made again"]
)
def test_compiled_layers(settings: dict[str, Any], stage: GpuStage, pods: RunPods, record_property: Any) -> None:
    """Those of either attention; the notice tells how much faster they are."""
    short, name = {**HALF, **settings, "steps": 8}, "-".join(settings)
    eager = stage(f"eager-{name}", model=MODEL, pretrain={**short, "compile": False})
    pods(eager).run()
    compiled = stage(f"compiled-{name}", model=MODEL, pretrain={**short, "compile": True})
    pair = pods(compiled)
    pair.run()
    (told,) = re.findall(r"LayersCompiled: (.*)", pair.pods[0].log)
    record_property("seen", told)
    assert apart(compiled, eager) < NEAR


def test_a_micro_batch_that_does_not_fit_is_halved(stage: GpuStage, pods: RunPods, record_property: Any) -> None:
    """The largest would hold an activation of 275 GB."""
    narrow: Any = MODEL["architecture"]["config"]
    wide = {"architecture": {"family": "llama", "config": {**narrow, "intermediate_size": 2**18}}}
    settings = {**HALF, "steps": 1, "sequenceLength": 128, "globalBatchSize": 4096, "microBatchSize": 64}
    config = stage(
        "halved", model=wide, pretrain={**settings, "evaluation": {"everySteps": 1000}, "tune": {"microBatchSize": {}}}
    )
    progress = pods(config).run()
    (row,) = [row for row in history(config) if "tune" in row]
    record_property("seen", row["message"])
    assert progress.step == 1
    assert 64 <= chosen(config) < 4096, row


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_a_rollback_takes_the_weights_up_again(
    zero: int, prepared: Path, stage: GpuStage, pods: RunPods, tmp_path: Path, record_property: Any
) -> None:
    """Within one attempt, by an engine that has made steps: bfloat16 weights and their float32 masters."""
    rows = planted(prepared, tmp_path, SHUFFLED, NOT_FINITE)
    settings = {**HALF, **SETTINGS, "zeroStage": zero}
    clean = stage(f"clean-{zero}", model=MODEL, pretrain=settings)
    pods(clean).run()
    watched = stage(f"watched-{zero}", model=MODEL, pretrain={**settings, "lossWatch": WATCH})
    pods(watched, LLM_TEST_PLANTED=str(rows)).run()
    found, expected = evaluations(watched)[STEPS]["loss"], evaluations(clean)[STEPS]["loss"]
    record_property("seen", f"held-out loss: clean {expected:.4f}, watched {found:.4f}")
    assert read_rollbacks(Path(watched.stage_folder) / "checkpoints")
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("lora", [None, {"rank": 8}], ids=["whole", "an adapter"])
def test_packed_rows_have_the_losses_of_rows_apart(
    lora: Any, base: str, stage: GpuStage, pods: RunPods, record_property: Any
) -> None:
    name = "adapter" if lora else "whole"
    plain = stage(f"apart-{name}", model={"uri": base}, sft={**SFT, "lora": lora, "packing": False})
    together = stage(f"packed-{name}", model={"uri": base}, sft={**SFT, "lora": lora})
    unpacked, packed = pods(plain).run(), pods(together).run()
    record_property(
        "seen",
        f"{apart(together, plain):.1e} nats; {unpacked.tokens_per_second:,.0f} tokens/s apart, "
        f"{packed.tokens_per_second:,.0f} packed",
    )
    assert packed.tokens == unpacked.tokens
    assert apart(together, plain) < NEAR


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_activations_made_again_change_no_loss(
    kind: str, base: str, pairs: str, stage: GpuStage, pods: RunPods, record_property: Any
) -> None:
    dataset = {"sft": SFT["dataset"], "dpo": {"uri": pairs, "validationFraction": 0.2}}[kind]
    kept, again = (
        stage(
            f"{kind}-{name}", model={"uri": base},
            **{kind: {**SFT, "dataset": dataset, "activationCheckpointing": name == "again"}},
        )
        for name in ("kept", "again")
    )  # fmt: skip
    first, second = pods(kept), pods(again)
    first.run()
    second.run()
    record_property("seen", f"{apart(again, kept):.1e} nats; {peak(first)} kept, {peak(second)} made again")
    assert apart(again, kept) < NEAR


@pytest.mark.parametrize("zero", [1, 3])
def test_evaluation(zero: int, base: str, stage: GpuStage, pods: RunPods, record_property: Any) -> None:
    """Answers, the corpus, and a gate on what the fine-tune may forget."""
    evaluation = {
        "everySteps": 20, "corpus": True, "prompts": PROMPTS, "maxNewTokens": 8, "gate": "block",
        "thresholds": [{"metric": "bitsPerByte", "atLeast": {"stage": "base", "delta": 0.5}}],
    }  # fmt: skip
    settings = {**SFT, "zeroStage": zero, "optimizer": {"learningRate": 1e-5}, "evaluation": evaluation}
    config = stage(f"evaluated-{zero}", model={"uri": base}, sft=settings)
    progress = pods(config).run()
    assert progress.result
    told = evaluations(config)
    of_base = evaluations(config.model_copy(update={"stage": "base"}))
    first, expected = told[0]["bitsPerByte"], of_base[max(of_base)]["bitsPerByte"]
    record_property("seen", f"bits per byte {expected:.4f} when pretrained, {first:.4f} before SFT")
    assert first == pytest.approx(expected, rel=0.01)
    samples = [row["samples"] for row in history(config) if "samples" in row]
    assert len(samples) == len(told)
    assert all([each["prompt"] for each in one] == PROMPTS for one in samples)
