"""Codebooks and queries: the grids they make and the messages that wrong ones give."""

from __future__ import annotations

import tracemalloc
from bisect import bisect_right
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.dp import Rule, guarantee_for
from mpc_engine.errors import DocumentError
from mpc_engine.release.grid import Grid
from mpc_engine.release.groups import parts_of
from mpc_engine.statistics.layout import AxisRule, Selection
from mpc_engine.statistics.presets import load_query, parse_query, presets

BOOK: dict[str, Any] = {
    "name": "made-up",
    "version": "1",
    "variables": {
        "sex": {"kind": "category", "categories": ["F", {"label": "M"}]},
        "stage": {"kind": "category", "categories": ["I", "II"], "unknown": "unknown"},
        "age": {"kind": "integer", "unit": "years", "lower": 0, "upper": 99, "unknown": "?"},
        "year": {"kind": "integer", "unit": "year", "lower": 1999, "upper": 2001},
        "size": {"kind": "integer", "unit": "mm", "lower": 0, "upper": 9_000_000},
        "ages": {"kind": "band", "of": "age", "cuts": [15, 65], "labels": ["0-14", "15-64", "65+"]},
    },
}
CODEBOOK = parse(BOOK, Codebook)
PRIVACY = {"epsilon": "1"}


def _book(name: str, **keys: Any) -> dict[str, Any]:
    variable = {
        key: value for key, value in (BOOK["variables"].get(name, {}) | keys).items() if value is not None
    }
    return BOOK | {"variables": BOOK["variables"] | {name: variable}}


def _query(**keys: Any) -> dict[str, Any]:
    return {"preset": "crosstab", "by": ["sex"], "privacy": PRIVACY} | keys


def _histogram(**keys: Any) -> dict[str, Any]:
    return {"preset": "histogram", "variable": "age", "privacy": PRIVACY} | keys


def grid_of(query: dict[str, Any], codebook: Codebook = CODEBOOK) -> Grid:
    """Return the grid of a query's only tally."""
    (groups,) = parse_query(query).layout(codebook).groups
    (tally,) = groups.tallies
    return tally.grid


def test_labels_have_unknown_last() -> None:
    assert CODEBOOK.labels("sex") == ("F", "M")
    assert CODEBOOK.labels("stage") == ("I", "II", "unknown")
    assert CODEBOOK.labels("ages") == ("0-14", "15-64", "65+", "?")
    assert CODEBOOK.labels("year") == ("1999", "2000", "2001")


