"""Survival against R, SEER's formulas and lifelines; coverage with noise; quantiles and follow-up."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import lifelines
import numpy as np
import pytest
from scipy.stats import binomtest

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.lifetable import CellNoise, IntervalCounts, LifeTable, life_table
from mpc_engine.estimators.survival import (
    Interval,
    conditional,
    edge_index,
    estimate,
    follow_up,
    limits,
    quantile,
)
from tests.estimators.cohorts import MONTH, QUARTER, breast, counts, noised, read, simulated, wilms

WILMS, BREAST = wilms(), breast()
EXACT = dict(rel=1e-9, abs=1e-12)


def chosen(people: dict[str, Any], stratum: str) -> Any:
    """Return which people are in a stratum that R names like ``stage=1, histol_l=FH``."""
    mask = np.ones(len(people["t"]), dtype=bool)
    if stratum != "all":
        for part in stratum.split(", "):
            key, value = part.split("=", 1)
            mask &= people[key.removesuffix("_l")] == value.strip()
    return mask


@pytest.mark.parametrize(
    ("file", "width"),
    [
        ("km_full_overall.csv", 1.0),
        ("km_full_by_histol.csv", 1.0),
        ("km_full_grid_month.csv", MONTH),
        ("km_full_grid_quarter.csv", QUARTER),
    ],
)
def test_whole_curves_of_r(file: str, width: float) -> None:
    rows = read(f"references/nwtco/{file}")
    for stratum, part in groupby(rows, key=lambda row: row["stratum"]):
        lines = list(part)
        mask = chosen(WILMS, stratum)
        table = life_table(counts(WILMS["t"][mask], WILMS["e"][mask], width=width))
        index = np.array([int(row["time"]) for row in lines]) - 1
        names = ("n_risk", "n_event", "surv", "se_log_surv")
        column = {name: np.array([float(row[name]) for row in lines]) for name in names}
        assert table.at_risk[index].tolist() == column["n_risk"].tolist()
        assert table.events[index].tolist() == column["n_event"].tolist()
        assert table.events.sum() == column["n_event"].sum()
        assert table.survival[index] == pytest.approx(column["surv"], **EXACT)
        assert np.sqrt(table.log_variance[index]) == pytest.approx(column["se_log_surv"], **EXACT)


def test_fixed_times_and_three_intervals_of_r() -> None:
    rows = read("references/nwtco/km_fixed_times.csv")
    cases: dict[tuple[str, str], LifeTable] = {}
    checked = 0
    for row in rows:
        kind: Interval = row["conf_type"]  # type: ignore[assignment]
        key = (row["analysis"], row["stratum"])
        if key not in cases:
            mask = chosen(WILMS, row["stratum"])
            if key[0].startswith("NWTS"):
                mask &= WILMS["study"] == key[0][4]
            cases[key] = life_table(counts(WILMS["t"][mask], WILMS["e"][mask], intervals=4000))
        table = cases[key]
        # The daily grid's last edge at or before the time: curves step on whole days.
        at = estimate(table, kind).at(int(float(row["time_days"])))
        if int(row["n_risk"]) == 0:
            # R was asked to extend its curves; here nothing is known once nobody is at risk.
            assert np.isnan(at.survival)
            continue
        assert at.survival == pytest.approx(float(row["surv"]), **EXACT)
        assert at.se_sampling == pytest.approx(float(row["se_greenwood"]), **EXACT)
        assert at.se_noise == 0
        assert at.lower == pytest.approx(float(row["lower"]), **EXACT)
        assert at.upper == pytest.approx(float(row["upper"]), **EXACT)
        checked += 1
    assert len(rows) - 6 <= checked > 300


def test_breast_cancer_of_r() -> None:
    for row in read("references/breast/km.csv"):
        mask = chosen(BREAST, row["stratum"])
        table = life_table(counts(BREAST["t"][mask], BREAST["e"][mask], intervals=2600))
        day = int(float(row["t"]))
        at = estimate(table, "log").at(day)
        # R counts those at risk just before the time, which is after the last whole day.
        assert table.at_risk[day] == float(row["n_risk"])
        for found, name in (
            (at.survival, "surv"),
            (at.se_sampling, "se"),
            (at.lower, "lo"),
            (at.upper, "hi"),
        ):
            assert found == pytest.approx(float(row[name]), **EXACT)


def test_lifelines_agrees() -> None:
    fitter = lifelines.KaplanMeierFitter().fit(WILMS["t"], WILMS["e"])
    curve = estimate(life_table(counts(WILMS["t"], WILMS["e"])))
    days = fitter.survival_function_.index[1:].to_numpy(dtype=int)
    at = curve.at(days)
    assert at.survival == pytest.approx(fitter.survival_function_.to_numpy()[1:, 0], **EXACT)
    some = at.survival < 1
    bounds = fitter.confidence_interval_.to_numpy()[1:][some]
    assert at.lower[some] == pytest.approx(bounds[:, 0], **EXACT)
    assert at.upper[some] == pytest.approx(bounds[:, 1], **EXACT)


def test_quantiles_of_r() -> None:
    """10 %, 25 % and 50 % of relapses by histology: 848, 108, 269 days, the others not reached."""
    table = life_table(counts(WILMS["t"], WILMS["e"], WILMS["histol"]))
    curve, edges = estimate(table), np.arange(table.intervals + 1)
    found = [quantile(curve, edges, p, interpolate=False).time.tolist() for p in (0.1, 0.25, 0.5)]
    assert found == [[848, 108], [np.inf, 269], [np.inf, np.inf]]


def test_median_with_brookmeyer_crowley_limits() -> None:
    people = BREAST["nodecat"] == "4-9"
    t, e = BREAST["t"][people], BREAST["e"][people]
    fitter = lifelines.KaplanMeierFitter().fit(t, e)
    bounds = lifelines.utils.median_survival_times(fitter.confidence_interval_).to_numpy()[0]
    table = life_table(counts(t, e))
    median = quantile(estimate(table), np.arange(table.intervals + 1), interpolate=False)
    assert median.time == median.ends == fitter.median_survival_time_ and median.begins == median.time - 1
    assert [median.lower, median.upper] == bounds.tolist()
    # Interpolated, each of the three lies within its day.
    within = quantile(estimate(table), np.arange(table.intervals + 1))
    for between, end in ((within.time, median.time), (within.lower, bounds[0]), (within.upper, bounds[1])):
        assert end - 1 <= between <= end
    assert within.ends == median.ends
    # Where the curve is not shown that far, the median is not reached.
    hidden = quantile(estimate(table), np.arange(table.intervals + 1), shown=table.reliable(500))
    assert hidden.time == np.inf and hidden.upper == np.inf


def test_quantile_edges() -> None:
    # Exactly a half, built up from factors that round: 1 − 1/6, …, 3/4.
    half = life_table(IntervalCounts([1.0, 1.0, 1.0, 0.0], [0.0] * 4, 3.0))
    assert quantile(estimate(half), [0, 1, 2, 5, 9]).time == pytest.approx(5)
    empty = life_table(IntervalCounts([0.0], [0.0], 0.0))
    assert np.isnan(quantile(estimate(empty), [0, 1]).time)
    for bad in ([0, 1], [1, 2, 3, 4, 5], [0, 1, 1, 2, 3]):
        with pytest.raises(DocumentError):
            quantile(estimate(half), bad)
    with pytest.raises(DocumentError):
        quantile(estimate(half), range(5), probability=1.0)


def test_follow_up_is_the_curve_of_censorings() -> None:
    fitter = lifelines.KaplanMeierFitter().fit(WILMS["t"], ~WILMS["e"])
    cut = counts(WILMS["t"], WILMS["e"])
    found = follow_up(cut, np.arange(cut.intervals + 1), interpolate=False)
    bounds = lifelines.utils.median_survival_times(fitter.confidence_interval_).to_numpy()[0]
    assert [found.time, found.lower, found.upper] == [fitter.median_survival_time_, *bounds]
    assert follow_up(IntervalCounts([5.0], [1.0], 20.0), [0, 1]).time == np.inf


def test_conditional_survival() -> None:
    """S(5|1) = S(5)/S(1) with SEER's sum over the intervals in between."""
    table = life_table(IntervalCounts([20.0, 10.0, 5.0], [3.0, 2.0, 4.0], 56.0), "actuarial")
    after = conditional(table, 1, "plain").at([1, 2, 3])
    assert np.isnan(after.survival[0])
    assert after.survival[1:] == pytest.approx(table.survival[1:] / table.survival[0])
    d, n = table.events, table.effective
    terms = d / (n * (n - d))
    assert after.se_sampling[2] == pytest.approx(after.survival[2] * np.sqrt(terms[1] + terms[2]))
    assert after.upper[2] - after.survival[2] == pytest.approx(1.959963984540054 * after.se_sampling[2])
    whole, plain = conditional(table, 0), estimate(table)
    assert whole.survival == pytest.approx(plain.survival) and whole.lower == pytest.approx(plain.lower)
    for start in (-1, 3):
        with pytest.raises(DocumentError):
            conditional(table, start)
    nobody = life_table(IntervalCounts([4.0, 0.0], [0.0, 0.0], 0.0))
    assert np.isnan(conditional(nobody, 1).survival).all()


