"""One case of `tests.bench.gpu`: the configuration of a pretrain stage, whose steps are timed in this process."""

from __future__ import annotations

import json
import os
import sys
import time
from statistics import median

import torch

from llm_trainer.config import StageConfig
from llm_trainer.launch import environment
from llm_trainer.runtime.progress import Board
from llm_trainer.runtime.run import start

WARM_UP = 3  # steps that don't count
PROFILED = 3


def main(config: StageConfig, *, profile: bool) -> None:
    os.environ.update(environment(config, 0, 0))
    from llm_trainer.stages.pretrain import Pretraining

    assert config.pretrain
    with start(config, Board(config.stage, config.attempt)) as stage:
        loop = Pretraining(stage, config.pretrain)
        held = torch.cuda.memory_allocated()
        seconds, losses = [], []
        for _ in range(loop.steps):
            began = time.monotonic()
            losses.append(loop.make_step(1.0).loss)
            torch.cuda.synchronize()
            seconds.append(time.monotonic() - began)
            loop.step += 1
        measured = {
            "seconds": median(seconds[WARM_UP:]),
            "held": held,
            "peak": torch.cuda.max_memory_allocated(),
            "reserved": torch.cuda.max_memory_reserved(),
            "losses": [losses[0], losses[-1]],
        }
        if profile:
            show_profile(loop)
        print("measured " + json.dumps(measured), flush=True)


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
    main(StageConfig.model_validate_json(sys.argv[1]), profile="profile" in sys.argv[2:])
    sys.stdout.flush()
    os._exit(0)
