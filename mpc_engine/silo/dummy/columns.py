"""What may stand in the columns of one silo's source, as its mapping says.

Several variables may read one column; only what all of them know can be written there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from mpc_engine.codebook import CategoryVariable, Codebook, IntegerVariable
from mpc_engine.silo.dates import DateColumn
from mpc_engine.silo.dummy.numbers import formats_of
from mpc_engine.silo.dummy.tumours import Tumours
from mpc_engine.silo.dummy.values import Pair
from mpc_engine.silo.mapping import Mapping, VariableMapping
from mpc_engine.silo.outcome import Outcome


class Columns:
    """How to write a mapping's columns. What can be worked out without rows is worked out once."""

    def __init__(self, mapping: Mapping, codebook: Codebook) -> None:
        self.mapping, self.codebook = mapping, codebook
        self._encoding = "utf-8" if mapping.source.is_parquet else mapping.source.encoding
        self._readers = _readers(mapping)
        self._known = self._known_texts()
        self._dates = self._date_columns()
        self.blanks = self._blank_texts()
        self.tumours = Tumours(mapping, codebook)
        self.reach = {
            name: self._reach(name, mapping.variables[name], variable)
            for name, variable in codebook.mapped.items()
            if isinstance(variable, CategoryVariable)
        }
        self.pairs = self._pairs()

    def texts(self, column: str, wanted: Sequence[str]) -> list[str]:
        """Return those of the texts ``wanted`` that every reader of ``column`` knows."""
        known = self._known.get(column)
        return [
            text for text in wanted if (known is None or text in known) and writable(text, self._encoding)
        ]

    def dates(self, column: str) -> DateColumn:
        """Return how the dates of ``column`` are written."""
        return self._dates.get(column) or DateColumn(column=column)

    def _known_texts(self) -> dict[str, set[str]]:
        """Return the texts that all readers of a column of codes know, by column."""
        lists: dict[str, list[set[str]]] = defaultdict(list)
        for mapped in self.mapping.variables.values():
            if mapped.column is not None and mapped.codes is not None:
                lists[mapped.column].append({*mapped.codes, *mapped.missing})
        for outcome in self.mapping.outcomes.values():
            own: dict[str, set[str]] = defaultdict(set)
            for event in outcome.events:
                if event.status is not None:
                    own[event.status.column] |= {*event.status.yes, *event.status.no, *event.status.missing}
            for column, known in own.items():
                lists[column].append(known)
        return {column: set.intersection(*known) for column, known in lists.items()}

    def _date_columns(self) -> dict[str, DateColumn]:
        found: dict[str, list[DateColumn]] = defaultdict(list)
        for mapped in self.mapping.variables.values():
            for source in (mapped.date, mapped.year_of):
                if source is not None:
                    found[source.column].append(source)
            if mapped.from_dates is not None:
                for source in (mapped.from_dates.start, mapped.from_dates.end):
                    found[source.column].append(source)
        for outcome in self.mapping.outcomes.values():
            if outcome.start is not None:
                places = [outcome.start, outcome.otherwise.at, *(event.at for event in outcome.events)]
                for place in places:
                    if place is not None:
                        found[place.column].append(place)
        order = self.mapping.order_by
        if order is not None and (order.formats or order.days_since or order.column in found):
            found[order.column].append(order)
        return {column: formats_of(sources) for column, sources in found.items()}

    def _blank_texts(self) -> dict[str, list[str]]:
        """Return what may stand for a missing value in each column where one may be."""
        found = {}
        for column, names in self._readers.items():
            if not all(self.codebook.mapped[name].missing_is_unknown for name in names):
                continue
            lists: list[list[str]] = []
            for name in names:
                mapped = self.mapping.variables[name]
                outcome = self.mapping.outcomes.get(mapped.outcome or "")
                if mapped.iccc3 is not None:
                    lists.append([])
                elif outcome is not None:
                    lists += _missing_in(outcome, column)
                else:
                    ends = (
                        [] if mapped.from_dates is None else [mapped.from_dates.start, mapped.from_dates.end]
                    )
                    sources = [
                        source for source in (mapped.date, mapped.year_of, *ends) if source is not None
                    ]
                    lists += [["", *one.missing] for one in sources if one.column == column] or [
                        ["", *mapped.missing]
                    ]
            common = [text.strip() for text in lists[0] if all(text in other for other in lists)]
            common = [text for text in common if writable(text, self._encoding)]
            if common:
                found[column] = common
        return found

    def _reach(self, name: str, mapped: VariableMapping, variable: CategoryVariable) -> tuple[int, ...]:
        """Return the positions of the categories that the silo's codes can say."""
        labels: set[str] = set()
        if mapped.constant is not None:
            labels = {mapped.constant}
        elif mapped.codes is not None and mapped.column is not None:
            labels = {mapped.codes[text] for text in self.texts(mapped.column, list(mapped.codes))}
        elif mapped.labels is not None:
            labels = set(mapped.labels)
        elif mapped.outcome is not None:
            outcome = self.mapping.outcomes[mapped.outcome]
            labels = {label for _, label in outcome.labels}
        elif mapped.iccc3 is not None:
            labels = set(self.tumours.labels(mapped, variable))
        return tuple(place for place, label in enumerate(variable.known) if label in labels)

    def _pairs(self) -> dict[str, Pair]:
        """Return the status of each time that is of the same outcome."""
        pairs = {}
        for name, mapped in self.mapping.variables.items():
            if mapped.outcome is None or not isinstance(self.codebook.mapped[name], IntegerVariable):
                continue
            outcome = self.mapping.outcomes[mapped.outcome]
            for status, other in self.mapping.variables.items():
                variable = self.codebook.mapped[status]
                if other.outcome == mapped.outcome and isinstance(variable, CategoryVariable):
                    labels = {event.label for event in outcome.events} - {outcome.otherwise.label}
                    events = frozenset(variable.known.index(one) for one in labels & set(variable.known))
                    pairs[name] = Pair(status, events)
        return pairs


def writable(text: str, encoding: str) -> bool:
    """Return whether ``text`` can be written in ``encoding``."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _missing_in(outcome: Outcome, column: str) -> list[list[str]]:
    """Return, for each place of an outcome that reads ``column``, what is missing there."""
    found = []
    for event in outcome.events:
        if event.status is not None and event.status.column == column:
            empty = [] if "" in event.status.no else [""]
            found.append([*empty, *event.status.missing])
        if event.at is not None and event.at.column == column:
            # Without a status, a missing time says that the event did not happen.
            found.append([] if event.status is None else ["", *event.at.missing])
    for place in (outcome.otherwise.at, outcome.start):
        if place is not None and place.column == column:
            found.append(["", *place.missing])
    return found


def _readers(mapping: Mapping) -> dict[str, list[str]]:
    """Return the variables that read each column."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, mapped in mapping.variables.items():
        columns: list[str | None] = [mapped.column]
        columns += [source.column for source in (mapped.date, mapped.year_of) if source is not None]
        if mapped.from_dates is not None:
            columns += [mapped.from_dates.start.column, mapped.from_dates.end.column]
        if mapped.outcome is not None:
            columns += [column for _, column in mapping.outcomes[mapped.outcome].columns]
        if mapped.iccc3 is not None and mapping.icdo3 is not None:
            columns += [column for _, column in mapping.icdo3.columns]
        for column in dict.fromkeys(columns):
            if column is not None:
                found[column].append(name)
    return found
