"""Rules, thresholds and what a release promises."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.dp import (
    NOT_PRIVATE,
    Allotment,
    Guarantee,
    NoiseTable,
    Part,
    Rule,
    expected_false_cells,
    generate,
    guarantee_for,
    publication_probability,
    split,
    strict_threshold,
    table_for_counts,
)
from mpc_engine.dp.rationals import decimal_text, exponential_bounds
from mpc_engine.errors import DocumentError, IntegrityError

ONE = Fraction(1)
CELLS = [Part("cells")]
"""One part: cells that are their own guards."""
SMALL = Fraction(1, 10**6)


def table_of(promise: Guarantee) -> NoiseTable:
    """Return the noise of a release of one part."""
    (allotment,) = promise.allotments
    return allotment.table


@pytest.mark.parametrize("mantissa", [12, 20])
def test_publication_under_noisy_at_epsilon_1(mantissa: int) -> None:
    """k = 5, per cent, to the digits usually printed for discrete Laplace."""
    table = generate(ONE, 1, mantissa)

    def with_this_table(k: int) -> Guarantee:
        return Guarantee(Rule.NOISY, k, 1, ONE, (Allotment(Part("cells"), ONE, table, Fraction(0), k),))

    promise = with_this_table(5)
    printed = {0: "0.49", 1: "1.3", 2: "3.6", 3: "9.9", 4: "26.9", 5: "73.1", 6: "90.1", 7: "96.4", 8: "98.7"}
    for patients, text in {**printed, 10: "99.8"}.items():
        half_a_digit = Fraction(1, 2 * 10 ** len(text.split(".")[1]))
        found = 100 * publication_probability(promise, patients)
        assert abs(found - Fraction(text)) <= half_a_digit, patients
    assert abs(100 * publication_probability(with_this_table(8), 0) - Fraction("0.025")) < Fraction(1, 2000)
    assert Fraction(49, 10) < expected_false_cells(promise, 1000) < 5
    assert expected_false_cells(promise, 0) == 0


def test_publication_is_the_tail_of_the_table() -> None:
    promise = guarantee_for(ONE, CELLS, Rule.NOISY, 5)
    table = table_of(promise)
    assert table == generate(ONE)
    for patients in range(13):
        shown = sum(table.probability(x) for x in range(5 - patients, table.limit + 1))
        assert publication_probability(promise, patients) == shown


def test_publication_under_strict_and_exact() -> None:
    table = generate(ONE)
    strict = guarantee_for(ONE, CELLS, Rule.STRICT, 5, 1, SMALL)
    exact = guarantee_for(ONE, CELLS, Rule.EXACT, 5)
    for patients in range(13):
        expected = table.tail(19 - patients) if patients >= 5 else Fraction(0)
        assert publication_probability(strict, patients) == expected
        assert publication_probability(exact, patients) == (1 if patients >= 5 else 0)
    assert 0 < publication_probability(strict, 5) <= Fraction(1, 10**6)
    assert expected_false_cells(strict, 10**6) == expected_false_cells(exact, 10**6) == 0


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
    promise = guarantee_for(epsilon, CELLS, Rule.STRICT, k, cap, delta)
    assert table_of(promise) == table and promise.allotments[0].least_shown == tau
    assert publication_probability(promise, k, k * cap) <= delta / cap
    assert publication_probability(promise, k - 1, (k - 1) * cap) == 0


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
    promise = guarantee_for(epsilon, CELLS, Rule.STRICT, k, cap, delta)
    table, tau = table_of(promise), promise.allotments[0].least_shown
    assert tau is not None and promise.delta is not None
    worst = Fraction(0)
    for patients, added in product(range(k - 1, k + 2), range(1, cap + 1)):
        for records in {patients, patients * cap}:
            smaller = strict_pmf(table, patients, records, k, tau)
            larger = strict_pmf(table, patients + 1, records + added, k, tau)
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
    promise = guarantee_for(epsilon, CELLS, Rule.NOISY, 5, cap)
    assert promise.epsilon == epsilon and table_of(promise) == table
    assert promise.delta == promise.truncation_delta == table.truncation_delta <= Fraction(1, 2**64)


def test_guarantee_in_words() -> None:
    table = generate(ONE)
    noisy = guarantee_for(ONE, CELLS, Rule.NOISY, 5)
    assert "epsilon = 1, delta <= 2^-93" in noisy.statement()
    assert "one patient at one silo" in noisy.statement()
    strict = guarantee_for(ONE, CELLS, Rule.STRICT, 5, 1, SMALL)
    assert strict.delta == Fraction(1, 10**6) + table.truncation_delta
    assert "shown from 19" in strict.statement() and "0.000001 + 2^-93" in strict.statement()
    exact = guarantee_for(ONE, CELLS, Rule.EXACT, 5)
    assert exact.delta is None and not exact.differentially_private
    assert NOT_PRIVATE in exact.statement() and "delta <=" not in exact.statement()
    many = guarantee_for(Fraction(1, 2), CELLS, Rule.NOISY, 5, 3)
    assert "up to 3 records" in many.unit
    assert many.as_fields()["epsilon"] == "0.5"


def test_a_patient_at_two_silos() -> None:
    noisy = guarantee_for(ONE, CELLS, Rule.NOISY, 5)
    table = table_of(noisy)
    assert noisy.at_silos(1) == (ONE, noisy.delta)
    epsilon, delta = noisy.at_silos(2)
    assert epsilon == 2 and delta is not None
    # The bound covers what truncation costs when the cell changes by 2.
    assert table.tail(table.limit - 1) <= delta < Fraction(1, 2**91)
    assert guarantee_for(ONE, CELLS, Rule.EXACT, 5).at_silos(3) == (Fraction(3), None)
    with pytest.raises(DocumentError):
        noisy.at_silos(0)


def test_refusals() -> None:
    table = generate(ONE, 2)
    promise = guarantee_for(ONE, CELLS, Rule.NOISY, 5, 2)
    mixed = guarantee_for(ONE, [*CELLS, Part("sums", guard=False)], Rule.NOISY, 5)
    for call in (
        lambda: table_for_counts(ONE, 0),
        lambda: guarantee_for(ONE, CELLS, Rule.NOISY, 0),
        lambda: guarantee_for(ONE, CELLS, Rule.NOISY, 5, 0),
        lambda: guarantee_for(ONE, CELLS, Rule.STRICT, 5),
        lambda: guarantee_for(ONE, CELLS, Rule.NOISY, 5, 1, SMALL),
        lambda: guarantee_for(ONE, CELLS, Rule.EXACT, 5, 1, SMALL),
        lambda: guarantee_for(ONE, [], Rule.NOISY, 5),
        lambda: guarantee_for(ONE, [Part("sums", guard=False)], Rule.NOISY, 5),
        lambda: guarantee_for(ONE, [Part("cells", weight=0)], Rule.NOISY, 5),
        lambda: guarantee_for(ONE, [*CELLS, Part("cells", weight=-1)], Rule.NOISY, 5),
        lambda: guarantee_for(ONE, [Part("cells", step=0)], Rule.NOISY, 5),
        lambda: guarantee_for(Fraction(0), CELLS, Rule.NOISY, 5),
        lambda: strict_threshold(table, 5, SMALL, 3),
        lambda: strict_threshold(table, 0, SMALL, 1),
        lambda: publication_probability(mixed, 5, guard=1),
        lambda: strict_threshold(table, 5, Fraction(0), 1),
        lambda: strict_threshold(table, 5, ONE, 1),
        lambda: publication_probability(promise, -1),
        lambda: publication_probability(promise, 2, 1),
        lambda: publication_probability(promise, 2, 5),
        lambda: expected_false_cells(promise, -1),
    ):
        with pytest.raises(DocumentError):
            call()


# --- several parts ----------------------------------------------------------------------------------

PARTS = st.lists(
    st.builds(
        Part,
        name=st.sampled_from("abc"),
        weight=st.integers(1, 50),
        step=st.sampled_from([1, 2, 120]),
        guard=st.booleans(),
    ),
    min_size=1,
    max_size=5,
).filter(lambda parts: any(part.guard for part in parts))


@given(total=st.fractions(Fraction(1, 1000), 10), weights=st.lists(st.integers(1, 10**6), min_size=1))
def test_a_split_adds_up_exactly_and_is_in_proportion(total: Fraction, weights: list[int]) -> None:
    shares = split(total, weights)
    assert sum(shares) == total
    assert all(
        share * weights[0] == shares[0] * weight for share, weight in zip(shares, weights, strict=True)
    )


def test_a_split_needs_weights_that_are_positive() -> None:
    for weights in ([], [0], [1, 0], [3, -1]):
        with pytest.raises(DocumentError):
            split(ONE, weights)


@settings(deadline=None, max_examples=25)
@given(parts=PARTS, rule=st.sampled_from(list(Rule)), cap=st.integers(1, 3))
def test_every_part_has_its_share_of_epsilon_and_delta(parts: list[Part], rule: Rule, cap: int) -> None:
    delta = SMALL if rule is Rule.STRICT else None
    promise = guarantee_for(ONE, parts, rule, 5, cap, delta)
    weights = sum(part.weight for part in parts)
    guards = sum(part.weight for part in parts if part.guard)
    for part, allotment in zip(parts, promise.allotments, strict=True):
        assert allotment.part is part
        assert allotment.epsilon == Fraction(part.weight, weights)
        assert allotment.table.epsilon == Fraction(part.weight, weights * cap * part.step)
        assert allotment.table.largest_change == cap * part.step
        spent = SMALL * part.weight / guards if delta and part.guard else 0
        assert allotment.strict_delta == spent
        least = {Rule.NOISY: 5, Rule.EXACT: None}.get(rule, 0)
        if not part.guard:
            assert allotment.least_shown is None
        elif rule is Rule.STRICT:
            assert allotment.least_shown == strict_threshold(allotment.table, 5, spent, cap)
        else:
            assert allotment.least_shown == least
    assert sum(each.epsilon for each in promise.allotments) == promise.epsilon == ONE
    truncation = sum(each.table.truncation_delta for each in promise.allotments)
    assert promise.truncation_delta == truncation <= Fraction(1, 2**64)
    assert promise.strict_delta == (delta or 0)
    if rule is Rule.EXACT:
        assert promise.delta is None
    else:
        assert promise.delta == truncation + (delta or 0)


def test_parts_whose_epsilons_do_not_add_up_are_refused() -> None:
    promise = guarantee_for(ONE, [Part("a"), Part("b")], Rule.NOISY, 5)
    for allotments in (promise.allotments[:1], promise.allotments * 2):
        with pytest.raises(IntegrityError, match="another epsilon"):
            Guarantee(Rule.NOISY, 5, 1, ONE, allotments)


def test_the_statement_of_several_parts_names_the_share_of_each() -> None:
    parts = [Part("patients", 3), Part("person-years", 1, 120, guard=False)]
    promise = guarantee_for(ONE, parts, Rule.STRICT, 5, 1, SMALL)
    assert "epsilon = 1 (patients 0.75, person-years 0.25)" in promise.statement()
    assert f"shown from {promise.allotments[0].least_shown}:" in promise.statement()
    fields = promise.as_fields()["split"]
    assert isinstance(fields, list)
    assert [(each["part"], each["epsilon"], each["guard"]) for each in fields] == [
        ("patients", "0.75", True),
        ("person-years", "0.25", False),
    ]
    assert [each["largest_change_per_record"] for each in fields] == [1, 120]
    assert [each["strict_delta"] for each in fields] == [decimal_text(SMALL), "0"]
    assert not any(isinstance(value, float) for each in fields for value in each.values())


def exactly(promise: Guarantee, cells: list[tuple[int, int]]) -> dict[tuple[int | None, ...], Fraction]:
    """The distribution of a group of one guard, given first, and its members, under noisy; None: hidden.

    ``cells`` are (index of the allotment, true value).
    """
    outcomes: dict[tuple[int | None, ...], Fraction] = {(): ONE}
    for place, (index, true) in enumerate(cells):
        table, grown = promise.allotments[index].table, {}
        for outcome, p in outcomes.items():
            for x in range(-table.limit, table.limit + 1):
                grown[(*outcome, true + x)] = p * table.probability(x)
        outcomes = grown
        if place == 0:
            hidden = sum((p for (v,), p in outcomes.items() if v < promise.threshold), Fraction(0))
            outcomes = {o: p for o, p in outcomes.items() if (o[0] or 0) >= promise.threshold} | {
                (None,): hidden
            }
            kept = outcomes.pop((None,))
    outcomes[(None,) * len(cells)] = kept
    return outcomes


@pytest.mark.parametrize("count", [3, 4, 9])
def test_a_guard_and_its_member_keep_epsilon_together(count: int) -> None:
    """One patient more, with the largest value there is: the joint distribution, outcome by outcome."""
    promise = guarantee_for(Fraction(4), [Part("n", 3), Part("sum", 1, 2, guard=False)], Rule.NOISY, 5)
    smaller = exactly(promise, [(0, count), (1, 2 * count)])
    assert promise.delta is not None
    assert sum(smaller.values()) == 1
    factor = exponential_bounds(promise.epsilon)[1]
    for added in (0, 1, 2):
        larger = exactly(promise, [(0, count + 1), (1, 2 * count + added)])
        for one, other in ((larger, smaller), (smaller, larger)):
            found = sum(
                (max(Fraction(0), p - factor * other.get(y, Fraction(0))) for y, p in one.items()),
                Fraction(0),
            )
            assert found <= promise.delta
    # And no less is spent than that: with the shares of one of the two alone it would not hold.
    part = exponential_bounds(promise.allotments[0].epsilon)[1]
    larger = exactly(promise, [(0, count + 1), (1, 2 * count + 2)])
    assert sum(
        (max(Fraction(0), p - part * smaller.get(y, Fraction(0))) for y, p in larger.items()), Fraction(0)
    ) > Fraction(1, 1000)
