"""Decimal strings and the bounds of e^x."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpc_engine.dp import parse_delta, parse_epsilon
from mpc_engine.dp.rationals import PRECISION_BITS, ceil_log2, decimal_text, exponential_bounds, floor_log2
from mpc_engine.errors import DocumentError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", Fraction(1)),
        ("0.1", Fraction(1, 10)),
        ("1.0", Fraction(1)),
        ("1e-3", Fraction(1, 1000)),
        ("2.5E+1", Fraction(25)),
        ("0.000000001", Fraction(1, 10**9)),
        ("100", Fraction(100)),
    ],
)
def test_epsilon_is_read_exactly(text: str, value: Fraction) -> None:
    assert parse_epsilon(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            " 1",
            "1 ",
            "1\n",
            "+1",
            "-1",
            "0",
            "0.0",
            "0e5",
            ".5",
            "1.",
            "1,5",
            "1_0",
            "0x1",
            "1/3",
            "nan",
            "inf",
        ],
        *[
            "\u0661",
            "1e",
            "1e999",
            "1e99",
            "1e-99",
            "1e9",
            "100.0001",
            "1e-10",
            "1" * 25,
            "0." + "0" * 500 + "1",
        ],
    ],
)
def test_epsilon_refused(text: str) -> None:
    with pytest.raises(DocumentError, match="epsilon"):
        parse_epsilon(text)


@pytest.mark.parametrize("value", [1.0, 1, None, True])
def test_epsilon_must_be_text(value: object) -> None:
    with pytest.raises(DocumentError, match="decimal string"):
        parse_epsilon(value)  # type: ignore[arg-type]


def test_delta() -> None:
    assert parse_delta("1e-6") == parse_delta("0.000001") == Fraction(1, 10**6)
    for text in ("0", "1", "1.5", "-1e-6"):
        with pytest.raises(DocumentError, match="delta"):
            parse_delta(text)


@given(st.decimals("0.000001", "100", places=6))
def test_decimal_text_goes_there_and_back(value: Decimal) -> None:
    text = decimal_text(Fraction(value))
    assert parse_epsilon(text) == Fraction(value)
    assert not text.endswith("0") or "." not in text


def test_decimal_text_of_a_quotient() -> None:
    assert decimal_text(Fraction(1, 3)) == "1/3"
    assert decimal_text(Fraction(0)) == "0"
    assert decimal_text(Fraction(5, 2)) == "2.5"
    assert decimal_text(Fraction(1, 10**24)) == "0." + "0" * 23 + "1"


@settings(deadline=None)
@given(st.fractions(Fraction(1, 10**12), 100, max_denominator=10**12).filter(lambda x: x > 0))
@example(Fraction(1))
@example(Fraction(100))
@example(Fraction(1, 10**13))
def test_exponential_lies_between_its_bounds(x: Fraction) -> None:
    """Against decimal's own exponential with 140 digits, which exceed the 2^-191 to be resolved."""
    lower, upper = exponential_bounds(x)
    assert upper - lower == Fraction(2, 1 << PRECISION_BITS)
    with localcontext() as context:
        context.prec = 140
        # e^(p/q) with the division rounded down and up, so that the comparison itself is an interval.
        quotient = Decimal(x.numerator) / Decimal(x.denominator)
        below, above = quotient.next_minus().exp().next_minus(), quotient.next_plus().exp().next_plus()
    assert lower < Fraction(below) < Fraction(above) < upper


def test_exponential_of_a_sum() -> None:
    low, high = exponential_bounds(Fraction(1, 3)), exponential_bounds(Fraction(1))
    assert low[0] ** 3 < high[1] and high[0] < low[1] ** 3
    with pytest.raises(DocumentError):
        exponential_bounds(Fraction(0))


@given(st.fractions().filter(lambda x: x > 0))
@example(Fraction(1))
@example(Fraction(1, 8))
@example(Fraction(7, 8))
@example(Fraction(9, 8))
def test_logarithms(value: Fraction) -> None:
    assert Fraction(2) ** floor_log2(value) <= value < Fraction(2) ** (floor_log2(value) + 1)
    assert Fraction(2) ** (ceil_log2(value) - 1) < value <= Fraction(2) ** ceil_log2(value)
