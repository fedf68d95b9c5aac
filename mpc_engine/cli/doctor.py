"""`mpc-engine party doctor`: what keeps this party from working, and what to do about it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from mpc_engine.cli.operator import print_json
from mpc_engine.cli.tables import say
from mpc_engine.cli.terminal import err, show_table
from mpc_engine.party.checkup import HERE, Finding, examine

FAILED = 1
"""Exit status if a step failed; the failures themselves may be of many kinds."""
_MARKS = {"ok": ("ok", "green"), "warning": ("note", "bold yellow"), "failed": ("FAILED", "bold red")}


def add_to(commands: typer.Typer) -> None:
    """Add the command to those of `mpc-engine party`."""
    commands.command("doctor", short_help="Find what keeps this party from working.")(doctor)


def doctor(
    config: Annotated[Path, typer.Option(help="This party's configuration.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check documents, keys, disk, certificates, data, ledger and budget, then dial every peer.

    Nothing is changed. Exits with 1 if a step failed.
    """
    with err.status("looking"):
        found = asyncio.run(examine(config, lambda finding: None))
    failed = [each for each in found if each.verdict == "failed"]
    if as_json:
        print_json({"healthy": not failed, "findings": [each.as_fields() for each in found]})
    else:
        _show(found)
        warnings = sum(each.verdict == "warning" for each in found)
        say(
            f"{len(found)} steps: {_count(len(failed), 'failed', 'none failed')}, "
            f"{_count(warnings, 'with a note', 'none with a note')}.",
            style="bold",
        )
    if failed:
        raise typer.Exit(FAILED)


def _count(number: int, words: str, none: str) -> str:
    return f"{number} {words}" if number else none


def _show(found: list[Finding]) -> None:
    places = dict.fromkeys(each.place for each in found)
    for place in places:
        say("This party" if place == HERE else f"The peer {place}", style="bold")
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for each in found:
            if each.place != place:
                continue
            mark, style = _MARKS[each.verdict]
            table.add_row(Text(mark, style=style), Text(each.step.name), Text(each.step.words))
            if each.step.advice:
                table.add_row("", "", Text(f"→ {each.step.advice}", style="italic"))
        show_table(table)
