"""Runs a stage as the operator's pods do: one launcher per pod, on this machine and CPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_trainer.config import StageConfig
from llm_trainer.protocol import Progress, Termination

ROOT = Path(__file__).parents[2]
END_SECONDS = 300


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Pod:
    """One launcher; its folder holds what its termination message and log would be."""

    folder: Path
    progress_port: int
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def termination(self) -> Termination:
        file = self.folder / "termination"
        assert file.exists(), f"the pod left no termination message; its log ends:\n{self.log[-4000:]}"
        return Termination.model_validate_json(file.read_text())

    def progress(self) -> Progress | None:
        """What the operator would read now; None while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.progress_port}/progress", timeout=2) as answer:
                return Progress.model_validate_json(answer.read())
        except OSError:
            return None

    def worker(self) -> int:
        """The pid of its training process."""
        children: list[int] = []
        for listing in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            children += [int(pid) for pid in listing.read_text().split()]
        names = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
        return next(pid for pid, name in names.items() if "llm_trainer" in name)


@dataclass
class Pods:
    """One attempt of a stage."""

    config: StageConfig
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)

    def start(self) -> Pods:
        rendezvous = free_port()
        for index in range(self.config.nodes):
            folder = self.folder / f"{self.config.stage}-{self.config.attempt}-{index}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            stage = folder / "stage.json"
            stage.write_text(self.config.model_dump_json(by_alias=True))
            port = free_port()
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT / "trainer_image"),
                "LLM_STAGE_CONFIG": str(stage),
                "LLM_LAST_WORDS": str(folder / "words"),
                "LLM_TERMINATION_MESSAGE": str(folder / "termination"),
                "LLM_PROGRESS_PORT": str(port),
                "LLM_RENDEZVOUS_PORT": str(rendezvous),
                "MASTER_ADDR": "127.0.0.1",
                "JOB_COMPLETION_INDEX": str(index),
                "NODE_NAME": f"node-{index}",
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
                "DS_ACCELERATOR": "cpu",
                "HF_HUB_OFFLINE": "1",
                "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
                **self.environment,
            }
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "llm_trainer.launch"], env=environment, stdout=log, stderr=log
                )
            self.pods.append(Pod(folder, port, process))
        return self

    def wait(self) -> list[Termination]:
        """Every pod's last word, in order."""
        try:
            for pod in self.pods:
                pod.process.wait(END_SECONDS)
        finally:
            self.kill()
        return [pod.termination for pod in self.pods]

    def run(self) -> Progress:
        """To a good end; the final progress."""
        words = self.start().wait()
        ends = [(word.reason, word.message) for word in words]
        assert all(word.exit_code == 0 for word in words), f"{ends}\n" + "\n".join(p.log[-3000:] for p in self.pods)
        assert words[0].progress
        return words[0].progress

    def until_step(self, step: int) -> None:
        """Wait until so many steps are made."""
        end = time.monotonic() + END_SECONDS
        while not ((progress := self.pods[0].progress()) and progress.step >= step):
            ended = [pod for pod in self.pods if pod.process.poll() is not None]
            assert not ended, f"a pod ended before step {step}:\n{ended[0].log[-4000:]}"
            assert time.monotonic() < end, f"step {step} was not reached; the progress is {progress}"
            time.sleep(0.02)

    def kill(self) -> None:
        for pod in self.pods:
            for pid in (*_workers(pod), pod.process.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            pod.process.wait()


def _workers(pod: Pod) -> list[int]:
    if pod.process.poll() is not None:
        return []
    try:
        return [pod.worker()]
    except (StopIteration, OSError):
        return []


def history(config: StageConfig) -> list[dict[str, Any]]:
    """The rows of history.jsonl."""
    text = (Path(config.stage_folder) / "history.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def losses(config: StageConfig) -> dict[int, float]:
    """Training loss by step."""
    return {row["step"]: row["loss"] for row in history(config) if "loss" in row}


def evaluations(config: StageConfig) -> dict[int, dict[str, float]]:
    return {row["step"]: row["evaluation"] for row in history(config) if "evaluation" in row}
