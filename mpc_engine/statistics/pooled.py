"""Strata put together, or in another order, after opening: sums of the shown ones, and their noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc_engine.estimators.lifetable import CellNoise, IntervalCounts

Indices = NDArray[np.intp]


def pooled(counts: IntervalCounts, axes: tuple[int, ...]) -> tuple[IntervalCounts, str]:
    """Return counts summed over leading ``axes``, of the shown strata only, and a note that says so.

    The noise is that of as many strata as are summed at most. What has no shown stratum stays NaN. There is
    no guard: strata are shown because their guards were large, so that the sum of those is too large.
    """
    shown = ~np.isnan(counts.beyond)
    number = shown.sum(axis=axes)
    most = int(number.max(initial=0))

    def total(values: NDArray[Any] | None) -> NDArray[Any] | None:
        if values is None:
            return None
        summed = np.nansum(values, axis=axes)
        empty = number.reshape(number.shape + (1,) * (summed.ndim - number.ndim)) == 0
        return np.where(empty, np.nan, summed)

    noise = CellNoise(counts.noise.member * most, counts.noise.entered * most, counts.noise.guard * most)
    note = (
        "all strata together" if shown.all() else f"{int(shown.sum())} shown of {shown.size} strata together"
    )
    return _mapped(replace(counts, guard=None), total, noise), note


def within(counts: IntervalCounts, position: int, categories: Indices, stratified: bool) -> IntervalCounts:
    """Return counts as (groups, J) or, if ``stratified``, (strata, groups, J), for the log-rank test.

    ``position`` is the axis of the groups and ``categories`` those that take part. Over the other axes
    counts are summed, or kept as strata, in which what is suppressed stays NaN.
    """
    others = tuple(i for i in range(counts.beyond.ndim) if i != position)
    if others and not stratified:
        counts, _ = pooled(counts, others)
        position = 0

    def arranged(values: NDArray[Any] | None) -> NDArray[Any] | None:
        if values is None:
            return None
        taken = np.take(values, categories, axis=position)
        if not stratified:
            return taken
        strata = np.moveaxis(taken, position, len(others))
        return strata.reshape((-1, *strata.shape[len(others) :]))

    return _mapped(counts, arranged, counts.noise)


def _mapped(counts: IntervalCounts, change: Any, noise: CellNoise) -> IntervalCounts:
    return replace(
        counts,
        events=change(counts.events),
        censored=change(counts.censored),
        beyond=change(counts.beyond),
        entered=change(counts.entered),
        guard=change(counts.guard),
        noise=noise,
    )
