"""A question's statistics from any sums: of all silos, of one, of a release, of an alternative to it.

All of them go through the preset's own `finish`, so that they differ by the numbers alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mpc_engine.codebook import Codebook
from mpc_engine.dp.accounting import Allotment, Guarantee, Rule, guarantee_for
from mpc_engine.errors import EngineError
from mpc_engine.harness.record import Asked, Run
from mpc_engine.release.groups import Groups, Tally, parts_of
from mpc_engine.release.opened import Floats, Opened, arrange, read_opened, true_groups
from mpc_engine.statistics.query import Query
from mpc_engine.statistics.tidy import STATISTICS

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
KEYS: Final = ("statistic", "time", "standard")
"""Columns that, with the variables, tell the rows of a table apart."""
COUNTS: Final = ("count", "total", "patients", "cases", "number")
"""Statistics that are counts of the records themselves, which no sampling separates from the truth."""
_MOST_LISTED: Final = 20
"""Values of a column that a message lists."""
_SAME_TIME: Final = 1e-6
"""How far times in years may lie apart that are the same."""


@dataclass(frozen=True)
class Sums:
    """True sums: ``records`` of each tally in the plan's order, ``patients`` of each kind of groups."""

    records: tuple[Integers, ...]
    patients: tuple[Integers, ...]


@dataclass(frozen=True)
class Line:
    """One tally of a release with its noise: ``group`` is the number of its kind of groups."""

    tally: Tally
    allotment: Allotment
    group: int
    guard: bool
    per_group: int

    @property
    def counts(self) -> bool:
        """Whether it counts records, rather than adding up what is measured of them."""
        return self.tally.step == 1 and not self.tally.signed


