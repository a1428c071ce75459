"""What it costs to compare a model of 1 GB with its digest: the share of a stage's start, and of a serving's.

The same stage with and without a manifest beside its base, in turns, on pages that are in memory already, as reading is
none of the cost: the stage reads its base anyway. It trains an adapter, the start that is over soonest. A serving runs
the same program in a process of its own beside vLLM's imports; here it runs alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM

from llm_trainer.checkpoint.files import MANIFEST, FolderManifest, content_files, record
from llm_trainer.config import StageConfig, local_path
from tests.bench.start import NEVER, Start, small, started
from tests.bench.trainer_runs import cpu_seconds
from tests.trainer.conftest import SFT, prepare, stage_config
from tests.trainer.pods import Pods

GIGABYTE = 10**9
SIZES = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_key_value_heads": 16}
LAYER = 4 * 1024**2 + 3 * 1024 * 4096  # parameters, of four bytes


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench digests", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-digests-") as name:
        folder = Path(name)
        volumes = prepare(folder / "volumes", folder / "pods")
        tiny = Pods(small(volumes, "base"), folder / "pods").run().result
        assert tiny
        large = volumes / "models" / "large"
        grow(Path(local_path(tiny.uri, str(volumes))), large)
        digest = sealed(large)
        starts: dict[bool, list[Start]] = {True: [], False: []}
        manifest = (large / MANIFEST).read_text()
        for number in range(options.rounds):
            for compared in (True, False) if number % 2 else (False, True):
                if not compared:
                    (large / MANIFEST).unlink()
                config = adapter(volumes, number, digest if compared else None)
                starts[compared].append(one := started(config, folder / "pods"))
                print(f"  {config.stage}: {one.cpu_seconds:.2f} CPU s, {one.seconds:.2f} s; {one.parts}", flush=True)
                (large / MANIFEST).write_text(manifest)
        print(report(starts, [alone(large, digest) for _ in range(options.rounds)]), flush=True)


def grow(tiny: Path, large: Path) -> None:
    """A model of 1 GB in float32 with the tokenizer of the tiny one."""
    shutil.copytree(tiny, large, ignore=shutil.ignore_patterns(MANIFEST, "*.safetensors"))
    config = AutoConfig.from_pretrained(tiny, **SIZES, head_dim=64, num_hidden_layers=GIGABYTE // 4 // LAYER)
    AutoModelForCausalLM.from_config(config).save_pretrained(large)


def sealed(folder: Path) -> str:
    """Writes the manifest as a stage that publishes does; its digest."""
    manifest = FolderManifest(
        kind="model", step=1, attempt=1, files=[record(file, folder) for file in content_files(folder)]
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(by_alias=True))
    return manifest.digest()


def adapter(volumes: Path, number: int, digest: str | None) -> StageConfig:
    uri = "pvc://models/large"
    settings: dict[str, Any] = {"digests": {uri: digest}} if digest else {}
    name = f"adapter-{number}-{'compared' if digest else 'not'}"
    sft = {**SFT, **NEVER, "epochs": 0.1, "lora": {"rank": 8}}
    return stage_config(volumes, name, nodes=1, model={"uri": uri}, sft=sft, **settings)


def alone(folder: Path, digest: str) -> Start:
    command = [sys.executable, "-m", "llm_trainer.checkpoint.verify", json.dumps({str(folder): digest})]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout
    said = process.stdout.read()  # its end, before it is waited for: its figures go with it
    seconds, cpu = time.monotonic() - began, cpu_seconds(process.pid)
    process.wait()
    assert json.loads(said) == {"problem": None}, said
    return Start(seconds, cpu, "")


def report(starts: dict[bool, list[Start]], verified: list[Start]) -> str:
    def middle(of: list[Start], what: str) -> float:
        return float(median(getattr(one, what) for one in of))

    lines = []
    for what, unit in (("cpu_seconds", "CPU s"), ("seconds", "s")):
        compared, plain = middle(starts[True], what), middle(starts[False], what)
        each = "; ".join(
            " ".join(f"{getattr(one, what):.2f}" for one in starts[compared]) for compared in (True, False)
        )
        lines.append(
            f"a stage's start: {compared:.2f} {unit} with the comparison, {plain:.2f} without, "
            f"{100 * (compared / plain - 1):+.1f} % ({each})"
        )
    lines.append(
        f"a serving's comparison alone: {middle(verified, 'cpu_seconds'):.2f} CPU s in "
        f"{middle(verified, 'seconds'):.2f} s, Python's start and imports with it"
    )
    return "\n".join(lines)
