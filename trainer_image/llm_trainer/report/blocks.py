"""What a report is made of, and how that is written as HTML and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from llm_trainer.report.curves import Curve
from llm_trainer.report.plots import plot
from llm_trainer.runtime.html_page import document, printable, table, text


@dataclass(frozen=True)
class Heading:
    words: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    words: str


@dataclass(frozen=True)
class Table:
    """`words`: its cells are no numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    words: bool = False


@dataclass(frozen=True)
class Plots:
    """Curves by name, each with the same marks."""

    curves: dict[str, Curve]
    marks: Sequence[tuple[int, str]] = ()


@dataclass(frozen=True)
class Verbatim:
    """Words of a user or of a model, or a file: as they are. `folded`: a page shows them when asked."""

    words: str
    title: str = ""
    folded: bool = field(default=False)


Block = Heading | Paragraph | Table | Plots | Verbatim


def to_html(title: str, blocks: Iterable[Block]) -> str:
    return document(title, [part for block in blocks for part in _html(block)])


def _html(block: Block) -> Iterator[str]:
    match block:
        case Heading(words, level):
            yield f"<h{level}>{text(words)}</h{level}>"
        case Paragraph(words):
            yield f"<p>{text(words)}</p>"
        case Table(head, rows, words):
            yield table(head, rows, words=words)
        case Plots(curves, marks):
            yield '<div class="plots">'
            yield from (plot(name, curve, marks) for name, curve in curves.items())
            yield "</div>"
        case Verbatim(words, title, folded):
            if folded:
                yield f"<details><summary>{text(title)}</summary><pre>{text(words)}</pre></details>"
            else:
                yield f'<p class="soft">{text(title)}</p>' if title else ""
                yield f"<pre>{text(words)}</pre>"


def to_markdown(title: str, blocks: Iterable[Block]) -> str:
    parts = [f"# {_inline(title)}", *(part for block in blocks for part in _markdown(block))]
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> Iterator[str]:
    match block:
        case Heading(words, level):
            yield f"{'#' * level} {_inline(words)}"
        case Paragraph(words):
            yield _inline(words)
        case Table(head, rows):
            lines = [head, ["---"] * len(head), *rows]
            yield "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
        case Plots(curves, marks):
            rows = [(name, curve.summary()) for name, curve in curves.items()]
            yield from _markdown(Table(("figure", "first → last"), rows))
            if marks:
                yield "\n".join(f"* step {step:,}: {_inline(told)}" for step, told in marks)
        case Verbatim(words, title):
            if title:
                yield _inline(title)
            words = printable(words)
            longest = max(map(len, re.findall("`{3,}", words)), default=2)
            fence = "`" * (longest + 1)
            yield f"{fence}\n{words.rstrip()}\n{fence}"


def _cell(value: object) -> str:
    return _inline(f"{value:,}" if isinstance(value, int) else str(value)).replace("|", "\\|")


def _inline(words: str) -> str:
    """One line in which nothing is taken for HTML, a link or an image."""
    line = " ".join(printable(words).split())
    return re.sub(r"([<>&\[\]])", lambda sign: f"\\{sign[1]}", line)
