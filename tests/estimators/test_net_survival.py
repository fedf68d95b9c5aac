"""Net survival from a histogram: textbook values, popEpi, relsurv, noise, edges."""

from __future__ import annotations

import csv
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.net_survival_distance import DATA, distances
from mpc_engine.errors import DocumentError
from mpc_engine.estimators.lifetable import CellNoise, IntervalCounts, Method, life_table
from mpc_engine.estimators.net_survival import (
    Estimator,
    Form,
    NetSurvival,
    expected_paths,
    mid_age_days,
    mid_period,
    net_limits,
    net_survival,
)
from mpc_engine.estimators.population_tables import YEAR_DAYS, PopulationTable

ESTIMATORS: tuple[Estimator, ...] = ("pohar-perme", "ederer-2")
FORMS: tuple[Form, ...] = ("product", "hazard")
METHODS: tuple[Method, ...] = ("actuarial", "kaplan-meier")
EACH = pytest.mark.parametrize(
    ("estimator", "form", "method"), list(itertools.product(ESTIMATORS, FORMS, METHODS))
)


def example(seed: int, shape: tuple[int, ...] = (3, 4), censoring: bool = True) -> tuple[IntervalCounts, Any]:
    """Return counts (…, G, J) and rising paths (G, J + 1) for them."""
    rng = np.random.default_rng(seed)
    events = rng.integers(5, 30, shape).astype(float)
    censored = rng.integers(0, 10, shape).astype(float) * censoring
    beyond = rng.integers(60, 120, shape[:-1]).astype(float)
    rises = rng.uniform(0.001, 0.15, shape[-2:])
    paths = np.concatenate([np.zeros((shape[-2], 1)), np.cumsum(rises, axis=1)], axis=1)
    return IntervalCounts(events, censored, beyond), paths


