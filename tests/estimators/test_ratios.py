"""Standardised ratios and funnels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.intervals import poisson_interval
from mpc_engine.estimators.ratios import (
    SIGNIFICANCE,
    funnel_limits,
    funnel_significance,
    standardised_ratio,
)


def test_standardised_ratio_is_the_interval_of_the_count() -> None:
    result = standardised_ratio([80], [65], method="exact", multiplier=100)
    assert result.value == pytest.approx([100 * 80 / 65])
    assert stats.poisson.sf(79, result.lower * 0.65) == pytest.approx([0.025])
    assert stats.poisson.cdf(80, result.upper * 0.65) == pytest.approx([0.025])
    assert standardised_ratio(3, 0).flag == "z"


# Published points of the agency's funnels for ratios: a count, and the expected counts (95 %, then 99.8 %)
# at which it is exactly on the upper or the lower line. The agency's root search is good to about six digits.
@pytest.mark.parametrize(
    ("count", "below_95", "above_95", "below_998", "above_998"),
    [
        (1, 5.571644585, 0.025317898, 9.233410143, 0.001000547),
        (10, 18.39035799, 4.795387629, 24.13397235, 2.960519925),
        (100, 121.6268111, 81.36400699, 134.9243187, 71.92139974),
        (716, 770.4222128, 664.5083011, 802.60414, 636.1521174),
    ],
)
def test_funnel_has_the_published_points(
    count: int, below_95: float, above_95: float, below_998: float, above_998: float
) -> None:
    assert funnel_limits(below_95).lower == pytest.approx(count, rel=1e-5)
    assert funnel_limits(above_95).upper == pytest.approx(count, rel=1e-5)
    assert funnel_limits(below_998, level=0.998).lower == pytest.approx(count, rel=1e-5)
    # The first of these is 0.00100050: there the published value has three digits.
    assert funnel_limits(above_998, level=0.998).upper == pytest.approx(count, rel=1e-4)


def test_interpolated_funnel_at_exact_quantiles() -> None:
    mean = 12.0
    level = float(1 - 2 * stats.poisson.cdf(6, mean))
    lower = funnel_limits(mean, method="interpolated", level=level).lower
    assert lower == pytest.approx(6.0, abs=1e-6)
    narrow, wide = (funnel_limits(mean, method=m) for m in ("interpolated", "exact"))  # type: ignore[arg-type]
    assert abs(wide.lower - narrow.lower) < 1
    assert narrow.upper < wide.upper < narrow.upper + 2


@given(expected=st.floats(0.05, 5000), observed=st.integers(0, 6000))
def test_label_agrees_with_the_exact_interval(expected: float, observed: int) -> None:
    label = str(funnel_significance(observed, expected))
    near, far = (poisson_interval(observed, "exact", level) for level in (0.95, 0.998))
    gaps = [abs(limit / expected - 1) for limit in (*near, *far)]
    if min(gaps) < 1e-6:
        return
    lowest, low, inside, high, highest = SIGNIFICANCE
    wanted = (
        lowest if far.upper < expected else low if near.upper < expected
        else highest if far.lower > expected else high if near.lower > expected else inside
    )  # fmt: skip
    assert label == wanted


def test_noise_widens_the_funnel_and_keeps_its_rate() -> None:
    seed = 4
    print("seed", seed)
    rng = np.random.default_rng(seed)
    p = 1 - np.exp(-0.5)
    x = rng.poisson(30, 20_000) + rng.geometric(p, 20_000) - rng.geometric(p, 20_000)
    variance = 2 * (1 - p) / p**2
    outside = funnel_significance(x, 30, noise_variance=variance) != "Not significant"
    assert 0.02 < outside.mean() < 0.08
    assert (funnel_significance(x, 30) != "Not significant").mean() > 0.06
    plain, noisy = funnel_limits(30), funnel_limits(30, noise_variance=variance)
    assert noisy.lower < plain.lower < plain.upper < noisy.upper
    assert funnel_significance(np.nan, 3) == ""


def test_bad_input_is_refused() -> None:
    bad = [
        lambda: funnel_limits(0),
        lambda: funnel_limits(3, level=2),
        lambda: funnel_limits(3, method="guess"),  # type: ignore[arg-type]
        lambda: funnel_significance(3, np.nan),
        lambda: standardised_ratio(3, -1),
    ]
    for call in bad:
        with pytest.raises(DocumentError):
            call()
