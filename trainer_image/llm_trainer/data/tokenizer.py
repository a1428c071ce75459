"""The tokenizer: trained here as byte-level BPE, or loaded. Text in, token ids out, and back without a change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llm_trainer.data.chat_template import CHAT_TEMPLATE, ROLES
from llm_trainer.runtime.errors import ConfigurationError

END_OF_TEXT, PADDING = "<|endoftext|>", "<|pad|>"

# A merge never crosses these borders: words with the space before them, single digits, runs of other signs, line ends.
_WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}[\p{L}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterator[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019): every text can be written, none needs `unknown`.

    The special tokens and the chat template are fixed now, so that no later stage has to change the vocabulary.
    A small corpus yields fewer tokens than `vocabulary_size`.
    """
    special = [AddedToken(token, special=True, normalized=False) for token in (END_OF_TEXT, PADDING, *ROLES.values())]
    tokenizer = FastTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=PADDING,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(folder: str | Path, field: str = "tokenizer") -> PreTrainedTokenizerBase:
    """A tokenizer from a transformers folder. Raises ConfigurationError if there is none or it has no end token."""
    if not Path(folder).is_dir():
        raise ConfigurationError(f"{field}: there is no folder {folder}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # a file may be broken in any way, and `tokenizers` raises what has no other class
        raise ConfigurationError(f"{field}: transformers can't load a tokenizer from {folder}: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ConfigurationError(f"{field}: the tokenizer in {folder} has no eos_token, by which documents end")
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, without special tokens: not even where the text spells one, such as `<|endoftext|>`."""
    ids: list[list[int]] = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    return ids


def folder_sha256(folder: Path) -> str:
    """Over the names and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()
