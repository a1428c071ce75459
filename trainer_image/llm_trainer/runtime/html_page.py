"""HTML pages that need no script and no other file: one style, light and dark, and tables that a phone can scroll."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #5b6775; --line: #d5dbe2; --paper: #fff; --bar: #4a7fb5;
  --limit: #c2410c }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ee; --soft: #9aa6b3; --line: #38424d; --paper: #14191f;
  --bar: #6ea3d8; --limit: #fb923c } }
* { box-sizing: border-box } h1, h2, h3, p, .words td { overflow-wrap: anywhere }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 1rem } th, td { padding: .2rem .8rem .2rem 0; text-align: right;
  border-bottom: 1px solid var(--line) } th:first-child, td:first-child, .words td, .words th { text-align: left }
td { white-space: nowrap } .words td { white-space: normal; min-width: 6rem }
.wide { overflow-x: auto } .plots { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0; max-width: min(100%, 320px) } svg { max-width: 100%; height: auto }
figcaption, .soft { color: var(--soft); font-size: .85rem }
svg text { fill: var(--soft); font-size: 10px; paint-order: stroke; stroke: var(--paper); stroke-width: 3px }
 .bar { fill: var(--bar) } .limit { stroke: var(--limit) }
.axis { stroke: var(--line) } pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0 1rem;
  padding: .5rem; border: 1px solid var(--line); font-size: .85rem } summary { cursor: pointer }
.band { fill: var(--bar); opacity: .2 } .line { fill: none; stroke: var(--bar); stroke-width: 1.5 }
.dot { fill: var(--bar) } .mark { stroke: var(--limit); stroke-dasharray: 3 2 } .missing { stroke: var(--limit) }
"""


def document(title: str, body: Iterable[str]) -> str:
    """`body`: HTML, escaped."""
    return "\n".join([
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{text(title)}</h1>", *body, "</body></html>", "",
    ])  # fmt: skip


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, words: bool = False) -> str:
    """`words`: its cells are no numbers, so they stand at the left."""
    cells = "".join(f"<th>{text(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{text(f'{cell:,}' if isinstance(cell, int) else str(cell))}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )  # fmt: skip
    return f'<div class="wide"><table{" class=words" * words}><tr>{cells}</tr>{body}</table></div>'


def text(value: str) -> str:
    """As HTML may hold it: a model's words, and those of users, may be any characters."""
    return escape(printable(value))


def printable(value: str) -> str:
    """Without control characters and halves of pairs, which no file in UTF-8 can hold."""
    known = value.encode("utf-8", "replace").decode()
    return "".join(c if c in "\n\t" or " " <= c < "\x7f" or c > "\x9f" else "\ufffd" for c in known)
