"""The preset net_survival from registered files to its table, against relsurv, popEpi and direct sums."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.net_survival_distance import Distance, cohort, distances, population, relsurv
from mpc_engine.codebook import load_codebook
from mpc_engine.estimators.net_survival_records import net_survival_of_records
from mpc_engine.estimators.population_tables import YEAR_DAYS
from mpc_engine.silo.register import load_registration, register
from mpc_engine.statistics.presets import parse_query
from tests.statistics.edge.registries import PRIVACY, ROOT, Study, pick, table, with_noise

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

SCENARIO = ROOT / "scenarios" / "colorectal"
STAGES = ("1", "2", "3", "unknown")
ASKED: dict[str, Any] = {
    "preset": "net_survival",
    "time": "follow_up_days",
    "event": {"variable": "vital_status", "in": ["dead"]},
    "age": "age_10",
    "sex": "sex",
    "period": [1994, 2000],
    "life_table": "slovenia",
    "grid": {"every": 1, "until": 5},
}
MONTHLY = {"unit": "months", "every": 1, "until": 60}


@pytest.fixture(scope="module")
def slovenia(tmp_path_factory: pytest.TempPathFactory) -> Study:
    found = []
    for silo in "abc":
        state = tmp_path_factory.mktemp(silo)
        register(SCENARIO / f"{silo}.mapping.toml", state)
        found.append(load_registration(state))
    return Study(load_codebook(SCENARIO / "codebook.toml"), tuple(found))


@pytest.fixture(scope="module")
def measured() -> dict[tuple[str, str, str, str], Distance]:
    return {
        (each.grid, each.age_groups, each.period, each.estimator): each
        for each in distances()
        if each.form == "product"
    }


def at_years(frame: pd.DataFrame, statistic: str = "net_survival", **labels: str) -> np.ndarray:
    """Return a statistic at 1, 3 and 5 years, over all ages unless said otherwise."""
    ages = {name: "(all)" for name in ("age_10", "age_group") if name in frame and name not in labels}
    found = pick(frame, statistic, **ages, **labels)
    return np.array([found[np.isclose(found["time"], year)]["value"].item() for year in (1, 3, 5)])


def test_counts_are_those_of_the_pooled_patients(slovenia: Study) -> None:
    people = cohort()
    frame = slovenia.ask(**ASKED, by=["stage"])
    days, dead = people.patients.exit_days, people.patients.died
    for stage, code in zip(STAGES, ("1", "2", "3", "99"), strict=True):
        held = people.stage == code
        assert pick(frame, "patients", stage=stage)["value"].item() == held.sum()
        for index, (low, high) in enumerate(
            zip((0, 365, 730, 1095, 1461), (365, 730, 1095, 1461, 1826), strict=True)
        ):
            within = held & (days > low) & (days <= high)
            for statistic, wanted in (
                ("at_risk", held & (days > low)),
                ("events", within & dead),
                ("censored", within & ~dead),
            ):
                found = pick(frame, statistic, stage=stage)["value"].iloc[index]
                assert found == wanted.sum(), (stage, index, statistic)


ANNUAL = {"every": 1, "until": 5}


@pytest.mark.parametrize(
    ("estimator", "grid", "name", "ages", "groups", "whole"),
    [
        ("pohar-perme", ANNUAL, "annual", "age_10", "10-year", True),
        ("pohar-perme", ANNUAL, "annual", "age_10", "10-year", False),
        ("pohar-perme", MONTHLY, "monthly", "age_10", "10-year", True),
        ("pohar-perme", ANNUAL, "annual", "age_group", "ICSS", True),
        ("ederer-2", ANNUAL, "annual", "age_10", "10-year", True),
        ("ederer-2", MONTHLY, "monthly", "age_group", "ICSS", False),
    ],
)
def test_distance_from_relsurv_is_the_documented_one(
    slovenia: Study,
    measured: Mapping[tuple[str, str, str, str], Distance],
    estimator: str,
    grid: dict[str, Any],
    name: str,
    ages: str,
    groups: str,
    whole: bool,
) -> None:
    when = {} if whole else {"period": None, "year": "diagnosis_year"}
    asked = {key: each for key, each in (ASKED | when).items() if each is not None}
    frame = slovenia.ask(**(asked | {"age": ages, "estimator": estimator, "grid": grid}), by=["stage"])
    wanted = measured[name, groups, "whole" if whole else "1 year", estimator]
    overall, staged = relsurv()
    # The registries' ages are completed by three calendars; a patient at a border may be a group apart.
    away = at_years(frame, stage="(all)") - overall[estimator]  # type: ignore[index]
    np.testing.assert_allclose(away, wanted.overall, atol=3e-5)
    if estimator == "pohar-perme":
        for stage, truth, distance in zip(STAGES, staged, wanted.by_stage, strict=True):
            np.testing.assert_allclose(at_years(frame, stage=stage) - truth, distance, atol=1e-4)
    if groups == "10-year":
        assert np.abs(away).max() < 4.5e-3
    assert (pick(frame, "net_survival", stage="(all)")["note"] == "all strata together").all()


def test_records_in_the_clear_are_relsurv(slovenia: Study) -> None:
    people, lives = cohort(), population()
    overall, staged = relsurv()
    times = np.array([1, 3, 5]) * YEAR_DAYS
    found = net_survival_of_records(lives, people.patients, times, form="relsurv")
    np.testing.assert_allclose(found.survival, overall["pohar-perme"], atol=1e-4)
    second = net_survival_of_records(lives, people.patients, times, estimator="ederer-2", form="relsurv")
    np.testing.assert_allclose(second.survival, overall["ederer-2"], atol=1e-4)
    for code, truth in zip(("1", "2", "3", "99"), staged, strict=True):
        part = net_survival_of_records(
            lives, people.patients.where(people.stage == code), times, form="relsurv"
        )
        np.testing.assert_allclose(part.survival, truth, atol=1.5e-4)


def test_sites_are_near_the_records(slovenia: Study) -> None:
    people, lives = cohort(), population()
    site = np.concatenate(
        [
            pd.read_csv(ROOT / "data" / "colorectal" / f"silo_{silo}.csv", dtype=str)[column].isin(rectum)
            for silo, column, rectum in (
                ("A", "site_icd10", ["C20"]),
                ("B", "ICDO3_SITE", ["C209"]),
                ("C", "rectum", ["1"]),
            )
        ]
    )
    frame = slovenia.ask(**ASKED, by=["site"])
    for label, held in (("C18", ~site), ("C20", site)):
        truth = net_survival_of_records(lives, people.patients.where(held), np.array([1, 3, 5]) * YEAR_DAYS)
        np.testing.assert_allclose(at_years(frame, site=label), truth.survival, atol=6e-3)


def test_standardised_for_age_is_near_popepi_and_adds_up(slovenia: Study) -> None:
    frame = slovenia.ask(**ASKED, standard="icss_1", by_age=True)
    ages = slovenia.codebook.labels("age_10")
    assert set(frame["age_10"]) == {"(all)", *ages}
    whole = slovenia.ask(**(ASKED | {"age": "age_group"}), standard="icss_1", by_age=True)
    assert set(slovenia.ask(**ASKED, standard="icss_1")["age_10"]) == {"(all)"}  # by age only if asked for
    shares = np.array([7, 12, 23, 29, 29]) / 100
    by_age = [at_years(whole, age_group=label) for label in slovenia.codebook.labels("age_group")]
    np.testing.assert_allclose(at_years(whole, "standardised_net_survival"), shares @ by_age, rtol=1e-12)
    found = pick(frame, "standardised_net_survival")
    assert (found["standard"] == "icss_1").all() and (found["flag"] == "ok").all()
    # popEpi standardised the same kind of data of another cohort of this registry; here: records by group.
    people, lives = cohort(), population()
    years = people.patients.age_days / YEAR_DAYS
    edges = (0, 45, 55, 65, 75, 200)
    records = [
        net_survival_of_records(
            lives, people.patients.where((years >= low) & (years < high)), np.array([1, 3, 5]) * YEAR_DAYS
        ).survival
        for low, high in pairwise(edges)
    ]
    np.testing.assert_allclose(at_years(frame, "standardised_net_survival"), shares @ records, atol=4e-3)


def test_observed_survival_is_the_actuarial_one(slovenia: Study) -> None:
    frame = slovenia.ask(**(ASKED | {"estimator": "ederer-2"}))
    people = cohort().patients
    survival, spread = 1.0, 0.0
    for index, (low, high) in enumerate(
        zip((0, 365, 730, 1095, 1461), (365, 730, 1095, 1461, 1826), strict=True)
    ):
        within = (people.exit_days > low) & (people.exit_days <= high)
        died, lost = (within & people.died).sum(), (within & ~people.died).sum()
        at_risk = (people.exit_days > low).sum() - lost / 2
        survival *= 1 - died / at_risk
        spread += died / (at_risk * (at_risk - died))
        row = pick(frame, "survival").iloc[index]
        assert row["value"] == pytest.approx(survival, rel=1e-12)
        assert row["se_sampling"] == pytest.approx(survival * spread**0.5, rel=1e-12)
    expected = pick(frame, "expected_survival")["value"].to_numpy()
    net = pick(frame, "net_survival", age_10="(all)")["value"].to_numpy()
    observed = pick(frame, "survival")["value"].to_numpy()
    np.testing.assert_allclose(net, observed / expected, rtol=1e-12)


def period_truth(estimator: str, opens: str, closes: str) -> np.ndarray:
    """Return period net survival at 1, 3 and 5 years by sums over days of patients' own hazards."""
    patients, lives, days = cohort().patients, population(), 1826
    first, last = (int(np.datetime64(each).astype(int)) for each in (opens, closes))
    entry = np.maximum(first - patients.diagnosis, 0)
    leaving = np.minimum(patients.exit_days, last - patients.diagnosis)
    died = patients.died & (patients.diagnosis + patients.exit_days <= last)
    deaths, at_risk, expected = np.zeros((3, days))
    day = np.arange(days)
    for rows in np.array_split(np.flatnonzero((leaving > entry) & (entry < days)), 8):
        hazard = lives.step_hazards(
            patients.sex[rows], patients.age_days[rows], patients.diagnosis[rows], day.astype(float)
        )
        weight = (
            np.exp(np.cumsum(hazard, axis=1) - hazard) if estimator == "pohar-perme" else np.ones_like(hazard)
        )
        there = (day >= entry[rows, None]) & (day < leaving[rows, None])
        at_risk += (weight * there).sum(axis=0)
        expected += (weight * there * hazard).sum(axis=0)
        gone = np.flatnonzero(died[rows] & (leaving[rows] <= days))
        when = leaving[rows][gone].astype(int) - 1
        np.add.at(deaths, when, weight[gone, when])
    curve = np.cumprod(1 - deaths / at_risk) * np.exp(np.cumsum(expected / at_risk))
    return np.asarray(curve[[364, 1094, 1825]])


