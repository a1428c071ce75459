from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_trainer.config import Source
from llm_trainer.data.manifest import DataManifest, write_manifest
from llm_trainer.data.sequences import PADDING, EvaluationRow, Sequences, evaluation_rows, permute
from llm_trainer.data.shards import ShardWriter
from llm_trainer.runtime.errors import DataError

EOS = 0
DOCUMENTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14], [15], [16, 17, 18, 19]]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Two training shards and one held-out shard of the documents above."""
    shards = []
    for split in ("train", "validation"):
        writer = ShardWriter(tmp_path, split, Source(name="a", uri="pvc://c/x"), "uint16", tokens_per_shard=8)
        for document in DOCUMENTS:
            writer.add([*document, EOS], text_bytes=len(document))
        shards += writer.close()
    manifest = DataManifest(vocabulary_size=32, eos_token_id=EOS, dtype="uint16", shards=shards)
    write_manifest(tmp_path, manifest)
    return tmp_path


@given(st.integers(1, 300), st.integers(0, 5), st.integers(0, 3))
def test_a_permutation_visits_each_place_once(size: int, seed: int, epoch: int) -> None:
    assert sorted(permute(place, size, seed, epoch) for place in range(size)) == list(range(size))


def test_every_target_comes_once_an_epoch(prepared: Path) -> None:
    sequences = Sequences(prepared, length=4, seed=1)
    stream = [token for document in DOCUMENTS for token in (*document, EOS)]
    epoch = [sequences.row(index).tokens[1:].tolist() for index in range(sequences.rows)]
    assert sorted(itertools.chain.from_iterable(epoch)) == sorted(stream[: sequences.rows * 4])
    again = [sequences.row(index).tokens[1:].tolist() for index in range(sequences.rows, 2 * sequences.rows)]
    assert again != epoch, "the next epoch has another order"
    assert sorted(again) == sorted(epoch)


def test_rows_are_a_function_of_seed_and_index(prepared: Path) -> None:
    one, same, other = (Sequences(prepared, 4, seed) for seed in (1, 1, 2))
    rows = [[s.row(i).tokens.tolist() for i in range(8)] for s in (one, same, other)]
    assert rows[0] == rows[1] != rows[2]


def test_which_documents_a_row_has_parts_of(prepared: Path) -> None:
    """By the tokens that it learns from; those of the training documents are all different."""
    sequences = Sequences(prepared, 4, 1)
    place = {token: number for number, document in enumerate(DOCUMENTS) for token in document}
    firsts = [shard.documents for shard in sequences.manifest.shards if shard.split == "train"]
    files = [shard.file for shard in sequences.manifest.shards if shard.split == "train"]
    for index in range(sequences.rows):
        targets = [int(token) for token in sequences.row(index).tokens[1:]]
        found = sequences.documents([index])
        numbers = {number + sum(firsts[: files.index(file)]) for file, told in found.items() for number in told}
        assert numbers >= {place[token] for token in targets if token != EOS}
        assert len(numbers) <= len({place[token] for token in targets if token != EOS}) + targets.count(EOS)
    assert sum(map(len, sequences.documents(range(sequences.rows)).values())) == len(DOCUMENTS)


def test_rows_go_on_where_an_earlier_stage_ended(prepared: Path) -> None:
    whole, rest = Sequences(prepared, 4, 1), Sequences(prepared, 4, 1)
    rest.first = 3
    assert [rest.row(i).tokens.tolist() for i in range(9)] == [whole.row(i).tokens.tolist() for i in range(3, 12)]


def test_positions_restart_with_each_document(prepared: Path) -> None:
    sequences = Sequences(prepared, length=20, seed=0)
    row = sequences.row(0)
    assert row.tokens[0] == EOS, "an end token stands before the first document"
    for token, position in zip(row.tokens[:-1], row.positions, strict=True):
        assert (position == 0) == (token == EOS)


def held_out(prepared: Path, length: int, share: float = 1.0) -> list[EvaluationRow]:
    manifest = DataManifest.model_validate_json((prepared / "manifest.json").read_text())
    shards = [shard for shard in manifest.shards if shard.split == "validation"]
    return [row for shard in shards for row in evaluation_rows(prepared, manifest, shard, length, share)]


def parts_of(rows: list[EvaluationRow]) -> list[tuple[list[int], list[int]]]:
    """Inputs and targets of each part of a document."""
    found: list[tuple[list[int], list[int]]] = []
    for row in rows:
        for token, position, target in zip(row.tokens, row.positions, row.targets, strict=True):
            if target == PADDING:
                continue
            if position == 0:
                found.append(([], []))
            found[-1][0].append(int(token))
            found[-1][1].append(int(target))
    return found


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 40])
def test_held_out_targets_are_counted_once(prepared: Path, length: int) -> None:
    """Each after what comes before it in its document, and of another document nothing."""
    rows = held_out(prepared, length)
    assert [target for _, targets in parts_of(rows) for target in targets] == [
        token for document in DOCUMENTS for token in (*document, EOS)
    ]
    whole = [[EOS, *document, EOS] for document in DOCUMENTS]
    expected = [
        (document[start : start + length][: len(document) - 1 - start], document[start + 1 : start + length + 1])
        for document in whole
        for start in range(0, len(document) - 1, length)
    ]
    assert parts_of(rows) == expected
    assert all(len(part) == length for row in rows for part in (row.tokens, row.positions, row.targets))


def test_held_out_documents_share_rows(prepared: Path) -> None:
    assert len(held_out(prepared, 40)) == 2  # one a shard, and not one a document


@given(share=st.floats(0.01, 1), length=st.integers(1, 8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_share_of_what_is_held_out(prepared: Path, share: float, length: int) -> None:
    everything, some = parts_of(held_out(prepared, length)), parts_of(held_out(prepared, length, share))
    assert [part for part in everything if part in some] == some
    manifest = DataManifest.model_validate_json((prepared / "manifest.json").read_text())
    shards = sum(shard.split == "validation" for shard in manifest.shards)
    assert share * len(everything) <= len(some) <= share * len(everything) + shards


def test_a_corpus_smaller_than_a_sequence_is_refused(prepared: Path) -> None:
    with pytest.raises(DataError, match="20 training tokens, fewer than one sequence of 64"):
        Sequences(prepared, length=64, seed=0)


def test_no_prepared_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json"):
        Sequences(tmp_path, length=4, seed=0)


def test_tokens_are_int64(prepared: Path) -> None:
    assert Sequences(prepared, 4, 0).row(3).tokens.dtype == np.int64
