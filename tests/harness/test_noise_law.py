"""Exact distributions of errors and of sums of scores, against binomials and enumeration."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy import stats

from mpc_engine.dp.calibrate import COMPARED_WITHIN, curator_noise, total_variation
from mpc_engine.dp.noise_table import Coin, NoiseTable, generate
from mpc_engine.errors import DocumentError, EngineError
from mpc_engine.harness.alternatives import ideal_variance
from mpc_engine.harness.noise_law import Law, Scores, laplace, law_of, tails, two_sided

COIN = np.array([0, 1])


@pytest.mark.parametrize("epsilon", ["1", "1/2", "3", "1/40"])
def test_a_law_is_its_table(epsilon: str) -> None:
    table = generate(Fraction(epsilon))
    law = law_of(table)
    assert law.limit == table.limit and law.chances.sum() == pytest.approx(1, abs=1e-12)
    for x in (-table.limit, -2, -1, 0, 1, 5, table.limit):
        assert law.chances[x + law.limit] == pytest.approx(float(table.probability(x)), rel=1e-12)
        assert law.at_least(np.array([x]))[0] == pytest.approx(float(table.tail(x)), rel=1e-9)
    assert law.deviation**2 == pytest.approx(float(table.variance), rel=1e-9)
    assert law.at_least(np.array([-(10**6), 10**6])).tolist() == [pytest.approx(1), 0.0]


def test_given_that_a_value_is_shown() -> None:
    law = law_of(generate(Fraction(1)))
    start = int(law.from_on(np.array([3]))[0])
    given = law.given(start)
    assert given.sum() == pytest.approx(1) and not given[: law.limit + 3].any()
    assert law.size_at_least(np.array([3]))[0] == pytest.approx(
        float(given @ np.abs(law.support)) * law.at_least(np.array([3]))[0]
    )


@pytest.mark.parametrize("number", [1, 7, 50, 2_000])
def test_sums_of_coins_are_binomial(number: int) -> None:
    chance = 0.3
    binomial = stats.binom(number, chance)
    for found in {0, number // 5, number // 3, number // 2, number}:
        below, above = tails([Scores(COIN, np.array([1 - chance, chance]), number)], found)
        assert below == pytest.approx(binomial.cdf(found), abs=1e-12)
        assert above == pytest.approx(binomial.sf(found - 1), abs=1e-12)


def test_unlike_scores_add_up_as_by_enumeration() -> None:
    one = Scores(np.array([-7, 0, 2]), np.array([0.2, 0.3, 0.5]), 2)
    two = Scores(np.array([100, 103]), np.array([0.9, 0.1]), 3)
    outcomes = [(each.values, each.chances) for each in (one, two) for _ in range(each.times)]
    chances: dict[int, float] = {}
    for places in product(*(range(values.size) for values, _ in outcomes)):
        total = sum(int(values[at]) for at, (values, _) in zip(places, outcomes, strict=True))
        chance = float(np.prod([p[at] for at, (_, p) in zip(places, outcomes, strict=True)]))
        chances[total] = chances.get(total, 0.0) + chance
    for found in (*chances, 0, 290, 10**6):
        below, above = tails([one, two], found)
        assert below == pytest.approx(sum(p for x, p in chances.items() if x <= found), abs=1e-12)
        assert above == pytest.approx(sum(p for x, p in chances.items() if x >= found), abs=1e-12)
    assert two_sided([one, two], 10**6) == 0.0


def test_a_million_values_are_tested_at_once() -> None:
    law = law_of(generate(Fraction(1)))
    scores = Scores(law.support, law.chances, 1_000_000)
    deviation = law.deviation * 1000
    for away in (-5.0, -1.0, 0.0, 3.0):
        below, _ = tails([scores], round(away * deviation))
        assert below == pytest.approx(stats.norm.cdf(away), rel=2e-2, abs=1e-9)


def test_noise_of_several_sites_is_the_sum_of_draws() -> None:
    law = laplace(1.0)
    assert law.deviation**2 == pytest.approx(ideal_variance(1.0), rel=1e-9)
    assert law.times(5).deviation == pytest.approx(5**0.5 * law.deviation, rel=1e-9)
    assert law.times(2).chances[2 * law.limit] == pytest.approx(float((law.chances**2).sum()))


@pytest.mark.parametrize("epsilon", ["1", "1/2", "3", "1/40"])
def test_total_variation_is_that_of_floating_point(epsilon: str) -> None:
    table = generate(Fraction(epsilon))
    ideal, law = laplace(float(Fraction(epsilon))), law_of(table)
    width = max(ideal.limit, law.limit)

    def wide(each: Law) -> np.ndarray:
        return np.pad(each.chances, width - each.limit)

    expected = 0.5 * np.abs(wide(law) - wide(ideal)).sum()
    assert float(total_variation(table)) == pytest.approx(expected, rel=1e-6, abs=1e-15)


def test_total_variation_of_a_coin_by_hand() -> None:
    # X = 0 with 1/2, else ±1 or ±2 with 1/8 each; ε = ln 2 nearly: Q(x) = 2^-|x| / 3.
    table = NoiseTable(Fraction(693147, 10**6), 1, 2, (Coin(1, 1),), Coin(1, 1))
    by_hand = (
        Fraction(1, 2)
        - Fraction(1, 3)
        + 2 * (Fraction(1, 6) - Fraction(1, 8))
        + 2 * (Fraction(1, 8) - Fraction(1, 12))
        + 2 * Fraction(1, 12)
    ) / 2
    assert float(total_variation(table)) == pytest.approx(float(by_hand), abs=1e-6)
    assert Fraction(1, 10**30) > COMPARED_WITHIN


def test_a_curators_noise_is_discrete_laplace() -> None:
    draws = curator_noise(Fraction(1), 20_000)
    assert draws.dtype == np.int64 and draws.size == 20_000
    law = laplace(1.0)
    score = [Scores(np.abs(law.support), law.chances, draws.size)]
    assert two_sided(score, int(np.abs(draws).sum())) > 1e-6
    assert two_sided(score, int(2 * np.abs(draws).sum())) < 1e-6
    assert curator_noise(Fraction(1, 100), 0).size == 0


def test_what_cannot_be_drawn_or_written_out_is_refused() -> None:
    with pytest.raises(DocumentError, match="epsilon above 0"):
        curator_noise(Fraction(0), 1)
    with pytest.raises(DocumentError, match="K <= 16"):
        total_variation(generate(Fraction(1, 10_000)))
    with pytest.raises(EngineError, match="22 bits"):
        law_of(generate(Fraction(1, 10**6)))
