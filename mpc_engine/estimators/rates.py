"""Incidence and mortality rates: crude, by age, directly standardised and cumulative.

Counts may be noisy (see ``intervals``); populations and weights are public and exact. Ages run along the last
axis of every array, and the other axes are strata, so that a whole table is one call.

With v_i = w_i / (n_i * sum of w), the directly standardised rate is y = sum of v_i x_i, its sampling
variance sum of v_i^2 x_i and its noise variance sum of v_i^2 V_i. Negative noisy counts stay in these sums,
which keeps both unbiased; the sum as a whole is taken as 0 where noise pushes it below.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.intervals import (
    Estimate,
    FlagArray,
    FloatArray,
    Interval,
    PoissonMethod,
    choose,
    counts_and_noise,
    normal_quantile,
    numbers,
    poisson_interval,
    together,
    widen,
)
from mpc_engine.estimators.standards import AgeGroups, check_weights

StandardisedMethod = Literal["dobson-byar", "dobson-exact", "fay-feuer", "tiwari", "normal"]

UK_LEAST_EVENTS = 10
"""England's public-health agency shows no directly standardised rate of fewer events."""


def rate(
    counts: npt.ArrayLike,
    populations: npt.ArrayLike,
    *,
    multiplier: float = 100_000,
    method: PoissonMethod = "byar-exact",
    level: float = 0.95,
    noise_variance: npt.ArrayLike = 0.0,
) -> Estimate:
    """Return counts / populations * ``multiplier``, cell by cell: age-specific rates, or rates of any groups.

    ``populations`` is person-years. Limits are those of the count (``poisson_interval``) on the scale of the
    rate, 0 or above; the value may be negative where the noisy count is. Flags: ``c`` where the count is NaN,
    ``z`` where the population is 0. Raises DocumentError for bad counts, a bad level, a negative population
    and a multiplier not above 0.
    """
    x, variance = counts_and_noise(counts, noise_variance)
    population = numbers(populations, "populations", least=0)
    x, variance, population = together(x, variance, population)
    _check_multiplier(multiplier)
    interval = poisson_interval(x, method, level, variance)
    flag = _flags(x, population)
    scale = np.where(flag == "ok", multiplier / np.where(population > 0, population, np.nan), np.nan)
    return Estimate(
        value=x * scale,
        lower=interval.lower * scale,
        upper=interval.upper * scale,
        se_sampling=np.sqrt(np.maximum(x, 0.0)) * scale,
        se_noise=np.sqrt(variance) * scale,
        flag=flag,
        method=method,
    )


def crude_rate(
    counts: npt.ArrayLike,
    populations: npt.ArrayLike,
    *,
    multiplier: float = 100_000,
    method: PoissonMethod = "byar-exact",
    level: float = 0.95,
    noise_variance: npt.ArrayLike = 0.0,
) -> Estimate:
    """Return the rate over all ages: sums along the last axis, then as ``rate``, errors included.

    One suppressed age group (NaN) leaves the crude rate suppressed.
    """
    x, variance, population = _by_age(counts, populations, noise_variance)
    return rate(
        x.sum(axis=-1),
        population.sum(axis=-1),
        multiplier=multiplier,
        method=method,
        level=level,
        noise_variance=variance.sum(axis=-1),
    )


