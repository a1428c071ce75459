"""What a stage does when its loss goes wrong, or gets no better, as a user writes it."""

from __future__ import annotations

from pydantic import Field

from llm_trainer.config.base import Settings


class ReduceOnPlateau(Settings):
    """Lower the learning rate when the held-out loss gets no lower."""

    patience: int = Field(
        default=3, ge=1, le=1_000_000, description="Evaluations in a row without a new lowest held-out loss."
    )
    factor: float = Field(default=0.5, gt=0, lt=1, description="Of the learning rate, each time, to the stage's end.")


class EarlyStop(Settings):
    """End the stage, as succeeded, when the held-out loss gets no lower."""

    patience: int = Field(default=5, ge=1, le=1_000_000, description="Evaluations in a row without a better loss.")
    min_delta: float = Field(
        default=0.0, ge=0, le=1000, description="How much lower than the best before it a held-out loss must be."
    )


class LossWatch(Settings):
    """Leave out, roll back, jump over data, stop: `{}` is the defaults."""

    sigma: float = Field(
        default=6.0,
        gt=0,
        le=1000,
        description="A step is off when its loss is so many standard deviations above the mean of the last steps.",
    )
    window: int = Field(default=64, ge=8, le=4096, description="Steps of that mean; it counts when half are there.")
    spike_steps: int = Field(
        default=5, ge=1, le=1000, description="So many steps in a row that are off are rolled back."
    )
    skips: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="So many steps in a row whose gradient is not finite, each left out, are rolled back; of a short "
        "stage half its steps.",
    )
    rollbacks: int = Field(
        default=3, ge=0, le=64, description="Rollbacks of a stage; where one more is due it fails as Diverged."
    )
    rate_factor: float = Field(default=1.0, gt=0, le=1, description="Of the learning rate, after each rollback.")
    reduce_on_plateau: ReduceOnPlateau | None = Field(
        default=None, description="Lower the learning rate when the held-out loss gets no lower. Default: off."
    )
    early_stop: EarlyStop | None = Field(
        default=None, description="End the stage when the held-out loss gets no lower. Default: off."
    )

    @property
    def looks_at_held_out(self) -> str:
        """The first field that does; empty if none is set."""
        return "reduceOnPlateau" if self.reduce_on_plateau else "earlyStop" if self.early_stop else ""
