"""One run of a trainer, ours or another's, watched from outside in the same way: steps, CPU seconds, peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from llm_trainer.config import StageConfig
from tests.cluster.settings import REPOSITORY
from tests.trainer.pods import Pods, free_port

SAMPLE_SECONDS = 0.2
GPU_SECONDS = 5.0  # nvidia-smi holds the driver up, by which a step's kernels are started
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Machine:
    """Where all runs of a comparison are made."""

    device: str
    processes: int

    @property
    def environment(self) -> dict[str, str]:
        common = {"HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": self.device, "TOKENIZERS_PARALLELISM": "false"}
        if self.device == "cuda":
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(self.processes))))
            return {**common, "CUDA_VISIBLE_DEVICES": visible, "OMP_NUM_THREADS": "4"}
        threads = max(1, (os.cpu_count() or 1) // self.processes)
        return {**common, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(threads)}


@dataclass(frozen=True)
class Rival:
    """What `tests.bench.rivals` runs; ``arguments`` are those of transformers' TrainingArguments."""

    kind: str
    model: str
    rows: str
    log: str
    max_length: int
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """Sums over the processes of a run; bytes are peaks so far."""

    time: float
    cpu_seconds: float
    memory: int
    gpu_memory: int


@dataclass(frozen=True)
class Measured:
    """`ends`: when each step ended; `losses`: by the step that logged it, a mean over the steps since the last log.

    `tokens`: of the whole run, without padding; only ours are counted, and the rival sees the same rows.
    """

    ends: dict[int, float]
    losses: dict[int, float]
    samples: list[Sample]
    tokens: int = 0

    def seconds(self, first: int) -> float:
        """Per step, over the steps after `first`."""
        last = max(self.ends)
        return (self.ends[last] - self.ends[first]) / (last - first)

    def cpu_seconds(self, first: int) -> float:
        """As `seconds`, of all processes together. Other work on the machine changes it little."""
        times, used = [s.time for s in self.samples], [s.cpu_seconds for s in self.samples]
        last = max(self.ends)
        begin, end = np.interp([self.ends[first], self.ends[last]], times, used)
        return float(end - begin) / (last - first)

    def peak(self, *, gpu: bool) -> int:
        """Bytes at the end of the last step, before anything is exported."""
        seen = [sample for sample in self.samples if sample.time <= max(self.ends.values())]
        return max(sample.gpu_memory if gpu else sample.memory for sample in seen)

    def mean_losses(self, every: int) -> list[float]:
        """Of each `every` steps, whether logged at each step or as their mean."""
        blocks: dict[int, list[float]] = {}
        for step, loss in self.losses.items():
            blocks.setdefault((step - 1) // every, []).append(loss)
        return [fmean(blocks[block]) for block in sorted(blocks)]


def start_ours(config: StageConfig, machine: Machine, folder: Path) -> Pods:
    """With the rival's environment, and nothing of the tests', who hold their pods to fewer instructions."""
    return Pods(config, folder, common=machine.environment).start()


def run_ours(config: StageConfig, machine: Machine, folder: Path) -> Measured:
    pods = start_ours(config, machine, folder)
    samples = watch(pods.pods[0].pid, pods.pods[0].process.is_alive, machine)
    word = pods.wait()[0]
    assert word.exit_code == 0, f"{word.reason}: {word.message}\n{pods.pods[0].log[-3000:]}"
    measured = read(Path(config.stage_folder) / "history.jsonl", samples)
    return replace(measured, tokens=word.progress.tokens if word.progress else 0)


def run_rival(rival: Rival, machine: Machine, folder: Path) -> Measured:
    job = folder / "rival.json"
    job.write_text(json.dumps(asdict(rival)))
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={machine.processes}"]
    command += [f"--master-port={free_port()}", "-m", "tests.bench.rivals", str(job)]
    with (folder / "rival.txt").open("wb") as output:
        environment = {**os.environ, **machine.environment, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/trainer_image"}
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)
    samples = watch(process.pid, lambda: process.poll() is None, machine)
    assert process.returncode == 0, (folder / "rival.txt").read_text()[-3000:]
    return read(Path(rival.log), samples)


def read(log: Path, samples: list[Sample]) -> Measured:
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [row for row in rows if "evaluation" not in row]
    return Measured(
        {row["step"]: row["time"] for row in steps if "time" in row},
        {row["step"]: row["loss"] for row in steps if "loss" in row},
        samples,
    )


def watch(launcher: int, is_alive: Callable[[], bool], machine: Machine) -> list[Sample]:
    """Samples of the processes of a launcher, by its pid, until it ends."""
    samples: list[Sample] = []
    used: dict[int, float] = {}  # a process that a sample misses, or that has ended, has used what it had
    peak, asked = 0, time.monotonic()
    while is_alive():
        pids = children(launcher)
        used = most_of(used, {pid: cpu_seconds(pid) for pid in pids})
        if machine.device == "cuda" and time.monotonic() - asked > GPU_SECONDS:
            peak, asked = max(peak, gpu_memory(pids)), time.monotonic()
        samples.append(Sample(time.time(), sum(used.values()), sum(map(peak_memory, pids)), peak))
        time.sleep(SAMPLE_SECONDS)
    return samples


def most_of(before: dict[int, float], now: dict[int, float]) -> dict[int, float]:
    """CPU seconds by process, which never become less."""
    return {pid: max(before.get(pid, 0.0), now.get(pid, 0.0)) for pid in {**before, **now}}


def children(pid: int) -> list[int]:
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in listing.read_text().split()]
        except OSError:
            continue
    return found


def cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_memory(pid: int) -> int:
    """The process's resident memory at its peak, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def gpu_memory(pids: list[int]) -> int:
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [line.split(",") for line in listed.splitlines() if line.strip()]
    return sum(int(used) * 2**20 for pid, used in rows if int(pid) in pids)
