"""Intervals of counts and proportions: reference tables, exact coverage under noise, edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.intervals import (
    PoissonMethod,
    count_estimate,
    poisson_interval,
    proportion_estimate,
    proportion_interval,
)

REFERENCES = Path(__file__).parents[2] / "data" / "references" / "asr"
METHODS: tuple[PoissonMethod, ...] = ("exact", "byar", "byar-exact", "score")


def discrete_laplace(epsilon: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Support, probabilities and variance of discrete Laplace noise."""
    q, reach = np.exp(-epsilon), int(40 / epsilon)
    support = np.arange(-reach, reach + 1)
    return support, (1 - q) / (1 + q) * q ** np.abs(support), 2 * q / (1 - q) ** 2


def coverage(mean: float, epsilon: float, method: PoissonMethod) -> float:
    """Exact coverage, per cent, of the interval of Poisson(mean) + discrete Laplace noise."""
    events = np.arange(int(mean + 10 * mean**0.5 + 30))
    support, noise, variance = discrete_laplace(epsilon)
    chances = np.convolve(stats.poisson.pmf(events, mean), noise)
    lower, upper = poisson_interval(support[0] + np.arange(len(chances)), method, 0.95, variance)
    return float(100 * chances[(lower <= mean) & (mean <= upper)].sum())


def test_poisson_reference_table() -> None:
    table = pd.read_csv(REFERENCES / "poisson_ci_reference.csv")
    exact = poisson_interval(table.x, "exact")
    # epitools finds the exact limits by a root search that stops at 1e-4; the Poisson tails say the rest.
    np.testing.assert_allclose(exact.lower, table.exact_lo, atol=1e-4)
    np.testing.assert_allclose(exact.upper, table.exact_hi, atol=1e-4)
    some = table.x > 0
    np.testing.assert_allclose(stats.poisson.sf(table.x - 1, exact.lower)[some], 0.025, rtol=1e-9)
    np.testing.assert_allclose(stats.poisson.cdf(table.x, exact.upper), 0.025, rtol=1e-9)
    byar = poisson_interval(table.x, "byar")
    np.testing.assert_allclose(byar.lower, table.byar_lo, rtol=1e-9, atol=1e-15)
    known = table.byar_hi.notna()
    np.testing.assert_allclose(byar.upper[known], table.byar_hi[known], rtol=1e-9)
    few = table.x < 10
    mixed = poisson_interval(table.x, "byar-exact")
    np.testing.assert_array_equal(mixed.lower, np.where(few, exact.lower, byar.lower))
    np.testing.assert_array_equal(mixed.upper, np.where(few, exact.upper, byar.upper))


