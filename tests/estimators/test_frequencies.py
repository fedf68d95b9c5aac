"""Percentages, the test of independence and quantiles of histograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.frequencies import histogram_quantiles, independence_test, percentages
from mpc_engine.estimators.intervals import proportion_interval

REFERENCES = Path(__file__).parents[2] / "data" / "references" / "nwtco"


def stage_by_histology() -> np.ndarray:
    """Wilms tumour patients by stage (rows) and histology (columns)."""
    table = pd.read_csv(REFERENCES / "crosstab_stage_histol_study.csv")
    return table.pivot_table(index="stage", columns="histol", values="n", aggfunc="sum").to_numpy(float)


def discrete_laplace(
    epsilon: float, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Noise and its variance."""
    p = 1 - np.exp(-epsilon)
    return rng.geometric(p, shape) - rng.geometric(p, shape), 2 * (1 - p) / p**2


@pytest.mark.parametrize(("of", "axis"), [("row", 1), ("column", 0), ("total", None)])
def test_percentages(of: str, axis: int | None) -> None:
    table = stage_by_histology()
    base = table.sum(axis=axis, keepdims=True)
    result = percentages(table, of=of)  # type: ignore[arg-type]
    np.testing.assert_allclose(result.value, 100 * table / base)
    wilson = proportion_interval(table, base)
    np.testing.assert_allclose(result.lower, 100 * wilson.lower)
    own = percentages(table, of=of, totals=base.ravel(), totals_variance=3.0, noise_variance=2.0)  # type: ignore[arg-type]
    np.testing.assert_allclose(own.value, result.value)
    p = table / base
    # All cells are shown: total (variance 3) and sum of the cells (2 each) weighted by inverse variances.
    summed = 2.0 * table.size / base.size
    both, share = 1 / (1 / 3 + 1 / summed), 3 / (3 + summed)
    np.testing.assert_allclose(own.se_noise, 100 * np.sqrt(2 - 2 * p * share * 2 + both * p**2) / base)
    off = percentages(table, of=of, totals=base.ravel() + 10, totals_variance=3.0, noise_variance=2.0)  # type: ignore[arg-type]
    np.testing.assert_allclose(off.value, 100 * table / (base + 10 * (1 - share)))
    shared = percentages(table, of=of, noise_variance=2.0)  # type: ignore[arg-type]
    cells = table.size / base.size
    np.testing.assert_allclose(shared.se_noise, 100 * np.sqrt(2 - 4 * p + 2 * cells * p**2) / base)


def test_percentages_of_cells_shown() -> None:
    result = percentages([[30.0, np.nan, 10.0], [0, 0, 0]], of="row")
    np.testing.assert_allclose(result.value[0], [75, np.nan, 25])
    assert list(result.flag[0]) == ["ok", "c", "ok"]
    assert list(result.flag[1]) == ["z"] * 3


def test_a_total_stands_alone_where_a_cell_is_missing() -> None:
    table = np.array([[30.0, np.nan, 10.0], [5, 6, 9]])
    found = percentages(table, of="row", totals=[50, 30], totals_variance=4.0, noise_variance=2.0)
    np.testing.assert_allclose(found.value[0], [60, np.nan, 20])
    p = table[0] / 50
    np.testing.assert_allclose(found.se_noise[0], 100 * np.sqrt(2 + 4 * p**2) / 50)
    np.testing.assert_allclose(found.value[1], 100 * table[1] / (20 * 0.4 + 30 * 0.6))


def test_stated_noise_of_percentages_is_that_of_repeated_draws() -> None:
    seed = 21
    print("seed", seed)
    rng = np.random.default_rng(seed)
    cells, total = np.array([[200.0, 300.0, 100.0]]), 600.0
    noise, variance = discrete_laplace(0.2, (4000, 1, 3), rng)
    own, own_variance = discrete_laplace(0.15, (4000,), rng)
    found = [
        percentages(
            cells + x, of="total", totals=total + y, totals_variance=own_variance, noise_variance=variance
        )
        for x, y in zip(noise, own, strict=True)
    ]
    values = np.array([each.value for each in found])
    np.testing.assert_allclose(values.std(axis=0), found[0].se_noise, rtol=0.05)
    alone = np.array([100 * (cells + x) / (total + y) for x, y in zip(noise, own, strict=True)])
    assert (values.std(axis=0) < alone.std(axis=0)).all()


