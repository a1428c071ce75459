"""What computes in bfloat16, and what its gradients are added up in, for our loop and for TRL's trainers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llm_trainer.config import Pretrain, Sft
from llm_trainer.models import engine_config
from llm_trainer.models.engine_config import computes_in_bfloat16
from llm_trainer.stages import trl_stage

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def pretrain(**settings: Any) -> Pretrain:
    return Pretrain.model_validate({"sequenceLength": 8, "steps": 1, **settings})


@pytest.mark.parametrize("native", [True, False])
def test_an_emulated_bfloat16_is_none(monkeypatch: pytest.MonkeyPatch, *, native: bool) -> None:
    """Turing's and older GPUs say that they have it, as torch emulates it."""

    def is_supported(*, including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert computes_in_bfloat16(pretrain(), CUDA) == native
    assert computes_in_bfloat16(pretrain(precision="bfloat16"), CUDA), "who asks for it gets it"


@pytest.mark.parametrize("unit", [True, False])
def test_a_cpu_needs_its_matrix_unit(monkeypatch: pytest.MonkeyPatch, *, unit: bool) -> None:
    """By other instructions products in bfloat16 are slower than in float32."""
    monkeypatch.setattr(engine_config, "has_matrix_unit", lambda: unit)
    assert computes_in_bfloat16(pretrain(), CPU) == unit
    assert computes_in_bfloat16(pretrain(precision="bfloat16"), CPU), "who asks for it gets it"
    assert not computes_in_bfloat16(pretrain(precision="float32"), CPU)


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("half", [True, False])
def test_gradients_are_float32(*, zero: int, half: bool) -> None:
    ours: dict[str, Any] = engine_config.deepspeed_config(pretrain(zeroStage=zero), CUDA, 4, bfloat16=half)
    trls = trl_stage.deepspeed_config(
        Sft.model_validate({"dataset": {"uri": "pvc://c/x"}, "zeroStage": zero}), half=half
    )
    for config in (ours, trls):
        assert config["zero_optimization"]["stage"] == (max(1, zero) if half else zero)
        assert config.get("data_types") == ({"grad_accum_dtype": "fp32"} if half else None)
        assert config.get("communication_data_type") == ("fp32" if half else None)
