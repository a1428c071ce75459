"""For how long the training stands still for a checkpoint: two processes, each with its part of a model's state.

The state is what ZeRO gives a process (weights in float32 and AdamW's moments); the checkpoint is the store's: hashed,
flushed and committed. Prints seconds, and deletes what it wrote. 1e9 parameters take 18 GB of memory and 24 GB of disk:
the copies are each process's own, what is copied they share.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from llm_trainer.checkpoint.snapshot import Snapshot
from llm_trainer.checkpoint.store import CheckpointStore
from llm_trainer.config import StageConfig
from llm_trainer.runtime.process_group import ProcessGroup
from tests.trainer.pods import free_port

PROCESSES = 2
NAMES = ("fp32", "exp_avg", "exp_avg_sq")
SAVES = 3


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench checkpoint", description=__doc__)
    parser.add_argument("--parameters", type=float, default=1e9)
    parser.add_argument("--folder", help="on the disk to be measured; a temporary one by default")
    options = parser.parse_args(arguments)
    count = int(options.parameters) // PROCESSES
    numbers = torch.rand(count + len(NAMES)).share_memory_()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory(prefix="bench-checkpoint-", dir=options.folder) as folder:
        spawn(run, (folder, numbers, count, free_port()), nprocs=PROCESSES)  # type: ignore[no-untyped-call]


def run(rank: int, folder: str, numbers: torch.Tensor, count: int, port: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=PROCESSES)
    config = StageConfig.model_validate(
        {
            "training": "bench", "namespace": "default", "uid": "0", "stage": "base", "attempt": 1, "nodes": 1,
            "processesPerNode": PROCESSES, "device": "cpu", "volumesRoot": folder, "runUri": "pvc://models/run",
        }
    )  # fmt: skip
    group = ProcessGroup(rank, rank, PROCESSES, torch.device("cpu"))
    store = CheckpointStore(config, 1, group)
    store.claim()
    state = {name: numbers[place : place + count] for place, name in enumerate(NAMES)}
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if group.is_first:
        print(f"{count * PROCESSES / 1e9:.2f} G parameters, {PROCESSES} processes, {size / 2**30:.2f} GiB of each")
        print("| save | copy to memory, s | the training stands still, s | committed after, s | in line, GiB |")
        print("|---|---|---|---|---|")
    for save in range(1, SAVES + 1):
        measure(store, state, save)
    dist.destroy_process_group()


def measure(store: CheckpointStore, state: dict[str, Any], save: int) -> None:
    store.group.barrier()
    began = time.monotonic()
    for tensor in state.values():
        tensor.clone()
    copied = time.monotonic() - began
    store.group.barrier()

    def write(snapshot: Snapshot) -> None:
        snapshot.add(snapshot.folder / f"state-{store.group.rank}.pt", state)

    began = time.monotonic()
    flight = store.begin(save, write)
    stood = time.monotonic() - began
    landing = store.land(flight)
    slowest = [max(one) for one in zip(*store.group.gather_array(torch.tensor([copied, stood]).numpy()), strict=True)]
    if store.group.is_first:
        in_line = landing.in_line / 2**30
        print(f"| {save} | {slowest[0]:.2f} | {slowest[1]:.2f} | {landing.seconds:.2f} | {in_line:.2f} |", flush=True)
