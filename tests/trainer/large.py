"""What a process's memory rises to while a model is made, written and read, spread over two processes by ZeRO-3.

`python -m tests.trainer.large LAYERS HIDDEN VOCABULARY FOLDER`: a process of two, as the variables of torchrun say.
A Llama; without a folder a Mamba, which is made and no more.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.trainer.pods import END_SECONDS, ROOT, free_port
from tests.trainer.warm import ENVIRONMENT

PROCESSES = 2


@dataclass(frozen=True)
class Found:
    """`peaks`: bytes beyond what the process had when it had imported everything, by phase; the worst process's."""

    size: int  # of the model in float32
    peaks: dict[str, int]
    same: bool  # whether what was read is what was made


def measure(layers: int, hidden: int, vocabulary: int, folder: Path, *, shard_bytes: int | None = None) -> Found:
    """`folder`: for a model of that size, which stays there."""
    sizes = {"SHARD_BYTES": str(shard_bytes)} if shard_bytes else {}
    told = two_processes("tests.trainer.large", *map(str, (layers, hidden, vocabulary, folder)), **sizes)
    peaks = {phase: max(one["peaks"][phase] for one in told) for phase in told[0]["peaks"]}
    return Found(told[0]["size"], peaks, all(one["same"] for one in told))


def two_processes(module: str, *arguments: str, **variables: str) -> list[Any]:
    """What each told in JSON after the word `found`."""
    environment = {
        **os.environ, **ENVIRONMENT, "PYTHONPATH": f"{ROOT}:{ROOT / 'trainer_image'}", "LOCAL_RANK": "0",
        "WORLD_SIZE": str(PROCESSES), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **variables,
    }  # fmt: skip
    command = [sys.executable, "-m", module, *arguments]
    running = [
        subprocess.Popen(command, env={**environment, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(PROCESSES)
    ]
    try:
        outputs = [process.communicate(timeout=END_SECONDS * 3)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    for process, output in zip(running, outputs, strict=True):
        assert process.returncode == 0, output[-2000:]
    return [json.loads(output.rpartition("found ")[2].splitlines()[0]) for output in outputs]


def memory(field: str) -> int:
    """Bytes. What is mapped from files counts too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def peak_of(phase: Callable[[], Any]) -> tuple[Any, int]:
    """What it gives, and to what the memory rose."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
    made = phase()
    return made, memory("VmHWM")


def main(layers: int, hidden: int, vocabulary: int, folder: Path | None) -> None:
    import deepspeed
    from transformers import AutoModelForCausalLM, LlamaConfig, MambaConfig

    from llm_trainer.models import shards
    from llm_trainer.models.placement import Placement
    from llm_trainer.models.scratch import made
    from llm_trainer.models.weights import load
    from llm_trainer.runtime.process_group import ProcessGroup

    shards.SHARD_BYTES = int(os.environ.get("SHARD_BYTES", shards.SHARD_BYTES))
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    group = ProcessGroup(int(os.environ["RANK"]), 0, PROCESSES, torch.device("cpu"))
    placement = Placement(group.device, torch.float32, spread=True)
    config: Any = MambaConfig(hidden_size=hidden, vocab_size=vocabulary) if folder is None else LlamaConfig(
        hidden_size=hidden, intermediate_size=hidden * 11 // 4, num_hidden_layers=layers, vocab_size=vocabulary,
        num_attention_heads=8, num_key_value_heads=8,
    )  # fmt: skip

    def model(layers: int) -> Any:
        torch.manual_seed(0)
        config.num_hidden_layers = layers
        return made(lambda: AutoModelForCausalLM.from_config(config, dtype=torch.float32), placement)

    model(1)  # what is imported at first use
    gc.collect()
    before = memory("VmRSS")
    first: Any
    first, built = peak_of(lambda: model(layers))
    if folder is None:
        size = sum(weight.ds_numel * 4 for weight in first.parameters())
        print("found", json.dumps({"size": size, "peaks": {"made": built - before}}), flush=True)
        group.leave()
        return
    weights: Any = shards.Weights(first, first.state_dict(keep_vars=True), group)
    size = sum(weight.ds_numel * 4 for weight in first.parameters())
    digests = [float(weight.ds_tensor.double().sum()) for weight in first.parameters()]
    _, written = peak_of(lambda: shards.write_weights(weights, folder))
    if group.is_first:
        config.architectures = ["LlamaForCausalLM"]
        config.save_pretrained(folder)
    group.barrier()
    first = weights = None
    second, read = peak_of(lambda: load(AutoModelForCausalLM, folder, placement=placement))
    same = digests == [float(weight.ds_tensor.double().sum()) for weight in second.parameters()]
    peaks = {"made": built - before, "written": written - before, "read": read - before}
    print("found", json.dumps({"size": size, "peaks": peaks, "same": same}), flush=True)
    group.leave()


if __name__ == "__main__":
    sizes = [int(argument) for argument in sys.argv[1:4]]
    main(sizes[0], sizes[1], sizes[2], Path(sys.argv[4]) if sys.argv[4] else None)
