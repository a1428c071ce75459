"""Which micro-batches are tried, and what is made of their memory."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_trainer.checkpoint.rollbacks import SIZE_TRIALS
from llm_trainer.runtime.errors import ConfigurationError, PreemptedError
from llm_trainer.runtime.process_group import ProcessGroup
from llm_trainer.stages import size_trials
from llm_trainer.stages.batch_range import (
    SizeJournal,
    SizeTrial,
    chosen,
    expected_peak,
    fitting,
    ladder,
    next_size,
)
from llm_trainer.stages.size_trials import SizeTrials, read_journal

GIB = 2.0**30


def done(*sizes: int, begun: tuple[int, ...] = ()) -> SizeJournal:
    trials = [SizeTrial(size=size, tokens_per_second=100.0 * size, peak=size * GIB) for size in sizes]
    return SizeJournal(rows=24, done=trials, begun=[*sizes, *begun])


def test_sizes_share_the_rows_of_a_process() -> None:
    assert ladder(1, 16, None) == [1, 2, 4, 8, 16]
    assert ladder(6, 24, None) == [1, 3, 6, 12, 24]
    assert ladder(2, 12, 4) == [1, 2, 4]
    assert ladder(4, 8, 4) == [1, 2, 4]
    assert ladder(5, 15, None) == [1, 5]


@given(st.integers(1, 64), st.integers(1, 32), st.none() | st.integers(1, 2048))
def test_every_size_divides_and_the_written_one_is_among_them(written: int, times: int, maximum: int | None) -> None:
    rows = written * times
    sizes = ladder(written, rows, maximum)
    assert written in sizes
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 1
    assert all(rows % size == 0 for size in sizes)
    assert all(fitting(size, rows) == size for size in sizes)


def test_up_from_the_written_size_until_one_is_lost() -> None:
    sizes = [1, 3, 6, 12, 24]
    assert next_size(sizes, 6, SizeJournal()) == 6
    assert next_size(sizes, 6, done(6)) == 12
    assert next_size(sizes, 6, done(6, 12, begun=(24,))) is None
    assert next_size(sizes, 6, done(6, 12, 24)) is None
    assert next_size(sizes, 6, done(begun=(6,))) == 3, "the written one does not fit: half of it"
    assert next_size(sizes, 6, done(3, begun=(6,))) is None
    assert next_size(sizes, 6, done(begun=(6, 3))) == 1
    assert next_size(sizes, 6, done(begun=(6, 3, 1))) is None


def test_memory_is_expected_to_grow_as_it_did() -> None:
    assert expected_peak([(0, 1 * GIB), (1, 3 * GIB)], 2) == 5 * GIB
    assert expected_peak([(0, 1 * GIB), (1, 3 * GIB), (2, 4 * GIB)], 4) == 6 * GIB
    assert expected_peak([(0, 4 * GIB), (1, 3 * GIB)], 2) == 3 * GIB, "what a start took and gave back"


def test_what_is_told() -> None:
    sizes = [1, 2, 4]
    size, told = chosen(sizes, done(1, 2), "4 would take about 2.00 GiB more of each process, and 1.00 are left")
    assert size == 2
    assert told == (
        "the micro-batch is 2, the largest that fits; 4 would take about 2.00 GiB more of each process, and 1.00 are "
        "left (tokens/s and peak memory of a process by size: 1 100 1.00 GiB, 2 200 2.00 GiB)"
    )
    assert chosen(sizes, done(1, 2, begun=(4,)), "")[1].startswith(
        "the micro-batch is 2, the largest that fits; an attempt ended while 4 was tried ("
    )
    assert chosen(sizes, done(begun=(1, 2, 4)), "") == (
        1, "the micro-batch is 1, though no trial of 1, 2, 4 came to its end"
    )  # fmt: skip
    slower = done(1).end(SizeTrial(size=2, tokens_per_second=50, peak=1))
    assert "1 is faster: set tune.microBatchSize.maximum: 1 to have it" in chosen(sizes, slower, "")[1]


def trials(folder: Path, rows: int = 8, written: int = 1) -> SizeTrials:
    run: Any = SimpleNamespace(
        group=ProcessGroup(0, 0, 1, torch.device("cpu")), config=SimpleNamespace(processes_per_node=1)
    )
    return SizeTrials(run, folder, written, rows, None)


def holding(tried: list[int]) -> Callable[[int], float]:
    """Steps that take 16 MiB a row, of the system each time: what the process holds from before serves none of them."""

    def trial(size: int) -> float:
        tried.append(size)
        with mmap.mmap(-1, size << 24) as pages:
            for page in range(0, len(pages), mmap.PAGESIZE):
                pages[page] = 1
        return 100.0 * size

    return trial


def test_a_size_is_not_tried_that_would_take_more_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real memory of this process; that of the container is said to have 25 MiB left."""
    tried: list[int] = []
    monkeypatch.setattr(size_trials, "room", lambda _: 25 << 20)
    size, told = trials(tmp_path).make(holding(tried))
    assert (size, tried) == (2, [1, 2])
    assert "4 would take about 0.0" in told
    assert "and 0.02 are left" in told
    assert trials(tmp_path).make(holding(tried))[0] == 2, "by what the file tells"
    assert tried == [1, 2]


def test_a_size_that_ended_its_attempt_is_too_large_and_one_that_was_asked_to_leave_is_not(tmp_path: Path) -> None:
    tried: list[int] = []

    def trial(size: int) -> float:
        tried.append(size)
        return 100.0

    def killed(size: int) -> float:
        if size == 4:
            raise KeyboardInterrupt
        return trial(size)

    def asked_to_leave(size: int) -> float:
        if size == 2:
            raise PreemptedError
        return trial(size)

    with pytest.raises(PreemptedError):
        trials(tmp_path).make(asked_to_leave)
    assert read_journal(tmp_path / SIZE_TRIALS).lost == []
    with pytest.raises(KeyboardInterrupt):
        trials(tmp_path).make(killed)
    assert trials(tmp_path).make(trial)[0] == 2
    assert tried == [1, 2]
    assert trials(tmp_path, rows=16).make(trial)[0] == 16, "with other processes all begins anew"


def test_a_file_that_was_altered_is_named(tmp_path: Path) -> None:
    (tmp_path / SIZE_TRIALS).write_text(json.dumps({"done": [{"size": 0}]}))
    with pytest.raises(ConfigurationError, match=r"size-trials\.json"):
        trials(tmp_path)
