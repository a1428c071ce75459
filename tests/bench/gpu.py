"""Speed and memory of pretraining on one GPU: tokens per second, share of the card's arithmetic, where the time goes.

Each case is a process that makes the stage's own steps, with nothing saved or evaluated between them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from llm_operator.api.estimate import stage_estimate
from llm_operator.api.families import model_size
from llm_operator.api.validation import load_training
from llm_trainer.runtime.peaks import device_name, peak_flops
from tests.bench.gpu_attention import main as attention
from tests.bench.gpu_cases import CASES, MODELS, VOCABULARY, Case
from tests.bench.step import ALLOCATOR
from tests.bench.trainer_cases import Bench
from tests.bench.trainer_runs import Machine
from tests.cluster.settings import REPOSITORY

GIB = 2**30
HEADER = "| case | attention | tokens/s | MFU | peak GiB | estimated | step s |\n|---|---|---|---|---|---|---|"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("python -m tests.bench gpu", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=sorted(CASES), default=sorted(CASES))
    parser.add_argument("--profile", action="store_true", help="also the operations that take longest")
    parser.add_argument("--volumes", type=Path, help="a folder to prepare the corpus in, or one that has it")
    options = parser.parse_args(arguments)
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
        bench = Bench(options.volumes or Path(folder), Machine("cuda", 1), steps=3)
        if not (bench.volumes / "models/run/data/manifest.json").exists():
            bench.prepare()
        print(HEADER, flush=True)
        for case in (case for name in options.cases for case in CASES[name]):
            print(row(case, run(case, bench, profile=options.profile), "cuda"), flush=True)
    attention()


def run(case: Case, bench: Bench, *, profile: bool = False, kernel: str = "") -> dict[str, Any]:
    """What the process says of its steps; what it says of its end if it has none. ``kernel``: see `step.only`."""
    architecture = MODELS[case.model].model_dump(by_alias=True)
    config = bench.config("bench", model={"architecture": architecture}, pretrain=case.pretrain)
    environment = {
        **os.environ, **bench.machine.environment, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/trainer_image:"
        f"{os.environ.get('PYTHONPATH', '')}", **({} if bench.machine.device == "cuda" else ALLOCATOR),
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.bench.step", config.model_dump_json(by_alias=True)]
    more = [*(["profile"] if profile else []), *([kernel] if kernel else [])]
    done = subprocess.run([*command, *more], env=environment, capture_output=True, text=True, check=False)
    told = [line.removeprefix("measured ") for line in done.stdout.splitlines() if line.startswith("measured ")]
    if profile:
        print("\n".join(line for line in done.stdout.splitlines() if line.startswith("|")), flush=True)
    measured: dict[str, Any] = json.loads(told[-1]) if told else {"error": (done.stderr.splitlines() or ["?"])[-1]}
    return measured


def row(case: Case, measured: dict[str, Any], device: str) -> str:
    """Of docs/figures.md. The estimate is the operator's, without the libraries' own memory."""
    if "error" in measured:
        return f"| {case.name} | | {measured['error'][:200]} | | | | |"
    size = model_size(MODELS[case.model], VOCABULARY)
    assert size
    tokens = case.rows * case.accumulation * case.length / measured["seconds"]
    peak = peak_flops(device_name(torch.device(device)), bfloat16=case.settings.get("precision") != "float32")
    share = f"{100 * size.training_flops_per_token(case.length) * tokens / peak:.1f} %" if peak else ""
    return (
        f"| {case.name} ({size.total / 1e6:,.0f} M) | {measured['attention']} | {tokens:,.0f} | {share} | "
        f"{measured['peak'] / GIB:.1f} | {estimated(case, device) / GIB:.1f} | {measured['seconds']:.3f} |"
    )


def estimated(case: Case, device: str) -> int:
    config = {key: value for key, value in MODELS[case.model].config.items() if key != "vocab_size"}
    shared = {key: value for key, value in case.pretrain.items() if key not in KIND}
    own = {key: value for key, value in case.pretrain.items() if key in KIND}
    spec = load_training(
        {
            "resources": {"limits": {"nvidia.com/gpu": 1}} if device == "cuda" else {},
            "storage": {"persistentVolumeClaim": {"claimName": "models"}},
            "model": {"architecture": {"family": MODELS[case.model].family, "config": config}},
            "tokenizer": {"train": {"vocabularySize": VOCABULARY}},
            "data": {"sources": [{"name": "text", "uri": "pvc://corpus/text.jsonl"}]},
            "stages": [{"name": "bench", "pretrain": own, **shared}],
        }
    )
    found = stage_estimate(spec, 0)
    return found.per_process - found.terms["runtime"] if found else 0


KIND = ("sequenceLength", "steps", "compile")  # of a case's settings: the others are those that all kinds share
