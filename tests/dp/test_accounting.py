"""Rules, thresholds and what a release promises."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.dp import (
    NOT_PRIVATE,
    NoiseTable,
    Rule,
    expected_false_cells,
    generate,
    guarantee_for_counts,
    publication_probability,
    strict_threshold,
    table_for_counts,
)
from mpc_engine.dp.rationals import exponential_bounds
from mpc_engine.errors import DocumentError

ONE = Fraction(1)


@pytest.mark.parametrize("mantissa", [12, 20])
def test_publication_under_noisy_at_epsilon_1(mantissa: int) -> None:
    """k = 5, per cent, to the digits usually printed for discrete Laplace."""
    table = generate(ONE, 1, mantissa)
    promise = guarantee_for_counts(table, Rule.NOISY, 5)
    printed = {0: "0.49", 1: "1.3", 2: "3.6", 3: "9.9", 4: "26.9", 5: "73.1", 6: "90.1", 7: "96.4", 8: "98.7"}
    for patients, text in {**printed, 10: "99.8"}.items():
        half_a_digit = Fraction(1, 2 * 10 ** len(text.split(".")[1]))
        found = 100 * publication_probability(table, promise, patients)
        assert abs(found - Fraction(text)) <= half_a_digit, patients
    higher = guarantee_for_counts(table, Rule.NOISY, 8)
    assert abs(100 * publication_probability(table, higher, 0) - Fraction("0.025")) < Fraction(1, 2000)
    assert Fraction(49, 10) < expected_false_cells(table, promise, 1000) < 5
    assert expected_false_cells(table, promise, 0) == 0


def test_publication_is_the_tail_of_the_table() -> None:
    table = generate(ONE)
    promise = guarantee_for_counts(table, Rule.NOISY, 5)
    for patients in range(13):
        shown = sum(table.probability(x) for x in range(5 - patients, table.limit + 1))
        assert publication_probability(table, promise, patients) == shown


def test_publication_under_strict_and_exact() -> None:
    table = generate(ONE)
    strict = guarantee_for_counts(table, Rule.STRICT, 5, 1, Fraction(1, 10**6))
    exact = guarantee_for_counts(table, Rule.EXACT, 5)
    for patients in range(13):
        expected = table.tail(19 - patients) if patients >= 5 else Fraction(0)
        assert publication_probability(table, strict, patients) == expected
        assert publication_probability(table, exact, patients) == (1 if patients >= 5 else 0)
    assert 0 < publication_probability(table, strict, 5) <= Fraction(1, 10**6)
    assert expected_false_cells(table, strict, 10**6) == expected_false_cells(table, exact, 10**6) == 0


@pytest.mark.parametrize("mantissa", [12, 20])
def test_strict_threshold_with_one_record_per_patient(mantissa: int) -> None:
    table = generate(ONE, 1, mantissa)
    found = [strict_threshold(table, 5, Fraction(1, 10**d), 1) for d in (5, 6, 9, 12)]
    assert found == [17, 19, 26, 33]


@settings(deadline=None, max_examples=80)
@given(
    epsilon=st.sampled_from([Fraction(1, 2), Fraction(1), Fraction(3)]),
    k=st.integers(1, 20),
    cap=st.integers(1, 12),
    exponent=st.integers(0, 30),
)
def test_strict_threshold_is_the_smallest(epsilon: Fraction, k: int, cap: int, exponent: int) -> None:
    table = table_for_counts(epsilon, cap)
    delta = Fraction(9, 10 ** (exponent + 1))
    tau = strict_threshold(table, k, delta, cap)
    # The worst cell that one patient makes appear: k patients with all their records in it.
    assert table.tail(tau - k * cap) <= delta / cap
    assert tau == k or table.tail(tau - 1 - k * cap) > delta / cap
    promise = guarantee_for_counts(table, Rule.STRICT, k, cap, delta)
    assert publication_probability(table, promise, k, k * cap) <= delta / cap
    assert publication_probability(table, promise, k - 1, (k - 1) * cap) == 0


def strict_pmf(
    table: NoiseTable, patients: int, records: int, k: int, tau: int
) -> dict[int | None, Fraction]:
    """The distribution of what one cell shows under ``strict``; None is suppressed."""
    if patients < k:
        return {None: ONE}
    shown: dict[int | None, Fraction] = {
        records + x: table.probability(x) for x in range(max(-table.limit, tau - records), table.limit + 1)
    }
    return {**shown, None: 1 - sum(shown.values(), Fraction(0))}


def divergence(
    left: dict[int | None, Fraction], right: dict[int | None, Fraction], factor: Fraction
) -> Fraction:
    return sum(
        (max(Fraction(0), p - factor * right.get(y, Fraction(0))) for y, p in left.items()), Fraction(0)
    )


@pytest.mark.parametrize("epsilon", [Fraction(1), Fraction(4)])
@pytest.mark.parametrize("cap", [1, 2, 3])
def test_strict_keeps_epsilon_and_delta_in_one_cell(epsilon: Fraction, cap: int) -> None:
    """Outcome by outcome, for every small cell and every contribution of the patient who differs."""
    k, delta = 3, Fraction(1, 1000)
    table = table_for_counts(epsilon, cap)
    promise = guarantee_for_counts(table, Rule.STRICT, k, cap, delta)
    assert promise.least_shown is not None and promise.delta is not None
    worst = Fraction(0)
    for patients, added in product(range(k - 1, k + 2), range(1, cap + 1)):
        for records in {patients, patients * cap}:
            smaller = strict_pmf(table, patients, records, k, promise.least_shown)
            larger = strict_pmf(table, patients + 1, records + added, k, promise.least_shown)
            factor = exponential_bounds(table.epsilon * added)[0]
            worst = max(worst, divergence(larger, smaller, factor), divergence(smaller, larger, factor))
    assert worst <= delta / cap + promise.truncation_delta <= promise.delta


def test_strict_with_the_crossing_patients_records_alone_would_break_delta() -> None:
    """The bound counts the records of all k patients; a tau from one patient's records is too low."""
    k, cap, delta = 5, 4, Fraction(1, 10**6)
    table = table_for_counts(ONE, cap)
    low = next(tau for tau in range(200) if table.tail(tau - k - cap + 1) <= delta / cap)
    assert low < strict_threshold(table, k, delta, cap)
    assert table.tail(low - k * cap) > 10 * delta / cap


