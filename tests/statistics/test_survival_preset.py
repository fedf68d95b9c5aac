"""The survival preset from registered files to its table, against R and lifelines."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter

from tests.statistics.edge.registries import REFERENCES, Study, pick, scenario, study, value

RELAPSE = {"variable": "relapse", "in": ["yes"]}
DAILY = {"unit": "days", "every": 1, "until": 4200}
"""The last relapse is on day 4,173, so that nothing changes afterwards."""
WILMS = REFERENCES / "nwtco"
EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(scope="module")
def wilms(tmp_path_factory: pytest.TempPathFactory) -> Study:
    silos = {
        silo: f'\n[variables.study]\nconstant = "{label}"\n' for silo, label in (("uk", "3"), ("us", "4"))
    }
    extra = '\n[variables.study]\nkind = "category"\ncategories = ["3", "4"]\n'
    return scenario(tmp_path_factory.mktemp("wilms"), "wilms", silos, extra)


@pytest.fixture(scope="module")
def breast(tmp_path_factory: pytest.TempPathFactory) -> Study:
    silos = {
        silo: f'\n[variables.country]\nconstant = "{label}"\n' for silo, label in (("nl", "NL"), ("de", "DE"))
    }
    extra = '\n[variables.country]\nkind = "category"\ncategories = ["NL", "DE"]\n'
    return scenario(tmp_path_factory.mktemp("breast"), "breast", silos, extra)


def relapse_free(wilms: Study, **keys: Any) -> pd.DataFrame:
    asked = {"preset": "survival", "time": "follow_up_days", "event": RELAPSE, "grid": DAILY} | keys
    return wilms.ask(**asked)


@pytest.fixture(scope="module")
def daily(wilms: Study) -> dict[str, pd.DataFrame]:
    return {
        interval: relapse_free(wilms, by=["histology"], compare="histology", interval=interval)
        for interval in ("plain", "log", "log-log")
    }


def curve(frame: pd.DataFrame, statistic: str = "survival", **labels: str) -> pd.DataFrame:
    """Return a statistic's rows in the order of the intervals."""
    return pick(frame, statistic, **labels).reset_index(drop=True)


def test_survival_standard_errors_and_all_intervals_are_those_of_r(daily: dict[str, pd.DataFrame]) -> None:
    reference = pd.read_csv(WILMS / "km_fixed_times.csv")
    wanted = reference[reference["analysis"].isin(["pooled_overall", "pooled_by_histol"])]
    assert len(wanted) == 3 * 3 * 7
    for row in wanted.itertuples():
        label = "(all)" if row.stratum == "all" else row.stratum[-2:]
        frame = daily[row.conf_type]
        there = curve(frame, histology=label).iloc[int(row.time_days) - 1]
        found = [there["value"], there["se_sampling"], there["lcl"], there["ucl"]]
        np.testing.assert_allclose(found, [row.surv, row.se_greenwood, row.lower, row.upper], **EXACT)
        assert there["se_noise"] == 0
        at_risk = curve(frame, "at_risk", histology=label)["value"]
        assert at_risk[int(np.ceil(row.time_days)) - 1] == row.n_risk


def test_eight_strata_are_those_of_r(wilms: Study) -> None:
    frame = relapse_free(wilms, by=["stage", "histology"])
    reference = pd.read_csv(WILMS / "km_fixed_times.csv")
    wanted = reference[
        (reference["analysis"] == "pooled_by_stage_histol") & (reference["conf_type"] == "log-log")
    ]
    assert len(wanted) == 8 * 7
    for stratum, rows in wanted.groupby("stratum"):
        assert isinstance(stratum, str)
        stage = ["I", "II", "III", "IV"][int(stratum[6]) - 1]
        index = rows["time_days"].to_numpy().astype(int) - 1
        found = curve(frame, stage=stage, histology=stratum[-2:]).iloc[index]
        for mine, theirs in (
            ("value", "surv"),
            ("se_sampling", "se_greenwood"),
            ("lcl", "lower"),
            ("ucl", "upper"),
        ):
            np.testing.assert_allclose(found[mine], rows[theirs], **EXACT)


