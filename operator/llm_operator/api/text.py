"""Texts that others wrote, such as a log's last line: a status must hold and a terminal show them."""

from __future__ import annotations

import re
import unicodedata

TEXT_BYTES = 1024  # also what the API server takes as the note of an event
READ_CHARACTERS = 16_384  # of a text; to clean so many takes 3 ms
MARK = " … (cut)"

# What a terminal obeys (ECMA-48): colours and the cursor; titles, links and the clipboard; two signs of any other kind.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]?")
_CONTROLS = ("Cc", "Cs", "Zl", "Zp")  # also half surrogate pairs, which UTF-8 can't write, and separators of lines
_ORDER = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # of writing


def shown(text: str) -> str:
    """The text as any terminal can show it: without escapes, other controls as spaces; line ends and tabs stay.

    Signs that turn the order of writing are left out too: what is seen must be what is there.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = (char for char in _ESCAPES.sub("", text) if char not in _ORDER)
    return "".join(" " if char not in "\n\t" and unicodedata.category(char) in _CONTROLS else char for char in kept)


def cut(text: str, most: int = TEXT_BYTES) -> str:
    """What is `shown` of a text in at most so many bytes of UTF-8, with a mark if it is not all.

    Every text of a status and an event goes through here. To cut it again changes nothing.
    """
    read = shown(text[:READ_CHARACTERS])
    encoded = read.encode()
    if len(encoded) <= most and len(text) <= READ_CHARACTERS:
        return read
    return encoded[: most - len(MARK.encode())].decode(errors="ignore") + MARK
