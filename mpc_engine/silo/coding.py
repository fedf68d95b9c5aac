"""The mapping as Ibis expressions: from the text of a source row to coded values and their state.

All source values arrive as text. A coded value is a 64-bit integer: a category's position, the integer
itself, or a date's days since 1970-01-01; null is unknown. Beside each value stands its state, so that one
pass finds every fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import ibis

from mpc_engine.codebook import CategoryVariable, DateVariable, IntegerVariable, MappedVariable, day
from mpc_engine.silo.dates import DateColumn, Interval, completed, epoch_days, parse_date
from mpc_engine.silo.iarc import iarc_key
from mpc_engine.silo.icdo3 import iccc3_group, iccc3_subgroup
from mpc_engine.silo.mapping import TumourCodes, VariableMapping, conversion
from mpc_engine.silo.outcome import Outcome, code_outcome
from mpc_engine.silo.texts import integer, is_missing, number, text

OK: Final = 0
MISSING: Final = 1
"""No value, where the codebook has no place for that."""
UNKNOWN_CODE: Final = 2
"""A value that the mapping does not know, or that is no number or date."""
OUT_OF_BOUNDS: Final = 3
"""A number or date outside the codebook's bounds."""


@dataclass(frozen=True)
class Coded:
    """Expressions for one variable: the coded value, its state, and the source text to show on a fault.

    ``dates`` are the columns of dates that it is made of, where it is made of nothing else.
    """

    variable: str
    column: str
    value: Any
    state: Any
    raw: Any
    dates: tuple[DateColumn, ...] = ()


def code(
    table: Any,
    name: str,
    mapped: VariableMapping,
    variable: MappedVariable,
    outcome: Outcome | None = None,
    tumour: TumourCodes | None = None,
) -> Coded:
    """Return the expressions that code ``variable`` from ``table``, whose columns are all text.

    ``mapped`` has been checked against the codebook; its columns exist. ``outcome`` is the one that it names,
    ``tumour`` names the columns with ICD-O-3 codes.
    """
    if mapped.not_collected:
        return Coded(name, "(not collected)", integer(None), integer(OK), ibis.literal(""))
    if isinstance(variable, CategoryVariable) and mapped.constant is not None:
        return Coded(
            name, "(constant)", integer(variable.position(mapped.constant)), integer(OK), ibis.literal("")
        )
    if isinstance(variable, CategoryVariable) and mapped.iccc3 is not None and tumour is not None:
        column, raw, absent, value = _from_tumour(table, mapped, variable, tumour)
    else:
        column, raw, absent, value = _read(table, mapped, variable, outcome)
    if isinstance(variable, CategoryVariable):
        # A code may be mapped to unknown, so null does not tell a known code from another: -1 does.
        state = ibis.cases((absent, MISSING), (value.isnull(), UNKNOWN_CODE), else_=OK)
        value = value.nullif(-1)
    else:
        lower, upper = variable.lower, variable.upper
        # In this order a value within bounds, which most are, is worked out once.
        within = value.between(*(end if isinstance(end, int) else day(end) for end in (lower, upper)))
        state = ibis.cases(
            (absent, MISSING), (within, OK), (value.isnull(), UNKNOWN_CODE), else_=OUT_OF_BOUNDS
        )
    if variable.missing_is_unknown:
        state = ibis.ifelse(absent, OK, state)
    between = mapped.from_dates
    dates = (between.start, between.end) if between else tuple(filter(None, (mapped.year_of, mapped.date)))
    return Coded(name, column, ibis.ifelse(absent, integer(None), value), state, raw, dates)


