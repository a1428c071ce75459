"""Every family on a GPU in bfloat16: pretrained near float32, and fine-tuned with its activations made again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from llm_trainer.config import local_path
from tests.gpu.conftest import GpuStage, RunPods
from tests.trainer.conftest import PRETRAIN, SFT
from tests.trainer.pods import losses
from tests.trainer.test_families import FAMILIES, SHORT

ALL = {
    "llama": {**FAMILIES["qwen3"], "head_dim": None},
    **FAMILIES,
}


@pytest.mark.parametrize("zero", [1, 3])
@pytest.mark.parametrize("family", ALL)
def test_a_family(family: str, zero: int, stage: GpuStage, pods: RunPods, record_property: Any) -> None:
    model = {"architecture": {"family": family, "config": {k: v for k, v in ALL[family].items() if v is not None}}}
    name = f"{family.replace('_', '-')}-{zero}"
    settings = {**PRETRAIN, **SHORT, "zeroStage": zero}
    exact = stage(f"{name}-exact", model=model, pretrain=settings)
    rough = stage(f"{name}-rough", model=model, pretrain={**settings, "precision": "bfloat16"})
    pods(exact).run()
    progress = pods(rough).run()
    made, expected = losses(rough), losses(exact)
    largest = max(abs(made[step] - expected[step]) for step in expected)
    record_property("seen", f"{progress.attention}; from float32 at most {largest:.1e} nats")
    assert progress.result
    loaded = AutoModelForCausalLM.from_pretrained(local_path(progress.result.uri, rough.volumes_root))
    assert bool(torch.isfinite(loaded(input_ids=torch.arange(2, 60)[None]).logits).all())
    assert largest < 0.05
    tuned = stage(
        f"{name}-sft", model={"uri": progress.result.uri}, sft={**SFT, "precision": "auto", "zeroStage": zero}
    )
    pods(tuned).run()
    assert all(loss == loss for loss in losses(tuned).values()), losses(tuned)
