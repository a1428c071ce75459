from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trainer.config import Source
from llm_trainer.data.manifest import DataManifest, write_manifest
from llm_trainer.data.sequences import Sequences, evaluation_rows, permute
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


def test_positions_restart_with_each_document(prepared: Path) -> None:
    sequences = Sequences(prepared, length=20, seed=0)
    row = sequences.row(0)
    assert row.tokens[0] == EOS, "an end token stands before the first document"
    for token, position in zip(row.tokens[:-1], row.positions, strict=True):
        assert (position == 0) == (token == EOS)


def test_held_out_targets_are_counted_once(prepared: Path) -> None:
    manifest = DataManifest.model_validate_json((prepared / "manifest.json").read_text())
    counted = []
    for shard in manifest.shards:
        if shard.split == "validation":
            for row in evaluation_rows(prepared, manifest, shard, length=3):
                counted += row.row.tokens[1:][row.counted].tolist()
    assert counted == [token for document in DOCUMENTS for token in (*document, EOS)]


def test_a_corpus_smaller_than_a_sequence_is_refused(prepared: Path) -> None:
    with pytest.raises(DataError, match="20 training tokens, fewer than one sequence of 64"):
        Sequences(prepared, length=64, seed=0)


def test_no_prepared_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json"):
        Sequences(tmp_path, length=4, seed=0)


def test_tokens_are_int64(prepared: Path) -> None:
    assert Sequences(prepared, 4, 0).row(3).tokens.dtype == np.int64
