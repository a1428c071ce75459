"""Names of children: pure functions of who they belong to, so that a write can be repeated without harm."""

from __future__ import annotations

import hashlib

NAME_CHARACTERS = 52  # a pod's host name adds its index and may have 63


def run_name(training: str, uid: str) -> str:
    """The folder, on the training's storage, of all that it writes."""
    return f"{training}-{uid[:8]}"


def child_name(training: str, uid: str, stage: str, attempt: int) -> str:
    """Of the ConfigMap, the Service and the Job of one attempt: a DNS label that begins with a letter."""
    name = training.replace(".", "-")
    if not name[0].isalpha():
        name = f"t-{name}"
    tail = f"-{attempt}-{digest(uid)[:5]}"
    whole = f"{name}-{stage}{tail}"
    if len(whole) <= NAME_CHARACTERS:
        return whole
    # Two long names that differ at the end only must not become one.
    mark = f"-{digest(f'{training}/{stage}')[:6]}{tail}"
    return f"{name}-{stage}"[: NAME_CHARACTERS - len(mark)].rstrip("-") + mark


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
