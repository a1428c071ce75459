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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from llm_operator.api.families import model_size
from llm_operator.api.memory import HeldModel, StageMemory
from llm_trainer.config import Architecture
from tests.bench.gpu_attention import main as attention
from tests.bench.trainer_cases import Bench
from tests.bench.trainer_runs import Machine
from tests.cluster.settings import REPOSITORY

VOCABULARY = 32_768
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bfloat16, by the datasheets
GIB = 2**30


def llama(width: int, layers: int, heads: int, groups: int, inner: int, **more: Any) -> Architecture:
    return Architecture(
        family="llama",
        config={
            "vocab_size": VOCABULARY, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": groups, "intermediate_size": inner, "max_position_embeddings": 32_768, **more,
        },
    )  # fmt: skip


MODELS = {
    "125M": llama(768, 12, 12, 4, 2048, tie_word_embeddings=True),
    "1B": llama(2048, 16, 32, 8, 8192, tie_word_embeddings=True),
    "3B": llama(3072, 28, 24, 8, 8192, tie_word_embeddings=True),
    "mixtral": Architecture(
        family="mixtral",
        config={
            "vocab_size": VOCABULARY, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
            "num_key_value_heads": 4, "intermediate_size": 2048, "max_position_embeddings": 32_768,
            "num_local_experts": 8, "num_experts_per_tok": 2,
        },
    ),
    "mamba2": Architecture(
        family="mamba2",
        config={
            "vocab_size": VOCABULARY, "hidden_size": 768, "num_hidden_layers": 24, "num_heads": 24, "head_dim": 64,
            "n_groups": 1, "state_size": 128,
        },
    ),
    "mamba": Architecture(
        family="mamba", config={"vocab_size": VOCABULARY, "hidden_size": 768, "num_hidden_layers": 24}
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """``rows``: of a micro-batch; ``accumulation``: micro-batches of a step."""

    model: str
    length: int
    rows: int
    accumulation: int = 2
    steps: int = 12
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        written = "".join(f", {key} {value}" for key, value in self.settings.items())
        return f"{self.model}, {self.rows} × {self.length}{written}"

    @property
    def pretrain(self) -> dict[str, Any]:
        return {
            "sequenceLength": self.length,
            "microBatchSize": self.rows,
            "globalBatchSize": self.rows * self.accumulation,
            "steps": self.steps,
            **self.settings,
        }


CASES = {
    "small": [
        Case("125M", 2048, 8), Case("125M", 2048, 32), Case("125M", 8192, 8),
        *(Case("125M", 2048, 32, settings={"zeroStage": zero}) for zero in (0, 2, 3)),
    ],
    "large": [
        Case("1B", 2048, 8, 4), Case("1B", 4096, 8, 4), Case("1B", 8192, 4, 4), Case("1B", 32_768, 1, 4),
        Case("3B", 4096, 4, 4),
    ],
    "families": [Case("mixtral", 2048, 16), Case("mamba2", 1024, 1, 2, 5), Case("mamba", 256, 4, 1, 5)],
}  # fmt: skip


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
        print(
            "| case | tokens/s | MFU | peak GiB | of which estimated | step s |\n|---|---|---|---|---|---|", flush=True
        )
        for case in (case for name in options.cases for case in CASES[name]):
            print(row(case, run(case, bench, profile=options.profile)), flush=True)
    attention()


def run(case: Case, bench: Bench, *, profile: bool) -> dict[str, Any]:
    """What the process says of its steps; what it says of its end if it has none."""
    architecture = MODELS[case.model].model_dump(by_alias=True)
    config = bench.config("bench", model={"architecture": architecture}, pretrain=case.pretrain)
    environment = {**os.environ, **bench.machine.environment, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/trainer_image"}
    command = [sys.executable, "-m", "tests.bench.gpu_step", config.model_dump_json(by_alias=True)]
    done = subprocess.run(
        [*command, *(["profile"] if profile else [])], env=environment, capture_output=True, text=True, check=False
    )
    told = [line.removeprefix("measured ") for line in done.stdout.splitlines() if line.startswith("measured ")]
    if profile:
        print("\n".join(line for line in done.stdout.splitlines() if line.startswith("|")), flush=True)
    measured: dict[str, Any] = json.loads(told[-1]) if told else {"error": (done.stderr.splitlines() or ["?"])[-1]}
    return measured


def row(case: Case, measured: dict[str, Any]) -> str:
    if "error" in measured:
        return f"| {case.name} | {measured['error'][:200]} | | | | |"
    size = model_size(MODELS[case.model], VOCABULARY)
    tokens = case.rows * case.accumulation * case.length / measured["seconds"]
    peak = next((value for name, value in PEAK.items() if name in torch.cuda.get_device_name()), float("nan"))
    share = size.training_flops_per_token(case.length) * tokens / peak
    zero = case.settings.get("zeroStage", 1)
    held = StageMemory((HeldModel(size.total, size.routed, learns=True),), 2, 2, 12, zero, 1).per_process
    return (
        f"| {case.name} ({size.total / 1e6:,.0f} M) | {tokens:,.0f} | {100 * share:.1f} % | "
        f"{measured['peak'] / GIB:.1f} | {held / GIB:.1f} | {measured['seconds']:.3f} |"
    )