def test_every_day_of_the_curve_is_that_of_r(daily: dict[str, pd.DataFrame]) -> None:
    for name, labels in (("km_full_overall", {"all": "(all)"}), ("km_full_by_histol", None)):
        reference = pd.read_csv(WILMS / f"{name}.csv")
        for stratum, rows in reference.groupby("stratum"):
            assert isinstance(stratum, str)
            label = labels[stratum] if labels else stratum[-2:]
            rows = rows[rows["time"] <= 4200]
            index = rows["time"].to_numpy() - 1
            frame = daily["log"]
            for statistic, column in (("at_risk", "n_risk"), ("events", "n_event"), ("censored", "n_censor")):
                found = curve(frame, statistic, histology=label)["value"].to_numpy()[index]
                np.testing.assert_array_equal(found, rows[column])
            found = curve(frame, histology=label)["value"].to_numpy()[index]
            np.testing.assert_allclose(found, rows["surv"], **EXACT)


@pytest.mark.parametrize(("name", "every"), [("month", 1), ("quarter", 3)])
def test_months_and_quarters_are_those_of_r(wilms: Study, name: str, every: int) -> None:
    grid = {"unit": "months", "every": every, "until": 180}
    frame = relapse_free(wilms, by=["histology"], compare="histology", grid=grid, interval="log")
    reference = pd.read_csv(WILMS / f"km_full_grid_{name}.csv")
    rows = reference[(reference["stratum"] == "all") & (reference["time"] * every <= 180)]
    index = rows["time"].to_numpy() - 1
    label = {"histology": "(all)"}
    np.testing.assert_array_equal(curve(frame, "at_risk", **label)["value"].to_numpy()[index], rows["n_risk"])
    found = curve(frame, **label).iloc[index]
    np.testing.assert_allclose(found["value"], rows["surv"], **EXACT)
    np.testing.assert_allclose(found["se_sampling"] / found["value"], rows["se_log_surv"], **EXACT)
    chi_squared = value(frame, "log_rank_chi_squared")
    assert chi_squared == pytest.approx(
        {"month": 418.296578965435, "quarter": 410.186227800693}[name], rel=1e-9
    )


@pytest.mark.parametrize(
    ("test", "by", "stratified", "step"),
    [
        ("histol", ["histology"], False, None),
        ("stage", ["stage"], False, None),
        ("study", ["study"], False, None),
        ("histol_strat_study", ["histology", "study"], True, None),
        ("stage_strat_histol", ["stage", "histology"], True, None),
        ("histol_strat_study_stage", ["study", "histology", "stage"], True, None),
        ("histol_grid_month", ["histology", "stage"], False, 1),
        ("stage_grid_month", ["histology", "stage"], False, 1),
        ("histol_grid_quarter", ["stage", "histology"], False, 3),
        ("stage_grid_quarter", ["stage"], False, 3),
    ],
)
def test_log_rank_is_that_of_r(
    wilms: Study, test: str, by: list[str], stratified: bool, step: int | None
) -> None:
    variable = {"histol": "histology"}.get(test.split("_")[0], test.split("_")[0])
    grid = DAILY if step is None else {"unit": "months", "every": step, "until": 195}
    if test == "histol":  # all of it once, 5,999 intervals
        grid = DAILY | {"until": 5999}
    frame = relapse_free(wilms, by=by, compare=variable, stratified=stratified, grid=grid)
    (reference,) = [
        each
        for each in json.loads((WILMS / "logrank.json").read_text())
        if (each["test"], each["rho"]) == (test, 0)
    ]
    for statistic in ("chi_squared", "textbook_chi_squared"):
        assert value(frame, f"log_rank_{statistic}") == pytest.approx(reference["chisq"], rel=1e-9)
    assert value(frame, "log_rank_degrees_of_freedom") == reference["df"]
    assert value(frame, "log_rank_p") == pytest.approx(reference["p"], rel=1e-7)
    for statistic in ("observed", "expected"):
        found = pick(frame, f"log_rank_{statistic}")["value"]
        np.testing.assert_allclose(found, reference[statistic], **EXACT)


