"""Which intervals of a curve of net survival are told: suppressed, too few at risk, or wide beyond use."""

from __future__ import annotations

import numpy as np

from mpc_engine.estimators.icss import StandardisedSurvival
from mpc_engine.estimators.lifetable import IntervalCounts
from mpc_engine.estimators.net_survival import IntervalKind, NetSurvival
from mpc_engine.release.opened import Floats
from mpc_engine.statistics.tidy import NOT_AVAILABLE, OK, SUPPRESSED, TRUNCATED, Marks

LARGEST_LIMIT = 10.0
"""An upper limit of net survival above 1,000 % is not given, nor is the lower one."""
TOO_FEW = "too few patients for the threshold or the noise"
"""Noted where a curve of one age group is not available for that."""


def curve_flags(curve: NetSurvival, counts: IntervalCounts, threshold: int, cells: int) -> Marks:
    """Return a flag for every interval: suppressed, or too few at risk for the threshold or the noise."""
    ahead = 2.0 * np.arange(counts.intervals, 0, -1) + 1
    later = (ahead - 3) / 2
    noise = np.sqrt(cells * (counts.noise.member * ahead + counts.noise.entered * later))
    enough = curve.at_risk >= np.maximum(threshold, 2 * noise)
    flags = np.where(np.logical_and.accumulate(enough, axis=-1), OK, TRUNCATED)
    return np.where((curve.hidden == cells)[..., None], SUPPRESSED, flags)


def without_small(flags: Marks) -> Marks:
    """Return flags of curves in which a curve that has too few at risk from the start is not available."""
    small = flags[..., :1] == TRUNCATED
    return np.where(small, NOT_AVAILABLE, flags)


def curve_limits(curve: NetSurvival | StandardisedSurvival, kind: IntervalKind) -> tuple[Floats, Floats]:
    """Return confidence limits, none where so few are left that the upper one would say nothing."""
    with np.errstate(over="ignore"):
        lower, upper = curve.limits(kind)
    told = upper <= LARGEST_LIMIT
    return np.where(told, lower, np.nan), np.where(told, upper, np.nan)


def joined(*notes: str) -> str:
    """Return notes with semicolons between them, empty ones left out."""
    return "; ".join(note for note in notes if note)
