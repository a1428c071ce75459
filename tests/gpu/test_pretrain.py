"""Pretraining on a GPU: as on CPU, whatever the ZeRO stage and the optimizer; killed, asked to leave, out of memory."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from llm_trainer.config import local_path
from llm_trainer.protocol import ExitCode
from tests.gpu.conftest import GpuStage, RunPods, apart
from tests.trainer.conftest import MODEL, PRETRAIN
from tests.trainer.pods import evaluations

BFLOAT16 = {**PRETRAIN, "precision": "bfloat16"}


def test_float32_is_what_a_cpu_computes(stage: GpuStage, pods: RunPods, record_property: Any) -> None:
    cpu, gpu = (stage(f"float32-{device}", device=device, model=MODEL, pretrain=PRETRAIN) for device in ("cpu", "cuda"))
    pods(cpu).run()
    assert str(pods(gpu).run().attention).startswith("sdpa")
    record_property("seen", f"largest difference of the losses: {apart(gpu, cpu):.1e}")
    assert apart(gpu, cpu) < 1e-3


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_bfloat16(optimizer: str, zero: int, stage: GpuStage, pods: RunPods, record_property: Any) -> None:
    """Near float32, with each ZeRO stage and optimizer; the result loads."""
    written = {"type": optimizer, "learningRate": 0.003}
    exact = stage(
        f"exact-{optimizer}-{zero}", model=MODEL, pretrain={**PRETRAIN, "zeroStage": zero, "optimizer": written}
    )
    rough = stage(
        f"rough-{optimizer}-{zero}", model=MODEL, pretrain={**BFLOAT16, "zeroStage": zero, "optimizer": written}
    )
    pods(exact).run()
    progress = pods(rough).run()
    assert str(progress.attention).startswith(("varlen", "flash"))
    record_property("seen", f"from float32 at most {apart(rough, exact):.1e} nats")
    assert apart(rough, exact) < 0.05
    assert progress.result
    model = AutoModelForCausalLM.from_pretrained(local_path(progress.result.uri, rough.volumes_root))
    assert bool(torch.isfinite(model(input_ids=torch.arange(2, 60)[None]).logits).all())


@pytest.mark.parametrize("zero", [0, 1, 3])
@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM"])
def test_it_goes_on_where_it_was(end: str, zero: int, stage: GpuStage, pods: RunPods, record_property: Any) -> None:
    settings = {**BFLOAT16, "steps": 40, "checkpoint": {"everySteps": 10}, "zeroStage": zero}
    name = f"{end.lower()}-{zero}"
    whole = stage(f"whole-{name}", model=MODEL, pretrain=settings)
    pods(whole).run()
    first = pods(stage(name, model=MODEL, pretrain=settings)).start()
    first.until_step(14, saved=10)
    if end == "SIGKILL":
        os.kill(first.pods[0].worker(), signal.SIGKILL)
        assert first.wait()[0].exit_code == 128 + signal.SIGKILL
    else:
        first.pods[0].process.terminate()
        word = first.wait()[0]
        assert word.exit_code == ExitCode.PREEMPTED, word
        assert word.progress
        assert word.progress.checkpoint
        assert word.progress.checkpoint.step == word.progress.step < 40
    second = stage(name, attempt=2, model=MODEL, pretrain=settings)
    pods(second).run()
    record_property("seen", f"largest difference of the losses: {apart(second, whole):.1e}")
    assert apart(second, whole) < 0.01  # the flash kernel's backward adds in no fixed order


def test_out_of_memory_is_told(stage: GpuStage, pods: RunPods) -> None:
    """One activation of 275 GB."""
    narrow: Any = MODEL["architecture"]["config"]
    wide = {"architecture": {"family": "llama", "config": {**narrow, "intermediate_size": 2**18}}}
    batch = {"sequenceLength": 128, "microBatchSize": 4096, "globalBatchSize": 4096, "evaluation": {"everySteps": 1000}}
    word = pods(stage("memory", model=wide, pretrain={**BFLOAT16, **batch})).start().wait()[0]
    assert (word.reason, word.exit_code) == ("OutOfMemory", ExitCode.OUT_OF_MEMORY), word
    assert "microBatchSize" in word.message, word.message
    assert "GiB" in word.message, word.message


def test_a_step_without_a_finite_gradient_is_left_out(stage: GpuStage, pods: RunPods) -> None:
    """Ten of them end the attempt, with ZeRO 0 too."""
    for zero in (0, 1, 3):
        optimizer = {"learningRate": 1e30, "gradientClipping": 1e30}
        config = stage(
            f"infinite-{zero}", model=MODEL, pretrain={**BFLOAT16, "zeroStage": zero, "optimizer": optimizer}
        )
        word = pods(config).start().wait()[0]
        assert word.exit_code == ExitCode.INTERNAL, word
        assert "not finite" in word.message, word.message
        assert not list((Path(config.stage_folder) / "results").glob("*"))


def test_held_out_figures_are_those_of_a_cpu(stage: GpuStage, pods: RunPods) -> None:
    cpu, gpu = (
        stage(f"held-out-{device}", device=device, model=MODEL, pretrain={**PRETRAIN, "steps": 1})
        for device in ("cpu", "cuda")
    )
    pods(cpu).run()
    pods(gpu).run()
    expected, made = evaluations(cpu)[0], evaluations(gpu)[0]
    assert made == pytest.approx(expected, rel=1e-4)
