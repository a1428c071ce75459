"""Which files a user's URI names, in an order that never changes, and how to speak of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, Protocol

from llm_trainer.config import local_path
from llm_trainer.runtime.errors import DamagedFileError, DataError, StageError
from llm_trainer.runtime.volumes import refuse_link_out

LINES = (".jsonl", ".json")
TABLES = (".parquet", ".arrow")
TOKENS = ".bin"  # shards of prepared data: tokenized.py takes them
SUFFIXES = (".txt", *LINES, *TABLES, TOKENS)  # of a corpus
COMPRESSIONS = (".gz", ".zst", ".bz2", ".lz4")
SHOWN = 3  # names in a message


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was found, for messages: `pvc://corpus/ja.jsonl, line 12`."""

    file: str
    row: int | None = None
    unit: str = "line"

    def __str__(self) -> str:
        return self.file if self.row is None else f"{self.file}, {self.unit} {self.row}"


class Streamed(Protocol):
    """Files that are read where they lie, by a network. Their paths are those that copies of them would have."""

    paths: tuple[Path, ...]

    def size(self, path: Path) -> int: ...

    def mark(self, path: Path) -> str:
        """By which a change is noticed."""
        ...

    def open(self, path: Path) -> BinaryIO:
        """From any byte on. Raises StageErrors alone."""
        ...


Streams = Mapping[str, Streamed]  # by the pvc:// URI that stands for what is streamed


@dataclass(frozen=True, slots=True)
class Files:
    """The files that a user's URI names, sorted by path, and how to speak of them."""

    field: str
    uri: str
    paths: tuple[Path, ...]
    volumes_root: str
    again: tuple[str, ...] = ()  # further names of these files, by links: each file is read once
    streamed: Streamed | None = None  # None: they are on a claim

    def name(self, path: Path) -> str:
        """The file as the user knows it: a pvc:// URI."""
        return "pvc://" + path.relative_to(self.volumes_root).as_posix()

    @property
    def bytes(self) -> int:
        with told(self.field, self.uri):
            return sum(map(self.size, self.paths))

    def size(self, path: Path) -> int:
        return self.streamed.size(path) if self.streamed else path.stat().st_size

    def mark(self, path: Path) -> int | str:
        """By which a change of a file is noticed, beside its size."""
        return self.streamed.mark(path) if self.streamed else path.stat().st_mtime_ns

    def open(self, path: Path) -> BinaryIO:
        return self.streamed.open(path) if self.streamed else path.open("rb")


@contextmanager
def told(field: str, where: object) -> Iterator[None]:
    """The one place that every access to a user's files goes through: whatever fails is a DataError that says where.

    `where` is asked when something failed, so that it may be where a reader is by then. Arrow, the codecs and the
    decoders raise errors of many kinds, and none is a fault of ours; but a lack of memory stays one.
    """
    try:
        yield
    except (StageError, MemoryError):
        raise
    except Exception as error:
        kind = DamagedFileError if is_damage(error) else DataError
        raise kind(f"{field}: {where} {said(error)}") from error


def is_damage(error: Exception) -> bool:
    """Whether it is the file's own: not of the storage, its rights or an encoding."""
    return not isinstance(error, UnicodeDecodeError) and (not isinstance(error, OSError) or error.errno is None)


def said(error: Exception) -> str:
    """What is the matter, and what to do."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    match error:
        case FileNotFoundError():
            return "is not there any more: it was removed while it was read; put it back"
        case PermissionError():
            return f"can't be read by the pod's user (uid {os.getuid()}): permission denied; give it the right to read"
        case OSError(errno=errno.EIO | errno.ESTALE | errno.ENOTCONN | errno.ETIMEDOUT):
            return f"can't be read: the storage failed ({text}); when it works again, have the stage made anew"
        case UnicodeDecodeError():
            return f"is not UTF-8: {error.reason} at byte {error.start}; convert it to UTF-8"
        case _:
            return f"can't be read: {text}; the file is damaged or of another format: copy or make it anew"


def find_files(uri: str, field: str, volumes_root: str, suffixes: tuple[str, ...]) -> Files:
    """The files of a `pvc://CLAIM/PATH` URI whose path may be a glob (`**` goes through folders).

    A file, and a folder that `**` goes through, counts once, however many links lead there. Raises DataError naming
    `field` when nothing matches, a file is of a kind that can't be read, or a link leads nowhere or out of its claim.
    """
    try:
        pattern = local_path(uri, volumes_root)
    except ValueError as error:
        raise DataError(f"{field}: {error}") from error
    with told(field, uri):
        return _find(uri, pattern, field, volumes_root, suffixes)


def streamed_files(uri: str, field: str, volumes_root: str, streamed: Streamed, suffixes: tuple[str, ...]) -> Files:
    """Files that nobody has copied. Raises DataError for one of a kind that can't be read."""
    files = Files(field, uri, streamed.paths, volumes_root, streamed=streamed)
    for path in files.paths:
        _refuse_suffix(files, path, suffixes)
    return files


