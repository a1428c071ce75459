"""Runs a stage as the operator's pods do: one launcher per pod, on this machine and CPU.

A cold pod is `python -m llm_trainer.launch`, as in a container; a warm one is the same launcher, forked from a parent
that has imported everything (warm.py).
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from llm_trainer.config import StageConfig
from llm_trainer.protocol import Progress, Termination
from tests.trainer.warm import ENVIRONMENT, start_pod

ROOT = Path(__file__).parents[2]
END_SECONDS = 300


_given: set[int] = set()


def free_port() -> int:
    """Below the ports that the kernel gives to connections: one of those would be taken before a pod listens on it."""
    while True:
        port = random.randrange(20_000, 32_000)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("0.0.0.0", port))
            return port


class Process(Protocol):
    """What is needed of a launcher, however it was started."""

    @property
    def pid(self) -> int | None: ...
    def is_alive(self) -> bool: ...
    def join(self, timeout: float) -> None: ...
    def terminate(self) -> None: ...


class ColdProcess:
    def __init__(self, environment: dict[str, str], log: Path) -> None:
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "llm_trainer.launch"], env=environment, stdout=output, stderr=output
            )

    @property
    def pid(self) -> int | None:
        return self.popen.pid

    def is_alive(self) -> bool:
        return self.popen.poll() is None

    def join(self, timeout: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(timeout)

    def terminate(self) -> None:
        self.popen.terminate()


@dataclass
class Pod:
    """One launcher; its folder holds what its termination message and log would be."""

    folder: Path
    progress_port: int
    process: Process
    has_gate: bool = False

    @property
    def pid(self) -> int:
        """The launcher's."""
        assert self.process.pid
        return self.process.pid

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

    def workers(self) -> list[int]:
        """The pids of its training processes, by local rank; its gate was forked before them."""
        try:
            children = sorted(map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()))
        except OSError:
            return []
        return children[1:] if self.has_gate else children

    def worker(self) -> int:
        """The first one."""
        return self.workers()[0]


@dataclass
class Pods:
    """One attempt of a stage."""

    config: StageConfig
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    warm: bool = False
    each: list[dict[str, str]] = field(default_factory=list)  # what one pod alone has in its environment, by index
    common: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)  # a warm pod has no other
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
                **self.common,
                **self.environment,
                **(self.each[index] if self.each else {}),
            }
            log = folder / "log"
            process = start_pod(environment, log) if self.warm else ColdProcess(environment, log)
            self.pods.append(Pod(folder, port, process, has_gate=self.config.nodes > 1))
        return self

    def wait(self) -> list[Termination]:
        """Every pod's last word, in order."""
        try:
            for pod in self.pods:
                pod.process.join(END_SECONDS)
                assert not pod.process.is_alive(), f"not ended in {END_SECONDS} s; the log ends:\n{pod.log[-4000:]}"
        finally:
            self.kill()
        return [pod.termination for pod in self.pods]

    def run(self) -> Progress:
        """To a good end; the final progress."""
        words = self.start().wait()
        ends = [(word.reason, word.message) for word in words]
        assert all(word.exit_code == 0 for word in words), f"{ends}\n" + "\n".join(p.log[-3000:] for p in self.pods)
        assert words[0].progress
        if self.config.device == "cpu":  # of a GPU nobody has read them for this
            assert not (noise := self.noise()), f"the logs have what no reader can act on: {noise}"
        return words[0].progress

    def noise(self) -> list[str]:
        """Lines of the logs that a library wrote of itself."""
        lines = [line for pod in self.pods for line in pod.log.splitlines()]
        return [line for line in lines if re.search(r"\w+Warning: |\d(it|s)/(s|it)\]|were not sharded", line)]

    def until_step(self, step: int, saved: int = 0) -> None:
        """Wait until so many steps are made, and a checkpoint of step ``saved``, or a later one, counts."""
        end = time.monotonic() + END_SECONDS
        while not (
            (progress := self.pods[0].progress())
            and progress.step >= step
            and (not saved or (progress.checkpoint and progress.checkpoint.step >= saved))
        ):
            ended = [pod for pod in self.pods if not pod.process.is_alive()]
            assert not ended, f"a pod ended before step {step}:\n{ended[0].log[-4000:]}"
            assert time.monotonic() < end, f"step {step} was not reached; the progress is {progress}"
            time.sleep(0.02)

    def kill(self) -> None:
        for pod in self.pods:
            for pid in (*pod.workers(), pod.pid) if pod.process.is_alive() else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            pod.process.join(END_SECONDS)


def history(config: StageConfig) -> list[dict[str, Any]]:
    """The rows of history.jsonl."""
    text = (Path(config.stage_folder) / "history.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def losses(config: StageConfig) -> dict[int, float]:
    """Training loss by step."""
    return {row["step"]: row["loss"] for row in history(config) if "loss" in row}


def forget_the_end(config: StageConfig, step: int) -> None:
    """So that another attempt goes on from the checkpoint before that of the last step."""
    folder = Path(config.stage_folder)
    shutil.rmtree(folder / f"checkpoints/step-{step:08d}")
    (folder / "record.json").unlink()


def evaluations(config: StageConfig) -> dict[int, dict[str, float]]:
    return {row["step"]: row["evaluation"] for row in history(config) if "evaluation" in row}
