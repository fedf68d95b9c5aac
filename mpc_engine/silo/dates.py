"""Columns of dates: how a mapping describes them, and the expressions that read them.

Years always have four digits. A date known only to the month or the year can be read where the mapping
says which day, and month, to assume.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import ibis
import ibis.expr.datatypes as dt

from mpc_engine.codebook import EPOCH, Day
from mpc_engine.documents import Document, Field, StringConstraints, broken, model_validator
from mpc_engine.silo.texts import floor, integer, is_missing, number

_FORMAT: Final = re.compile(r"(%[Ymdbj]|[-/. ])+")
_DIGITS: Final = re.compile(r"(?:%[Ymdj])+")
_WIDTHS: Final = {"Y": 4, "m": 2, "d": 2, "j": 3}

# Names in spreadsheets do have line breaks; other control characters are kept for the engine's own columns.
Column = Annotated[
    str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x08\x0B\x0C\x0E-\x1F]*$")
]
Texts = Annotated[tuple[str, ...], Field(max_length=1_000)]


class DateColumn(Document):
    """A column of dates, written in one of ``formats`` or as whole ``days_since`` a date.

    A format may lack the day where ``assumed_day`` gives one, and the month too with ``assumed_month``.
    """

    column: Column
    formats: Annotated[tuple[str, ...], Field(min_length=1, max_length=8)] | None = None
    days_since: Day | None = None
    assumed_day: Annotated[int, Field(ge=1, le=28)] | None = None
    assumed_month: Annotated[int, Field(ge=1, le=12)] | None = None
    missing: Texts = ()

    @model_validator(mode="after")
    def _formats_are_clear(self) -> DateColumn:
        if self.formats is not None and self.days_since is not None:
            raise broken("days_since", "and `formats` exclude each other")
        for index, form in enumerate(self.formats or ()):
            whole = form + self.assumed(form)
            day = ("%d" in whole and ("%m" in whole or "%b" in whole)) or "%j" in whole
            if not _FORMAT.fullmatch(form) or "%Y" not in form or not day:
                raise broken(
                    f"formats[{index}]",
                    "must name %Y with %m (or %b) and %d, or with %j, parted by - / . or spaces; "
                    'for example "%d/%m/%Y"; without %d it needs `assumed_day`, '
                    "without %m also `assumed_month`",
                )
            for other in (self.formats or ())[:index]:
                if _may_be_confused(form, other):
                    raise broken(f"formats[{index}]", f"cannot be told from {other!r}; keep one of them")
        forms = self.formats or ()
        for key, mark in (("assumed_day", "%d"), ("assumed_month", "%m")):
            if getattr(self, key) is not None and not any(mark in self.assumed(form) for form in forms):
                raise broken(key, f"is given, but no format lacks {mark}")
        return self

    def assumed(self, form: str) -> str:
        """Return the directives that ``form`` lacks and this column assumes, each after a space."""
        parts = ""
        if "%j" in form:
            return parts
        if not ("%m" in form or "%b" in form) and self.assumed_month is not None:
            parts += " %m"
        if "%d" not in form and self.assumed_day is not None:
            parts += " %d"
        return parts


class Interval(Document):
    """Two dates, the later one second."""

    start: DateColumn
    end: DateColumn


def parse_date(raw: Any, source: DateColumn) -> tuple[Any, Any]:
    """Return whether the text is missing, and the date; null where it cannot be read."""
    if source.days_since is not None:
        days = number(raw)
        # Beyond some 2,700 years from the epoch lies no diagnosis; and the addition could overflow.
        near = days.between(-1_000_000, 1_000_000).ifelse(days, integer(None))
        found = (ibis.literal(source.days_since, type="date") + near.as_interval("D")).cast("date")
    else:
        forms = source.formats or ("%Y-%m-%d",)
        found = ibis.coalesce(*(_parse(raw, form, source) for form in forms))
    return is_missing(raw, source.missing), found


def turned(source: DateColumn) -> DateColumn | None:
    """Return the column with day and month the other way round in its formats, None if none has both."""
    forms = [form for form in source.formats or ("%Y-%m-%d",) if "%m" in form and "%d" in form]
    other = tuple(form.replace("%m", "%?").replace("%d", "%m").replace("%?", "%d") for form in forms)
    return DateColumn(column=source.column, formats=other) if other and source.days_since is None else None


def epoch_days(found: Any) -> Any:
    """Return a date as whole days since 1970-01-01."""
    return found.delta(ibis.literal(EPOCH, type="date"), unit="day").cast("int64")


def completed(start: Any, end: Any, unit: str) -> Any:
    """Return the completed ``unit`` (days, months or years) from the date ``start`` to ``end``."""
    if unit == "days":
        return end.delta(start, unit="day").cast("int64")
    months = (end.year() - start.year()) * 12 + end.month() - start.month()
    months = (months - (end.day() < start.day()).cast("int64")).cast("int64")
    return months if unit == "months" else floor(months, 12)


def _declare_strptime(text: str, form: str) -> dt.timestamp:
    """Parse a time, null where the text does not fit. DuckDB's own; Ibis has only the one that fails."""


_try_strptime = ibis.udf.scalar.builtin(_declare_strptime, name="try_strptime")


def _parse(raw: Any, form: str, source: DateColumn) -> Any:
    assumed = source.assumed(form)
    given = assumed.replace("%m", f"{source.assumed_month or 0:02}").replace(
        "%d", f"{source.assumed_day or 0:02}"
    )
    # DuckDB by itself takes "70" for the year 70 and "2010123" for a date of eight digits.
    fits = raw.re_search(date_pattern(form))
    return _try_strptime(ibis.ifelse(fits, raw + given, ibis.null("string")), form + assumed).cast("date")


def date_pattern(form: str) -> str:
    """Return the regular expression of the dates in a format of :class:`DateColumn`.

    A year has four digits. Where numbers follow each other without anything between them all are written
    out; elsewhere days and months may lack their zeros.
    """
    letters = form.replace(".", "[.]").replace("%b", "[A-Za-z]{3}")
    return f"^{_DIGITS.sub(lambda found: '[0-9]{{{},{}}}'.format(*_widths(found[0])), letters)}$"


def _widths(directives: str) -> tuple[int, int]:
    """Return the fewest and most digits of directives that follow each other, such as ``%Y%m``."""
    most = sum(_WIDTHS[letter] for letter in directives[1::2])
    return (most if directives == "%Y" or len(directives) > 2 else 1), most


def _may_be_confused(one: str, other: str) -> bool:
    """Return whether some text has both formats: the same marks, and numbers of the same width."""
    pairs = zip(_DIGITS.findall(one), _DIGITS.findall(other), strict=False)
    widths = [(_widths(left), _widths(right)) for left, right in pairs]
    overlap = all(left[0] <= right[1] and right[0] <= left[1] for left, right in widths)
    return overlap and _DIGITS.split(one) == _DIGITS.split(other)
