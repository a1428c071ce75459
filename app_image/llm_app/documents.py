"""Reads the documents of a source: text, Markdown, HTML, JSON lines and PDF. What can't be read is told by name."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import glob, has_magic
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

from llm_app.config import Document, IndexSource

TEXT = (".txt", ".md", ".markdown", ".rst", ".text")
HTML = (".html", ".htm")
LINES = (".jsonl",)
PDF = (".pdf",)
READ = (*TEXT, *HTML, *LINES, *PDF)
MOST_BYTES = 64 << 20  # of a file
MOST_FILES = 100_000
TITLE_CHARACTERS = 253
MOST_METADATA = 16
VOLUMES = "/volumes"


class DataError(ValueError):
    """A document that can't be used; says which and what to do."""


@dataclass
class Found:
    """What a source has. ``empty``: files without a text; ``others``: how many files of each kind nobody reads."""

    empty: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def documents(source: IndexSource, found: Found) -> Iterator[Document]:
    """In an order that is the same each time. Raises DataError."""
    if not source.path:
        yield from source.documents
        if source.urls:
            from llm_app.web import pages

            yield from pages(source, found)
        return
    for file in files(source, found):
        some = False
        for document in read(file, source):
            some = some or bool(document.text.strip())
            yield document
        if not some:
            found.empty.append(name_of(file))


def files(source: IndexSource, found: Found) -> Iterator[Path]:
    path = Path(source.path)
    if has_magic(source.path):
        matching = (Path(one) for one in glob(source.path, recursive=True))  # noqa: PTH207 -- its path is absolute
        listed = sorted(one for one in matching if one.is_file())
    elif path.is_dir():
        listed = sorted(one for one in path.rglob("*") if one.is_file() and not hidden(one.relative_to(path)))
    elif path.is_file():
        listed = [path]
        if not source.all_are_text and path.suffix.lower() not in READ:
            raise DataError(f"{name_of(path)}: {path.suffix or 'a file without an ending'} is not read; {readable()}")
    else:
        raise DataError(f"source {source.name}: {name_of(path)} does not exist; correct its uri, or put it there")
    if len(listed) > MOST_FILES:
        raise DataError(f"source {source.name}: {len(listed):,} files are more than {MOST_FILES:,}; join small ones")
    for file in listed:
        refuse_link_out(file, source)
        if source.all_are_text or file.suffix.lower() in READ:
            yield file
        else:
            found.others[file.suffix.lower() or "no ending"] += 1


def refuse_link_out(file: Path, source: IndexSource) -> None:
    """Raises DataError for what lies elsewhere than in its claim or ConfigMap, such as the pod's own environment."""
    if file.is_relative_to(VOLUMES):
        root = Path(VOLUMES, file.relative_to(VOLUMES).parts[0])
    elif source.all_are_text:
        root = Path(source.path)
    else:  # a folder of a user's own machine
        return
    if not os.path.realpath(file).startswith(f"{os.path.realpath(root)}/"):
        raise DataError(f"{name_of(file)}: leads out of {root.name}; put a copy in its place")


def readable() -> str:
    return f"make it one of {', '.join((*TEXT[:3], *HTML, *LINES, *PDF))}"


def hidden(path: Path) -> bool:
    """As the folders are by which a kubelet mounts a ConfigMap."""
    return any(part.startswith(".") for part in path.parts)


def read(file: Path, source: IndexSource) -> Iterator[Document]:
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise DataError(f"{name_of(file)}: has {size >> 20} MiB, and {MOST_BYTES >> 20} MiB are read at most; split it")
    yield from parsed(file.read_bytes(), file.suffix.lower(), name_of(file))


