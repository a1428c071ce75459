"""What of later stages can be told once there is a tokenizer, before any GPU is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from llm_trainer.config import DatasetCheck
from llm_trainer.data.examples import Examples
from llm_trainer.protocol import Notice
from llm_trainer.runtime.errors import ConfigurationError

ROWS_BETWEEN = 256  # about half a second


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: Path) -> None:
    """Raises ConfigurationError for a model that has no embedding for some of the tokens."""
    file = model / "config.json"
    if not file.is_file():
        raise ConfigurationError(f"spec.model.uri: {model} holds no transformers model: there is no config.json")
    embeddings = json.loads(file.read_text()).get("vocab_size")
    if isinstance(embeddings, int) and len(tokenizer) > embeddings:
        raise ConfigurationError(
            f"spec.tokenizer: it has {len(tokenizer)} tokens and the model of spec.model.uri {embeddings} embeddings; "
            "remove it, so that the model's own tokenizer is used"
        )


def check_rows(
    check: DatasetCheck,
    tokenizer: PreTrainedTokenizerBase,
    volumes_root: str,
    alive: Callable[[], None] = lambda: None,
) -> list[Notice]:
    """Reads every row as its stage will; what of them a user should look at. `alive` is called now and then.

    Raises DataError and ConfigurationError as the stage would.
    """
    examples = Examples(check, tokenizer, volumes_root)
    for number, _ in enumerate(examples):
        if number % ROWS_BETWEEN == 0:
            alive()
    return examples.notices()
