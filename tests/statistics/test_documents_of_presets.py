"""Documents of the survival presets, grids of time, the tidy table, and digests of all presets."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.codebook import Codebook, IntegerVariable, load_codebook
from mpc_engine.documents import parse
from mpc_engine.errors import DocumentError
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.tidy import PERCENT, Style, Tidy
from mpc_engine.statistics.timegrid import STEPS_BY_SIZE, TimeGrid
from tests.statistics.edge.registries import CODEBOOK, PRIVACY

SURVIVAL: dict[str, Any] = {
    "preset": "survival",
    "time": "days",
    "event": {"variable": "status", "in": ["dead"]},
    "grid": {"edges": [1, 5, 10]},
    "privacy": PRIVACY,
}
PERIOD = {"approach": "period", "diagnosed": "diagnosed", "window": ["2000-01-01", "2005-12-31"]}
COHORT = PERIOD | {"approach": "cohort", "followed_until": "2020-12-31"}


@pytest.fixture(scope="module")
def codebook(tmp_path_factory: pytest.TempPathFactory) -> Codebook:
    path = tmp_path_factory.mktemp("book") / "codebook.toml"
    path.write_text(CODEBOOK, encoding="utf-8")
    return load_codebook(path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"time": "sex"}, "time: 'sex' is not an integer variable"),
        ({"time": "code"}, "time: is in code; follow-up is measured in days, months, years"),
        ({"time": "signed"}, "time: may be negative by the codebook, from -5"),
        ({"time": "day"}, "time: 'day' is not an integer"),
        ({"event": {"variable": "status", "in": ["gone"]}}, r"event\.in\[0\]: 'gone' is not in the codebook"),
        ({"event": {"variable": "state", "in": ["dead"]}}, r"event\.variable: the codebook has no"),
        ({"event": {"variable": "status", "in": []}}, r"event\.in: must have at least 1"),
        ({"event": {"variable": "status"}}, r"event\.in: is required"),
        ({"grid": {}}, "grid: needs exactly one of"),
        ({"grid": {"edges": [1, 1]}}, r"grid\.edges\[1\]: is 1, not above"),
        ({"grid": {"edges": [0, 1]}}, r"grid\.edges\[0\]: must be at least 1"),
        ({"grid": {"edges": [1], "until": 2}}, r"grid\.until: goes with"),
        ({"grid": {"every": 2, "until": 5}}, r"grid\.until: is 5, no multiple"),
        ({"grid": {"every": 1, "until": 90_000}}, r"grid\.until: makes more than 20000 intervals"),
        ({"grid": {"expected_cases": 10, "until": 5, "unit": "days"}}, r"grid\.unit: is years"),
        ({"grid": {"edges": [1, 50]}}, "grid: ends at 18262.5 days, beyond the codebook's 7000"),
        (
            {"time": "months", "grid": {"unit": "days", "edges": [10, 900]}},
            "grid: has edges that whole months cannot tell apart",
        ),
        ({"compare": "sex"}, "compare: must be one of `by`, which is empty"),
        ({"by": ["sex"], "stratified": True}, "stratified: needs `compare`"),
        ({"by": ["sex"], "compare": "sex", "stratified": True}, "stratified: needs"),
        ({"by": ["sex"], "compare": "sex", **PERIOD}, "compare: goes with the approaches complete and"),
        ({"conditional_on": [2]}, r"conditional_on\[0\]: is no edge"),
        ({"conditional_on": [10]}, r"conditional_on\[0\]: is no edge of the grid before its last"),
        ({"conditional_on": [1, 1]}, r"conditional_on\[1\]: 1 occurs twice"),
        ({"approach": "period"}, "diagnosed: goes with the approaches"),
        ({"diagnosed": "diagnosed"}, "diagnosed: goes with the approaches"),
        ({"followed_until": "2020-12-31"}, "followed_until: goes with the approach cohort"),
        (COHORT | {"followed_until": None} | {"window": None}, "window: goes with"),
        (PERIOD | {"diagnosed": "age"}, "diagnosed: 'age' is not a date variable"),
        (PERIOD | {"window": ["2000-01-01", "soon"]}, r"window\[1\]: is 'soon'; it must be a date"),
        (PERIOD | {"window": ["2001-01-01", "2000-12-31"]}, "window: closes before it opens"),
        (PERIOD | {"window": ["1980-01-01", "1989-12-31"]}, "window: closes before the first diagnosis"),
        (PERIOD | {"window": ["2026-01-01", "2027-12-31"]}, "window: opens when even the last"),
        (PERIOD | {"time": "months"}, "time: is in months; the approaches cohort and period need it in days"),
        (COHORT | {"window": ["2000-01-01", "2016-01-01"]}, r"window\[1\]: .*from 1990-01-01 to 2015-12-31"),
        (COHORT | {"followed_until": "2015-12-30"}, "followed_until: is too early"),
        (COHORT | {"followed_until": "later"}, "followed_until: must be a date"),
        ({"interval": "exact"}, "interval: must be one of"),
        ({"method": "weibull"}, "method: must be"),
        ({"extra": 1}, "extra: is not a key known here"),
    ],
)
def test_wrong_survival_queries_name_the_key_once(
    codebook: Codebook, keys: dict[str, Any], message: str
) -> None:
    document = {key: item for key, item in (SURVIVAL | keys).items() if item is not None}
    with pytest.raises(DocumentError, match=message) as error:
        parse_query(document).layout(codebook)
    lines = str(error.value).splitlines()
    assert len(lines) == len(set(lines)), "the same fault is told twice"


def test_a_cohort_is_followed_to_the_last_day_of_the_grid(codebook: Codebook) -> None:
    # 3,652 whole days are within ten years of 365.25 days after 2005-12-31: until 2015-12-31.
    document = SURVIVAL | COHORT
    for last, fits in (("2015-12-30", False), ("2015-12-31", True)):
        query = parse_query(document | {"followed_until": last, "grid": {"unit": "days", "edges": [3652]}})
        if fits:
            query.layout(codebook)
        else:
            with pytest.raises(DocumentError, match="followed_until"):
                query.layout(codebook)


# --- grids ------------------------------------------------------------------------------------------

DAYS = parse({"kind": "integer", "unit": "days", "lower": 0, "upper": 1_000_000}, IntegerVariable)
GRIDS = st.one_of(
    st.builds(
        lambda unit, edges: TimeGrid(unit=unit, edges=tuple(sorted(edges))),
        st.sampled_from(["days", "months", "years"]),
        st.sets(st.integers(1, 400), min_size=1, max_size=30),
    ),
    st.builds(
        lambda unit, every, steps: TimeGrid(unit=unit, every=every, until=every * steps),
        st.sampled_from(["days", "months", "years"]),
        st.integers(1, 40),
        st.integers(1, 60),
    ),
    st.builds(
        lambda cases, until: TimeGrid(expected_cases=cases, until=until),
        st.sampled_from([1, 199, 200, 500, 2000, 10**6]),
        st.integers(1, 120),
    ),
)


@given(GRIDS, st.integers(0, 200_000))
def test_every_day_is_in_the_interval_whose_edges_hold_it(grid: TimeGrid, day: int) -> None:
    problems: list[tuple[str, str]] = []
    cuts = grid.cuts(DAYS, "time", problems)
    assert not problems and len(cuts) == len(grid.times) == len(set(grid.labels))
    length = {"days": Fraction(1), "months": Fraction("30.4375"), "years": Fraction("365.25")}[grid.unit]
    edges = [edge * length for edge in grid.times]
    found = sum(cut <= day for cut in cuts)
    assert found == sum(edge < day for edge in edges)
    assert grid.describe()


@given(GRIDS)
def test_a_coarser_grid_is_coarser_ends_alike_and_is_a_grid(grid: TimeGrid) -> None:
    days = {"days": Fraction(1), "months": Fraction("30.4375"), "years": Fraction("365.25")}
    mine = [edge * days[grid.unit] for edge in grid.times]
    keep = tuple(year for year in (1, 3, 5, 10) if year * days["years"] in mine)
    coarse = grid.coarser(keep)
    if coarse is None:
        return
    theirs = [edge * days[coarse.unit] for edge in coarse.times]
    assert len(theirs) < len(mine) and theirs[-1] == mine[-1]
    assert set(year * days["years"] for year in keep) <= set(theirs)


def test_a_grid_for_expected_cases() -> None:
    for (least, step), (_, wider) in pairwise(STEPS_BY_SIZE):
        assert len(TimeGrid(expected_cases=least, until=5).times) == 60 // step
        assert len(TimeGrid(expected_cases=least - 1, until=5).times) == 60 // wider
    grid = TimeGrid(expected_cases=1_000_000, until=1000)
    assert grid.labels[:2] == ("[0, 0.08] years", "(0.08, 0.17] years")
    assert grid.labels[2] == "(0.17, 0.25] years" and grid.labels[-1] == "(999.92, 1000] years"


def test_the_next_coarser_query_still_fits(codebook: Codebook) -> None:
    query = parse_query(
        SURVIVAL | {"grid": {"unit": "months", "every": 1, "until": 120}, "conditional_on": [2]}
    )
    steps = []
    while (coarser := query.coarser()) is not None:
        query = coarser
        query.layout(codebook)
        steps.append(len(query.grid.times))  # type: ignore[attr-defined]
    assert steps == [40, 20, 10, 5]
    assert query.grid.times == (1, 2, 3, 5, 10)  # type: ignore[attr-defined]


# --- digests ----------------------------------------------------------------------------------------

HISTOGRAM = {"preset": "histogram", "variable": "age", "edges": [0, 50, 100], "privacy": PRIVACY}
CHANGES: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
    (
        SURVIVAL,
        [
            {"time": "months"},
            {"event": {"variable": "code", "in": [1]}},
            {"event": {"variable": "status", "in": ["dead", "lost"]}},
            {"by": ["sex"]},
            {"by": ["sex", "stage"]},
            {"by": ["stage", "sex"]},
            {"grid": {"edges": [1, 5]}},
            {"grid": {"edges": [1, 5, 10], "unit": "months"}},
            {"grid": {"every": 5, "until": 10}},
            {"grid": {"expected_cases": 5, "until": 10}},
            PERIOD,
            PERIOD | {"window": ["2000-01-01", "2005-12-30"]},
            COHORT,
            COHORT | {"followed_until": "2020-12-30"},
            {"multiple_primaries": "all"},
            {"method": "actuarial"},
            {"interval": "log"},
            {"conditional_on": [1]},
            {"by": ["sex", "stage"], "compare": "sex"},
            {"by": ["sex", "stage"], "compare": "sex", "stratified": True},
            {"title": "t"},
            {"where": [{"variable": "sex", "in": ["F"]}]},
            {"privacy": {"epsilon": "2"}},
            {"privacy": PRIVACY | {"threshold": 6}},
            {"privacy": PRIVACY | {"max_records_per_patient": 2}},
            {"privacy": PRIVACY | {"rule": "strict", "delta": "0.000001"}},
            {"privacy": PRIVACY | {"weights": {"patients": 2}}},
            {"preset": "childhood_survival", "by": []},
        ],
    ),
    (
        {"preset": "childhood_survival", "privacy": PRIVACY},
        [{"by": ["iccc3_group"]}, {"time": "days"}, {"grid": {"edges": [5]}}],
    ),
    (
        {"preset": "mean", "variable": "age", "privacy": PRIVACY},
        [{"variable": "days"}, {"by": ["sex"]}, {"clip": [0, 90]}, {"variance": False}],
    ),
    (
        {"preset": "crosstab", "by": ["sex", "stage"], "privacy": PRIVACY},
        [{"by": ["stage", "sex"]}, {"totals": True}, {"percentages": True}, {"test": "chi-squared"}],
    ),
    (HISTOGRAM, [{"edges": [0, 100]}, {"by": ["sex"]}, {"variable": "days"}]),
    ({"preset": "count", "privacy": PRIVACY}, [{"multiple_primaries": "first"}, {"title": "x"}]),
]


def test_every_key_counts_in_the_digest_and_the_fields_are_a_query_again() -> None:
    for document, changes in CHANGES:
        queries = [parse_query(document | change) for change in ({}, *changes)]
        assert len({query.digest() for query in queries}) == len(queries)
        for query in queries:
            again = parse_query(query.digest_fields())
            assert again == query and again.digest() == query.digest()


def test_what_does_not_change_the_question_does_not_change_the_digest() -> None:
    one = parse_query(SURVIVAL | {"event": {"variable": "status", "in": ["dead", "lost"]}})
    two = parse_query(SURVIVAL | {"event": {"in": ["lost", "dead"], "variable": "status"}, "by": []})
    assert one.digest() == two.digest()
    written = {
        "time": "follow_up_days",
        "event": {"variable": "vital_status", "in": ["dead"]},
        "by": ["iccc3_group", "age_group"],
        "grid": {"unit": "years", "edges": [1, 2, 3, 5, 10]},
    }
    short = parse_query({"preset": "childhood_survival", "privacy": PRIVACY})
    assert parse_query({"preset": "childhood_survival", "privacy": PRIVACY, **written}) == short


def test_childhood_survival_fits_the_shipped_codebook() -> None:
    shipped = load_codebook(Path(__file__).parents[2] / "data" / "codebooks" / "iccc3.toml")
    layout = parse_query({"preset": "childhood_survival", "privacy": PRIVACY}).layout(shipped)
    (groups,) = layout.groups
    outcome = groups.members[0].grid.axes[-1].categories
    assert outcome[0] == "event [0, 1] years" and outcome[-1] == "beyond 10 years" and len(outcome) == 11
    assert layout.primaries == "first"


# --- the tidy table ---------------------------------------------------------------------------------


def test_the_tidy_table_hides_what_is_flagged_and_prints_what_is_shown() -> None:
    tidy = Tidy("made-up", ("sex",))
    tidy.add("count", [-3.0, np.nan, 1234.0], labels={"sex": ["F", "M", "X"]}, n=5, se_noise=[1, 2, 3])
    tidy.add("survival", [0.5, -0.0004, np.nan], style=PERCENT, flag=["t", "ok", "ok"], lower=0.1)
    tidy.add("median", [np.inf, 2.0], style=Style(2), flag=["ok", "z"], upper=9)
    columns = tidy.columns()
    assert columns["display"].tolist() == ["0", "[c]", "1,234", "50.0", "0.0", "[x]", "NR", "[z]"]
    assert columns["flag"].tolist() == ["ok", "c", "ok", "t", "ok", "x", "ok", "z"]
    np.testing.assert_array_equal(columns["value"][:3], [-3, np.nan, 1234])
    assert np.isnan(columns["value"][[1, 5, 7]]).all() and np.isnan(columns["ucl"][7])
    assert np.isnan(columns["n_shown"][1]) and np.isnan(columns["se_noise"][1])
    assert columns["sex"].tolist() == ["F", "M", "X", *["(all)"] * 5]
    with pytest.raises(DocumentError, match="no variable stage"):
        tidy.add("count", 1.0, labels={"stage": "I"})
    assert list(Tidy("empty", ("a", "b", "a")).columns())[:3] == ["preset", "a", "b"]


def test_a_relative_value_is_unreliable_beyond_a_quarter_of_itself() -> None:
    tidy = Tidy("made-up", ())
    given: Any = {
        "value": [10, 10, -10, 10, 0, 0, 10, 10, np.nan],
        "se_sampling": [1.5, 1.5, 1.5, 2.6, 0, 0.1, 9, np.nan, 1],
        "se_noise": [2, 2.1, 2.1, np.nan, 0, 0, 9, 2.5, 1],
        "lower": 1,
        "upper": 90,
        "flag": [*["ok"] * 6, "t", "ok", "c"],
    }
    tidy.add("rate", **given, style=Style(1, relative=True))
    tidy.add("count", **given)
    columns = tidy.columns()
    assert columns["flag"].tolist() == [
        *("ok", "u", "u", "u", "ok", "u", "t", "ok", "c"),
        *given["flag"],
    ]
    np.testing.assert_array_equal(columns["value"], 2 * given["value"])
    assert columns["display"].tolist()[:4] == ["10.0", "10.0", "-10.0", "10.0"]
    assert not np.isnan(columns["lcl"][:8]).any() and np.isnan(columns["lcl"][8])
