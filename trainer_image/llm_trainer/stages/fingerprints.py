"""What tells that the data of a stage is what it was when its checkpoint was made."""

from __future__ import annotations

import hashlib
import json

import datasets
from pydantic import TypeAdapter

from llm_trainer.runtime.process_group import ProcessGroup

DIGEST = TypeAdapter(str)
ROWS = 1000  # at a time


def digest_of(rows: datasets.Dataset, group: ProcessGroup) -> str:
    """Of the rows as the dataset's files have them, in their order; the same on every rank, after they have met."""
    digest = hashlib.sha256()
    if group.is_first:
        for batch in rows.iter(ROWS):
            digest.update(json.dumps(batch, sort_keys=True, default=str).encode())
    return group.first(f"sha256:{digest.hexdigest()}", DIGEST)
