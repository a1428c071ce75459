"""Which source each row comes from: shares, limits and switches hold exactly, on any number of processes."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trainer.config import Mixture, Source
from llm_trainer.config.allotment import Part, allot, shares_of
from llm_trainer.data.manifest import DataManifest, write_manifest
from llm_trainer.data.mixture import Interleaving, Order
from llm_trainer.data.sequences import MixedSequences, Sequences, permute, permute_all
from llm_trainer.data.shards import ShardWriter
from llm_trainer.runtime.errors import ConfigurationError, DataError
from llm_trainer.stages.read_tokens import ReadCounts, by_domain

EOS, LENGTH = 0, 8
LABELS = {"web-en": ("web", "en"), "web-ja": ("web", "ja"), "book-en": ("book", "en"), "tiny": ("book", "ja")}
ROWS = {"web-en": 600, "web-ja": 90, "book-en": 200, "tiny": 0}
PARTS = [Part(name, *LABELS[name], tokens=rows * LENGTH + 3, rows=rows) for name, rows in ROWS.items()]
BOTH: dict[str, Any] = {"weights": [{"source": "web-ja", "weight": 3}, {"domain": "web"}], "schedule": [
    {"fromShare": 0.9, "weights": [{"domain": "book"}]}]}  # fmt: skip


def mixture(**fields: Any) -> Mixture:
    return Mixture.model_validate(fields)


def order(rows: int, starts: Mapping[str, int] | None = None, parts: list[Part] = PARTS, **fields: Any) -> Order:
    places = [(starts or {}).get(part.source, 0) for part in parts]
    return Order(mixture(**fields), parts, rows, LENGTH, places, "mixture")


def asked(**fields: Any) -> dict[str, float]:
    shares = shares_of(mixture(**fields), PARTS)
    return {part.source: float(share) for part, share in zip(PARTS, shares, strict=True) if share}


def test_shares() -> None:
    total = sum(ROWS.values())
    assert asked() == pytest.approx({name: rows / total for name, rows in ROWS.items() if rows})
    powers = {name: ROWS[name] ** 0.3 for name in ("web-en", "web-ja", "book-en")}
    assert asked(temperature=0.3) == pytest.approx({name: p / sum(powers.values()) for name, p in powers.items()})
    assert asked(temperature=0) == pytest.approx(dict.fromkeys(powers, 1 / 3))
    assert asked(weights=[{"source": "web-ja", "weight": 3}, {"weight": 1}]) == pytest.approx(
        {"web-ja": 3 / 4, "web-en": 1 / 4 * 600 / 800, "book-en": 1 / 4 * 200 / 800}
    )
    assert asked(weights=[{"source": "web-en", "weight": 0}, {"language": "en"}]) == {"book-en": 1}


def test_domains_and_languages_with_several_sources_share_by_size() -> None:
    parts = [Part("a", "web", "en", 80, 10), Part("b", "web", "en", 240, 30), Part("c", "web", "ja", 80, 10)]
    assert shares_of(mixture(temperature=0), parts) == [Fraction(1, 8), Fraction(3, 8), Fraction(1, 2)]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any))
def test_an_interleaving_has_each_row_once_and_none_far_from_its_share(counts: list[int]) -> None:
    made, total = Interleaving(counts), sum(counts)
    seen = [0] * len(counts)
    for index in range(2 * total):
        assert made.before(index) == seen
        part, ordinal = made.place(index)
        assert ordinal == seen[part], "a part's rows come in their order"
        seen[part] += 1
        assert all(abs(n - count * (index + 1) / total) < 3 for n, count in zip(seen, counts, strict=True))
    assert seen == [2 * count for count in counts]


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=8).filter(any),
    st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=8, max_size=8),
    st.integers(1, 200),
)
def test_whole_rows_within_limits(weights: list[int], limits: list[int | None], rows: int) -> None:
    shares = [Fraction(weight, sum(weights)) for weight in weights]
    counts = allot(shares, limits[: len(shares)], rows)
    room = sum(rows if limit is None else limit for share, limit in zip(shares, limits, strict=False) if share)
    assert (counts is None) == (room < rows)
    if counts is not None:
        assert sum(counts) == rows
        for count, share, limit in zip(counts, shares, limits, strict=False):
            assert count <= (0 if not share else rows if limit is None else limit)
        if all(limit is None for limit in limits[: len(shares)]):
            assert all(abs(count - share * rows) < 1 for count, share in zip(counts, shares, strict=True))


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize(
    "fields", [{}, {"temperature": 0.3}, {"weights": [{"source": "web-ja", "weight": 2}, {"weight": 1}]}]
)
def test_shares_after_a_million_tokens(fields: dict[str, Any], processes: int) -> None:
    """Rows of 2,048 tokens, shared out as a stage's processes do; the same ones in each step on any number of them."""
    length, batch, micro = 2048, 32, 4
    parts = [Part(name, *LABELS[name], tokens=rows * length, rows=rows) for name, rows in ROWS.items()]
    made = Order(mixture(**fields), parts, 10_000, length, [0] * len(parts), "mixture")
    steps = 1_000_000 // (batch * length)
    read, places = Counter[str](), set[Any]()
    for step, turn, rank in itertools.product(range(steps), range(batch // micro // processes), range(processes)):
        first = step * batch + (turn * processes + rank) * micro
        for index in range(first, first + micro):
            places.add((index, made.place(index)))
            read[parts[made.place(index).part].source] += 1
    for part, share in zip(parts, shares_of(mixture(**fields), parts), strict=True):
        assert abs(read[part.source] / read.total() - share) < 0.01
    assert places == {(index, made.place(index)) for index in range(steps * batch)}
    assert made.read(steps * batch) == [read[part.source] for part in parts]


@pytest.mark.parametrize("start", [{"fromShare": 0.9}, {"fromTokens": 900 * LENGTH}, {"fromTokens": 899 * LENGTH + 1}])
def test_a_schedule_switches_at_its_token(start: dict[str, Any]) -> None:
    made = order(1000, **BOTH | {"schedule": [{**start, "weights": [{"domain": "book"}]}]})
    domains = [PARTS[made.place(index).part].domain for index in range(1000)]
    assert domains == ["web"] * 900 + ["book"] * 100
    assert made.read(1000)[PARTS.index(PARTS[2])] == 100


def test_what_was_asked_so_far_follows_the_schedule() -> None:
    made = order(1000, **BOTH)
    assert made.asked(0) == made.asked(900) == pytest.approx([0.25, 0.75, 0, 0])
    assert made.asked(1000) == pytest.approx([0.225, 0.675, 0.1, 0])


@given(st.floats(0.1, 4), st.integers(1, 3000), st.integers(0, 100))
def test_a_limit_is_never_passed(epochs: float, rows: int, before: int) -> None:
    """Nor with what stages before have read; and it is reached only where it must be."""
    fields: dict[str, Any] = {"weights": [{"source": "web-ja", "weight": 9}, {"weight": 1}],
              "maxEpochs": [{"language": "ja", "epochs": epochs}, {"epochs": 4}]}  # fmt: skip
    limits = [4 * 600, int(Fraction(str(epochs)) * 90), 4 * 200, 0]
    made = order(rows, {"web-ja": min(before, limits[1])}, **fields)
    assert all(read <= limit for read, limit in zip(made.read(rows), limits, strict=True))
    places = [made.place(index) for index in range(rows)]
    assert max((place.ordinal for place in places if place.part == 1), default=0) < max(1, limits[1])
    assert len(set(places)) == rows, "no row twice in an epoch"


def test_what_a_limit_takes_the_others_have() -> None:
    made = order(1000, weights=[{"weight": 1}], maxEpochs=[{"source": "web-en", "epochs": 0.5}])
    assert made.read(1000)[0] == 300
    assert made.read(1000)[1] / made.read(1000)[2] == pytest.approx(90 / 200, abs=0.01)
    assert made.read(500)[0] == pytest.approx(150, abs=1), "evenly, not first and then no more"


def test_a_limit_is_kept_for_the_last_phase() -> None:
    """Else the best data would be read before the annealing."""
    fields: dict[str, Any] = {
        "schedule": [{"fromShare": 0.5, "weights": [{"domain": "book"}]}],
        "maxEpochs": [{"domain": "book", "epochs": 1}],
    }
    made = order(400, **fields)
    assert [PARTS[made.place(index).part].domain for index in range(200, 400)] == ["book"] * 200
    assert made.read(200)[2] == 0


def test_rows_beyond_the_stage_keep_the_limits() -> None:
    """A stage that jumps over rows reads as many after its last."""
    made = order(500, weights=[{"weight": 1}], maxEpochs=[{"source": "web-ja", "epochs": 0.5}])
    assert made.read(500)[1] == 45
    assert made.read(600)[1] == 45
    assert len({made.place(index) for index in range(600)}) == 600
    full = order(890, maxEpochs=[{"epochs": 1}])
    assert full.place(890 + 3).part in range(3), "nothing is left: the pattern goes on"


def test_a_budget_beyond_the_limits_says_how_many_tokens_there_are() -> None:
    said = re.escape("mixture: asks for 16,000 tokens, and mixture.maxEpochs leaves 14,240: web-en 9,600 (4,800 × 2")
    with pytest.raises(DataError, match=said):
        order(2000, maxEpochs=[{"epochs": 2}])
    with pytest.raises(
        DataError, match=r"mixture\.schedule\[0\]: asks for 1,672 tokens, and mixture\.maxEpochs leaves"
    ):
        order(2090, schedule=[{"fromShare": 0.9, "weights": [{"domain": "book"}]}],
              maxEpochs=[{"source": "book-en", "epochs": 1}])  # fmt: skip


def test_nothing_with_a_row() -> None:
    with pytest.raises(DataError, match=r"no source with at least one sequence of 8 tokens.*tiny 3"):
        order(10, weights=[{"source": "tiny"}])


@pytest.mark.parametrize("phases", [
    [{"fromTokens": 801}], [{"fromShare": 0.5}, {"fromShare": 0.4}], [{"fromShare": 0.5}, {"fromTokens": 400}],
])  # fmt: skip
def test_a_phase_without_rows_is_refused(phases: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigurationError, match=r"mixture\.schedule\[\d\]: begins at row"):
        order(100, schedule=[{**phase, "temperature": 1} for phase in phases])


def test_any_row_is_found_at_once() -> None:
    """Also of a trillion rows, of which a resume doesn't go over those before."""
    parts = [Part(str(n), "d", str(n), 0, 10**6 + n**3) for n in range(256)]
    made = Order(mixture(temperature=0.3), parts, 10**12, 8, [0] * 256, "mixture")
    began = time.process_time()
    for index in range(10**9, 10**9 + 1000):
        made.place(index)
    assert time.process_time() - began < 5, "a walk over 1e9 rows takes minutes"


# --- the rows themselves ---


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Each token tells its source: 1000 × source + number."""
    shards = []
    for n, name in enumerate(("a", "b", "c")):
        writer = ShardWriter(tmp_path, "train", Source(name=name, uri="pvc://c/x", domain=name), "uint16", 100)
        for document in range(20 * (n + 1)):
            writer.add([*(1000 * (n + 1) + 10 * document + i for i in range(7)), EOS], text_bytes=7)
        shards += writer.close()
    write_manifest(tmp_path, DataManifest(vocabulary_size=9000, eos_token_id=EOS, dtype="uint16", shards=shards))
    return tmp_path


def source_of(row: list[int]) -> str:
    (source,) = {token // 1000 for token in row if token}
    return "abc"[source - 1]


def test_each_source_has_its_rows_once_an_epoch_and_none_crosses(prepared: Path) -> None:
    made = MixedSequences(prepared, LENGTH, 1, mixture(temperature=0), 240, {})
    rows = [made.row(index).tokens.tolist() for index in range(240)]
    for name, size in (("a", 20), ("b", 40), ("c", 60)):
        own = [row for row in rows if source_of(row) == name]
        assert len(own) == 80
        targets = [tuple(row[1:]) for row in own]
        epochs = [targets[start : start + size] for start in range(0, 80 - size + 1, size)]
        assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == size for epoch in epochs)
        assert size == 60 or epochs[0] != epochs[1], "each epoch has another order"
        assert all(row[0] == EOS for row in own), "nothing of another source stands before a document"
    assert made.tokens_read(0, 240) == [80 * LENGTH] * 3
    assert made.epochs(made.tokens_read(0, 240)) == [4, 2, 80 / 60]


def test_sources_go_on_where_an_earlier_stage_ended(prepared: Path) -> None:
    first = MixedSequences(prepared, LENGTH, 1, mixture(temperature=0), 30, {})
    starts = {"a": 10, "b": 10, "c": 10}
    second = MixedSequences(prepared, LENGTH, 1, mixture(weights=[{"source": "b"}]), 30, starts)
    read = [tuple(row.tokens[1:]) for row in (*map(first.row, range(30)), *map(second.row, range(30)))]
    assert len(set(read)) == 60, "no row twice before each came once"
    assert second.fingerprint()["firstRows"] == starts


def test_without_a_mixture_the_rows_of_each_source_are_counted(prepared: Path) -> None:
    plain = Sequences(prepared, 6, 3)
    plain.first = 5
    counted = [0, 0, 0]
    for index in range(3, 3 * plain.rows):
        row = plain.row(index)
        place = permute((5 + index) % plain.rows, plain.rows, 3, (5 + index) // plain.rows) * 6
        for token in range(place, place + len(row.tokens) - 1):
            counted[0 if token < 160 else 1 if token < 480 else 2] += 1
    assert plain.tokens_read(3, 3 * plain.rows) == counted
    assert plain.asked(1) == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_what_was_read_is_counted_and_restored(prepared: Path) -> None:
    made = MixedSequences(prepared, LENGTH, 1, mixture(weights=[{"source": "b", "weight": 3}, {}]), 80, {"b": 20})
    assert made.fingerprint()["mixture"]["weights"][0] == {"source": "b", "weight": 3.0}
    counts = ReadCounts(made)
    counts.add(0, 40)
    counts.add(60, 80)  # it has jumped over what lies between
    assert counts.by_source["b"] == 45 * LENGTH
    told = counts.sources(60)
    assert (told[0].source, told[0].share, told[0].asked) == ("b", 0.75, 0.75)
    assert told[0].epochs == (20 + 45) / 40
    again, older = ReadCounts(made), ReadCounts(made)
    again.restore(counts.by_source, 60)
    assert again.sources(60) == told
    older.restore(None, 40)
    assert older.by_source == {name: made.tokens_read(0, 40)[n] for n, name in enumerate("abc")}
    domains = by_domain(told)
    assert sum(each.tokens for each in domains) == 60 * LENGTH
    assert {each.domain: each.tokens for each in domains} == {each.source: each.tokens for each in told}


def test_without_a_mixture_the_rows_are_as_they_always_were(prepared: Path) -> None:
    """Before there were mixtures this was their sha256: a checkpoint of then goes on in the same rows."""
    plain, digest = Sequences(prepared, LENGTH, 1), hashlib.sha256()
    plain.first = 7
    for index in range(300):
        row = plain.row(index)
        digest.update(row.tokens.tobytes() + row.positions.tobytes())
    assert digest.hexdigest() == "21c4a4086ab3982cb04b91bbd00398dbd5e2c20247c79a6a93e74b571fbb55b0"
    assert plain.fingerprint() == {"firstRow": 7}


@given(st.integers(1, 300), st.integers(0, 2**40), st.integers(0, 3))
def test_many_places_are_permuted_as_one_is(size: int, seed: int, epoch: int) -> None:
    many = permute_all(np.arange(size), size, seed, epoch).tolist()
    assert many == [permute(place, size, seed, epoch) for place in range(size)]
