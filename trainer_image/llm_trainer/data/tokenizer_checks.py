"""What of later stages can be told once there is a tokenizer, before any GPU is taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from transformers import PreTrainedTokenizerBase

from llm_trainer.config import DatasetCheck
from llm_trainer.data.examples import Examples
from llm_trainer.data.rows import refuse_warmup
from llm_trainer.data.shared_rows import RowMaking, telling
from llm_trainer.protocol import Notice


def too_many_tokens(tokenizer: PreTrainedTokenizerBase, embeddings: int) -> str:
    """What is said of a tokenizer with tokens for which a model has no embedding, and what to do about it."""
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= embeddings}
    added = set(beyond) & set(tokenizer.get_added_vocab())
    names = sorted(beyond, key=lambda token: beyond[token])
    listed = ", ".join(f"{token!r} ({beyond[token]})" for token in names[:4])
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    said = f"its tokenizer has {len(tokenizer)} tokens and the model {embeddings} embeddings, none for {listed}{more}; "
    if added and added == set(beyond):
        return said + (
            "if your texts don't need them, remove these from added_tokens of tokenizer.json and from "
            "added_tokens_decoder and additional_special_tokens of tokenizer_config.json, or call "
            "resize_token_embeddings of the model and save it"
        )
    return said + "it is another model's tokenizer: leave out spec.tokenizer, so that the model's own is used"


def check_rows(
    check: DatasetCheck,
    tokenizer: PreTrainedTokenizerBase,
    volumes_root: str,
    alive: Callable[[], None] = lambda: None,
    making: RowMaking | None = None,
) -> list[Notice]:
    """Reads every row as its stage will; what of them a user should look at. `alive` is called now and then.

    `making`: of these rows, with whoever helps, to keep them for the stage. Raises DataError and ConfigurationError as
    the stage would.
    """
    if making:
        examples = making.make()
    else:
        examples = Examples(check, tokenizer, volumes_root)
        deque(telling(examples, alive), maxlen=0)
    refuse_warmup(check, int((~examples.held_out()).sum()))  # a stage counts its steps
    if making:
        making.commit(examples)
    return examples.notices()
