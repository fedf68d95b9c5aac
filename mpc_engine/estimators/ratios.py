"""Comparisons of counts: standardised incidence ratios and funnel limits.

Expected counts come from public rates and populations and are exact; observed counts may carry privacy noise
(see ``intervals``), which widens intervals and funnels alike.
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
    together,
    widen,
)
from mpc_engine.estimators.rates import rate

FunnelMethod = Literal["exact", "interpolated"]

WARNING_LEVEL, ALARM_LEVEL = 0.95, 0.998
"""The two funnels in use, about two and three standard deviations wide."""

SIGNIFICANCE = ("Low (0.001)", "Low (0.025)", "Not significant", "High (0.025)", "High (0.001)")
"""Labels of England's public-health agency, from far below to far above."""


def standardised_ratio(
    observed: npt.ArrayLike,
    expected: npt.ArrayLike,
    *,
    method: PoissonMethod = "byar-exact",
    multiplier: float = 1.0,
    level: float = 0.95,
    noise_variance: npt.ArrayLike = 0.0,
) -> Estimate:
    """Return observed / expected * ``multiplier``: the standardised incidence (or mortality) ratio.

    Limits are those of the observed count. Flags and errors as for ``rates.rate``; ``z`` where nothing was
    expected.
    """
    return rate(
        observed, expected, multiplier=multiplier, method=method, level=level, noise_variance=noise_variance
    )


def funnel_limits(
    expected: npt.ArrayLike,
    *,
    method: FunnelMethod = "exact",
    level: float = WARNING_LEVEL,
    noise_variance: npt.ArrayLike = 0.0,
) -> Interval:
    """Return the counts between which a Poisson count of mean ``expected`` lies by chance, at ``level``.

    For a ratio divide them by ``expected``; for a rate, ``expected`` is the target rate times person-years
    (for a directly standardised rate the effective person-years, events / rate), and the limits are divided
    by these.

    - ``exact``: an area is outside exactly if the exact interval of its count excludes ``expected``; the
      convention of England's public-health agency
    - ``interpolated``: Poisson quantiles, interpolated between whole counts [Spiegelhalter05]; narrower above
      by about one event

    Lower limits are 0 or above. Noise is added by square-and-add. Raises DocumentError for an expected count
    not above 0, a bad level or method, and a negative variance.
    """
    mean, variance = _expected(expected, noise_variance)
    normal_quantile(level)
    choose(method, FunnelMethod)
    tail = (1 - level) / 2
    if method == "exact":
        # pdtrik inverts the Poisson distribution function in its count, made continuous; not below P(0).
        lower = np.where(np.exp(-mean) >= tail, 0.0, scipy.special.pdtrik(tail, mean)).astype(np.float64)
        upper = np.asarray(scipy.special.pdtrik(1 - tail, mean) + 1, dtype=np.float64)
    else:
        lower, upper = _interpolated(mean, tail), _interpolated(mean, 1 - tail)
    return widen(mean, Interval(lower, upper), variance, level=level, least=0.0)


def _interpolated(mean: FloatArray, p: float) -> FloatArray:
    """The p-quantile of a Poisson count, interpolated linearly in its distribution function."""
    whole = scipy.stats.poisson.ppf(p, mean)
    above = scipy.stats.poisson.cdf(whole, mean)
    return np.maximum(whole - (above - p) / scipy.stats.poisson.pmf(whole, mean), 0.0)


def funnel_significance(
    observed: npt.ArrayLike,
    expected: npt.ArrayLike,
    *,
    method: FunnelMethod = "exact",
    noise_variance: npt.ArrayLike = 0.0,
) -> FlagArray:
    """Return for each count one of ``SIGNIFICANCE``, by the 95 % and 99.8 % funnels; "" where it is NaN.

    Raises DocumentError as ``funnel_limits`` does.
    """
    mean, variance = _expected(expected, noise_variance)
    x = numbers(observed, "counts")
    x, mean, variance = together(x, mean, variance)
    near = funnel_limits(mean, method=method, level=WARNING_LEVEL, noise_variance=variance)
    far = funnel_limits(mean, method=method, level=ALARM_LEVEL, noise_variance=variance)
    conditions = [np.isnan(x), x < far.lower, x < near.lower, x > far.upper, x > near.upper]
    lowest, low, inside, high, highest = SIGNIFICANCE
    return np.select(conditions, ["", lowest, low, highest, high], inside)


def _expected(expected: npt.ArrayLike, noise_variance: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Expected counts and noise variances of one shape."""
    mean, variance = counts_and_noise(expected, noise_variance, "expected counts")
    if not (mean > 0).all():
        raise DocumentError("expected counts must be above 0")
    return mean, variance
