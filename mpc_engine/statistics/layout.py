"""What a silo must evaluate to fill a grid: one index per axis, and which records count.

A layout is public and closed: whole numbers, comparisons and a cap, derived from the query and the
codebook alone. The silo applies it to coded records, in which a category is its position, an integer is
itself, and unknown is null.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpc_engine.release.grid import Grid


@dataclass(frozen=True)
class AxisRule:
    """How a record finds its place along one axis.

    With no ``cuts`` the index is the coded value less ``offset``; otherwise it is the number of cuts that
    are at most the value. ``unknown`` is the index of a null value; None where no null can occur.
    """

    variable: str
    offset: int = 0
    cuts: tuple[int, ...] = ()
    unknown: int | None = None


@dataclass(frozen=True)
class Selection:
    """A filter: the value of ``variable`` is in one of ``ranges`` (inclusive), or null where ``unknown``."""

    variable: str
    ranges: tuple[tuple[int, int], ...]
    unknown: bool = False


@dataclass(frozen=True)
class Layout:
    """A grid, the rules of its axes, the filters (all must hold) and the cap on records per patient."""

    grid: Grid
    axes: tuple[AxisRule, ...]
    where: tuple[Selection, ...]
    max_records_per_patient: int
