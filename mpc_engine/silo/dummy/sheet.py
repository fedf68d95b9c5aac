"""Made-up records in the columns of one silo: what its mapping would read as given coded values.

Each column is written once, for the variable that says most about it, in texts that all of its readers know;
the others then have whatever follows from it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Final

import numpy as np

from mpc_engine.codebook import CategoryVariable, DateVariable, IntegerVariable, day
from mpc_engine.silo.dates import Interval
from mpc_engine.silo.dummy.columns import Columns
from mpc_engine.silo.dummy.numbers import Texts, date_texts, earlier, later, number_texts
from mpc_engine.silo.dummy.values import LARGEST, Flags, Values, is_age, readable, skewed
from mpc_engine.silo.mapping import VariableMapping, conversion
from mpc_engine.silo.outcome import Outcome, Status

MISSING_SHARE: Final = 0.03
"""Share of values that are missing, in columns where nothing speaks against it."""
_BASE: Final = (day("1995-01-01"), day("2019-12-31"))
"""Dates that nothing else bounds lie in between."""
_LATER_EVENT: Final = 0.3
"""Share of events that happen as well, but later than the one that counts."""


def write(
    columns: Columns, values: Mapping[str, Values], rows: int, generator: np.random.Generator
) -> dict[str, Texts]:
    """Return the texts of every column but the patient's in ``rows`` rows, close to the coded ``values``.

    Where columns are shared, or dates known to the month only, a variable may come out otherwise, even out
    of its bounds: what is read has to be checked.
    """
    return _Sheet(columns, values, rows, generator).write()


class _Sheet:
    """Some rows while their columns are written."""

    def __init__(
        self, columns: Columns, values: Mapping[str, Values], rows: int, generator: np.random.Generator
    ) -> None:
        self._columns, self._values, self._rows, self._generator = columns, values, rows, generator
        self._mapping, self._codebook = columns.mapping, columns.codebook
        self._texts: dict[str, Texts] = {}
        self._days: dict[str, Values] = {}

    def write(self) -> dict[str, Texts]:
        self._texts |= self._columns.tumours.write(self._rows, self._generator)
        variables = self._mapping.variables
        for name, mapped in variables.items():
            if mapped.date is not None:
                self._day(mapped.date.column, partial(self._values.__getitem__, name))
        for name, mapped in variables.items():
            if mapped.year_of is not None:
                self._day(mapped.year_of.column, partial(self._day_of_year, self._values[name]))
        for outcome_name, outcome in self._mapping.outcomes.items():
            self._outcome(outcome_name, outcome)
        self._intervals()
        for name, mapped in variables.items():
            if mapped.column is not None and mapped.cuts is None:
                self._column(name, mapped)
        for name, mapped in variables.items():
            if mapped.column is not None and mapped.cuts is not None:
                self._text(mapped.column, partial(self._cut, name, mapped))
        order = self._mapping.order_by
        if order is not None:
            if order.formats or order.days_since:
                self._day(order.column, self._base)
            self._text(
                order.column, lambda: self._generator.integers(1, 10, self._rows).astype(str).astype(object)
            )
        self._blank()
        return self._texts

    # --- columns, each written once --------------------------------------------------------------

    def _text(self, column: str, make: Callable[[], Texts]) -> None:
        if column not in self._texts:
            self._texts[column] = make()

    def _day(self, column: str, make: Callable[[], Values]) -> Values:
        """Return the days in ``column``, written now unless they were before."""
        if column not in self._days:
            made = make()
            days, texts = date_texts(made, self._columns.dates(column), self._generator)
            self._days[column] = days
            self._text(column, lambda: texts)
        return self._days[column]

    def _blank(self) -> None:
        for column, blanks in self._columns.blanks.items():
            if column in self._texts:
                missing = self._generator.random(self._rows) < MISSING_SHARE
                words = self._choice(blanks)
                self._texts[column] = np.where(missing, words, self._texts[column])

    def _choice(self, texts: Sequence[str]) -> Texts:
        return np.array(texts, dtype=object)[self._generator.integers(0, len(texts), self._rows)]

    # --- variables by where they come from -------------------------------------------------------

    def _column(self, name: str, mapped: VariableMapping) -> None:
        variable, column = self._codebook.mapped[name], str(mapped.column)
        if isinstance(variable, CategoryVariable):
            self._text(column, lambda: self._coded(name, mapped, variable))
        elif isinstance(variable, IntegerVariable):
            factor = conversion(mapped.unit, variable.unit) or Fraction(1)
            self._text(
                column,
                lambda: self._numbers(
                    variable, factor, self._values[name], mapped.rounding, mapped.decimal_comma
                ),
            )

    def _coded(self, name: str, mapped: VariableMapping, variable: CategoryVariable) -> Texts:
        codes = mapped.codes or {}
        found = np.full(self._rows, "", dtype=object)
        texts = self._columns.texts(str(mapped.column), list(codes))
        for place, label in enumerate(variable.known):
            written = [text for text in texts if codes[text] == label]
            rows = self._values[name] == place
            if written and rows.any():
                found[rows] = self._choice(written)[rows]
        unknown = [text for text in texts if codes[text] == variable.unknown]
        if unknown:
            said = (self._generator.random(self._rows) < MISSING_SHARE) | (self._values[name] < 0)
            found[said] = self._choice(unknown)[said]
        return found

    def _numbers(
        self, variable: IntegerVariable, factor: Fraction, values: Values, rounding: str, comma: bool
    ) -> Texts:
        most = int(LARGEST * factor)
        lower, upper = readable(variable)
        bounds = max(lower, -most), min(upper, most)
        return number_texts(values, bounds, factor, rounding, comma, self._generator)

    def _cut(self, name: str, mapped: VariableMapping) -> Texts:
        variable = self._codebook.mapped[name]
        cuts = np.clip(np.array([float(cut) for cut in mapped.cuts or ()]), -LARGEST + 1, LARGEST)
        cuts = cuts.astype(np.int64)
        width = max(int(cuts[-1] - cuts[0]) // max(cuts.size - 1, 1), abs(int(cuts[0])) // 2, 1)
        first = 0 if cuts[0] > 0 else max(int(cuts[0]) - width, -LARGEST)
        edges = np.array([first, *cuts, min(int(cuts[-1]) + width, LARGEST + 1)])
        low, high = edges[:-1], np.maximum(edges[1:] - 1, edges[:-1])
        labels = mapped.labels or ()
        known = variable.known if isinstance(variable, CategoryVariable) else ()
        chosen = np.zeros(self._rows, dtype=np.int64)
        for place, label in enumerate(known):
            held = np.array([index for index, other in enumerate(labels) if other == label], dtype=np.int64)
            rows = self._values[name] == place
            if held.size:
                chosen[rows] = held[self._generator.integers(0, held.size, self._rows)][rows]
        return self._generator.integers(low[chosen], high[chosen], endpoint=True).astype(str).astype(object)

    def _intervals(self) -> None:
        """Write the columns of ``from_dates``, beginning with those of which one is there."""
        waiting = {
            name: mapped.from_dates
            for name, mapped in self._mapping.variables.items()
            if mapped.from_dates is not None
        }
        while waiting:
            started = [name for name, one in waiting.items() if self._reads(one) & self._days.keys()]
            name = (started or list(waiting))[0]
            dates = waiting.pop(name)
            variable = self._codebook.mapped[name]
            if not isinstance(variable, IntegerVariable):
                continue
            amount, unit = self._values[name], variable.unit
            if not self._reads(dates) & self._days.keys():
                # An age is counted back from what it is the age at.
                self._day((dates.end if is_age(name) else dates.start).column, self._base)
            if dates.end.column in self._days:
                end = self._days[dates.end.column]
                self._day(
                    dates.start.column,
                    partial(earlier, end, amount, unit, self._generator),
                )
            else:
                start = self._days[dates.start.column]
                self._day(
                    dates.end.column,
                    partial(later, start, amount, unit, self._generator),
                )

    @staticmethod
    def _reads(dates: Interval) -> set[str]:
        return {dates.start.column, dates.end.column}

    def _base(self) -> Values:
        """Return dates for a column that nothing is known of."""
        ends = [
            (day(variable.lower), day(variable.upper))
            for variable in self._codebook.mapped.values()
            if isinstance(variable, DateVariable)
        ]
        low, high = ends[0] if ends else _BASE
        return self._generator.integers(low, high, self._rows, endpoint=True)

    def _day_of_year(self, years: Values) -> Values:
        first = (years - 1970).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
        return first + self._generator.integers(0, 365, self._rows)

    # --- outcomes --------------------------------------------------------------------------------

    def _outcome(self, name: str, outcome: Outcome) -> None:
        """Write statuses and times such that the outcome has the values drawn for it."""
        winner = self._winner(name, outcome)
        ended = winner < 0
        if outcome.otherwise.at is not None:
            ended = ended | np.isin(winner, _dated(outcome, outcome.otherwise.at.column))
        second = self._statuses(outcome, winner, ended)
        if not outcome.is_timed or outcome.otherwise.at is None:
            return
        time, variable = self._time(name)
        after = (
            time + 1 + np.floor(self._generator.exponential(0.3, self._rows) * (time + 1)).astype(np.int64)
        )
        needed = outcome.otherwise.at.column
        places = [event.at.column if event.at is not None else needed for event in outcome.events]
        # Up to the last contact it is known that what did not happen did not.
        contact = np.where(ended, time, after)
        for column in dict.fromkeys([*places, needed]):
            own = _dated(outcome, column)
            here, late = np.isin(winner, own), np.isin(second, own)
            amount = np.where(here, time, np.where(late, after, contact))
            bare = any(outcome.events[index].status is None for index in own)
            # Without a status, any time would say that it did.
            absent = ~here & ~late & (bare and column != needed)
            self._time_column(outcome, column, amount, absent, variable, name)

    def _winner(self, name: str, outcome: Outcome) -> Values:
        """Return the number of the event that counts in each row, -1 for none."""
        labels = [*(event.label for event in outcome.events), outcome.otherwise.label]
        for reader, mapped in self._mapping.variables.items():
            variable = self._codebook.mapped[reader]
            if mapped.outcome == name and isinstance(variable, CategoryVariable):
                winner = np.full(self._rows, -1, dtype=np.int64)
                for place, label in enumerate(variable.known):
                    held = np.array([index for index, other in enumerate(labels) if other == label])
                    rows = self._values[reader] == place
                    if held.size and rows.any():
                        winner[rows] = held[self._generator.integers(0, held.size, self._rows)][rows]
                winner[winner == len(labels) - 1] = -1
                return winner
        return skewed(np.arange(-1, len(outcome.events)), self._rows, self._generator)

    def _statuses(self, outcome: Outcome, winner: Values, ended: Flags) -> Values:
        """Write the statuses; return the number of an event that happens later, -1 for none.

        Nothing happens later where observation ``ended`` with the first event.
        """
        second = np.full(self._rows, -1, dtype=np.int64)
        by_column: dict[str, list[int]] = defaultdict(list)
        for index, event in enumerate(outcome.events):
            if event.status is not None:
                by_column[event.status.column].append(index)
        for column, own in by_column.items():
            states = {index: status for index in own if (status := outcome.events[index].status) is not None}
            every = list(dict.fromkeys(text for one in states.values() for text in (*one.yes, *one.no)))
            every = self._columns.texts(column, every) or every
            saying = {
                index: [
                    text for text in every if text in one.yes and not _said_elsewhere(text, index, states)
                ]
                for index, one in states.items()
            }
            nothing = [text for text in every if not any(text in one.yes for one in states.values())]
            found = self._choice(nothing or every)
            for index, texts in saying.items():
                rows = winner == index
                other = outcome.events[index].at
                if other is not None and not any(
                    each.at is not None and each.at.column == other.column
                    for place, each in enumerate(outcome.events)
                    if place != index
                ):
                    follows = ~ended & ~np.isin(winner, own) & (second < 0)
                    follows &= self._generator.random(self._rows) < _LATER_EVENT
                    second[follows] = index
                    rows = rows | follows
                found[rows] = self._choice(texts or list(states[index].yes))[rows]
            self._text(column, partial(np.copy, found))
        return second

    def _time(self, name: str) -> tuple[Values, IntegerVariable | None]:
        """Return the time of each row, and the variable that has it."""
        for reader, mapped in self._mapping.variables.items():
            variable = self._codebook.mapped[reader]
            if mapped.outcome == name and isinstance(variable, IntegerVariable):
                return self._values[reader], variable
        return np.floor(self._generator.exponential(1000.0, self._rows)).astype(np.int64), None

    def _time_column(
        self,
        outcome: Outcome,
        column: str,
        amount: Values,
        absent: Flags,
        variable: IntegerVariable | None,
        name: str,
    ) -> None:
        if outcome.start is not None:
            start = self._day(outcome.start.column, self._base)
            unit = "days" if variable is None else variable.unit
            self._day(column, lambda: later(start, amount, unit, self._generator))
        elif variable is None:
            self._text(column, lambda: amount.astype(str).astype(object))
        else:
            factor = conversion(outcome.unit, variable.unit) or Fraction(1)
            rounding = next(
                mapped.rounding
                for reader, mapped in self._mapping.variables.items()
                if mapped.outcome == name and self._codebook.mapped[reader] is variable
            )
            self._text(
                column, lambda: self._numbers(variable, factor, amount, rounding, outcome.decimal_comma)
            )
        if absent.any():
            self._texts[column] = np.where(absent, "", self._texts[column])


def _dated(outcome: Outcome, column: str) -> list[int]:
    """Return the numbers of the events whose times are in ``column``."""
    return [index for index, event in enumerate(outcome.events) if event.at and event.at.column == column]


def _said_elsewhere(text: str, index: int, states: Mapping[int, Status]) -> bool:
    return any(text in one.yes for other, one in states.items() if other != index)