def test_binomial_reference_table() -> None:
    table = pd.read_csv(REFERENCES / "binomial_ci_reference.csv")
    wilson = proportion_interval(table.x, table.n, "wilson")
    np.testing.assert_allclose(wilson.lower, table.wilson_lo, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(wilson.upper, table.wilson_hi, rtol=1e-9)
    exact = proportion_interval(table.x, table.n, "clopper-pearson")
    np.testing.assert_allclose(exact.lower, table.cp_lo, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(exact.upper, table.cp_hi, rtol=1e-9)
    np.testing.assert_allclose(
        proportion_interval(7, 7, "clopper-pearson"), (0.025 ** (1 / 7), 1.0), rtol=1e-12
    )


def test_score_interval_solves_its_equation() -> None:
    z, variance = 1.959963984540054, 1.841347871
    for x in (0.0, 3.0, 57.0):
        for limit in poisson_interval(x, "score", 0.95, variance):
            if limit > 0:
                assert (x - limit) ** 2 == pytest.approx(z**2 * (limit + variance), rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("epsilon", [1.0, 0.6, 0.3, 0.1])
def test_coverage_with_noise_holds_from_twenty(method: PoissonMethod, epsilon: float) -> None:
    for mean in (20.0, 30.0, 50.0, 200.0, 1000.0):
        assert 92 <= coverage(mean, epsilon, method) <= 98, mean


def test_ignoring_the_noise_would_not_cover() -> None:
    events, (support, noise, _) = np.arange(150), discrete_laplace(0.1)
    chances = np.convolve(stats.poisson.pmf(events, 50), noise)
    lower, upper = poisson_interval(np.maximum(support[0] + np.arange(len(chances)), 0), "exact")
    assert chances[(lower <= 50) & (upper >= 50)].sum() < 0.75


@given(
    x=st.floats(0, 1e6),
    more=st.floats(0, 1e4),
    variance=st.floats(0, 1e6),
    extra=st.floats(0, 1e6),
    method=st.sampled_from(METHODS),
)
def test_noise_only_widens_and_limits_ascend(
    x: float, more: float, variance: float, extra: float, method: PoissonMethod
) -> None:
    narrow = poisson_interval(x, method, 0.95, variance)
    wide = poisson_interval(x, method, 0.95, variance + extra)
    slack = 1e-9 * (1 + x)
    assert 0 <= wide.lower <= narrow.lower + slack
    assert narrow.upper <= wide.upper + slack
    assert narrow.lower <= x + slack
    assert x <= narrow.upper + slack
    if method != "byar-exact":  # that one changes its formula at 10
        further = poisson_interval(x + more, method, 0.95, 0.0)
        plain = poisson_interval(x, method, 0.95, 0.0)
        assert further.upper >= plain.upper - 1e-9 * (1 + x + more)
        assert further.lower >= plain.lower - 1e-9 * (1 + x + more)


@given(n=st.integers(1, 5000), part=st.floats(0, 1), variance=st.floats(0, 500))
def test_noise_only_widens_proportions(n: int, part: float, variance: float) -> None:
    x = round(n * part)
    for method in ("wilson", "clopper-pearson"):
        plain = proportion_interval(x, n, method)  # type: ignore[arg-type]
        noisy = proportion_interval(x, n, method, noise_variance=variance)  # type: ignore[arg-type]
        assert -1e-12 <= noisy.lower <= plain.lower + 1e-9
        assert plain.upper - 1e-9 <= noisy.upper <= 1 + 1e-12


def test_proportion_with_noise_on_both_covers() -> None:
    seed = 71
    print("seed", seed)
    rng = np.random.default_rng(seed)
    chance = 1 - np.exp(-0.5)
    noise = rng.geometric(chance, (2, 20_000)) - rng.geometric(chance, (2, 20_000))
    _, _, variance = discrete_laplace(0.5)
    x, rest = rng.binomial(200, 0.15, 20_000), 0
    rest = 200 - x
    part, whole = x + noise[0], x + rest + noise[0] + noise[1]
    for method in ("wilson", "clopper-pearson"):
        lower, upper = proportion_interval(
            part,
            whole,
            method,  # type: ignore[arg-type]
            noise_variance=variance,
            denominator_variance=2 * variance,
            noise_covariance=variance,
        )
        assert 0.92 <= np.mean((lower <= 0.15) & (upper >= 0.15)) <= 0.98


def test_edges_are_flagged() -> None:
    counts = count_estimate([-3.0, 0.0, np.nan], noise_variance=2.0)
    assert list(counts.flag) == ["ok", "ok", "c"]
    assert counts.value[0] == -3
    assert counts.lower[0] == 0 < counts.upper[0] == counts.upper[1]
    assert np.isnan(counts.upper[2])
    shares = proportion_estimate(
        [3.0, np.nan, 1.0, 0.0],
        [-1.0, 5.0, 2.0, 0.0],
        noise_variance=2.0,
        denominator_variance=[2.0, 2, 2, 0],
    )
    assert list(shares.flag) == ["x", "c", "ok", "z"]
    assert proportion_estimate(7.0, 5.0, noise_variance=2.0).value == pytest.approx(1.4)


def test_bad_input_is_refused() -> None:
    bad = [
        lambda: poisson_interval(-1),
        lambda: poisson_interval(1, level=1.0),
        lambda: poisson_interval(1, noise_variance=-1),
        lambda: poisson_interval(1, noise_variance=np.nan),
        lambda: poisson_interval(1, "guess"),  # type: ignore[arg-type]
        lambda: poisson_interval([1, 2], noise_variance=[1, 2, 3]),
        lambda: poisson_interval("many"),
        lambda: poisson_interval(np.inf),
        lambda: proportion_interval(3, 2),
        lambda: proportion_interval(1, 2, "wald"),  # type: ignore[arg-type]
    ]
    for call in bad:
        with pytest.raises(DocumentError):
            call()
