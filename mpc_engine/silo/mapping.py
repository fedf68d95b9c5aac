"""The mapping: how one silo's own columns and codes become the variables of the codebook.

A private document of the silo; only this package reads it. Source values are compared as trimmed text,
and empty text is always a missing value. What a variable's table may hold:

* category: ``column`` with ``codes`` (source text = label), or ``column`` with ``cuts`` and ``labels``
  (a number cut into half-open intervals), or ``constant``;
* integer: ``column`` with ``unit`` and ``rounding``, or ``from_dates`` (completed units from ``start`` to
  ``end``, for example from birth to diagnosis), or ``year_of`` (calendar year of a date);
* date: ``date`` (a column of dates);
* category: ``iccc3`` (the group or subgroup of ICCC-3 by the columns that the table ``icdo3`` names), with
  ``codes`` where the codebook's labels are not the classification's own;
* any of them: ``outcome``, the name of an entry of ``outcomes`` (see :mod:`mpc_engine.silo.outcome`), or
  ``not_collected = true``; with ``column`` also ``missing`` (further source texts that mean missing).

Ids of patients are compared after Unicode's compatibility normalisation (NFKC), with invisible characters
dropped, outer white space cut off and any other white space taken as one space. Case, leading zeros and a
trailing ``.0`` tell ids apart; the check warns of ids that differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal

from mpc_engine.codebook import (
    CategoryVariable,
    Codebook,
    DateVariable,
    IntegerVariable,
    Label,
    Name,
    load_codebook,
)
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
from mpc_engine.silo.dates import Column, DateColumn, Interval, Texts
from mpc_engine.silo.outcome import Outcome

DAYS_PER_YEAR: Final = Fraction(1461, 4)
"""Length of a year, where days become months or years; a month is its twelfth part."""
_UNIT_DAYS: Final = {"days": Fraction(1), "months": DAYS_PER_YEAR / 12, "years": DAYS_PER_YEAR}

Codes = Annotated[dict[str, Label], Field(min_length=1, max_length=5_000)]
Problems = list[tuple[str, str]]


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


class TumourCodes(Document):
    """The columns with a tumour's ICD-O-3 codes, written as :mod:`mpc_engine.silo.icdo3` says."""

    topography: Column
    morphology: Column
    behaviour: Column | None = None

    @property
    def columns(self) -> Iterator[tuple[str, str]]:
        """Yield the columns with their keys."""
        for key in ("topography", "morphology", "behaviour"):
            if getattr(self, key) is not None:
                yield key, getattr(self, key)


class Order(DateColumn):
    """What a patient's records are ordered by: a date column, or a number where nothing else is said."""


_ORIGINS: Final = ("column", "constant", "from_dates", "year_of", "date", "outcome", "iccc3", "not_collected")


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
    date: DateColumn | None = None
    outcome: Name | None = None
    iccc3: Literal["group", "subgroup"] | None = None
    missing: Texts = ()
    not_collected: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> VariableMapping:
        given = [key for key in _ORIGINS if getattr(self, key) not in (None, False)]
        if len(given) != 1:
            raise broken("", f"needs exactly one of {', '.join(f'`{key}`' for key in _ORIGINS)}")
        if self.column is None and self.missing:
            raise broken("missing", "goes with `column`; a date or a status has its own `missing`")
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
    icdo3: TumourCodes | None = None
    count_bound: Annotated[int, Field(ge=1, le=1 << 28)] = 1 << 24
    outcomes: Annotated[dict[Name, Outcome], Field(max_length=50, default_factory=dict)]
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
        problems: Problems = []
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
            outcome = None if mapped.outcome is None else self.outcomes.get(mapped.outcome)
            if mapped.outcome is not None and outcome is None:
                known = ", ".join(self.outcomes) or "there is none"
                problems.append((f"{path}.outcome", f"must be the name of an outcome ({known})"))
            if mapped.iccc3 is not None and self.icdo3 is None:
                problems.append(("icdo3", f"is required for {path}: the columns with the codes"))
            if isinstance(variable, CategoryVariable):
                problems += _category_problems(path, mapped, variable, outcome)
            elif isinstance(variable, DateVariable):
                problems += _date_problems(path, mapped, outcome)
            else:
                problems += _integer_problems(path, mapped, variable, outcome)
        for name in self.variables:
            if name not in codebook.variables:
                known = ", ".join(codebook.mapped)
                problems.append((f"variables.{name}", f"is not in the codebook; it has: {known}"))
            elif name not in codebook.mapped:
                problems.append((f"variables.{name}", "is derived by the codebook and needs no mapping"))
        used = {mapped.outcome for mapped in self.variables.values()}
        problems += [
            (f"outcomes.{name}", "is not used: no variable names it")
            for name in self.outcomes
            if name not in used
        ]
        if problems:
            raise refuse(self.origin, problems)

    @property
    def columns(self) -> Iterator[tuple[str, str]]:
        """Yield every column of the source that the mapping names, with the path of the key that names it."""
        if self.patient is not None:
            yield "patient", self.patient
        if self.order_by is not None:
            yield "order_by.column", self.order_by.column
        for key, column in () if self.icdo3 is None else self.icdo3.columns:
            yield f"icdo3.{key}", column
        for name, outcome in self.outcomes.items():
            for key, column in outcome.columns:
                yield f"outcomes.{name}.{key}", column
        for name, variable in self.variables.items():
            path = f"variables.{name}"
            if variable.column is not None:
                yield f"{path}.column", variable.column
            if variable.from_dates is not None:
                yield f"{path}.from_dates.start.column", variable.from_dates.start.column
                yield f"{path}.from_dates.end.column", variable.from_dates.end.column
            if variable.year_of is not None:
                yield f"{path}.year_of.column", variable.year_of.column
            if variable.date is not None:
                yield f"{path}.date.column", variable.date.column

    def digest(self) -> str:
        """Return the SHA-256 of the mapping's content, in hexadecimal; it stays on this machine."""
        return digest({"mapping": self.model_dump(mode="json")})


