"""What no test on CPU can show, in ten minutes on one GPU: ``make gpu-check PYTHON=…``.

Pretraining by each attention that there is, the stages on TRL in bfloat16, an adapter merged into its base, rollouts by
vLLM where it is installed: tokens a second, MFU, and the peak of memory beside the operator's estimate, as rows for
docs/figures.md. What time doesn't suffice for is told. The machine may be bare: LIBRARIES says what to carry in.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# name → whether nothing runs without it. Those that torch and transformers bring along are not here.
LIBRARIES = {
    "torch": True, "transformers": True, "deepspeed": True, "trl": True, "peft": True, "accelerate": True,
    "datasets": True, "pyarrow": True, "pydantic": True, "prometheus_client": True, "tokenizers": True,
    "safetensors": True, "numpy": True, "blake3": True, "py3langid": True, "flash_attn": False, "liger_kernel": False,
    "bitsandbytes": False, "vllm": False,
}  # fmt: skip
STAGE_SECONDS = 60  # that a stage may take: one is not begun when less is left


@dataclass(frozen=True)
class Clock:
    end: float

    @classmethod
    def of(cls, minutes: float) -> Clock:
        return cls(time.monotonic() + 60 * minutes)

    @property
    def has_time(self) -> bool:
        return time.monotonic() + STAGE_SECONDS < self.end


def main(arguments: list[str]) -> int:
    """0 if all that was run went well, 1 if something failed, 2 if a library is missing."""
    parser = argparse.ArgumentParser("python -m tests.bench check", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to see that it runs at all")
    parser.add_argument("--cases", default="check", help="of tests/bench/gpu_cases.py")
    parser.add_argument("--stages", nargs="*", help="default: all of them")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--output", type=Path, help="a file to write the rows to as well")
    options = parser.parse_args(arguments)
    lines: list[str] = []
    for line in check(options):
        print(line, flush=True)
        lines.append(line)
        if options.output:
            options.output.write_text("\n".join([*lines, ""]))
    if any(line.startswith("missing") for line in lines):
        return 2
    return int(any("failed:" in line for line in lines))


def check(options: argparse.Namespace) -> Iterator[str]:
    found = {name: installed(name) for name in LIBRARIES}
    if missing := [name for name, needed in LIBRARIES.items() if needed and not found[name]]:
        yield f"missing: {', '.join(missing)}; carry their wheels in: pip download there, pip install --no-deps here"
        return
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        yield "missing: a CUDA device; with --device cpu --cases tiny the same code runs, and shows nothing of a GPU"
        return
    from llm_trainer.runtime.peaks import device_name
    from tests.bench.gpu import HEADER
    from tests.bench.trainer_cases import Bench
    from tests.bench.trainer_runs import Machine

    versions = ", ".join(f"{name} {number or 'absent'}" for name, number in found.items())
    yield f"{device_name(torch.device(options.device))}: {versions}"
    clock = Clock.of(options.minutes)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        bench = Bench(Path(folder), Machine(options.device, 1), steps=24 if options.device == "cuda" else 2)
        bench.prepare()
        yield from ("", HEADER)
        yield from pretraining(bench, options, clock)
        yield from ("", "| stage | in | tokens/s | peak of tensors | seen |", "|---|---|---|---|---|")
        yield from stages(bench, options, clock)


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


# --- pretraining ---------------------------------------------------------------------------------------------------


def pretraining(bench: Any, options: argparse.Namespace, clock: Clock) -> Iterator[str]:
    from tests.bench.gpu import row, run
    from tests.bench.gpu_cases import CASES

    kernels = ["", "varlen", "sdpa"] if installed("flash_attn") else ["", "sdpa"]
    for case in CASES[options.cases]:
        for kernel in kernels if options.device == "cuda" else [""]:
            if not clock.has_time:
                yield f"| {case.name} | {kernel} | not run: no time was left | | | | |"
                continue
            measured = run(case, bench, kernel=kernel)
            if "error" in measured:
                measured["error"] = f"failed: {measured['error']}"
            yield row(case, measured, options.device)


# --- stages --------------------------------------------------------------------------------------------------------


def stages(bench: Any, options: argparse.Namespace, clock: Clock) -> Iterator[str]:
    """Each as its pod runs it, in bfloat16, from the model of the bench."""
    for name, settings in stage_cases(bench.volumes, on_gpu=options.device == "cuda").items():
        if options.stages is not None and name not in options.stages:
            continue
        if "vllm" in name and not installed("vllm"):
            yield f"| {name} | | | | not run: vllm is absent |"
        elif not clock.has_time:
            yield f"| {name} | | | | not run: no time was left |"
        else:
            yield run_stage(bench, name, settings)


def stage_cases(volumes: Path, *, on_gpu: bool) -> dict[str, dict[str, Any]]:
    """By name, the kind with its settings; the corpus gets the rows that Bench has not."""
    from tests.bench.trainer_cases import write_rows

    pairs = [json.loads(line) for line in (volumes / "corpus/pairs.jsonl").read_text().splitlines()]
    write_rows(volumes / "corpus/prompts.jsonl", [{"prompt": row["prompt"]} for row in pairs])
    marked = [
        {"prompt": row["prompt"], "completion": row["chosen"], "label": i % 2 == 0} for i, row in enumerate(pairs)
    ]
    write_rows(volumes / "corpus/marked.jsonl", marked)
    length = 256 if on_gpu else 32
    shared = {
        "precision": "bfloat16" if on_gpu else "float32", "globalBatchSize": 8, "microBatchSize": 4,
        "checkpoint": {"everySteps": 1000}, "evaluation": {"everySteps": 1000},
    }  # fmt: skip

    def of(rows: str, **more: Any) -> dict[str, Any]:
        return {**shared, "dataset": {"uri": f"pvc://corpus/{rows}.jsonl", "validationFraction": 0.0}, **more}

    online = {
        "maxPromptLength": 64, "maxCompletionLength": 32,
        "rewards": [{"function": "tests.trainer.reward_functions:early"}],
    }  # fmt: skip
    return {
        "sft": {"sft": of("chat", maxLength=length)},
        "lora-merged": {"sft": of("chat", maxLength=length, lora={"rank": 8, "merge": True})},
        "reward-model": {"rewardModel": of("pairs", maxLength=length)},
        "dpo": {"dpo": of("pairs", maxLength=length)},
        "kto": {"kto": of("marked", maxLength=length)},
        "ppo": {"ppo": of("prompts", **online, rolloutBatchSize=16)},
        "grpo": {"grpo": of("prompts", **online, numGenerations=4)},
        "ppo-vllm": {"ppo": of("prompts", **online, rolloutBatchSize=16, vllm={"gpuMemoryUtilization": 0.2})},
    }


def run_stage(bench: Any, name: str, settings: dict[str, Any]) -> str:
    from tests.trainer.online import PYTHONPATH
    from tests.trainer.pods import Pods, losses

    config = bench.config(name, model={"uri": "pvc://models/start"}, **settings)
    pods = Pods(config, bench.volumes, {**bench.machine.environment, "PYTHONPATH": PYTHONPATH})
    began = time.monotonic()
    try:
        progress = pods.run()
        assert progress.result, "no result"
        assert progress.result.kind in ("model", "rewardModel"), f"the result is of the kind {progress.result.kind}"
    except AssertionError as error:
        return f"| {name} | | | | failed: {' '.join(str(error).split())[-300:]} |"
    finally:
        pods.kill()
    told = re.search(r"peak memory of the GPU's tensors: (.*)", pods.pods[0].log)
    seen = list(losses(config).values())
    return (
        f"| {name} | {time.monotonic() - began:.0f} s | {progress.tokens_per_second or 0:,.0f} | "
        f"{told[1] if told else ''} | loss {seen[0]:.3f} → {seen[-1]:.3f}, {progress.attention} |"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
