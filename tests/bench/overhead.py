"""What our runtime adds to a step: a loop whose steps do nothing is all runtime.

Run under torchrun with a stage's configuration as JSON; rank 0 prints the median seconds of a step.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from llm_trainer.checkpoint.snapshot import Snapshot
from llm_trainer.config import Pretrain, StageConfig
from llm_trainer.protocol import Result
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import start
from llm_trainer.stages.loop import Loop
from llm_trainer.stages.step_report import StepReport
from tests.bench.trainer_runs import Machine
from tests.cluster.settings import REPOSITORY
from tests.trainer.pods import free_port

STEPS = 300


class EmptyLoop(Loop):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.begun: list[float] = []

    def make_step(self, learning_rate_share: float) -> StepReport:
        self.begun.append(time.perf_counter())
        return StepReport(loss=1.0, tokens=1, gradient_norm=1.0, applied=True, figures={})

    def held_out_figures(self) -> dict[str, float]:
        return {}

    def learner(self) -> tuple[Any, Any]:
        raise NotImplementedError

    def export(self) -> Result | None:
        return None

    def fingerprint(self) -> dict[str, Any]:
        return {}

    def write(self, snapshot: Snapshot) -> dict[str, Any]:
        return {}

    def read(self, folder: Path, state: dict[str, Any]) -> None:
        """Nothing was written."""


def main() -> None:
    config = StageConfig.model_validate_json(sys.argv[1])
    assert config.pretrain
    store = open_store() if os.environ["RANK"] == "0" else None  # in the place of the launcher's gate
    with start(config, Board(config.stage, config.attempt)) as run:
        run.meet()
        loop = EmptyLoop(run, config.pretrain, STEPS)
        loop.fit()
        if run.group.is_first:
            print(json.dumps(median(after - before for before, after in pairwise(loop.begun))), flush=True)
    if store:
        store.close()


def open_store() -> socket.socket:
    """Where the processes meet, at the port that all are told."""
    listener = socket.create_server(("127.0.0.1", int(os.environ["LLM_STORE_PORT"])))
    os.environ["LLM_STORE_FD"] = str(os.dup(listener.fileno()))  # the store closes its own
    return listener


def runtime_seconds(machine: Machine) -> float:
    """Of one step."""
    with tempfile.TemporaryDirectory(prefix="bench-overhead-") as folder:
        settings = Pretrain.model_validate({"sequenceLength": 8, "steps": STEPS, "checkpoint": {"everySteps": 10**6}})
        config = StageConfig(
            training="bench", namespace="default", uid="0", stage="empty", attempt=1, nodes=1,
            processes_per_node=machine.processes, device="cpu", volumes_root=folder, run_uri="pvc://models/run",
            pretrain=settings,
        )  # fmt: skip
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={machine.processes}"]
        command += [f"--master-port={free_port()}", "-m", "tests.bench.overhead", config.model_dump_json(by_alias=True)]
        run = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=REPOSITORY, env=overhead_environment(machine)
        )
    assert run.returncode == 0, run.stderr[-3000:]
    return float(json.loads(run.stdout.strip().splitlines()[-1]))


def overhead_environment(machine: Machine) -> dict[str, str]:
    paths = f"{REPOSITORY}:{REPOSITORY}/trainer_image"
    store = {"LLM_STORE_HOST": "127.0.0.1", "LLM_STORE_PORT": str(free_port())}
    return {**os.environ, **Machine("cpu", machine.processes).environment, **store, "PYTHONPATH": paths}


if __name__ == "__main__":
    main()