@settings(deadline=None, max_examples=40)
@given(epsilon=st.decimals("0.01", "10", places=2).map(Fraction), cap=st.integers(1, 500))
def test_a_whole_release_costs_epsilon_once(epsilon: Fraction, cap: int) -> None:
    table = table_for_counts(epsilon, cap)
    assert (table.epsilon, table.largest_change) == (epsilon / cap, cap)
    promise = guarantee_for_counts(table, Rule.NOISY, 5, cap)
    assert promise.epsilon == epsilon
    assert promise.delta == promise.truncation_delta == table.truncation_delta <= Fraction(1, 2**64)


def test_guarantee_in_words() -> None:
    table = generate(ONE)
    noisy = guarantee_for_counts(table, Rule.NOISY, 5)
    assert "epsilon = 1, delta <= 2^-93" in noisy.statement()
    assert "one patient at one silo" in noisy.statement()
    strict = guarantee_for_counts(table, Rule.STRICT, 5, 1, Fraction(1, 10**6))
    assert strict.delta == Fraction(1, 10**6) + table.truncation_delta
    assert "shown from 19" in strict.statement() and "0.000001 + 2^-93" in strict.statement()
    exact = guarantee_for_counts(table, Rule.EXACT, 5)
    assert exact.delta is None and not exact.differentially_private
    assert NOT_PRIVATE in exact.statement() and "delta <=" not in exact.statement()
    many = guarantee_for_counts(table_for_counts(Fraction(1, 2), 3), Rule.NOISY, 5, 3)
    assert "up to 3 records" in many.unit
    assert many.as_fields()["epsilon"] == "0.5"


def test_a_patient_at_two_silos() -> None:
    table = generate(ONE)
    noisy = guarantee_for_counts(table, Rule.NOISY, 5)
    assert noisy.at_silos(1) == (ONE, noisy.delta)
    epsilon, delta = noisy.at_silos(2)
    assert epsilon == 2 and delta is not None
    # The bound covers what truncation costs when the cell changes by 2.
    assert table.tail(table.limit - 1) <= delta < Fraction(1, 2**91)
    assert guarantee_for_counts(table, Rule.EXACT, 5).at_silos(3) == (Fraction(3), None)
    with pytest.raises(DocumentError):
        noisy.at_silos(0)


def test_refusals() -> None:
    table = generate(ONE, 2)
    promise = guarantee_for_counts(table, Rule.NOISY, 5, 2)
    small = Fraction(1, 10**6)
    for call in (
        lambda: table_for_counts(ONE, 0),
        lambda: guarantee_for_counts(table, Rule.NOISY, 0),
        lambda: guarantee_for_counts(table, Rule.NOISY, 5, 3),
        lambda: guarantee_for_counts(table, Rule.NOISY, 5, 0),
        lambda: guarantee_for_counts(table, Rule.STRICT, 5),
        lambda: guarantee_for_counts(table, Rule.NOISY, 5, 1, small),
        lambda: guarantee_for_counts(table, Rule.EXACT, 5, 1, small),
        lambda: strict_threshold(table, 5, Fraction(0), 1),
        lambda: strict_threshold(table, 5, ONE, 1),
        lambda: publication_probability(table, promise, -1),
        lambda: publication_probability(table, promise, 2, 1),
        lambda: publication_probability(table, promise, 2, 5),
        lambda: expected_false_cells(table, promise, -1),
    ):
        with pytest.raises(DocumentError):
            call()