def directly_standardised_rate(
    counts: npt.ArrayLike,
    populations: npt.ArrayLike,
    weights: npt.ArrayLike,
    *,
    method: StandardisedMethod = "dobson-byar",
    multiplier: float = 100_000,
    level: float = 0.95,
    least_events: float = 0,
    noise_variance: npt.ArrayLike = 0.0,
) -> Estimate:
    """Return the directly standardised rate of each stratum; ages run along the last axis.

    ``noise_variance`` is that of each count. Intervals by name:

    - ``dobson-byar``, ``dobson-exact``: y + sqrt(Var / x) (limit of x - x), x the total [Dobson91]; Byar's is
      England's rule, exact the usual one elsewhere
    - ``fay-feuer``: gamma limits, the upper one with the greatest v added [FF97]; R's epitools and dsrTest
      mean this one
    - ``tiwari``: the same with means of v and v^2 added, less conservative [TCZ06], SEER*Stat's
    - ``normal``: y -+ z sqrt(Var), clipped at 0

    Noise is added by square-and-add; without it each is the textbook method. Where there is no event, Var / x
    is taken as the greatest v^2, so that Dobson's upper limit is that of Fay and Feuer.

    Flags: ``c`` where a count is NaN, ``z`` where an age group that has weight has no population, ``x`` where
    the (noisy) total is below ``least_events`` (10 under the UK rule, ``UK_LEAST_EVENTS``). Raises
    DocumentError for bad counts, shapes, weights, level, multiplier or method.
    """
    x, variance, population = _by_age(counts, populations, noise_variance)
    w = check_weights(weights)
    if w.shape != x.shape[-1:]:
        raise DocumentError("weights: one for each age group is needed")
    choose(method, StandardisedMethod)
    _check_multiplier(multiplier)
    used = w > 0
    x, variance, population, w = x[..., used], variance[..., used], population[..., used], w[used]
    v = np.where(population > 0, w / np.where(population > 0, population, 1.0), np.nan) / w.sum()
    y, total, noise = (v * x).sum(axis=-1), x.sum(axis=-1), (v**2 * variance).sum(axis=-1)
    sampling = _sampling_variance(x, v, total, noisy=np.asarray((variance > 0).any(axis=-1)))
    limits = _standardised_limits(method, np.maximum(y, 0.0), sampling, np.maximum(total, 0.0), v, level)
    widened = widen(np.maximum(y, 0.0), limits, noise, level=level, least=0.0)
    flag = _flags(
        total, np.where(np.isnan(v).any(axis=-1), 0.0, 1.0), (total < least_events) & (least_events > 0)
    )
    scale = np.where(flag == "ok", multiplier, np.nan)
    return Estimate(
        value=y * scale,
        lower=widened.lower * scale,
        upper=widened.upper * scale,
        se_sampling=np.sqrt(sampling) * scale,
        se_noise=np.sqrt(noise) * scale,
        flag=flag,
        method=method,
    )


def _sampling_variance(
    x: FloatArray, v: FloatArray, total: FloatArray, *, noisy: npt.NDArray[np.bool_]
) -> FloatArray:
    """Variance of the standardised rate from sampling alone, sum of v^2 x.

    It is the total times a mean of v^2, so it lies between the total times the least and the greatest v^2.
    Noise can take the estimate out of that range; there it is brought back.
    """
    plain = np.asarray((v**2 * x).sum(axis=-1))
    events = np.maximum(total, 0.0)
    possible = np.clip(plain, events * v.min(axis=-1) ** 2, events * v.max(axis=-1) ** 2)
    return np.asarray(np.where(noisy, possible, plain))


def _standardised_limits(
    method: str, y: FloatArray, variance: FloatArray, total: FloatArray, v: FloatArray, level: float
) -> Interval:
    """Limits of the standardised rate ``y`` from sampling alone."""
    z, tail = normal_quantile(level), (1 - level) / 2
    none = total == 0
    if method == "normal":
        return Interval(y - z * np.sqrt(variance), y + z * np.sqrt(variance))
    if method in ("dobson-byar", "dobson-exact"):
        events = poisson_interval(total, "byar" if method == "dobson-byar" else "exact", level)
        stretch = np.where(none, v.max(axis=-1), np.sqrt(variance / np.where(none, 1.0, total)))
        return Interval(y + stretch * (events.lower - total), y + stretch * (events.upper - total))
    if method == "fay-feuer":
        more, more_variance = v.max(axis=-1), v.max(axis=-1) ** 2
    else:
        more, more_variance = v.mean(axis=-1), (v**2).mean(axis=-1)
    # y can be 0 with a positive noisy total; then nothing is known about the lower limit either.
    none = none | (y == 0) | (variance == 0)
    some, some_variance = np.where(none, 1.0, y), np.where(none, 1.0, variance)
    lower = some_variance / (2 * some) * scipy.stats.chi2.ppf(tail, 2 * some**2 / some_variance)
    up, up_variance = y + more, variance + more_variance
    upper = up_variance / (2 * up) * scipy.stats.chi2.isf(tail, 2 * up**2 / up_variance)
    return Interval(np.where(none, 0.0, lower), upper)