def test_pearson_is_scipys() -> None:
    table = stage_by_histology()
    expected = stats.chi2_contingency(table, correction=False)
    result = independence_test(table)
    assert result.statistic == pytest.approx(expected.statistic, rel=1e-9)
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert result.degrees_of_freedom == expected.dof == 3
    padded = independence_test(np.insert(table, 2, 0.0, axis=0))
    assert padded.statistic == pytest.approx(expected.statistic, rel=1e-9)


def test_vanishing_noise_leaves_pearsons_test() -> None:
    table = stage_by_histology() * [1.0, 2.0]
    noisy, plain = independence_test(table, noise_variance=1e-9), independence_test(table)
    assert noisy.statistic == pytest.approx(plain.statistic, rel=0.01)
    assert noisy.method == "pearson, noise-adjusted"


@pytest.mark.parametrize(
    ("rows", "columns", "n", "epsilon"),
    [
        ((0.5, 0.5), (0.5, 0.5), 100, 1.0),
        ((0.39, 0.26, 0.23, 0.12), (0.886, 0.114), 500, 0.5),
        ((0.2,) * 5, (0.39, 0.26, 0.23, 0.12), 500, 0.2),
    ],
)
def test_level_is_kept_under_noise(
    rows: tuple[float, ...], columns: tuple[float, ...], n: int, epsilon: float
) -> None:
    seed = n + len(rows)
    print("seed", seed)
    rng = np.random.default_rng(seed)
    shape = (2000, len(rows), len(columns))
    tables = rng.multinomial(n, np.outer(rows, columns).ravel(), 2000).reshape(shape)
    noise, variance = discrete_laplace(epsilon, shape, rng)
    tests = [independence_test(table, noise_variance=variance) for table in tables + noise]
    p = np.array([test.p_value for test in tests if test.flag == "ok"])
    assert len(p) > 1800
    # Four standard errors of the simulation above 6 %.
    assert (p < 0.05).mean() < 0.06 + 4 * 0.0053
    assert (p < 0.05).mean() > 0.01


def test_real_association_is_still_found() -> None:
    seed = 12
    print("seed", seed)
    rng = np.random.default_rng(seed)
    table = stage_by_histology()
    noise, variance = discrete_laplace(1.0, table.shape, rng)
    assert independence_test(table).p_value < 1e-3
    assert independence_test(table + noise, noise_variance=variance).p_value < 0.01


def test_tests_that_cannot_be_made_are_flagged() -> None:
    assert independence_test([[1.0, np.nan], [3, 4]]).flag == "c"
    assert independence_test([[1.0, 0], [3, 0]]).flag == "z"
    result = independence_test([[-5.0, 2], [3, 4]], noise_variance=2.0)
    assert result.flag == "x"
    assert np.isnan(result.p_value)


def test_quantiles_of_the_ages() -> None:
    table = pd.read_csv(REFERENCES / "hist_age_12m_study.csv")
    counts = table.groupby("age_months", sort=False).n.sum().to_numpy(float)
    edges = [*range(0, 193, 12), np.inf]
    result = histogram_quantiles(edges, counts, [0.25, 0.5, 0.75])
    cumulated = np.cumsum(counts)
    for p, value in zip((0.25, 0.5, 0.75), result.value, strict=True):
        inside = int(np.searchsorted(cumulated, p * 4028))
        before = cumulated[inside - 1]
        assert value == pytest.approx(12 * inside + 12 * (p * 4028 - before) / counts[inside])
    assert result.value[1] == pytest.approx(36, abs=12)  # the median of the records, within a bin
    assert (result.lower < result.value).all()
    assert (result.value < result.upper).all()


