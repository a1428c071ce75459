"""Ranges of bytes of a file of lines: where the first line of one begins, and which one it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

BLOCK = 1 << 20  # bytes of a file read at a time


def next_line(stream: BinaryIO, position: int) -> int:
    r"""Where the first line begins that does so at `position` or later; by \n alone, as \r\n may not be cut."""
    if position == 0:
        return 0
    stream.seek(position - 1)
    at = position - 1
    while block := stream.read(BLOCK):
        if (found := block.find(b"\n")) >= 0:
            return at + found + 1
        at += len(block)
    return at


def lines_before(opened: Callable[[], BinaryIO], position: int) -> int:
    """How many lines of a file end before the first that begins at `position` or later."""
    with suppress(OSError), opened() as stream:
        left, count, last = next_line(stream, position), 0, b""
        stream.seek(0)
        while left and (block := stream.read(min(BLOCK, left))):
            left -= len(block)
            joined = last + block
            count += block.count(b"\n") + block.count(b"\r") - joined.count(b"\r\n")
            last = block[-1:]
        return count
    return 0
