"""Peak memory of a step with the logits or without, with activations kept or made again: a process each, on CPU.

What is told is above what the process held before the step: gradients are in it, weights and an optimizer's state not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.autograd import backward
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from llm_trainer.models.activation_checkpointing import checkpoint_activations
from llm_trainer.models.language_loss import add_loss

ROWS, LENGTH, VOCABULARY = 2, 1024, 32_768
SIZE = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 12, "num_attention_heads": 4}
LOSSES = ("logits", "nats", "scores")
SECONDS = 0.002  # between two looks


def main(arguments: list[str]) -> None:
    argparse.ArgumentParser("python -m tests.bench memory", description=__doc__).parse_args(arguments)
    print(f"Llama, {SIZE}, vocabulary {VOCABULARY:,}, {ROWS} rows of {LENGTH:,} tokens, float32")
    print("| loss by | activations kept | made again |\n|---|---|---|", flush=True)
    for loss in LOSSES:
        cells = [f"{in_a_child(loss, checkpointing) / 2**20:,.0f} MiB" for checkpointing in (False, True)]
        print(f"| {loss} | {' | '.join(cells)} |", flush=True)


def in_a_child(loss: str, checkpointing: bool) -> int:
    """What another variant has left is none of its memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(peak, loss, checkpointing).result()


def peak(loss: str, checkpointing: bool) -> int:
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=VOCABULARY, tie_word_embeddings=True, **SIZE)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").train()
    if loss != "logits":
        add_loss(model)
    if checkpointing:
        checkpoint_activations(model, asked=True)
    tokens = torch.randint(VOCABULARY, (ROWS, LENGTH + 1))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    with watched() as seen:
        if loss == "logits":
            logits = model(input_ids=inputs, use_cache=False).logits
            backward(cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum"))
        elif loss == "nats":
            backward(model(input_ids=inputs, targets=targets, use_cache=False).nats)
        else:
            scores = model(input_ids=inputs, targets=targets, temperature=1.0, use_cache=False).scores
            backward(scores.log_probs.sum())
    return max(seen) - seen[0]


@contextmanager
def watched() -> Iterator[list[int]]:
    """Bytes that the process holds, at the start and every few milliseconds."""
    seen, done = [resident()], threading.Event()

    def look() -> None:
        while not done.wait(SECONDS):
            seen.append(resident())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
        seen.append(resident())


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
