"""Kubernetes quantities, such as 500m, 64Gi, 0.5 and 1e3: what a pod takes is taken. Pure.

The grammar is that of resource.Quantity in k8s.io/apimachinery.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

BINARY = {f"{prefix}i": Fraction(1024) ** power for power, prefix in enumerate("KMGTPE", start=1)}
DECIMAL = {prefix: Fraction(1000) ** power for power, prefix in enumerate(("n", "u", "m", "", *"kMGTPE"), start=-3)}
UNITS = DECIMAL | BINARY
LARGEST = (1 << 63) - 1  # a pod would take more, and count with this
MOST_CHARACTERS = 64
NANO = Decimal("1e-9")
PATTERN = r"^ *[+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})? *$"
# Neither a type nor x-kubernetes-int-or-string fits: a pod takes the JSON number 0.5. Each bound is of one JSON type.
SCHEMA: dict[str, Any] = {
    "x-kubernetes-preserve-unknown-fields": True,
    "pattern": PATTERN,
    "maxLength": MOST_CHARACTERS,
    "minimum": 0,
    "maximum": LARGEST + 1 - 1024,  # the API server compares as float64: this is the last one below 2**63
    "maxProperties": 0,
    "maxItems": 0,
    "not": {"enum": [True, False, {}, []]},
}
_QUANTITY = re.compile(PATTERN, re.ASCII)
_PARTS = re.compile(r"[+]?(?P<number>[0-9.]+)(?P<suffix>[eE][+-]?[0-9]+|[a-zA-Z]*)")
_NEARLY = re.compile(r"([0-9.]+)\s*([kmgtpe])i?b?(yte)?s?", re.IGNORECASE)


class QuantityError(ValueError):
    """A value that is no quantity, or none of a pod; says what to write."""


def quantity_text(value: object) -> str:
    """What YAML or JSON gave, as a pod's manifest has it; raises QuantityError."""
    text = number_text(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise QuantityError(f"{shown(value)} is no quantity; write a number, or a text such as 64Gi")
    text = text.strip(" ")
    if re.fullmatch(r"-\s*[0-9.].*", text):
        raise QuantityError(f"{shown(value)} is below 0; write a quantity of 0 or more")
    if len(text) > MOST_CHARACTERS or not _QUANTITY.fullmatch(text):
        raise QuantityError(f"{shown(value)} is no quantity; write {nearest(text)}")
    if amount(text) > LARGEST:
        raise QuantityError(f"{shown(value)} is above {LARGEST}, the largest quantity; write less")
    return text


def number_text(number: float) -> str:
    """Without an exponent: 8e9 is 8000000000. Parts of a nano are rounded up, as Kubernetes does."""
    if isinstance(number, int) or number.is_integer():
        return str(int(number))
    if not math.isfinite(number):
        return str(number)
    return f"{Decimal(repr(number)).quantize(NANO, ROUND_CEILING).normalize():f}"


def shown(value: object) -> str:
    """As it was written, as far as it fits into a message."""
    match value:
        case bool() | None:
            text = {True: "true", False: "false", None: "null"}[value]
        case dict():
            text = "an object"
        case list():
            text = "a list"
        case _:
            text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def nearest(text: str) -> str:
    """What a text that is no quantity may have meant."""
    if found := _NEARLY.fullmatch(text.strip()):
        number, unit = found[1], found[2].upper()
        return f"{number}{'k' if unit == 'K' else unit} or {number}{unit}i"
    return f"a number, and perhaps one of the units {', '.join(unit for unit in UNITS if unit)}"


Quantity = Annotated[str, BeforeValidator(quantity_text), WithJsonSchema({"format": "quantity"})]


def amount(quantity: str) -> Fraction:
    """Exactly; of a text that ``quantity_text`` made."""
    found = _PARTS.fullmatch(quantity)
    if found is None:
        raise ValueError(f"{quantity!r} is no quantity")
    number, suffix = found["number"], found["suffix"]
    return Fraction(number) * UNITS[suffix] if suffix in UNITS else Fraction(number + suffix)


def whole(quantity: str) -> int | None:
    """None if it is no whole number: 1e0 and 1.0 are 1."""
    found = amount(quantity)
    return int(found) if found.denominator == 1 else None


def bytes_of(quantity: str) -> int:
    """A part of a byte counts as one."""
    return math.ceil(amount(quantity))


def quantity_of(size: int) -> str:
    """As Kubernetes writes memory: 1.2Gi, 80Gi, 300Mi."""
    for unit in ("Ti", "Gi", "Mi"):
        one = int(BINARY[unit])
        if size >= one:
            return f"{size / one:.3g}{unit}" if size < 1000 * one else f"{size // one}{unit}"
    return f"{-(-size // 1024)}Ki"