def test_median_conditional_survival_and_follow_up(wilms: Study, daily: dict[str, pd.DataFrame]) -> None:
    people = pd.read_csv(WILMS / "km_full_overall.csv")
    times = np.repeat(people["time"], people["n_event"] + people["n_censor"]).to_numpy()
    seen = np.concatenate(
        [[1] * e + [0] * c for e, c in zip(people["n_event"], people["n_censor"], strict=True)]
    )
    # Those who relapse on the day of another's censoring are followed for longer.
    reverse = KaplanMeierFitter().fit(times + 0.5 * seen, 1 - seen)
    median = value(daily["log"], "median_follow_up", histology="(all)") * 365.25
    # Interpolated within the day that the half falls into.
    assert reverse.median_survival_time_ - 1 <= median <= reverse.median_survival_time_
    (shown,) = pick(daily["log"], "median_survival", histology="(all)")["display"]
    assert shown == "NR"

    frame = relapse_free(wilms, grid={"edges": [1, 2, 5]}, conditional_on=[1, 2], interval="plain")
    one, two, five = pick(frame, "survival")["value"]
    given = pd.concat([pick(frame, f"conditional_survival_{year}y") for year in (1, 2)])
    assert given["note"].tolist() == [f"given survival to {year}" for year in ("1 year", "1 year", "2 years")]
    assert not frame.duplicated(["statistic", "time"]).any()
    np.testing.assert_allclose(given["value"], [two / one, five / one, five / two], **EXACT)
    np.testing.assert_allclose(given["time"], [2, 5, 5])
    n, d = pick(frame, "at_risk")["value"].to_numpy(), pick(frame, "events")["value"].to_numpy()
    terms = d / (n * (n - d))
    errors = [two / one * terms[1] ** 0.5, five / one * terms[1:].sum() ** 0.5, five / two * terms[2] ** 0.5]
    np.testing.assert_allclose(given["se_sampling"], errors, **EXACT)


def test_actuarial_life_table_by_hand(tmp_path: Any) -> None:
    rows = [{"days": 100, "status": 1}, {"days": 200}, {"days": 500, "status": 1}, {"days": 2000}]
    frame = study(tmp_path, rows).ask(
        preset="survival",
        time="days",
        event={"variable": "status", "in": ["dead"]},
        grid={"edges": [1, 2]},
        method="actuarial",
        interval="plain",
    )
    assert pick(frame, "adjusted_at_risk")["value"].tolist() == [3.5, 2.0]
    np.testing.assert_allclose(pick(frame, "survival")["value"], [2.5 / 3.5, 2.5 / 7], **EXACT)
    greenwood = 2.5 / 7 * np.sqrt(1 / (3.5 * 2.5) + 1 / 2)
    assert pick(frame, "survival")["se_sampling"].iloc[1] == pytest.approx(greenwood, rel=1e-12)


def test_breast_cancer_by_nodes_is_that_of_r(breast: Study) -> None:
    event = {"variable": "relapse_or_death", "in": ["yes"]}
    asked: dict[str, Any] = {
        "preset": "survival",
        "time": "follow_up_days",
        "event": event,
        "interval": "log",
    }
    grid = {"unit": "days", "every": 1, "until": 5840}
    frame = breast.ask(
        **asked, grid=grid, by=["nodes_group", "country"], compare="nodes_group", stratified=True
    )
    tests = {each["test"]: each for each in json.loads((REFERENCES / "breast" / "logrank.json").read_text())}
    assert value(frame, "log_rank_chi_squared") == pytest.approx(
        tests["nodecat strat src"]["chisq"], rel=1e-9
    )
    np.testing.assert_allclose(
        pick(frame, "log_rank_expected")["value"], tests["nodecat strat src"]["exp"], rtol=1e-9
    )
    frame = breast.ask(**asked, grid=grid, by=["nodes_group"], compare="nodes_group")
    assert value(frame, "log_rank_chi_squared") == pytest.approx(tests["nodecat"]["chisq"], rel=1e-9)
    reference = pd.read_csv(REFERENCES / "breast" / "km.csv")
    wanted = reference[reference["a"].isin(["all", "nodes"])]
    assert len(wanted) == 25
    for row in wanted.itertuples():
        label = "(all)" if row.a == "all" else row.stratum.removeprefix("nodecat=")
        there = curve(frame, nodes_group=label).iloc[int(row.t) - 1]
        found = [there["value"], there["se_sampling"], there["lcl"], there["ucl"]]
        np.testing.assert_allclose(found, [row.surv, row.se, row.lo, row.hi], **EXACT)
    for variable, name in (("country", "src"), ("hormonal_treatment", "hormon strat src")):
        by = [variable] if name == "src" else [variable, "country"]
        frame = breast.ask(**asked, grid=grid, by=by, compare=variable, stratified=len(by) > 1)
        assert value(frame, "log_rank_chi_squared") == pytest.approx(tests[name]["chisq"], rel=1e-9)