def _find(uri: str, pattern: str, field: str, volumes_root: str, suffixes: tuple[str, ...]) -> Files:
    whole, named = Path(pattern), Files(field, uri, (), volumes_root)
    if whole.is_dir():
        raise DataError(f"{field}: {uri} is a folder. Name the files in it, for example {uri.rstrip('/')}/*.jsonl")
    matches = [whole] if os.path.lexists(pattern) else sorted(set(_Walk(field, volumes_root).matches(pattern)))
    _refuse_unreadable_names(named, matches)
    is_link = {path: path.is_symlink() for path in matches}
    _refuse_dangling(named, [path for path in matches if is_link[path]], len(matches))
    real_folders: dict[Path, str] = {}
    kept: dict[str, Path] = {}
    again: list[str] = []
    for path in sorted(matches, key=lambda path: is_link[path]):  # a file goes before links to it
        if path.is_dir() and format_of(path) not in suffixes:
            continue  # `*` and `**` find folders too
        if path.parent not in real_folders:
            refuse_link_out(path.parent, volumes_root, field)
            real_folders[path.parent] = os.path.realpath(path.parent)
        if is_link[path]:
            refuse_link_out(path, volumes_root, field)
        _refuse_kind(named, path, suffixes)
        real = os.path.realpath(path) if is_link[path] else str(Path(real_folders[path.parent], path.name))
        if kept.setdefault(real, path) != path:
            again.append(named.name(path))
    if not kept:
        raise DataError(f"{field}: no file matches {uri}. Check the claim, the path and the glob.")
    return Files(field, uri, tuple(sorted(kept.values())), volumes_root, tuple(again))


def format_of(path: Path) -> str:
    """The suffix that tells what is in a file, such as .jsonl of a.jsonl.gz."""
    return path.with_suffix("").suffix if path.suffix in COMPRESSIONS else path.suffix


def _refuse_unreadable_names(named: Files, matches: list[Path]) -> None:
    for path in matches:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            shown = os.fsencode(named.name(path)).decode(errors="backslashreplace")
            raise DataError(f"{named.field}: the name of {shown} is not UTF-8; rename the file") from None


def _refuse_dangling(named: Files, links: list[Path], matches: int) -> None:
    """A cache of downloads keeps its files elsewhere, with links to them: a copy of the links alone has no data."""
    dangling = [path for path in links if not path.exists()]
    if not dangling:
        return
    listed = ", ".join(f"{named.name(path)} (to {path.readlink()})" for path in dangling[:SHOWN])
    more = f" and {len(dangling) - SHOWN} more" if len(dangling) > SHOWN else ""
    raise DataError(
        f"{named.field}: of {matches} files that match {named.uri}, {len(dangling)} are links that lead nowhere: "
        f"{listed}{more}; copy the files themselves (cp -rL), not the links"
    )


def _refuse_kind(named: Files, path: Path, suffixes: tuple[str, ...]) -> None:
    if path.is_dir():
        raise DataError(
            f"{named.field}: {named.name(path)} is a folder and no file; name the files in it, for example "
            f"{named.name(path)}/*{path.suffix}"
        )
    if not path.is_file():
        raise DataError(f"{named.field}: {named.name(path)} is no regular file; remove it or narrow the glob")
    _refuse_suffix(named, path, suffixes)


def _refuse_suffix(named: Files, path: Path, suffixes: tuple[str, ...]) -> None:
    if format_of(path) not in suffixes:
        raise DataError(
            f"{named.field}: {named.name(path)} ends with none of {', '.join(suffixes)} "
            f"(compressed: {', '.join(COMPRESSIONS)} after it). {todo(path)}"
        )


def todo(path: Path) -> str:
    """With a file of a kind that isn't read."""
    match path.suffix.lower():
        case ".csv" | ".tsv":
            return (
                "Write it as Parquet: pandas.read_csv(FILE).to_parquet(…), with sep='\\t' for .tsv; or narrow the glob."
            )
        case ".zip" | ".tar" | ".tgz" | ".7z" | ".rar":
            return "Unpack it, or narrow the glob."
        case ".xz":
            return "Unpack it with xz -d, and pack it with zstd if it is to be small; or narrow the glob."
        case _:
            return "Narrow the glob or convert the file."


class _Walk:
    """A glob as `glob.glob(recursive=True)` has it, but links that go round, or together, multiply nothing."""

    def __init__(self, field: str, volumes_root: str) -> None:
        self._field, self._volumes_root = field, volumes_root
        self._seen: set[tuple[Path, tuple[str, ...]]] = set()  # a path, and the parts of the pattern that are left

    def matches(self, pattern: str) -> Iterator[Path]:
        below = Path(pattern).relative_to(self._volumes_root).parts
        return self._match(Path(self._volumes_root), below)

    def _match(self, path: Path, parts: tuple[str, ...]) -> Iterator[Path]:
        if (path, parts) in self._seen:
            return
        self._seen.add((path, parts))
        if not parts:
            if os.path.lexists(path):
                yield path
            return
        part, rest = parts[0], parts[1:]
        if part == "**":
            for folder in self._folders(path):
                yield from self._match(folder, rest or ("*",))
        elif any(sign in part for sign in "*?["):
            for entry in _entries(path):
                if fnmatchcase(entry.name, part) and (part.startswith(".") or not entry.name.startswith(".")):
                    yield from self._match(path / entry.name, rest)
        else:
            yield from self._match(path / part, rest)

    def _folders(self, top: Path) -> Iterator[Path]:
        """`top` and the folders below that are not hidden, each once: by its own path, if that lies below."""
        seen: set[str] = set()
        waiting, links = [top], list[Path]()
        while waiting or links:
            folder = waiting.pop() if waiting else links.pop()
            if (real := os.path.realpath(folder)) in seen:
                continue
            seen.add(real)
            yield folder
            for entry in _entries(folder):
                if entry.name.startswith(".") or not entry.is_dir():
                    continue
                if entry.is_symlink():
                    refuse_link_out(folder / entry.name, self._volumes_root, self._field)
                (links if entry.is_symlink() else waiting).append(folder / entry.name)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted(found, key=lambda entry: entry.name)
