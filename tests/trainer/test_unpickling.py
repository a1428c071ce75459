"""What a checkpoint's files may name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum

from llm_trainer.runtime.unpickling import allow_deepspeed, refused


class ByName:
    """As Python 3.11.2, which is the image's, writes a member of an enumeration."""

    def __init__(self, kind: type, name: str) -> None:
        self.kind, self.name = kind, name

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.kind, self.name)


def written(tmp_path: Path, value: object) -> Path:
    file = tmp_path / "states.pt"
    torch.save({"zero_stage": value}, file)
    return file


@pytest.mark.parametrize("value", [ZeroStageEnum.gradients, ByName(ZeroStageEnum, "gradients")])
def test_a_member_of_an_enumeration_is_read_however_python_writes_it(tmp_path: Path, value: object) -> None:
    allow_deepspeed()
    assert torch.load(written(tmp_path, value), weights_only=True) == {"zero_stage": ZeroStageEnum.gradients}


@pytest.mark.parametrize("value", [ByName(DynamicLossScaler, "update_scale"), ByName(torch.Tensor, "numpy")])
def test_nothing_else_is_reached_by_a_name(tmp_path: Path, value: object) -> None:
    allow_deepspeed()
    with pytest.raises(pickle.UnpicklingError) as error:
        torch.load(written(tmp_path, value), weights_only=True)
    assert "it names" in refused(error.value)
