"""What computes in bfloat16, and what its gradients are added up in, for our loop and for TRL's trainers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llm_trainer.config import Pretrain, Sft
from llm_trainer.models import engine_config
from llm_trainer.models.engine_config import computes_in_bfloat16
from llm_trainer.stages import trl_stage

CUDA = torch.device("cuda")


@pytest.mark.parametrize("native", [True, False])
def test_an_emulated_bfloat16_is_none(monkeypatch: pytest.MonkeyPatch, *, native: bool) -> None:
    """Turing's and older GPUs say that they have it, as torch emulates it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert computes_in_bfloat16(Pretrain(sequenceLength=8), CUDA) == native
    assert computes_in_bfloat16(Pretrain(sequenceLength=8, precision="bfloat16"), CUDA), "who asks for it gets it"


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("half", [True, False])
def test_gradients_are_float32(*, zero: int, half: bool) -> None:
    ours: dict[str, Any] = engine_config.deepspeed_config(
        Pretrain(sequenceLength=8, zeroStage=zero), CUDA, 4, bfloat16=half
    )
    trls = trl_stage.deepspeed_config(Sft(dataset={"uri": "pvc://c/x"}, zeroStage=zero), half=half)  # type: ignore[arg-type]
    for config in (ours, trls):
        assert config["zero_optimization"]["stage"] == (max(1, zero) if half else zero)
        assert config.get("data_types") == ({"grad_accum_dtype": "fp32"} if half else None)
        assert config.get("communication_data_type") == ("fp32" if half else None)
