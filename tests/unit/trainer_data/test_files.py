"""Which files a URI finds, and what is said of links, folders and a storage that fails."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from llm_trainer.data import readers
from llm_trainer.data.files import SUFFIXES, find_files
from llm_trainer.data.sources import read_documents
from llm_trainer.runtime.errors import DataError

from .files import FIELD, PLAIN, documents, lines


def test_a_link_that_leads_nowhere_is_refused(volumes: Path) -> None:
    folder = volumes / "corpus"
    (folder / "blobs").mkdir()
    (folder / "blobs/0").write_bytes(lines(PLAIN))
    for number in range(4):
        (folder / f"train-{number}.jsonl").symlink_to(f"blobs/{number}")
    with pytest.raises(DataError, match=r"of 4 files that match .*, 3 are links that lead nowhere: .*train-1.jsonl"):
        documents(volumes, "pvc://corpus/train-*.jsonl")
    (folder / "round.jsonl").symlink_to("round.jsonl")
    with pytest.raises(DataError, match=r"of 1 files that match .*, 1 are links that lead nowhere"):
        documents(volumes, "pvc://corpus/round.jsonl")
    assert documents(volumes, "pvc://corpus/train-0.jsonl") == PLAIN


def test_links_that_go_round_multiply_nothing(volumes: Path) -> None:
    """By glob two such links would be 2 ** 40 folders."""
    folder = volumes / "corpus"
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / f"{name}.jsonl").write_bytes(lines([name]))
    for name in ("one", "two", "three"):
        (folder / "a" / name).symlink_to("..")
        (folder / "b" / name).symlink_to("../a")
    assert documents(volumes, "pvc://corpus/**/*.jsonl") == ["a", "b"]
    assert documents(volumes, "pvc://corpus/**/*/**/*.jsonl") == ["a", "b"]


def test_a_file_of_two_names_is_read_once_and_told(volumes: Path) -> None:
    (volumes / "corpus/b.jsonl").write_bytes(lines(PLAIN))
    (volumes / "corpus/a.jsonl").symlink_to("b.jsonl")
    files = find_files("pvc://corpus/*.jsonl", FIELD, str(volumes), SUFFIXES)
    assert ([path.name for path in files.paths], files.again) == (["b.jsonl"], ("pvc://corpus/a.jsonl",))


def test_a_glob_is_as_that_of_python(volumes: Path) -> None:
    import glob

    for name in ("a.txt", "b1.txt", "x/c.txt", "x/.hidden.txt", "x/y/d.txt", ".git/e.txt", "z[1].txt"):
        (volumes / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (volumes / "corpus" / name).write_text(name)
    patterns = (
        "*.txt",
        "**/*.txt",
        "x/**/*.txt",
        "?.txt",
        "[ab]*.txt",
        "*/c.txt",
        "x/**",
        "**/.hidden.txt",
        "z[[]1].txt",
    )
    for pattern in patterns:
        found = find_files(f"pvc://corpus/{pattern}", FIELD, str(volumes), SUFFIXES).paths
        expected = glob.glob(f"{volumes}/corpus/{pattern}", recursive=True)  # noqa: PTH207 -- what it is compared with
        assert [str(path) for path in found] == sorted({path for path in expected if Path(path).is_file()}), pattern
    assert documents(volumes, "pvc://corpus/z[1].txt") == ["z[1].txt"]


def test_a_name_that_is_not_utf8(volumes: Path) -> None:
    (Path(os.fsdecode(os.fsencode(volumes / "corpus") + b"/\xff.jsonl"))).write_bytes(lines(PLAIN))
    with pytest.raises(DataError, match=r"the name of pvc://corpus/\\xff.jsonl is not UTF-8; rename the file"):
        documents(volumes, "pvc://corpus/*.jsonl")


def test_a_folder_or_a_pipe_with_the_name_of_a_file(volumes: Path) -> None:
    (volumes / "corpus/part.parquet").mkdir()
    with pytest.raises(DataError, match=r"pvc://corpus/part.parquet is a folder and no file; name the files in it"):
        documents(volumes, "pvc://corpus/*.parquet")
    os.mkfifo(volumes / "corpus/pipe.jsonl")
    with pytest.raises(DataError, match=r"pvc://corpus/pipe.jsonl is no regular file"):
        documents(volumes, "pvc://corpus/*.jsonl")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become nobody for a moment")
def test_without_the_right_to_read() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        volumes = Path(made)
        volumes.chmod(0o755)
        (volumes / "corpus/locked").mkdir(parents=True)
        (volumes / "corpus/a.jsonl").write_bytes(lines(PLAIN))
        (volumes / "corpus/a.jsonl").chmod(0o600)
        (volumes / "corpus/locked").chmod(0o700)
        os.seteuid(65534)
        try:
            with pytest.raises(DataError, match=r"pvc://corpus/a.jsonl can't be read by the pod's user .* permission"):
                documents(volumes, "pvc://corpus/a.jsonl")
            with pytest.raises(DataError, match=r"can't be read by the pod's user .* permission denied"):
                documents(volumes, "pvc://corpus/**/*.jsonl")
        finally:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EIO, "Input/output error"), r"line 2 can't be read: the storage failed"),
        (OSError(errno.ESTALE, "Stale file handle"), r"line 2 can't be read: the storage failed"),
        (FileNotFoundError(errno.ENOENT, "gone"), r"line 2 is not there any more"),
        (pa.ArrowException("whatever"), r"line 2 can't be read: whatever; the file is damaged"),
    ],
)
def test_a_storage_that_fails_while_a_file_is_read(
    volumes: Path, error: Exception, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.RawIOBase):
        parts = iter([lines(PLAIN[:1]) + b"\n"])

        def read(self, size: int = -1) -> bytes:
            for part in self.parts:
                return part
            raise error

    monkeypatch.setattr(readers, "open_bytes", lambda path: Failing())
    (volumes / "corpus/a.jsonl").write_bytes(lines(PLAIN))
    with pytest.raises(DataError, match=rf"{FIELD.replace('[', '.').replace(']', '.')}: pvc://corpus/a.jsonl, {says}"):
        documents(volumes, "pvc://corpus/a.jsonl")


def test_a_file_that_vanishes(volumes: Path) -> None:
    (volumes / "corpus/a.jsonl").write_bytes(lines(PLAIN))
    files = find_files("pvc://corpus/a.jsonl", FIELD, str(volumes), SUFFIXES)
    (volumes / "corpus/a.jsonl").unlink()
    with pytest.raises(DataError, match=r"pvc://corpus/a.jsonl is not there any more"):
        list(read_documents(files, "text"))
    with pytest.raises(DataError, match="is not there any more"):
        files.bytes  # noqa: B018
