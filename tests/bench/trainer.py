"""Our stages against what a TRL user would run, side by side on one machine: speed, memory and losses.

Both sides start from the same weights and see the same rows in the same batches, with ZeRO 1 in the same precision.
Runs alternate, because a machine is not equally fast at all times. Nothing fails by a figure.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from llm_trainer.config import TrainingSettings
from llm_trainer.models.engine_config import computes_in_bfloat16
from tests.bench.overhead import runtime_seconds
from tests.bench.trainer_cases import LOG_EVERY, Bench
from tests.bench.trainer_runs import Machine, Measured, run_ours, run_rival

CASES = ("pretrain", "sft", "chats", "lora", "dpo")
WARM_UP = 5  # steps that don't count


@dataclass(frozen=True)
class Pair:
    ours: Measured
    rival: Measured

    @property
    def speed(self) -> float:
        """How many times as fast as the rival we are."""
        return self.rival.seconds(WARM_UP) / self.ours.seconds(WARM_UP)

    @property
    def cpu(self) -> float:
        """How many times our CPU seconds the rival takes for the same step."""
        return self.rival.cpu_seconds(WARM_UP) / self.ours.cpu_seconds(WARM_UP)


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    processes = options.processes or (2 if options.device == "cpu" else torch.cuda.device_count())
    machine = Machine(options.device, processes)
    print(f"{cpu_model()}; {processes} processes on {options.device}; bfloat16 natively: {native_bfloat16(machine)}")
    with tempfile.TemporaryDirectory(prefix="bench-trainer-") as folder:
        bench = Bench(Path(folder), machine, options.steps)
        bench.prepare()
        print(f"{options.steps} steps a run, the first {WARM_UP} don't count; {options.rounds} rounds", flush=True)
        for case in options.cases:
            pairs = list(compare(bench, case, options.precision, options.rounds, compiled=options.compiled))
            print("\n".join(report(case, pairs, machine)), flush=True)
            if case == "pretrain":
                print(overhead(machine, median(pair.ours.seconds(WARM_UP) for pair in pairs)), flush=True)
        if options.defaults:
            pairs = [against_defaults(bench, number, compiled=options.compiled) for number in range(options.rounds)]
            print("\n".join(report("our defaults", pairs, machine)), flush=True)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench trainer", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--processes", type=int, help="default: 2 on CPU, one per GPU")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of both sides")
    parser.add_argument("--steps", type=int, default=3 * LOG_EVERY)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--defaults", action="store_true", help="also our defaults against Trainer's")
    compiled = "our pretraining as of stages of more than half an hour, whose layers are compiled"
    parser.add_argument("--compiled", action="store_true", help=compiled)
    options = parser.parse_args(arguments)
    if options.steps < LOG_EVERY or options.steps % LOG_EVERY:
        parser.error(f"--steps {options.steps}: make a multiple of {LOG_EVERY}, by which the rivals log their losses")
    return options


def compare(bench: Bench, case: str, precision: str, rounds: int, *, compiled: bool) -> Iterator[Pair]:
    for number in range(rounds):
        name = f"{case}-{number}"
        ours = run_ours(bench.ours(case, name, precision, compiled=compiled), bench.machine, bench.volumes)
        rival = bench.rival(case, f"{name}-rival", bfloat16=precision == "bfloat16")
        yield Pair(ours, run_rival(rival, bench.machine, bench.volumes))


def against_defaults(bench: Bench, number: int, *, compiled: bool) -> Pair:
    """Pretraining with the precision that the machine is good for, against transformers' Trainer as it comes."""
    name = f"default-{number}"
    ours = run_ours(bench.ours("pretrain", name, "auto", compiled=compiled), bench.machine, bench.volumes)
    rival = bench.rival("pretrain", f"{name}-rival", bfloat16=False, deepspeed=False)
    return Pair(ours, run_rival(rival, bench.machine, bench.volumes))


def report(case: str, pairs: list[Pair], machine: Machine) -> Iterator[str]:
    """Lines; tokens per second are medians over the rounds, peaks sums over the processes."""
    gpu = machine.device == "cuda"
    speeds = [pair.speed for pair in pairs]
    sides = [pair.ours for pair in pairs], [pair.rival for pair in pairs]
    ours, rival = (median(1 / run.seconds(WARM_UP) for run in runs) for runs in sides)
    our_peak, rival_peak = (max(run.peak(gpu=gpu) for run in runs) for runs in sides)
    yield f"\n{case}: {median(speeds):.2f} times the rival's speed ({min(speeds):.2f} to {max(speeds):.2f})"
    tokens = pairs[0].ours.tokens / max(pairs[0].ours.ends)  # of a mean step
    yield f"  tokens/s        ours {ours * tokens:,.0f}, rival {rival * tokens:,.0f}"
    yield f"  CPU seconds     the rival takes {median(pair.cpu for pair in pairs):.2f} times ours"
    yield f"  peak memory     ours {our_peak / 2**20:,.0f} MiB, rival {rival_peak / 2**20:,.0f} MiB"
    first, last = ([runs[0].mean_losses(LOG_EVERY)[at] for runs in sides] for at in (0, -1))
    yield f"  loss            first {LOG_EVERY} steps {first[0]:.4f}, {first[1]:.4f}; last {last[0]:.4f}, {last[1]:.4f}"


def overhead(machine: Machine, step_seconds: float) -> str:
    seconds = runtime_seconds(machine)
    return (
        f"  runtime         {1000 * seconds:.2f} ms of a step's {1000 * step_seconds:.0f} ms: "
        f"{100 * seconds / step_seconds:.2f} % for heartbeat, metrics, history and agreed signals"
    )


def native_bfloat16(machine: Machine) -> bool:
    return computes_in_bfloat16(TrainingSettings(), torch.device(machine.device))


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