def test_noise_widens_limits_in_squares() -> None:
    s, sampling, noise = np.array([0.6, 0.97]), np.array([0.003, 0.0004]), np.array([0.002, 0.0009])
    lower, upper = limits(s, sampling, noise, "plain", 0.9)
    width = 1.6448536269514722 * s * np.sqrt(sampling + noise)
    assert lower == pytest.approx(s - width) and upper == pytest.approx(np.minimum(s + width, 1))
    kinds: tuple[Interval, ...] = ("log-log", "log", "plain")
    for kind in kinds:
        narrow, wide = limits(s, sampling, 0.0, kind), limits(s, sampling, noise, kind)
        assert (wide[0] < narrow[0]).all() and (wide[1] >= narrow[1]).all()


def test_limits_at_the_ends() -> None:
    one, zero, none = np.array([1.0]), np.array([0.0]), np.zeros(1)
    assert np.isnan(limits(one, none)).all()
    assert [float(x[0]) for x in limits(one, none, 0.0, "log")] == [1, 1]
    # Nobody is known to be at risk: the noise alone. With 50 people: and Wilson's limit for 0 of 50.
    z = 1.959963984540054
    lower, upper = limits(one, none, np.array([0.0001]))
    assert lower == pytest.approx(1 - 0.01 * z) and upper == 1
    lower, upper = limits(one, none, np.array([0.0001]), at_risk=50.0)
    wilson = binomtest(0, 50).proportion_ci(method="wilson").high
    assert lower == pytest.approx(1 - np.hypot(wilson, 0.01 * z)) and upper == 1
    kinds: tuple[Interval, ...] = ("log-log", "log", "plain")
    for kind in kinds:
        assert np.isnan(limits(zero, np.array([np.inf]), 0.0, kind)).all()
    for bad in (lambda: limits(one, none, 0.0, "logit"), lambda: limits(one, none, level=95)):  # type: ignore[arg-type]
        with pytest.raises(DocumentError):
            bad()


