"""What a person sees in the terminal: messages, progress, tables."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

PHASES = {
    "register": "checking and registering its records",
    "count": "counting its registered records",
    "connect": "connecting with the other parties",
    "agree": "comparing plans",
    "reserve": "making session keys",
    "compute": "computing on shares",
    "commit": "committing",
    "open": "opening what may be shown",
    "sign": "signing the receipt",
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


def show_points(lines: Sequence[str]) -> None:
    """Print sentences as a list."""
    for line in lines:
        point = Table.grid(padding=(0, 1, 0, 0))
        point.add_row("•", Text(line))
        show_table(point)
