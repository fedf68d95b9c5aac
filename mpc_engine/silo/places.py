"""Where a coded record counts, and how much, as Ibis expressions."""

from __future__ import annotations

from typing import Any, Final

import ibis
import numpy as np

from mpc_engine.statistics.layout import Amount, AxisRule, EntryRule, FollowUp, Place, Selection

FEW_CUTS: Final = 128
"""So many cuts, or fewer, are searched by nested comparisons; more would make a long expression."""
WIDEST_TABLE: Final = 100_000
"""Most entries of a table that holds the bin of every value."""


def matches(rows: Any, selection: Selection) -> Any:
    """Return whether a record satisfies a filter."""
    value = rows[selection.variable]
    found: Any = value.isnull() if selection.unknown else ibis.literal(False)
    single = [low for low, high in selection.ranges if low == high]
    if single:
        found = found | value.isin(single).fill_null(False)
    for low, high in selection.ranges:
        if low != high:
            found = found | value.between(low, high).fill_null(False)
    return found


def place(rows: Any, rule: Place) -> Any:
    """Return a record's index along one axis."""
    if isinstance(rule, AxisRule):
        value = rows[rule.variable]
        index = _bin(value, rule.cuts) if rule.cuts else value - rule.offset
        return index if rule.unknown is None else value.isnull().ifelse(rule.unknown, index)
    if isinstance(rule, EntryRule):
        late = _entry(rows, rule.follow_up)
        return (late == 0).ifelse(0, 1 + _bin(late, rule.cuts))
    end, event = _exit(rows, rule.follow_up)
    beyond = end >= rule.cuts[-1]
    return 2 * _bin(end, rule.cuts) + (event | beyond).ifelse(0, 1)


def at_risk(rows: Any, follow_up: FollowUp) -> Any:
    """Return whether a record is at risk on any day of the window; all are without a window.

    On the day on which follow-up ends a patient is still at risk, for that is the day of the event.
    """
    if follow_up.window is None:
        return ibis.literal(True)
    window = follow_up.window
    diagnosed = rows[window.diagnosed]
    last_day = diagnosed + rows[follow_up.time]
    within = (
        (diagnosed <= window.closes)
        & (last_day >= window.opens)
        & (window.opens - diagnosed < window.horizon)
    )
    return within.fill_null(False)


def _exit(rows: Any, follow_up: FollowUp) -> tuple[Any, Any]:
    """Return the time at which follow-up ends, and whether it ends in the event."""
    time = rows[follow_up.time]
    event = matches(rows, follow_up.event)
    if follow_up.window is None:
        return time, event
    closing = follow_up.window.closes - rows[follow_up.window.diagnosed]
    return ibis.least(time, closing), event & (time <= closing)


def _entry(rows: Any, follow_up: FollowUp) -> Any:
    """Return the number of days since diagnosis that are over before the window opens, 0 without any."""
    if follow_up.window is None:
        return ibis.literal(0, type="int64")
    return ibis.greatest(follow_up.window.opens - rows[follow_up.window.diagnosed], 0)


def amount(value: Any, wanted: Amount) -> Any:
    """Return what a record with a known value adds to a sum."""
    clipped = value.clip(wanted.lower, wanted.upper) - wanted.centre
    return clipped * clipped if wanted.squared else clipped


def _bin(value: Any, cuts: tuple[int, ...]) -> Any:
    """Return the number of cuts at or below ``value``; null where it is null.

    By the quickest way there is: bisection where cuts are few, else division where they are evenly spaced
    (days of follow-up), else a look-up where they lie close enough (months in days).
    """
    if len(cuts) <= FEW_CUTS:
        return _bisected(value, cuts)
    low, high, step = cuts[0], cuts[-1], cuts[1] - cuts[0]
    if bool((np.diff(cuts) == step).all()):
        return ((value.clip(low - step, high) - low) // step + 1).cast("int64")
    if high - low < WIDEST_TABLE:
        bins = [0, *np.searchsorted(cuts, np.arange(low, high + 1), side="right").tolist()]
        return ibis.literal(bins, type="array<int64>")[value.clip(low - 1, high) - (low - 1)]
    return _bisected(value, cuts)


def _bisected(value: Any, cuts: tuple[int, ...], first: int = 0) -> Any:
    """Return ``first`` and the number of cuts at or below ``value``, by nested comparisons."""
    if not cuts:
        return ibis.literal(first, type="int64")
    middle = len(cuts) // 2
    return (value < cuts[middle]).ifelse(
        _bisected(value, cuts[:middle], first), _bisected(value, cuts[middle + 1 :], first + middle + 1)
    )
