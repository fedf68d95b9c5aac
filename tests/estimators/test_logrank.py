"""The log-rank test against R and lifelines, its noise, and its edges."""

from __future__ import annotations

import json
from typing import Any

import lifelines.statistics
import numpy as np
import pytest

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.lifetable import CellNoise, IntervalCounts
from mpc_engine.estimators.logrank import LogRank, log_rank
from tests.estimators.cohorts import DATA, MONTH, QUARTER, breast, counts, noised, simulated, wilms

WILMS, BREAST = wilms(), breast()
EXACT = dict(rel=1e-9, abs=1e-11)


def cut(
    people: dict[str, Any], groups: Any, strata: Any = None, width: float = 1.0
) -> tuple[IntervalCounts, bool]:
    if strata is None:
        return counts(people["t"], people["e"], groups, width), False
    every = int(np.ceil(people["t"].max() / width))
    parts = []
    for stratum in np.unique(strata):
        inside = strata == stratum
        rows = [inside & (groups == group) for group in np.unique(groups)]
        parts.append([counts(people["t"][row], people["e"][row], None, width, every) for row in rows])
    events, censored, beyond = (
        [[getattr(cell, name) for cell in row] for row in parts] for name in ("events", "censored", "beyond")
    )
    return IntervalCounts(events, censored, beyond), True


def wilms_cases() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((DATA / "references/nwtco/logrank.json").read_text("utf-8"))
    return loaded


@pytest.mark.parametrize("case", wilms_cases(), ids=lambda case: f"{case['test']}-{case['rho']}")
def test_survdiff(case: dict[str, Any]) -> None:
    name = case["test"]
    width = MONTH if name.endswith("month") else QUARTER if name.endswith("quarter") else 1.0
    of, _, by = name.removesuffix("_grid_month").removesuffix("_grid_quarter").partition("_strat_")
    groups = np.char.add(WILMS["stage"], WILMS["histol"]) if "_x_" in of else WILMS[of]
    strata = None
    if by:
        strata = np.char.add(WILMS["study"], WILMS["stage"]) if by == "study_stage" else WILMS[by]
    prepared, stratified = cut(WILMS, groups, strata, width)
    found = log_rank(prepared, stratified=stratified, rho=case["rho"])
    assert found.size.tolist() == case["n"]
    assert found.observed == pytest.approx(case["observed"], **EXACT)
    assert found.expected == pytest.approx(case["expected"], **EXACT)
    assert found.variance == pytest.approx(np.array(case["var"]), **EXACT)
    assert found.chi_square == pytest.approx(case["chisq"], rel=1e-9)
    assert found.chi_square == found.textbook_chi_square
    assert found.df == case["df"]
    assert np.log10(found.p) == pytest.approx(case["log10p"], rel=1e-9)
    assert not found.noise_variance.any()


def test_all_reference_tests_were_met() -> None:
    assert len(wilms_cases()) == 13


@pytest.mark.parametrize("case", json.loads((DATA / "references/breast/logrank.json").read_text("utf-8")))
def test_survdiff_of_breast_cancer(case: dict[str, Any]) -> None:
    of, _, by = case["test"].partition(" strat ")
    order = ["0", "1-3", "4-9", "10+"]
    groups = BREAST[of]
    if of == "nodecat":  # R's order of levels
        groups = np.array([str(order.index(value)) for value in groups])
    prepared, stratified = cut(BREAST, groups, BREAST[by] if by else None)
    found = log_rank(prepared, stratified=stratified)
    assert found.size.tolist() == case["n"]
    assert found.observed.tolist() == case["obs"]
    assert found.expected == pytest.approx(case["exp"], **EXACT)
    assert found.chi_square == pytest.approx(case["chisq"], rel=1e-9)
    assert found.df == case["df"]


def test_lifelines_agrees() -> None:
    other = lifelines.statistics.multivariate_logrank_test(WILMS["t"], WILMS["stage"], WILMS["e"])
    found = log_rank(counts(WILMS["t"], WILMS["e"], WILMS["stage"]))
    assert found.chi_square == pytest.approx(other.test_statistic, rel=1e-9)
    assert found.p == pytest.approx(other.p_value, rel=1e-9)


@pytest.mark.parametrize("rho", [0.0, 1.0])
@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("last", [None, 2])
def test_noise_variance_is_the_linearisation(rho: float, stratified: bool, last: int | None) -> None:
    """Against central differences in every opened number, late entries and guards among them."""
    generator = np.random.default_rng(8)
    shape = (2, 3, 4) if stratified else (3, 4)
    parts = [
        generator.integers(5, 15, shape).astype(float),
        generator.integers(3, 9, shape).astype(float),
        generator.integers(20, 40, shape[:-1]).astype(float),
        generator.integers(1, 4, shape).astype(float),
    ]
    parts.append(parts[0].sum(-1) + parts[1].sum(-1) + parts[2] + 3)
    noise = CellNoise(2.0, 3.0, 30.0)

    def run(given: list[Any]) -> LogRank:
        return log_rank(IntervalCounts(*given, noise=noise), stratified, rho, last)

    def gap(given: list[Any]) -> Any:
        result = run(given)
        return result.observed - result.expected

    total, h = np.zeros((3, 3)), 1e-5
    for which, variance in enumerate([2.0, 2.0, 2.0, 3.0, 30.0]):
        for position in np.ndindex(parts[which].shape):
            up, down = [[part.copy() for part in parts] for _ in range(2)]
            up[which][position] += h
            down[which][position] -= h
            slope = (gap(up) - gap(down)) / (2 * h)
            total += variance * np.outer(slope, slope)
    assert run(parts).noise_variance == pytest.approx(total, rel=1e-5, abs=1e-7)


