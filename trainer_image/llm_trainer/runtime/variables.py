"""Variables of a pod that its user may set (docs/reference/environment.md)."""

from __future__ import annotations

import math
import os

from llm_trainer.runtime.errors import ConfigurationError


def seconds(name: str, default: float) -> float:
    """An empty one says nothing. Raises ConfigurationError for what is no number of seconds."""
    if not (given := os.environ.get(name, "").strip()):
        return default
    try:
        told = float(given)
    except ValueError:
        told = math.nan
    if not told >= 0:  # NaN is not
        raise ConfigurationError(f"spec.pods.env {name}: {given!r} is no number of seconds; write one, as {default:g}")
    return told
