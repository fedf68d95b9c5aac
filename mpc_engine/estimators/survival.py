"""Survival probabilities, their confidence limits, quantiles and follow-up, from a life table.

Three limits are offered by name: ``log-log`` (the default), ``log`` (what R's survfit gives by default) and
``plain``. Noise on the counts is symmetric on the scale of S, whatever scale suits the sampling error, and is
joined to them there in squares; see `limits`. Without noise all three are the textbook ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.lifetable import (
    BoolArray,
    FloatArray,
    IntervalCounts,
    LifeTable,
    Method,
    life_table,
)

Interval = Literal["log-log", "log", "plain"]

# Products of many factors miss a round probability by a few units in the last place.
_SLACK = 1e-12

# The root of exp(x)(1 − x/2) = 1. With z/√d = x, that is d = 1.5 events, the log-log interval reaches least
# far below S; with fewer it grows without bound.
_FEW = 1.593624260040040


@dataclass(frozen=True)
class SurvivalEstimate:
    """Survival with its standard errors and limits, all (…, J) or with one column per time asked for.

    ``se_sampling`` and ``se_noise`` are S·σ, to be added in squares. Standard errors and limits are nan
    where S is 0. Where S is 1 and there is no noise, ``log-log`` has no limits (nan), as in R.
    """

    survival: FloatArray
    se_sampling: FloatArray
    se_noise: FloatArray
    lower: FloatArray
    upper: FloatArray
    interval: Interval
    level: float

    def at(self, index: npt.ArrayLike) -> SurvivalEstimate:
        """Return the columns at ``index``: numbers of whole intervals as `edge_index` gives them, 1 to J.

        Raises DocumentError if an index is outside.
        """
        wanted = np.asarray(index, dtype=np.intp)
        size = self.survival.shape[-1]
        if wanted.size and (wanted.min() < 1 or wanted.max() > size):
            raise DocumentError(f"survival is known after 1 to {size} intervals")
        column = (..., wanted - 1)
        return SurvivalEstimate(
            self.survival[column],
            self.se_sampling[column],
            self.se_noise[column],
            self.lower[column],
            self.upper[column],
            self.interval,
            self.level,
        )


def limits(
    survival: FloatArray,
    log_variance: FloatArray,
    log_noise_variance: FloatArray | float = 0.0,
    interval: Interval = "log-log",
    level: float = 0.95,
    at_risk: FloatArray | float = np.inf,
) -> tuple[FloatArray, FloatArray]:
    """Return lower and upper confidence limits of ``survival`` from the two variances of its logarithm.

    Sampling gives limits L and U of its own, with σ² = ``log_variance`` and z the normal quantile: plain
    S ± zSσ, log S·exp(±zσ), log-log S^exp(±zσ/ln S) [KP02]. Noise with variance τ² on ln S is joined by the
    method of variance estimates recovery [ZD08]: S − √((S − L)² + (zSτ)²) and S + √((U − S)² + (zSτ)²). For
    plain that is the sum of the variances. For log-log, putting the sum under the formula instead gives
    limits several times as wide where S is near 1, and they cover no better. All limits are cut at 0 and 1.

    Noise makes numbers of events that are no whole numbers. With d = (ln S/σ)² events, as many as there were
    in a single interval, the reach of log-log limits is exp(±z/√d), which for d near 0 goes from 0 to 1. So
    with noise, the reach of L and U is for d below (z/1.594)², 1.5 for 95 %, taken on the straight line from
    Wilson's limits for no event among ``at_risk`` people, [1/(1 + z²/n), 1] [Wilson27], to the log-log limits
    for that d: it starts from no event, grows with d and has no jump.

    nan where S is 0. At S = 1 log-log has no L and U: limits are nan without noise. Raises
    DocumentError for an unknown interval or a level not between 0 and 1.
    """
    if interval not in get_args(Interval):
        raise DocumentError("a survival interval is `log-log`, `log` or `plain`")
    if not 0 < level < 1:
        raise DocumentError("a confidence level lies between 0 and 1")
    z = float(ndtri(0.5 + level / 2))
    noise = np.asarray(log_noise_variance, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        reach = z * np.sqrt(log_variance)
        if interval == "plain":
            lower, upper = survival - reach * survival, survival + reach * survival
        elif interval == "log":
            lower, upper = survival * np.exp(-reach), survival * np.exp(reach)
        else:
            scale = reach / np.log(survival)  # negative: the lower limit has the larger exponent
            lower, upper = np.power(survival, np.exp(-scale)), np.power(survival, np.exp(scale))
            few = (noise > 0) & ~(-scale < _FEW)
            below, above = _few_events(survival, log_variance, np.asarray(at_risk, dtype=np.float64), z)
            lower = np.where(few, survival - below, lower)
            upper = np.where(few, survival + above, upper)
        wide = z * survival * np.sqrt(noise)
        lower = np.where(noise > 0, survival - np.hypot(survival - lower, wide), lower)
        upper = np.where(noise > 0, survival + np.hypot(upper - survival, wide), upper)
    known = (survival > 0) & np.isfinite(log_variance) & np.isfinite(noise)
    if interval == "log-log":
        known &= (survival < 1) | (noise > 0)
    return (
        np.where(known, np.clip(lower, 0.0, 1.0), np.nan),
        np.where(known, np.clip(upper, 0.0, 1.0), np.nan),
    )


def _few_events(
    survival: FloatArray, log_variance: FloatArray, at_risk: FloatArray, z: float
) -> tuple[FloatArray, FloatArray]:
    """Return how far the limits lie below and above S where there are hardly any events; see `limits`."""
    hazard, most = -np.log(survival), (z / _FEW) ** 2
    part = np.clip(np.where(log_variance > 0, hazard**2 / log_variance, 0.0) / most, 0.0, 1.0)
    # One over the number of people: that at risk where there are no events, later the one implied by both.
    one = (1 - part) / at_risk + part * np.where(hazard > 0, log_variance / hazard, 0.0)
    none = 1 / (1 + 1 / (z**2 * one))
    some = np.exp(-most * one)
    below = some - np.exp(-most * one * np.exp(_FEW))
    above = np.exp(-most * one * np.exp(-_FEW)) - some
    return (1 - part) * none + part * below, part * above


def estimate(table: LifeTable, interval: Interval = "log-log", level: float = 0.95) -> SurvivalEstimate:
    """Return survival at the end of every interval with standard errors and limits. Errors as `limits`."""
    variances = table.log_variance, table.log_noise_variance
    return _estimate(table.survival, *variances, table.effective, interval, level)


def coarse(table: LifeTable, deviations: float = 0.5) -> BoolArray:
    """Return where a Kaplan–Meier curve suffers from its grid, (…, J): where actuarial differs by so much.

    Kaplan–Meier keeps who is censored at risk to the end of the interval, so that many censorings in wide
    intervals make S too high. The actuarial method on the same cells is nearly free of that; marked is where
    the two differ by more than ``deviations`` standard errors, sampling and noise together. A bias of half a
    standard error takes the coverage of a 95 % interval to 92 %. Nowhere for an actuarial table.
    """
    half = np.maximum(table.at_risk - (table.censored + table.entered) / 2, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = np.where(half > 0, 1.0 - np.minimum(table.events, half) / half, 1.0)
        error = table.survival * np.sqrt(table.log_variance + table.log_noise_variance)
        apart = np.abs(table.survival - np.cumprod(kept, axis=-1)) > deviations * error
    return np.asarray(apart & (table.method == "kaplan-meier"), dtype=np.bool_)


def conditional(
    table: LifeTable, start: int, interval: Interval = "log-log", level: float = 0.95
) -> SurvivalEstimate:
    """Return survival given survival of the first ``start`` intervals, at the end of every interval.

    S(t_k)/S(t_start) for k > start; its variances come from the intervals in between alone, as in SEER*Stat.
    Columns up to ``start`` are nan. Raises DocumentError if ``start`` is not in 0 … J − 1, and as `limits`.
    """
    if not 0 <= start < table.intervals:
        raise DocumentError(f"conditional survival starts after 0 to {table.intervals - 1} intervals")
    sampling, noise = table.log_variances(start)
    after = np.arange(table.intervals) >= start
    ratio = np.cumprod(np.where(after, table.interval_survival, 1.0), axis=-1)
    alive = np.ones_like(ratio, dtype=np.bool_)
    if start:
        alive &= table.survival[..., start - 1, None] > 0
    alive = alive & after & np.isfinite(table.survival)
    return _estimate(np.where(alive, ratio, np.nan), sampling, noise, table.effective, interval, level)


def _estimate(
    survival: FloatArray,
    sampling: FloatArray,
    noise: FloatArray,
    at_risk: FloatArray,
    interval: Interval,
    level: float,
) -> SurvivalEstimate:
    lower, upper = limits(survival, sampling, noise, interval, level, at_risk)
    with np.errstate(invalid="ignore"):
        errors = [survival * np.sqrt(variance) for variance in (sampling, noise)]
    return SurvivalEstimate(survival, errors[0], errors[1], lower, upper, interval, level)


def edge_index(edges: npt.ArrayLike, times: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Return for each time how many whole intervals end at it: 0 for t_0, j for t_j.

    ``edges`` are t_0 … t_J. Raises DocumentError if a time is not an edge of the grid.
    """
    grid, wanted = _grid(edges), np.asarray(times, dtype=np.float64)
    # A time in years is often a quotient: the nearest edge is meant if it is within rounding.
    index = np.abs(grid - wanted[..., None]).argmin(axis=-1)
    if bool(np.any(~np.isclose(grid[index], wanted, rtol=1e-9, atol=1e-12))):
        raise DocumentError("survival was asked for at a time that is not an edge of the grid")
    return np.asarray(index, dtype=np.intp)


