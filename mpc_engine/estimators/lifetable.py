"""Life tables from counts of events and censorings per interval, with or without noise on the counts.

A grid of public edges t_0 = 0 < t_1 < … < t_J cuts follow-up into J intervals; interval j is (t_{j-1},
t_j] and time 0 belongs to the first. Every person of a stratum is in exactly one *member cell*: event in
interval j, censored in interval j, or *beyond* the grid. In the period approach some people are also in
one *late entry* cell: the interval in which a person who was not yet followed at time 0 is first at risk,
so that entering exactly at t_{j-1} counts in interval j. Whoever is in no late entry cell is followed from
time 0.

Numbers at risk are sums over the cells that lie ahead, which is what keeps their noise small:

    n_j = Σ_{i≥j} (d_i + c_i) + beyond − Σ_{i>j} e_i

Kaplan–Meier puts censorings at the end of their interval and late entries at its start: the risk set is
n_j. The actuarial method [CE58] puts both half-way: n_j − (c_j + e_j)/2.

Arrays have any leading axes (strata) and the interval as last axis. A stratum with a cell that is not finite
(suppressed, say) is nan throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from mpc_engine.errors import DocumentError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Method = Literal["kaplan-meier", "actuarial"]

GUARD_DEVIATIONS = 3.0
"""By how many standard deviations of its noise a stratum must be larger than a guard had to be."""


@dataclass(frozen=True)
class CellNoise:
    """Variance of the independent noise on one member cell, one late entry cell and the guard; 0 is none.

    Raises DocumentError if a variance is negative or not finite.
    """

    member: float = 0.0
    entered: float = 0.0
    guard: float = 0.0

    def __post_init__(self) -> None:
        for name in ("member", "entered", "guard"):
            variance = getattr(self, name)
            if not (math.isfinite(variance) and variance >= 0):
                raise DocumentError(f"the noise variance `{name}` must be a finite number of at least 0")


@dataclass(frozen=True)
class IntervalCounts:
    """What a release opens for survival; values may be negative where there is noise.

    ``events`` and ``censored`` have shape (…, J), ``beyond`` (…,); optional are ``entered`` (…, J), the late
    entries, and ``guard`` (…,), a count of the whole stratum with noise of its own. ``guard_from`` is the
    number that a guard had to reach with its noise for the stratum to be shown, minus infinity if none; see
    `reconcile`. Anything array-like is taken and kept as float64. Raises DocumentError if the shapes do not
    fit or there is no interval.
    """

    events: FloatArray
    censored: FloatArray
    beyond: FloatArray
    entered: FloatArray | None = None
    guard: FloatArray | None = None
    noise: CellNoise = field(default_factory=CellNoise)
    guard_from: float = -math.inf

    def __post_init__(self) -> None:
        for name in ("events", "censored", "beyond", "entered", "guard"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, np.asarray(value, dtype=np.float64))
        shape = self.events.shape
        if not shape or shape[-1] == 0:
            raise DocumentError("a life table needs at least one interval")
        expected = {"censored": shape, "beyond": shape[:-1], "entered": shape, "guard": shape[:-1]}
        for name, fitting in expected.items():
            value = getattr(self, name)
            if value is not None and value.shape != fitting:
                raise DocumentError(f"`{name}` has shape {value.shape} where `events` asks for {fitting}")

    @property
    def intervals(self) -> int:
        """The number of intervals J."""
        return int(self.events.shape[-1])

    def reversed(self) -> IntervalCounts:
        """Return the same people with events and censorings in each other's place (reverse Kaplan–Meier)."""
        return IntervalCounts(
            self.censored, self.events, self.beyond, self.entered, self.guard, self.noise, self.guard_from
        )


