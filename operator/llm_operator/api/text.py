"""Texts that others wrote, such as a log's last line: a status and an event must hold them whatever their length."""

from __future__ import annotations

TEXT_BYTES = 1024  # also what the API server takes as the note of an event
MARK = " … (cut)"


def cut(text: str, most: int = TEXT_BYTES) -> str:
    """The text in at most so many bytes of UTF-8, with a mark if it is not all. To cut it again changes nothing."""
    encoded = text.encode()
    if len(encoded) <= most:
        return text
    return encoded[: most - len(MARK.encode())].decode(errors="ignore") + MARK