def reference(name: str) -> list[dict[str, str]]:
    with (DATA / "references/netsurv" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def column(found: list[dict[str, str]], name: str) -> Any:
    return np.array([float(row[name]) for row in found])


def test_popepi_hazard_form_is_met_on_its_own_sums() -> None:
    sums = reference("popEpi_sire_ICSS1_age_standardised.csv")
    results = reference("popEpi_sire_binned_monthly.csv")
    width = 1 / 12
    for estimator, weighted, method in (("ederer-2", "", "hazard e2"), ("pohar-perme", ".pp", "hazard pp")):
        theirs = [row for row in results if row["method"] == method]
        died = column(sums, f"d{weighted}")
        time = column(sums, f"pyrs{weighted}") / width
        awaited = column(theirs, "d.exp") / time
        # One cell, with censorings chosen so that the mid-interval person-time is popEpi's.
        at_risk = [8227.0]
        for value in time:
            at_risk.append(2 * value - at_risk[-1])
        censored = -np.diff(at_risk) - died
        counts = IntervalCounts(died[None], censored[None], np.array([at_risk[-1]]))
        paths = np.concatenate([[0.0], np.cumsum(awaited)])[None]
        ours = net_survival(counts, paths, estimator=estimator, form="hazard")  # type: ignore[arg-type]
        np.testing.assert_allclose(ours.net, column(theirs, "r"), rtol=1e-11)
        if estimator == "ederer-2":
            np.testing.assert_allclose(ours.se_sampling, column(theirs, "SE.r"), rtol=1e-11)


def test_ederer_2_is_the_life_table_of_the_textbook() -> None:
    counts, paths = example(1)
    ours = net_survival(counts, paths, estimator="ederer-2")
    n = [float(counts.events[g].sum() + counts.censored[g].sum() + counts.beyond[g]) for g in range(3)]
    cumulative, greenwood = 1.0, 0.0
    for j in range(4):
        adjusted = [n[g] - counts.censored[g, j] / 2 for g in range(3)]
        died = sum(counts.events[g, j] for g in range(3))
        observed = 1 - died / sum(adjusted)
        expected = sum(adjusted[g] * math.exp(paths[g, j] - paths[g, j + 1]) for g in range(3)) / sum(
            adjusted
        )
        cumulative *= observed / expected
        greenwood += died / (sum(adjusted) * (sum(adjusted) - died))
        assert ours.observed[j] == pytest.approx(observed, rel=1e-12)
        assert ours.expected[j] == pytest.approx(expected, rel=1e-12)
        assert ours.net[j] == pytest.approx(cumulative, rel=1e-12)
        assert ours.se_sampling[j] == pytest.approx(cumulative * math.sqrt(greenwood), rel=1e-12)
        assert ours.at_risk[j] == sum(n)
        n = [n[g] - counts.events[g, j] - counts.censored[g, j] for g in range(3)]
    assert (ours.log_noise_variance == 0).all()


def test_pohar_perme_without_censoring_is_the_weighted_mean_of_survivors() -> None:
    counts, paths = example(2, censoring=False)
    ours = net_survival(counts, paths)
    size = counts.events.sum(axis=1) + counts.beyond
    alive = size[:, None] - np.cumsum(counts.events, axis=1)
    np.testing.assert_allclose(ours.net, (alive * np.exp(paths[:, 1:])).sum(axis=0) / size.sum(), rtol=1e-12)


def test_pohar_perme_without_censoring_does_not_see_the_grid() -> None:
    counts, paths = example(3, (5, 12), censoring=False)
    coarse = IntervalCounts(
        counts.events.reshape(5, 3, 4).sum(axis=2), counts.censored[:, ::4], counts.beyond
    )
    fine = net_survival(counts, paths).net[3::4]
    np.testing.assert_allclose(net_survival(coarse, paths[:, ::4]).net, fine, rtol=1e-12)


def test_pohar_perme_is_its_integral_where_hazards_are_constant() -> None:
    # Numerical integration of sum(w Y (observed - expected)) / sum(w Y) within each interval.
    counts, paths = example(4, censoring=False)
    ours = net_survival(counts, paths)
    at_risk = counts.events.sum(axis=1) + counts.beyond
    total, steps = 0.0, 20000
    part = (np.arange(steps) + 0.5) / steps
    for j in range(4):
        observed = -np.log1p(-counts.events[:, j] / at_risk)
        awaited = paths[:, j + 1] - paths[:, j]
        weight = (at_risk * np.exp(paths[:, j]))[:, None] * np.exp(np.outer(awaited - observed, part))
        total += ((weight * (observed - awaited)[:, None]).sum(axis=0) / weight.sum(axis=0)).mean()
        assert ours.net[j] == pytest.approx(math.exp(-total), rel=1e-8)
        at_risk = at_risk - counts.events[:, j]


@EACH
def test_with_one_cell_both_estimators_agree(estimator: Estimator, form: Form, method: Method) -> None:
    counts, paths = example(5, (1, 6))
    ours = net_survival(counts, paths, estimator=estimator, form=form, method=method)
    zero = net_survival(counts, paths * 0, estimator=estimator, form=form, method=method)
    np.testing.assert_allclose(ours.net, zero.net * np.exp(paths[0, 1:]), rtol=1e-12)
    np.testing.assert_allclose(ours.log_variance, zero.log_variance, rtol=1e-12)
    np.testing.assert_allclose(ours.observed / ours.expected, ours.relative, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_without_population_mortality_it_is_observed_survival(estimator: Estimator, method: Method) -> None:
    counts, paths = example(6, (2, 3, 5))
    ours = net_survival(counts, paths * 0, estimator=estimator, method=method)
    pooled = IntervalCounts(counts.events.sum(1), counts.censored.sum(1), counts.beyond.sum(1))
    table = life_table(pooled, method)
    np.testing.assert_allclose(ours.net, table.survival, rtol=1e-12)
    np.testing.assert_allclose(ours.log_variance, table.log_variance, rtol=1e-12)


def test_the_documented_distance_from_relsurv() -> None:
    found = {
        (row.grid, row.age_groups, row.period, row.estimator): row
        for row in distances()
        if row.form == "product"
    }
    monthly = found["monthly", "5-year", "1 year", "pohar-perme"]
    assert np.abs(monthly.overall).max() < 6e-4
    assert np.abs(monthly.by_stage).max() < 5e-3
    assert np.abs(found["annual", "5-year", "1 year", "pohar-perme"].overall).max() < 5e-4
    assert np.abs(found["monthly", "5-year", "1 year", "ederer-2"].overall).max() < 5e-4
    assert np.abs(found["annual", "5-year", "1 year", "ederer-2"].overall).max() < 3.5e-3
    # Wide age groups are what costs: the representative person ages well, a wide group does not.
    wide = found["monthly", "ICSS", "1 year", "pohar-perme"].overall[2]
    assert 5e-3 < wide < 9e-3


def gradient(counts: IntervalCounts, paths: Any, **options: Any) -> list[tuple[str, Any]]:
    """Return central differences of ln net by every cell, with the kind of the cell."""
    arrays = {"events": counts.events, "censored": counts.censored, "beyond": counts.beyond}
    if counts.entered is not None:
        arrays["entered"] = counts.entered
    if counts.guard is not None:
        arrays["guard"] = counts.guard
    found = []
    for name, array in arrays.items():
        for place in np.ndindex(array.shape):
            logs = []
            for change in (1e-3, -1e-3):
                moved = {key: value.copy() for key, value in arrays.items()}
                moved[name][place] += change
                new = IntervalCounts(**moved, noise=counts.noise)
                logs.append(np.log(net_survival(new, paths, **options).net))
            found.append((name, (logs[0] - logs[1]) / 2e-3))
    return found


@EACH
@pytest.mark.parametrize("extras", [(), ("guard",), ("entered",), ("guard", "entered")])
def test_noise_variance_is_that_of_numerical_derivatives(
    estimator: Estimator, form: Form, method: Method, extras: tuple[str, ...]
) -> None:
    plain, paths = example(9)
    rng = np.random.default_rng(10)
    optional: dict[str, Any] = {}
    if "entered" in extras:
        optional["entered"] = rng.integers(0, 5, (3, 4)).astype(float)
    if "guard" in extras:
        size = plain.events.sum(1) + plain.censored.sum(1) + plain.beyond
        optional["guard"] = size + rng.normal(0, 3, 3)
    variances = {"member": 1.84, "entered": 2.5, "guard": 5.0}
    counts = IntervalCounts(
        plain.events, plain.censored, plain.beyond, **optional, noise=CellNoise(**variances)
    )
    options: dict[str, Any] = {"estimator": estimator, "form": form, "method": method}
    expected = sum(
        variances.get(name, variances["member"]) * slope**2
        for name, slope in gradient(counts, paths, **options)
    )
    found = net_survival(counts, paths, **options).log_noise_variance
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_noise_leaves_no_bias_and_has_the_stated_spread() -> None:
    truth, paths = example(11, (6, 12))
    rng = np.random.default_rng(12)
    runs, sd = 4000, 2.0
    draws = [
        rng.normal(0, sd, (runs, *array.shape)) for array in (truth.events, truth.censored, truth.beyond)
    ]
    noisy = IntervalCounts(
        truth.events + draws[0],
        truth.censored + draws[1],
        truth.beyond + draws[2],
        noise=CellNoise(member=sd**2),
    )
    exact = net_survival(truth, paths)
    for estimator in ESTIMATORS:
        exact = net_survival(truth, paths, estimator=estimator)
        found = net_survival(noisy, paths, estimator=estimator)
        stated = np.sqrt(found.log_noise_variance.mean(axis=0)) * exact.net
        spread = found.net.std(axis=0)
        np.testing.assert_allclose(spread, stated, rtol=0.06)
        assert (np.abs(found.net.mean(axis=0) - exact.net) < 4 * spread / math.sqrt(runs) + 3e-4).all()


def test_a_guard_lowers_the_noise_and_exact_guards_change_nothing() -> None:
    truth, paths = example(13, (3, 20))
    size = truth.events.sum(1) + truth.censored.sum(1) + truth.beyond
    parts = (truth.events, truth.censored, truth.beyond)
    alone = net_survival(IntervalCounts(*parts, noise=CellNoise(member=2.0)), paths)
    guarded = net_survival(IntervalCounts(*parts, guard=size, noise=CellNoise(member=2.0, guard=2.0)), paths)
    np.testing.assert_allclose(guarded.net, alone.net, rtol=1e-12)
    assert (guarded.log_noise_variance < alone.log_noise_variance).all()


def test_a_hidden_cell_is_left_out_and_said() -> None:
    counts, paths = example(14)
    hidden = counts.events.copy()
    hidden[1] = math.nan
    noise = CellNoise(member=1.0)
    ours = net_survival(IntervalCounts(hidden, counts.censored, counts.beyond, noise=noise), paths)
    kept = [0, 2]
    others = IntervalCounts(counts.events[kept], counts.censored[kept], counts.beyond[kept], noise=noise)
    theirs = net_survival(others, paths[kept])
    for name in ("net", "log_variance", "log_noise_variance", "at_risk"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-12)
    assert (int(ours.hidden), int(theirs.hidden)) == (1, 0)


def one(events: list[float], censored: list[float], beyond: float, **options: Any) -> NetSurvival:
    counts = IntervalCounts(np.array([events]), np.array([censored]), np.array([beyond]))
    return net_survival(counts, np.arange(len(events) + 1)[None] * 0.01, **options)


@EACH
def test_nobody_at_all(estimator: Estimator, form: Form, method: Method) -> None:
    found = one([0, 0], [0, 0], 0, estimator=estimator, form=form, method=method)
    for array in (found.net, found.se, *found.limits()):
        assert np.isnan(array).all()
    assert found.at_risk.tolist() == [0, 0]


@EACH
def test_all_censored(estimator: Estimator, form: Form, method: Method) -> None:
    found = one([0, 0, 0], [4, 5, 0], 0, estimator=estimator, form=form, method=method)
    assert found.net[:2] == pytest.approx([math.exp(0.01), math.exp(0.02)])
    assert found.se[:2].tolist() == [0, 0]
    assert math.isnan(found.net[2])


@EACH
def test_one_patient(estimator: Estimator, form: Form, method: Method) -> None:
    alive = one([0, 0], [0, 0], 1, estimator=estimator, form=form, method=method)
    assert alive.net == pytest.approx([math.exp(0.01), math.exp(0.02)])
    died = one([0, 1], [0, 0], 0, estimator=estimator, form=form, method=method)
    last = 0 if form == "product" else math.exp(0.02 - 2)
    assert died.net == pytest.approx([math.exp(0.01), last])


@EACH
def test_all_die_in_the_first_interval(estimator: Estimator, form: Form, method: Method) -> None:
    found = one([7, 0, 0], [0, 0, 0], 0, estimator=estimator, form=form, method=method)
    if form == "product":
        assert found.net.tolist() == [0, 0, 0]
        assert np.isnan(found.se).all()
    else:  # the textbook's hazard form cannot reach 0
        assert found.net[0] == pytest.approx(math.exp(0.01 - 2))
        assert np.isnan(found.net[1:]).all()


@given(st.integers(0, 2**32 - 1))
def test_negative_noisy_counts_give_a_number_or_nan_never_a_failure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = IntervalCounts(
        rng.integers(-9, 9, (3, 5)), rng.integers(-9, 9, (3, 5)), rng.integers(-9, 9, 3), noise=CellNoise(2.0)
    )
    paths = np.cumsum(np.full((3, 6), 0.01), axis=1)
    for estimator, form in itertools.product(ESTIMATORS, FORMS):
        found = net_survival(counts, paths, estimator=estimator, form=form)
        known = np.isfinite(found.net)
        assert (found.net[known] >= 0).all()
        positive = known & (found.net > 0)
        assert (found.log_variance[positive] >= 0).all()
        assert (found.log_noise_variance[positive] > 0).all()


def test_limits_by_name() -> None:
    net, variance = np.array([0.5, 1.1, 0.0]), np.array([0.04, 0.04, np.nan])
    z = 1.959963984540054
    lower, upper = net_limits(net, variance)
    assert lower[:2] == pytest.approx(net[:2] * math.exp(-0.2 * z))
    assert upper[:2] == pytest.approx(net[:2] * math.exp(0.2 * z))
    assert net_limits(net, variance, "plain")[1][:2] == pytest.approx(net[:2] * (1 + 0.2 * z))
    lower, upper = net_limits(net, variance, "log-log")
    assert upper[0] == pytest.approx(0.5 ** math.exp(0.2 * z / math.log(0.5)))
    assert lower[0] < 0.5 < upper[0] < 1
    assert np.isnan([lower[1], upper[1], lower[2]]).all()


def test_representative_persons_and_paths() -> None:
    assert mid_age_days(50, 55) == 52.5 * YEAR_DAYS
    assert mid_age_days(75, None) == 82.5 * YEAR_DAYS
    assert mid_age_days(75, None, 99) == 87 * YEAR_DAYS
    assert mid_period(2000, 2000) == np.datetime64("2000-07-02")
    assert mid_period(1995, 1999) == np.datetime64("1997-07-02")
    table = PopulationTable(("f",), 0, (2000,), np.full((1, 1, 1), 0.001))
    paths = expected_paths(
        table, [0, 0], [100, 200], np.array(["2001-01-01"] * 2, "datetime64[D]"), [0, 30, 60.5]
    )
    np.testing.assert_allclose(paths, [[0, 0.03, 0.0605]] * 2)
    for lower, upper in ((5, 5), (-1, 5), (95, None)):
        with pytest.raises(DocumentError):
            mid_age_days(lower, upper)
    with pytest.raises(DocumentError):
        mid_period(2001, 2000)
    with pytest.raises(DocumentError):
        expected_paths(table, [0], [1], np.datetime64("2001-01-01"), [1, 2])


def test_what_does_not_fit_is_refused() -> None:
    counts, paths = example(15)
    for options in ({"estimator": "hakulinen"}, {"form": "sum"}, {"method": "guess"}):
        with pytest.raises(DocumentError):
            net_survival(counts, paths, **options)  # type: ignore[arg-type]
    with pytest.raises(DocumentError, match="expected path"):
        net_survival(counts, paths[:, 1:])
    with pytest.raises(DocumentError, match="finite"):
        net_survival(counts, paths * math.nan)
    with pytest.raises(DocumentError, match="by cell"):
        net_survival(IntervalCounts(np.ones(3), np.ones(3), np.array(1.0)), paths)
    for kind, level in (("wald", 0.95), ("log", 1.0)):
        with pytest.raises(DocumentError):
            net_limits(np.array([0.5]), np.array([0.1]), kind, level)  # type: ignore[arg-type]
