"""Means against the ages of the Wilms tumour patients, and their coverage under noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.means import moments

REFERENCES = Path(__file__).parents[2] / "data" / "references" / "nwtco"
BOUNDS = (0.0, 239.0)
CENTRE, REACH = 120, 120


def variance_of_noise(epsilon: float) -> float:
    """Variance of discrete Laplace noise."""
    return float(2 * np.exp(-epsilon) / (1 - np.exp(-epsilon)) ** 2)


def ages(repetitions: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Ages in months drawn from the published histogram in 12-month bins, evenly within a bin."""
    table = pd.read_csv(REFERENCES / "hist_age_12m_study.csv")
    weights = table.groupby("age_months", sort=False).n.sum().to_numpy()[:16]
    return 12 * rng.choice(16, (repetitions, n), p=weights / weights.sum()) + rng.integers(
        0, 12, (repetitions, n)
    )


@pytest.mark.parametrize("centre", [0, 120])
def test_reference_moments(centre: int) -> None:
    table = pd.read_csv(REFERENCES / "age_months_moments.csv")
    total = table["sum"] - centre * table.n
    squares = table.sumsq - 2 * centre * table["sum"] + centre**2 * table.n
    result = moments(table.n, total, squares=squares, centre=centre, bounds=BOUNDS)
    np.testing.assert_allclose(result.mean.value, table["mean"], rtol=1e-9)
    np.testing.assert_allclose(result.variance, table["var"], rtol=1e-9)
    np.testing.assert_allclose(result.sd, table["sd"], rtol=1e-9)
    reach = stats.t.ppf(0.975, table.n - 1) * table.sd / np.sqrt(table.n)
    np.testing.assert_allclose(result.mean.lower, table["mean"] - reach, rtol=1e-9)
    np.testing.assert_allclose(result.mean.upper, table["mean"] + reach, rtol=1e-9)
    normal = moments(table.n, total, squares=squares, centre=centre, bounds=BOUNDS, method="normal")
    np.testing.assert_allclose(
        normal.mean.upper - table["mean"], 1.959963984540054 * table.sd / np.sqrt(table.n), rtol=1e-9
    )


@pytest.mark.parametrize("n", [100, 300])
def test_coverage_with_noise(n: int) -> None:
    seed = 100 + n
    print("seed", seed)
    rng = np.random.default_rng(seed)
    x = ages(10_000, n, rng)
    truth = ages(1, 2_000_000, rng).mean()
    u = x - CENTRE
    epsilons = {"n": 0.2, "total": 0.4 / REACH, "squares": 0.4 / REACH**2}
    noise = {}
    for name, epsilon in epsilons.items():
        p = -np.expm1(-epsilon)
        noise[name] = rng.geometric(p, len(x)) - rng.geometric(p, len(x))
    for with_squares in (True, False):
        result = moments(
            n + noise["n"],
            u.sum(axis=1) + noise["total"],
            squares=(u**2).sum(axis=1) + noise["squares"] if with_squares else None,
            centre=CENTRE,
            bounds=BOUNDS,
            n_variance=variance_of_noise(epsilons["n"]),
            total_variance=variance_of_noise(epsilons["total"]),
            squares_variance=variance_of_noise(epsilons["squares"]) if with_squares else 0,
        ).mean
        covered = np.mean((result.lower <= truth) & (truth <= result.upper))
        if with_squares:
            assert 0.92 <= covered <= 0.98
        else:
            assert covered > 0.98
            assert result.method == "t, bound"


def test_variance_is_unbiased_under_noise() -> None:
    seed = 8
    print("seed", seed)
    rng = np.random.default_rng(seed)
    epsilon = 2 / REACH
    p = -np.expm1(-epsilon)
    x = rng.integers(30, 50, 200) - CENTRE
    noise = rng.geometric(p, 40_000) - rng.geometric(p, 40_000)
    # The centre is far from the ages, so that neither bound of the variance is ever reached.
    result = moments(
        200,
        x.sum() + noise,
        squares=(x**2).sum() + 200 * 1000,
        centre=CENTRE,
        bounds=BOUNDS,
        total_variance=variance_of_noise(epsilon),
    )
    assert (result.variance > 0).all()
    expected = (((x**2).sum() + 200 * 1000) - x.sum() ** 2 / 200) / 199
    assert result.variance.mean() == pytest.approx(expected, abs=5 * result.variance.std() / 200)
    assert result.variance_se_noise.mean() == pytest.approx(result.variance.std(), rel=0.05)


