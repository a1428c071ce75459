"""A file by ranges: whatever the source does, what lies there in the end is what was listed, or it is told."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_trainer.config.remote import Remote, parse
from llm_trainer.storage import ranges
from llm_trainer.storage.ranges import fetch_ranges
from llm_trainer.storage.remote_files import ChangedError, RemoteFile, TransientError
from llm_trainer.storage.retry import TRIES

REMOTE = parse("s3://bucket/file")
CONTENT = random.Random(0).randbytes(5000)


class Script:
    """A source that ends each read after so many bytes, with an error or without one."""

    def __init__(self, content: bytes, *cuts: int, error: bool = True) -> None:
        self.content, self.cuts, self.error = content, list(cuts), error
        self.starts: list[int] = []

    def read(self, _: Remote, file: RemoteFile, start: int, stop: int | None = None) -> Iterator[bytes]:
        self.starts.append(start)
        end = min(stop or len(self.content), start + self.cuts.pop(0) if self.cuts else len(self.content))
        for at in range(start, min(end, len(self.content)), 100):
            yield self.content[at : min(at + 100, end)]
        if end < (stop or len(self.content)) and self.error:
            raise TransientError("cut off")


def fetch(source: Script, part: Path, size: int = len(CONTENT), etag: str = "1") -> str:
    return fetch_ranges(source, REMOTE, RemoteFile("file", size, etag), part, lambda _: None, sleep=lambda _: None)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 1500), max_size=TRIES - 1), st.booleans())
def test_any_cuts(tmp_path_factory: pytest.TempPathFactory, cuts: list[int], error: bool) -> None:
    part = tmp_path_factory.mktemp("part") / "file"
    source = Script(CONTENT, *cuts, error=error)
    assert fetch(source, part) == hashlib.sha256(CONTENT).hexdigest()
    assert part.read_bytes() == CONTENT
    assert not part.with_name("file.json").exists()
    assert source.starts == sorted(source.starts)


def test_a_server_that_brings_nothing_is_left_and_what_came_is_kept(tmp_path: Path) -> None:
    part = tmp_path / "file"
    with pytest.raises(TransientError):
        fetch(Script(CONTENT, 1000, *([0] * TRIES)), part)
    assert json.loads(part.with_name("file.json").read_bytes())["committed"] == 1000
    again = Script(CONTENT)
    fetch(again, part)
    assert again.starts == [1000]


def test_what_was_not_committed_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that goes down may leave any bytes behind the last flush."""
    monkeypatch.setattr(ranges, "COMMIT_BYTES", 1000)
    part = tmp_path / "file"
    with pytest.raises(TransientError):
        fetch(Script(CONTENT, 3000, *([0] * TRIES)), part)
    with part.open("ab") as stream:
        stream.write(b"\0" * 700)
    again = Script(CONTENT)
    assert fetch(again, part) == hashlib.sha256(CONTENT).hexdigest()
    assert again.starts == [3000]


def test_what_the_disk_refuses_behind_the_server_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel tells of it once: the next flush, at the end of the file, would go well."""
    monkeypatch.setattr(ranges, "COMMIT_BYTES", 1000)
    flushes = iter([OSError(errno.EIO, "Input/output error")])

    def flush(_: int) -> None:
        if error := next(flushes, None):
            raise error

    monkeypatch.setattr(os, "fsync", flush)
    for cuts in ((), (1500,)):
        with pytest.raises(OSError, match="Input/output error"):
            fetch(Script(CONTENT, *cuts), tmp_path / "file")
        flushes = iter([OSError(errno.EIO, "Input/output error")])
    assert not (tmp_path / "file.json").exists(), "nothing was committed"


def test_the_server_does_not_wait_for_the_disk_until_it_is_far_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "COMMIT_BYTES", 1000)
    monkeypatch.setattr(ranges, "BEHIND", 3000)
    began, goes_on, read = threading.Event(), threading.Event(), [0]

    def flush(_: int) -> None:
        began.set()
        assert goes_on.wait(60), "the server waits for the disk"

    monkeypatch.setattr(os, "fsync", flush)

    class Counting(Script):
        def read(self, remote: Remote, file: RemoteFile, start: int, stop: int | None = None) -> Iterator[bytes]:
            for block in super().read(remote, file, start, stop):
                read[0] += len(block)
                if read[0] == 4000:  # of which 3,000 came while the disk was at the first 1,000
                    assert began.wait(60)
                    threading.Timer(0.5, goes_on.set).start()
                assert goes_on.is_set() or read[0] <= 4000, "the disk is left far behind"
                yield block

    assert fetch(Counting(CONTENT), tmp_path / "file") == hashlib.sha256(CONTENT).hexdigest()
    assert read == [5000]


@pytest.mark.parametrize("etag", ["2", "1"])
def test_another_file_begins_anew(etag: str, tmp_path: Path) -> None:
    part, size = tmp_path / "file", len(CONTENT) if etag == "2" else 4000
    with pytest.raises(TransientError):
        fetch(Script(CONTENT, 1000, *([0] * TRIES)), part)
    other = CONTENT[::-1][:size]
    again = Script(other)
    assert fetch(again, part, size, etag) == hashlib.sha256(other).hexdigest()
    assert again.starts == [0]


def test_a_longer_file_is_another(tmp_path: Path) -> None:
    with pytest.raises(ChangedError, match="is longer than the 4000 bytes"):
        fetch(Script(CONTENT), tmp_path / "file", 4000)


def test_an_empty_file(tmp_path: Path) -> None:
    assert fetch(Script(b""), tmp_path / "file", 0) == hashlib.sha256(b"").hexdigest()
    assert (tmp_path / "file").read_bytes() == b""