def load_mapping(path: str | Path) -> tuple[Mapping, Codebook]:
    """Read the mapping at ``path`` and the codebook that it serves.

    Raises :class:`~mpc_engine.errors.DocumentError` if either breaks a rule or they do not fit together.
    """
    mapping = load(path, Mapping)
    codebook = load_codebook(Path(path).parent / mapping.codebook)
    mapping.serve(codebook)
    return mapping, codebook


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
    path: str, mapped: VariableMapping, variable: CategoryVariable, outcome: Outcome | None
) -> Problems:
    labels = (*variable.known, *([] if variable.unknown is None else [variable.unknown]))
    allowed = ", ".join(repr(label) for label in labels[:20])
    problems = []
    for key in ("from_dates", "year_of", "date", "unit"):
        if getattr(mapped, key) is not None:
            problems.append((f"{path}.{key}", "is not for a category"))
    if mapped.column is not None and mapped.codes is None and mapped.cuts is None:
        problems.append((f"{path}.codes", "is required: the codes of the column and their labels"))
    targets = [(f'{path}.codes."{code}"', label) for code, label in (mapped.codes or {}).items()]
    targets += [(f"{path}.labels[{index}]", label) for index, label in enumerate(mapped.labels or ())]
    targets += [] if mapped.constant is None else [(f"{path}.constant", mapped.constant)]
    if outcome is not None:
        targets += [(f"outcomes.{mapped.outcome}.{key}", label) for key, label in outcome.labels]
    for where, label in targets:
        if label not in labels:
            problems.append((where, f"{label!r} is not a category of the codebook; allowed: {allowed}"))
    return problems


def _date_problems(path: str, mapped: VariableMapping, outcome: Outcome | None) -> Problems:
    problems = []
    if mapped.outcome is None and mapped.date is None and not mapped.not_collected:
        problems.append((path, "is a date; it needs `date`, or `outcome`"))
    for key in ("codes", "cuts", "unit", "iccc3"):
        if getattr(mapped, key) is not None:
            problems.append((f"{path}.{key}", "is not for a date"))
    if outcome is not None and outcome.start is None:
        problems.append((f"{path}.outcome", "is of an outcome whose times are no dates"))
    return problems


def _integer_problems(
    path: str, mapped: VariableMapping, variable: IntegerVariable, outcome: Outcome | None
) -> Problems:
    problems = []
    for key in ("codes", "cuts", "constant", "date", "iccc3"):
        if getattr(mapped, key) is not None:
            problems.append((f"{path}.{key}", "is not for an integer"))
    unit = mapped.unit if outcome is None else outcome.unit
    if outcome is not None:
        if mapped.unit is not None:
            problems.append((f"{path}.unit", "is that of the outcome; say it there"))
        if not outcome.is_timed:
            problems.append((f"{path}.outcome", "is of an outcome without times"))
    if conversion(unit, variable.unit) is None:
        where = f"{path}.unit" if outcome is None else f"outcomes.{mapped.outcome}.unit"
        problems.append((where, f"{unit!r} cannot be turned into {variable.unit!r}, the codebook's unit"))
    between = mapped.from_dates is not None or (outcome is not None and outcome.start is not None)
    if between and variable.unit not in _UNIT_DAYS:
        words = f"gives days, months or years, but the codebook's unit is {variable.unit!r}"
        problems.append((f"{path}.{'outcome' if outcome else 'from_dates'}", words))
    return problems
