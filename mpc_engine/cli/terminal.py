"""What a person sees in the terminal: messages, progress, tables."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from mpc_engine.release.table import SUPPRESSED

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

MOST_ROWS = 60
"""Rows of a table that are printed; all of them are in the files."""

_WIDEST = 10_000
"""Columns of an imagined terminal on which no table is squeezed."""

PHASES = {
    "register": "checking and registering its records",
    "tabulate": "counting its registered records",
    "connect": "connecting with the other parties",
    "agree": "comparing plans",
    "reserve": "making session keys",
    "compute": "computing on shares",
    "commit": "committing",
    "open": "opening what may be shown",
    "done": "done",
}
SECTIONS = {
    "PREPARE": "joint noise",
    "INPUT": "sharing counts",
    "TEST": "small-cell test",
    "PATTERN": "opening the pattern",
    "VALUES": "opening the values",
}


def complain(message: str, next_step: str) -> None:
    """Print a failure: what happened, and what to do next."""
    err.print(Text("error: ", style="bold red") + Text(message))
    err.print(Text(next_step))


class Notes(logging.Handler):
    """Prints the engine's warnings, such as a refused caller, as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one warning."""
        err.print(Text("note: ", style="bold yellow") + Text(record.getMessage()))


class PartyProgress:
    """Shows where every party is: a live table on a terminal; elsewhere a line when all reach a phase."""

    def __init__(self, names: Sequence[str]) -> None:
        self._state = dict.fromkeys(names, "starting")
        self._reached = dict.fromkeys(names, -1)
        self._announced = -1
        self._live = Live(self._table(), console=err, transient=True, refresh_per_second=8)

    def __enter__(self) -> PartyProgress:
        if err.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if err.is_terminal:
            self._live.stop()

    def phase(self, name: str, phase: str) -> None:
        """Show that a party began a phase."""
        self._state[name] = PHASES.get(phase, phase)
        if phase in PHASES:
            self._reached[name] = list(PHASES).index(phase)
        if err.is_terminal:
            self._live.update(self._table())
            return
        # The slowest party's phase, for what some have begun is not yet where the session is.
        slowest = min(self._reached.values())
        if slowest > self._announced:
            self._announced = slowest
            err.print(f"… {list(PHASES.values())[slowest]}", markup=False)

    def progress(self, name: str, section: str, done: int, of: int) -> None:
        """Show that a party finished a block of a section."""
        self._state[name] = f"{SECTIONS.get(section, section)}: {done} of {of} blocks"
        if err.is_terminal:
            self._live.update(self._table())

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 2))
        for name, state in self._state.items():
            table.add_row(Text(name, style="bold"), Text(state))
        return table


def show_table(table: Table) -> None:
    """Print a table without the blanks that would fill its lines up on the right."""
    with out.capture() as drawn:
        out.print(table)
    for line in drawn.get().splitlines():
        out.out(line if out.is_terminal else line.rstrip(), highlight=False)


def show_release(release: Mapping[str, Any], files: str | None) -> None:
    """Print a release: its table, and what it promises."""
    title = release["query"].get("title") or release["query"]["preset"]
    out.print(Text(title, style="bold"))
    for where in release["query"].get("where", ()):
        out.print(f"only {where['variable']} {_condition(where)}", markup=False)
    cells = release["cells"]
    variables = [name for name in cells[0] if name not in ("value", "flag")] if cells else []
    table, rows = _listing(release, variables), len(cells)
    if len(variables) == 2:
        crosstab = _crosstab(release, variables)
        wide = out.options.update_width(_WIDEST)
        table = crosstab if Measurement.get(out, wide, crosstab).maximum <= out.width else table
        rows = len({cell[variables[0]] for cell in cells}) if table is crosstab else rows
    show_table(table)
    if rows > MOST_ROWS:
        rest = "table.csv has all of them" if files else "--out DIR writes all of them to table.csv"
        out.print(f"The first {MOST_ROWS} of {rows:,} rows; {rest}.", markup=False)
    hidden = sum(cell["flag"] == SUPPRESSED for cell in cells)
    noise = release["parameters"]["noise"]
    out.print(
        f"{hidden:,} of {len(cells):,} cells suppressed, marked [c]. Every value carries joint noise with "
        f"standard deviation {noise['standard_deviation']}; totals are not published.",
        markup=False,
    )
    out.print()
    parties = ", ".join(f"{party['name']} ({party['role']})" for party in release["parties"])
    show_points([*release["promise"], f"Parties: {parties}."])
    if files:
        out.print()
        out.print(f"Written to {files}: release.json, table.csv, openings.json", markup=False)


def _condition(where: Mapping[str, Any]) -> str:
    if where.get("between"):
        low, high = where["between"]
        return f"from {low} to {high}"
    return " or ".join(map(str, where["in"]))


def show_points(lines: Sequence[str]) -> None:
    """Print sentences as a list."""
    for line in lines:
        point = Table.grid(padding=(0, 1, 0, 0))
        point.add_row("•", Text(line))
        show_table(point)


def _value(cell: Mapping[str, Any]) -> str:
    return "[c]" if cell["flag"] == SUPPRESSED else f"{cell['value']:,}"


def _crosstab(release: Mapping[str, Any], variables: Sequence[str]) -> Table:
    rows, columns = variables
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(rows)
    heads = list(dict.fromkeys(cell[columns] for cell in release["cells"]))
    for head in heads:
        table.add_column(f"{columns} {escape(head)}", justify="right")
    lines: dict[str, list[str]] = {}
    for cell in release["cells"]:
        lines.setdefault(cell[rows], []).append(_value(cell))
    for label, values in list(lines.items())[:MOST_ROWS]:
        table.add_row(escape(label), *map(escape, values))
    return table


def _listing(release: Mapping[str, Any], variables: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in variables:
        table.add_column(name)
    table.add_column("value", justify="right")
    for cell in release["cells"][:MOST_ROWS]:
        table.add_row(*(escape(cell[name]) for name in variables), escape(_value(cell)))
    return table
