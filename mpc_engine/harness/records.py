"""Made-up records in place of a silo's file, so that a scenario can be as large as it likes.

Two kinds. ``dummy`` draws every column from the codebook, as `mpc-engine dummy` does. ``cells`` is made
for the audit of privacy: each cell of the first question's grid holds k or k + 1 patients in all, as a coin
says, where k is the threshold of the release. There both the value of a shown cell and its suppression tell
as much about the last patient as the noise allows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from mpc_engine.codebook import CategoryVariable, Codebook, IntegerVariable, load_codebook
from mpc_engine.documents import parse, read
from mpc_engine.errors import DocumentError
from mpc_engine.scenario.document import Ask, Generated, Scenario, ScenarioParty, changed
from mpc_engine.silo.dummy import dummy_source, write_source
from mpc_engine.silo.dummy.files import toml_text
from mpc_engine.silo.mapping import Mapping, Source, conversion, load_mapping
from mpc_engine.statistics.layout import AxisRule
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query

_POOL: Final = 1_000
"""Made-up records that the columns apart from the grid's repeat."""
_CELLS_AT_A_TIME: Final = 1 << 17
_PEOPLE: Final = 1 << 40
"""Ids of one silo's patients begin so far after those of the silo before."""

Integers = NDArray[np.int64]


def generate(scenario: Scenario, party: ScenarioParty, folder: Path) -> Path:
    """Write the made-up records of a silo and return the path of a mapping that reads them.

    That is a copy of the party's mapping with the generated file, ``<party>.parquet`` in ``folder``, as its
    source. Equal documents give equal records; parties' records differ also where their seeds are equal.
    Raises DocumentError for a party without `records`, or for documents from which none can be made.
    """
    if party.records is None or party.mapping is None:
        raise DocumentError(f"{scenario.origin}: {party.name} has no made-up records")
    codebook = load_codebook(scenario.path(party.codebook or scenario.codebook))
    path, out = scenario.path(party.mapping), folder / f"{party.name}.parquet"
    if party.records.kind == "cells":
        return _write_cells(scenario, party, codebook, out)
    place = [each.name for each in scenario.party].index(party.name)
    if party.records.rows < 1:
        raise DocumentError(f"{scenario.origin}: party[{place}].records.rows must be at least 1")
    return write_source(path, codebook, out, party.records.rows, party.records.seed * 1_000 + place)


def asked_query(scenario: Scenario, ask: Ask) -> Query:
    """Return what an ask asks: its query document with the keys that it changes. Raises DocumentError."""
    path = scenario.path(ask.query)
    return parse_query(changed(read(path), ask.change), str(path))


def cell_counts(scenario: Scenario, codebook: Codebook) -> tuple[int, dict[str, Integers]]:
    """Return k, and by name the patients that each silo of kind ``cells`` has in each cell of the grid.

    Over all of them a cell has k or k + 1, with probability one half each and independently; each patient is
    at any of the silos with the same probability. Raises DocumentError for a question with several tallies.
    """
    silos = {
        each.name: each.records
        for each in scenario.party
        if isinstance(each.records, Generated) and each.records.kind == "cells"
    }
    query = asked_query(scenario, scenario.asks[0])
    cells = prod(size for _, size in _grid(query, codebook))
    policies = [scenario.policy, *(each.policy for each in scenario.party if each.policy is not None)]
    least = max(query.privacy.threshold, *(each.least_threshold for each in policies))
    seeds = [records.seed for records in silos.values()]
    generator = np.random.default_rng(seeds)  # noqa: TID251 – made-up records are nobody's
    totals = least + generator.integers(0, 2, cells)
    split = generator.multinomial(totals, np.full(len(silos), 1 / len(silos)))
    return least, dict(zip(silos, np.ascontiguousarray(split.T), strict=True))


def _grid(query: Query, codebook: Codebook) -> list[tuple[AxisRule, int]]:
    """Return rule and size of each axis of the query's only tally."""
    layout = query.layout(codebook)
    tallies = [tally for groups in layout.groups for tally in groups.tallies]
    rules = layout.recipes[0].rules
    plain = [rule for rule in rules if isinstance(rule, AxisRule)]
    if len(tallies) != 1 or len(plain) != len(rules) or layout.where or layout.follow_up is not None:
        raise DocumentError(
            f"{query.origin}: records of kind `cells` fill one table of counts without filters; this "
            "question has more to it"
        )
    return [(rule, len(axis.categories)) for rule, axis in zip(plain, tallies[0].grid.axes, strict=True)]