@dataclass(frozen=True)
class Question:
    """A query with a codebook, and what the parties agree on when it is asked.

    `agreed` is their threshold k where they agreed on one, which may be larger than the query's.
    """

    query: Query
    codebook: Codebook
    agreed: int | None = None

    @cached_property
    def groups(self) -> tuple[Groups, ...]:
        """What the query lays out."""
        return self.query.layout(self.codebook).groups

    @cached_property
    def guarantee(self) -> Guarantee:
        """What its release promises, with the noise tables."""
        asked = self.query.privacy
        return guarantee_for(
            asked.epsilon_exact,
            parts_of(self.groups),
            Rule(asked.rule),
            asked.threshold if self.agreed is None else self.agreed,
            asked.max_records_per_patient,
            asked.delta_exact,
        )

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """All tallies in order."""
        placed = [
            (tally, number, tally is each.guard, tally.grid.cells // max(1, each.guard.grid.cells))
            for number, each in enumerate(self.groups)
            for tally in each.tallies
        ]
        return tuple(
            Line(tally, allotment, number, guard, per_group)
            for (tally, number, guard, per_group), allotment in zip(
                placed, self.guarantee.allotments, strict=True
            )
        )

    def split(self, rows: Sequence[NDArray[Any]]) -> Sums:
        """Return a silo's sums from a row per tally; a guard's may have the patients behind the records."""
        records, patients = [], []
        for line, row in zip(self.lines, rows, strict=True):
            flat = np.asarray(row, np.int64).reshape(-1)
            records.append(flat[: line.tally.grid.cells])
            if line.guard:
                patients.append(flat[-line.tally.grid.cells :])
        return Sums(tuple(records), tuple(patients))

    def true(self, records: Sequence[NDArray[Any]]) -> Opened:
        """Return true sums as if they had been opened without noise and nothing hidden."""
        return true_groups(self.groups, records, self.guarantee.threshold)

    def open(
        self, pattern: Sequence[Mask], values: Sequence[NDArray[Any]], variances: Sequence[float]
    ) -> Opened:
        """Return values with such noise variances, of which ``pattern`` shows some, by kind of groups."""
        least = [line.allotment.least_shown for line in self.lines if line.guard]
        rows: list[Floats] = [np.asarray(each, np.float64) for each in values]
        return arrange(self.groups, pattern, rows, variances, self.guarantee.threshold, least)

    def visible(self, line: Line, pattern: Sequence[Mask]) -> Mask:
        """Return which cells of a tally are shown where ``pattern`` tells which groups are."""
        return np.repeat(pattern[line.group], line.per_group)

    def finish(self, opened: Opened) -> pd.DataFrame:
        """Return the table of statistics, one row each, as `mpc_engine.result.Result.table` has it."""
        return pd.DataFrame(self.query.finish(self.codebook, opened).columns())

    def values(self, opened: Opened) -> list[Floats]:
        """Return opened values tally by tally, flat, NaN where suppressed."""
        return [
            tally.values.reshape(-1)
            for each in self.groups
            for tally in (
                opened.groups[each.name].guard,
                *(opened.groups[each.name].members[member.name] for member in each.members),
            )
        ]


def question_of(run: Run, asked: Asked) -> Question:
    """Return what a request asked, at the threshold of its release. Raises LookupError if it has none."""
    if asked.release is None:
        raise LookupError(f"{asked.name} was not answered")
    return Question(asked.query, run.codebook, int(asked.release["parameters"]["k"]))


def sums_of(run: Run, asked: Asked, question: Question | None = None) -> dict[str, Sums]:
    """Return each silo's true sums for a request, by name."""
    question = question or question_of(run, asked)
    return {name: question.split(rows) for name, rows in run.sums(asked).items()}


def pool(sums: Mapping[str, Sums]) -> Sums:
    """Return the sums over all silos."""
    return Sums(
        tuple(sum(rows[1:], rows[0]) for rows in zip(*(each.records for each in sums.values()), strict=True)),
        tuple(
            sum(rows[1:], rows[0]) for rows in zip(*(each.patients for each in sums.values()), strict=True)
        ),
    )


def releases_of(run: Run, ask: str | None) -> list[Asked]:
    """Return the requests of a question that were answered, each release once.

    Raises LookupError if there is none.
    """
    found: dict[str, Asked] = {}
    for asked in run.of(ask):
        if asked.release is not None:
            found.setdefault(asked.ticket or f"{asked.ask.name} {asked.number}", asked)
    if not found:
        run.released(ask)
    return list(found.values())


def opened_of(asked: Asked) -> Opened:
    """Return what was published in answer to a request. Raises EngineError if nothing was."""
    if asked.release is None:
        raise EngineError(f"{asked.name} was not answered")
    return read_opened(asked.release)


def variables_of(table: pd.DataFrame) -> list[str]:
    """Return the table's columns of categories, in order."""
    return [str(name) for name in table.columns if name not in STATISTICS and name != "preset"]


def matching(table: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows whose columns are as ``where`` says; times in years, everything else as text.

    Raises EngineError for a column that the table has not.
    """
    chosen = np.ones(len(table), np.bool_)
    for name, wanted in where.items():
        if name not in table.columns:
            raise EngineError(
                f"the table has no column {name!r}; it has {', '.join(map(str, table.columns))}"
            )
        if name == "time":
            chosen &= np.isclose(table[name].to_numpy(np.float64), float(wanted), rtol=0, atol=_SAME_TIME)
        else:
            chosen &= (table[name].astype(str) == str(wanted)).to_numpy()
    return table[chosen]


def one_row(table: pd.DataFrame, where: Mapping[str, Any]) -> pd.Series:
    """Return the one row that ``where`` picks. Raises EngineError for none or several, with what there is."""
    found = matching(table, where)
    if len(found) == 1:
        return found.iloc[0]
    words = ", ".join(f"{name} = {value}" for name, value in where.items()) or "nothing"
    if len(found):
        more = [name for name in ("statistic", *variables_of(table), "time") if found[name].nunique() > 1]
        choices = "; ".join(f"{name}: {_listed(found[name])}" for name in more)
        raise EngineError(
            f"{words} picks {len(found)} rows of the table of statistics, not one; say {choices}"
        )
    for name in where:
        others = {key: value for key, value in where.items() if key != name}
        left = matching(table, others)
        if len(left):
            raise EngineError(f"no row has {name} = {where[name]!r}; there is {_listed(left[name])}")
    raise EngineError(f"{words} picks no row; of statistics there is {_listed(table['statistic'])}")


def _listed(column: pd.Series) -> str:
    """Return what there is in a column, in order, for a message."""
    values = [f"{each:g}" if isinstance(each, float) else str(each) for each in column.dropna().unique()]
    more = f", … ({len(values)} in all)" if len(values) > _MOST_LISTED else ""
    return ", ".join(values[:_MOST_LISTED]) + more


def labels_of(table: pd.DataFrame) -> list[str]:
    """Return a name for each row: its statistic, its categories and its time in years."""
    names = variables_of(table)
    texts = []
    for row in table[["statistic", *names, "time", "standard"]].astype(object).to_numpy().tolist():
        statistic, *labels = row[: 1 + len(names)]
        parts = [str(label) for label in labels if label != "(all)"]
        parts += [f"{row[-2]:g} y"] if row[-2] == row[-2] else []
        parts += [str(row[-1])] if row[-1] else []
        name = str(statistic).replace("_", " ")
        texts.append(f"{name}: {', '.join(parts)}" if parts else name)
    return texts
