"""Forecasts against repeated draws of noise and patients, and the advice that follows from them."""

from __future__ import annotations

import tomllib
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.dp.accounting import Guarantee, Rule, guarantee_for
from mpc_engine.dp.noise_table import NoiseTable
from mpc_engine.errors import DocumentError
from mpc_engine.release.groups import parts_of
from mpc_engine.release.opened import arrange, true_groups
from mpc_engine.statistics.forecast import (
    Forecast,
    advice,
    changed_lines,
    false_groups,
    forecast,
    forecast_cells,
    noisier_totals,
    usual_sizes,
)
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query

BOOK = parse(
    {
        "name": "made-up",
        "version": "1",
        "variables": {
            "sex": {"kind": "category", "categories": ["F", "M"]},
            "stage": {"kind": "category", "categories": ["I", "II", "III"]},
            "site": {"kind": "category", "categories": [f"C{code}" for code in range(200)]},
            "region": {"kind": "category", "categories": [f"R{code}" for code in range(3000)]},
            "status": {"kind": "category", "categories": ["alive", "dead"]},
            "days": {"kind": "integer", "unit": "days", "lower": 0, "upper": 9000},
            "age": {"kind": "integer", "unit": "years", "lower": 0, "upper": 100},
        },
    },
    Codebook,
)
SURVIVAL = {"preset": "survival", "time": "days", "event": {"variable": "status", "in": ["dead"]}}


def query(preset: str = "survival", epsilon: str = "1", **keys: Any) -> Query:
    """Return a query on the codebook above."""
    rest = SURVIVAL if preset == "survival" else {"preset": preset}
    privacy = {"epsilon": epsilon, **keys.pop("privacy", {})}
    return parse_query({**rest, **keys, "privacy": privacy})


def survival(every: int, until: int = 120, **keys: Any) -> Query:
    """Return a survival query with an edge every so many months."""
    return query(grid={"unit": "months", "every": every, "until": until}, **keys)


def guaranteed(asked: Query) -> Guarantee:
    """Return what a query's own parameters promise."""
    privacy = asked.privacy
    return guarantee_for(
        privacy.epsilon_exact,
        parts_of(asked.layout(BOOK).groups),
        Rule(privacy.rule),
        privacy.threshold,
        privacy.max_records_per_patient,
        privacy.delta_exact,
    )


def forecast_of(asked: Query, cases: int) -> Forecast:
    """Return the forecast at a query's own parameters."""
    return forecast(asked, BOOK, guaranteed(asked), cases)