@pytest.mark.parametrize("people", [20, 60, 500])
def test_limits_near_1_have_no_jump(people: int) -> None:
    """With noise and d of n dead in one interval: wider with every part of an event, and never by a jump."""
    dead = np.append(np.geomspace(1e-9, 1e-3, 200), np.linspace(0.001, 3, 3000)[1:])
    dead = np.append(0.0, dead)
    s, variance = 1 - dead / people, dead / (people * (people - dead))
    lower, upper = limits(s, variance, 1e-12, at_risk=float(people))
    below, above = people * (s - lower), people * (upper - s)
    assert below[0] == pytest.approx(3.8415 / (1 + 3.8415 / people), rel=1e-4) and above[0] < 1e-3
    first = dead <= 1
    assert (np.diff(below[first]) >= 0).all() and (np.diff(above[first]) >= -1e-6).all()
    assert np.abs(np.diff(below)).max() < 0.01 and np.abs(np.diff(above)).max() < 0.01
    # From one and a half events on they are the textbook's, and without noise everywhere.
    many = dead > 1.7
    textbook = limits(s, variance)
    assert lower[many] == pytest.approx(textbook[0][many], abs=1e-6)
    assert upper[many] == pytest.approx(textbook[1][many], abs=1e-6)
    assert limits(s[1:], variance[1:], at_risk=float(people))[0] == pytest.approx(textbook[0][1:], rel=1e-12)


