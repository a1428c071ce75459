"""Experiment trackers that are told a stage's figures beside Prometheus and the run report."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints

from llm_trainer.config.base import Settings

# without a user and password: those are credentials
TrackingUri = Annotated[str, StringConstraints(pattern=r"^https?://[^@\s/]+(/[^@\s]*)?$", max_length=512)]
Title = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=128)]
WandbName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][-_.A-Za-z0-9]*$", max_length=128)]
WANDB = "https://api.wandb.ai"
SecretName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]


class Credentials(Settings):
    """A Secret of the namespace. Where it is missing the training runs, and a notice says that nobody is told."""

    name: SecretName = Field(description="Of the Secret.")


class TensorBoard(Settings):
    """Event files in the run folder, tensorboard/STAGE."""


class Mlflow(Settings):
    """A run for each stage."""

    uri: TrackingUri = Field(description="Of the tracking server.")
    experiment: Title | None = Field(default=None, description="Default: NAMESPACE/TRAINING.")
    credentials: Credentials | None = Field(
        default=None, description="Keys: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD."
    )


class Wandb(Settings):
    """A run for each stage. Without credentials offline: files in the run folder, for `wandb sync`."""

    project: WandbName = Field(description="Made where it isn't there.")
    entity: WandbName | None = Field(default=None, description="Default: that of the key.")
    uri: TrackingUri | None = Field(default=None, description="Of a server of one's own. Default: W&B's.")
    credentials: Credentials | None = Field(default=None, description="Key: WANDB_API_KEY.")


class Tracker(Settings):
    """Exactly one of tensorboard, mlflow and wandb."""

    tensorboard: TensorBoard | None = Field(default=None, description="Event files in the run folder.")
    mlflow: Mlflow | None = Field(default=None, description="A tracking server of MLflow.")
    wandb: Wandb | None = Field(default=None, description="Weights & Biases.")

    @property
    def kind(self) -> str:
        return next(name for name in KEYS if getattr(self, name) is not None)

    @property
    def secret(self) -> str | None:
        """Name of the Secret with its credentials."""
        chosen = self.mlflow or self.wandb
        return chosen.credentials.name if chosen and chosen.credentials else None

    @property
    def port(self) -> int | None:
        """TCP port of the server that is told; None: nobody is, or its URI has no such port."""
        if not self.mlflow and not (self.wandb and self.wandb.credentials):
            return None
        chosen = self.mlflow or self.wandb
        parts = urlsplit(chosen.uri if chosen and chosen.uri else WANDB)
        try:
            return parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            return None


# By kind the keys of its Secret; they are also the variables that its library reads.
KEYS: dict[str, tuple[str, ...]] = {
    "tensorboard": (),
    "mlflow": ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    "wandb": ("WANDB_API_KEY",),
}


def variable(index: int, key: str) -> str:
    """In which a pod gets a key of the Secret of tracker number `index`: two may be of one kind."""
    return f"LLM_TRACKER_{index}_{key}"