def test_batches_are_the_single_tests() -> None:
    seed = 31
    print("seed", seed)
    generator = np.random.default_rng(seed)
    a, b = (noised(simulated(generator, 6, 80, s), generator) for s in (0.7, 0.5))
    assert a.guard is not None and b.guard is not None
    both = IntervalCounts(
        np.stack([a.events, b.events], 1),
        np.stack([a.censored, b.censored], 1),
        np.stack([a.beyond, b.beyond], 1),
        guard=np.stack([a.guard, b.guard], 1),
        noise=a.noise,
    )
    whole = log_rank(both)
    assert whole.chi_square.shape == (6,)
    for i in range(6):
        assert both.guard is not None
        one = log_rank(
            IntervalCounts(
                both.events[i], both.censored[i], both.beyond[i], guard=both.guard[i], noise=a.noise
            )
        )
        assert whole.chi_square[i] == pytest.approx(one.chi_square) and whole.p[i] == pytest.approx(one.p)


@pytest.mark.parametrize("people", [100, 250])
def test_level_with_noise(people: int) -> None:
    """Two equal groups: 5 % of tests reject with the noise counted, clearly more without."""
    seed = 90 + people
    print("seed", seed)
    generator = np.random.default_rng(seed)
    exact = [simulated(generator, 3000, people, 0.75) for _ in range(2)]
    pair = IntervalCounts(
        *(np.stack([getattr(x, n) for x in exact], 1) for n in ("events", "censored", "beyond"))
    )
    found = log_rank(noised(pair, generator))
    rejected = float((found.p < 0.05).mean())
    assert 0.03 <= rejected <= 0.065
    assert float((found.textbook_chi_square > 3.841458820694124).mean()) > rejected + 0.015
    assert float((found.chi_square - found.textbook_chi_square).max()) <= 1e-9


def test_edges() -> None:
    # A group that nobody is in is not compared, with and without noise.
    three = IntervalCounts(
        [[3.0, 2.0], [1.0, 4.0], [0.0, 0.0]], [[1.0, 1.0]] * 2 + [[0.0, 0.0]], [9.0, 8.0, 0.0]
    )
    two = IntervalCounts(three.events[:2], three.censored[:2], three.beyond[:2])
    assert log_rank(three).df == 1
    assert log_rank(three).chi_square == pytest.approx(log_rank(two).chi_square)
    noisy = log_rank(IntervalCounts(three.events, three.censored, three.beyond, noise=CellNoise(2.0)))
    assert noisy.df == 1 and noisy.chi_square < log_rank(three).chi_square
    # No events: nothing to compare.
    none = log_rank(IntervalCounts([[0.0], [0.0]], [[4.0], [5.0]], [1.0, 1.0]))
    assert none.df == 0 and np.isnan(none.p) and none.chi_square == 0
    # Everybody tied in one interval: O = E, no variance.
    tied = log_rank(IntervalCounts([[4.0], [6.0]], [[0.0], [0.0]], [0.0, 0.0]))
    assert tied.expected == pytest.approx([4, 6]) and np.isnan(tied.p)
    single = log_rank(IntervalCounts([[1.0], [0.0]], [[0.0], [0.0]], [0.0, 0.0]))
    assert single.df == 0
    # Negative cells.
    wild = log_rank(
        IntervalCounts(
            [[-3.0, 2.0], [1.0, -1.0]], [[0.0, -4.0], [1.0, 2.0]], [14.0, 9.0], noise=CellNoise(3.4)
        )
    )
    assert np.isfinite(wild.chi_square) and 0 <= wild.p <= 1
    # One suppressed group and the test is not available.
    lost = log_rank(IntervalCounts([[np.nan], [1.0]], [[1.0], [1.0]], [5.0, 5.0], noise=CellNoise(1.0)))
    assert np.isnan(lost.chi_square) and np.isnan(lost.p) and np.isnan(lost.df)


def test_what_is_hidden_of_a_stratum_brings_no_noise() -> None:
    generator = np.random.default_rng(12)
    cells = generator.integers(3, 30, (4, 3, 5)).astype(float)
    noise = CellNoise(3.0)

    def test(cells: Any) -> LogRank:
        return log_rank(
            IntervalCounts(cells[..., :2], cells[..., 2:4], cells[..., 4], noise=noise), stratified=True
        )

    # A stratum of which all or all but one is hidden, or which is not there at all.
    without = test(cells[:3])
    for shown in (0, 1):
        hidden = cells.copy()
        hidden[3, shown:] = np.nan
        found = test(hidden)
        assert found.chi_square == pytest.approx(without.chi_square)
        assert found.noise_variance == pytest.approx(without.noise_variance)
    # One group of a stratum hidden: the other two are compared there as if there were no third.
    hidden = cells.copy()
    hidden[3, 2] = np.nan
    found, two = test(hidden), test(cells[3:, :2])
    assert found.observed == pytest.approx(without.observed + np.append(two.observed, 0))
    extra = found.noise_variance - without.noise_variance
    assert extra[:2, :2] == pytest.approx(two.noise_variance) and not extra[2].any()


def test_refusals() -> None:
    one = IntervalCounts([[1.0]], [[1.0]], [3.0])
    two = IntervalCounts([[1.0], [2.0]], [[1.0], [1.0]], [3.0, 3.0])
    for wrong in (
        lambda: log_rank(one),
        lambda: log_rank(two, stratified=True),
        lambda: log_rank(two, last=0),
        lambda: log_rank(two, last=2),
    ):
        with pytest.raises(DocumentError):
            wrong()