def test_curve_near_1_with_a_fraction_of_an_event() -> None:
    """500 people of whom 0.02 die by the projected counts: not 0 to 100 %."""
    for dead in (0.0, 0.02, 0.3):
        counts = IntervalCounts([dead, 0.0], [0.0, 10.0], 490.0 - dead, noise=CellNoise(3.0))
        curve = estimate(life_table(counts))
        assert (curve.lower > 0.97).all() and (curve.upper <= 1).all() and (curve.lower < 0.993).all()


def test_a_curve_ends_where_nobody_is_at_risk() -> None:
    """Noise may leave nobody at risk before late entries: what follows is no curve from time 0."""
    counts = IntervalCounts(
        [0.0, 3.0, 2.0], [1.0, 2.0, 4.0], 10.0, [0.0, 24.0, 0.0], noise=CellNoise(2.0, 2.0)
    )
    table = life_table(counts)
    assert table.at_risk[0] == 0 < table.at_risk[1]
    assert np.isnan(table.survival).all() and np.isnan(conditional(table, 1).survival).all()
    assert np.isnan(quantile(estimate(table), [0, 1, 2, 3]).time)
    # The same in the middle.
    counts = IntervalCounts(
        [2.0, 0.0, 2.0], [3.0, 0.0, 4.0], 5.0, [0.0, 0.0, 11.0], noise=CellNoise(2.0, 2.0)
    )
    table = life_table(counts)
    assert table.survival[0] == 0.6 and np.isnan(table.survival[1:]).all()
    assert quantile(estimate(table), [0, 1, 2, 3]).time == np.inf


def test_quantiles_lie_between_the_edges() -> None:
    """By hand: S is 1, 0.8, 0.4; from 0.8 to 0.5 is three quarters of the way from 0.8 to 0.4."""
    table = life_table(IntervalCounts([20.0, 40.0], [0.0, 0.0], 40.0))
    curve = estimate(table, "plain")
    found = quantile(curve, [0, 1, 3])
    assert found.time == pytest.approx(1 + 2 * 0.3 / 0.4)
    assert (found.begins, found.ends) == (1, 3)
    low, high = curve.lower, curve.upper
    assert found.lower == pytest.approx(1 + 2 * (low[0] - 0.5) / (low[0] - low[1]))
    assert found.upper == pytest.approx(1 + 2 * (high[0] - 0.5) / (high[0] - high[1]))
    step = quantile(curve, [0, 1, 3], interpolate=False)
    assert (step.time, step.lower, step.upper) == (3, 3, 3)
    wide = quantile(curve, [0, 1, 3], outward=np.asarray(True))
    assert (wide.time, wide.lower, wide.upper) == (found.time, 1, 3)
    # In the first interval the line starts from 1 at time 0; with all dead there is no upper limit.
    dead = quantile(estimate(life_table(IntervalCounts([10.0], [0.0], 0.0))), [0, 4])
    assert (dead.time, dead.lower, dead.upper) == (2, 2, np.inf)