@pytest.mark.parametrize("n", [200, 2000])
def test_quantile_intervals_cover(n: int) -> None:
    seed = 5 + n
    print("seed", seed)
    rng = np.random.default_rng(seed)
    weights = np.array([0.14, 0.18, 0.17, 0.16, 0.12, 0.09, 0.05, 0.04, 0.02, 0.02, 0.01])
    weights /= weights.sum()
    edges = np.arange(0, 133, 12.0)
    truth = np.interp([0.25, 0.5, 0.75], np.concatenate([[0], np.cumsum(weights)]), edges)
    tables = rng.multinomial(n, weights, 1500)
    noise, variance = discrete_laplace(0.5, tables.shape, rng)
    hits = []
    for table in tables + noise:
        result = histogram_quantiles(edges, table, [0.25, 0.5, 0.75], noise_variance=variance)
        hits.append((result.lower <= truth) & (truth <= result.upper))
    covered = np.mean(hits, axis=0)
    assert ((covered > 0.92) & (covered < 0.98)).all(), covered


def test_noise_of_quantiles_is_what_is_stated() -> None:
    """Also that of the quantile's own bin, of which only the part below the quantile counts."""
    seed, p = 21, np.array([0.25, 0.5, 0.75])
    print("seed", seed)
    edges, counts = np.arange(6.0), np.array([15_000.0, 25_000, 30_000, 20_000, 10_000])
    noise, variance = discrete_laplace(1 / 200, (3_000, 5), np.random.default_rng(seed))
    found = histogram_quantiles(edges, counts, p, noise_variance=variance)
    values = np.array([histogram_quantiles(edges, counts + each, p).value for each in noise])
    np.testing.assert_allclose(values.mean(axis=0), found.value, atol=0.001)
    np.testing.assert_allclose(values.std(axis=0), found.se_noise, rtol=0.1)


@given(
    counts=st.lists(st.integers(-20, 50), min_size=1, max_size=12),
    p=st.floats(0.01, 0.99),
    open_ended=st.booleans(),
)
def test_quantiles_stay_in_the_histogram_and_ascend(counts: list[int], p: float, open_ended: bool) -> None:
    edges = [float(e) for e in range(len(counts) + 1)]
    edges[-1] = np.inf if open_ended else edges[-1]
    result = histogram_quantiles(edges, counts, [p / 2, p], noise_variance=4.0)
    if sum(counts) <= 0:
        assert list(result.flag) == ["x", "x"]
        return
    for index, flag in enumerate(result.flag):
        if flag == "ok":
            assert 0 <= result.lower[index] <= result.value[index] + 1e-9
            assert result.value[index] <= result.upper[index] + 1e-9
        else:
            assert open_ended
            assert flag == "t"
    if list(result.flag) == ["ok", "ok"]:
        assert result.value[0] <= result.value[1] + 1e-9


def test_bad_input_is_refused() -> None:
    bad = [
        lambda: percentages([1.0, 2], of="row"),
        lambda: percentages([[1.0, 2]], of="cell"),  # type: ignore[arg-type]
        lambda: percentages([[1.0, 2]], of="row", totals=[3.0, 4.0]),
        lambda: independence_test([1.0, 2]),
        lambda: independence_test([[-1.0, 2], [3, 4]]),
        lambda: independence_test(np.full((80, 80), 9.0), noise_variance=1.0),
        lambda: histogram_quantiles([0, 1], [1.0, 2], 0.5),
        lambda: histogram_quantiles([0, 0, 1], [1.0, 2], 0.5),
        lambda: histogram_quantiles([-np.inf, 0, 1], [1.0, 2], 0.5),
        lambda: histogram_quantiles([0, 1, 2], [1.0, 2], 1.0),
    ]
    for call in bad:
        with pytest.raises(DocumentError):
            call()
