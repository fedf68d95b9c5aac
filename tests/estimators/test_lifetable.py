"""Life tables: reconciliation, projection, variances, late entries and edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.lifetable import (
    CellNoise,
    IntervalCounts,
    LifeTable,
    Method,
    life_table,
    nonnegative,
    reconcile,
)

NOISE = CellNoise(3.0, 5.0, 20.0)
METHODS: tuple[Method, ...] = ("kaplan-meier", "actuarial")


def example(noise: CellNoise = NOISE, late: bool = True, guard: bool = True) -> IntervalCounts:
    return IntervalCounts(
        [12.0, 7.0, 5.0, 4.0],
        [6.0, 9.0, 8.0, 11.0],
        30.0,
        [3.0, 4.0, 1.0, 2.0] if late else None,
        97.0 if guard else None,
        noise=noise,
    )


def test_textbook_actuarial_table() -> None:
    """n' = n − c/2 by hand: 20 people, then 20 − 3 − 4 = 13."""
    table = life_table(IntervalCounts([3.0, 2.0], [4.0, 6.0], 5.0), "actuarial")
    assert table.at_risk.tolist() == [20, 13]
    assert table.effective.tolist() == [18, 10]
    assert table.survival == pytest.approx([15 / 18, 15 / 18 * 8 / 10])
    assert table.log_variance == pytest.approx([3 / (18 * 15), 3 / (18 * 15) + 2 / (10 * 8)])
    assert not table.log_noise_variance.any()


def test_reconciliation_is_weighted_least_squares() -> None:
    """Against the general projection x − VAᵀ(AVAᵀ)⁻¹Ax, and its covariance against V − VAᵀ(AVAᵀ)⁻¹AV."""
    counts = example(late=False)
    result = reconcile(counts)
    assert counts.guard is not None
    x = np.concatenate([counts.events, counts.censored, [counts.beyond], [counts.guard]])
    v, a = np.diag([3.0] * 9 + [20.0]), np.array([[1.0] * 9 + [-1.0]])
    gain = v @ a.T @ np.linalg.inv(a @ v @ a.T)
    expected = x - (gain @ a @ x)
    found = np.concatenate([result.events, result.censored, [result.beyond], [result.total]])
    assert found == pytest.approx(expected, rel=1e-12)
    covariance = v - gain @ a @ v
    f, g = np.arange(1.0, 10.0), np.cos(np.arange(9.0))
    one = result.noise_covariance(
        np.asarray(f @ g), np.asarray(f.sum()), np.asarray(g.sum()), np.asarray(0.0)
    )
    assert one == pytest.approx(f @ covariance[:9, :9] @ g)


def test_reconciliation_leaves_what_agrees() -> None:
    exact = example(CellNoise(), guard=False, late=False)
    total = float(exact.events.sum() + exact.censored.sum() + exact.beyond)
    for noise in (CellNoise(), NOISE, CellNoise(0.0, 0.0, 9.0)):
        same = reconcile(IntervalCounts(exact.events, exact.censored, exact.beyond, None, total, noise))
        assert same.total == total
        assert same.events.tolist() == exact.events.tolist() and same.beyond == exact.beyond
    # Exact members beat a noisy guard; an exact guard beats noisy members.
    assert reconcile(example(CellNoise(0.0, 0.0, 9.0))).total == 92
    assert reconcile(example(CellNoise(3.0, 0.0, 0.0))).total == 97
    with pytest.raises(DocumentError, match="do not add up"):
        reconcile(example(CellNoise()))


def test_a_guard_selected_for_being_large_is_not_used_for_small_strata() -> None:
    """Guards are shown from 5 on: 65 strata of 1 to 8 people keep the size of their members, unbiased."""
    seed = 4
    print("seed", seed)
    generator = np.random.default_rng(seed)
    strata, repeats = 65, 60
    noise = CellNoise(1.0, 0.0, 36.0)
    true = np.tile(generator.integers(1, 9, strata), repeats)
    beyond = np.maximum(true - 1.0, 0.0)
    cells = np.stack([true - beyond, np.zeros(len(true)), beyond]) + generator.normal(0, 1, (3, len(true)))
    guard = true + generator.normal(0, 6, len(true))
    shown = guard >= 5

    def size(guard_from: float) -> float:
        counts = IntervalCounts(
            cells[0][shown, None],
            cells[1][shown, None],
            cells[2][shown],
            guard=guard[shown],
            noise=noise,
            guard_from=guard_from,
        )
        return float(reconcile(counts).total.mean() - true[shown].mean())

    assert size(-np.inf) > 0.3 and abs(size(5.0)) < 0.1