@pytest.mark.parametrize(
    ("book", "message"),
    [
        (_book("age", lower=100), r"variables\.age\.lower: is 100, above `upper` = 99"),
        (_book("age", upper="99"), r"variables\.age\.upper: must be a whole number"),
        (_book("age", upper=None), r"variables\.age\.upper: is required and missing"),
        (
            _book("age", kind="number"),
            r"variables\.age: 'kind' must be one of 'category', 'integer', 'date', 'band'",
        ),
        (_book("age", unknown="9"), r"variables\.age\.unknown: .*a number"),
        (
            _book("sex", categories=["F", "M", "F"]),
            r"variables\.sex\.categories\[2\]: the label 'F' occurs twice",
        ),
        (_book("sex", categories=[]), r"variables\.sex\.categories: must have at least 1 item"),
        (_book("sex", categories=[" F"]), r"variables\.sex\.categories\[0\]"),
        (_book("sex", unknown="F"), r"variables\.sex\.unknown: is also the label of a category"),
        (_book("sex", missing="unknown"), r"variables\.sex\.missing: .*declares no `unknown`"),
        (
            _book("ages", cuts=[65, 15]),
            r"variables\.ages\.cuts\[1\]: is 15, not above the cut before it, 65",
        ),
        (_book("ages", cuts=[15, 15]), r"variables\.ages\.cuts\[1\]"),
        (
            _book("ages", cuts=[0, 65]),
            r"variables\.ages\.cuts\[0\]: is 0; it must be above 0 and at most 99",
        ),
        (_book("ages", cuts=[15, 100]), r"variables\.ages\.cuts\[1\]: is 100"),
        (_book("ages", cuts=[15]), r"variables\.ages\.labels: 1 cuts make 2 bands, but there are 3"),
        (
            _book("ages", of="sex"),
            r"variables\.ages\.of: must name an integer variable \(age, year, size\)",
        ),
        (_book("Ages", kind="band"), r"variables\.Ages"),
        (_book("value", kind="category", categories=["a"]), r"variables\.value: is the name of a column"),
        (_book("flag", kind="category", categories=["a"]), r"variables\.flag: is the name of a column"),
        (_book("sex", categories=["F", "M\x1b[2J"]), r"categories\[1\].*must not hold control characters"),
        (_book("sex", categories=["F", "M\u200b"]), r"categories\[1\].*cannot be seen"),
        (BOOK | {"version": "1\n"}, r"version: must not hold control characters"),
        (BOOK | {"variables": {}}, r"variables: must have at least 1 item"),
    ],
)
def test_wrong_codebooks(book: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        parse(book, Codebook)


def test_codebook_digest_follows_content() -> None:
    assert parse(dict(reversed(BOOK.items())), Codebook, "other").digest() == CODEBOOK.digest()
    for other in (_book("sex", categories=["M", "F"]), _book("age", upper=98), BOOK | {"version": "2"}):
        assert parse(other, Codebook).digest() != CODEBOOK.digest()


def test_grids() -> None:
    assert set(presets()) >= {"count", "crosstab", "histogram"}
    assert grid_of({"preset": "count", "privacy": PRIVACY}).cells == 1
    grid = grid_of(_query(by=["stage", "sex"]))
    assert grid.cells == 6
    assert list(grid.labels())[1] == {"stage": "I", "sex": "M"}
    assert list(grid.labels())[-1] == {"stage": "unknown", "sex": "M"}


@pytest.mark.parametrize(
    ("keys", "labels"),
    [
        ({"edges": [0, 50, 100]}, ("[0,50)", "[50,100)", "?")),
        ({"edges": [10, 50, 99]}, ("< 10", "[10,50)", "[50,99)", "≥ 99", "?")),
        ({"bins": [[-5, 50], [50, 60]]}, ("[-5,50)", "[50,60)", "≥ 60", "?")),
        ({"edges": [0, 100]}, ("[0,100)", "?")),
        ({"variable": "year", "edges": [1990, 2000]}, ("[1990,2000)", "≥ 2000")),
    ],
)
def test_histogram_labels(keys: dict[str, Any], labels: tuple[str, ...]) -> None:
    layout = parse_query(_histogram(**keys)).layout(CODEBOOK)
    (recipe,) = layout.recipes
    (rule,) = recipe.rules
    assert layout.groups[0].guard.grid.axes[0].categories == labels
    assert isinstance(rule, AxisRule) and recipe.amount is None
    known = len(labels) - (rule.unknown is not None)
    variable = CODEBOOK.variables[rule.variable]
    seen = {bisect_right(rule.cuts, value) for value in range(variable.lower, variable.upper + 1)}  # type: ignore[union-attr]
    assert seen == set(range(known))
    assert rule.unknown in (None, known)


@given(st.lists(st.integers(1, 98), min_size=2, max_size=12, unique=True).map(sorted))
def test_every_age_has_one_bin_and_its_label_says_so(edges: list[int]) -> None:
    layout = parse_query(_histogram(edges=edges)).layout(CODEBOOK)
    labels = layout.groups[0].guard.grid.axes[0].categories
    (rule,) = layout.recipes[0].rules
    assert isinstance(rule, AxisRule)
    for age in range(100):
        label = labels[bisect_right(rule.cuts, age)]
        if label.startswith("<"):
            assert age < edges[0]
        elif label.startswith("≥"):
            assert age >= edges[-1]
        else:
            low, high = label[1:-1].split(",")
            assert int(low) <= age < int(high)


def test_totals_are_groups_of_their_own() -> None:
    layout = parse_query(_query(by=["stage", "sex"], totals=True)).layout(CODEBOOK)
    found = [(groups.name, groups.guard.grid.shape, groups.guard.weight) for groups in layout.groups]
    assert found == [
        ("cells", (3, 2), 12),
        ("stage totals", (3,), 3),
        ("sex totals", (2,), 3),
        ("total", (), 2),
    ]
    assert not any(groups.members for groups in layout.groups)
    assert [len(recipe.rules) for recipe in layout.recipes] == [2, 1, 1, 0]
    assert layout.recipes[0].rules == (layout.recipes[1].rules + layout.recipes[2].rules)
    shares = guarantee_for(Fraction(1), parts_of(layout.groups), Rule.NOISY, 5).allotments
    assert [each.epsilon for each in shares] == [Fraction(n, 20) for n in (12, 3, 3, 2)]
    one = parse_query(_query(by=["stage"], totals=True)).layout(CODEBOOK)
    assert [groups.name for groups in one.groups] == ["cells", "total"]


def test_weights_replace_those_of_the_preset() -> None:
    privacy = PRIVACY | {"weights": {"cells": 5, "total": 7}}
    query = parse_query(_query(by=["stage", "sex"], totals=True, privacy=privacy))
    assert [groups.guard.weight for groups in query.layout(CODEBOOK).groups] == [5, 3, 3, 7]
    plain = parse_query(_query(by=["stage", "sex"], totals=True))
    assert query.digest() != plain.digest()
    assert query.layout(CODEBOOK).recipes == plain.layout(CODEBOOK).recipes


def test_too_many_cells_in_all_tallies_together_are_refused() -> None:
    book = parse(_book("wide", kind="integer", unit="n", lower=0, upper=3_999_998), Codebook)
    assert grid_of(_query(by=["wide"]), book).cells == 3_999_999
    parse_query(_query(by=["wide"], totals=True)).layout(book)  # one more makes 4,000,000
    book = parse(_book("wide", kind="integer", unit="n", lower=0, upper=3_999_999), Codebook)
    with pytest.raises(DocumentError, match="more than 4000000 cells"):
        parse_query(_query(by=["wide"], totals=True)).layout(book)


@pytest.mark.parametrize("primaries", ["all", "first", "iarc"])
def test_which_primaries_count_is_part_of_the_question(primaries: str) -> None:
    query = parse_query(_query(multiple_primaries=primaries))
    assert query.layout(CODEBOOK).primaries == primaries
    assert (query.digest() == parse_query(_query()).digest()) == (primaries == "all")


def test_a_filter_on_dates_is_one_on_days() -> None:
    book = parse(_book("seen", kind="date", lower="1970-01-01", upper="1970-12-31"), Codebook)
    where = [{"variable": "seen", "between": ["1970-01-02", "1970-02-01"]}]
    (found,) = parse_query(_query(where=where)).layout(book).where
    assert found == Selection("seen", ((1, 31),))
    for by, ends in (["seen"], ["1970-01-02", "1970-02-01"]), (["sex"], ["1969-12-31", "1970-01-01"]):
        where = [{"variable": "seen", "between": ends}]
        with pytest.raises(DocumentError, match=r"by\[0\]: seen is a date|between\[0\]: is 1969-12-31"):
            parse_query(_query(by=by, where=where)).layout(book)


def test_filters_become_ranges_of_coded_values() -> None:
    where = [
        {"variable": "stage", "in": ["II", "unknown"]},
        {"variable": "ages", "in": ["65+", "15-64"]},
        {"variable": "age", "in": [3, 4, 9, "?"]},
        {"variable": "year", "between": [1999, 2000]},
    ]
    stage, ages, age, year = parse_query(_query(where=where)).layout(CODEBOOK).where
    assert stage == Selection("stage", ((1, 1),), unknown=True)
    assert (ages.variable, ages.ranges[0][0], len(ages.ranges), ages.unknown) == ("age", 15, 1, False)
    assert age == Selection("age", ((3, 4), (9, 9)), unknown=True)
    assert year == Selection("year", ((1999, 2000),))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (_query(preset="table"), r"preset: is not known; presets: .*count, crosstab, .*histogram"),
        ({"privacy": PRIVACY}, r"preset: is required and missing"),
        (_query(by=["sex", "race"]), r"by\[1\]: the codebook has no variable 'race'; it has: sex, stage"),
        (_query(by=["sex", "sex"]), r"by\[1\]: 'sex' occurs twice"),
        (_query(by=[]), r"by: must have at least 1 item"),
        (_query(by=["size"]), r"by\[0\]: size has too many values"),
        (
            _query(by=["size"], extra=1),
            r"extra: is not a key known here; known keys: by, .*preset, privacy, .*title",
        ),
        (
            _query(where=[{"variable": "sex", "in": ["F"]}, {"variable": "sex", "in": ["F", "X"]}]),
            r"where\[1\]\.in\[1\]: 'X' is not in the codebook; allowed: 'F', 'M'",
        ),
        (
            _query(where=[{"variable": "age", "in": [100]}]),
            r"where\[0\]\.in\[0\]: 100.*whole numbers from 0 to 99",
        ),
        (_query(where=[{"variable": "sex", "in": []}]), r"where\[0\]\.in: must have at least 1"),
        (
            _query(where=[{"variable": "sex", "in": [True]}]),
            r"where\[0\]\.in\[0\]: must be a label in quotes",
        ),
        (_query(where=[{"variable": "sex"}]), r"where\[0\]: needs either `in` or `between`"),
        (
            _query(where=[{"variable": "sex", "between": [0, 1]}]),
            r"where\[0\]\.between: needs an integer or a date; sex has categories",
        ),
        (
            _query(where=[{"variable": "age", "between": [0, 100]}]),
            r"where\[0\]\.between\[1\]: is 100, but age runs",
        ),
        (
            _query(where=[{"variable": "age", "between": [9, 3]}]),
            r"where\[0\]\.between: starts at 9, above its end",
        ),
        (
            _query(where=[{"variable": "nil", "between": [9, 9]}]),
            r"where\[0\]\.variable: the codebook has no",
        ),
        (_query(privacy={}), r"privacy\.epsilon: is required and missing"),
        (_query(privacy={"epsilon": "0"}), r"privacy\.epsilon: must be greater than 0"),
        (_query(privacy={"epsilon": "-1"}), r"privacy\.epsilon: must be a decimal number in quotes"),
        (_query(privacy={"epsilon": "1\n"}), r"privacy\.epsilon: must be a decimal"),
        (_query(privacy={"epsilon": "1/2"}), r"privacy\.epsilon: must be a decimal"),
        (_query(privacy={"epsilon": 1}), r"privacy\.epsilon: must be text in quotes"),
        (
            _query(privacy=PRIVACY | {"rule": "none"}),
            r"privacy\.rule: must be one of 'noisy', 'strict' or 'exact'",
        ),
        (_query(privacy=PRIVACY | {"rule": "strict"}), r'privacy\.delta: is required with rule = "strict"'),
        (_query(privacy=PRIVACY | {"delta": "1e-6"}), r'privacy\.delta: belongs to rule = "strict"'),
        (
            _query(privacy=PRIVACY | {"rule": "strict", "delta": "1"}),
            r"privacy\.delta: must be at most 0\.001",
        ),
        (_query(privacy=PRIVACY | {"threshold": 0}), r"privacy\.threshold: must be at least 1"),
        (
            _query(privacy=PRIVACY | {"weights": {"cells": 0}}),
            r"privacy\.weights\.cells: must be at least 1",
        ),
        (
            _query(privacy=PRIVACY | {"weights": {"total": 1}}),
            r"privacy\.weights\.total: is no part; parts: cells",
        ),
        (_query(totals=True, privacy=PRIVACY | {"rule": "exact"}), r"totals: are refused with rule"),
        (_query(test="chi-squared"), r"test: asks for independence of two variables"),
        (_query(multiple_primaries="some"), r"multiple_primaries: must be one of 'all', 'first' or 'iarc'"),
        (
            _query(privacy=PRIVACY | {"max_records_per_patient": 0}),
            r"max_records_per_patient: must be at least 1",
        ),
        (_histogram(), r"needs either `edges` or `bins`"),
        (_histogram(edges=[0, 12, 12]), r"edges\[2\]: is 12, not above the edge before it, 12"),
        (_histogram(edges=[0, 12, 6]), r"edges\[2\]: is 6"),
        (_histogram(bins=[[0, 12], [6, 24]]), r"bins\[1\]: .*overlap"),
        (_histogram(bins=[[0, 12], [13, 24]]), r"bins\[1\]: .*gap; add a bin \[12, 13\)"),
        (_histogram(bins=[[12, 24], [0, 12]]), r"bins\[1\]: .*not in ascending order"),
        (_histogram(bins=[[0, 12], [12, 12]]), r"bins\[1\]: \[12, 12\) is empty"),
        (
            _histogram(edges=[0, 100, 120]),
            r"edges\[1\]: the bin \[100, 120\) can hold nothing: age runs from 0 to 99",
        ),
        (
            _histogram(edges=[0, 9], variable="sex"),
            r"variable: 'sex' is not an integer variable.*age, year, size",
        ),
        (_histogram(edges=[0, 9], by=["age"]), r"by: repeats 'age'"),
        (
            _query(by=["year", "age", "sex", "stage", "ages"], where=[{"variable": "q", "in": ["x"]}]),
            r"where\[0\]",
        ),
    ],
)
def test_wrong_queries(query: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=message) as error:
        parse_query(query, "queries/q.toml").layout(CODEBOOK)
    assert str(error.value).startswith("queries/q.toml: ")


