"""Which points of a curve are told, and how: suppressed, too few at risk, wide beyond use, or unreliable."""

from __future__ import annotations

import numpy as np

from mpc_engine.estimators.icss import StandardisedSurvival
from mpc_engine.estimators.lifetable import IntervalCounts
from mpc_engine.estimators.net_survival import IntervalKind, NetSurvival
from mpc_engine.release.opened import Floats
from mpc_engine.statistics.tidy import NOT_AVAILABLE, OK, SUPPRESSED, TRUNCATED, UNRELIABLE, Marks

LARGEST_LIMIT = 10.0
"""An upper limit of net survival above 1,000 % is not given, nor is the lower one."""
LARGEST_ERROR = 0.10
"""Standard error, noise included, above which a survival probability is marked unreliable."""
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


def marked(flags: Marks, survival: Floats, *errors: Floats) -> Marks:
    """Return flags of probabilities: those that are not known, and those with a large standard error."""
    found = np.where((flags != SUPPRESSED) & np.isnan(survival), NOT_AVAILABLE, flags)
    if errors:
        found = np.where((found == OK) & (np.hypot(*errors) > LARGEST_ERROR), UNRELIABLE, found)
    return found