def _grid(edges: npt.ArrayLike, intervals: int | None = None) -> FloatArray:
    grid = np.asarray(edges, dtype=np.float64)
    if grid.ndim != 1 or len(grid) < 2 or grid[0] != 0 or bool(np.any(np.diff(grid) <= 0)):
        raise DocumentError("the edges of a grid start at 0 and rise")
    if intervals is not None and len(grid) != intervals + 1:
        raise DocumentError(f"{intervals} intervals need {intervals + 1} edges")
    return grid


@dataclass(frozen=True)
class SurvivalQuantile:
    """The time at which survival has fallen to 1 − ``probability``, with limits, all (…,).

    The curve falls that far in the interval from ``begins`` to ``ends``; ``time`` is in it, by interpolation
    or its end, and so are ``lower`` and ``upper`` in theirs. inf: not reached within the grid (or where the
    curve is shown); nan: no such stratum.
    """

    time: FloatArray
    begins: FloatArray
    ends: FloatArray
    lower: FloatArray
    upper: FloatArray
    probability: float
    interval: Interval
    level: float


def quantile(
    curve: SurvivalEstimate,
    edges: npt.ArrayLike,
    probability: float = 0.5,
    shown: BoolArray | None = None,
    interpolate: bool = True,
    outward: BoolArray | None = None,
) -> SurvivalQuantile:
    """Return the quantile of survival time (the median by default) with Brookmeyer–Crowley limits.

    It is the time at which S falls to 1 − ``probability``; its limits are the times at which the lower and
    the upper confidence limit of S do, so they use the interval and level of ``curve``. Between edges each of
    the three curves is taken as a straight line, as is usual with life tables; else, without
    ``interpolate``, times are the ends of intervals, which is the textbook's step function on a fine grid.
    Where ``outward`` (…,) the lower limit is the start of its interval and the upper one the end: for curves
    that `coarse` marks. ``shown`` (…, J), as `LifeTable.reliable` gives it, ends the curve early; with
    ``interpolate``, a lower limit that the curve does not reach is where the curve ends. Where S is
    0 its lower limit is taken as 0, and it has no upper one. Raises DocumentError for a grid that does not
    fit or a probability not between 0 and 1. [BC82]
    """
    grid = _grid(edges, curve.survival.shape[-1])
    if not 0 < probability < 1:
        raise DocumentError("a quantile has a probability between 0 and 1")
    target, intervals = 1 - probability, len(grid) - 1
    begins, ends = np.append(grid[:-1], np.inf), np.append(grid[1:], np.inf)
    there = np.isfinite(curve.survival).any(axis=-1)
    visible = np.ones_like(curve.survival, dtype=np.bool_) if shown is None else shown

    def fallen(values: FloatArray) -> tuple[FloatArray, npt.NDArray[np.intp]]:
        """Return the time and the number of the interval in which ``values`` fall to the target."""
        with np.errstate(invalid="ignore"):
            low = (values <= target + _SLACK) & visible
        reached = low.any(axis=-1)
        place = np.where(reached, low.argmax(axis=-1), intervals)
        if not interpolate:
            return ends[place], place
        # Before the first edge at which a curve is known it is 1.
        padded = np.concatenate([np.ones_like(values[..., :1]), np.where(np.isnan(values), 1.0, values)], -1)
        here = np.minimum(place, intervals - 1)[..., None]
        before = np.take_along_axis(padded, here, axis=-1)[..., 0]
        after = np.take_along_axis(padded, here + 1, axis=-1)[..., 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where(reached, np.clip((before - target) / (before - after), 0.0, 1.0), 1.0)
        start = grid[here[..., 0]]
        return np.where(reached, start + part * (grid[here[..., 0] + 1] - start), np.inf), place

    time, middle = fallen(curve.survival)
    lower, first = fallen(np.where(curve.survival == 0, 0.0, curve.lower))
    upper, last = fallen(curve.upper)
    if outward is not None:
        lower, upper = np.where(outward, begins[first], lower), np.where(outward, ends[last], upper)
    if interpolate:
        # A limit that lies beyond the curve is at least where the curve ends.
        lower = np.where(np.isinf(lower), grid[visible.sum(axis=-1)], lower)
    parts = (time, begins[middle], ends[middle], lower, upper)
    time, start, end, lower, upper = (np.where(there, part, np.nan) for part in parts)
    return SurvivalQuantile(time, start, end, lower, upper, probability, curve.interval, curve.level)


def follow_up(
    counts: IntervalCounts,
    edges: npt.ArrayLike,
    probability: float = 0.5,
    interval: Interval = "log-log",
    level: float = 0.95,
    least_at_risk: float = 0.0,
    method: Method = "kaplan-meier",
    interpolate: bool = True,
) -> SurvivalQuantile:
    """Return potential follow-up (its median by default) by the reverse Kaplan–Meier method [SS96].

    Events and censorings change places, within an interval too: everybody at risk at its start is at risk of
    being censored, and events count as the end of observation after that. People beyond the grid are followed
    for longer. With the ``actuarial`` method events lie half-way in their interval. ``least_at_risk`` as in
    `LifeTable.reliable`. Not for late entries, whose follow-up began before. Errors as `quantile` and
    `life_table`.
    """
    table = life_table(counts.reversed(), method)
    shown = table.reliable(least_at_risk)
    return quantile(estimate(table, interval, level), edges, probability, shown, interpolate)
