"""The mapping as Ibis expressions: from the text of a source row to coded values and their state.

All source values arrive as text. A coded value is a 64-bit integer: a category's position, or the integer
itself; null is unknown. Beside each value stands its state, so that one pass finds every fault.
Arithmetic is exact: numbers are read as decimals with six places and converted in integers. Further places
are cut off downwards, never rounded; a number that has them is not whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Any, Final

import ibis
import ibis.expr.datatypes as dt
import pyarrow.compute as pc

from mpc_engine.codebook import CategoryVariable, IntegerVariable
from mpc_engine.silo.mapping import DateColumn, Interval, VariableMapping, conversion, date_pattern

OK: Final = 0
MISSING: Final = 1
"""No value, where the codebook has no place for that."""
UNKNOWN_CODE: Final = 2
"""A value that the mapping does not know, or that is no number or date."""
OUT_OF_BOUNDS: Final = 3
"""A number outside the codebook's bounds."""

_MICRO: Final = 1_000_000


def _declare_strptime(text: str, form: str) -> dt.timestamp:
    """Parse a time, null where the text does not fit. DuckDB's own; Ibis has only the one that fails."""


_try_strptime = ibis.udf.scalar.builtin(_declare_strptime, name="try_strptime")


def _normalise(texts: dt.string) -> dt.string:
    """Return a batch of texts in Unicode's compatible form, with plain spaces and nothing invisible."""
    visible = pc.utf8_normalize(pc.replace_substring_regex(texts, r"\p{Cf}+", ""), "NFKC")
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(visible, r"[\s\p{Z}\p{Cc}]+", " "))


_normalised = ibis.udf.scalar.pyarrow(_normalise, name="normalised_text")


@dataclass(frozen=True)
class Coded:
    """Expressions for one variable: the coded value, its state, and the source text to show on a fault."""

    variable: str
    column: str
    value: Any
    state: Any
    raw: Any


def code(
    table: Any, name: str, mapped: VariableMapping, variable: CategoryVariable | IntegerVariable
) -> Coded:
    """Return the expressions that code ``variable`` from ``table``, whose columns are all text.

    ``mapped`` has been checked against the codebook; its columns exist.
    """
    if mapped.not_collected:
        return Coded(name, "(not collected)", _int(None), _int(OK), ibis.literal(""))
    if isinstance(variable, CategoryVariable) and mapped.constant is not None:
        return Coded(name, "(constant)", _category(variable, mapped.constant), _int(OK), ibis.literal(""))
    if mapped.from_dates is not None:
        column, raw, absent, value = _between_dates(table, mapped.from_dates, str(variable.unit))  # type: ignore[union-attr]
    elif mapped.year_of is not None:
        column, raw = mapped.year_of.column, text(table, mapped.year_of.column)
        absent, found = parse_date(raw, mapped.year_of)
        value = found.year().cast("int64")
    else:
        column = str(mapped.column)
        raw = text(table, column)
        absent = _is_missing(raw, mapped.missing)
        value = _from_column(raw, mapped, variable)
    if isinstance(variable, CategoryVariable):
        # A code may be mapped to unknown, so null does not tell a known code from another: -1 does.
        state = ibis.cases((absent, MISSING), (value.isnull(), UNKNOWN_CODE), else_=OK)
        value = value.nullif(-1)
    else:
        # In this order a value within bounds, which most are, is worked out once.
        within = value.between(variable.lower, variable.upper)
        state = ibis.cases(
            (absent, MISSING), (within, OK), (value.isnull(), UNKNOWN_CODE), else_=OUT_OF_BOUNDS
        )
    if variable.missing_is_unknown:
        state = ibis.ifelse(absent, OK, state)
    return Coded(name, column, ibis.ifelse(absent, _int(None), value), state, raw)


def text(table: Any, column: str) -> Any:
    """Return the trimmed text of ``column``; null becomes empty."""
    return table[column].fill_null("").strip()


def identifier(table: Any, column: str) -> Any:
    """Return the patient's id in ``column`` in the form in which ids are compared; null becomes empty.

    Full-width and composed characters are as their plain forms, any white space is one space, and outer
    white space and invisible characters do not count. Case and leading zeros do.
    """
    return _normalised(table[column].fill_null(""))


def alike(identifiers: Any) -> Any:
    """Return what ids have in common that differ only in case, leading zeros or a trailing ``.0``."""
    whole = identifiers.lower().re_replace(r"^([0-9]+)[.]0+$", r"\1")
    return whole.re_replace(r"^0+([0-9])", r"\1")


