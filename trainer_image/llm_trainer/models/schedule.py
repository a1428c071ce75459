"""The learning rate over a run, as a share of its peak."""

from __future__ import annotations

import math

from llm_trainer.config import Schedule


def learning_rate_share(schedule: Schedule, step: int, total_steps: int) -> float:
    """The share of the peak for the optimizer step after `step` others, of `total_steps` in all.

    wsd is warm-up, stable, linear decay (Hu et al. 2024); cosine is Loshchilov and Hutter 2017. The first step is not
    wasted on a rate of 0.
    """
    if step < schedule.warmup_steps:
        return (step + 1) / (schedule.warmup_steps + 1)
    after_warmup = total_steps - schedule.warmup_steps
    match schedule.type:
        case "constant":
            return 1.0
        case "cosine":
            done = (step - schedule.warmup_steps) / max(1, after_warmup)
            fall = 0.5 * (1 - math.cos(math.pi * min(1.0, done)))
        case "wsd":
            decay_steps = min(after_warmup, max(1, round(schedule.decay_fraction * total_steps)))
            fall = min(1.0, max(0.0, (step - (total_steps - decay_steps)) / max(1, decay_steps)))
    return 1 - (1 - schedule.minimum_ratio) * fall
