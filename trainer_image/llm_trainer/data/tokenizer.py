"""The tokenizer: trained here as byte-level BPE, or loaded. Text in, token ids out, and back without a change."""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llm_trainer.data.chat_template import CHAT_TEMPLATE, ROLES
from llm_trainer.data.model_files import ModelFolder, refuse_pointers
from llm_trainer.runtime.errors import ConfigurationError

WINDOW, OVERLAP = 1 << 16, 1 << 10  # characters of a long text that are tokenised at a time, and those in two windows
LONGEST_WORD = 1 << 8  # characters of a word to train on

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
    tokenizer.train_from_iterator((piece for text in texts for piece in pieces(text)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=PADDING,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(folder: str | Path, field: str = "tokenizer") -> PreTrainedTokenizerBase:
    """A tokenizer from a transformers folder.

    Raises ConfigurationError if there is none or it has no end token, and DataError for files that aren't there.
    """
    if not Path(folder).is_dir():
        raise ConfigurationError(f"{field}: there is no folder {folder}")
    refuse_pointers(ModelFolder(Path(folder), field, str(folder)))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises nothing more exact for files that it can't read
        said = " ".join(str(error).split())
        raise ConfigurationError(f"{field}: transformers can't load a tokenizer from {folder}: {said}") from error
    if tokenizer.eos_token_id is None:
        raise ConfigurationError(f"{field}: the tokenizer in {folder} has no eos_token, by which documents end")
    return tokenizer


def pieces(text: str) -> Iterator[str]:
    """A text in parts of at most LONGEST_WORD characters, in which a tokenizer finds the same words to train on.

    Training takes time by the square of a word's length. A part ends where every word ends, after a letter and before
    a space or a sign; in what has no such place for so long, as a gene or a number in hexadecimal, at any character.
    """
    begin = 0
    while len(text) - begin > LONGEST_WORD:
        end = begin + LONGEST_WORD
        end = next((place for place in range(end, begin, -1) if _ends_word(text, place)), end)
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _ends_word(text: str, place: int) -> bool:
    after = text[place]
    return text[place - 1].isalpha() and (after.isspace() or unicodedata.category(after)[0] in "PS")


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Sequence[int]]:
    """Token ids of each text, without special tokens: not even where the text spells one, such as `<|endoftext|>`."""
    is_long = [len(text) > WINDOW and tokenizer.is_fast for text in texts]
    short = [text for text, long in zip(texts, is_long, strict=True) if not long]
    ids = iter(_ids(tokenizer, short) if short else [])
    return [_encode_long(tokenizer, text) if long else next(ids) for text, long in zip(texts, is_long, strict=True)]


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[Sequence[int]]:
    """As `_tokens` has them. A class of its own may do more than its backend; the plain one is asked directly, which
    spares the offsets of each token: a fifth of the time.
    """
    if type(tokenizer) is not PreTrainedTokenizerFast:
        return list(_tokens(tokenizer, texts)["input_ids"])
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True  # what a text spells is text
    return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: str | list[str], *, offsets: bool = False) -> Any:
    return tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=offsets,
        verbose=False,
    )


def _encode_long(tokenizer: PreTrainedTokenizerBase, text: str) -> array[int]:
    """By windows, as a tokenizer takes 200 bytes of memory for each byte that it is given at a time.

    Windows overlap, and are joined where both have a token's border, in the middle of what they share: what a
    tokenizer does at the edge of its text, such as a space before it, is left out. So the ids are those of the whole
    text wherever a token follows from the characters around it; in one word as long as the overlap some may differ.
    """
    ids: array[int] = array("I")
    begin = 0
    window = _Window(tokenizer, text, begin)
    first = 0  # token of the window that is not yet in `ids`
    while window.end < len(text):
        following = _Window(tokenizer, text, window.end - OVERLAP)
        there, here = window.borders(following.begin, window.end), following.borders(following.begin, window.end)
        middle = window.end - OVERLAP // 2
        border = min(there.keys() & here.keys(), key=lambda place: abs(place - middle), default=None)
        if border is None:  # of this word the windows make different tokens
            border = min(there, key=lambda place: abs(place - middle), default=window.end)
            following = _Window(tokenizer, text, border)
            here = {border: 0}
        ids.extend(window.ids[first : there.get(border)])
        window, first = following, here[border]
    ids.extend(window.ids[first:])
    return ids


class _Window:
    """The tokens of a part of a text, and the characters of the text from which each was made."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str, begin: int) -> None:
        self.begin, self.end = begin, min(begin + WINDOW, len(text))
        made = _tokens(tokenizer, text[begin : self.end], offsets=True)
        self.ids: list[int] = made["input_ids"]
        self._offsets: list[tuple[int, int]] = made["offset_mapping"]

    def borders(self, low: int, high: int) -> dict[int, int]:
        """Places of the text between `low` and `high` where a token begins and none is cut, and that token's number."""
        found: dict[int, int] = {}
        number = bisect_left(self._offsets, (low - self.begin, 0))
        while number < len(self._offsets) and (start := self._offsets[number][0]) < high - self.begin:
            if number and self._offsets[number - 1][1] <= start and self._offsets[number - 1][0] < start:
                found.setdefault(start + self.begin, number)
            number += 1
        return found


def content_sha256(folder: Path) -> str:
    """Of what decides the tokens; a folder that is loaded and saved has another tokenizer_config.json."""
    whole = folder / "tokenizer.json"  # a tokenizer that is not of the library `tokenizers` has none
    return hashlib.sha256(whole.read_bytes()).hexdigest() if whole.is_file() else folder_sha256(folder)


def folder_sha256(folder: Path) -> str:
    """Over the names and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()
