"""Checkpoints are DeepSpeed's files, which are pickles; they lie on a shared claim, and a pickle may run anything.

torch reads them by a list of classes: with TORCH_FORCE_WEIGHTS_ONLY_LOAD, which the launcher sets, also where DeepSpeed
asks for more. What no training writes ends the attempt before it is made.
"""

from __future__ import annotations

import pickle
import re
from typing import Any

FORCED = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}  # in the environment of every process


def allow_deepspeed() -> None:
    """The classes that DeepSpeed's files hold beside tensors, numbers, texts and their containers: mere values all."""
    import torch
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    def member(kind: Any, name: str) -> Any:
        """In place of `getattr`, by which Python 3.11 before 3.11.4 pickles a member of an enumeration."""
        if kind is not ZeroStageEnum:
            raise pickle.UnpicklingError("Unsupported global: GLOBAL getattr")
        return kind[name]

    values = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
    torch.serialization.add_safe_globals([*values, (member, "builtins.getattr")])


def refused(error: pickle.UnpicklingError) -> str:
    """For the user."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    what = f"it names {named[1]}" if named else str(error).strip().splitlines()[-1]
    return (
        f"a checkpoint holds what no training writes, and was not loaded: {what}; find out who has written there, "
        "then delete the checkpoint's folder: the training goes on from the one before"
    )
