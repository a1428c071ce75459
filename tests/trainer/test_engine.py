"""What DeepSpeed makes of our settings, in a process of its own, by the optimizers that a GPU's bfloat16 gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.trainer.pods import END_SECONDS, ROOT, free_port
from tests.trainer.warm import ENVIRONMENT

CASES = [(0, "adamw"), (1, "adamw"), (2, "adamw"), (3, "adamw"), (1, "muon")]
SCRIPT = """
import json, sys, deepspeed, torch
from llm_trainer.config import Pretrain
from llm_trainer.models.engine_config import deepspeed_config, mend_deepspeed
deepspeed.init_distributed(dist_backend="gloo", verbose=False)
mend_deepspeed()
PARTS = 320

def run(zero, kind, folder):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)).bfloat16()
    torch.nn.init.ones_(model[0].weight)
    torch.nn.init.eye_(model[1].weight)
    optimizer = {"type": kind, "learningRate": 0.125, "weightDecay": 0.0, "gradientClipping": 1e9}
    settings = Pretrain(sequenceLength=8, steps=1, zeroStage=zero, optimizer=optimizer)
    config = deepspeed_config(settings, torch.device("cuda"), PARTS, bfloat16=True)  # what a GPU's engine is asked for
    engine = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)[0]

    def step(factor=1.0):
        for part in range(PARTS):
            engine.backward(engine(torch.ones(1, 4, dtype=torch.bfloat16)).sum() * (factor if part == 7 else 1.0))
            engine.step()
        return engine.was_step_applied()

    def weight():
        with deepspeed.zero.GatheredParameters(list(model.parameters()), enabled=zero == 3):
            return float(model[0].weight[0, 0])

    applied, norm, first = step(), float(engine.get_global_grad_norm()), weight()
    spoilt, left = step(float("nan")), weight()
    engine.save_checkpoint(folder, tag="engine")
    read = engine.load_checkpoint(folder, tag="engine")[0] is not None
    return {"norm": norm, "first": first, "applied": [applied, spoilt, read, step()], "kept": left == first,
            "went on": weight() != first}

done = [run(zero, kind, f"{sys.argv[2]}/{zero}-{kind}") for zero, kind in json.loads(sys.argv[1])]
print("found", json.dumps(done))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], dict[str, Any]]:
    """By the case."""
    environment = {
        **os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT / "trainer_image"), "RANK": "0", "LOCAL_RANK": "0",
        "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    command = [sys.executable, "-c", SCRIPT, json.dumps(CASES), str(tmp_path_factory.mktemp("engines"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=END_SECONDS)
    assert done.returncode == 0, done.stderr[-2000:]
    told = done.stdout.rpartition("found ")[2].splitlines()[0]
    return dict(zip(CASES, json.loads(told), strict=True))


@pytest.mark.parametrize(("zero", "optimizer"), CASES)
def test_weights_in_bfloat16(zero: int, optimizer: str, found: dict[tuple[int, str], dict[str, Any]]) -> None:
    """Gradients of 320 micro-batches add up in float32: in bfloat16 equal parts beyond 256 of them are lost.

    AdamW's first step is as long as the learning rate, whatever the gradient; one that is not finite is left out; and a
    checkpoint is read back.
    """
    case = found[zero, optimizer]
    # of 1 for each of the first matrix, of 4 for each of the second
    assert case["norm"] == pytest.approx((16 * 1 + 16 * 16) ** 0.5, rel=0.01)
    assert case["applied"] == [True, False, True, True]
    assert case["kept"]
    assert case["went on"]
    if optimizer == "adamw":
        assert case["first"] == pytest.approx(1 - 0.125, abs=0.004)
