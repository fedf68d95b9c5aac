"""Age standardisation of survival: the weights, popEpi's result on its own data, edges."""

from __future__ import annotations

import csv
import math
from typing import Any

import numpy as np
import pytest

from benchmarks.net_survival_distance import DATA
from mpc_engine.errors import DocumentError
from mpc_engine.estimators.icss import STANDARDS, SurvivalStandard, standardise


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / "references/netsurv" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def calendar_years(days: Any) -> Any:
    """Return dates as years with fractions, each day a part of its own year, as popEpi counts time."""
    year = days.astype("datetime64[Y]")
    start, end = year.astype("datetime64[D]"), (year + np.timedelta64(1, "Y")).astype("datetime64[D]")
    return 1970 + year.astype(int) + (days - start).astype(int) / (end - start).astype(int)


def test_the_standards_are_the_published_ones() -> None:
    assert {name: standard.weights for name, standard in STANDARDS.items()} == {
        "icss_1": (7, 12, 23, 29, 29),
        "icss_2": (28, 17, 21, 20, 14),
        "icss_3": (60, 10, 10, 10, 10),
        "children": (1, 1, 1),
    }
    for name in ("icss_1", "icss_2", "icss_3"):
        assert sum(STANDARDS[name].weights) == 100
        assert STANDARDS[name].labels == ("15-44", "45-54", "55-64", "65-74", "75+")
    assert STANDARDS["children"].labels == ("0-4", "5-9", "10-14")


def test_popepi_standardised_observed_survival_is_met() -> None:
    # popEpi's life table is not at hand, so its observed survival is compared: same groups, same formula.
    # Times in fractions of years put the deaths of a border day on either side of the border of a month: 16
    # deaths in 60 months fall otherwise in popEpi, which moves a single month by up to 0.00025.
    people = rows("sire_input.csv")
    dates = {
        name: np.array([row[name] for row in people], "datetime64[D]") for name in ("dg_date", "ex_date")
    }
    time = calendar_years(dates["ex_date"]) - calendar_years(dates["dg_date"])
    age = np.array([float(row["dg_age"]) for row in people])
    died = np.array([row["status"] != "0" for row in people])
    standard, edges = STANDARDS["icss_1"], np.arange(61) / 12
    group = np.searchsorted(standard.lower, age, side="right") - 1
    assert group.min() == 0
    survival, error = np.zeros((5, 60)), np.zeros((5, 60))
    for k in range(5):
        own, ends = time[group == k], time[(group == k) & died]
        years = np.diff(np.minimum(own[:, None], edges).sum(axis=0))
        hazard = np.histogram(ends - 1e-6, edges)[0] / years / 12
        survival[k] = np.exp(-np.cumsum(hazard))
        error[k] = survival[k] * np.sqrt(np.cumsum(hazard / years / 12))
    ours = standardise(standard, survival, error)
    reference = rows("popEpi_sire_ICSS1_age_standardised.csv")
    years = [11, 23, 35, 47, 59]
    for name, found, close, closer in (
        ("surv.obs.as", ours.survival, 3e-4, 2e-5),
        ("SE.surv.obs.as", ours.se_sampling, 3e-6, 5e-7),
    ):
        expected = np.array([float(row[name]) for row in reference])
        np.testing.assert_allclose(found, expected, rtol=0, atol=close)
        np.testing.assert_allclose(found[years], expected[years], rtol=0, atol=closer)
    # That the weights are told apart: those of another standard are far off.
    other = standardise(STANDARDS["icss_2"], survival, error).survival
    assert np.abs(other - ours.survival)[years].min() > 0.02


def test_the_formula_and_the_parts_of_the_error() -> None:
    ours = standardise(STANDARDS["children"], [0.9, 0.6, 0.3], [0.03, 0.06, 0.06], [0.04, 0, 0])
    assert ours.survival == pytest.approx(0.6)
    assert ours.se_sampling == pytest.approx(0.03)
    assert ours.se_noise == pytest.approx(0.04 / 3)
    assert ours.se == pytest.approx(math.hypot(0.03, 0.04 / 3))
    lower, upper = ours.limits("plain")
    assert (upper - lower) / 2 == pytest.approx(1.959963985 * ours.se)
    assert ours.limits()[0] == pytest.approx(0.6 * math.exp(-1.959963985 * ours.se / 0.6))


def test_a_group_without_an_estimate_leaves_none() -> None:
    survival = np.array([[0.5, 0.5], [0.4, math.nan], [0.3, 0.3]])
    ours = standardise(STANDARDS["children"], survival, np.full((3, 2), 0.1))
    assert np.isnan(ours.survival).tolist() == [False, True]


def test_a_group_in_which_all_died_adds_no_error() -> None:
    ours = standardise(STANDARDS["children"], [0.0, 0.5, 0.5], [math.nan, 0.3, 0.3])
    assert ours.survival == pytest.approx(1 / 3)
    assert ours.se == pytest.approx(math.sqrt(2) * 0.1)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DocumentError, match="5 age groups"):
        standardise(STANDARDS["icss_1"], [0.1, 0.2, 0.3], 0.1)
    with pytest.raises(DocumentError, match="5 age groups"):
        standardise(STANDARDS["icss_1"], 0.5, 0.1)
    with pytest.raises(DocumentError, match="do not fit"):
        standardise(STANDARDS["children"], [0.1, 0.2, 0.3], [0.1, 0.2])
    for lower, end, weights in (
        ((0, 5), None, (1,)),
        ((5, 0), None, (1, 1)),
        ((0, 5), 5, (1, 1)),
        ((0,), 5, (0,)),
    ):
        with pytest.raises(DocumentError):
            SurvivalStandard("own", lower, end, weights)
