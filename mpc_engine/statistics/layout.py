"""What a silo must evaluate to fill the tallies of a release: where a record counts, and how much.

A layout is public and closed: whole numbers, comparisons and a cap, derived from the query and the
codebook alone. The silo applies it to coded records, in which a category is its position, an integer is
itself, a date is its day number and unknown is null.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Literal

from mpc_engine.release.groups import Groups

Primaries = Literal["all", "first", "iarc"]
"""Which tumours of a patient take part, before any filter: all, only the first one, or one of each kind
by the international rules for multiple primaries."""


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
class Window:
    """A calendar window of follow-up: from the day ``opens`` up to and including the day ``closes``.

    A record is at risk from the later of diagnosis and opening until its follow-up or the window ends, and
    as long as that is less than ``horizon`` days after diagnosis. ``diagnosed`` is the variable of the day
    of diagnosis. Follow-up is counted in days.
    """

    diagnosed: str
    opens: int
    closes: int
    horizon: int


@dataclass(frozen=True)
class FollowUp:
    """Follow-up of a record: ``time`` since diagnosis, whether it ended in the ``event``, and the window.

    Without a window all of it counts. With one, a record takes part if it is at risk at any time within
    the window, and an event after its end is a censoring at its end.
    """

    time: str
    event: Selection
    window: Window | None = None


@dataclass(frozen=True)
class ExitRule:
    """Where follow-up ends: index 2j for an event in interval j, 2j + 1 for a censoring, last beyond all.

    Interval j holds the times from the j-th cut before, which is below it, to ``cuts[j]`` - 1; times from
    the last cut on are beyond.
    """

    follow_up: FollowUp
    cuts: tuple[int, ...]


@dataclass(frozen=True)
class EntryRule:
    """When a record comes under observation: index 0 at diagnosis, j + 1 later, in interval j.

    The intervals are those of :class:`ExitRule`: a patient who enters after day t is first at risk in that
    of day t + 1. The window's horizon is the last cut, so nobody enters beyond.
    """

    follow_up: FollowUp
    cuts: tuple[int, ...]


Place = AxisRule | ExitRule | EntryRule
"""How a record finds its place along one axis of a grid."""


@dataclass(frozen=True)
class Amount:
    """What a record adds instead of one: its value less ``centre``, or the square of that.

    The codebook bounds the value, and a silo clips it to ``lower``..``upper`` all the same.
    """

    variable: str
    lower: int
    upper: int
    centre: int
    squared: bool = False


@dataclass(frozen=True)
class Recipe:
    """How a silo fills one tally: a rule for each axis of its grid, and what a record adds; one if None."""

    rules: tuple[Place, ...]
    amount: Amount | None = None


@dataclass(frozen=True)
class Kind:
    """Groups of one kind and how a silo fills their tallies: a recipe for each, the guard's first."""

    groups: Groups
    recipes: tuple[Recipe, ...]


@dataclass(frozen=True)
class Layout:
    """The groups of a release and a recipe for each of their tallies, in order; and which records count.

    Records are taken that satisfy all filters of ``where`` and, where ``follow_up`` is given, are at risk
    in its window; then, of each patient, the first ``max_records_per_patient``. ``primaries`` is applied
    before everything else.
    """

    groups: tuple[Groups, ...]
    recipes: tuple[Recipe, ...]
    where: tuple[Selection, ...]
    max_records_per_patient: int
    primaries: Primaries = "all"
    follow_up: FollowUp | None = None

    def as_fields(self) -> dict[str, object]:
        """Return everything but the groups as plain fields, so that parties compare what silos evaluate."""
        rest = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "groups"}
        return {name: _plain(value) for name, value in rest.items()}


def _plain(value: object) -> object:
    """Return a rule, or a tuple of rules, as plain fields; each carries the name of its kind."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        inner = {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
        return {"kind": type(value).__name__, **inner}
    return value
