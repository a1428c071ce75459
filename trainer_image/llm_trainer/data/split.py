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

Numbers = npt.NDArray[np.uint64]


def row_number(written: Row, seed: int) -> int:
    """A 64-bit number of a row's columns as they are in the file, by which it is chosen."""
    return _number(json.dumps(written, sort_keys=True, ensure_ascii=True, default=repr), seed)


def prompt_number(row: Row) -> int:
    """The same for every row that asks the same."""
    asked: Any = row.get("prompt")  # first: beside it other columns are a reward function's
    if asked is None:
        asked = prompt_of(row["messages"]) if "messages" in row else row["text"]
    return _number(json.dumps([said(message) for message in asked] if isinstance(asked, list) else asked), 0)


def held_out(rows: Numbers, prompts: Numbers, fraction: float, field: str) -> npt.NDArray[np.bool_]:
    """True for rows that are held out; the first row of a prompt chooses for all of them. With a fraction above 0
    at least one prompt is held out, but none where all ask the same.

    Raises DataError if nothing is left to train on.
    """
    _, first, group = np.unique(prompts, return_index=True, return_inverse=True)
    numbers = rows[first][group]
    chosen = numbers < np.uint64(int(fraction * 2**64))
    if len(first) == 1:
        return np.zeros(len(rows), dtype=np.bool_)
    if fraction > 0 and len(numbers) and not chosen.any():
        chosen = numbers == numbers.min()
    if len(numbers) and chosen.all():
        raise DataError(
            f"{field}: all {len(numbers)} rows of the dataset are held out. They have {len(first)} different prompts, "
            "and rows of one prompt stay together: add rows with other prompts, or lower the dataset's "
            "validationFraction; 0 holds nothing out"
        )
    return chosen


def _number(text: str, seed: int) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little")
