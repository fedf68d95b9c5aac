"""What `data check` tells the silo about its own rows. Shown on this machine only.

This is the one place where codes and values of records are put into words; nothing here is sent, logged
or raised across a boundary other than the silo's own command line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import ibis

from mpc_engine.codebook import CategoryVariable, Codebook, IntegerVariable
from mpc_engine.silo.coding import MISSING, OUT_OF_BOUNDS, UNKNOWN_CODE, Coded
from mpc_engine.silo.dates import parse_date, turned
from mpc_engine.silo.mapping import Mapping
from mpc_engine.silo.texts import alike, text

MAX_CODES: Final = 25
"""Most different codes that are listed for one variable and fault."""
MAX_DATES: Final = 5
"""Most dates that are listed for one variable which cannot be read: they tend to have one reason."""
NO_IDS: Final = ("0", "-", ".", "?", "na", "n/a", "nan", "nil", "none", "null", "missing", "unk", "unknown")
"""What registries write, in any case, where they have no patient's id."""


@dataclass(frozen=True)
class Problem:
    """One fault: the variable and column, the source's code, how many rows have it, and what to do."""

    variable: str
    column: str
    code: str
    rows: int
    fault: str
    add: str = ""
    table: str = ""

    def render(self) -> str:
        """Return the fault as readable text of one to three lines."""
        times = "1 row" if self.rows == 1 else f"{self.rows} rows"
        code = f" {_quoted(self.code)}" if self.code else ""
        lines = [f"{self.variable}: column {self.column}:{code} {self.fault} ({times})"]
        if self.add:
            lines += [f"    add under [{self.table}]:", f"    {self.add}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """The outcome of checking every row. Only ``problems`` keep the data from being registered."""

    mapping: str
    rows: int
    max_records_per_patient: int
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...] = ()

    def render(self) -> str:
        """Return the report as readable text."""
        outcome = "every one fits the codebook"
        if self.problems:
            found = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
            outcome = f"{found}; the data cannot be registered yet"
        lines = [line for problem in self.problems for line in problem.render().split("\n")]
        lines.append(f"most records of one patient: {self.max_records_per_patient}")
        lines += [f"warning: {warning}" for warning in self.warnings]
        head = f"{self.mapping}: {self.rows} rows checked, {outcome}"
        return "\n".join([head, *(f"  {line}" for line in lines)])


def find_problems(
    table: Any,
    coded: tuple[Coded, ...],
    patient: Any,
    mapping: Mapping,
    codebook: Codebook,
    key: Any | None = None,
) -> Report:
    """Return the report on ``table``: one streaming pass for all, then one for each fault.

    ``key`` is null where a row's ICD-O-3 codes cannot be read; None if the mapping names none.
    """
    faults = (MISSING, UNKNOWN_CODE, OUT_OF_BOUNDS)
    # Selected first, for the state of a constant is no column before.
    unread = ibis.literal(False) if key is None else key.isnull()
    columns = [patient.name("id"), unread.name("unread")]
    states = table.select(*columns, *(one.state.name(f"{i}") for i, one in enumerate(coded)))
    tallies = {
        f"{index}_{fault}": (states[f"{index}"] == fault).sum()
        for index in range(len(coded))
        for fault in faults
    }
    tallies["unread"] = states["unread"].sum()
    found = (
        states.aggregate(rows=states.count(), nameless=(states["id"] == "").sum(), **tallies)
        .to_pyarrow()
        .to_pylist()[0]
    )
    rows = int(found["rows"])
    ids = _Ids() if mapping.patient is None else _ids(states)
    problems: list[Problem] = []

    def add(code: str, rows: int, words: str) -> None:
        problems.append(Problem("patient", str(mapping.patient), code, rows, words))

    if found["nameless"]:
        add("", int(found["nameless"]), "has no value, so the rows belong to nobody")
    for placeholder, shared in ids.placeholders:
        add(placeholder, shared, "is no patient's id, yet several rows have it; they would be one patient")
    if ids.repeated and mapping.one_row_per_patient:
        words = "has patients with more than one row, yet `one_row_per_patient` is stated"
        add("", ids.repeated, words)
    if rows > mapping.count_bound:
        problems.append(
            Problem(
                "count_bound", "(all)", "", rows, f"more rows than the public bound of {mapping.count_bound}"
            )
        )
    for index, one in enumerate(coded):
        for fault in faults:
            if found[f"{index}_{fault}"]:
                problems += _codes(table, one, fault, int(found[f"{index}_{fault}"]), mapping, codebook)
    warnings = [] if rows else ["the source has no rows; every count will be 0"]
    if found["unread"]:
        warnings.append(
            f"icdo3: in {found['unread']} rows topography or morphology is no code of ICD-O-3; by the rules "
            "for multiple primaries each of them counts as a cancer of its own"
        )
    if ids.alike:
        warnings.append(
            f"column {mapping.patient}: {ids.alike} ids differ from others only in case, leading zeros or a "
            f"trailing .0, for example {' and '.join(_quoted(one) for one in ids.example)}; each counts as a "
            "patient, so where they are one the cap on records per patient does not hold"
        )
    return Report(mapping.origin, rows, ids.most, tuple(problems), tuple(warnings))


@dataclass(frozen=True)
class _Ids:
    """What the patients' ids show: the most records that one has, the rows of those with several,
    placeholders in place of ids with their rows, and how many ids nearly equal others, with two of them."""

    most: int = 1
    repeated: int = 0
    placeholders: tuple[tuple[str, int], ...] = ()
    alike: int = 0
    example: tuple[str, ...] = ()


def _ids(states: Any) -> _Ids:
    """Return what the column ``id`` of ``states`` shows."""
    ids = states.filter(states["id"] != "").group_by("id").aggregate(rows=lambda t: t.count())
    groups = (
        ids.mutate(several=ibis.ifelse(ids["rows"] > 1, ids["rows"], 0), key=alike(ids["id"]))
        .group_by("key")
        .aggregate(
            ids=lambda t: t["id"].count(),
            rows=lambda t: t["rows"].sum(),
            most=lambda t: t["rows"].max(),
            several=lambda t: t["several"].sum(),
            low=lambda t: t["id"].min(),
            high=lambda t: t["id"].max(),
        )
    )
    near = groups["ids"] > 1
    placeholder = groups["key"].isin(NO_IDS) & (groups["rows"] > 1)
    total = (
        groups.aggregate(
            most=groups["most"].max(),
            several=groups["several"].sum(),
            placeholders=placeholder.sum(),
            alike=groups["ids"].sum(where=near),
            low=groups["low"].min(where=near),
            high=groups["high"].argmin(groups["low"], where=near),
        )
        .to_pyarrow()
        .to_pylist()[0]
    )
    shared = []
    if total["placeholders"]:
        shared = groups.filter(placeholder).order_by("key").to_pyarrow().to_pylist()
    return _Ids(
        most=int(total["most"] or 1),
        repeated=int(total["several"] or 0),
        placeholders=tuple((str(row["low"]), int(row["rows"])) for row in shared),
        alike=int(total["alike"] or 0),
        example=(str(total["low"]), str(total["high"])) if total["alike"] else (),
    )


def _codes(
    table: Any, one: Coded, fault: int, total: int, mapping: Mapping, codebook: Codebook
) -> list[Problem]:
    """Return the codes with this fault, the most frequent first."""
    unread = bool(one.dates) and fault == UNKNOWN_CODE
    hits = table.filter(one.state == fault).select(raw=one.raw, backwards=_backwards(one, mapping, codebook))
    top = hits.group_by("raw", "backwards").aggregate(n=hits.count()).order_by([ibis.desc("n"), "raw"])
    found = top.limit(MAX_DATES if unread else MAX_CODES).to_pyarrow().to_pylist()
    problems = [
        _problem(one, str(row["raw"]), int(row["n"]), fault, bool(row["backwards"]), mapping, codebook)
        for row in found
    ]
    rest = total - sum(problem.rows for problem in problems)
    if rest:
        words = "has further values of this kind" + (f"; {_unread(table, one)}" if unread else "")
        problems.append(Problem(one.variable, one.column, "", rest, words))
    return problems


def _backwards(one: Coded, mapping: Mapping, codebook: Codebook) -> Any:
    """Return whether a time ends before it starts; only one between two dates can."""
    if not isinstance(codebook.mapped[one.variable], IntegerVariable):
        return ibis.literal(False)
    mapped = mapping.variables[one.variable]
    outcome = None if mapped.outcome is None else mapping.outcomes[mapped.outcome]
    between = mapped.from_dates is not None or (outcome is not None and outcome.start is not None)
    return (one.value < 0).fill_null(False) if between else ibis.literal(False)


def _unread(table: Any, one: Coded) -> str:
    """Say of each column of dates how many cannot be read, and ask what may be the reason."""
    sums: dict[str, Any] = {}
    for index, source in enumerate(one.dates):
        raw = text(table, source.column)
        absent, found = parse_date(raw, source)
        bad, other = ~absent & found.isnull(), turned(source)
        sums |= {f"given{index}": (~absent).sum(), f"bad{index}": bad.sum()}
        if other is not None:
            sums[f"other{index}"] = (bad & parse_date(raw, other)[1].notnull()).sum()
    counted = table.aggregate(**sums).to_pyarrow().to_pylist()[0]
    said = []
    for index, source in enumerate(one.dates):
        if bad := int(counted[f"bad{index}"] or 0):
            said.append(f"{bad:,} of {counted[f'given{index}']:,} dates of {source.column} cannot be read")
            if 2 * int(counted.get(f"other{index}") or 0) > bad:
                said[-1] += ": are day and month the other way round?"
    return "; ".join(said)


def _problem(
    one: Coded, code: str, rows: int, fault: int, backwards: bool, mapping: Mapping, codebook: Codebook
) -> Problem:
    name = one.variable
    variable = codebook.mapped[name]
    mapped = mapping.variables[name]
    if fault == MISSING:
        words = "is missing, and the codebook " + (
            "declares no unknown category" if variable.unknown is None else "says that missing is refused"
        )
        return Problem(name, one.column, code, rows, words)
    if isinstance(variable, CategoryVariable) and mapped.column is not None and mapped.codes is not None:
        # With no unknown category the silo has to choose; all choices on the line fail if left as they are.
        target = variable.unknown or " | ".join(variable.known)
        line = f"{_quoted(code)} = {_quoted(target)}"
        return Problem(name, one.column, code, rows, "is not in the mapping", line, f"variables.{name}.codes")
    if fault == OUT_OF_BOUNDS and backwards:
        words = "ends before it starts"
    elif fault == OUT_OF_BOUNDS and not isinstance(variable, CategoryVariable):
        words = f"is outside the codebook's bounds {variable.lower} to {variable.upper}"
        words += f" {variable.unit}" if isinstance(variable, IntegerVariable) else ""
    elif mapped.iccc3 is not None:
        words = f"is no ICD-O-3 code, or in no {mapped.iccc3} of ICCC-3 that the codebook has"
    elif mapped.outcome is not None:
        words = f"is no status or time that outcomes.{mapped.outcome} can read"
    elif mapped.from_dates is not None or mapped.year_of is not None or mapped.date is not None:
        words = "cannot be read as a date in the formats of the mapping"
    elif mapped.rounding == "exact" and isinstance(variable, IntegerVariable):
        words = f"is not a whole number of {variable.unit}"
    else:
        words = "is not a number"
    if variable.missing_is_unknown and mapped.column is not None:
        line = f"missing = [{', '.join(_quoted(item) for item in (*mapped.missing, code))}]"
        return Problem(name, one.column, code, rows, words, line, f"variables.{name}")
    return Problem(name, one.column, code, rows, words)


def _quoted(text: str) -> str:
    """Return ``text`` as TOML writes it, with control characters escaped."""
    plain = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\u{ord(char):04X}" for char in plain)
