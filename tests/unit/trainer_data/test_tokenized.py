"""Sources that are tokens already: the shards of another training's data preparation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_trainer.config import Data, PrepareData, Source, Tokenizer, TrainTokenizer
from llm_trainer.data.manifest import DataManifest
from llm_trainer.data.prepare import prepare
from llm_trainer.data.verify import alteration
from llm_trainer.runtime.errors import ConfigurationError, DataError

from .conftest import WriteLines, corpus_of

TRAINED = Tokenizer(train=TrainTokenizer(vocabulary_size=512))
OF_FIRST = Tokenizer(uri="pvc://models/first/data/tokenizer")


@pytest.fixture
def first(volumes: Path, write_lines: WriteLines) -> DataManifest:
    """Prepared data of two sources, a and b."""
    for name in "ab":
        write_lines(f"{name}.jsonl", [{"text": f"{name} {n} tells of apples and {n * 7} plums"} for n in range(40)])
    return made(volumes, "first", corpus_of("a.jsonl", "b.jsonl", validation_fraction=0.2), TRAINED)


def made(volumes: Path, run: str, data: Data, tokenizer: Tokenizer) -> DataManifest:
    config = PrepareData(data=data, tokenizer=tokenizer)
    return prepare(config, volumes / "models" / run / "data", str(volumes), "1", lambda _: None)


def corpus(uri: str = "pvc://models/first/data/*/a-*.bin", *others: Source, **labels: Any) -> Data:
    return Data(sources=[Source(name="taken", uri=uri, **labels), *others])


def test_they_are_taken_as_they_are(volumes: Path, first: DataManifest) -> None:
    second = made(volumes, "second", corpus(language="en", domain="fruit", license="MIT"), OF_FIRST)
    folder = volumes / "models/second/data"
    taken = [shard for shard in first.shards if shard.source == "a"]
    assert len(second.shards) == len(taken) == 2, "one to train on and one that is held out"
    for old, new in zip(taken, second.shards, strict=True):
        assert (old.split, old.sha256, old.tokens, old.documents) == (new.split, new.sha256, new.tokens, new.documents)
        assert (new.source, new.language, new.domain, new.license) == ("taken", "en", "fruit", "MIT")
        for suffix in (".bin", ".idx"):
            origin = (volumes / "models/first/data" / old.file).with_suffix(suffix)
            assert origin.read_bytes() == (folder / new.file).with_suffix(suffix).read_bytes()
    assert second.sources[0].documents == first.sources[0].documents
    assert alteration(folder, second) is None


def test_beside_text(volumes: Path, first: DataManifest) -> None:
    second = made(volumes, "second", corpus_of("a.jsonl"), OF_FIRST)
    both = made(
        volumes, "both", corpus("pvc://models/first/data/train/b-*.bin", *corpus_of("a.jsonl").sources), OF_FIRST
    )
    assert [source.name for source in both.sources] == ["a", "taken"]
    assert both.tokens("train") == second.tokens("train") + first.train_tokens("b")


def altered(volumes: Path) -> None:
    file = volumes / "models/first/data/train/a-00000.bin"
    file.write_bytes(file.read_bytes()[:-2] + b"\1\1")


def cut_ends(volumes: Path) -> None:
    file = volumes / "models/first/data/train/a-00000.idx"
    file.write_bytes(file.read_bytes()[:-8])


def unlisted(volumes: Path) -> None:
    (volumes / "models/first/data/train/a-99999.bin").write_bytes(b"")


def no_manifest(volumes: Path) -> None:
    (volumes / "models/first/data/manifest.json").unlink()


def damaged_manifest(volumes: Path) -> None:
    (volumes / "models/first/data/manifest.json").write_text("{")


def other_tokenizer(volumes: Path) -> None:
    file = volumes / "models/first/data/tokenizer/tokenizer.json"
    file.write_text(file.read_text() + "\n")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (altered, "train/a-00000.bin is not as its data preparation wrote it: its sha256 differs"),
        (cut_ends, "train/a-00000.idx is not as its data preparation wrote it"),
        (unlisted, "train/a-99999.bin is no shard of pvc://models/first/data/manifest.json"),
        (no_manifest, "is no shard of prepared data: there is no pvc://models/first/data/manifest.json"),
        (damaged_manifest, "pvc://models/first/data/manifest.json can't be read"),
        (other_tokenizer, "has tokens of the tokenizer sha256:"),
    ],
)
def test_what_is_refused(volumes: Path, first: DataManifest, spoil: Callable[[Path], None], says: str) -> None:
    shutil.copytree(volumes / "models/first/data/tokenizer", volumes / "hub")
    spoil(volumes)
    with pytest.raises(DataError) as error:
        made(volumes, "second", corpus(), Tokenizer(uri="pvc://hub/."))
    assert str(error.value).startswith("spec.data.sources[0].uri (source 'taken'): ")
    assert says in str(error.value)


def test_text_and_tokens_are_two_sources(volumes: Path, first: DataManifest) -> None:
    (volumes / "models/first/data/train/a.txt").write_text("text")
    with pytest.raises(DataError, match="matches text and shards of tokens"):
        made(volumes, "second", corpus("pvc://models/first/data/train/a*[nt]"), OF_FIRST)


def test_a_new_tokenizer_would_read_others(volumes: Path, first: DataManifest) -> None:
    with pytest.raises(ConfigurationError, match=r"set spec.tokenizer.uri: pvc://models/first/data/tokenizer"):
        made(volumes, "second", corpus(), TRAINED)
