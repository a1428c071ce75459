"""Whether a learning rate that was found at a narrow width is the best of a wide model, with `baseWidth` and without.

`python -m tests.bench.width` prints the table of docs/howto/loss-watch.md, in minutes on one core. A llama of two
layers learns Python's own documentation, by bytes; the figure is the mean loss of the last steps, in nats.
"""

from __future__ import annotations

import math
import pydoc_data.topics
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llm_trainer.config import Pretrain, ResolvedOptimizer
from llm_trainer.models.engine_config import parameter_groups, peak_of
from llm_trainer.models.width import narrowed, scale_initialisation, width_ratio

BASE, WIDTHS = 64, (64, 128, 256)
RATES = [2.0**-power for power in (10, 9, 8, 7, 6, 5, 4)]
STEPS, ROWS, LENGTH, LAST = 160, 16, 64, 32


def model_of(width: int) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", vocab_size=256, hidden_size=width, intermediate_size=width * 5 // 2, num_hidden_layers=2,
        num_attention_heads=width // 16, num_key_value_heads=width // 16, head_dim=16, max_position_embeddings=LENGTH,
        tie_word_embeddings=False,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def loss_of(width: int, rate: float, text: torch.Tensor, *, scaled: bool) -> float:
    tune: Any = {"baseWidth": BASE} if scaled else {}
    settings = Pretrain.model_validate({"sequenceLength": LENGTH, "steps": STEPS, "tune": tune})
    own, model = ResolvedOptimizer(learning_rate=rate), model_of(width)
    ratio = width_ratio(model, settings)
    scale_initialisation(model, ratio)
    groups = list(parameter_groups(model, own, narrowed(model), ratio))
    optimizer = torch.optim.AdamW([{**group, "lr": 0.0} for group in groups], betas=(own.beta1, own.beta2))
    draw, losses = torch.Generator().manual_seed(1), list[float]()
    for step in range(STEPS):
        share = min((step + 1) / 16, (STEPS - step) / STEPS)
        for group in optimizer.param_groups:
            group["lr"] = share * peak_of(own, group)
        begins = torch.randint(0, len(text) - LENGTH, (ROWS,), generator=draw)
        rows = torch.stack([text[begin : begin + LENGTH] for begin in begins.tolist()])
        loss = model(rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), own.gradient_clipping)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return sum(losses[-LAST:]) / LAST


def main() -> None:
    text = torch.tensor(list("\n".join(pydoc_data.topics.topics.values()).encode()))
    print("| width | baseWidth | " + " | ".join(f"{rate:.3g}" for rate in RATES) + " | best |", flush=True)
    print("|---" * (len(RATES) + 3) + "|")
    for scaled in (True, False):
        for width in WIDTHS:
            if width == BASE and not scaled:
                continue  # it is the same
            found = [loss_of(width, rate, text, scaled=scaled) for rate in RATES]
            best = RATES[min(range(len(RATES)), key=lambda place: found[place] if math.isfinite(found[place]) else 99)]
            told = " | ".join(f"{loss:.3f}" for loss in found)
            print(f"| {width} | {BASE if scaled else '-'} | {told} | {best:.3g} |", flush=True)


if __name__ == "__main__":
    main()
