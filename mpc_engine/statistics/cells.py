"""Count cells as rows of the tidy table, with intervals that include the noise."""

from __future__ import annotations

from typing import Final

from mpc_engine.estimators.intervals import count_estimate
from mpc_engine.release.opened import OpenedTally
from mpc_engine.statistics.tidy import COUNT, Tidy, grid_labels

RATE_INTERVAL: Final = "interval of the underlying rate, noise included"
"""Noted with every count: its interval is that of the Poisson mean behind it, not of the number counted."""


def add_counts(tidy: Tidy, tally: OpenedTally, statistic: str = "count", note: str = "") -> None:
    """Add a row for every cell of a tally: the noisy count, with an interval for the expected one.

    A ``note`` goes before that on the interval.
    """
    tidy.add_estimate(
        statistic,
        count_estimate(tally.values, noise_variance=tally.variance),
        labels=grid_labels(tally.grid.axes),
        style=COUNT,
        n=tally.values,
        note=f"{note}; {RATE_INTERVAL}" if note else RATE_INTERVAL,
    )
