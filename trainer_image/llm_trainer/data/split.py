"""Which rows of a dataset are held out: all rows of one prompt together, so that no figure is of what was learned."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from llm_trainer.data.formats import Row, said
from llm_trainer.data.messages import prompt_of
from llm_trainer.runtime.errors import DataError


def prompt_number(row: Row, seed: int) -> int:
    """A 64-bit number of what is asked in a row; the same for every row that asks the same."""
    asked: Any = row.get("prompt")  # first: beside it other columns are a reward function's
    if asked is None:
        asked = prompt_of(row["messages"]) if "messages" in row else row["text"]
    if isinstance(asked, list):
        asked = [said(message) for message in asked]
    digest = hashlib.blake2b(json.dumps(asked).encode(), digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little")


def held_out(numbers: npt.NDArray[np.uint64], fraction: float, field: str) -> npt.NDArray[np.bool_]:
    """True for rows that are held out, by their prompts' numbers; with a fraction above 0 at least one prompt is.

    Raises DataError if nothing is left to train on.
    """
    chosen = numbers < np.uint64(int(fraction * 2**64))
    if fraction > 0 and len(numbers) and not chosen.any():
        chosen = numbers == numbers.min()
    if len(numbers) and chosen.all():
        prompts = len(np.unique(numbers))
        raise DataError(
            f"{field}: all {len(numbers)} rows of the dataset are held out. They have {prompts} different "
            f"prompt{'s' * (prompts != 1)}, and rows of one prompt stay together: add rows with other prompts, or "
            "lower the dataset's validationFraction; 0 holds nothing out"
        )
    return chosen
