"""The phases of data preparation, each shared by all processes: documents, filters, the tokenizer, tokens."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from llm_trainer.config import PrepareData
from llm_trainer.data.assembly import Made, refuse_nothing
from llm_trainer.data.documents import Choices, Corpus, read_texts, read_unit, write_kept
from llm_trainer.data.progress import Meter
from llm_trainer.data.quality.filters import Filters, filters_of
from llm_trainer.data.quality.selection import (
    FOLDER,
    KEPT,
    NEAR,
    NEAR_ENTRY,
    choices_of,
    filter_names,
    judge_unit,
    nothing_left,
    write_near,
    write_report,
)
from llm_trainer.data.sharing import Piece, Sharing
from llm_trainer.data.sorted_keys import mapped
from llm_trainer.data.tokenizer import folder_sha256, load_tokenizer, train_tokenizer
from llm_trainer.data.unit_tokens import is_whole, tokens_in, write_tokens
from llm_trainer.data.units import Unit, key_of
from llm_trainer.runtime.errors import ConfigurationError
from llm_trainer.runtime.removal import remove

TOKENIZER_BYTES = 1 << 30  # a larger corpus is sampled, by hash, to train the tokenizer
DOCUMENTS, QUALITY, TOKENIZER, TOKENS = "Documents", "Quality", "Tokenizer", "Tokens"
EQUALS, NEAR_DUPLICATES = "Equals", "NearDuplicates"  # what needs all units at once, and takes no time


@dataclass(frozen=True)
class Chosen:
    """What stays of the corpus. `of` tells of a unit what becomes of each document, and its near duplicates."""

    key: str
    of: Callable[[int], tuple[Choices, NDArray[np.void]]]
    texts: Sequence[Path]  # by unit, folders with those for the tokenizer
    judged: Sequence[Path] = ()  # by unit, folders with parts of the report


@dataclass(frozen=True)
class Task:
    """What is prepared. `content`: of the tokenizer that is not trained, and of the evaluation sets."""

    config: PrepareData
    units: Sequence[Unit]
    volumes_root: str
    loaded: PreTrainedTokenizerBase | None
    content: object

    @property
    def share(self) -> float:
        """Of the corpus, which the tokenizer is trained on."""
        return min(1.0, TOKENIZER_BYTES / max(1, sum(self.sizes))) if self.config.tokenizer.train else 0.0

    @property
    def sizes(self) -> list[int]:
        return [unit.bytes for unit in self.units]

    @cached_property
    def filters(self) -> Filters:
        assert self.config.data  # noqa: S101
        assert self.config.data.quality  # noqa: S101 -- else nobody asks
        return filters_of(self.config.data.quality, self.volumes_root)


class Phases:
    """Of one process. Each shares its work, and returns when all have done it."""

    def __init__(self, task: Task, sharing: Sharing, meter: Meter, *, threads: bool) -> None:
        """`threads`: a process may use CPUs of others."""
        self.task, self.sharing, self.meter, self.threads = task, sharing, meter, threads
        self.data = task.config.data
        self.quality = self.data.quality if self.data and task.units else None

    def run(self, refused: Path) -> Made:
        """`refused`: where the report goes when nothing is left."""
        if not self.data or not self.task.units:
            return Made(self._tokenizer(None, None))
        corpus, keys = self._documents()
        chosen = self._chosen(corpus, keys, refused)
        tokenizer = self._tokenizer(corpus, chosen)
        tokens = self._tokens(corpus, keys, chosen, tokenizer)
        names = filter_names(self.quality, self.task.filters) if self.quality else []
        return Made(tokenizer, corpus, tokens, self.quality, names, chosen.judged)

    def _share(
        self, phase: str, pieces: Sequence[Piece], sizes: Sequence[int], tokens: Callable[[Path], int] = lambda _: 0
    ) -> list[Path]:
        """And show how far it is. `sizes`: bytes of each piece; `tokens`: of one that is made."""
        self.meter.begin(
            phase, {piece.key: size for piece, size in zip(pieces, sizes, strict=True)}, self.sharing, tokens
        )
        made = self.sharing.share(phase, pieces)
        self.meter.end()
        return made

    def _piece(self, key: str, make: Callable[[Path], None]) -> Piece:
        def begin(folder: Path) -> None:
            self.meter.piece()
            make(folder)

        return Piece(key, begin)

    # --- which documents there are, and which stay ---

    def _documents(self) -> tuple[Corpus, list[str]]:
        assert self.data  # noqa: S101 -- the caller has seen it
        data, share, add = self.data, 0.0 if self.quality else self.task.share, self.meter.add
        keys = [key_of([unit.key, share]) for unit in self.task.units]

        def read(unit: Unit, folder: Path) -> None:
            read_unit(unit, data, folder, share, add)

        pieces = [self._piece(key, partial(read, unit)) for key, unit in zip(keys, self.task.units, strict=True)]
        return Corpus.of(data, self.task.units, self._share(DOCUMENTS, pieces, self.task.sizes)), keys

    def _chosen(self, corpus: Corpus, keys: Sequence[str], refused: Path) -> Chosen:
        key = key_of(keys)
        [equals] = self.sharing.share(EQUALS, [Piece(key, partial(write_kept, corpus))])
        if self.quality is None:
            none = np.zeros(0, dtype=NEAR_ENTRY)
            return Chosen(key, lambda unit: (corpus.kept(equals, unit), none), corpus.folders)
        judged = self._judged(corpus, keys, equals)
        key = key_of([folder.name for folder in judged])
        [folder] = self.sharing.share(NEAR_DUPLICATES, [Piece(key, partial(self._near, corpus, judged, refused))])
        near = mapped(folder / NEAR, NEAR_ENTRY)
        return Chosen(key, lambda unit: choices_of(corpus, unit, judged[unit], near), judged, judged)

    def _judged(self, corpus: Corpus, keys: Sequence[str], equals: Path) -> list[Path]:
        assert self.quality  # noqa: S101 -- the caller has seen it
        quality, task, add = self.quality, self.task, self.meter.add

        def judge(unit: int, folder: Path) -> None:
            judge_unit(corpus, unit, corpus.kept(equals, unit), quality, task.filters, task.share, folder, add)

        said = [quality.model_dump(mode="json"), task.share, task.content]
        pieces = [
            self._piece(key_of([key, sha256_of(corpus.kept(equals, unit)), said]), partial(judge, unit))
            for unit, key in enumerate(keys)
        ]
        return self._share(QUALITY, pieces, task.sizes)

    def _near(self, corpus: Corpus, judged: Sequence[Path], refused: Path, folder: Path) -> None:
        """Raises DataError, with the report in `refused`, when no document stays."""
        assert self.quality  # noqa: S101 -- the caller has seen it
        write_near(corpus, self.quality, judged, folder)
        near = mapped(folder / NEAR, NEAR_ENTRY)
        units = range(len(corpus.units))
        if not any(corpus.counts) or any(
            (choices_of(corpus, unit, judged[unit], near)[0] == KEPT).any() for unit in units
        ):
            return  # an empty corpus is told as such
        made = folder / FOLDER
        made.mkdir()
        report = write_report(corpus, self.quality, filter_names(self.quality, self.task.filters), judged, made, {})
        self.sharing.may_write()
        remove(refused)
        made.rename(refused)
        raise nothing_left(report)

    # --- the tokenizer ---

    def _tokenizer(self, corpus: Corpus | None, chosen: Chosen | None) -> Path:
        wanted = self.task.config.tokenizer
        if bool(wanted.train) == bool(wanted.uri):
            raise ConfigurationError("spec.tokenizer needs exactly one of train and uri")
        if wanted.train and not corpus:
            raise ConfigurationError(
                "spec.tokenizer.train needs a corpus: set spec.data, or spec.tokenizer.uri instead"
            )
        key = key_of([wanted.model_dump(mode="json"), chosen.key if chosen and wanted.train else self.task.content])
        make = self._piece(key, lambda folder: self._made_tokenizer(corpus, chosen).save_pretrained(folder))
        [folder] = self._share(TOKENIZER, [make], [sum(self.task.sizes)])
        return folder

    def _made_tokenizer(self, corpus: Corpus | None, chosen: Chosen | None) -> PreTrainedTokenizerBase:
        if self.task.loaded:
            return self.task.loaded
        assert corpus  # noqa: S101
        assert chosen  # noqa: S101
        assert self.task.config.tokenizer.train  # noqa: S101 -- the caller has seen all
        os.environ["TOKENIZERS_PARALLELISM"] = "true"  # the others wait
        return train_tokenizer(self._texts(corpus, chosen), self.task.config.tokenizer.train.vocabulary_size)

    def _texts(self, corpus: Corpus, chosen: Chosen) -> Iterator[str]:
        documents = texts = 0
        for unit, folder in enumerate(chosen.texts):
            choices, _ = chosen.of(unit)
            documents += int((choices == KEPT).sum())
            for number, text in read_texts(folder):
                if choices[number] == KEPT:
                    texts += 1
                    self.meter.add(len(text))
                    yield text
        refuse_nothing(documents, texts)

    # --- tokens ---

    def _tokens(self, corpus: Corpus, keys: Sequence[str], chosen: Chosen, tokenizer: Path) -> list[Path]:
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if self.threads else "false"
        said = [folder_sha256(tokenizer), self.quality.model_dump(mode="json") if self.quality else None]

        def write(unit: int, folder: Path) -> None:
            choices, near = chosen.of(unit)
            write_tokens(corpus, unit, choices, near, self.quality, _loaded(tokenizer), folder, self.meter.add)

        pieces = []
        for unit, key in enumerate(keys):
            choices, near = chosen.of(unit)
            own = [key, sha256_of(choices), chosen.key if len(near) else "", corpus.units[unit].number]
            pieces.append(self._piece(key_of([own, said]), partial(write, unit)))
        if self.sharing.first:
            for piece in pieces:
                if (folder := self.sharing.path(TOKENS, piece.key)).exists() and not is_whole(folder):
                    remove(folder)  # an attempt died as it took the shards out
        return self._share(TOKENS, pieces, self.task.sizes, tokens_in)


@lru_cache(1)
def _loaded(folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(folder, "the training's tokenizer")


def sha256_of(choices: Choices) -> str:
    return hashlib.sha256(choices.tobytes()).hexdigest()
