"""Cuts a document into chunks: by headings, then paragraphs, then sentences, of English, Japanese and others. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from llm_app.config import Chunking

HEADING = re.compile(r"^(#{1,6})[ \t]+(.+)$")
FENCE = re.compile(r"^[ \t]*(```|~~~)")
# A paragraph's end, a full stop of either kind with what closes after it, or a line's end.
ENDS = re.compile(r"\n[ \t]*\n\s*|[。．！？!?][」』）】”’)\]]*|\.[\")\]]*(?=\s)|\n")


@dataclass(frozen=True)
class Chunk:
    """``heading``: those that it is below, such as Install › Linux."""

    text: str
    heading: str = ""


def chunks(text: str, chunking: Chunking) -> Iterator[Chunk]:
    """No chunk is empty or longer than ``chunking.size``; all of the text is in one of them, but for blank space."""
    for heading, body in sections(text.replace("\r\n", "\n").replace("\r", "\n")):
        for packed in packs(body, chunking):
            yield Chunk(packed, heading)


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Headings → what stands below them, of a Markdown text; one section of any other. No heading of a code block."""
    above: list[tuple[int, str]] = []
    lines: list[str] = []
    fenced = False
    for line in text.split("\n"):
        fenced ^= FENCE.match(line) is not None
        found = None if fenced else HEADING.match(line)
        title = title_of(found[2]) if found else ""
        if found is None or not title:
            lines.append(line)
            continue
        yield from section(above, lines)
        level = len(found[1])
        above = [*(one for one in above if one[0] < level), (level, title)]
        lines = []
    yield from section(above, lines)


def title_of(said: str) -> str:
    """Without the marks that may close a heading; not by a pattern, as one would try all ways to share out blanks."""
    bare = said.strip(" \t")
    return bare.rstrip("#").rstrip(" \t") or bare


def section(above: list[tuple[int, str]], lines: list[str]) -> Iterator[tuple[str, str]]:
    body = "\n".join(lines).strip()
    if body:
        yield " › ".join(title for _, title in above)[:253], body


def packs(body: str, chunking: Chunking) -> Iterator[str]:
    """As many sentences as fit; the next pack begins with the last ones of this, as many as the overlap holds."""
    overlap = min(chunking.overlap, chunking.size // 2)
    pack: list[str] = []
    size = 0  # of the pack
    fresh = False  # whether the pack has more than what it repeats
    for piece in pieces(body, chunking.size):
        if pack and size + len(piece) > chunking.size:
            if fresh:
                yield from stripped(pack)
            pack = tail(pack, min(overlap, chunking.size - len(piece)))
            size = sum(map(len, pack))
        pack.append(piece)
        size += len(piece)
        fresh = True
    if fresh:
        yield from stripped(pack)


def pieces(body: str, most: int) -> Iterator[str]:
    """Sentences with what follows them. One that is too long is cut at a blank, or anywhere."""
    start = 0
    for end in [*(found.end() for found in ENDS.finditer(body)), len(body)]:
        while end - start > most:
            blank = body.rfind(" ", start + most // 2, start + most)
            cut = blank + 1 if blank >= 0 else start + most
            yield body[start:cut]
            start = cut
        if end > start:
            yield body[start:end]
        start = end


def tail(pack: list[str], most: int) -> list[str]:
    kept: list[str] = []
    for piece in reversed(pack):
        most -= len(piece)
        if most < 0:
            break
        kept.append(piece)
    return kept[::-1]


def stripped(pack: list[str]) -> Iterator[str]:
    text = "".join(pack).strip()
    if text:
        yield text
