from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from llm_trainer.config import PrepareData, Source, Tokenizer, TrainTokenizer
from llm_trainer.data import phases
from llm_trainer.data.manifest import DataManifest, Shard, read_manifest
from llm_trainer.data.prepare import WORK, Step, prepare
from llm_trainer.data.shards import ShardWriter, token_type
from llm_trainer.data.tokenizer import load_tokenizer, train_tokenizer
from llm_trainer.runtime.errors import ConfigurationError, DataError
from llm_trainer.stages.data_summary import percent

from .conftest import WriteLines, corpus_of

TEXTS = [f"{number}番の文書 is document {number}. Cafe\u0301." for number in range(40)]


def config(*files: str, sequence_length: int | None = None, **settings: Any) -> PrepareData:
    return PrepareData(
        data=corpus_of(*files, **settings),
        tokenizer=Tokenizer(train=TrainTokenizer(vocabulary_size=512)),
        sequence_length=sequence_length,
    )


def run(settings: PrepareData, volumes: Path, attempt: int = 1) -> tuple[DataManifest, list[Step]]:
    steps: list[Step] = []
    return prepare(settings, volumes / "models/run/data", str(volumes), str(attempt), steps.append), steps


def documents_of(folder: Path, shard: Shard, dtype: str) -> list[list[int]]:
    tokens = np.fromfile(folder / shard.file, dtype=dtype)
    ends = np.fromfile((folder / shard.file).with_suffix(".idx"), dtype="<i8")
    return [part.tolist() for part in np.split(tokens, ends)[:-1]]


