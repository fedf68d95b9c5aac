"""Outcomes: which of several events came first, and when; else the last contact.

Registries often keep a status and a time, or a date, for each event. An outcome states the events once::

    [outcomes.relapse_or_death]
    unit = "days"
    [[outcomes.relapse_or_death.events]]
    label = "yes"
    status = { column = "recur", yes = ["1"], no = ["0"] }
    at = { column = "rtime" }
    [[outcomes.relapse_or_death.events]]
    label = "yes"
    status = { column = "death", yes = ["1"], no = ["0"] }
    at = { column = "dtime" }
    [outcomes.relapse_or_death.otherwise]
    label = "no"
    at = { column = "dtime" }

A category variable that names it has the label of the earliest event that happened, of several at the same
time the one listed first; if none did, the label of ``otherwise``. An integer variable has the time of that
event, or of ``otherwise``; a date variable its date. Times are numbers in ``unit``, or dates where ``start``
is the date to count from. Without ``status`` an event happened if its time is not missing. Without any times
the category is that of the first event listed that happened.

A missing or unknown status, or an event that happened at a missing or unreadable time, makes the whole
outcome missing or a fault: the earliest event can then not be told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

import ibis

from mpc_engine.codebook import EPOCH, CategoryVariable, DateVariable, Label, MappedVariable
from mpc_engine.documents import Document, Field, broken, model_validator
from mpc_engine.silo.dates import Column, DateColumn, Texts, completed, epoch_days, parse_date
from mpc_engine.silo.texts import integer, is_missing, number, text


class Status(Document):
    """A column that says whether an event happened. Empty text is missing, unless ``no`` lists it."""

    column: Column
    yes: Annotated[tuple[str, ...], Field(min_length=1, max_length=1_000)]
    no: Texts = ()
    missing: Texts = ()

    @model_validator(mode="after")
    def _codes_differ(self) -> Status:
        listed = [("yes", code) for code in self.yes] + [("no", code) for code in self.no]
        listed += [("missing", code) for code in self.missing]
        seen: set[str] = set()
        for key, code in listed:
            if code in seen:
                raise broken(key, f"repeats {code!r}")
            if code != code.strip():
                raise broken(key, f"{code!r} has outer spaces; codes are compared trimmed")
            if key == "yes" and not code:
                raise broken(key, "holds empty text, which cannot say that an event happened")
            seen.add(code)
        return self


class Event(Document):
    """One event, whether and when it happened."""

    label: Label
    status: Status | None = None
    at: DateColumn | None = None

    @model_validator(mode="after")
    def _can_be_told(self) -> Event:
        if self.status is None and self.at is None:
            raise broken("", "needs `status`, or `at`, whose value then says that it happened, or both")
        return self


class Otherwise(Document):
    """What holds if no event happened: the label, and the time up to which that is known."""

    label: Label
    at: DateColumn | None = None


class Outcome(Document):
    """Events, of which the first counts."""

    events: Annotated[tuple[Event, ...], Field(min_length=1, max_length=20)]
    otherwise: Otherwise
    unit: str | None = None
    start: DateColumn | None = None
    decimal_comma: bool = False

    @model_validator(mode="after")
    def _times_fit(self) -> Outcome:
        places = [(f"events[{index}]", event.at) for index, event in enumerate(self.events)]
        places.append(("otherwise", self.otherwise.at))
        timed = self.is_timed
        if timed and self.unit is not None and self.start is not None:
            raise broken("start", "and `unit` exclude each other: times are dates, or numbers in a unit")
        if timed and self.unit is None and self.start is None:
            raise broken("unit", "is required for times that are numbers; or, for dates, `start`")
        for path, at in places:
            if timed and at is None:
                raise broken(f"{path}.at", "is required: all have a time, or none")
            if at is not None and self.unit is not None:
                for key in ("formats", "days_since", "assumed_day", "assumed_month"):
                    if getattr(at, key) is not None:
                        raise broken(f"{path}.at.{key}", "is for dates; with `unit`, times are numbers")
        for key in ("unit", "start"):
            if not timed and getattr(self, key) is not None:
                raise broken(key, "goes with times: every event and `otherwise` need `at`")
        if self.decimal_comma and self.unit is None:
            raise broken("decimal_comma", "is for times that are numbers")
        return self

    @property
    def is_timed(self) -> bool:
        """Return whether the outcome has times."""
        return any(event.at is not None for event in self.events) or self.otherwise.at is not None

    @property
    def labels(self) -> Iterator[tuple[str, str]]:
        """Yield every label, with the path of its key."""
        for index, event in enumerate(self.events):
            yield f"events[{index}].label", event.label
        yield "otherwise.label", self.otherwise.label

    @property
    def columns(self) -> Iterator[tuple[str, str]]:
        """Yield every column of the source that the outcome names, with the path of its key."""
        for index, event in enumerate(self.events):
            if event.status is not None:
                yield f"events[{index}].status.column", event.status.column
            if event.at is not None:
                yield f"events[{index}].at.column", event.at.column
        if self.otherwise.at is not None:
            yield "otherwise.at.column", self.otherwise.at.column
        if self.start is not None:
            yield "start.column", self.start.column


@dataclass(frozen=True)
class _Part:
    """One thing that is read: its column and text, whether it is missing, and whether it is unreadable."""

    column: str
    raw: Any
    absent: Any
    bad: Any


def code_outcome(
    table: Any, outcome: Outcome, variable: MappedVariable, factor: Fraction, rounding: str
) -> tuple[str, Any, Any, Any]:
    """Return the columns read, the text at fault, whether the outcome is missing, and its coded value.

    The value is null if something cannot be read. A number is times ``factor``, rounded as in
    :func:`~mpc_engine.silo.texts.number`. A category is its position, -1 for unknown.
    """
    parts: list[_Part] = []
    category = isinstance(variable, CategoryVariable)

    def when(at: DateColumn) -> tuple[Any, Any, Any]:
        """Return a time as a number that orders times, its text, and whether it is missing."""
        raw = text(table, at.column)
        if outcome.unit is not None:
            # What orders events may have places; a thousandth tells them apart.
            how = (Fraction(1000), "down") if category else (factor, rounding)
            found = number(raw, *how, comma=outcome.decimal_comma)
            return found, raw, is_missing(raw, at.missing)
        absent, found = parse_date(raw, at)
        return epoch_days(found), raw, absent

    happened: list[Any] = []
    times: list[Any] = []
    for event in outcome.events:
        at = None if event.at is None else when(event.at)
        if event.status is not None:
            raw = text(table, event.status.column)
            yes, no = raw.isin(event.status.yes), raw.isin(event.status.no)
            absent = is_missing(raw, event.status.missing) & ~no
            parts.append(_Part(event.status.column, raw, absent, ~(yes | no)))
        else:
            yes = ~at[2]  # type: ignore[index]
        if at is not None and event.at is not None:
            parts.append(_Part(event.at.column, at[1], yes & at[2], yes & at[0].isnull()))
        happened.append(yes)
        times.append(integer(0) if at is None else at[0])
    some: Any = ibis.or_(*happened)
    # Null if it did not happen; the smallest of numbers and nulls is the smallest number.
    candidates = [yes.ifelse(time, integer(None)) for yes, time in zip(happened, times, strict=True)]
    first = ibis.least(*candidates) if len(candidates) > 1 else candidates[0]
    if isinstance(variable, CategoryVariable):
        hits = [
            (yes & (time == first), integer(variable.position(event.label)))
            for yes, time, event in zip(happened, times, outcome.events, strict=True)
        ]
        value = ibis.cases(*hits, else_=integer(variable.position(outcome.otherwise.label)))
    else:
        last_at: DateColumn = outcome.otherwise.at  # type: ignore[assignment]
        last, raw, absent = when(last_at)
        # With a status missing it is not known that nothing happened.
        none = ~some & ~ibis.or_(*(part.absent for part in parts))
        parts.append(_Part(last_at.column, raw, none & absent, none & last.isnull()))
        value = some.ifelse(first, last)
        if outcome.start is not None and not isinstance(variable, DateVariable):
            raw = text(table, outcome.start.column)
            absent, start = parse_date(raw, outcome.start)
            parts.insert(0, _Part(outcome.start.column, raw, absent, start.isnull()))
            end = (ibis.literal(EPOCH, type="date") + value.as_interval("D")).cast("date")
            value = completed(start, end, variable.unit)
    absent = ibis.or_(*(part.absent for part in parts))
    bad = ibis.or_(*(part.bad & ~part.absent for part in parts))
    at_fault = [(part.bad & ~part.absent, _shown(part)) for part in parts]
    at_fault += [(part.absent, _shown(part)) for part in parts]
    # Something missing beside something unreadable: a person should look, so the latter is reported.
    raw = ibis.cases(*at_fault, else_=value.cast("string"))
    columns = ", ".join(dict.fromkeys(part.column for part in parts))
    return columns, raw, absent & ~bad, bad.ifelse(integer(None), value)


def _shown(part: _Part) -> Any:
    return ibis.literal(f"{part.column} = ") + part.raw
