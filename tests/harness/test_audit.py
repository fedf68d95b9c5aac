"""The audit: it convicts wrong noise, does not convict right noise, and sees nearly all of ε."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mpc_engine.dp.noise_table import Coin, NoiseTable, generate
from mpc_engine.errors import IntegrityError
from mpc_engine.harness.audit import (
    LEVEL,
    audit,
    best_accuracy,
    event_sets,
    exact,
    guesses,
    one_run,
    paired_count,
)
from mpc_engine.harness.checks import privacy
from mpc_engine.harness.noise_law import law_of
from mpc_engine.scenario.expectations import Audit
from tests.harness.privacy_runs import drawn, made_up, text_of
from tests.world import TABLE

CELLS = 500_000
DELTA = float(TABLE.truncation_delta)


def values(truth: np.ndarray, noise: np.ndarray, least: int = 5) -> np.ndarray:
    """Return what is shown of counts with noise."""
    noisy = truth + noise
    return np.where(noisy >= least, noisy, np.nan)


def sample(table: NoiseTable, seed: int, cells: int = CELLS) -> tuple[np.ndarray, np.ndarray]:
    law = law_of(table)
    chances = law.chances / law.chances.sum()
    return tuple(np.random.default_rng([seed, i]).choice(law.support, cells, p=chances) for i in (0, 1))  # type: ignore[return-value]


def bounds(noise: tuple[np.ndarray, np.ndarray], count: int = 5) -> tuple[float, float]:
    """Return both bounds for as many cells of `count` as of one more."""
    zeros = np.zeros_like(noise[0])
    one, two = values(zeros + count, noise[0]), values(zeros + count + 1, noise[1])
    right = (~guesses(one, count)).sum() + guesses(two, count).sum()
    found = event_sets(one, two, count, DELTA)
    return found.epsilon, one_run(int(right), one.size + two.size, DELTA).epsilon


@pytest.mark.parametrize("count", [4, 5, 9])
def test_right_noise_is_not_convicted_and_nearly_all_of_epsilon_is_seen(count: int) -> None:
    events, guessed = bounds(sample(TABLE, 1), count)
    assert 0.9 <= events <= 1
    assert guessed <= 1
    if count != 4:
        assert guessed >= 0.9  # at 4 a guess misses every suppressed patient


def test_half_the_scale_is_convicted_by_both() -> None:
    events, guessed = bounds(sample(generate(Fraction(2)), 2))
    assert events > 1.8
    assert guessed > 1.8


def test_a_sign_that_is_always_plus_is_convicted_by_events_alone() -> None:
    one, two = sample(TABLE, 3)
    events, guessed = bounds((np.abs(one), np.abs(two)))
    assert events > 3
    assert guessed <= 1.3


def test_no_noise_is_convicted_by_both() -> None:
    zeros = np.zeros(1_000, np.int64)
    events, guessed = bounds((zeros, zeros))
    assert events > 3
    assert guessed > 3


def test_a_wrong_coin_is_convicted() -> None:
    """Zero twice as often as it should be."""
    law = law_of(TABLE)
    chances = law.chances.copy()
    chances[law.limit] *= 2
    chances /= chances.sum()
    generator = np.random.default_rng(4)
    events, _ = bounds(tuple(generator.choice(law.support, CELLS, p=chances) for _ in range(2)))  # type: ignore[arg-type]
    assert events > 1.1


def test_false_alarms_are_as_rare_as_the_level_says() -> None:
    """At a level of 5 % no more than 5 % of a thousand audits of right noise may convict it."""
    law = law_of(TABLE)
    chances = law.chances / law.chances.sum()
    noise = np.random.default_rng(5).choice(law.support, (600, 2, 400), p=chances)
    alarms = [0, 0]
    for one, two in noise:
        shown = values(5 + 0 * one, one), values(6 + 0 * two, two)
        right = int((~guesses(shown[0], 5)).sum() + guesses(shown[1], 5).sum())
        alarms[0] += event_sets(*shown, 5, DELTA, 0.05).epsilon > 1
        alarms[1] += one_run(right, 800, DELTA, 0.05).epsilon > 1
    assert max(alarms) <= stats.binom.isf(1e-4, 600, 0.05)
    assert alarms[1] >= 5  # guessing attains the bound, so the level is used


@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.05, 1e-6]))
def test_one_run_is_the_least_epsilon_not_rejected(tried: int, share: float, level: float) -> None:
    """Oracle: search for ε at which P(Bin(r, e^ε/(1+e^ε)) ≥ right) is the level."""
    right = round(share * tried)
    found = one_run(right, tried, 0.0, level).epsilon
    tail = float(stats.binom.sf(right - 1, tried, best_accuracy(found)))
    if found == 0:
        assert tail >= level * (1 - 1e-6)
    else:
        assert tail == pytest.approx(level, rel=1e-6)


def test_a_delta_too_large_leaves_no_bound() -> None:
    assert one_run(100, 100, 1.0).epsilon == 0
    assert event_sets(np.full(100, 5.0), np.full(100, 9.0), 5, 1.0).epsilon == 0
    assert event_sets(np.full(100, np.nan), np.full(100, np.nan), 5, 0.0).epsilon == 0


def test_exact_bounds_are_those_of_all_probabilities() -> None:
    for table in (TABLE, generate(Fraction(1, 3), 2)):
        found = exact(table)
        chances = [table.probability(x) for x in range(-table.limit, table.limit + 1)]
        ratios = [log(a / b) for a, b in pairwise(chances)]
        assert found.epsilon == pytest.approx(max(map(abs, ratios)), abs=1e-12)
        assert found.epsilon <= float(table.epsilon) == float(found.stated)
        assert found.coins == table.K + 1
        assert found.deviation**2 == pytest.approx(
            float(sum(p * x * x for p, x in zip(chances, range(-table.limit, table.limit + 1), strict=True)))
        )
        assert (
            2.0**found.delta_log2
            >= float(sum(chances[-table.largest_change :]))
            > 2.0 ** (found.delta_log2 - 1)
        )


def test_a_table_that_breaks_its_promise_has_no_exact_bounds() -> None:
    wrong = NoiseTable(TABLE.epsilon, 1, 12, TABLE.magnitude, Coin(1, 4))
    with pytest.raises(IntegrityError):
        exact(wrong)


def test_which_counts_are_compared() -> None:
    assert paired_count(np.array([5, 6, 5, 6, 9, 9, 9, 10])) == 5
    assert paired_count(np.array([0, 1, -3])) == 0
    with pytest.raises(LookupError):
        paired_count(np.array([3, 3, 7]))


def test_the_best_accuracy_is_that_of_the_ideal_noise() -> None:
    assert best_accuracy(1.0) == pytest.approx(exp(1) / (1 + exp(1)))
    assert best_accuracy(1.0) == pytest.approx(float(TABLE.tail(0)), abs=2e-4)


def counts_of(cells: int, seed: int = 6) -> dict[str, np.ndarray]:
    whole = 5 + np.random.default_rng(seed).integers(0, 2, cells)
    one = np.random.default_rng(seed + 1).binomial(whole, 0.5)
    return {"one": one, "two": whole - one}


def test_the_check_tells_both_ways(tmp_path: Path) -> None:
    expectation = Audit(kind="audit", power=0.5)
    run = made_up(tmp_path, [counts_of(4_000)], drawn(TABLE, 7))
    right = privacy.audit_of(run, expectation)
    assert all(verdict.holds for verdict in right), text_of(right)
    assert "guesses" not in right[0].found  # nobody tossed coins in this scenario
    run = made_up(tmp_path, [counts_of(4_000)], lambda number, cells: np.zeros(cells, np.int64))
    assert [verdict.holds for verdict in privacy.audit_of(run, expectation)] == [False, True]
    run = made_up(tmp_path, [counts_of(4_000)], drawn(generate(Fraction(1, 3)), 8))
    assert [verdict.holds for verdict in privacy.audit_of(run, expectation)] == [True, False]


def test_an_audited_tally_knows_what_it_was(tmp_path: Path) -> None:
    run = made_up(tmp_path, [counts_of(2_000)], drawn(TABLE, 9))
    line = privacy.plan_of(run, run.asked[0]).lines[0]
    truth = sum(counts_of(2_000).values())
    found = audit(privacy.opened_values(run.asked[0])[0], truth, line, coins=True)
    assert found.count == 5
    assert found.without + found.holding == 2_000
    assert found.level == LEVEL
    assert found.one_run is not None
    assert found.epsilon == max(found.events.epsilon, found.one_run.epsilon)
