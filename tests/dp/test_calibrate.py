"""Second opinions: OpenDP's privacy map and sampler, and the divergence summed outcome by outcome."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import opendp.prelude as opendp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.dp import Coin, generate, table_for_counts
from mpc_engine.dp.calibrate import hockey_stick, opendp_epsilon, second_opinion
from mpc_engine.errors import DocumentError, IntegrityError


@pytest.mark.parametrize(
    ("epsilon", "cap"),
    [("1", 1), ("0.5", 1), ("0.2", 1), ("2", 1), ("5", 1), ("20", 1), ("1", 2), ("1", 10), ("3", 7)],
)
def test_agreement(epsilon: str, cap: int) -> None:
    """The divergence at the release's epsilon is the truncation delta to the last bit."""
    table = table_for_counts(Fraction(epsilon), cap)
    opinion = second_opinion(table)
    assert opinion.epsilon == Fraction(epsilon)
    assert opinion.opendp_epsilon == pytest.approx(float(Fraction(epsilon)), rel=1e-12)
    assert opinion.divergence == table.truncation_delta


@settings(deadline=None, max_examples=30)
@given(epsilon=st.decimals("0.001", "20", places=3).map(Fraction), cap=st.sampled_from([1, 3, 100]))
def test_opendp_has_the_same_epsilon(epsilon: Fraction, cap: int) -> None:
    assert opendp_epsilon(table_for_counts(epsilon, cap)) == pytest.approx(float(epsilon), rel=1e-9)


def test_changes_below_the_cap() -> None:
    table = table_for_counts(Fraction(1), 5)
    for shift in range(1, 6):
        assert hockey_stick(table, shift) == table.tail(table.limit - shift + 1) <= table.truncation_delta


def test_a_wrong_table_is_noticed() -> None:
    table = generate(Fraction(1))
    with pytest.raises(IntegrityError, match="divergence"):
        second_opinion(dataclasses.replace(table, nonzero=Coin(1, 2)))
    with pytest.raises(IntegrityError, match="divergence"):  # half the scale
        second_opinion(dataclasses.replace(generate(Fraction(2)), epsilon=Fraction(1)))


def test_large_tables_are_not_summed() -> None:
    table = table_for_counts(Fraction(1, 1000))
    assert table.K > 12
    assert second_opinion(table).divergence is None
    with pytest.raises(DocumentError):
        hockey_stick(table, 1)
    with pytest.raises(DocumentError):
        hockey_stick(generate(Fraction(1)), 0)


def test_opendps_sampler_draws_from_this_distribution() -> None:
    """40,000 draws of OpenDP's discrete Laplace against the table: chi^2 on 13 bins, failure below 1e-6."""
    opendp.enable_features("contrib")
    space = opendp.vector_domain(opendp.atom_domain(T="i32")), opendp.l1_distance(T="i32")
    draws = opendp.m.make_geometric(*space, scale=1.0)([0] * 40_000)
    table = generate(Fraction(1))
    expected = {x: float(table.probability(x)) * len(draws) for x in range(-5, 6)}
    expected[-6] = expected[6] = float(table.tail(6)) * len(draws)
    seen = dict.fromkeys(expected, 0)
    for x in draws:
        seen[max(-6, min(6, x))] += 1
    statistic = sum((seen[x] - e) ** 2 / e for x, e in expected.items())
    assert statistic < 52.0  # the upper 1e-6 point of chi^2 with 12 degrees of freedom is 50.8


def test_missing_opendp_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opendp.prelude", None)
    with pytest.raises(DocumentError, match="opendp"):
        opendp_epsilon(generate(Fraction(1)))