def test_guards_of_large_strata_count_and_of_small_ones_do_not() -> None:
    cells = np.array([[12.0, 6.0, 30.0], [2.0, 6.0, 3.0]])
    counts = IntervalCounts(
        cells[:, :1], cells[:, 1:2], cells[:, 2], guard=[60.0, 20.0], noise=NOISE, guard_from=5.0
    )
    assert 11 < 5 + 3 * np.sqrt(20) < 48
    both = reconcile(counts)
    assert both.guard_weight.tolist() == pytest.approx([9 / 29, 0])
    assert both.total == pytest.approx([48 + 12 * 9 / 29, 11]) and both.events[1] == cells[1, 0]
    plain = reconcile(IntervalCounts(counts.events, counts.censored, counts.beyond, noise=NOISE))
    alone, mixed = [
        life_table(IntervalCounts(c.events[1], c.censored[1], c.beyond[1], noise=NOISE))
        for c in (plain, counts)
    ]
    table = life_table(counts)
    assert table.log_noise_variance[1] == pytest.approx(alone.log_noise_variance)
    assert table.at_risk_noise_variance[1] == pytest.approx(mixed.at_risk_noise_variance)
    assert table.at_risk_noise_variance[0] == pytest.approx(9 - 9 * 9 / 29)


def numerical_variance(counts: IntervalCounts, method: Method, start: int) -> Any:
    """Noise variance of ln S(k)/S(start) from central differences in every opened number."""

    def curve(events: Any, censored: Any, beyond: Any, entered: Any, guard: Any) -> Any:
        table = life_table(IntervalCounts(events, censored, beyond, entered, guard, counts.noise), method)
        return np.concatenate([np.cumsum(np.log(table.interval_survival)[start:]), table.at_risk])

    parts = [counts.events, counts.censored, counts.beyond, counts.entered, counts.guard]
    variances = [counts.noise.member] * 3 + [counts.noise.entered, counts.noise.guard]
    total, h = 0.0, 1e-5
    for which, part in enumerate(parts):
        if part is None:
            continue
        for position in np.ndindex(part.shape):
            up, down = [list(parts) for _ in range(2)]
            up[which], down[which] = part.copy(), part.copy()
            up[which][position] += h  # type: ignore[index]
            down[which][position] -= h  # type: ignore[index]
            total = total + variances[which] * ((curve(*up) - curve(*down)) / (2 * h)) ** 2
    return total


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize("start", [0, 2])
def test_noise_variance_is_the_linearisation(method: Method, late: bool, guard: bool, start: int) -> None:
    counts = example(late=late, guard=guard)
    expected = numerical_variance(counts, method, start)
    table = life_table(counts, method)
    noise = table.log_variances(start)[1]
    assert not noise[:start].any()
    assert noise[start:] == pytest.approx(expected[: 4 - start], rel=1e-6)
    assert table.at_risk_noise_variance == pytest.approx(expected[4 - start :], rel=1e-6)


def test_a_guard_sharpens_the_number_at_risk() -> None:
    with_guard, without = life_table(example()), life_table(example(guard=False))
    assert (with_guard.at_risk_noise_variance < without.at_risk_noise_variance).all()
    assert (with_guard.log_noise_variance < without.log_noise_variance).all()


@pytest.mark.parametrize("method", METHODS)
def test_late_entries_counted_person_by_person(method: Method) -> None:
    """The period approach against counting the people whose time at risk touches each interval."""
    seed = 20
    print("seed", seed)
    generator = np.random.default_rng(seed)
    first = np.where(generator.random(500) < 0.5, 0, generator.integers(0, 6, 500))
    starts_late = (first > 0) | (generator.random(500) < 0.2)
    last = np.minimum(first + generator.integers(0, 6, 500), 6)  # 6: beyond the grid
    event = (generator.random(500) < 0.5) & (last < 6)
    cell = np.arange(6)
    counts = IntervalCounts(
        [(event & (last == j)).sum() for j in cell],
        [(~event & (last == j)).sum() for j in cell],
        (last == 6).sum(),
        [(starts_late & (first == j)).sum() for j in cell],
    )
    table = life_table(counts, method)
    at_risk = np.array([((first <= j) & (last >= j)).sum() for j in cell], dtype=float)
    assert table.at_risk.tolist() == at_risk.tolist()
    if method == "actuarial":
        assert counts.entered is not None
        at_risk -= (counts.censored + counts.entered) / 2
    assert table.survival == pytest.approx(np.cumprod(1 - counts.events / at_risk), rel=1e-12)


def test_projection_is_the_nearest_point() -> None:
    """Optimality: positive entries all moved alike, the others would have become negative."""
    generator = np.random.default_rng(3)
    values = generator.normal(1, 3, (200, 9))
    totals = np.abs(generator.normal(9, 4, 200))
    result = nonnegative(values, totals)
    touched = (values < 0).any(axis=-1)
    assert touched.sum() > 100 and (result[~touched] == values[~touched]).all()
    assert (result >= 0).all() and result[touched].sum(axis=-1) == pytest.approx(totals[touched])
    for before, after in zip(values[touched], result[touched], strict=True):
        moved = (before - after)[after > 0]
        assert moved == pytest.approx(np.full(len(moved), moved[0]))
        assert (before[after == 0] <= moved[0] + 1e-12).all()
    assert nonnegative(np.array([[-1.0, 0.5]]), np.array([-0.5])).tolist() == [[0, 0]]


