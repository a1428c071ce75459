"""Names of what the rooms make. Pure."""

from __future__ import annotations

import hashlib

LABEL_CHARACTERS = 63


def child_name(owner: str, ending: str, letter: str) -> str:
    """Of children that are there once, such as a Service, whose name is a DNS label that begins with a letter.

    An owner's name that is none is made one by the ``letter`` of its kind, and marked, so that llama-3.1-8b and
    llama-3-1-8b stay two.
    """
    label = owner.replace(".", "-")
    if not label[0].isalpha():
        label = f"{letter}-{label}"
    if label == owner and len(label) + len(ending) <= LABEL_CHARACTERS:
        return label + ending
    mark = f"-{hashlib.sha256(owner.encode()).hexdigest()[:6]}{ending}"
    return label[: LABEL_CHARACTERS - len(mark)].rstrip("-") + mark
