"""An index in its folder: an immutable revision with a manifest, which appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from llm_app.keyword import Hit, Keywords
from llm_app.prompt import Passage

if TYPE_CHECKING:  # needs numpy, which the operator's image hasn't
    from llm_app.vectors import Vectors

MANIFEST, CHUNKS = "manifest.json", "chunks.jsonl"
UNFINISHED = ".unfinished-"  # and a name of its own: two pods may make the same at once
SAME = "same"  # of a manifest that stands alone: the revision which has all that this one would have
FORMAT = 2


class IndexDamagedError(ValueError):
    """Files that are not those which were written."""


@dataclass(frozen=True)
class StoredChunk:
    source: str
    title: str
    heading: str
    text: str
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def searched(self) -> str:
        """By which it is found: what it says and where it stands."""
        return f"{self.title}\n{self.heading}\n{self.text}"

    def has(self, wanted: Mapping[str, str]) -> bool:
        return all(self.metadata.get(key) == value for key, value in wanted.items())

    def passage(self, knowledge: str, revision: str, score: float) -> Passage:
        return Passage(
            knowledge=knowledge,
            source=self.source,
            title=" › ".join(filter(None, (self.title, self.heading))),
            text=self.text,
            score=score,
            revision=revision,
            metadata=self.metadata,
        )


@dataclass(frozen=True)
class Index:
    """Of one knowledge base. Any number of servers may have loaded it. ``space``: of its vectors, if it has any."""

    knowledge: str
    revision: str
    chunks: Sequence[StoredChunk]
    keywords: Keywords
    documents: int = 0
    vectors: Vectors | None = field(default=None, compare=False)
    space: str = ""

    @classmethod
    def of(cls, knowledge: str, revision: str, chunks: Sequence[StoredChunk], documents: int) -> Self:
        return cls(knowledge, revision, chunks, Keywords.of(chunk.searched for chunk in chunks), documents)

    @property
    def content(self) -> str:
        """Digest of all that a search depends on: two revisions with the same are one."""
        made = hashlib.sha256(self.space.encode())
        for chunk in self.chunks:
            made.update(line_of(chunk).encode())
        return made.hexdigest()

    def allowed(self, where: Mapping[str, str]) -> bytes | None:
        """Of each chunk 1 if it has such metadata, else 0; None: all have."""
        return bytes(chunk.has(where) for chunk in self.chunks) if where else None

    def passages(self, hits: Sequence[Hit]) -> list[Passage]:
        return [self.chunks[number].passage(self.knowledge, self.revision, score) for number, score in hits]

    def search(self, question: str, most: int, minimum: float = 0.0) -> list[Passage]:
        """Best first, by words."""
        return self.passages(self.keywords.search(question, most, minimum))

    def save(self, folder: Path) -> None:
        placed(folder, self._write)

    def _write(self, folder: Path) -> None:
        with (folder / CHUNKS).open("w", encoding="utf-8") as lines:
            lines.writelines(line_of(chunk) + "\n" for chunk in self.chunks)
        self.keywords.save(folder)
        if self.vectors:
            self.vectors.save(folder)
        files = {file.name: digest(file) for file in sorted(folder.iterdir())}
        counts = {"documents": self.documents, "chunks": len(self.chunks)}
        told = {"format": FORMAT, "knowledge": self.knowledge, "revision": self.revision, **counts, "files": files}
        told |= {"content": self.content, **({"space": self.space} if self.vectors else {})}
        (folder / MANIFEST).write_text(json.dumps(told, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises IndexDamagedError, or OSError where it can't be read."""
        try:
            told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if SAME in told:
                other = folder.parent / same_as(folder)
                if same_as(other) != other.name or other == folder:
                    raise ValueError(f"it names {other.name}, which is no revision itself")
                return cls.load(other)
            for name, wanted in told["files"].items():
                if digest(folder / name) != wanted:
                    raise IndexDamagedError(
                        f"{folder / name} is not what was written; delete the Job that made it, and it is made anew"
                    )
            with (folder / CHUNKS).open(encoding="utf-8") as lines:
                chunks = [StoredChunk(**json.loads(line)) for line in lines]
            return cls(
                told["knowledge"],
                told["revision"],
                chunks,
                Keywords.load(folder),
                told["documents"],
                vectors_in(folder, len(chunks)) if "space" in told else None,
                told.get("space", ""),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, IndexDamagedError):
                raise
            raise IndexDamagedError(
                f"{folder} can't be read as an index ({error}); delete the Job that made it, and it is made anew"
            ) from None


def placed(folder: Path, write: Callable[[Path], None]) -> None:
    """Beside it first: a folder of this name is whole. If another pod was faster, its is as good."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.parent / f"{UNFINISHED}{uuid.uuid4().hex}"
    beside.mkdir()
    try:
        write(beside)
        for file in beside.iterdir():
            synced(file)
        synced(beside)
        try:
            beside.rename(folder)
        except OSError:
            Index.load(folder)
        synced(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def place_same(folder: Path, other: str) -> None:
    """A revision that is another one by another name: no link, which not every claim has."""
    told = json.dumps({"format": FORMAT, SAME: other})

    def write(beside: Path) -> None:
        (beside / MANIFEST).write_text(told, encoding="utf-8")

    placed(folder, write)


def same_as(folder: Path) -> str:
    """The revision that a folder stands for; its own name if it is one itself, or can't be read."""
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return Path(str(told.get(SAME) or folder.name)).name
    except (OSError, ValueError, AttributeError):
        return folder.name


def made_at(folder: Path) -> float:
    """When a revision was put there, in seconds since the epoch. Raises OSError."""
    return (folder / MANIFEST).stat().st_mtime


def line_of(chunk: StoredChunk) -> str:
    return json.dumps(asdict(chunk), ensure_ascii=False)


def vectors_in(folder: Path, chunks: int) -> Vectors:
    """Raises ValueError, or OSError."""
    from llm_app.vectors import Vectors

    found = Vectors.load(folder)
    if len(found.digests) != chunks:
        raise ValueError(f"{len(found.digests)} vectors of {chunks} chunks")
    return found


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def synced(path: Path) -> None:
    """On the disk, also after the node has lost its power."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def remove_others(folder: Path, keep: Sequence[str]) -> None:
    """Revisions that nobody uses any more, and what pods have left that were killed."""
    kept = {*keep, *(same_as(folder / one) for one in keep)}
    for found in folder.iterdir():
        if found.is_dir() and found.name not in kept:
            shutil.rmtree(found, ignore_errors=True)