@dataclass(frozen=True)
class Reconciled:
    """Member cells that add up to ``total``, the best number for the stratum's size; see `reconcile`.

    ``guard_weight`` is the part of the guard in that number, between 0 (no guard, exact members, or a guard
    that is not used) and 1: of each stratum (…,), or a single number for all, of no dimension.
    """

    events: FloatArray
    censored: FloatArray
    beyond: FloatArray
    entered: FloatArray | None
    total: FloatArray
    guard_weight: FloatArray
    noise: CellNoise

    def noise_covariance(
        self, products: FloatArray, left: FloatArray, right: FloatArray, entered: FloatArray
    ) -> FloatArray:
        """Return the noise covariance of two functions of the reconciled cells, by the delta method.

        With f and g the gradients over the 2J + 1 member cells of one stratum, ``products`` is Σ f·g,
        ``left`` Σ f and ``right`` Σ g; ``entered`` is Σ f·g over the late entry cells. The leading axes of
        ``products`` are those of the strata; others may follow. The projection on the guard has covariance
        v·(I − w·11ᵀ/(2J + 1)), v the variance of a member and w `guard_weight`.
        """
        members = 2 * self.events.shape[-1] + 1
        weight = self.guard_weight
        if weight.ndim:
            weight = weight.reshape(weight.shape + (1,) * (products.ndim - weight.ndim))
        tied = products - (weight / members) * left * right
        return np.asarray(self.noise.member * tied + self.noise.entered * entered, dtype=np.float64)


def reconcile(counts: IntervalCounts) -> Reconciled:
    """Make the member cells and the guard agree: weighted least squares on guard = Σ members.

    The 2J + 1 members and the guard give two independent numbers for the size of the stratum. Their mean,
    weighted by the inverse of their variances, is ``total``, and the difference to Σ members is shared
    equally among the members, since all have the same variance. Values stay signed. Without a guard, with
    exact members, or where both numbers are equal, the members are unchanged.

    A stratum is shown because its noisy guard was large, so that the guard of a small stratum that is shown
    is too large on average. The guard is therefore used only where Σ members, which its noise does not touch,
    is at least ``guard_from`` plus three standard deviations of that noise: there hardly any stratum would
    have been hidden. Raises DocumentError if exact members contradict an exact guard.
    """
    total = counts.events.sum(axis=-1) + counts.censored.sum(axis=-1) + counts.beyond
    if counts.guard is None:
        return _reconciled(counts, np.zeros_like(total), total, np.zeros(()))
    members = 2 * counts.intervals + 1
    spread = members * counts.noise.member
    gap = counts.guard - total
    if spread == 0:
        if counts.noise.guard == 0 and bool(np.any(np.abs(gap) > 1e-6 * (1 + np.abs(total)))):
            raise DocumentError("exact member cells do not add up to their exact guard")
        return _reconciled(counts, np.zeros_like(total), total, np.zeros(()))
    weight = np.asarray(spread / (spread + counts.noise.guard), dtype=np.float64)
    if counts.guard_from > -math.inf:
        far = total >= counts.guard_from + GUARD_DEVIATIONS * math.sqrt(counts.noise.guard)
        weight = np.where(far, weight, 0.0)
    return _reconciled(counts, weight * gap / members, total + weight * gap, weight)


def _reconciled(
    counts: IntervalCounts, share: FloatArray, total: FloatArray, weight: FloatArray
) -> Reconciled:
    return Reconciled(
        events=counts.events + share[..., None],
        censored=counts.censored + share[..., None],
        beyond=counts.beyond + share,
        entered=counts.entered,
        total=total,
        guard_weight=weight,
        noise=counts.noise,
    )


def nonnegative(values: FloatArray, total: FloatArray) -> FloatArray:
    """Return the point nearest to ``values`` without negative entries and with the sum ``total`` in each row.

    Where ``values`` (…, K) are already such a point they come back unchanged; where ``total`` (…,) is not
    positive the result is zero. All entries that stay positive move by the same amount, so that cutting off
    negative cells does not make the whole larger, as clipping would. [DSSC08]
    """
    wrong = (values < 0).any(axis=-1)
    if not wrong.any():
        return values
    result = values.copy()
    rows, sums = values[wrong], np.maximum(total[wrong], 0.0)[:, None]
    ordered = -np.sort(-rows, axis=-1)
    excess = (np.cumsum(ordered, axis=-1) - sums) / np.arange(1, rows.shape[-1] + 1)
    positive = (ordered > excess).sum(axis=-1, keepdims=True)
    shift = np.take_along_axis(excess, np.maximum(positive - 1, 0), axis=-1)
    result[wrong] = np.where(sums > 0, np.maximum(rows - shift, 0.0), 0.0)
    return result