def drawn(table: NoiseTable, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return noise drawn from a table's exact probabilities."""
    values, chances = probabilities(table)
    return rng.choice(values, shape, p=chances)


@cache
def probabilities(table: NoiseTable) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a table and how likely each is."""
    values = np.arange(-table.limit, table.limit + 1)
    chances = np.array([float(table.probability(int(x))) for x in values])
    return values, chances / chances.sum()


def half(values: np.ndarray) -> float:
    """Return the half-width that draws have: 1.96 standard deviations."""
    return 1.959964 * float(np.std(values, ddof=1))


# --- against repeated draws ---------------------------------------------------------------------------


def test_survival_errors_are_those_of_repeated_noise() -> None:
    rng = np.random.default_rng(11)
    asked = survival(12)
    layout, made = asked.layout(BOOK), guaranteed(asked)
    sums = asked.typical(BOOK, layout, 400)
    tables = [each.table for each in made.allotments]
    found = []
    for _ in range(400):
        noisy = [each + drawn(table, rng, each.shape) for each, table in zip(sums, tables, strict=True)]
        opened = arrange(layout.groups, [np.array([True])], noisy, [float(t.variance) for t in tables], 5)
        columns = asked.finish(BOOK, opened).columns()
        found.append(columns["value"][(columns["statistic"] == "survival") & (columns["time"] == 5)][0])
    main = forecast_of(asked, 400).main
    assert main is not None and main.time == 5
    assert main.noise == pytest.approx(half(np.array(found)), rel=0.12)
    assert np.mean(found) == pytest.approx(main.value, abs=0.005)


def test_survival_errors_are_those_of_repeated_sampling() -> None:
    rng = np.random.default_rng(12)
    asked = survival(12)
    shares = asked.typical(BOOK, asked.layout(BOOK), 1)[1]
    people = rng.multinomial(400, shares / shares.sum(), 4000)
    dead, gone, beyond = people[:, 0:-1:2], people[:, 1:-1:2], people[:, -1:]
    ahead = np.cumsum((dead + gone)[:, ::-1], axis=1)[:, ::-1] + beyond
    curves = np.prod(1 - dead[:, :5] / ahead[:, :5], axis=1)
    main = forecast_of(asked, 400).main
    assert main is not None
    assert main.sampling == pytest.approx(half(curves), rel=0.06)


@pytest.mark.parametrize("variance", [False, True])
def test_mean_errors_are_those_of_repeated_noise(variance: bool) -> None:
    rng = np.random.default_rng(13)
    asked = query("mean", variable="age", variance=variance)
    n, total, *_ = asked.typical(BOOK, asked.layout(BOOK), 500)
    parts = [each.table for each in guaranteed(asked).allotments]
    noisy = (total + drawn(parts[1], rng, (20_000,))) / (n + drawn(parts[0], rng, (20_000,)))
    main = forecast_of(asked, 500).main
    assert main is not None and main.bound is not variance
    assert main.noise == pytest.approx(half(noisy), rel=0.05)
    textbook = 1.96 * (100 / 6) / np.sqrt(500)  # the spread of the made-up cohort is a sixth of the range
    assert main.sampling == pytest.approx(textbook, rel=0.02) if variance else main.sampling > textbook


def test_count_errors_are_those_of_the_table() -> None:
    asked = query("crosstab", by=["sex"])
    found = forecast_of(asked, 100)
    (row,) = found.rows
    assert (found.strata, found.per_stratum, row.strata, row.value) == (2, 50.0, 2, 50.0)
    table = guaranteed(asked).allotments[0].table
    assert row.noise == pytest.approx(1.959964 * float(table.variance) ** 0.5)
    assert row.sampling == pytest.approx(1.959964 * 50**0.5)


@pytest.mark.parametrize(
    "asked", [survival(3), query("mean", variable="age", variance=True), query("crosstab", by=["sex"])]
)
def test_noise_equals_sampling_at_the_break_even(asked: Query) -> None:
    first = forecast_of(asked, 2000)
    assert first.break_even is not None
    there = forecast_of(asked, round(first.break_even * first.strata)).main
    assert there is not None
    assert there.share == pytest.approx(1, rel=0.1)


# --- which rows ---------------------------------------------------------------------------------------


def test_rows_are_the_headlines_at_the_times_of_the_summary() -> None:
    found = forecast_of(survival(6, by=["sex"]), 300)
    strata = [row for row in found.rows if row.by == ("sex",)]
    together = [row for row in found.rows if row.by == ()]
    assert [row.time for row in strata] == [row.time for row in together] == [1, 3, 5, 10]
    assert [row.strata for row in strata] == [2] * 4
    assert all(one.sampling < two.sampling for one, two in zip(together, strata, strict=True))
    assert found.main is strata[2]


def test_a_grid_without_the_times_of_the_summary_is_forecast_at_its_end() -> None:
    found = forecast_of(query(grid={"unit": "months", "edges": [4, 8]}), 300)
    assert [row.time for row in found.rows] == [pytest.approx(8 / 12)]


def test_usual_sizes_shrink_with_the_number_of_cells() -> None:
    asked = survival(12)
    assert usual_sizes(asked, 21) == (30, 80, 200, 1000)
    assert usual_sizes(asked, 225_000) == (80, 1000)
    assert usual_sizes(asked, 900_000) == (80,)
    assert usual_sizes(query("crosstab", by=["sex"]), 2) == (5, 20, 100, 1000)


def test_a_release_of_too_many_cells_is_not_forecast() -> None:
    with pytest.raises(DocumentError, match=r"1,200,000 cells are too many"):
        forecast_of(query("crosstab", by=["sex", "site", "region"]), 10)


# --- cells of a dummy release -------------------------------------------------------------------------


def test_the_cells_of_a_cohort_give_the_errors_of_that_cohort() -> None:
    asked = survival(12, by=["sex"])
    layout = asked.layout(BOOK)
    cells = true_groups(layout.groups, asked.typical(BOOK, layout, 300), threshold=5)
    found = forecast_cells(asked, BOOK, guaranteed(asked), cells)
    assert found == forecast_of(asked, 300)


def test_the_error_is_that_of_the_median_stratum() -> None:
    asked = survival(12, by=["stage"])
    layout = asked.layout(BOOK)
    sizes = np.array([400, 40, 100])
    n, outcomes = asked.typical(BOOK, layout, 3)
    cells = true_groups(layout.groups, [n * sizes, outcomes * np.repeat(sizes, 21)], threshold=5)
    found, even = forecast_cells(asked, BOOK, guaranteed(asked), cells), forecast_of(asked, 300)
    assert (found.cases, found.strata, found.per_stratum) == (540, 3, 100)
    assert found.main is not None and even.main is not None
    assert found.main.noise == pytest.approx(even.main.noise)
    assert found.main.sampling == pytest.approx(even.main.sampling)


def test_the_median_stratum_stands_for_all_and_the_suppressed_for_none() -> None:
    asked = query("crosstab", by=["site"])
    groups = asked.layout(BOOK).groups
    values = np.arange(200.0)
    opened = arrange(groups, [values >= 100], [values], [4.0], 5)
    found = forecast_cells(asked, BOOK, guaranteed(asked), opened)
    assert found.per_stratum == 149.5
    assert found.cases == values[100:].sum()
    assert found.rows[0].strata == 100
    assert found.rows[0].noise == pytest.approx(1.959964 * 1.357, rel=1e-3)  # this plan's noise, not theirs


def test_cells_of_another_query_are_refused() -> None:
    other = query("crosstab", by=["sex"])
    cells = true_groups(other.layout(BOOK).groups, [np.array([3, 4])])
    for asked in (query("crosstab", by=["status"]), survival(12)):
        with pytest.raises(DocumentError, match="another query or codebook"):
            forecast_cells(asked, BOOK, guaranteed(asked), cells)


# --- advice -------------------------------------------------------------------------------------------


def test_a_noisy_curve_is_advised_a_coarser_grid() -> None:
    asked, cases = survival(1, title="monthly"), 200
    before = forecast_of(asked, cases).main
    assert before is not None and before.share > 1
    (found,) = advice(asked, BOOK, guaranteed(asked), cases)
    assert found.forecast is not None and found.forecast.main is not None
    assert found.forecast.main.share <= 1 < before.share
    # The lines that are printed, put into the document, make the query that was forecast.
    document = {**SURVIVAL, "privacy": {"epsilon": "1"}, **tomllib.loads("\n".join(found.lines))}
    assert forecast_of(parse_query(document), cases) == found.forecast
    assert found.lines[0] == "[grid]"


def test_a_coarser_grid_is_the_next_one_that_suffices() -> None:
    asked = survival(1)
    shares = {}
    for every in (1, 3, 6, 12):
        main = forecast_of(survival(every), 200).main
        assert main is not None
        shares[every] = main.share
    enough = min(every for every, share in shares.items() if share <= 1)
    (found,) = advice(asked, BOOK, guaranteed(asked), 200)
    assert f"every = {enough}" in found.lines


def test_a_hopeless_curve_is_told_so() -> None:
    asked = survival(1)
    (found,) = advice(asked, BOOK, guaranteed(asked), 10)
    assert "even on the coarsest grid" in found.reason
    assert "edges = [1, 3, 5, 10]" in found.lines


@pytest.mark.parametrize(
    ("asked", "cases"),
    [(survival(12), 300), (query("mean", variable="age"), 500), (query("count"), 50)],
)
def test_no_advice_where_noise_is_the_smaller_part(asked: Query, cases: int) -> None:
    assert advice(asked, BOOK, guaranteed(asked), cases) == []


def test_a_noisy_mean_is_advised_narrower_bounds() -> None:
    asked = query("mean", epsilon="0.1", variable="age", by=["sex"], variance=True)
    (found,) = advice(asked, BOOK, guaranteed(asked), 300)
    (line,) = found.lines
    low, high = tomllib.loads(line)["clip"]
    main = forecast_of(asked, 300).main
    assert main is not None
    assert low == 0 and high == pytest.approx(100 / main.share, abs=1)
    assert "never from the data" in found.reason and "years" in found.reason


def test_noisy_counts_and_bins_are_advised_fewer_of_them() -> None:
    asked = query("crosstab", epsilon="0.1", by=["sex"])
    assert "fewer or wider categories" in advice(asked, BOOK, guaranteed(asked), 20)[0].reason
    asked = query("histogram", epsilon="0.01", variable="age", edges=list(range(0, 100, 5)))
    assert "fewer and wider bins" in advice(asked, BOOK, guaranteed(asked), 100)[0].reason
    asked = query("count", epsilon="0.1")
    assert "a wider filter" in advice(asked, BOOK, guaranteed(asked), 3)[0].reason


def test_many_false_groups_are_advised_the_least_k_that_is_enough() -> None:
    asked = query("crosstab", by=["region"])
    made, groups = guaranteed(asked), asked.layout(BOOK).groups
    (found,) = false_groups(made, groups)
    k = tomllib.loads("\n".join(found.lines))["privacy"]["threshold"]
    table = made.allotments[0].table
    assert 3000 * table.tail(k) <= 1 < 3000 * table.tail(k - 1)
    most = int(1 / table.tail(5))
    assert f"at most {most:,} of them at k = 5" in found.reason


@pytest.mark.parametrize(
    "privacy", [{"rule": "exact"}, {"rule": "strict", "delta": "1e-6"}, {"threshold": 9}]
)
def test_no_false_groups_no_advice(privacy: dict[str, Any]) -> None:
    asked = query("crosstab", by=["site", "sex"], privacy=privacy)
    assert false_groups(guaranteed(asked), asked.layout(BOOK).groups) == []


def test_totals_noisier_than_sums_are_told() -> None:
    few = query("crosstab", by=["sex", "status"], totals=True)
    (found,) = noisier_totals(few, guaranteed(few), few.layout(BOOK).groups)
    assert found.lines == ("totals = false",)
    assert "sums of 4 cells" in found.reason
    many = query("crosstab", by=["site", "region"], totals=True)
    assert noisier_totals(many, guaranteed(many), many.layout(BOOK).groups) == []
    none = query("crosstab", by=["sex", "status"])
    assert noisier_totals(none, guaranteed(none), none.layout(BOOK).groups) == []


def test_changed_lines_are_the_top_level_keys_that_differ() -> None:
    before = query("mean", variable="age", clip=[0, 90])
    after = query("mean", variable="age", clip=[0, 50], title='a "b"', epsilon="2")
    assert changed_lines(before, before) == ()
    read = tomllib.loads("\n".join(changed_lines(before, after)))
    assert (read["clip"], read["title"], read["privacy"]["epsilon"]) == ([0, 50], 'a "b"', "2")


def test_a_larger_epsilon_leaves_less_noise() -> None:
    shares = [forecast_of(survival(12, epsilon=epsilon), 200).main.share for epsilon in ("0.5", "1", "2")]  # type: ignore[union-attr]
    assert shares == sorted(shares, reverse=True)
    assert Fraction("0.5") == guaranteed(survival(12, epsilon="0.5")).epsilon