def check_sane(table: LifeTable) -> None:
    survival = table.survival
    seen = np.isfinite(survival)
    assert ((survival[seen] >= 0) & (survival[seen] <= 1)).all()
    assert (np.diff(survival, axis=-1)[seen[..., 1:] & seen[..., :-1]] <= 0).all()
    assert (table.events >= 0).all() and (table.events <= table.effective).all()
    assert not np.isnan(table.log_variance).any() and (table.log_variance >= 0).all()
    assert not np.isnan(table.log_noise_variance).any() and (table.log_noise_variance >= 0).all()


@settings(max_examples=150, deadline=None)
@given(
    cells=arrays(float, (3, 13), elements=st.integers(-9, 40)),
    late=arrays(float, (3, 6), elements=st.integers(-9, 12)),
    guard=arrays(float, 3, elements=st.integers(-20, 300)),
    method=st.sampled_from(METHODS),
    period=st.booleans(),
)
def test_noisy_cells_never_explode(cells: Any, late: Any, guard: Any, method: Method, period: bool) -> None:
    counts = IntervalCounts(
        cells[:, :6], cells[:, 6:12], cells[:, 12], late if period else None, guard, noise=NOISE
    )
    table = life_table(counts, method)
    check_sane(table)
    # Strata do not touch each other.
    alone = life_table(
        IntervalCounts(
            cells[1, :6], cells[1, 6:12], cells[1, 12], late[1] if period else None, guard[1], NOISE
        ),
        method,
    )
    assert table.survival[1] == pytest.approx(alone.survival, nan_ok=True)
    assert table.log_noise_variance[1] == pytest.approx(alone.log_noise_variance)


def test_signed_cells_stay_available() -> None:
    counts = IntervalCounts([-2.0, 3.0], [1.0, -1.0], 20.0, guard=21.0, noise=NOISE)
    table = life_table(counts)
    assert table.reconciled.events.tolist() == [-2, 3]
    assert table.events[0] == 0 and table.survival[0] == 1
    assert table.at_risk[0] == pytest.approx(21)


def test_edges() -> None:
    empty = life_table(IntervalCounts([0.0, 0.0], [0.0, 0.0], 0.0))
    assert np.isnan(empty.survival).all() and not empty.reliable().any()
    censored = life_table(IntervalCounts([0.0, 0.0], [5.0, 5.0], 0.0))
    assert censored.survival.tolist() == [1, 1] and not censored.log_variance.any()
    tied = life_table(IntervalCounts([0.0, 8.0, 0.0], [0.0, 0.0, 0.0], 0.0))
    assert tied.survival.tolist() == [1, 0, 0] and tied.log_variance.tolist() == [0, np.inf, np.inf]
    assert tied.reliable().tolist() == [True, True, False]
    single = life_table(IntervalCounts([1.0], [0.0], 0.0))
    assert single.survival.tolist() == [0] and single.at_risk.tolist() == [1]
    # After the last person is censored nothing more is known.
    left = life_table(IntervalCounts([1.0, 0.0, 0.0], [0.0, 3.0, 0.0], 0.0))
    assert left.survival[:2].tolist() == [0.75, 0.75] and np.isnan(left.survival[2])
    assert left.reliable().tolist() == [True, True, False]


def test_a_suppressed_stratum_is_nan_and_harms_no_other() -> None:
    counts = IntervalCounts(
        [[1.0, np.nan], [1.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]], [4.0, 5.0], guard=[9.0, 10.0], noise=NOISE
    )
    table = life_table(counts)
    assert np.isnan(table.survival[0]).all() and not table.reliable()[0].any()
    assert np.isnan(table.log_noise_variance[0]).all() and np.isnan(table.beyond[0])
    assert np.isfinite(table.survival[1]).all() and np.isfinite(table.log_noise_variance[1]).all()


def test_reliable_ends_the_curve_for_good() -> None:
    # Late entries bring the number at risk back up; the curve stays ended.
    counts = IntervalCounts([10.0, 10.0, 1.0], [2.0, 7.0, 0.0], 20.0, [0.0, 0.0, 20.0])
    table = life_table(counts)
    assert table.at_risk.tolist() == [30, 18, 21]
    assert table.reliable(20).tolist() == [True, False, False]
    noisy = life_table(
        IntervalCounts(
            counts.events, counts.censored, counts.beyond, counts.entered, noise=CellNoise(25.0, 25.0)
        )
    )
    assert noisy.reliable(0, deviations=2).tolist() == [True, False, False]  # 2·√(25·5 + 25) = 24.5 > 18
    assert noisy.reliable(0, deviations=1).tolist() == [True, True, True]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: IntervalCounts([], [], 0.0),
        lambda: IntervalCounts([1.0, 2.0], [1.0], 0.0),
        lambda: IntervalCounts([1.0], [1.0], [0.0]),
        lambda: IntervalCounts([1.0], [1.0], 0.0, guard=[1.0]),
        lambda: CellNoise(member=-1.0),
        lambda: CellNoise(guard=float("nan")),
        lambda: life_table(example(), "breslow"),  # type: ignore[arg-type]
    ],
)
def test_refusals(wrong: Any) -> None:
    with pytest.raises(DocumentError):
        wrong()