def _write_cells(scenario: Scenario, party: ScenarioParty, codebook: Codebook, out: Path) -> Path:
    mapping, _ = load_mapping(scenario.path(str(party.mapping)))
    mapping.serve(codebook)
    grid = _grid(asked_query(scenario, scenario.asks[0]), codebook)
    _, counts = cell_counts(scenario, codebook)
    source = Source(file=out.name)
    fields = mapping.model_dump(exclude_defaults=True) | {
        "codebook": Path(os.path.relpath(Path(codebook.origin).resolve(), out.resolve().parent)).as_posix(),
        "source": source.model_dump(exclude_defaults=True),
    }
    mapped_at = out.with_suffix(".mapping.toml")
    parse(fields, Mapping, str(mapped_at)).serve(codebook)
    place = list(counts).index(party.name)
    written = mapping.model_copy(update={"source": source})
    writer: Any = None
    try:
        for table in _tables(written, codebook, grid, counts[party.name], place):
            writer = writer or pyarrow.parquet.ParquetWriter(out, table.schema)
            writer.write_table(table)
        mapped_at.write_text(toml_text(fields), encoding="utf-8")
    except OSError as error:
        raise DocumentError(f"{out}: cannot be written ({error.strerror})") from None
    finally:
        if writer is not None:
            writer.close()
    return mapped_at


def _tables(
    mapping: Mapping, codebook: Codebook, grid: list[tuple[AxisRule, int]], counts: Integers, place: int
) -> Iterator[Any]:
    """Yield the records, a run of cells at a time, in the columns that the mapping reads."""
    axes = [(_column(mapping, codebook, rule), _said(mapping, codebook, rule, size)) for rule, size in grid]
    if len({column for column, _ in axes}) < len(axes):
        raise DocumentError(f"{mapping.origin}: two axes of the question are read from one column")
    pool = dummy_source(codebook, mapping, _POOL, place)
    before = 0
    for start in range(0, counts.size, _CELLS_AT_A_TIME):
        here = counts[start : start + _CELLS_AT_A_TIME]
        cells = np.repeat(np.arange(start, start + here.size), here)
        rows = np.arange(before, before + cells.size)
        before += cells.size
        columns = {name: pool[name].take(pyarrow.array(rows % _POOL)) for name in pool.column_names}
        if mapping.patient is not None:
            columns[mapping.patient] = pyarrow.array(place * _PEOPLE + rows)
        for (column, values), size in zip(reversed(axes), reversed([n for _, n in grid]), strict=True):
            columns[column] = values.take(pyarrow.array(cells % size))
            cells = cells // size
        yield pyarrow.table(columns)


def _column(mapping: Mapping, codebook: Codebook, rule: AxisRule) -> str:
    """Return the column that says where a record is along an axis, and says nothing else."""
    base = codebook.base(rule.variable)
    column = mapping.variables[base].column
    readers = [path for path, name in mapping.columns if name == column]
    if column is None or len(readers) != 1 or mapping.variables[base].cuts is not None:
        raise DocumentError(
            f"{mapping.origin}: variables.{base}: records of kind `cells` need a column of its own for every "
            "variable of the question"
        )
    return column


def _said(mapping: Mapping, codebook: Codebook, rule: AxisRule, size: int) -> Any:
    """Return what stands in the column for each place along an axis, as an Arrow array."""
    base = codebook.base(rule.variable)
    variable, mapped = codebook.mapped[base], mapping.variables[base]
    known = size - (rule.unknown is not None)
    missing = [None] * (size - known)
    if isinstance(variable, CategoryVariable):
        texts = {label: text for text, label in reversed((mapped.codes or {}).items())}
        unsaid = [label for label in variable.known if label not in texts]
        if unsaid:
            raise DocumentError(f"{mapping.origin}: variables.{base}: no code says {unsaid[0]!r}")
        last = [texts.get(str(variable.unknown))] if missing else []
        return pyarrow.array([*(texts[label] for label in variable.known), *last], pyarrow.string())
    if not isinstance(variable, IntegerVariable) or conversion(mapped.unit, variable.unit) != 1:
        raise DocumentError(
            f"{mapping.origin}: variables.{base}: records of kind `cells` need codes, or whole numbers in "
            "the codebook's own unit"
        )
    values = [variable.lower, *rule.cuts] if rule.cuts else [rule.offset + i for i in range(known)]
    return pyarrow.array([*values, *missing], pyarrow.int64())
