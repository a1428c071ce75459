"""JSON as others have written it, read at a cost of its size. Pure.

Objects that were stored under an older definition, without bounds, come as they are, nested at most 10,000 deep.
Nothing that is used nests as deep as ``MOST_DEEP``, and whatever walks over a value (a copy, a validation) may recurse.
"""

from __future__ import annotations

import json
import re
from typing import Any

MOST_DEEP = 64  # levels of an object
TOO_DEEP = f"(nested more than {MOST_DEEP} deep, left out)"  # in the place of what is deeper
ENVELOPE = 3  # levels around an object: an event of a watch, a list

_SIGNS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)


def decoded(text: bytes) -> Any:
    """What it says; what is too deep for Python is left out. Raises ValueError if it is no JSON."""
    try:
        return json.loads(text)
    except RecursionError:
        return json.loads(shallow(text))


def shallow(text: bytes, most: int = MOST_DEEP + ENVELOPE) -> bytes:
    """The same JSON with a mark in the place of every object and list that is nested deeper."""
    kept: list[bytes] = []
    begin = depth = 0
    for sign in _SIGNS.finditer(text):
        match sign[0]:
            case b"[" | b"{":
                depth += 1
                if depth == most + 1:
                    kept += [text[begin : sign.start()], json.dumps(TOO_DEEP).encode()]
            case b"]" | b"}":
                if depth == most + 1:
                    begin = sign.end()
                depth -= 1
    return b"".join([*kept, text[begin:] if depth <= most else b""])
