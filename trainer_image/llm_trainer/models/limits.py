"""What a model can read: tokens that it has embeddings for, rows that it has positions for."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_trainer.data.tokenizer_checks import too_many_tokens
from llm_trainer.runtime.errors import ConfigurationError


def check_length(model: PreTrainedModel, length: int, field: str) -> None:
    """Raises ConfigurationError when rows of ``length`` tokens, as ``field`` says, are longer than its positions."""
    longest = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if longest and length > longest:
        raise ConfigurationError(f"{field} {length} is beyond the model's {longest} positions; lower it")


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raises ConfigurationError naming the model when it has no embedding for some of the tokens."""
    embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embeddings:
        raise ConfigurationError(f"{name}: {too_many_tokens(tokenizer, embeddings)}")
