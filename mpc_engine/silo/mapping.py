"""The mapping: how one silo's own columns and codes become the variables of the codebook.

A private document of the silo; only this package reads it. Source values are compared as trimmed text,
and empty text is always a missing value. What a variable's table may hold:

* category: ``column`` with ``codes`` (source text = label), or ``column`` with ``cuts`` and ``labels``
  (a number cut into half-open intervals), or ``constant``;
* integer: ``column`` with ``unit`` and ``rounding``, or ``from_dates`` (completed units from ``start`` to
  ``end``, for example from birth to diagnosis), or ``year_of`` (calendar year of a date);
* either: ``missing`` (further source texts that mean missing), or ``not_collected = true``.

Ids of patients are compared after Unicode's compatibility normalisation (NFKC), with invisible characters
dropped, outer white space cut off and any other white space taken as one space. Case, leading zeros and a
trailing ``.0`` tell ids apart; the check warns of ids that differ in nothing else.
"""

from __future__ import annotations

import re
from datetime import date
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal

from mpc_engine.codebook import CategoryVariable, Codebook, IntegerVariable, Label, Name
from mpc_engine.documents import (
    Document,
    Field,
    StringConstraints,
    broken,
    digest,
    load,
    model_validator,
    refuse,
)

DAYS_PER_YEAR: Final = Fraction(1461, 4)
"""Length of a year, where days become months or years; a month is its twelfth part."""
_UNIT_DAYS: Final = {"days": Fraction(1), "months": DAYS_PER_YEAR / 12, "years": DAYS_PER_YEAR}
_FORMAT: Final = re.compile(r"(%[Ymdbj]|[-/. ])+")
_DIGITS: Final = re.compile(r"(?:%[Ymdj])+")
_WIDTHS: Final = {"Y": 4, "m": 2, "d": 2, "j": 3}

# Names in spreadsheets do have line breaks; other control characters are kept for the engine's own columns.
Column = Annotated[
    str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x08\x0B\x0C\x0E-\x1F]*$")
]
Codes = Annotated[dict[str, Label], Field(min_length=1, max_length=5_000)]
Texts = Annotated[tuple[str, ...], Field(max_length=1_000)]


class Source(Document):
    """Where the records are: a file, or a table of a database that Ibis reaches."""

    file: str | None = None
    format: Literal["csv", "parquet"] | None = None
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = ","
    encoding: Literal["utf-8", "latin-1", "utf-16"] = "utf-8"
    database: str | None = None
    database_env: str | None = None
    table: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        given = [key for key in ("file", "database", "database_env") if getattr(self, key) is not None]
        if len(given) != 1:
            raise broken("", "needs exactly one of `file`, `database` and `database_env`")
        if (self.table is None) != (self.file is not None):
            raise broken("table", "names the table of a database; a file has none")
        if self.file is not None and self.format is None and not self.file.endswith((".csv", ".parquet")):
            raise broken(
                "format", 'is required ("csv" or "parquet") where the file\'s suffix does not say it'
            )
        return self

    @property
    def is_parquet(self) -> bool:
        """Return whether the file is Parquet rather than CSV."""
        return self.format == "parquet" or (self.format is None and str(self.file).endswith(".parquet"))


class DateColumn(Document):
    """A column of dates, written in one of ``formats`` or as whole ``days_since`` a date."""

    column: Column
    formats: Annotated[tuple[str, ...], Field(min_length=1, max_length=8)] | None = None
    days_since: Annotated[date, Field(strict=False)] | None = None
    missing: Texts = ()

    @model_validator(mode="after")
    def _formats_are_clear(self) -> DateColumn:
        if self.formats is not None and self.days_since is not None:
            raise broken("days_since", "and `formats` exclude each other")
        for index, text in enumerate(self.formats or ()):
            day = ("%d" in text and ("%m" in text or "%b" in text)) or "%j" in text
            if not _FORMAT.fullmatch(text) or "%Y" not in text or not day:
                raise broken(
                    f"formats[{index}]",
                    "must name %Y with %m (or %b) and %d, or with %j, parted by - / . or spaces; "
                    'for example "%d/%m/%Y"',
                )
            for other in (self.formats or ())[:index]:
                if _may_be_confused(text, other):
                    raise broken(f"formats[{index}]", f"cannot be told from {other!r}; keep one of them")
        return self


class Interval(Document):
    """Two dates, the later one second."""

    start: DateColumn
    end: DateColumn


class Order(DateColumn):
    """What a patient's records are ordered by: a date column, or a number where nothing else is said."""


class VariableMapping(Document):
    """Where one variable comes from; which keys go together is in this module's description."""

    column: Column | None = None
    codes: Codes | None = None
    cuts: Annotated[tuple[int, ...], Field(min_length=1, max_length=10_000)] | None = None
    labels: Annotated[tuple[Label, ...], Field(min_length=2, max_length=10_001)] | None = None
    constant: Label | None = None
    unit: str | None = None
    rounding: Literal["exact", "nearest", "down"] = "exact"
    decimal_comma: bool = False
    from_dates: Interval | None = None
    year_of: DateColumn | None = None
    missing: Texts = ()
    not_collected: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> VariableMapping:
        origins = [self.column, self.constant, self.from_dates, self.year_of, self.not_collected or None]
        if sum(origin is not None for origin in origins) != 1:
            raise broken(
                "", "needs exactly one of `column`, `constant`, `from_dates`, `year_of`, `not_collected`"
            )
        if self.column is None and self.missing:
            raise broken("missing", "goes with `column`; a date has its own `missing`")
        for one, other in (("cuts", "labels"), ("labels", "cuts")):
            if getattr(self, one) is not None and getattr(self, other) is None:
                raise broken(one, f"goes with `{other}`")
        if self.codes is not None and self.cuts is not None:
            raise broken("cuts", "and `codes` exclude each other")
        for code in self.codes or ():
            if code != code.strip() or not code:
                raise broken(
                    "codes", f"the code {code!r} is empty or has outer spaces; codes are compared trimmed"
                )
            if code in self.missing:
                raise broken("missing", f"repeats {code!r}, which `codes` maps")
        for index, (before, after) in enumerate(pairwise(self.cuts or ()), 1):
            if after <= before:
                raise broken(f"cuts[{index}]", f"is {after}, not above the cut before it, {before}")
        if self.cuts is not None and len(self.labels or ()) != len(self.cuts) + 1:
            raise broken("labels", f"{len(self.cuts)} cuts make {len(self.cuts) + 1} intervals")
        return self