def _read(
    table: Any, mapped: VariableMapping, variable: MappedVariable, outcome: Outcome | None
) -> tuple[str, Any, Any, Any]:
    """Return the columns read, the text to show on a fault, whether it is missing, and the coded value."""
    if outcome is not None:
        unit = variable.unit if isinstance(variable, IntegerVariable) else ""
        factor = conversion(outcome.unit, unit) or Fraction(1)
        return code_outcome(table, outcome, variable, factor, mapped.rounding)
    if mapped.from_dates is not None:
        return _between_dates(table, mapped.from_dates, str(variable.unit))  # type: ignore[union-attr]
    source = mapped.year_of or mapped.date
    if source is not None:
        raw = text(table, source.column)
        absent, found = parse_date(raw, source)
        days = isinstance(variable, DateVariable)
        return source.column, raw, absent, epoch_days(found) if days else found.year().cast("int64")
    raw = text(table, str(mapped.column))
    return str(mapped.column), raw, is_missing(raw, mapped.missing), _from_column(raw, mapped, variable)


def _between_dates(table: Any, dates: Interval, unit: str) -> tuple[str, Any, Any, Any]:
    raw_start, raw_end = text(table, dates.start.column), text(table, dates.end.column)
    no_start, start = parse_date(raw_start, dates.start)
    no_end, end = parse_date(raw_end, dates.end)
    # Of two dates the one at fault is shown, with its column.
    at_start, at_end = (ibis.literal(f"{each.column} = ") for each in (dates.start, dates.end))
    raw = ibis.cases(
        (start.isnull() & ~no_start, at_start + raw_start),
        (end.isnull() & ~no_end, at_end + raw_end),
        (no_start, at_start + raw_start),
        (no_end, at_end + raw_end),
        else_=raw_start + " … " + raw_end,
    )
    columns = f"{dates.start.column} … {dates.end.column}"
    return columns, raw, no_start | no_end, completed(start, end, unit)


def _from_column(raw: Any, mapped: VariableMapping, variable: MappedVariable) -> Any:
    if not isinstance(variable, CategoryVariable):
        factor = conversion(mapped.unit, str(variable.unit)) or Fraction(1)  # type: ignore[union-attr]
        return number(raw, factor, mapped.rounding, comma=mapped.decimal_comma)
    if mapped.cuts is not None:
        value = number(raw, rounding="down", comma=mapped.decimal_comma)
        codes = [integer(variable.position(label)) for label in mapped.labels or ()]
        below = [(value < cut, index) for cut, index in zip(mapped.cuts, codes, strict=False)]
        return value.isnull().ifelse(integer(None), ibis.cases(*below, else_=codes[-1]))
    codes_of = (mapped.codes or {}).items()
    return ibis.cases(
        *((raw == source, integer(variable.position(label))) for source, label in codes_of),
        else_=integer(None),
    )


def _from_tumour(
    table: Any, mapped: VariableMapping, variable: CategoryVariable, tumour: TumourCodes
) -> tuple[str, Any, Any, Any]:
    """Return what :func:`_read` does, from ICD-O-3 codes.

    Codes that can be read and belong to no group, or to none in the codebook, are unknown
    where the codebook has such a category; ones that cannot be read are a fault.
    """
    columns = [column for _, column in tumour.columns]
    texts = [text(table, column) for column in columns]
    key = tumour_key(table, tumour)
    group = (iccc3_group if mapped.iccc3 == "group" else iccc3_subgroup)(*texts)
    labels = mapped.codes or {label: label for label in variable.known}
    outside = ibis.ifelse(key.notnull(), -1, integer(None)) if variable.missing_is_unknown else integer(None)
    value = ibis.cases(
        *((group == source, integer(variable.position(label))) for source, label in labels.items()),
        else_=outside,
    )
    absent = ibis.or_(*(is_missing(raw, ()) for raw in texts[:2]))
    shown = texts[0]
    for other in texts[1:]:
        shown = shown + " " + other
    return ", ".join(columns), shown, absent, value


def tumour_key(table: Any, tumour: TumourCodes) -> Any:
    """Return the text with the IARC groups of site and histology, null where a code cannot be read."""
    return iarc_key(text(table, tumour.topography), text(table, tumour.morphology))
