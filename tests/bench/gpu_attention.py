"""Attention over 32,768 tokens on a GPU: torch's variable-length kernel, and SDPA with the mask of a packed row."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from llm_trainer.models.attention import varlen_attention

TOKENS, HEADS, GROUPS, SIZE, DOCUMENTS = 32_768, 16, 4, 128, 4  # documents in a row
Call = Callable[[], torch.Tensor]


def main() -> None:
    print(f"\n{HEADS} heads of {SIZE}, {GROUPS} of keys, {DOCUMENTS} documents a row; forward and backward, ms")
    print("| length | varlen | SDPA, packed | SDPA, one document a row |\n|---|---|---|---|", flush=True)
    for length in (2048, 8192, 32_768):
        rows = TOKENS // length
        states = [
            torch.randn(rows, heads, length, SIZE, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for heads in (HEADS, GROUPS, GROUPS)
        ]
        positions = torch.arange(length, device="cuda").remainder(length // DOCUMENTS).expand(rows, length)
        print(f"| {length} | " + " | ".join(f"{milliseconds(call):.1f}" for call in calls(states, positions)) + " |")


def calls(states: list[torch.Tensor], positions: torch.Tensor) -> list[Call]:
    module: Any = torch.nn.Module()
    query, key, value = states
    module.is_causal, module.num_key_value_groups = True, HEADS // GROUPS
    document = (positions == 0).cumsum(dim=1)
    length = positions.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device="cuda").tril()
    mask = (document[:1, None, :, None] == document[:1, None, None, :]) & causal
    return [
        lambda: varlen_attention(module, query, key, value, None, position_ids=positions)[0],
        lambda: sdpa_attention_forward(module, query, key, value, mask)[0],
        lambda: sdpa_attention_forward(module, query, key, value, None)[0],
    ]


def milliseconds(call: Call) -> float:
    times: list[float] = []
    event: Any = torch.cuda.Event
    for _ in range(8):
        begin, end = (event(enable_timing=True) for _ in range(2))
        begin.record()
        output = call()
        torch.autograd.backward(output, torch.ones_like(output))
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return median(times[2:])


if __name__ == "__main__":
    main()
