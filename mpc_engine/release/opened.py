"""Opened values in the shape of their grids: what statistics are computed from.

Nothing here is secret. Suppressed values are NaN, with a mask that says so; every tally knows the variance
of the noise it carries, which is zero where true sums are fed in, as tests and previews do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc_engine.dp.accounting import Guarantee
from mpc_engine.errors import DocumentError
from mpc_engine.release.grid import Axis, Grid
from mpc_engine.release.groups import Groups, Tally
from mpc_engine.release.publication import Published

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OpenedTally:
    """One tally: values of the shape of the grid, NaN where suppressed, each with noise of this variance."""

    grid: Grid
    values: Floats
    variance: float


@dataclass(frozen=True)
class OpenedGroups:
    """Groups of one kind: which are shown (the shape of the guard's grid), their guard and members.

    ``least_shown`` is the smallest noisy value with which a guard is shown: k, or τ under ``strict``.
    """

    shown: NDArray[np.bool_]
    guard: OpenedTally
    members: Mapping[str, OpenedTally]
    least_shown: int


@dataclass(frozen=True)
class Opened:
    """All groups by name, and the threshold k under which they were opened."""

    groups: Mapping[str, OpenedGroups]
    threshold: int


def open_groups(groups: Sequence[Groups], guarantee: Guarantee, published: Published) -> Opened:
    """Return what a session published in the shape of its grids."""
    values = [each.astype(np.float64) for each in published.values]
    variances = [float(allotment.table.variance) for allotment in guarantee.allotments]
    least = [each.least_shown for each in guarantee.allotments if each.part.guard]
    return arrange(groups, published.pattern, values, variances, guarantee.threshold, least)


def true_groups(groups: Sequence[Groups], sums: Sequence[NDArray[Any]], threshold: int = 0) -> Opened:
    """Return true sums, one row per tally, as if they had been opened without noise and nothing hidden."""
    rows = [np.asarray(each, np.float64).reshape(-1) for each in sums]
    pattern = [np.ones(each.guard.grid.cells, np.bool_) for each in groups]
    return arrange(groups, pattern, rows, [0.0] * len(rows), threshold)


def arrange(
    groups: Sequence[Groups],
    pattern: Iterable[NDArray[np.bool_]],
    values: Iterable[Floats],
    variances: Iterable[float],
    threshold: int,
    least: Sequence[int | None] = (),
) -> Opened:
    """Return values and noise variances, given for the tallies in order, in the shape of their grids.

    ``pattern`` tells for each kind of groups which are shown; what is not becomes NaN. ``least`` is the
    smallest value that each guard is shown with, the threshold where it is left out or None.
    """
    rows, noise = iter(values), iter(variances)

    def tally(each: Tally, shown: NDArray[np.bool_]) -> OpenedTally:
        visible = np.repeat(shown, each.grid.cells // max(shown.size, 1))
        whole = np.where(visible, next(rows), np.nan).reshape(each.grid.shape)
        return OpenedTally(each.grid, whole, next(noise))

    made = {}
    for each, shown, smallest in zip(groups, pattern, least or [None] * len(groups), strict=True):
        guard = tally(each.guard, shown)
        members = {member.name: tally(member, shown) for member in each.members}
        made[each.name] = OpenedGroups(
            shown.reshape(each.guard.grid.shape),
            guard,
            members,
            threshold if smallest is None else smallest,
        )
    return Opened(made, threshold)


def read_opened(release: Mapping[str, Any]) -> Opened:
    """Return the opened values of a release document. Raises DocumentError when it is not one."""
    try:
        groups, pattern, values = [], [], []
        for fields in release["groups"]:
            tallies = [_tally(each) for each in fields["tallies"]]
            groups.append(Groups(fields["name"], tallies[0], tuple(tallies[1:])))
            for index, each in enumerate(fields["tallies"]):
                row = np.array(each["values"], np.float64)  # None becomes NaN
                if row.shape != (tallies[index].grid.cells,):
                    raise ValueError
                values.append(row)
                if index == 0:
                    pattern.append(~np.isnan(row))
        parameters = release["parameters"]
        variances = [float(each["noise_variance"]) for each in parameters["split"]]
        least = [each["least_shown"] for each in parameters["split"] if each["guard"]]
        return arrange(groups, pattern, values, variances, int(parameters["k"]), least)
    except (KeyError, TypeError, ValueError, IndexError, StopIteration):
        raise DocumentError("this is not a release document of this engine") from None


def _tally(fields: Mapping[str, Any]) -> Tally:
    axes = tuple(Axis(axis["variable"], tuple(axis["categories"])) for axis in fields["grid"])
    return Tally(fields["name"], Grid(axes), fields["weight"], fields["step"], fields["signed"])