def parsed(data: bytes, kind: str, name: str) -> Iterator[Document]:
    """Of a file of this kind, which is told by the endings of files. Raises DataError."""
    if kind in PDF:
        from llm_app.pdf import document

        yield document(data, name)
        return
    text = decoded(data, name)
    if kind in LINES:
        yield from rows(text, name)
    elif kind in HTML:
        page = page_of(text, name)
        yield Document.model_construct(title=page.title or name, text=page.text, metadata={})
    else:
        yield Document.model_construct(title=name, text=text, metadata={})


def page_of(text: str, name: str) -> Page:
    try:
        return Page(text)
    except AssertionError as error:  # by which Python's parser says that a declaration is none
        raise DataError(f"{name}: can't be read as HTML ({error}); correct it, or leave it out") from None


def decoded(data: bytes, name: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{name}: is UTF-16; write it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name}: line {line} is not UTF-8; write it as UTF-8, or leave it out") from None
    if "\0" in text:
        raise DataError(f"{name}: has NUL bytes, as binary files have; leave it out, or make text of it")
    return text


def rows(text: str, name: str) -> Iterator[Document]:
    """Objects with a text, and a title and metadata if they have them."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{name}: line {number} is no JSON; each line is an object with text") from None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise DataError(f'{name}: line {number} has no text; write {{"title": …, "text": …}}')
        title = row.get("title")
        yield Document.model_construct(
            title=title[:TITLE_CHARACTERS] if isinstance(title, str) else f"{name}:{number}",
            text=row["text"],
            metadata=metadata_of(row.get("metadata"), f"{name}: line {number}"),
        )


def metadata_of(told: object, where: str) -> dict[str, str]:
    """Numbers and truth values as JSON writes them. Raises DataError."""
    if told is None:
        return {}
    if not isinstance(told, dict) or len(told) > MOST_METADATA:
        raise DataError(f"{where}: metadata is no object of {MOST_METADATA} fields at most")
    made: dict[str, str] = {}
    for key, value in told.items():
        if not isinstance(value, str | int | float):
            raise DataError(f"{where}: metadata[{key}] is no text and no number")
        made[key] = (value if isinstance(value, str) else json.dumps(value))[:TITLE_CHARACTERS]
    return made


def name_of(file: Path) -> str:
    """As a user knows it: CLAIM/PATH, or a key of a ConfigMap."""
    claim = str(file).partition(f"{VOLUMES}/")[2]
    return (claim or file.name)[-TITLE_CHARACTERS:]


class Page(HTMLParser):
    """The text of an HTML page, its headings as Markdown has them."""

    SILENT = frozenset({"script", "style", "noscript", "template", "nav", "svg"})
    BLOCKS = frozenset({
        "p", "div", "section", "article", "li", "ul", "ol", "table", "tr", "br", "pre", "blockquote", "dt", "dd", "h1",
        "h2", "h3", "h4", "h5", "h6", "header", "footer", "main", "aside", "hr",
    })  # fmt: skip
    HEADINGS: ClassVar = {f"h{level}": "#" * level + " " for level in range(1, 7)}

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self._parts: list[str] = []
        self._silent = 0
        self._titled = False
        # Behind the last one no tag has an end. The parser would look for it from each "<": the square of the time.
        end = text.rfind(">") + 1
        self.feed(text[:end])
        self.close()
        self.handle_data(unescape(text[end:]))

    @property
    def text(self) -> str:
        lines = (" ".join(line.split()) for line in "".join(self._parts).split("\n"))
        return "\n".join(line for line in lines if line.strip("# "))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._titled = tag == "title" or (self._titled and tag not in self.BLOCKS)
        self._silent += tag in self.SILENT
        if tag in self.BLOCKS:
            self._parts.append("\n" + self.HEADINGS.get(tag, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._titled = False
        if tag in self.SILENT and self._silent:
            self._silent -= 1
        if tag in self.BLOCKS:
            self._parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self._titled:
            self.title = (self.title + " ".join(data.split()))[:TITLE_CHARACTERS]
        elif not self._silent:
            self._parts.append(data.replace("\n", " "))
