"""The pages that users read, and what of them can be checked: their blocks of code, commands, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_operator import kubectl_yaml

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
BESIDE = ("README.md", "CONTRIBUTING.md", "charts/llm-operator/README.md", "examples/README.md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPET = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PROGRAMS = ("kubectl ", "helm ", "make ", "python -m ")


@dataclass(frozen=True)
class Block:
    """A fenced block. ``place``: page and line, for messages and pytest's names."""

    place: str
    language: str
    text: str

    @property
    def name(self) -> str:
        """That lasts when lines are added above it."""
        return f"{self.place.partition(':')[0]}: {self.text.partition(chr(10))[0].strip()}"


def pages() -> list[Path]:
    return [*sorted(DOCS.rglob("*.md")), *(REPOSITORY / name for name in BESIDE)]


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def blocks(*languages: str) -> list[Block]:
    """Of all pages, with the files that they show in place of the lines that name them."""
    return [
        Block(f"{name_of(page)}:{line_of(text, match.start())}", match[1], shown(match[2]))
        for page in pages()
        for text in [page.read_text()]
        for match in FENCE.finditer(text)
        if match[1] in languages
    ]


def shown(text: str) -> str:
    return SNIPPET.sub(lambda match: (REPOSITORY / match[1]).read_text().rstrip(), text)


def line_of(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def prose(page: Path) -> str:
    """Without fenced blocks; the lines stay where they are."""
    return FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text())


def documents(block: Block) -> Iterator[dict[str, Any] | list[Any]]:
    """As kubectl reads them; a key that stands twice would hide what it stands for."""
    try:
        for found in kubectl_yaml.documents(block.text):
            assert not found.repeated, f"{block.place}: {found.repeated} stand twice"
            assert isinstance(found.value, dict | list), f"{block.place}: neither a mapping nor a list"
            yield found.value
    except kubectl_yaml.UnreadableError as error:
        raise AssertionError(f"{block.place}: {error}") from None


# --- command lines -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """One command of a line, as words; pipes and lists are taken apart, assignments before it left out."""

    place: str
    words: tuple[str, ...]


def commands() -> list[Command]:
    """What a reader may type: lines after a prompt, and what begins with one of our programs in the text."""
    found = [
        command for block in blocks("console") for line in typed(block.text) for command in split(block.place, line)
    ]
    for page in pages():
        text = prose(page)
        for match in INLINE.finditer(text):
            if match[1].startswith(PROGRAMS):
                found += split(f"{name_of(page)}:{line_of(text, match.start())}", match[1])
    return found


def typed(text: str) -> Iterator[str]:
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        if line.startswith("$ "):
            yield line[2:]


def split(place: str, line: str) -> list[Command]:
    lexer = shlex.shlex(line.replace("…", ""), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;"):
            parts.append([])
        else:
            parts[-1].append(word)
    return [Command(place, tuple(plain)) for part in parts if (plain := without_redirections(part))]


def without_redirections(words: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif set(word) <= set("<>"):
            skip = True
        elif kept or not re.fullmatch(r"[A-Z_]+=\S*", word):
            kept.append(word)
    return kept