@given(
    values=st.lists(st.integers(0, 239), min_size=3, max_size=40),
    noise=st.tuples(st.floats(0.01, 50), st.floats(0.01, 1e5), st.floats(0, 1e3)),
)
def test_noise_of_sum_and_count_only_widens(values: list[int], noise: tuple[float, float, float]) -> None:
    u = np.array(values) - CENTRE
    sums = (len(u), int(u.sum()))
    plain = moments(*sums, centre=CENTRE, bounds=BOUNDS)
    noisy = moments(*sums, centre=CENTRE, bounds=BOUNDS, n_variance=noise[0], total_variance=noise[1])
    assert noisy.mean.lower <= plain.mean.lower + 1e-9
    assert noisy.mean.upper >= plain.mean.upper - 1e-9
    assert BOUNDS[0] <= noisy.mean.lower <= noisy.mean.upper <= BOUNDS[1]
    known = moments(*sums, squares=int((u**2).sum()), centre=CENTRE, bounds=BOUNDS)
    assert known.mean.se_sampling <= plain.mean.se_sampling * (1 + 1e-9) + 1e-9
    assert known.mean.value == pytest.approx(np.mean(values))
    assert known.variance == pytest.approx(np.var(values, ddof=1), abs=1e-6)


@pytest.mark.parametrize("n", [10, 30, 60])
def test_a_spread_drowned_in_noise_is_not_available(n: int) -> None:
    seed = 300 + n
    print("seed", seed)
    rng = np.random.default_rng(seed)
    x = ages(4_000, n, rng)
    truth = ages(1, 2_000_000, rng).mean()
    u = x - CENTRE
    epsilons = {"n": 0.25, "total": 0.5 / REACH, "squares": 0.25 / REACH**2}
    noise = {
        name: rng.geometric(-np.expm1(-each), len(x)) - rng.geometric(-np.expm1(-each), len(x))
        for name, each in epsilons.items()
    }
    found = moments(
        n + noise["n"],
        u.sum(axis=1) + noise["total"],
        squares=(u**2).sum(axis=1) + noise["squares"],
        centre=CENTRE,
        bounds=BOUNDS,
        n_variance=variance_of_noise(epsilons["n"]),
        total_variance=variance_of_noise(epsilons["total"]),
        squares_variance=variance_of_noise(epsilons["squares"]),
    )
    usable = found.mean.flag == "ok"
    assert 0.1 < found.bound[usable].mean() < 1  # it does happen
    assert np.isnan(found.sd[found.bound]).all() and np.isnan(found.variance[found.bound]).all()
    assert (found.sd[usable & ~found.bound] > 0).all() and (found.mean.se_sampling[usable] > 0).all()
    assert set(found.methods[found.bound]) == {"t, bound"} and set(found.methods[~found.bound]) == {"t"}
    covered = (found.mean.lower <= truth) & (truth <= found.mean.upper)
    assert covered[usable].mean() > 0.93


def test_edges_are_flagged() -> None:
    result = moments(
        [0.0, 1.0, np.nan, -2.0, 5.0], [0.0, 3, 3, 3, 500], squares=[0.0, 9, 9, 9, 50000],
        bounds=BOUNDS, n_variance=[0, 0, 0, 3.0, 3.0],
    )  # fmt: skip
    assert list(result.mean.flag) == ["z", "x", "c", "x", "ok"]
    assert np.isnan(result.mean.value[:4]).all()
    assert np.isnan(result.sd[:4]).all()
    scaled = moments(4, 20, squares=120, scale=0.5, centre=10, bounds=(0, 20))
    assert scaled.mean.value == pytest.approx(12.5)
    assert scaled.variance == pytest.approx(0.25 * 20 / 3)


def test_bad_input_is_refused() -> None:
    bad = [
        lambda: moments(5, 5, bounds=(3, 3)),
        lambda: moments(5, 5, bounds=BOUNDS, scale=0),
        lambda: moments(5, 5, bounds=BOUNDS, method="z"),  # type: ignore[arg-type]
        lambda: moments(-5, 5, bounds=BOUNDS),
        lambda: moments(5, 5, bounds=BOUNDS, total_variance=-1),
        lambda: moments([5, 5], [5, 5, 5], bounds=BOUNDS),
    ]
    for call in bad:
        with pytest.raises(DocumentError):
            call()
