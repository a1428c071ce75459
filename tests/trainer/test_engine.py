"""What DeepSpeed makes of our settings, in a process of its own, by the optimizer that a GPU's bfloat16 gets."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.trainer.pods import END_SECONDS, ROOT, free_port
from tests.trainer.warm import ENVIRONMENT

FIRST_STEP = """
import deepspeed, torch
from llm_trainer.models.engine_config import mend_deepspeed
deepspeed.init_distributed(dist_backend="gloo", verbose=False)
mend_deepspeed()
model = torch.nn.Linear(4, 4, bias=False)
torch.nn.init.ones_(model.weight)
config = {
    "train_micro_batch_size_per_gpu": 1,
    "optimizer": {"type": "AdamW", "params": {"lr": 0.125, "weight_decay": 0.0, "torch_adam": True}},
    "bf16": {"enabled": True},
    "zero_optimization": {"stage": %d},
    "zero_allow_untested_optimizer": True,
}
engine = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)[0]
engine.backward(engine(torch.ones(1, 4, dtype=torch.bfloat16)).sum())
engine.step()
print(float(model.weight[0, 0]))
"""


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_the_first_step_is_a_whole_one(zero: int) -> None:
    """AdamW's first step is as long as the learning rate, whatever the gradient."""
    environment = {
        **os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT / "trainer_image"), "RANK": "0", "LOCAL_RANK": "0",
        "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", FIRST_STEP % zero], env=environment, capture_output=True, text=True, timeout=END_SECONDS
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(1 - 0.125, abs=0.004)