class Mapping(Document):
    """One silo's mapping. Paths in it are relative to the folder of its file."""

    codebook: Annotated[str, StringConstraints(min_length=1)]
    source: Source
    patient: Column | None = None
    one_row_per_patient: bool = False
    order_by: Order | None = None
    count_bound: Annotated[int, Field(ge=1, le=1 << 28)] = 1 << 24
    variables: Annotated[dict[Name, VariableMapping], Field(min_length=1, max_length=500)]

    @model_validator(mode="after")
    def _rows_and_patients(self) -> Mapping:
        if self.patient is None and not self.one_row_per_patient:
            raise broken(
                "patient", "names the patient column; without one, state `one_row_per_patient = true`"
            )
        return self

    def serve(self, codebook: Codebook) -> None:
        """Raise :class:`~mpc_engine.errors.DocumentError` unless every variable is well mapped."""
        problems: list[tuple[str, str]] = []
        for name, variable in codebook.mapped.items():
            path = f"variables.{name}"
            mapped = self.variables.get(name)
            if mapped is None:
                problems.append(
                    (path, "is required: the codebook has this variable (or `not_collected = true`)")
                )
                continue
            if mapped.not_collected and variable.unknown is None:
                problems.append(
                    (f"{path}.not_collected", "needs an `unknown` label in the codebook, and there is none")
                )
            if isinstance(variable, CategoryVariable):
                problems += _category_problems(path, mapped, variable)
            else:
                problems += _integer_problems(path, mapped, variable)
        for name in self.variables:
            if name not in codebook.variables:
                known = ", ".join(codebook.mapped)
                problems.append((f"variables.{name}", f"is not in the codebook; it has: {known}"))
            elif name not in codebook.mapped:
                problems.append((f"variables.{name}", "is derived by the codebook and needs no mapping"))
        if problems:
            raise refuse(self.origin, problems)

    def digest(self) -> str:
        """Return the SHA-256 of the mapping's content, in hexadecimal; it stays on this machine."""
        return digest({"mapping": self.model_dump(mode="json")})


def load_mapping(path: str | Path) -> tuple[Mapping, Codebook]:
    """Read the mapping at ``path`` and the codebook that it serves.

    Raises :class:`~mpc_engine.errors.DocumentError` if either breaks a rule or they do not fit together.
    """
    mapping = load(path, Mapping)
    codebook = load(Path(path).parent / mapping.codebook, Codebook)
    mapping.serve(codebook)
    return mapping, codebook


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


def conversion(unit: str | None, wanted: str) -> Fraction | None:
    """Return the factor from ``unit`` to ``wanted``, None if there is none; no unit means the wanted one."""
    if unit is None or unit == wanted:
        return Fraction(1)
    if unit in _UNIT_DAYS and wanted in _UNIT_DAYS:
        if {unit, wanted} == {"months", "years"}:
            return Fraction(12) if unit == "years" else Fraction(1, 12)
        return _UNIT_DAYS[unit] / _UNIT_DAYS[wanted]
    return None


def _category_problems(
    path: str, mapped: VariableMapping, variable: CategoryVariable
) -> list[tuple[str, str]]:
    labels = (*variable.known, *([] if variable.unknown is None else [variable.unknown]))
    allowed = ", ".join(repr(label) for label in labels[:20])
    problems = []
    if mapped.from_dates is not None or mapped.year_of is not None or mapped.unit is not None:
        problems.append((path, "is a category; dates and units are for integer variables"))
    if mapped.column is not None and mapped.codes is None and mapped.cuts is None:
        problems.append((f"{path}.codes", "is required: the codes of the column and their labels"))
    targets = [(f'{path}.codes."{code}"', label) for code, label in (mapped.codes or {}).items()]
    targets += [(f"{path}.labels[{index}]", label) for index, label in enumerate(mapped.labels or ())]
    targets += [] if mapped.constant is None else [(f"{path}.constant", mapped.constant)]
    for where, label in targets:
        if label not in labels:
            problems.append((where, f"{label!r} is not a category of the codebook; allowed: {allowed}"))
    return problems


def _integer_problems(path: str, mapped: VariableMapping, variable: IntegerVariable) -> list[tuple[str, str]]:
    problems = []
    if mapped.codes is not None or mapped.cuts is not None or mapped.constant is not None:
        problems.append((path, "is an integer; codes, cuts and constants are for categories"))
    if mapped.column is not None and conversion(mapped.unit, variable.unit) is None:
        problems.append(
            (f"{path}.unit", f"{mapped.unit!r} cannot be turned into {variable.unit!r}, the codebook's unit")
        )
    if mapped.from_dates is not None and variable.unit not in _UNIT_DAYS:
        problems.append(
            (
                f"{path}.from_dates",
                f"gives days, months or years, but the codebook's unit is {variable.unit!r}",
            )
        )
    return problems
