"""Means, variances and standard deviations from a count and centred sums, any of which may be noisy.

Each silo sums integers u = round((x - centre) / scale), x clipped to the codebook's bounds [a, b]. What is
opened is n, S = sum of u and, on request, Q = sum of u^2, each with independent noise of known variance.

The mean is centre + scale * S/n; noise adds scale^2 (V_S + (S/n)^2 V_n) / n^2 to its variance (delta method),
which is why centring pays. The variance is scale^2 (Q - (S^2 - V_S)/n) / (n - 1); the V_S in it takes out
what squaring a noisy sum puts in. With noise it is also kept between 0 and (b - m)(m - a) n/(n - 1), the most
that values in [a, b] with mean m can have [BD00], m a standard error of the noise nearer the middle than
published. Where it does not exceed the standard error that noise gives it, it says nothing: it is then not
available.

Without Q the spread of the patients is unknown. The interval then takes that greatest variance, so it is
conservative, often by a factor of two or three, and its method says ``bound``. With a Q that says nothing it
takes what the variance is below with 95 % confidence, if that is less, and says so too. The noise part is
exact either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.intervals import (
    Estimate,
    FloatArray,
    Interval,
    choose,
    counts_and_noise,
    normal_quantile,
    numbers,
    together,
    widen,
)

MeanMethod = Literal["t", "normal"]

BOUND = ", bound"
"""What the name of an interval ends in whose spread is a bound: that of the values, or of the noise on it."""
ONE_SIDED = 1.645
"""Standard errors below which a normal number stays with 95 % confidence."""


@dataclass(frozen=True)
class Moments:
    """Mean with its interval, and spread; all arrays have one shape.

    ``variance`` (divisor n - 1) and ``sd`` are NaN where no sum of squares was given or noise drowns it.
    ``variance_se_noise`` is the noise part of the standard error of ``variance``. ``bound`` tells where the
    spread in the interval is a bound, and ``methods`` the interval of each mean: ``t`` or
    ``normal``, followed by ``, bound`` there. ``mean.method`` says so only if it holds for all.
    """

    mean: Estimate
    variance: FloatArray
    sd: FloatArray
    variance_se_noise: FloatArray
    bound: npt.NDArray[np.bool_]

    @property
    def methods(self) -> npt.NDArray[np.str_]:
        """The method of each mean's interval, in the shape of the means."""
        plain = self.mean.method.removesuffix(BOUND)
        return np.where(self.bound, plain + BOUND, plain)


def moments(
    n: npt.ArrayLike,
    total: npt.ArrayLike,
    *,
    bounds: tuple[float, float],
    squares: npt.ArrayLike | None = None,
    centre: float = 0.0,
    scale: float = 1.0,
    method: MeanMethod = "t",
    level: float = 0.95,
    n_variance: npt.ArrayLike = 0.0,
    total_variance: npt.ArrayLike = 0.0,
    squares_variance: npt.ArrayLike = 0.0,
) -> Moments:
    """Return mean, variance and standard deviation, in the units of x; any shapes that broadcast.

    ``n`` is the number of values, ``total`` and ``squares`` the sums of u and u^2, ``bounds`` the range
    [a, b] that x was clipped to, ``*_variance`` the noise on each. ``t`` takes the sampling part with n - 1
    degrees of freedom, ``normal`` with z; noise is added by square-and-add. Values stay raw; limits are
    clipped to the bounds.

    Flags of the mean: ``c`` where an input is NaN, ``z`` where n is 0 without noise, ``x`` where n is not
    above 1 otherwise. Raises DocumentError for a negative n without noise, negative variances, shapes that
    do not fit, a scale not above 0, bounds that do not ascend, an unknown method and a bad level.
    """
    low, high = bounds
    if not (low < high and 0 < scale < np.inf):
        raise DocumentError("means: the bounds must ascend and the scale be above 0")
    choose(method, MeanMethod)
    z = normal_quantile(level)
    count, v_n = counts_and_noise(n, n_variance, "numbers of values")
    _, v_s = counts_and_noise(0.0, total_variance)
    _, v_q = counts_and_noise(0.0, squares_variance)
    known = squares is not None
    second = numbers(0.0 if squares is None else squares, "sums of squares", least=None)
    count, v_n, first, v_s, second, v_q = together(count, v_n, numbers(total, "sums"), v_s, second, v_q)

    hidden = np.isnan(count) | np.isnan(first) | np.isnan(second)
    empty = ~hidden & (count == 0) & (v_n == 0)
    flag = np.select([hidden, empty, count <= 1], ["c", "z", "x"], "ok")
    usable = np.where(flag == "ok", count, np.nan)

    mean = first / usable
    value = centre + scale * mean
    inside = np.clip(value, low, high)
    noise = scale**2 * (v_s + mean**2 * v_n) / usable**2
    # The mean behind a noisy one may lie a standard error nearer the middle, where values can spread wider.
    middle, off = (low + high) / 2, np.sqrt(noise)
    nearer = np.where(inside < middle, np.minimum(inside + off, middle), np.maximum(inside - off, middle))
    most = (high - nearer) * (nearer - low) * usable / (usable - 1)
    noisy = (v_n > 0) | (v_s > 0) | (v_q > 0)
    raw = scale**2 * (second - (first**2 - v_s) / usable) / (usable - 1)
    # Rounding alone can leave equal values with a variance just below 0.
    told = np.where(noisy, np.clip(raw, 0.0, most), np.maximum(raw, 0.0))
    by_n = mean**2 - told / scale**2
    told_noise = scale**2 * np.sqrt(v_q + 4 * mean**2 * v_s + by_n**2 * v_n) / (usable - 1)
    # What is no larger than its own noise would print as a spread of 0 and an interval of noise alone.
    bound = noisy & (flag == "ok") & (raw <= told_noise) if known else np.ones(flag.shape, np.bool_)
    spread = np.where(bound, np.minimum(most, told + ONE_SIDED * told_noise) if known else most, told)

    se = np.sqrt(spread / usable)
    quantile = scipy.stats.t.isf((1 - level) / 2, usable - 1) if method == "t" else z
    sampling = Interval(inside - quantile * se, inside + quantile * se)
    limits = widen(inside, sampling, noise, level=level, least=low, most=high)

    return Moments(
        mean=Estimate(
            value=value,
            lower=limits.lower,
            upper=limits.upper,
            se_sampling=se,
            se_noise=np.sqrt(noise),
            flag=flag,
            method=method if known else method + BOUND,
        ),
        variance=np.where(bound, np.nan, told),
        sd=np.sqrt(np.where(bound, np.nan, told)),
        variance_se_noise=np.where(bound, np.nan, told_noise),
        bound=bound,
    )
