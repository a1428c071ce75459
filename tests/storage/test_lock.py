"""One writer for a folder, whoever dies."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from llm_trainer.runtime.errors import StorageError
from llm_trainer.storage.lock import held

STALE = 0.4


def test_one_after_the_other(tmp_path: Path) -> None:
    lock, inside, most = tmp_path / "x.lock", [0], [0]

    def work() -> None:
        with held(lock, STALE):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.05)
            inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert list(tmp_path.iterdir()) == []


def test_a_lock_whose_holder_has_gone_is_taken(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    lock.write_text("somebody who was killed")
    began = time.monotonic()
    with held(lock, STALE) as check:
        assert time.monotonic() - began >= STALE
        check()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_lives_keeps_it(tmp_path: Path) -> None:
    lock, taken = tmp_path / "x.lock", threading.Event()

    def other() -> None:
        with held(lock, STALE):
            taken.set()

    with held(lock, STALE):
        thread = threading.Thread(target=other)
        thread.start()
        assert not taken.wait(4 * STALE)
    thread.join()
    assert taken.is_set()


def test_a_holder_goes_on_touching_when_its_lock_could_not_be_read_for_a_moment(tmp_path: Path) -> None:
    """Else another takes it while this one writes, and nobody is told."""
    lock, aside = tmp_path / "x.lock", tmp_path / "aside"
    with held(lock, STALE) as check:
        lock.rename(aside)
        lock.mkdir()  # what is read raises
        time.sleep(STALE)
        lock.rmdir()
        aside.rename(lock)
        before = lock.stat().st_mtime_ns
        while lock.stat().st_mtime_ns == before:  # pytest's time limit ends it
            time.sleep(0.01)
        check()


def test_who_stood_still_learns_that_it_was_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with held(lock, STALE) as check:
        lock.write_text("another")
        time.sleep(STALE)
        with pytest.raises(StorageError, match="was taken over by another pod"):
            check()
    assert lock.read_text() == "another"
