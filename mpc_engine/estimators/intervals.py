"""Confidence intervals of counts and proportions, with the privacy noise carried into them.

A published number is ``x + X``: what the registries counted plus noise X of mean 0 and known variance V.
Every interval keeps its textbook name and, with V = 0, its textbook value. With V > 0 two ways lead on:

- *Square-and-add* (MOVER, [ZD08]): the sampling interval [l, u] around the estimate e and the noise are
  independent sources, so the distances are added in quadrature: lower = e - sqrt((e - l)^2 + z^2 V), upper =
  e + sqrt((u - e)^2 + z^2 V). It serves every named interval, however skew.
- The *score* interval of a count solves (x - m)^2 = z^2 (m + V) for m, so that the noise enters its equation.

Both treat the noise as normal in its central 95 %. Discrete Laplace noise is not: where it is nearly all the
uncertainty, coverage is 93.7 % instead of 95 %. The tests compute the coverage of counts exactly.

A noisy number may lie outside the range of what it estimates: a count below 0, a part above its whole. The
interval is then built around the nearest possible number, and limits are clipped to the possible range, which
costs no coverage. The published value itself is never clipped here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import scipy

from mpc_engine.errors import DocumentError

FloatArray: TypeAlias = npt.NDArray[np.float64]
FlagArray: TypeAlias = npt.NDArray[np.str_]

PoissonMethod = Literal["exact", "byar", "byar-exact", "score"]
ProportionMethod = Literal["wilson", "clopper-pearson"]

BYAR_FROM = 10.0
"""Under ``byar-exact``, the rule of England's public-health agency, Byar's approximation serves from here."""


class Interval(NamedTuple):
    """Lower and upper limit, arrays of one shape; NaN where there is none."""

    lower: FloatArray
    upper: FloatArray


@dataclass(frozen=True)
class Estimate:
    """Estimates with their intervals; all arrays have one shape (0-dimensional for a single number).

    ``se_sampling`` and ``se_noise`` are the two parts of the standard error; the whole is the root of the sum
    of their squares. ``flag`` is ``ok``, ``c`` (an input was suppressed: NaN), ``x`` (not available: a rule
    or the noise forbids it) or ``z`` (not applicable: nobody under observation); wherever it is not ``ok``
    the numbers are NaN. ``method`` names the interval.
    """

    value: FloatArray
    lower: FloatArray
    upper: FloatArray
    se_sampling: FloatArray
    se_noise: FloatArray
    flag: FlagArray
    method: str


def numbers(values: npt.ArrayLike, name: str, *, least: float | None = None) -> FloatArray:
    """Return ``values`` as floats; NaN passes as "suppressed".

    Raises DocumentError for what is no number, for infinities and for values below ``least``; ``name`` is
    what the message calls them.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DocumentError(f"{name}: numbers are needed") from None
    if np.isinf(array).any():
        raise DocumentError(f"{name}: infinite values are not accepted")
    if least is not None and (array < least).any():
        raise DocumentError(f"{name}: values below {least:g} are not possible")
    return array


def counts_and_noise(
    counts: npt.ArrayLike, noise_variance: npt.ArrayLike, name: str = "counts"
) -> tuple[FloatArray, FloatArray]:
    """Return counts and noise variances as float arrays of one shape.

    A count below 0 is possible only with noise. Raises DocumentError for a negative count without noise, a
    negative or missing variance, and shapes that do not fit together.
    """
    x = numbers(counts, name)
    variance = numbers(noise_variance, "noise variance", least=0)
    if np.isnan(variance).any():
        raise DocumentError("noise variance: every value needs one; 0 means that there is no noise")
    x, variance = together(x, variance)
    if ((x < 0) & (variance == 0)).any():
        raise DocumentError(f"{name}: a negative value needs a noise variance above 0")
    return x, variance


def together(*arrays: FloatArray) -> tuple[FloatArray, ...]:
    """Return the arrays broadcast to one shape. Raises DocumentError where shapes do not fit."""
    try:
        return tuple(np.broadcast_arrays(*arrays))
    except ValueError:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise DocumentError(f"arrays of shapes {shapes} do not fit together") from None


def normal_quantile(level: float) -> float:
    """Return z with P(-z < N(0,1) < z) = ``level``: 1.95996... for 0.95.

    Raises DocumentError unless 0 < level < 1.
    """
    if not 0 < level < 1:
        raise DocumentError("the confidence level must lie between 0 and 1, such as 0.95")
    return float(-scipy.special.ndtri((1 - level) / 2))


def choose(method: str, options: object) -> str:
    """Return ``method`` if the Literal type ``options`` knows it. Raises DocumentError otherwise."""
    known: tuple[str, ...] = get_args(options)
    if method not in known:
        raise DocumentError(f"unknown interval method; known are {', '.join(known)}")
    return method