def number(raw: Any, factor: Fraction = Fraction(1), rounding: str = "exact", *, comma: bool = False) -> Any:
    """Return the whole number that ``raw`` times ``factor`` comes to; null if it is none.

    ``nearest`` rounds halves up, ``down`` towards minus infinity, ``exact`` accepts whole results only.
    """
    # A point beside decimal commas parts thousands: such text is no number, rather than a small one.
    point = "," if comma else "[.]"
    # Nine digits before the point: with six places and the factors there are, 64 bits always suffice.
    whole = "[+-]?[0-9]{1,9}"
    form = f"^(?:({whole}(?:{point}[0-9]{{0,5}})?)|({whole}{point}[0-9]{{6}})[0-9]*)$"
    further = f"{point}[0-9]{{6}}[0-9]*[1-9]"
    plain = raw.re_extract(form, 1) + raw.re_extract(form, 2)
    decimal = plain.replace(",", ".").try_cast("decimal(18, 6)").cast("decimal(38, 6)")
    # Cutting off was towards zero: below zero one millionth more makes it downwards, as the rest is done.
    scaled = (decimal * _MICRO).cast("int64") - raw.re_search(f"^-.*{further}").cast("int64")
    above, below = scaled * factor.numerator, factor.denominator * _MICRO
    if rounding == "nearest":
        return _floor(2 * above + below, 2 * below)
    floor = _floor(above, below)
    return (
        floor
        if rounding == "down"
        else ((above % below == 0) & ~raw.re_search(further)).ifelse(floor, _int(None))
    )


def parse_date(raw: Any, source: DateColumn) -> tuple[Any, Any]:
    """Return whether the text is missing, and the date; null where it cannot be read."""
    if source.days_since is not None:
        days = number(raw)
        # Beyond some 2,700 years from the epoch lies no diagnosis; and the addition could overflow.
        near = days.between(-1_000_000, 1_000_000).ifelse(days, _int(None))
        found = (ibis.literal(source.days_since, type="date") + near.as_interval("D")).cast("date")
    else:
        forms = source.formats or ("%Y-%m-%d",)
        found = ibis.coalesce(*(_parse(raw, form) for form in forms))
    return _is_missing(raw, source.missing), found


def _parse(raw: Any, form: str) -> Any:
    # DuckDB by itself takes "70" for the year 70 and "2010123" for a date of eight digits.
    return _try_strptime(ibis.ifelse(raw.re_search(date_pattern(form)), raw, ibis.null("string")), form).cast(
        "date"
    )


def _between_dates(table: Any, dates: Interval, unit: str) -> tuple[str, Any, Any, Any]:
    raw_start, raw_end = text(table, dates.start.column), text(table, dates.end.column)
    no_start, start = parse_date(raw_start, dates.start)
    no_end, end = parse_date(raw_end, dates.end)
    if unit == "days":
        value = end.delta(start, unit="day")
    else:
        months = (end.year() - start.year()) * 12 + end.month() - start.month()
        completed = (months - (end.day() < start.day()).cast("int64")).cast("int64")
        value = completed if unit == "months" else _floor(completed, 12)
    raw = raw_start + " … " + raw_end
    return f"{dates.start.column} … {dates.end.column}", raw, no_start | no_end, value.cast("int64")


def _from_column(raw: Any, mapped: VariableMapping, variable: CategoryVariable | IntegerVariable) -> Any:
    if isinstance(variable, IntegerVariable):
        factor = conversion(mapped.unit, variable.unit) or Fraction(1)
        return number(raw, factor, mapped.rounding, comma=mapped.decimal_comma)
    if mapped.cuts is not None:
        value = number(raw, rounding="down", comma=mapped.decimal_comma)
        codes = [_category(variable, label) for label in mapped.labels or ()]
        below = [(value < cut, index) for cut, index in zip(mapped.cuts, codes, strict=False)]
        return value.isnull().ifelse(_int(None), ibis.cases(*below, else_=codes[-1]))
    return ibis.cases(
        *((raw == source, _category(variable, label)) for source, label in (mapped.codes or {}).items()),
        else_=_int(None),
    )


def _category(variable: CategoryVariable, label: str) -> Any:
    """Return the position of ``label``, -1 for the unknown one."""
    return _int(-1 if label == variable.unknown else variable.known.index(label))


def _is_missing(raw: Any, texts: tuple[str, ...]) -> Any:
    return raw.isin(["", *(item.strip() for item in texts)])


def _floor(above: Any, below: int) -> Any:
    """Return the quotient rounded down. The division is of a multiple, so that a float holds it exactly."""
    rest = ((above % below) + below) % below
    return ((above - rest) / below).round().cast("int64")


def _int(value: int | None) -> Any:
    return ibis.literal(value, type="int64")


def epoch_days(found: Any) -> Any:
    """Return a date as days since 1970-01-01, for ordering."""
    return found.delta(ibis.literal(date(1970, 1, 1), type="date"), unit="day").cast("int64")