def cumulative_rate(
    counts: npt.ArrayLike,
    populations: npt.ArrayLike,
    groups: AgeGroups,
    *,
    to_age: int | None = None,
    method: StandardisedMethod = "normal",
    multiplier: float = 100,
    level: float = 0.95,
    noise_variance: npt.ArrayLike = 0.0,
) -> Estimate:
    """Return the cumulative rate to below ``to_age``: sum of years in the group times its rate, per cent.

    It is a directly standardised rate whose weights are the widths of the groups [Day87], and takes its
    intervals; ``to_age=75`` gives ages 0-74. Without ``to_age`` all closed groups count. Flags as there.
    Raises DocumentError where ``to_age`` is no limit of the groups, where no closed group is left, and as
    ``directly_standardised_rate`` does.
    """
    x, variance, population = _by_age(counts, populations, noise_variance)
    if x.shape[-1] != len(groups):
        raise DocumentError("counts: one for each age group is needed")
    if to_age is not None and to_age not in groups.edges[1:]:
        raise DocumentError(f"the cumulative rate cannot end at age {to_age}: no age group ends there")
    last = len(groups.edges) - 1 if to_age is None else groups.edges.index(to_age)
    if last < 1:
        raise DocumentError("the cumulative rate needs an age group with an end")
    widths = groups.widths[:last]
    return directly_standardised_rate(
        x[..., :last],
        population[..., :last],
        widths,
        method=method,
        multiplier=multiplier * float(widths.sum()),
        level=level,
        noise_variance=variance[..., :last],
    )


def cumulative_risk(cumulative: Estimate, *, multiplier: float = 100) -> Estimate:
    """Return 1 - exp(-cumulative rate) with transformed limits: the risk if nothing else took lives [Day87].

    ``multiplier`` is the one that ``cumulative`` was made with. Standard errors by the delta method. Raises
    DocumentError for a multiplier not above 0.
    """
    _check_multiplier(multiplier)
    slope = np.exp(-cumulative.value / multiplier)
    return Estimate(
        value=multiplier * (1 - slope),
        lower=-multiplier * np.expm1(-cumulative.lower / multiplier),
        upper=-multiplier * np.expm1(-cumulative.upper / multiplier),
        se_sampling=slope * cumulative.se_sampling,
        se_noise=slope * cumulative.se_noise,
        flag=cumulative.flag,
        method=cumulative.method,
    )


def _by_age(
    counts: npt.ArrayLike, populations: npt.ArrayLike, noise_variance: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Counts, noise variances and populations of one shape, whose last axis is age."""
    x, variance = counts_and_noise(counts, noise_variance)
    population = numbers(populations, "populations", least=0)
    x, variance, population = together(x, variance, population)
    if x.ndim < 1 or x.shape[-1] < 1:
        raise DocumentError("counts: at least one age group is needed")
    return x, variance, population


def _flags(
    counts: FloatArray, population: FloatArray, too_few: npt.NDArray[np.bool_] | None = None
) -> FlagArray:
    """``c`` for suppressed, then ``z`` for no population, then ``x`` for too few events, else ``ok``."""
    few = np.zeros(counts.shape, dtype=np.bool_) if too_few is None else too_few
    empty = np.isnan(population) | (population <= 0)
    return np.select([np.isnan(counts), empty, few], ["c", "z", "x"], "ok")


def _check_multiplier(multiplier: float) -> None:
    """Raise DocumentError unless the multiplier is above 0 and finite."""
    if not 0 < multiplier < np.inf:
        raise DocumentError("the multiplier of a rate must be above 0, such as 100000")