def widen(
    centre: FloatArray,
    interval: Interval,
    noise_variance: FloatArray,
    *,
    level: float = 0.95,
    least: float = -np.inf,
    most: float = np.inf,
) -> Interval:
    """Return a sampling interval widened by independent noise (square-and-add, [ZD08]), then clipped.

    ``interval`` is the interval around ``centre`` in the absence of noise; where ``noise_variance`` is 0 it
    stays as it is, but for clipping to [``least``, ``most``]. Raises DocumentError for a bad level.
    """
    added = normal_quantile(level) ** 2 * noise_variance
    quiet = noise_variance == 0
    lower = np.where(quiet, interval.lower, centre - np.sqrt((centre - interval.lower) ** 2 + added))
    upper = np.where(quiet, interval.upper, centre + np.sqrt((interval.upper - centre) ** 2 + added))
    return Interval(np.clip(lower, least, most), np.clip(upper, least, most))


def poisson_interval(
    x: npt.ArrayLike,
    method: PoissonMethod = "byar-exact",
    level: float = 0.95,
    noise_variance: npt.ArrayLike = 0.0,
) -> Interval:
    """Return the interval of a Poisson mean for the counts ``x``, any shape, whole or not; lower is >= 0.

    - ``exact``: half the chi-square quantiles with 2x and 2x + 2 degrees of freedom [Garwood36]
    - ``byar``: Byar's approximation [BD87], with 0 as the lower limit at x = 0
    - ``byar-exact``: exact below 10 and Byar from 10
    - ``score``: the roots m of (x - m)^2 = z^2 (m + V); the default for a bare noisy count, as the
      narrowest of the four whose coverage holds: 93.8 to 97.7 % at any V for means from 5

    A negative (noisy) count counts as 0 for the interval. NaN gives NaN. Raises DocumentError for an unknown
    method, a bad level, a negative count without noise or a negative variance.
    """
    x, variance = counts_and_noise(x, noise_variance)
    z = normal_quantile(level)
    choose(method, PoissonMethod)
    centre = np.maximum(x, 0.0)
    if method == "score":
        reach = z * np.sqrt(centre + variance + z * z / 4)
        return Interval(np.maximum(centre + z * z / 2 - reach, 0.0), centre + z * z / 2 + reach)
    if method == "exact":
        sampling = _exact(centre, level)
    elif method == "byar":
        sampling = _byar(centre, z)
    else:
        few = centre < BYAR_FROM
        exact, byar = _exact(centre, level), _byar(centre, z)
        sampling = Interval(np.where(few, exact.lower, byar.lower), np.where(few, exact.upper, byar.upper))
    return widen(centre, sampling, variance, level=level, least=0.0)


def _exact(x: FloatArray, level: float) -> Interval:
    """Chi-square limits of a Poisson mean; with no event the lower one is 0."""
    tail = (1 - level) / 2
    # For counts near 0 the lower quantile is 0 to all digits.
    some = np.maximum(x, 1e-6)
    return Interval(
        np.asarray(scipy.stats.chi2.ppf(tail, 2 * some) / 2),
        np.asarray(scipy.stats.chi2.isf(tail, 2 * x + 2) / 2),
    )


def _byar(x: FloatArray, z: float) -> Interval:
    """Byar's limits of a Poisson mean; with no event the lower one is 0."""
    # For counts near 0 the root is negative, and the lower limit therefore 0.
    some, next_up = np.maximum(x, 1e-6), x + 1
    root = np.maximum(1 - 1 / (9 * some) - z / (3 * np.sqrt(some)), 0.0)
    return Interval(
        some * root**3, np.asarray(next_up * (1 - 1 / (9 * next_up) + z / (3 * np.sqrt(next_up))) ** 3)
    )


def count_estimate(
    x: npt.ArrayLike,
    *,
    method: PoissonMethod = "score",
    level: float = 0.95,
    noise_variance: npt.ArrayLike = 0.0,
) -> Estimate:
    """Return counts, negative noisy ones included, with the interval of the Poisson mean behind them.

    ``se_sampling`` is sqrt(max(x, 0)). Flags: ``c`` where x is NaN. Raises DocumentError as
    ``poisson_interval`` does.
    """
    counts, variance = counts_and_noise(x, noise_variance)
    interval = poisson_interval(counts, method, level, variance)
    hidden = np.isnan(counts)
    return Estimate(
        value=counts,
        lower=interval.lower,
        upper=interval.upper,
        se_sampling=np.sqrt(np.maximum(counts, 0.0)),
        se_noise=np.where(hidden, np.nan, np.sqrt(variance)),
        flag=np.where(hidden, "c", "ok"),
        method=method,
    )


