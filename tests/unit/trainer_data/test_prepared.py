"""What one training has prepared a second one copies, if it is as it was written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from llm_trainer.data.manifest import DataManifest, read_manifest
from llm_trainer.data.prepare import Step, prepare
from llm_trainer.data.prepared import NOTES

from .conftest import WriteLines
from .test_prepare import TEXTS, config


def run(volumes: Path, name: str, **settings: object) -> tuple[DataManifest, set[str]]:
    """The manifest, and the phases that were worked on: none for what was taken over."""
    steps: list[Step] = []
    folder = volumes / "models" / name / "data"
    manifest = prepare(config("a.jsonl", **settings), folder, str(volumes), "1", steps.append)  # type: ignore[arg-type]
    assert read_manifest(folder) == manifest
    return manifest, {step.phase for step in steps if step.total}


@pytest.fixture
def first(volumes: Path, write_lines: WriteLines) -> DataManifest:
    write_lines("a.jsonl", [{"text": text} for text in TEXTS])
    manifest, phases = run(volumes, "first")
    assert phases
    return manifest


def note_of(volumes: Path) -> list[Path]:
    return sorted((volumes / "models" / NOTES).iterdir())


def test_a_second_training_copies_it_and_has_it_for_itself(volumes: Path, first: DataManifest) -> None:
    assert run(volumes, "second") == (first, set())
    for path in (volumes / "models/first/data").rglob("*.bin"):
        path.write_bytes(b"")  # not the same file
    assert (volumes / "models/second/data" / first.shards[0].file).stat().st_size
    shutil.rmtree(volumes / "models/first")
    assert run(volumes, "third") == (first, set()), "of the second one, whose note took the first one's place"


@pytest.mark.parametrize("settings", [{"seed": 3}, {"validation_fraction": 0.3}])
def test_of_other_settings_nothing_is_taken(volumes: Path, first: DataManifest, settings: dict[str, object]) -> None:
    manifest, phases = run(volumes, "second", **settings)
    assert phases
    assert manifest.fingerprint != first.fingerprint


def test_a_corpus_too_small_for_this_training_is_refused_all_the_same(volumes: Path, first: DataManifest) -> None:
    with pytest.raises(Exception, match=r"tokens to train on, fewer than one sequence of 100000"):
        run(volumes, "second", sequence_length=100_000)


@pytest.mark.parametrize("damage", ["shard", "index", "manifest", "gone", "link"])
def test_what_is_altered_is_made_again(volumes: Path, first: DataManifest, damage: str) -> None:
    data = volumes / "models/first/data"
    shard = data / first.shards[0].file
    match damage:
        case "shard":
            content = bytearray(shard.read_bytes())
            content[0] ^= 1
            shard.write_bytes(content)
        case "index":
            index = shard.with_suffix(".idx")
            index.write_bytes(b"\0" * index.stat().st_size)
        case "manifest":
            (data / "manifest.json").write_text("{}")
        case "gone":
            shutil.rmtree(data)
        case "link":
            (volumes / "secret").mkdir()
            data.rename(volumes / "secret/data")
            data.symlink_to(volumes / "secret/data")
    manifest, phases = run(volumes, "second")
    assert phases
    assert manifest.digest == first.digest
    [note] = note_of(volumes)
    assert "second" in note.read_text()


@pytest.mark.parametrize(
    "said", ["", "[]", '{"folder": "../secret", "digest": ""}', '{"folder": "first", "digest": 3}']
)
def test_a_note_that_says_nothing_is_none(volumes: Path, first: DataManifest, said: str) -> None:
    [note] = note_of(volumes)
    note.write_text(said)
    manifest, phases = run(volumes, "second")
    assert (manifest, bool(phases)) == (first, True)
