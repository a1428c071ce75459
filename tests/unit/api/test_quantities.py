"""Kubernetes quantities: the same are taken and refused as in a pod."""

from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_operator.api.quantities import (
    LARGEST,
    UNITS,
    QuantityError,
    amount,
    bytes_of,
    quantity_of,
    quantity_text,
    whole,
)
from tests.quantity_cases import RIGHT_QUANTITIES, TOO_LARGE, WRONG_QUANTITIES


@pytest.mark.parametrize(("value", "text"), RIGHT_QUANTITIES, ids=repr)
def test_what_a_pod_takes_is_taken(value: object, text: str) -> None:
    assert quantity_text(value) == text


@pytest.mark.parametrize(("value", "says"), WRONG_QUANTITIES, ids=repr)
def test_what_a_pod_refuses_is_refused(value: object, says: str) -> None:
    with pytest.raises(QuantityError) as refused:
        quantity_text(value)
    assert says in str(refused.value)


@pytest.mark.parametrize("value", [*TOO_LARGE, float("inf"), float("nan"), 10**30])
def test_what_is_beyond_64_bits_is_refused(value: object) -> None:
    with pytest.raises(QuantityError):
        quantity_text(value)


@given(st.fractions(min_value=0, max_value=10**6, max_denominator=1000), st.sampled_from(sorted(UNITS)))
def test_an_amount_is_exact(number: Fraction, unit: str) -> None:
    text = f"{int(number)}.{int(number % 1 * 1000):03}"
    if amount(f"{text}{unit}") <= LARGEST:
        assert amount(quantity_text(f"{text}{unit}")) == Fraction(text) * UNITS[unit]


@given(st.floats(min_value=0, max_value=1e18))
def test_a_number_stays_what_it_is(number: float) -> None:
    assert float(amount(quantity_text(number))) == pytest.approx(number, rel=1e-15, abs=1e-9)


@given(st.text() | st.integers() | st.floats() | st.none() | st.lists(st.integers()) | st.booleans())
def test_nothing_else_is_raised(value: object) -> None:
    with contextlib.suppress(QuantityError):
        assert amount(quantity_text(value)) >= 0


@pytest.mark.parametrize(
    ("text", "number"), [("1e0", 1), ("1.0", 1), ("1000m", 1), ("2k", 2000), ("500m", None), ("0.9999", None)]
)
def test_whole_numbers(text: str, number: int | None) -> None:
    assert whole(text) == number


@pytest.mark.parametrize(
    ("text", "size"), [("80Gi", 80 << 30), ("1.5G", 1_500_000_000), ("123", 123), ("500m", 1), ("8e9", 8_000_000_000)]
)
def test_bytes(text: str, size: int) -> None:
    assert bytes_of(text) == size


def test_bytes_as_kubernetes_writes_them() -> None:
    assert [quantity_of(size) for size in (80 << 30, 3 << 29, 1000)] == ["80Gi", "1.5Gi", "1Ki"]