def proportion_interval(
    x: npt.ArrayLike,
    n: npt.ArrayLike,
    method: ProportionMethod = "wilson",
    level: float = 0.95,
    *,
    noise_variance: npt.ArrayLike = 0.0,
    denominator_variance: npt.ArrayLike = 0.0,
    noise_covariance: npt.ArrayLike = 0.0,
) -> Interval:
    """Return the interval, within [0, 1], of the proportion behind ``x`` of ``n``; any shapes that broadcast.

    ``wilson`` is the score interval [Wilson27], ``clopper-pearson`` the exact one [CP34]. Noise: ``x`` and
    ``n`` carry noise of the given variances and covariance; if n is the sum of cells of which x is one, the
    covariance is the variance of x. Its effect on x/n is (V_x - 2 p C + p^2 V_n) / n^2 (delta method), added
    by square-and-add. NaN where n (noisy) is not above 0 or an input is NaN. Raises DocumentError for an
    unknown method, a bad level, negative variances, and x above n where neither carries noise.
    """
    counts, whole, noise = _proportion_noise(x, n, noise_variance, denominator_variance, noise_covariance)
    choose(method, ProportionMethod)
    z = normal_quantile(level)
    p = np.clip(counts / whole, 0.0, 1.0)
    if method == "wilson":
        middle = (p + z * z / (2 * whole)) / (1 + z * z / whole)
        reach = z * np.sqrt(p * (1 - p) / whole + z * z / (4 * whole**2)) / (1 + z * z / whole)
        sampling = Interval(middle - reach, middle + reach)
    else:
        tail, inside = (1 - level) / 2, p * whole
        none, all_of_them = p == 0, p == 1
        lower = scipy.stats.beta.ppf(tail, np.where(none, 1.0, inside), whole - inside + 1)
        upper = scipy.stats.beta.isf(tail, inside + 1, np.where(all_of_them, 1.0, whole - inside))
        sampling = Interval(np.where(none, 0.0, lower), np.where(all_of_them, 1.0, upper))
    return widen(p, sampling, noise, level=level, least=0.0, most=1.0)


def proportion_estimate(
    x: npt.ArrayLike,
    n: npt.ArrayLike,
    *,
    method: ProportionMethod = "wilson",
    level: float = 0.95,
    multiplier: float = 1.0,
    noise_variance: npt.ArrayLike = 0.0,
    denominator_variance: npt.ArrayLike = 0.0,
    noise_covariance: npt.ArrayLike = 0.0,
) -> Estimate:
    """Return x/n times ``multiplier`` (100 for percent) with interval and standard errors.

    The value is raw, so with noise it may leave [0, multiplier]; the limits do not. Flags: ``c`` where an
    input is NaN, ``z`` where n is 0 without noise, ``x`` where noise has taken n to 0 or below. Otherwise as
    ``proportion_interval``, errors included.
    """
    counts, whole, noise = _proportion_noise(x, n, noise_variance, denominator_variance, noise_covariance)
    interval = proportion_interval(
        x,
        n,
        method,
        level,
        noise_variance=noise_variance,
        denominator_variance=denominator_variance,
        noise_covariance=noise_covariance,
    )
    hidden = np.isnan(numbers(x, "counts")) | np.isnan(numbers(n, "totals"))
    exact = numbers(denominator_variance, "noise variance") == 0
    empty = np.isnan(whole) & ~hidden
    p = np.clip(counts / whole, 0.0, 1.0)
    return Estimate(
        value=multiplier * counts / whole,
        lower=multiplier * interval.lower,
        upper=multiplier * interval.upper,
        se_sampling=multiplier * np.sqrt(p * (1 - p) / whole),
        se_noise=multiplier * np.sqrt(noise),
        flag=np.select([hidden, empty & exact, empty], ["c", "z", "x"], "ok"),
        method=method,
    )


def _proportion_noise(
    x: npt.ArrayLike,
    n: npt.ArrayLike,
    noise_variance: npt.ArrayLike,
    denominator_variance: npt.ArrayLike,
    noise_covariance: npt.ArrayLike,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Parts, wholes (NaN where there is no whole) and the noise variance of their quotient, of one shape."""
    counts, v_x = counts_and_noise(x, noise_variance)
    whole, v_n = counts_and_noise(n, denominator_variance, "totals")
    counts, v_x, whole, v_n, covariance = together(
        counts, v_x, whole, v_n, numbers(noise_covariance, "noise covariance")
    )
    if ((counts > whole) & (v_x == 0) & (v_n == 0)).any():
        raise DocumentError("counts: a part above its total needs a noise variance above 0")
    whole = np.where(whole > 0, whole, np.nan)
    p = np.clip(counts / whole, 0.0, 1.0)
    noise = np.maximum(v_x - 2 * p * covariance + p**2 * v_n, 0.0) / whole**2
    return counts, whole, np.where(np.isnan(counts), np.nan, noise)
