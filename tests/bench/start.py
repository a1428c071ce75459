"""What a pod costs before its first step: CPU seconds and seconds of a tiny model's stage, and where they go.

One pod with one process, watched from outside until rank 0 has written its first step down.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from llm_trainer.config import StageConfig
from tests.bench.trainer_runs import children, cpu_seconds
from tests.trainer.conftest import MODEL, PRETRAIN, SFT, prepare, stage_config
from tests.trainer.online import ONLINE, PYTHONPATH, write_prompts
from tests.trainer.pods import Pods, history

STAGES = ("pretrain", "sft", "ppo")
NEVER = {"evaluation": {"everySteps": 10**6}, "checkpoint": {"everySteps": 10**6}}


@dataclass(frozen=True)
class Start:
    """From the launcher's start to the end of the first step."""

    seconds: float
    cpu_seconds: float
    parts: str  # what the stage itself says of its start


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("stages", nargs="*", default=STAGES)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-start-") as name:
        folder = Path(name)
        volumes = prepare(folder / "volumes", folder / "pods")
        base = Pods(small(volumes, "base"), folder / "pods").run().result
        assert base
        for stage in options.stages:
            starts = [started(config, folder / "pods") for config in configs(volumes, stage, base.uri, options.rounds)]
            print(report(stage, starts), flush=True)


def small(volumes: Path, name: str) -> StageConfig:
    return stage_config(volumes, name, nodes=1, model=MODEL, pretrain={**PRETRAIN, "steps": 2})


def configs(volumes: Path, kind: str, base: str, rounds: int) -> Iterator[StageConfig]:
    """The same stage, once a round."""
    prompts = {"dataset": {"uri": write_prompts(volumes)}}
    of_kind: dict[str, Any] = {
        "pretrain": {"model": MODEL, "pretrain": {**PRETRAIN, **NEVER, "steps": 2}},
        "sft": {"model": {"uri": base}, "sft": {**SFT, **NEVER, "epochs": 0.1}},
        "ppo": {"model": {"uri": base}, "ppo": {**ONLINE, **NEVER, **prompts, "epochs": 1}},
    }
    for number in range(rounds):
        yield stage_config(volumes, f"{kind}-{number}", nodes=1, **of_kind[kind])


def started(config: StageConfig, folder: Path) -> Start:
    """Run one pod until its first step is made."""
    pods = Pods(config, folder, {"PYTHONPATH": PYTHONPATH})
    began = time.monotonic()
    pod = pods.start().pods[0]
    try:
        while not has_step(config):
            assert pod.process.is_alive(), pod.log[-3000:]
            time.sleep(0.01)
        return Start(time.monotonic() - began, of_tree(pod.pid), said(pod.log))
    finally:
        pods.kill()


def has_step(config: StageConfig) -> bool:
    if not (Path(config.stage_folder) / "history.jsonl").exists():
        return False
    return any("loss" in row for row in history(config))


def of_tree(pid: int) -> float:
    """CPU seconds of a process and those that it started."""
    return cpu_seconds(pid) + sum(map(of_tree, children(pid)))


def said(log: str) -> str:
    return next((line for line in log.splitlines() if line.startswith("started in ")), "")


def report(stage: str, starts: list[Start]) -> str:
    cpu = sorted(start.cpu_seconds for start in starts)
    seconds = median(start.seconds for start in starts)
    line = f"{stage}: {median(cpu):.2f} CPU s ({cpu[0]:.2f} to {cpu[-1]:.2f}), {seconds:.2f} s to the first step"
    return "\n".join([line, *(f"  {start.parts}" for start in starts if start.parts)])