@pytest.mark.parametrize("estimator", ["pohar-perme", "ederer-2"])
@pytest.mark.parametrize("year", [None, "diagnosis_year"])
def test_the_period_approach(slovenia: Study, estimator: str, year: str | None) -> None:
    window = ["1998-01-01", "2000-12-31"]
    asked = {key: each for key, each in ASKED.items() if key != "period"}
    asked |= {"approach": "period", "diagnosed": "diagnosis_date", "window": window, "estimator": estimator}
    frame = slovenia.ask(**asked, **({} if year is None else {"year": year}))
    np.testing.assert_allclose(at_years(frame), period_truth(estimator, *window), atol=5e-3)
    complete = slovenia.ask(**(ASKED | {"estimator": estimator}))
    assert np.abs(at_years(complete) - at_years(frame)).max() > 5e-3  # it is another question


def test_filters_on_age_and_sex_leave_only_their_cells(slovenia: Study) -> None:
    people, lives = cohort().patients, population()
    where = [
        {"variable": "sex", "in": ["female"]},
        {"variable": "age_10", "in": ["55-64", "65-74"]},
    ]
    frame = slovenia.ask(**ASKED, where=where, by_age=True)
    assert set(frame["age_10"]) == {"(all)", "55-64", "65-74"}
    years = people.age_days / 365.25
    held = (people.sex == 1) & (years >= 55) & (years < 75)
    truth = net_survival_of_records(lives, people.where(held), np.array([1, 3, 5]) * YEAR_DAYS)
    np.testing.assert_allclose(at_years(frame), truth.survival, atol=5e-3)
    # With noise, cells that the filters empty would only add to it.
    codebook = slovenia.codebook
    asked = parse_query({**ASKED, "where": where, "privacy": PRIVACY})
    sums = slovenia.sums(asked)
    zero = [np.zeros(len(each)) for each in sums]
    noisy = table(asked, codebook, with_noise(asked, codebook, sums, [2.0, 2.0], zero))
    cells = 2  # two age groups of one sex, not sixteen
    observed = pick(noisy, "survival").iloc[0]
    gradient = observed["se_noise"] ** 2 / (2.0 * cells)
    d, n = pick(noisy, "events")["value"].iloc[0], pick(noisy, "at_risk")["value"].iloc[0]
    c = pick(noisy, "censored")["value"].iloc[0]
    risk = n - c / 2
    exact = (risk - d) ** 2 / risk**4 + (d / risk**2 / 2) ** 2 + 9 * (d / risk**2) ** 2
    assert gradient == pytest.approx(exact, rel=1e-6)
