"""What the survival presets share: whose follow-up counts, how silos send it, and how it is read back.

Each stratum is a group. Its guard is the number of its patients, its members are where their follow-up ends:
by interval an event or a censoring, and one cell for all that are observed beyond the grid. A patient counts
in one cell of the guard and one of the outcomes, so ε is split between these two and the whole curve costs
no more than one count. The period approach adds when patients come under observation, as a third part.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np

from mpc_engine.codebook import CategoryVariable, Codebook, DateVariable, Name, day
from mpc_engine.documents import Document, Field, broken, model_validator
from mpc_engine.estimators.lifetable import CellNoise, IntervalCounts
from mpc_engine.release.grid import Axis, Grid
from mpc_engine.release.groups import Groups, Tally
from mpc_engine.release.opened import Floats, Opened
from mpc_engine.statistics.layout import (
    AxisRule,
    EntryRule,
    ExitRule,
    FollowUp,
    Kind,
    Layout,
    Primaries,
    Recipe,
    Selection,
    Window,
)
from mpc_engine.statistics.query import Picture, Query, variable_axes
from mpc_engine.statistics.timegrid import DAYS, TimeGrid, time_variable
from mpc_engine.statistics.where import Items, Problems, Where

PATIENTS_WEIGHT, OUTCOMES_WEIGHT, ENTRIES_WEIGHT = 1, 3, 2
"""Shares of ε: a quarter for the guard and three quarters for the outcomes, without entries."""

TYPICAL_SURVIVAL = 0.7
"""Five-year survival of the made-up cohort that errors are stated for."""

SUMMARY_YEARS = (1, 3, 5, 10)
"""Times of the cumulative summary, where the grid has them."""


Axes = list[tuple[Axis, AxisRule]]


class Event(Document):
    """What ends follow-up as an event: ``variable`` having one of the labels of ``in``."""

    variable: Name
    in_: Annotated[Items, Field(alias="in", min_length=1, max_length=100)]

    def describe(self) -> str:
        """Return the event in words, such as ``vital_status is dead``."""
        return f"{self.variable} is {' or '.join(map(str, self.in_))}"


class FollowedUp(Query):
    """A query about time until an event; the base of the survival presets.

    ``approach``: ``complete`` takes all follow-up; ``cohort`` patients ``diagnosed`` within ``window``, all
    of whom could be followed to the end of the grid by ``followed_until``; ``period`` the follow-up that
    falls into the calendar ``window``, whenever diagnosis was.
    """

    picture: ClassVar[Picture] = "curve"

    time: Name
    event: Event
    by: Annotated[tuple[Name, ...], Field(max_length=8)] = ()
    grid: TimeGrid
    approach: Literal["complete", "cohort", "period"] = "complete"
    diagnosed: Name | None = None
    window: tuple[str, str] | None = None
    followed_until: str | None = None
    multiple_primaries: Primaries = "first"

    @model_validator(mode="after")
    def _approach_is_complete(self) -> FollowedUp:
        for key in ("diagnosed", "window"):
            if (getattr(self, key) is None) != (self.approach == "complete"):
                raise broken(key, f"goes with the approaches cohort and period; this one is {self.approach}")
        if (self.followed_until is None) != (self.approach != "cohort"):
            raise broken("followed_until", "goes with the approach cohort, and is needed there")
        return self

    def kinds(self, codebook: Codebook, problems: Problems) -> list[Kind]:
        """Return the strata: patients, outcomes and, for the period approach, entries."""
        axes, detail = self.strata(codebook, problems)
        cuts = self._cuts(codebook, problems)
        follow_up = self.follow_up(codebook, [])  # the layout asks for it again and reports its faults
        if problems or follow_up is None:
            return []
        intervals = self.grid.labels
        grid, rules = tuple(axis for axis, _ in axes), tuple(rule for _, rule in axes)
        cells = (*grid, *(axis for axis, _ in detail))
        places = (*rules, *(rule for _, rule in detail))
        outcomes = [f"{what} {interval}" for interval in intervals for what in ("event", "censored")]
        outcome = Axis("outcome", (*outcomes, f"beyond {self.grid.last}"))
        members = [Tally("outcomes", Grid((*cells, outcome)), OUTCOMES_WEIGHT)]
        recipes = [Recipe(rules), Recipe((*places, ExitRule(follow_up, cuts)))]
        if follow_up.window is not None:
            entry = Axis("entry", ("at diagnosis", *(f"within {interval}" for interval in intervals)))
            members.append(Tally("entries", Grid((*cells, entry)), ENTRIES_WEIGHT))
            recipes.append(Recipe((*places, EntryRule(follow_up, cuts))))
        groups = Groups("strata", Tally("patients", Grid(grid), PATIENTS_WEIGHT), tuple(members))
        return [Kind(groups, tuple(recipes))]

    def strata(self, codebook: Codebook, problems: Problems) -> tuple[Axes, Axes]:
        """Return the axes of the strata, those of ``by``, and further ones within a stratum, here none."""
        return variable_axes(self.by, "by", codebook, problems), []

    def follow_up(self, codebook: Codebook, problems: Problems) -> FollowUp | None:
        """Return whose follow-up counts and how it ends."""
        events = self._event(codebook, problems)
        window = None
        if self.approach == "period":
            window = self._window(codebook, problems)
            if window is None:
                return None
        return FollowUp(self.time, events[0], window) if events else None

    def _event(self, codebook: Codebook, problems: Problems) -> list[Selection]:
        """Return which values are the event, as a list of one; empty if the variable is not there."""
        event = Where.model_construct(variable=self.event.variable, in_=self.event.in_, between=None)
        selection = event.selection(codebook, "event", problems)
        return [] if selection is None else [selection]

    def _window(self, codebook: Codebook, problems: Problems) -> Window | None:
        days, cuts = self._days(codebook, problems), self._cuts(codebook, [])
        if days is None or not cuts or not self._in_days(codebook, problems):
            return None
        latest = codebook.bounds(self.diagnosed or "")
        if latest is not None and days[0] - latest[1] >= cuts[-1]:
            problems.append(("window", "opens when even the last diagnosed are beyond the end of the grid"))
        return Window(self.diagnosed or "", *days, cuts[-1])

    def _cuts(self, codebook: Codebook, problems: Problems) -> tuple[int, ...]:
        variable = time_variable(self.time, "time", codebook, problems)
        return () if variable is None else self.grid.cuts(variable, "time", problems)

    def _in_days(self, codebook: Codebook, problems: Problems) -> bool:
        """Return whether follow-up is in days, so that it can be put on the calendar; a fault if not."""
        variable = time_variable(self.time, "time", codebook, [])
        if variable is not None and variable.unit != "days":
            problems.append(
                ("time", f"is in {variable.unit}; the approaches cohort and period need it in days")
            )
        return variable is not None and variable.unit == "days"

    def _days(self, codebook: Codebook, problems: Problems) -> tuple[int, int] | None:
        """Return the days on which the window opens and closes; a fault if it has none.

        Of a cohort they are days of diagnosis. A period may go on after the last of them.
        """
        name, ends = self.diagnosed or "", self.window or ("", "")
        variable = codebook.variables.get(name)
        if not isinstance(variable, DateVariable):
            problems.append(("diagnosed", f"{name!r} is not a date variable of the codebook"))
            return None
        cohort = self.approach == "cohort"
        found = [codebook.coded(name, end) if cohort else _date(end) for end in ends]
        for index, (end, coded) in enumerate(zip(ends, found, strict=True)):
            if coded is None:
                bounds = f" from {variable.lower} to {variable.upper}, as {name} is" if cohort else ""
                problems.append((f"window[{index}]", f"is {end!r}; it must be a date{bounds}"))
        opens, closes = found
        if opens is None or closes is None:
            return None
        if opens > closes:
            problems.append(("window", "closes before it opens"))
        elif closes < day(variable.lower):
            problems.append(("window", f"closes before the first diagnosis can be, on {variable.lower}"))
        return opens, closes

    def selections(self, codebook: Codebook, problems: Problems) -> tuple[Selection, ...]:
        """Return the filters; that follow-up and outcome are known; for a cohort, the window of diagnosis."""
        extra = _known(self.time, codebook)
        if not any(selection.unknown for selection in self._event(codebook, [])):
            extra += _known(self.event.variable, codebook)
        if self.approach == "cohort":
            days = self._days(codebook, problems)
            if days is not None:
                extra.append(Selection(self.diagnosed or "", (days,)))
                self._check_followed(codebook, days[1], problems)
        return (*super().selections(codebook, problems), *extra)

    def _check_followed(self, codebook: Codebook, closes: int, problems: Problems) -> None:
        last, cuts = _date(self.followed_until or ""), self._cuts(codebook, [])
        if last is None:
            problems.append(("followed_until", "must be a date such as 2020-12-31"))
        elif self._in_days(codebook, problems) and cuts and closes + cuts[-1] - 1 > last:
            problems.append(
                (
                    "followed_until",
                    "is too early: the last patients of the window cannot reach the end "
                    "of the grid; take a shorter grid, an earlier window or the approach complete",
                )
            )

    def digest_fields(self) -> dict[str, object]:
        """Return the query as plain fields, as every query does; nor does the order of the event's items
        count."""
        fields: dict[str, Any] = super().digest_fields()
        fields["event"]["in"] = sorted(fields["event"]["in"], key=lambda item: (isinstance(item, str), item))
        return fields

    def counts(self, opened: Opened) -> IntervalCounts:
        """Return the opened strata as interval counts, axes first; NaN where suppressed.

        The guard is a second number for the size of a stratum where there is nothing within strata, and the
        threshold is what it had to reach.
        """
        strata = opened.groups["strata"]
        outcomes, entries = strata.members["outcomes"], strata.members.get("entries")
        noise = CellNoise(
            outcomes.variance, 0.0 if entries is None else entries.variance, strata.guard.variance
        )
        return IntervalCounts(
            events=outcomes.values[..., 0:-1:2],
            censored=outcomes.values[..., 1:-1:2],
            beyond=outcomes.values[..., -1],
            entered=None if entries is None else entries.values[..., 1:],
            guard=strata.guard.values if strata.guard.grid.axes == outcomes.grid.axes[:-1] else None,
            noise=noise,
            guard_from=float(strata.least_shown),
        )

    def years(self) -> Floats:
        """Return the edges in years, 0 first."""
        unit = DAYS[self.grid.unit] / DAYS["years"]
        return np.array([0.0, *(float(time * unit) for time in self.grid.times)])

    def kept_years(self) -> tuple[int, ...]:
        """Return the years that a coarser grid keeps where this one has them: those of the summary."""
        return SUMMARY_YEARS

    def coarser(self) -> Self | None:
        """Return the same query on the next coarser grid that keeps the times of the summary."""
        kept = tuple(year for year in self.kept_years() if np.isclose(self.years(), year).any())
        grid = self.grid.coarser(kept)
        return None if grid is None else self.model_copy(update={"grid": grid})

    def typical(self, codebook: Codebook, layout: Layout, cases: int) -> list[Floats]:
        """Return an even cohort that dies at a constant rate, 70 % alive after five years, of which half are
        censored at random before the end of the grid."""
        cells = layout.groups[0].guard.grid.cells
        n, edges = cases / cells, self.years()
        followed = np.exp(np.log(TYPICAL_SURVIVAL) * edges / 5)
        seen = 1 - 0.5 * edges / edges[-1]
        left = followed * seen
        gone = left[:-1] - left[1:]
        died = gone * np.log(followed[:-1] / followed[1:]) / np.log(left[:-1] / left[1:])
        row = np.zeros(2 * len(gone) + 1)
        row[0:-1:2], row[1:-1:2], row[-1] = died, gone - died, left[-1]
        outcomes, *entries = layout.groups[0].members
        details = outcomes.grid.cells // (cells * len(row))
        sums = [np.full(cells, n), np.tile(n / details * row, cells * details)]
        for tally in entries:
            late = np.zeros(tally.grid.cells // (cells * details))
            late[0] = n / details
            sums.append(np.tile(late, cells * details))
        return sums


def _known(name: str, codebook: Codebook) -> list[Selection]:
    """Return the filter that takes only known values of a variable; none where all are known."""
    if name not in codebook.variables or codebook.unknown(name) is None:
        return []
    base = codebook.base(name)
    variable = codebook.variables[base]
    last = len(variable.known) - 1 if isinstance(variable, CategoryVariable) else 0
    return [Selection(base, (codebook.bounds(base) or (0, last),))]


def _date(text: str) -> int | None:
    """Return the day of a date written ``YYYY-MM-DD``; None if it is none."""
    try:
        return day(text)
    except ValueError:
        return None
