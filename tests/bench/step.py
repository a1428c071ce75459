"""The steps of a pretrain stage, by its configuration, timed in this process; and the memory that they take.

On a GPU that of its tensors; on CPU resident memory, with an allocator that gives back what is freed (ALLOCATOR).
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from llm_trainer.config import StageConfig
from llm_trainer.launch import environment, meeting_of
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import start

WARM_UP = 3  # steps that don't count
PROFILED = 3
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}  # the environment of a run on CPU


def main(config: StageConfig, *, profile: bool, kernel: str = "") -> None:
    meeting = meeting_of(config, 0)  # holds the socket
    os.environ.update({**environment(config, 0, 0, config.processes_per_node), **meeting.environment()})
    from llm_trainer.stages.pretrain import Pretraining

    if kernel:
        only(kernel)
    assert config.pretrain
    with start(config, Board(config.stage, config.attempt)) as stage:
        loop = Pretraining(stage, config.pretrain)
        on_gpu = stage.group.device.type == "cuda"
        loop.make_step(1.0)  # what is allocated once
        loop.step += 1
        forget_peak(on_gpu=on_gpu)
        seconds, losses = [], []
        while loop.step < loop.steps:
            began = time.monotonic()
            losses.append(loop.make_step(1.0).loss)
            if on_gpu:
                torch.cuda.synchronize()
            seconds.append(time.monotonic() - began)
            loop.step += 1
        measured = {
            "seconds": median(seconds[min(WARM_UP, len(seconds) - 1) :]),
            "peak": peak(on_gpu=on_gpu),
            "attention": (stage.board.progress.attention or "").partition(",")[0],
            "losses": [losses[0], losses[-1]],
        }
        if profile:
            show_profile(loop)
        print("measured " + json.dumps(measured), flush=True)


def only(kernel: str) -> None:
    """The machine has no attention faster than this one: varlen or sdpa."""
    from llm_trainer.models.attention import Machine

    machine = replace(Machine.here(), flash_attn=False)
    machine = replace(machine, capability=None) if kernel == "sdpa" else machine
    Machine.here = classmethod(lambda _: machine)  # type: ignore[method-assign,assignment]


def forget_peak(*, on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak(*, on_gpu: bool) -> int:
    """Bytes; on CPU with those of the libraries."""
    if on_gpu:
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def show_profile(loop: object) -> None:
    """The kernels and the host's operations that take longest, as rows of a table."""
    from torch._C._autograd import DeviceType
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    began = time.monotonic()
    with profiler(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in range(PROFILED):
            loop.make_step(1.0)  # type: ignore[attr-defined]
            loop.step += 1  # type: ignore[attr-defined]
        torch.cuda.synchronize()
        took = time.monotonic() - began
    events = seen.key_averages()
    kernels = [event for event in events if event.device_type == DeviceType.CUDA]
    busy = sum(event.self_device_time_total for event in kernels) / 1e6
    print(f"| the GPU was busy for {busy:.2f} s of {took:.2f} s |")
    for event in sorted(kernels, key=lambda event: -event.self_device_time_total)[:22]:
        share = event.self_device_time_total / 1e4 / busy
        print(f"| {share:.1f} % | {event.count // PROFILED} a step | {event.key[:110]} |")
    for event in sorted(events, key=lambda event: -event.self_cpu_time_total)[:12]:
        seconds = event.self_cpu_time_total / 1e6 / PROFILED
        print(f"| host {seconds:.3f} s a step | {event.count // PROFILED} | {event.key[:80]} |")


if __name__ == "__main__":
    wanted = next((word for word in sys.argv[2:] if word in ("varlen", "sdpa")), "")
    main(StageConfig.model_validate_json(sys.argv[1]), profile="profile" in sys.argv[2:], kernel=wanted)
    sys.stdout.flush()
    os._exit(0)