def test_too_many_cells_are_refused_before_anything_is_laid_out() -> None:
    book = parse(_book("wide", kind="integer", unit="n", lower=0, upper=3_999_999), Codebook)
    assert grid_of(_histogram(edges=list(range(0, 100))), book).cells == 101
    three = {f"v{n}": BOOK["variables"]["size"] | {"upper": 3_999_990} for n in range(3)}
    many = parse(BOOK | {"variables": BOOK["variables"] | three}, Codebook)
    tracemalloc.start()
    for by, codebook in ((["wide", "sex"], book), ([*three], many)):
        with pytest.raises(DocumentError, match="more than 4000000 cells"):
            parse_query(_query(by=by)).layout(codebook)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["sex", "stage", "age", "year", "ages"])
def test_the_size_of_a_variable_is_the_number_of_its_labels(name: str) -> None:
    assert CODEBOOK.size(name) == len(CODEBOOK.labels(name))


def test_digest_fields_are_those_of_the_question() -> None:
    one = parse_query(_query(privacy={"epsilon": "0.50"}))
    two = parse_query(_query(privacy={"epsilon": "5e-1", "rule": "noisy", "threshold": 5}, where=[]))
    assert one.digest() == two.digest()
    assert one.privacy.epsilon_exact == Fraction(1, 2)
    where = [{"variable": "sex", "in": ["F", "M"]}, {"variable": "age", "in": [3, 20, "?"]}]
    turned = [{"variable": "age", "in": ["?", 20, 3]}, {"variable": "sex", "in": ["M", "F"]}]
    assert parse_query(_query(where=where)).digest() == parse_query(_query(where=turned)).digest()
    assert parse_query(_query(where=where)).digest() != parse_query(_query(where=where[:1])).digest()
    for other in ({"threshold": 6}, {"epsilon": "0.51"}, {"max_records_per_patient": 2}):
        assert parse_query(_query(privacy={"epsilon": "0.5"} | other)).digest() != one.digest()
    assert parse_query(_query(by=["stage"], privacy={"epsilon": "0.5"})).digest() != one.digest()


def test_the_scenario_query_loads() -> None:
    root = Path(__file__).parents[2] / "scenarios" / "wilms"
    query = load_query(root / "stage_by_histology.toml")
    assert query.privacy.epsilon == "1" and query.privacy.threshold == 5 and query.privacy.rule == "noisy"