# --- approaches -------------------------------------------------------------------------------------

OPENS, CLOSES = "2003-03-01", "2006-06-30"
DEAD = {"variable": "status", "in": ["dead"]}
APPROACH = {"diagnosed": "diagnosed", "window": [OPENS, CLOSES]}
SHORT = {"unit": "days", "every": 1, "until": 1800}


def ordinal(text: str) -> int:
    return date.fromisoformat(text).toordinal()


@pytest.fixture(scope="module")
def cohort() -> pd.DataFrame:
    seed = 11
    print(f"seed {seed}")
    draw = np.random.default_rng(seed)
    size = 1500
    days = draw.integers(0, 2500, size)
    first = ordinal("1996-01-01") + draw.integers(0, 4200, size)
    # Ties on the days on which the window opens and closes, and ends of follow-up there.
    edges = [ordinal(OPENS), ordinal(CLOSES)]
    first[:60] = np.repeat(
        [edges[0], edges[1], edges[0] - 1, edges[1] + 1, edges[0] - 1800, edges[0] - 1801], 10
    )
    days[60:80] = edges[0] - first[60:80]
    days[80:100] = edges[1] - first[80:100]
    days[days < 0] = 0
    return pd.DataFrame(
        {
            "id": [f"p{i}" for i in range(size)],
            "sex": np.array(["F", "M"])[draw.integers(0, 2, size)],
            "status": draw.integers(0, 2, size),
            "days": np.minimum(days, 6000),
            "diagnosed": [date.fromordinal(int(each)).isoformat() for each in first],
            "first": first,
        }
    )


