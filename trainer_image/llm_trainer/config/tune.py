"""Short trials before a stage that choose what it is trained with, and a rate of a narrower model, as written."""

from __future__ import annotations

from pydantic import Field

from llm_trainer.config.base import Settings


class RateRange(Settings):
    """The learning rate rises from step to step, until the loss does too (Smith 2017)."""

    minimum: float = Field(default=1e-5, gt=0, le=10, description="Rate of the first step.")
    maximum: float = Field(default=0.1, gt=0, le=10, description="Rate of the last step; more than minimum.")
    steps: int = Field(default=60, ge=10, le=10_000, description="Optimizer steps, which don't count for the stage.")


class BatchRange(Settings):
    """The micro-batch doubles, from microBatchSize on, while the memory lasts."""

    maximum: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="Largest to try, at least microBatchSize. Default: a process's share of globalBatchSize.",
    )


class Tune(Settings):
    """Trials on the stage's first data; afterwards all is as if they hadn't been."""

    learning_rate: RateRange | None = Field(
        default=None,
        description="Choose the peak, in the place of optimizer.learningRate: a tenth of the rate of the lowest loss.",
    )
    micro_batch_size: BatchRange | None = Field(
        default=None,
        description="Choose the largest that fits, in the place of microBatchSize; globalBatchSize stays.",
    )
    base_width: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="hidden_size of the narrower model of the same shape at which the learning rate was found: rates "
        "and first weights are scaled to this one's (μP, Yang et al. 2022).",
    )