def test_shards_hold_the_documents_in_nfc_each_with_its_end(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("a.jsonl", [{"text": text} for text in [*TEXTS, TEXTS[0]]])
    (volumes / "corpus/b.txt").write_text("another source")
    manifest, steps = run(config("a.jsonl", "b.txt", validation_fraction=0.2), volumes)
    folder = volumes / "models/run/data"
    assert read_manifest(folder) == manifest
    tokenizer = load_tokenizer(folder / manifest.tokenizer)
    texts = []
    for shard in manifest.shards:
        documents = documents_of(folder, shard, manifest.dtype)
        assert all(document[-1] == manifest.eos_token_id for document in documents)
        shard_texts = [tokenizer.decode(document[:-1]) for document in documents]
        assert len(documents) == shard.documents
        assert sum(map(len, documents)) == shard.tokens
        assert sum(len(text.encode()) for text in shard_texts) == shard.bytes
        assert hashlib.sha256((folder / shard.file).read_bytes()).hexdigest() == shard.sha256
        texts += shard_texts
    assert sorted(texts) == sorted([*(unicodedata.normalize("NFC", text) for text in TEXTS), "another source"])
    assert {shard.split for shard in manifest.shards if shard.source == "a"} == {"train", "validation"}
    counts = {source.name: source for source in manifest.sources}
    assert (counts["a"].documents, counts["a"].duplicates, counts["b"].documents) == (40, 1, 1)
    assert list(dict.fromkeys(step.phase for step in steps)) == ["Documents", "Tokenizer", "Tokens"]
    assert [percent(step) for step in steps] == sorted(percent(step) for step in steps)
    assert steps[-1].tokens == sum(shard.tokens for shard in manifest.shards)


def test_a_second_run_does_nothing_and_a_changed_file_is_noticed(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("a.jsonl", [{"text": text} for text in TEXTS])
    settings = config("a.jsonl")
    first, _ = run(settings, volumes)
    written = (volumes / "models/run/data/manifest.json").stat().st_mtime_ns
    second, steps = run(settings, volumes, attempt=2)
    assert (second, steps) == (first, [])
    assert (volumes / "models/run/data/manifest.json").stat().st_mtime_ns == written
    write_lines("a.jsonl", [{"text": text} for text in TEXTS[1:]])
    third, _ = run(settings, volumes, attempt=3)
    assert third.digest != first.digest
    assert [path.name for path in (volumes / "models/run").iterdir()] == ["data"]


def test_the_digest_follows_from_the_texts_alone(volumes: Path, write_lines: WriteLines) -> None:
    path = write_lines("a.jsonl", [{"text": text} for text in TEXTS])
    first, _ = run(config("a.jsonl"), volumes)
    path.touch()
    second, steps = run(config("a.jsonl"), volumes)
    assert steps, "a file with another time is read again"
    assert second.digest == first.digest


def test_a_damaged_folder_is_made_again(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("a.jsonl", [{"text": text} for text in TEXTS])
    first, _ = run(config("a.jsonl"), volumes)
    shard = volumes / "models/run/data" / first.shards[0].file
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2])
    assert run(config("a.jsonl"), volumes)[1]
    assert shard.read_bytes() == whole


def test_what_a_killed_attempt_left_is_removed_and_a_failed_one_leaves_its_work(
    volumes: Path, write_lines: WriteLines
) -> None:
    (volumes / "models/run/.data-1/train").mkdir(parents=True)
    write_lines("a.jsonl", [{"text": text} for text in TEXTS])
    with pytest.raises(DataError):
        run(config("a.jsonl", sequence_length=100_000), volumes, attempt=2)
    assert [path.name for path in (volumes / "models/run").iterdir()] == [WORK]
    run(config("a.jsonl"), volumes, attempt=3)
    assert [path.name for path in (volumes / "models/run").iterdir()] == ["data"]


@pytest.mark.parametrize("tokenizer", [Tokenizer(train=TrainTokenizer(vocabulary_size=512)), None])
def test_an_empty_corpus_is_refused(volumes: Path, write_lines: WriteLines, tokenizer: Tokenizer | None) -> None:
    if tokenizer is None:
        write_lines("seed.jsonl", [{"text": text} for text in TEXTS])
        run(config("seed.jsonl"), volumes)
        (volumes / "models/run/data").rename(volumes / "models/kept")
        tokenizer = Tokenizer(uri="pvc://models/kept/tokenizer")
    write_lines("a.jsonl", [{"text": " "}, ""])
    with pytest.raises(DataError, match="the corpus is empty: no source has a document that is UTF-8 and not blank"):
        run(PrepareData(data=corpus_of("a.jsonl"), tokenizer=tokenizer), volumes)


def test_a_corpus_without_anything_to_train_on_is_refused(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("a.jsonl", [{"text": text} for text in TEXTS[:3]])
    with pytest.raises(DataError, match=r"all 3 documents .* held-out split: .* lower spec.data.validationFraction"):
        run(config("a.jsonl", validation_fraction=0.999999), volumes)
    write_lines("a.jsonl", [{"text": text} for text in TEXTS])
    with pytest.raises(DataError, match=r"the corpus has \d+ tokens to train on, fewer than one sequence of 4096"):
        run(config("a.jsonl", sequence_length=4096), volumes)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_one_text_file_can_not_be_split(volumes: Path, fraction: float) -> None:
    """It is all to train on, or told that it is all held out, with what would do."""
    (volumes / "corpus/input.txt").write_text("First Citizen: Before we proceed any further, hear me speak. " * 50)
    try:
        manifest, _ = run(config("input.txt", validation_fraction=fraction), volumes)
    except DataError as error:
        assert "all 1 documents of the corpus fell into the held-out split" in str(error)  # noqa: PT017
        assert "split the file" in str(error)  # noqa: PT017
    else:
        assert {shard.split for shard in manifest.shards} == {"train"}


def test_an_attempt_that_lost_the_folder_leaves_it_as_it_is(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("a.jsonl", [{"text": text} for text in TEXTS])
    made, _ = run(config("a.jsonl"), volumes)
    folder = volumes / "models/run/data"

    def refuse() -> None:
        (folder.parent / ".data-new-1").mkdir()  # of the one that has it now
        raise ConfigurationError("taken up")

    with pytest.raises(ConfigurationError, match="taken up"):
        prepare(config("a.jsonl", seed=1), folder, str(volumes), "old-1", lambda step: None, refuse)
    assert read_manifest(folder) == made
    assert [path.name for path in folder.parent.glob(".data-*")] == [".data-new-1"]


def test_a_tokenizer_is_loaded_and_kept_without_a_corpus(volumes: Path, write_lines: WriteLines) -> None:
    write_lines("a.jsonl", [{"text": text} for text in TEXTS])
    made, _ = run(config("a.jsonl"), volumes)
    loaded = PrepareData(tokenizer=Tokenizer(uri="pvc://models/run/data/tokenizer"))
    manifest = prepare(loaded, volumes / "models/other/data", str(volumes), "1", lambda step: None)
    assert (manifest.vocabulary_size, manifest.shards) == (made.vocabulary_size, [])
    assert load_tokenizer(volumes / "models/other/data/tokenizer").eos_token_id == made.eos_token_id
    with pytest.raises(ConfigurationError, match=r"spec.tokenizer.train needs a corpus"):
        prepare(
            PrepareData(tokenizer=Tokenizer(train=TrainTokenizer(vocabulary_size=512))),
            volumes / "models/third/data",
            str(volumes),
            "1",
            lambda step: None,
        )


def test_the_tokenizer_never_sees_held_out_documents(
    volumes: Path, write_lines: WriteLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines("a.jsonl", [{"text": text} for text in TEXTS])
    seen: list[str] = []

    def train(texts: Iterator[str], size: int) -> PreTrainedTokenizerFast:
        seen.extend(texts)
        return train_tokenizer(iter(seen), size)

    monkeypatch.setattr(phases, "train_tokenizer", train)
    manifest, _ = run(config("a.jsonl", validation_fraction=0.3), volumes)
    folder = volumes / "models/run/data"
    tokenizer = load_tokenizer(folder / manifest.tokenizer)
    for shard in manifest.shards:
        texts = {tokenizer.decode(document[:-1]) for document in documents_of(folder, shard, manifest.dtype)}
        assert texts <= set(seen) if shard.split == "train" else not texts & set(seen)
    assert 0 < len(seen) < len(TEXTS)


def test_a_large_source_has_several_shards(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "train", Source(name="s", uri="pvc://c/x"), "uint32", tokens_per_shard=5)
    for document in ([1, 2, 3], [4, 5, 6, 7], [70_000, 0]):
        writer.add(document, 10)
    first, second = writer.close()
    assert (first.file, first.tokens, first.documents, first.bytes) == ("train/s-00000.bin", 7, 2, 20)
    assert second.file == "train/s-00000.1.bin"
    assert documents_of(tmp_path, second, "uint32") == [[70_000, 0]]


def test_a_token_fits_its_type() -> None:
    assert (token_type(65_536), token_type(65_537)) == ("uint16", "uint32")
