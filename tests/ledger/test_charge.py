"""Amounts of privacy budget."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.errors import DocumentError
from mpc_engine.ledger.charge import Charge, Limit, Scope


@given(st.fractions(0, 10**6), st.fractions(0, 1))
def test_a_charge_is_never_less_than_what_is_asked_and_within_one_unit(
    epsilon: Fraction, delta: Fraction
) -> None:
    charge = Charge.of(epsilon, delta)
    assert epsilon <= charge.epsilon < epsilon + Fraction(1, 10**6)
    assert delta <= charge.probability < delta + Fraction(1, 2**100)


def test_exact_amounts_stay_exact_and_others_are_rounded_up() -> None:
    assert Charge.of(Fraction(1, 2), None) == Charge(500_000, 0)
    assert Charge.of(Fraction(1, 3), Fraction(1, 2**101)) == Charge(333_334, 1)
    assert Charge.of(Fraction(0), Fraction(1)) == Charge(0, 2**100)


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(Fraction(-1, 10**9), None), (Fraction(1), Fraction(2)), (Fraction(10**10), None)]
)
def test_impossible_amounts_are_refused(epsilon: Fraction, delta: Fraction | None) -> None:
    with pytest.raises(DocumentError):
        Charge.of(epsilon, delta)


@pytest.mark.parametrize(
    ("charge", "words"),
    [
        (Charge(1_000_000, 2**36), "ε = 1, δ = 2^-64"),
        (Charge(500_000), "ε = 0.5"),
        (Charge(1, 2**100), "ε = 0.000001, δ = 1"),
        (Charge.of(Fraction(2), Fraction(1, 10**6)), "ε = 2, δ ≤ 1.1 × 10^-6"),
        (Charge.of(Fraction(2), Fraction(999, 1000)), "ε = 2, δ ≤ 1.0"),
        (Charge(1_000_000) - Charge(2_500_000), "ε = -1.5"),
    ],
)
def test_words(charge: Charge, words: str) -> None:
    assert charge.words == words


@given(st.integers(1, 2**101))
def test_the_words_for_delta_never_understate_it(delta: int) -> None:
    words = Charge(0, delta).words.partition("δ ")[2]
    number = words[2:].replace(" × 10^", "e").replace("2^", "")
    stated = Fraction(2) ** int(number) if "2^" in words else Fraction(number)
    assert Fraction(delta, 2**100) <= stated <= Fraction(delta, 2**100) * Fraction(11, 10)


def test_a_limit_holds_each_amount_that_it_names() -> None:
    scope = Scope("dataset", "x")
    assert Limit(scope, None, None).allows(Charge(10**12, 2**100))
    assert Limit(scope, 10, None).allows(Charge(10, 2**100))
    assert not Limit(scope, 10, None).allows(Charge(11, 0))
    assert not Limit(scope, None, 5).allows(Charge(0, 6))
    assert Limit(scope, 1_500_000, 2**60).words == "ε = 1.5, δ = 2^-40"