@dataclass(frozen=True)
class LifeTable:
    """A life table per stratum; all arrays (…, J) unless said otherwise. Made by `life_table`.

    ``reconciled`` holds the signed cells after `reconcile`; ``events``, ``censored``, ``entered`` and
    ``beyond`` (…,) are those the curve is computed from, with 0 ≤ events ≤ ``effective``. ``at_risk`` is
    n_j at the start of the interval and ``effective`` the risk set of the method. ``interval_survival`` is
    1 where nobody is at risk; ``survival`` is its running product, and nan from the first interval on at
    whose start nobody is at risk, even if late entries follow: nothing is known of what happened between.
    After all have died it stays 0.
    ``log_variance`` is the Greenwood variance of ln S, ``log_noise_variance`` what noise on the counts
    adds to it, and ``at_risk_noise_variance`` the noise variance of n_j.
    """

    reconciled: Reconciled
    method: Method
    events: FloatArray
    censored: FloatArray
    entered: FloatArray
    beyond: FloatArray
    at_risk: FloatArray
    effective: FloatArray
    interval_survival: FloatArray
    survival: FloatArray
    log_variance: FloatArray
    log_noise_variance: FloatArray
    at_risk_noise_variance: FloatArray

    @property
    def intervals(self) -> int:
        """The number of intervals J."""
        return int(self.events.shape[-1])

    def reliable(self, least_at_risk: float = 0.0, deviations: float = 2.0) -> BoolArray:
        """Return for each interval whether the curve is to be shown up to its end, (…, J).

        It is shown until the first interval that starts with nobody at risk, with fewer than
        ``least_at_risk``, or with fewer than ``deviations`` standard deviations of the noise on the number
        at risk.
        """
        needed = np.maximum(least_at_risk, deviations * np.sqrt(self.at_risk_noise_variance))
        enough = (self.at_risk > 0) & (self.at_risk >= needed) & np.isfinite(self.survival)
        return np.logical_and.accumulate(enough, axis=-1)

    def log_variances(self, start: int = 0) -> tuple[FloatArray, FloatArray]:
        """Return the sampling and the noise variance of ln S(t_k)/S(t_start) for each k, two arrays (…, J).

        As `log_variance` and `log_noise_variance`, from the intervals after ``start`` alone; 0 up to there.
        """
        return _log_variances(self.reconciled, self.method, self.events, self.effective, start)


