"""Public tables by strata and age, from files of the codebook: populations (person-years), reference rates.

A file is CSV. Its header names codebook variables, then ``population`` (or ``rate``, per person-year); a
row holds labels of the variables and a number. A variable that the file has and the query does not is
summed over, within the query's filters. One by which the query divides or filters and that the file does
not have is an error, for then nobody knows whom a rate is about – unless the query says that it tells
tumours apart and not people: the population of every category of such a variable is the whole one. A band
may be filled from a file by single values; values beyond the codebook's bounds hold no cases and are left
out.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from mpc_engine.codebook import BandVariable, Codebook, DateVariable, IntegerVariable
from mpc_engine.errors import DocumentError
from mpc_engine.estimators.standards import AgeGroups, parse_age_groups, standard_population
from mpc_engine.release.grid import Axis
from mpc_engine.release.opened import Floats
from mpc_engine.statistics.layout import Selection
from mpc_engine.statistics.query import covered

Codes = NDArray[np.int64]
_WHOLE = re.compile(r"-?[0-9]{1,10}")


@dataclass(frozen=True)
class PublicTable:
    """The rows of a public file: coded values by variable, and the numbers."""

    file: str
    codes: dict[str, Codes]
    values: Floats


def read_table(
    codebook: Codebook,
    file: str,
    column: str,
    axes: Sequence[Axis],
    where: Sequence[Selection] = (),
    tumour: Sequence[str] = (),
    extra: Sequence[Axis] = (),
) -> Floats:
    """Return the file's numbers summed to the shape of ``axes`` and ``extra``; an unknown category has 0.

    ``where`` are the query's filters. Axes and filters of ``tumour``, variables that do not describe people,
    leave the numbers as they are, and are repeated. Every combination of known categories of ``axes`` needs a
    row, of ``extra`` not. Raises DocumentError for a file that does not fit the codebook or the query, lacks
    a combination, or has one twice.
    """
    table = _read(codebook, file, column)
    taken = _passing(codebook, table, where, {codebook.base(name) for name in tumour})
    placed = [axis for axis in (*axes, *extra) if axis.variable not in tumour]
    shape = tuple(len(axis.categories) for axis in placed)
    index = tuple(_along(codebook, table, axis.variable) for axis in placed)
    inside = np.logical_and.reduce([each >= 0 for each in index], axis=0) if index else np.True_
    found, present = np.zeros(shape), np.zeros(shape, np.bool_)
    kept, there = inside & taken, np.broadcast_to(inside, table.values.shape)
    np.add.at(found, tuple(each[kept] for each in index), table.values[kept])
    present[tuple(each[there] for each in index)] = True
    wanted = [axis for axis in axes if axis.variable not in tumour]
    with_rows = np.asarray(present.any(axis=tuple(range(len(wanted), present.ndim))))
    _check_complete(codebook, file, wanted, with_rows)
    spread = [1 if axis.variable in tumour else len(axis.categories) for axis in (*axes, *extra)]
    whole = tuple(len(axis.categories) for axis in (*axes, *extra))
    return np.array(np.broadcast_to(found.reshape(spread), whole))


def columns(codebook: Codebook, file: str, column: str) -> tuple[str, ...]:
    """Return the variables that a file is laid out by; errors as `read_table` for one that does not fit."""
    return tuple(_read(codebook, file, column).codes)


def age_groups(codebook: Codebook, name: str) -> AgeGroups:
    """Return the known age groups of a variable, read from their labels.

    Raises DocumentError for what is no variable of ages in completed years, labels that are no age groups,
    and a band whose labels contradict its cuts.
    """
    variable, base = codebook.variables[name], codebook.variables[codebook.base(name)]
    if isinstance(base, IntegerVariable) and base.unit not in ("year", "years"):
        raise DocumentError(f"{name} is in {base.unit}; ages are needed in completed years")
    groups = parse_age_groups(known_labels(codebook, name))
    if isinstance(variable, BandVariable) and groups.edges[1 : len(groups)] != variable.cuts:
        raise DocumentError(
            f"the labels of {name} ({', '.join(variable.labels)}) are not the age groups that its cuts "
            f"({', '.join(map(str, variable.cuts))}) make"
        )
    return groups


def merged_groups(groups: AgeGroups, name: str) -> tuple[list[int], tuple[float, ...]]:
    """Return where the age groups begin that serve a standard population, and its weights for them.

    Where the standard's groups are wider, as 0-4 is than <1 and 1-4, several of ``groups`` make one. Raises
    DocumentError for an unknown standard, and where neither is made of groups of the other.
    """
    standard = standard_population(name)
    common = tuple(edge for edge in groups.edges if edge in standard.groups.edges)
    merged = groups  # if refused, then in the words of the age groups that were asked for
    if groups.edges[0] in common and (groups.open_ended or groups.edges[-1] in common):
        wider = AgeGroups(common, groups.open_ended)
        merged = wider if _limits(wider) <= _limits(groups) | _limits(standard.groups) else groups
    weights = standard.collapse(merged).weights
    return [groups.edges.index(edge) for edge in merged.edges[: len(merged)]], weights


def _limits(groups: AgeGroups) -> set[tuple[int, int | None]]:
    """Return the first age and the end of every group."""
    ends = (*groups.edges[1:], None) if groups.open_ended else groups.edges[1:]
    return {*zip(groups.edges, ends, strict=False)}


def known_labels(codebook: Codebook, name: str) -> tuple[str, ...]:
    """Return the labels of a variable without the unknown one."""
    labels = codebook.labels(name)
    return labels if codebook.unknown(name) is None else labels[:-1]


def admitted(codebook: Codebook, name: str, where: Sequence[Selection]) -> NDArray[np.bool_]:
    """Return which known categories of a variable the filters let through.

    Raises DocumentError for a filter that cuts through a category.
    """
    base, count = codebook.base(name), len(known_labels(codebook, name))
    variable = codebook.variables[name]
    offset = variable.lower if isinstance(variable, IntegerVariable) else 0
    values = np.arange(count, dtype=np.int64) + offset
    passed = np.ones(count, np.bool_)
    for selection in where:
        if selection.variable == base:
            passed &= _within(codebook, name, values, selection)
    return passed


def admitted_ages(codebook: Codebook, name: str, where: Sequence[Selection]) -> tuple[AgeGroups, slice]:
    """Return the age groups that the filters leave, and their places among the known ones.

    Raises DocumentError if they leave none, or a gap between two, and as `age_groups` and `admitted` do.
    """
    groups = age_groups(codebook, name)
    places = np.flatnonzero(admitted(codebook, name, where))
    if not len(places):
        raise DocumentError("the filters leave no age group")
    first, last = int(places[0]), int(places[-1]) + 1
    if last - first != len(places):
        raise DocumentError("the filters leave a gap between age groups; take all of a range")
    end = groups.open_ended and last == len(groups)
    return AgeGroups(groups.edges[first : last + (not end)], end), slice(first, last)


def _read(codebook: Codebook, file: str, column: str) -> PublicTable:
    lines = [*enumerate(csv.reader(io.StringIO(codebook.read(file))), start=1)]
    header = [name.strip() for name in lines[0][1]] if lines else []
    if column not in header or len(set(header)) != len(header):
        raise DocumentError(f"file {file}: its header needs a column {column!r} and no name twice")
    names = [name for name in header if name != column]
    for name in names:
        if name not in codebook.variables:
            raise DocumentError(f"file {file}: the codebook has no variable {name!r}")
        if isinstance(codebook.variables[name], DateVariable):
            raise DocumentError(f"file {file}: {name!r} is a date; lay the file out by years")
    rows = [(line, row) for line, row in lines[1:] if row]
    for line, row in rows:
        if len(row) != len(header):
            raise DocumentError(f"file {file}, line {line}: has {len(row)} values for {len(header)} columns")
    numbers = [line for line, _ in rows]
    texts = dict(zip(header, zip(*(row for _, row in rows), strict=True), strict=True)) if rows else {}
    values = [_number(file, line, text) for line, text in zip(numbers, texts.pop(column, ()), strict=True)]
    codes = {name: _coded(codebook, file, name, texts.get(name, ()), numbers) for name in names}
    seen: set[tuple[str, ...]] = set()
    for line, key in zip(numbers, zip(*(texts.get(name, ()) for name in names), strict=True), strict=False):
        if key in seen:
            raise DocumentError(f"file {file}, line {line}: {', '.join(key)} was given before")
        seen.add(key)
    return PublicTable(file, codes, np.array(values, np.float64))


def _coded(codebook: Codebook, file: str, name: str, texts: Sequence[str], lines: Sequence[int]) -> Codes:
    """Return the coded values of a column: integers themselves, categories and bands their position."""
    variable = codebook.variables[name]
    if isinstance(variable, IntegerVariable):
        places = {text: int(text) for text in set(texts) if _WHOLE.fullmatch(text.strip())}
    else:
        positions = {label: index for index, label in enumerate(known_labels(codebook, name))}
        places = {text: positions[text.strip()] for text in set(texts) if text.strip() in positions}
    for line, text in zip(lines, texts, strict=True):
        if text not in places:
            raise DocumentError(f"file {file}, line {line}: {text!r} is no value of {name}")
    return np.array([places[text] for text in texts], np.int64)


def _number(file: str, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not isfinite(value) or value < 0:
        raise DocumentError(f"file {file}, line {line}: {text!r} is not a number of at least 0")
    return value


def _passing(
    codebook: Codebook, table: PublicTable, where: Sequence[Selection], tumour: set[str]
) -> NDArray[np.bool_]:
    """Return which rows lie within the codebook's bounds and satisfy the filters, all of which the file can
    follow or it is an error."""
    passed = np.ones(table.values.shape, np.bool_)
    for name, values in table.codes.items():
        bounds = codebook.bounds(name)
        if bounds is not None:
            passed &= (values >= bounds[0]) & (values <= bounds[1])
    for selection in where:
        names = [name for name in table.codes if codebook.base(name) == selection.variable]
        if selection.variable in tumour:
            continue
        if not names:
            raise DocumentError(
                f"file {table.file}: has no column for {selection.variable!r}, by which the query filters: "
                "its numbers would be those of other people. If the variable tells tumours apart and not "
                "people, name it in `tumour`"
            )
        for name in names:
            passed &= _within(codebook, name, table.codes[name], selection)
    return passed


def _within(codebook: Codebook, name: str, values: Codes, selection: Selection) -> NDArray[np.bool_]:
    """Return which values satisfy a filter. A band that it cuts through is an error."""
    variable = codebook.variables[name]
    low = high = values
    if isinstance(variable, BandVariable):
        bounds = codebook.bounds(variable.of) or (0, 0)
        edges = np.array([bounds[0], *variable.cuts, bounds[1] + 1], np.int64)
        low, high = edges[values], edges[values + 1] - 1
    inside = covered(low, high, selection.ranges)
    if ((inside > 0) & (inside < high - low + 1)).any():
        raise DocumentError(f"a filter of the query cuts through a category of {name}")
    return inside > 0


def _along(codebook: Codebook, table: PublicTable, variable: str) -> Codes:
    """Return each row's place along an axis, -1 for a value beyond the codebook's bounds."""
    names = [name for name in (variable, codebook.base(variable)) if name in table.codes]
    if not names:
        raise DocumentError(
            f"file {table.file}: has no column for {variable!r}, so its numbers cannot be given to the "
            f"strata; it has {', '.join(table.codes) or 'none'}. If the variable tells tumours apart and not "
            "people, name it in `tumour`"
        )
    kind, values = codebook.variables[variable], table.codes[names[0]]
    source = codebook.variables[names[0]]
    if not isinstance(source, IntegerVariable):
        return values
    inside = (values >= source.lower) & (values <= source.upper)
    if isinstance(kind, BandVariable):
        places = np.searchsorted(np.array(kind.cuts, np.int64), values, side="right")
    else:
        places = values - source.lower
    return np.asarray(np.where(inside, places, -1), np.int64)


def _check_complete(codebook: Codebook, file: str, axes: Sequence[Axis], found: NDArray[np.bool_]) -> None:
    known = found[tuple(slice(len(known_labels(codebook, axis.variable))) for axis in axes)]
    if not known.all():
        first = np.unravel_index(int(np.argmin(known)), known.shape)
        labels = ", ".join(axis.categories[index] for axis, index in zip(axes, first, strict=True))
        raise DocumentError(f"file {file}: has no row for {labels}")