@pytest.fixture(scope="module")
def registered(cohort: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Study:
    rows: Any = cohort.drop(columns="first").to_dict("records")
    return study(tmp_path_factory.mktemp("cohort"), rows[:700], rows[700:], [])


def under_observation(cohort: pd.DataFrame) -> pd.DataFrame:
    """Return entry, exit and event of those at risk on any day of the closed window, day by day."""
    rows = []
    for person in cohort.itertuples():
        on_days = [
            t
            for t in range(int(person.days) + 1)
            if ordinal(OPENS) <= person.first + t <= ordinal(CLOSES) and t <= 1800
        ]
        if on_days:
            event = person.status == 1 and on_days[-1] == person.days
            beyond = on_days[-1] == 1800 and person.days > 1800 and person.first + 1801 <= ordinal(CLOSES)
            rows.append((person.sex, on_days[0], on_days[-1] + beyond, event))
    return pd.DataFrame(rows, columns=["sex", "entry", "exit", "event"])


def test_period_approach_is_left_truncated_kaplan_meier(registered: Study, cohort: pd.DataFrame) -> None:
    asked = {"preset": "survival", "time": "days", "event": DEAD, "grid": SHORT, "approach": "period"}
    frame = registered.ask(**asked, **APPROACH, by=["sex"], method="kaplan-meier")
    whole = under_observation(cohort)
    for sex, people in [("(all)", whole), *whole.groupby("sex")]:
        assert value(frame, "patients", sex=str(sex)) == len(people)
        # Who enters on day t is at risk on that day, hence entered before it; day 0 goes with day 1.
        entry = np.where(people["entry"] > 1, people["entry"] - 0.5, 0)
        fit = KaplanMeierFitter().fit(np.maximum(people["exit"], 1), people["event"], entry=entry)
        assert set(pick(frame, "median_follow_up", sex=str(sex))["flag"]) == {"z"}
        shown = curve(frame, sex=str(sex))
        events = fit.event_table["observed"]
        days = events.index[events > 0].to_numpy()
        expected = fit.survival_function_at_times(days).to_numpy()
        index = days.astype(int) - 1
        np.testing.assert_allclose(shown["value"].to_numpy()[index], expected, rtol=1e-9)
        at_risk = curve(frame, "at_risk", sex=str(sex))["value"].to_numpy()
        for day in (2, 30, 365, 900, 1799):
            assert at_risk[day - 1] == ((people["entry"] <= day) & (people["exit"] >= day)).sum()


def test_period_by_hand(tmp_path: Any) -> None:
    """Opening 1 March 2003 (day 0 of the comments), closing 30 June 2006 (day 1217), a grid of two years."""
    start = ordinal(OPENS)

    def born(offset: int) -> str:
        return date.fromordinal(start + offset).isoformat()

    rows = [
        {"diagnosed": born(-100), "days": 100, "status": 1},  # dies on the day of opening: counts
        {"diagnosed": born(-100), "days": 99, "status": 1},  # a day earlier: not
        {"diagnosed": born(0), "days": 0, "status": 1},  # diagnosed and dead on that day: from time 0
        {"diagnosed": born(1217), "days": 5, "status": 1},  # diagnosed on the last day, dies after it
        {"diagnosed": born(1218), "days": 5, "status": 1},  # diagnosed after it
        {"diagnosed": born(1000), "days": 217, "status": 1},  # dies on the last day: an event
        {"diagnosed": born(1000), "days": 218, "status": 1},  # a day later: censored
        {"diagnosed": born(-730), "days": 731, "status": 1},  # enters on the grid's last day, ends beyond
        {"diagnosed": born(-731), "days": 731, "status": 1},  # enters beyond the grid: not
        {"diagnosed": "", "days": 731, "status": 1},  # unknown: not
    ]
    frame = study(tmp_path, rows).ask(
        preset="survival", time="days", event=DEAD, grid={"edges": [1, 2]}, approach="period", **APPROACH
    )
    assert value(frame, "patients") == 6
    assert pick(frame, "events")["value"].tolist() == [3, 0]
    assert pick(frame, "censored")["value"].tolist() == [2, 0]
    assert pick(frame, "entered")["value"].tolist() == [1, 1]
    assert pick(frame, "at_risk")["value"].tolist() == [5, 1]


def test_cohort_approach_takes_the_diagnosed_of_the_window(registered: Study, cohort: pd.DataFrame) -> None:
    frame = registered.ask(
        preset="survival",
        time="days",
        event=DEAD,
        grid=SHORT,
        approach="cohort",
        followed_until="2016-12-31",  # after the last diagnosis that the codebook allows
        **APPROACH,
    )
    chosen = cohort[(cohort["first"] >= ordinal(OPENS)) & (cohort["first"] <= ordinal(CLOSES))]
    fit = KaplanMeierFitter().fit(np.maximum(chosen["days"], 1), chosen["status"])
    assert value(frame, "patients") == len(chosen)
    days = np.arange(1, 1801)
    np.testing.assert_allclose(
        pick(frame, "survival")["value"], fit.survival_function_at_times(days), rtol=1e-9
    )


def test_complete_approach_on_uneven_edges_is_the_daily_curve_there(
    registered: Study, cohort: pd.DataFrame
) -> None:
    """Binning changes the curve only through the order of ties: with all events first it would not."""
    frame = registered.ask(
        preset="survival", time="days", event=DEAD, grid={"unit": "days", "edges": [1, 7, 90]}
    )
    n = len(cohort)
    expected, survival = [], 1.0
    for low, high in ((-1, 1), (1, 7), (7, 90)):
        inside = cohort[(cohort["days"] > low) & (cohort["days"] <= high)]
        survival *= 1 - inside["status"].sum() / n
        n -= len(inside)
        expected.append(survival)
    np.testing.assert_allclose(pick(frame, "survival")["value"], expected, rtol=1e-12)