def _log_variances(
    reconciled: Reconciled, method: Method, events: FloatArray, effective: FloatArray, start: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Return the variances of Σ ln p_j over start < j ≤ k for each k, from sampling and from noise.

    Sampling: Greenwood's Σ d/(n'(n' − d)). Noise: the exact linearisation of ln S in all member and late
    entry cells, through the projection of `reconcile`. Infinite once the survival of an interval is 0.
    """
    used = np.arange(events.shape[-1]) >= start
    left = effective - events
    with np.errstate(divide="ignore", invalid="ignore"):
        # ∂ ln p/∂n' and −∂ ln p/∂d; the first is Greenwood's term too.
        hazard = np.where(events > 0, events / (effective * left), 0.0)
        direct = np.where(left > 0, 1.0 / left, 0.0)
    ended = np.logical_or.accumulate(used & np.isinf(hazard), axis=-1)
    hazard = np.where(used & np.isfinite(hazard), hazard, 0.0)
    direct = np.where(used, direct, 0.0)
    sampling, noise = np.cumsum(hazard, axis=-1), _log_noise(reconciled, method, hazard, direct)
    known = np.isfinite(effective)
    return (
        np.where(known, np.where(ended, np.inf, sampling), np.nan),
        np.where(known, np.where(ended, np.inf, noise), np.nan),
    )


def _log_noise(reconciled: Reconciled, method: Method, hazard: FloatArray, direct: FloatArray) -> FloatArray:
    """Return the noise variance of Σ_{j≤k} ln p_j; ``hazard`` is ∂ ln p/∂n', ``direct`` is −∂ ln p/∂d."""
    noise = reconciled.noise
    if noise.member == 0 and noise.entered == 0:
        return np.zeros_like(hazard)
    half = 0.5 if method == "actuarial" else 0.0
    risk = np.cumsum(hazard, axis=-1)
    event, censoring, entry = risk - direct, risk - half * hazard, risk - (1 - half) * hazard
    # A cell after interval k lengthens the time at risk in all k intervals: its derivative is risk_k.
    after = hazard.shape[-1] - 1.0 - np.arange(hazard.shape[-1])
    total = np.cumsum(event + censoring, axis=-1) + (2 * after + 1) * risk
    squares = np.cumsum(event**2 + censoring**2, axis=-1) + (2 * after + 1) * risk**2
    entries = np.asarray(0.0)
    if reconciled.entered is not None:
        entries = np.cumsum(entry**2, axis=-1) + after * risk**2
    return np.maximum(reconciled.noise_covariance(squares, total, total, entries), 0.0)


def life_table(counts: IntervalCounts, method: Method = "kaplan-meier") -> LifeTable:
    """Return the life table of each stratum.

    The signed counts are reconciled with the guard, then projected: to the nearest non-negative member cells
    with the same total (`nonnegative`), late entries and numbers at risk to at least 0, and events to at most
    the risk set. Exact counts that belong together pass through unchanged. Variances are evaluated at the
    projected counts. Raises DocumentError for an unknown method and as `reconcile`. [KM58, Greenwood26, CE58]
    """
    if method not in ("kaplan-meier", "actuarial"):
        raise DocumentError("the method of a life table is `kaplan-meier` or `actuarial`")
    reconciled = reconcile(counts)
    intervals = counts.intervals
    late = np.zeros_like(counts.events) if reconciled.entered is None else reconciled.entered
    known = np.isfinite(reconciled.total) & np.isfinite(late).all(axis=-1)
    cells = np.concatenate(
        [reconciled.events, reconciled.censored, reconciled.beyond[..., None]], axis=-1, dtype=np.float64
    )
    members = nonnegative(np.where(known[..., None], cells, 0.0), np.where(known, reconciled.total, 0.0))
    events, censored, beyond = members[..., :intervals], members[..., intervals:-1], members[..., -1]
    late = np.where(known[..., None], np.maximum(late, 0.0), 0.0)

    ahead = np.cumsum((events + censored)[..., ::-1], axis=-1)[..., ::-1] + beyond[..., None]
    later = np.cumsum(late[..., ::-1], axis=-1)[..., ::-1] - late
    at_risk = np.maximum(ahead - later, 0.0)
    half = (censored + late) / 2 if method == "actuarial" else 0.0
    effective = np.maximum(at_risk - half, 0.0)
    events = np.minimum(events, effective)
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = np.where(effective > 0, 1.0 - events / effective, 1.0)
    followed = np.logical_and.accumulate(at_risk > 0, axis=-1)
    died = np.logical_or.accumulate(followed & (kept == 0), axis=-1)
    survival = np.where(followed, np.cumprod(kept, axis=-1), np.where(died, 0.0, np.nan))

    # n_j is a sum of member cells, its gradient 1 on those ahead: sum and sum of squares are their number.
    before = np.arange(intervals, dtype=np.float64)
    reach = np.broadcast_to(2.0 * (intervals - before) + 1, events.shape)
    entries = np.asarray(0.0 if reconciled.entered is None else intervals - 1.0 - before)
    risk_noise = reconciled.noise_covariance(reach, reach, reach, entries)

    def masked(values: FloatArray) -> FloatArray:
        return np.where(known[..., None], values, np.nan)

    events, effective = masked(events), masked(effective)
    sampling, noise = _log_variances(reconciled, method, events, effective)
    return LifeTable(
        reconciled=reconciled,
        method=method,
        events=events,
        censored=masked(censored),
        entered=masked(late),
        beyond=np.where(known, beyond, np.nan),
        at_risk=masked(at_risk),
        effective=effective,
        interval_survival=masked(kept),
        survival=masked(survival),
        log_variance=sampling,
        log_noise_variance=noise,
        at_risk_noise_variance=masked(risk_noise),
    )
