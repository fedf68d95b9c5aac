"""The preset incidence from registered files to its table, against R and published cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mpc_engine.codebook import load_codebook
from mpc_engine.silo.register import load_registration, register
from tests.statistics.edge.registries import (
    REFERENCES,
    ROOT,
    Study,
    pick,
    value,
)
from tests.statistics.public_files import ask, codebook

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

ASR = REFERENCES / "asr"
SCENARIO = ROOT / "scenarios" / "incidence"
EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-12}
INTERVALS = {
    "dobson-byar": "dobson_byar",
    "dobson-exact": "dobson_exact",
    "fay-feuer": "fayfeuer",
    "normal": "normal",
}
SCHEMES = {
    "us2000_19": "us_2000",
    "segi1960_18": "segi_1960",
    "who2000_18": "who_2000",
    "esp2013_18": "esp_2013",
}
CHILDREN = [{"variable": "age_group", "in": ["<1", "1-4", "5-9", "10-14"]}]
BY_YEAR: dict[str, Any] = {
    "preset": "incidence",
    "by": ["year"],
    "age": "age_group",
    "population": "population",
    "per": 1_000_000,
}


@pytest.fixture(scope="module")
def america(tmp_path_factory: pytest.TempPathFactory) -> Study:
    found = []
    for silo in "ab":
        state = tmp_path_factory.mktemp(silo)
        register(SCENARIO / f"{silo}.mapping.toml", state)
        found.append(load_registration(state))
    return Study(load_codebook(SCENARIO / "codebook.toml"), tuple(found))


def strata(frame: pd.DataFrame, statistic: str, **labels: str) -> pd.DataFrame:
    """Return the rows of single strata, without those of all together."""
    found = pick(frame, statistic, **labels)
    return found[found[frame.columns[1]] != "(all)"]


def reference(ages: str, scheme: str) -> pd.DataFrame:
    whole = pd.read_csv(ASR / "us_uscs_asr_by_year.csv")
    found = whole[(whole["ages"] == ages) & (whole["standard"] == scheme)]
    assert len(found) == 19
    return found


def test_counts_by_year_and_age_are_the_published_ones(america: Study) -> None:
    frame = america.ask(**BY_YEAR)
    truth = pd.read_csv(ASR / "us_uscs_counts.csv")
    truth = truth[truth["Age"].isin(america.codebook.labels("age_group"))]
    cases = pick(frame, "cases")
    by_age = cases[cases["age_group"] != "(all)"]
    everything = cases[(cases["age_group"] == "(all)") & (cases["year"] == "(all)")]
    assert everything["value"].tolist() == [139_125 + 138_780]
    np.testing.assert_array_equal(by_age["value"], truth["Count"])
    whole = strata(frame, "cases", age_group="(all)")
    np.testing.assert_array_equal(whole["value"], truth.groupby("Year")["Count"].sum())
    assert whole["value"].sum() == 139_125 + 138_780
    specific = pick(frame, "age_specific_rate")
    np.testing.assert_allclose(specific["value"], truth["Count"] / truth["Population"] * 1e6, **EXACT)
    np.testing.assert_allclose(
        specific["se_sampling"], truth["Count"] ** 0.5 / truth["Population"] * 1e6, **EXACT
    )


@pytest.mark.parametrize("method", INTERVALS)
@pytest.mark.parametrize(
    ("ages", "schemes"), [("0-14", ("us2000_19", "segi1960_18", "who2000_18")), ("0-19", ("us2000_19",))]
)
def test_rates_of_children_are_those_of_r(
    america: Study, ages: str, schemes: tuple[str, ...], method: str
) -> None:
    asked = BY_YEAR | {"standards": [SCHEMES[each] for each in schemes], "standard_interval": method}
    frame = america.ask(**asked, where=CHILDREN if ages == "0-14" else [])
    for scheme in schemes:
        truth = reference(ages, scheme)
        found = strata(frame, "standardised_rate", standard=SCHEMES[scheme])
        assert (found["ci_method"] == method).all() and (found["se_noise"] == 0).all()
        for mine, theirs in (("value", "asr"), ("se_sampling", "se"), ("n_shown", "count")):
            np.testing.assert_allclose(found[mine], truth[theirs], **EXACT)
        np.testing.assert_allclose(found["lcl"], truth[f"{INTERVALS[method]}_lo"], **EXACT)
        np.testing.assert_allclose(found["ucl"], truth[f"{INTERVALS[method]}_hi"], **EXACT)
        np.testing.assert_allclose(strata(frame, "crude_rate")["value"], truth["crude"], **EXACT)
    if ages == "0-14":  # the filter leaves these ages no population, and they have no part in the rates
        left_out = pick(frame, "age_specific_rate", age_group="15-19")
        assert (left_out["flag"] == "z").all() and len(left_out) == 19


def test_the_key_number_of_nineteen_years(america: Study) -> None:
    frame = america.ask(**(BY_YEAR | {"by": [], "standards": ["us_2000"], "where": CHILDREN}))
    (found,) = pick(frame, "standardised_rate").to_dict("records")
    assert round(found["value"], 3) == 163.399
    # The limits that are quoted with it do not say of which method; all differ by less than this.
    assert [found["lcl"], found["ucl"]] == pytest.approx([162.663, 164.139], abs=1e-3)
    assert found["display"] == "163.4" and found["n_shown"] == value(frame, "cases", age_group="(all)")


def test_filters_hold_for_cases_and_population_alike(america: Study) -> None:
    frame = america.ask(**BY_YEAR, where=[{"variable": "year", "between": [2004, 2009]}, *CHILDREN])
    truth = reference("0-14", "who2000_18").set_index("year")
    found = strata(frame, "crude_rate").set_index("year")
    inside = [str(year) for year in range(2004, 2010)]
    np.testing.assert_allclose(found.loc[inside, "value"], truth.loc[2004:2009, "crude"], **EXACT)
    assert (found.drop(inside)["flag"] == "z").all()


def test_cumulative_rate_and_risk(america: Study) -> None:
    frame = america.ask(**BY_YEAR, cumulative_to=20)
    truth = pd.read_csv(ASR / "us_uscs_counts.csv").query("Year == 2010").iloc[:5]
    rates = (truth["Count"] / truth["Population"]).to_numpy()
    cumulative = float(np.dot(rates, [1, 4, 5, 5, 5]))
    assert value(frame, "cumulative_rate", year="2010") == pytest.approx(100 * cumulative, rel=1e-12)
    assert value(frame, "cumulative_risk", year="2010") == pytest.approx(
        -100 * np.expm1(-cumulative), rel=1e-12
    )
    to_fifteen = america.ask(**BY_YEAR, cumulative_to=15, where=CHILDREN)
    shorter = 100 * float(np.dot(rates[:4], [1, 4, 5, 5]))
    found = pick(to_fifteen, "cumulative_rate", year="2010")
    assert found["value"].item() == pytest.approx(shorter, rel=1e-12)
    assert found["note"].item() == "per cent, ages 0 to 14"


def test_strata_against_all_together(america: Study) -> None:
    frame = america.ask(**BY_YEAR, ratio="internal")
    truth = pd.read_csv(ASR / "us_uscs_counts.csv")
    truth = truth[truth["Age"].isin(america.codebook.labels("age_group"))]
    pooled = truth.groupby("Age")[["Count", "Population"]].sum()
    rates = truth["Age"].map(pooled["Count"] / pooled["Population"])
    expected = (rates * truth["Population"]).groupby(truth["Year"]).sum().to_numpy()
    observed = truth.groupby("Year")["Count"].sum().to_numpy()
    sir = pick(frame, "sir")
    np.testing.assert_allclose(sir["value"], observed / expected, **EXACT)
    np.testing.assert_allclose(pick(frame, "expected_cases")["value"], expected, **EXACT)
    # The exact funnel is made of Poisson probabilities: beyond the limits lie at most 2.5 and 0.1 %.
    for tail, name in ((0.025, "95"), (0.001, "998")):
        upper = pick(frame, f"funnel_upper_{name}")["value"].to_numpy() * expected
        lower = pick(frame, f"funnel_lower_{name}")["value"].to_numpy() * expected
        assert (stats.poisson.sf(np.ceil(upper), expected) < tail).all()
        assert (stats.poisson.cdf(np.floor(lower) - 1, expected) < tail).all()
        assert (np.abs(upper - expected - stats.norm.isf(tail) * expected**0.5) < 4).all()
    assert sir["note"].str.startswith(("Low (0.001);", "High (0.001);")).sum() > 10
    assert sir["note"].str.endswith("against all shown strata together").all()


def test_published_cases_of_englands_agency(tmp_path: Path) -> None:
    cells = pd.read_csv(ASR / "phe_test_input.csv")
    areas = ["testdata_big", "testdata_small", "testdata_tiny"]
    cells = cells[cells["area"].isin(areas)].copy()
    cells["ageband"] = cells["ageband"].replace("55-69", "55-59")  # a slip of the published sheet
    labels = list(cells["ageband"].iloc[:19])
    people = "".join(f"{row.area},{row.ageband},{row.pop}\n" for row in cells.itertuples())
    book = codebook(
        tmp_path,
        f'[variables]\narea = {{ kind = "category", categories = {areas} }}\n'
        f'age = {{ kind = "category", categories = {labels} }}\n',
        people=("population", f"area,age,population\n{people}"),
    )
    counts = cells["count"].fillna(0).to_numpy().reshape(3, 19)
    weights = cells["esp2013"].iloc[:19].astype(int).tolist()
    published = pd.read_csv(ASR / "phe_test_expected.csv").query("method == 'Dobson'")
    for per in (10_000, 100_000):
        keys: dict[str, Any] = {"by": ["area"], "age": "age", "per": per, "least_events": 10}
        frame = ask(book, counts, **keys, standards=["esp_2013"], weights=weights)
        wanted = published[published["statistic"] == f"dsr per {per}"].set_index("area")
        for standard in ("esp_2013", "own"):
            found = pick(frame, "standardised_rate", standard=standard).set_index("area")
            for area in areas[:2]:
                assert found.loc[area, "value"] == pytest.approx(wanted.loc[area, "value"], rel=1e-12)
                assert found.loc[area, "lcl"] == pytest.approx(wanted.loc[area, "lower95_0cl"], rel=1e-12)
                assert found.loc[area, "ucl"] == pytest.approx(wanted.loc[area, "upper95_0cl"], rel=1e-12)
            assert found.loc["testdata_tiny", "flag"] == "x"
            assert str(found.loc["testdata_tiny", "note"]).endswith("not shown for fewer than 10 cases")
        totals = strata(frame, "cases", age="(all)").set_index("area")["value"]
        assert totals.tolist() == [895, 91, 9]


@pytest.mark.parametrize(
    ("source", "schemes"), [("us", [*SCHEMES][1:]), ("dk", ["who2000_18", "segi1960_18"])]
)
def test_all_ages_under_all_standards_are_those_of_r(tmp_path: Path, source: str, schemes: list[str]) -> None:
    if source == "us":
        cells = pd.read_csv(ASR / "us_uscs_counts.csv")
        cells.columns = pd.Index(["period", "age", "cases", "people"])
        cells["age"] = cells["age"].replace({"<1": "0-4", "1-4": "0-4"})
        cells = cells.groupby(["period", "age"], sort=False).sum().reset_index()
        truth = pd.read_csv(ASR / "us_uscs_asr_by_year.csv").rename(columns={"year": "when"})
    else:
        cells = pd.read_csv(ASR / "testisDK_cells_5y_period.csv")
        cells.columns = pd.Index(["age", "period", "cases", "people"])
        truth = pd.read_csv(ASR / "testisDK_asr.csv").rename(columns={"period": "when"})
    periods, labels = list(cells["period"].unique()), list(cells["age"].unique())
    if source == "dk":
        labels = labels[:18]
        cells = cells[cells["age"].isin(labels)]
    cells = cells.set_index(["period", "age"]).loc[[(p, a) for p in periods for a in labels]].reset_index()
    people = "".join(f"{row.period},{row.age},{row.people!r}\n" for row in cells.itertuples())
    book = codebook(
        tmp_path,
        f'[variables]\nperiod = {{ kind = "category", categories = {[str(p) for p in periods]} }}\n'
        f'age = {{ kind = "category", categories = {labels} }}\n',
        people=("population", f"period,age,population\n{people}"),
    )
    counts = cells["cases"].to_numpy().reshape(len(periods), 18)
    for method in INTERVALS:
        asked: dict[str, Any] = {"by": ["period"], "age": "age", "standard_interval": method}
        frame = ask(book, counts, **asked, standards=[SCHEMES[each] for each in schemes])
        for scheme in schemes:
            wanted = truth[
                (truth["ages"] == "all") & (truth["standard"] == scheme) & (truth["when"] != "all")
            ]
            found = strata(frame, "standardised_rate", standard=SCHEMES[scheme])
            assert len(found) == len(wanted) == len(periods)
            for mine, theirs in (("value", "asr"), ("se_sampling", "se")):
                np.testing.assert_allclose(found[mine], wanted[theirs], **EXACT)
            low = np.maximum(wanted[f"{INTERVALS[method]}_lo"], 0)
            np.testing.assert_allclose(found["lcl"], low, **EXACT)
            np.testing.assert_allclose(found["ucl"], wanted[f"{INTERVALS[method]}_hi"], **EXACT)