@pytest.mark.parametrize("width", [1.0, 0.25])
@pytest.mark.parametrize("people", [100, 400, 1000])
def test_median_limits_cover_the_continuous_median(width: float, people: int) -> None:
    seed = 7 + people + int(10 * width)
    print("seed", seed)
    generator = np.random.default_rng(seed)
    repeats, rate = 800, (-np.log(0.3)) ** (1 / 0.8) / 5
    event = generator.weibull(0.8, (repeats, people)) / rate
    end = generator.uniform(0, 10, (repeats, people))
    label = np.repeat(np.arange(repeats), people)
    exact = counts(np.minimum(event, end).ravel(), (event <= end).ravel(), label, width, round(5 / width))
    truth = np.log(2) ** (1 / 0.8) / rate
    table = life_table(noised(exact, generator), "actuarial")
    found = quantile(estimate(table), np.arange(0, 5 + width, width))
    held = ((found.lower <= truth) & (truth <= found.upper)).mean()
    print(width, people, held, np.median(found.time) - truth)
    assert 0.92 <= held <= 0.99


def test_edge_index() -> None:
    years = np.arange(0, 121) / 12
    assert edge_index(years, [0, 1, 3, 5, 10]).tolist() == [0, 12, 36, 60, 120]
    assert edge_index([0, 365.25, 730.5], 365.25) == 1
    for bad in ([1.01], [10.1], [-1], [np.nan]):
        with pytest.raises(DocumentError, match="not an edge"):
            edge_index(years, bad)
    with pytest.raises(DocumentError):
        estimate(life_table(IntervalCounts([1.0], [1.0], 5.0))).at([0])


@pytest.mark.parametrize(("people", "survival"), [(200, 0.5), (200, 0.75), (200, 0.9), (500, 0.75)])
def test_limits_cover_with_noise(people: int, survival: float) -> None:
    """Five-year survival, annual grid, ε 0.75 for members, 0.25 for the guard: 92 to 98 % hold."""
    seed = 1000 + people + round(100 * survival)
    print("seed", seed)
    generator = np.random.default_rng(seed)
    exact = simulated(generator, 1500, people, survival)
    table = life_table(noised(exact, generator), "actuarial")
    five = estimate(table).at(5)
    held = ((five.lower <= survival) & (survival <= five.upper)).mean()
    assert 0.92 <= held <= 0.98
    # The standard errors say how far the estimates scatter, and neither part alone would.
    scatter = five.survival.std()
    assert np.hypot(five.se_sampling, five.se_noise).mean() == pytest.approx(scatter, rel=0.08)
    assert five.se_sampling.mean() < 0.99 * scatter


def test_noise_error_is_what_noise_does() -> None:
    """Noise redrawn on one cohort: its scatter is ``se_noise``, conditional survival too."""
    seed = 77
    print("seed", seed)
    generator = np.random.default_rng(seed)
    one = simulated(generator, 1, 400, 0.6)
    many = IntervalCounts(*(np.repeat(part, 3000, axis=0) for part in (one.events, one.censored, one.beyond)))
    table = life_table(noised(many, generator))
    for curve in (estimate(table).at(5), conditional(table, 1).at(5)):
        assert curve.se_noise.mean() == pytest.approx(curve.survival.std(), rel=0.05)


def test_daily_grid_of_many_strata_needs_no_noise_work() -> None:
    cut = counts(WILMS["t"], WILMS["e"], WILMS["stage"])
    silent = life_table(cut)
    noisy = life_table(IntervalCounts(cut.events, cut.censored, cut.beyond, noise=CellNoise(1e-12)))
    assert not silent.log_noise_variance.any()
    assert noisy.survival == pytest.approx(silent.survival, nan_ok=True)
    assert (noisy.log_noise_variance[:, -1] > 0).all()
