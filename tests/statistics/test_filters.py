"""Survival under filters: strata that they leave out are no data, and a typical cohort for forecasts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.codebook import Codebook
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import open_cells, outside, variable_axes
from tests.statistics.edge.registries import PRIVACY, pick, table, value, with_noise
from tests.statistics.test_net_survival_edges import SMALL, book
from tests.statistics.test_queries import CODEBOOK, _histogram, _query, grid_of

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

SURVIVAL: dict[str, Any] = {
    "preset": "survival",
    "time": "days",
    "event": {"variable": "status", "in": ["dead"]},
    "by": ["stage", "sex"],
    "compare": "stage",
    "grid": {"every": 1, "until": 3},
}
WHERE = [{"variable": "stage", "in": ["I", "II"]}, {"variable": "sex", "in": ["F"]}]


def tables(codebook: Codebook, asked: dict[str, Any], row: list[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of noise in all strata and of the same without what the filters leave out."""
    query = parse_query({**asked, "privacy": PRIVACY})
    guard, outcomes = query.layout(codebook).groups[0].tallies
    strata = guard.grid.cells
    cells = np.tile(np.array(row, float), outcomes.grid.cells // len(row)).reshape(strata, -1)
    cells[0] *= 2
    sums = [cells.sum(axis=1), cells.reshape(-1)]
    zero = [np.zeros(len(each)) for each in sums]
    hidden = np.ones(guard.grid.shape, bool)
    hidden[:2] = np.arange(hidden[0].size).reshape(hidden[0].shape) != 0 if hidden.ndim > 1 else False
    both = [table(query, codebook, with_noise(query, codebook, sums, [2.0, 2.0], zero, each))
            for each in (None, hidden)]  # fmt: skip
    return both[0], both[1]


def test_strata_outside_the_filters_are_in_no_curve_and_no_test(tmp_path: Path) -> None:
    asked = SURVIVAL | {"where": WHERE}
    shown, hidden = tables(book(tmp_path), asked, [20, 2, 12, 4, 8, 3, 60])
    pd.testing.assert_frame_equal(shown, hidden)
    out = shown["stage"].isin(["III", "unknown"]) | shown["sex"].isin(["M", "?"])
    assert out.any() and set(shown[out]["flag"]) == {"z"} and shown[out]["value"].isna().all()
    assert set(shown[out]["note"]) == {"outside the filters"}
    whole = pick(shown, "at_risk", stage="(all)", sex="(all)")
    assert whole["value"].iloc[0] == pytest.approx(3 * 109) and whole["note"].str.contains("all strata").all()
    assert pick(shown, "log_rank_degrees_of_freedom")["value"].item() == 1


def test_net_survival_leaves_out_what_the_filters_do(tmp_path: Path) -> None:
    asked = SMALL | {"where": WHERE[:1]}
    shown, hidden = tables(book(tmp_path), asked, [20, 2, 12, 4, 8, 3, 60])
    pd.testing.assert_frame_equal(shown, hidden)
    assert set(shown[shown["stage"].isin(["III", "unknown"])]["flag"]) == {"z"}
    whole = pick(shown, "net_survival", stage="(all)")
    assert whole["note"].str.startswith("all strata together").all() and (whole["flag"] == "ok").all()


@pytest.mark.parametrize(("estimator", "prefix"), [("pohar-perme", "weighted_"), ("ederer-2", "")])
def test_what_is_weighted_says_so(tmp_path: Path, estimator: str, prefix: str) -> None:
    shown, _ = tables(book(tmp_path), SMALL | {"estimator": estimator}, [20, 2, 12, 4, 8, 3, 60])
    names = {name for name in shown["statistic"] if "expected" in name}
    assert names == {f"{prefix}expected_survival", f"{prefix}expected_interval_survival"}


def test_age_groups_too_small_for_the_noise_have_no_curve(tmp_path: Path) -> None:
    codebook = book(tmp_path)
    query = parse_query({**SMALL, "by": [], "by_age": True, "privacy": PRIVACY})
    cells = np.zeros((7, 3, 7))
    cells[:6, :2] = [20, 2, 12, 4, 8, 3, 60]
    cells[2, :2] = [0, 0, 1, 0, 0, 0, 1]  # four patients of 45-54, below the threshold of five
    sums = [np.array([cells.sum()]), cells.reshape(-1)]
    opened = with_noise(query, codebook, sums, [0.0, 0.0], [np.zeros(1), np.zeros(cells.size)])
    frame = table(query, codebook, opened)
    small = pick(frame, "net_survival", ages="45-54")
    assert set(small["flag"]) == {"x"} and small["note"].str.startswith("too few patients").all()
    assert set(pick(frame, "net_survival", ages="55-64")["flag"]) == {"ok"}


@pytest.mark.parametrize("keys", [{"period": [1996, 1999]}, {"year": "year"}])
def test_a_typical_cohort_dies_of_its_age_and_of_its_cancer(tmp_path: Path, keys: dict[str, Any]) -> None:
    codebook = book(tmp_path)
    asked = {key: each for key, each in SMALL.items() if key != "period"} | keys
    query = parse_query(
        {
            **asked,
            "by": [],
            "standard": "icss_1",
            "by_age": True,
            "grid": {"every": 1, "until": 5},
            "privacy": PRIVACY,
        }
    )
    layout = query.layout(codebook)
    sums = query.typical(codebook, layout, 10_000)
    assert [len(each) for each in sums] == [tally.grid.cells for tally in layout.groups[0].tallies]
    assert sums[0].sum() == pytest.approx(10_000) and sums[1].sum() == pytest.approx(10_000)
    ages = sums[1].reshape(layout.groups[0].members[0].grid.shape).reshape(7, -1).sum(axis=1)
    assert ages[-1] == 0 and ages[1] < ages[4] > 0 and ages[0] < 0.02 * ages.sum()
    zero = [np.zeros(len(each)) for each in sums]
    frame = table(query, codebook, with_noise(query, codebook, sums, [0.0, 0.0], zero))
    for statistic in ("net_survival", "standardised_net_survival"):
        found = pick(frame, statistic, ages="(all)")
        # Excess mortality alone leaves 70 % after five years.
        assert found["value"].iloc[-1] == pytest.approx(0.7, abs=0.01)
    assert value(frame[np.isclose(frame["time"].fillna(0), 5)], "survival") < 0.65


@pytest.mark.parametrize(
    ("where", "name", "expected"),
    [
        ([], "stage", [True, True, True]),
        ([{"variable": "stage", "in": ["II"]}], "stage", [False, True, False]),
        ([{"variable": "stage", "in": ["I", "unknown"]}], "stage", [True, False, True]),
        ([{"variable": "age", "between": [10, 64]}], "ages", [True, True, False, False]),
        ([{"variable": "ages", "in": ["0-14", "65+"]}], "ages", [True, False, True, False]),
        ([{"variable": "ages", "in": ["65+", "?"]}], "ages", [False, False, True, True]),
        # Each of the two filters leaves a part of the band, both together nothing of it.
        (
            [{"variable": "age", "between": [0, 20]}, {"variable": "age", "between": [21, 70]}],
            "ages",
            [False] * 4,
        ),
        ([{"variable": "year", "in": [1999, 2001]}], "year", [True, False, True]),
        ([{"variable": "year", "in": [1999]}], "sex", [True, True]),
    ],
)
def test_which_categories_the_filters_allow(where: Any, name: str, expected: list[bool]) -> None:
    query = parse_query(_query(by=[name], where=where))
    axes = variable_axes((name,), "by", CODEBOOK, [])
    allowed = query.possible(CODEBOOK, axes)
    assert allowed[name].tolist() == expected
    grid = [axis for axis, _ in axes]
    labels = [label for label, inside in zip(CODEBOOK.labels(name), expected, strict=True) if not inside]
    assert outside(grid, allowed) == {name: tuple(labels)}
    assert open_cells(grid, allowed).tolist() == expected


@given(low=st.integers(0, 99), high=st.integers(0, 99), cuts=st.sets(st.integers(1, 99), min_size=1))
def test_a_bin_is_possible_where_a_value_of_it_passes(low: int, high: int, cuts: set[int]) -> None:
    low, high, edges = min(low, high), max(low, high), [0, *sorted(cuts), 100]
    where = [{"variable": "age", "between": [low, high]}]
    query = parse_query(_histogram(edges=edges, where=where))
    (recipe,) = query.layout(CODEBOOK).recipes
    grid = grid_of(_histogram(edges=edges))
    found = query.possible(CODEBOOK, [(grid.axes[0], recipe.rules[0])])["age"]  # type: ignore[list-item]
    wanted = [any(low <= value <= high for value in range(a, b)) for a, b in pairwise(edges)]
    assert found.tolist() == [*wanted, False]
