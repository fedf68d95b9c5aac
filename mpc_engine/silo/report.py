"""What `data check` tells the silo about its own rows. Shown on this machine only.

This is the one place where codes and values of records are put into words; nothing here is sent, logged
or raised across a boundary other than the silo's own command line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import ibis

from mpc_engine.codebook import CategoryVariable, Codebook
from mpc_engine.silo.coding import MISSING, OUT_OF_BOUNDS, UNKNOWN_CODE, Coded
from mpc_engine.silo.mapping import Mapping

MAX_CODES: Final = 25
"""Most different codes that are listed for one variable and fault."""


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
    """The outcome of checking every row."""

    mapping: str
    rows: int
    max_records_per_patient: int
    problems: tuple[Problem, ...]

    def render(self) -> str:
        """Return the report as readable text."""
        if not self.problems:
            return f"{self.mapping}: {self.rows} rows checked, every one fits the codebook"
        found = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        head = f"{self.mapping}: {self.rows} rows checked, {found}; the data cannot be registered yet"
        return "\n".join(
            [head, *(f"  {line}" for problem in self.problems for line in problem.render().split("\n"))]
        )


def find_problems(
    table: Any, coded: tuple[Coded, ...], patient: Any, mapping: Mapping, codebook: Codebook
) -> Report:
    """Return the report on ``table``: one streaming pass for all, then one for each fault."""
    faults = (MISSING, UNKNOWN_CODE, OUT_OF_BOUNDS)
    tallies = {
        f"{index}_{fault}": (one.state == fault).sum() for index, one in enumerate(coded) for fault in faults
    }
    found = (
        table.aggregate(rows=table.count(), nameless=(patient == "").sum(), **tallies)
        .to_pyarrow()
        .to_pylist()[0]
    )
    rows = int(found["rows"])
    most, repeated = _records_per_patient(table, patient, mapping)
    problems: list[Problem] = []
    if found["nameless"]:
        problems.append(
            Problem(
                "patient",
                str(mapping.patient),
                "",
                found["nameless"],
                "has no value, so the rows belong to nobody",
            )
        )
    if repeated:
        problems.append(
            Problem(
                "patient",
                str(mapping.patient),
                "",
                repeated,
                "has patients with more than one row, yet `one_row_per_patient` is stated",
            )
        )
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
    return Report(mapping.origin, rows, most, tuple(problems))


def _records_per_patient(table: Any, patient: Any, mapping: Mapping) -> tuple[int, int]:
    """Return the most records a patient has, and the rows of patients with more than the one stated."""
    if mapping.patient is None:
        return 1, 0
    counts = (
        table.select(_id=patient)
        .filter(lambda t: t["_id"] != "")
        .group_by("_id")
        .aggregate(n=lambda t: t.count())
    )
    found = (
        counts.aggregate(most=counts.n.max(), repeated=counts.n.sum(where=counts.n > 1))
        .to_pyarrow()
        .to_pylist()[0]
    )
    most = int(found["most"] or 1)
    return most, int(found["repeated"] or 0) if mapping.one_row_per_patient else 0


def _codes(
    table: Any, one: Coded, fault: int, total: int, mapping: Mapping, codebook: Codebook
) -> list[Problem]:
    """Return the codes with this fault, the most frequent first."""
    hits = table.filter(one.state == fault).select(raw=one.raw)
    top = hits.group_by("raw").aggregate(n=hits.count()).order_by([ibis.desc("n"), "raw"]).limit(MAX_CODES)
    found = [(str(row["raw"]), int(row["n"])) for row in top.to_pyarrow().to_pylist()]
    problems = [_problem(one, code, rows, fault, mapping, codebook) for code, rows in found]
    rest = total - sum(rows for _, rows in found)
    if rest:
        problems.append(Problem(one.variable, one.column, "", rest, "has further values of this kind"))
    return problems


def _problem(one: Coded, code: str, rows: int, fault: int, mapping: Mapping, codebook: Codebook) -> Problem:
    name = one.variable
    variable = codebook.mapped[name]
    mapped = mapping.variables[name]
    if fault == MISSING:
        words = "is missing, and the codebook " + (
            "declares no unknown category" if variable.unknown is None else "says that missing is refused"
        )
        return Problem(name, one.column, code, rows, words)
    if isinstance(variable, CategoryVariable) and mapped.codes is not None:
        # With no unknown category the silo has to choose; all choices on the line fail if left as they are.
        target = variable.unknown or " | ".join(variable.known)
        line = f"{_quoted(code)} = {_quoted(target)}"
        return Problem(name, one.column, code, rows, "is not in the mapping", line, f"variables.{name}.codes")
    if fault == OUT_OF_BOUNDS and not isinstance(variable, CategoryVariable):
        words = f"is outside the codebook's bounds {variable.lower} to {variable.upper} {variable.unit}"
    elif mapped.from_dates is not None or mapped.year_of is not None:
        words = "cannot be read as a date in the formats of the mapping"
    elif mapped.rounding == "exact" and not isinstance(variable, CategoryVariable):
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
