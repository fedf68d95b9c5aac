"""Where Kaplan–Meier suffers from a wide grid: by hand, and where it cannot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.estimators.lifetable import CellNoise, IntervalCounts, life_table
from mpc_engine.estimators.survival import coarse


def test_two_methods_apart_by_more_than_the_error() -> None:
    # 100 at risk, 20 events, 40 censored: 0.80 against 1 - 20/80 = 0.75, with a standard error of 0.04.
    counts = IntervalCounts(np.array([[20.0]]), np.array([[40.0]]), np.array([40.0]))
    table = life_table(counts)
    assert table.survival[0, 0] - 0.75 == pytest.approx(0.05)
    assert coarse(table).tolist() == [[True]]
    assert coarse(table, 1.24).tolist() == [[True]] and coarse(table, 1.26).tolist() == [[False]]
    assert not coarse(life_table(counts, "actuarial")).any()


def test_noise_counts_as_error() -> None:
    def marked(variance: float) -> bool:
        counts = IntervalCounts(
            np.array([[20.0]]), np.array([[40.0]]), np.array([40.0]), noise=CellNoise(member=variance)
        )
        return bool(coarse(life_table(counts)).item())

    assert marked(1.0) and not marked(400.0)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6),
    st.integers(0, 50),
    st.sampled_from(["kaplan-meier", "actuarial"]),
)
def test_nothing_is_marked_where_nobody_is_censored(events: list[int], beyond: int, method: str) -> None:
    deaths = np.array(events, np.float64)
    counts = IntervalCounts(deaths, np.zeros_like(deaths), np.array(float(beyond)))
    assert not coarse(life_table(counts, method)).any()  # type: ignore[arg-type]


def test_what_is_suppressed_or_empty_is_not_marked() -> None:
    nothing = IntervalCounts(np.full((1, 2), np.nan), np.full((1, 2), np.nan), np.array([np.nan]))
    empty = IntervalCounts(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros(1))
    assert not coarse(life_table(nothing)).any() and not coarse(life_table(empty)).any()
