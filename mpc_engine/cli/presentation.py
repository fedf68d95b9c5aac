"""A release as a person sees it: tables, an explanation and promises on a terminal, and files of them."""

from __future__ import annotations

import json
import logging
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from mpc_engine.cli import terminal
from mpc_engine.cli.tables import say
from mpc_engine.cli.terminal import show_points, show_table
from mpc_engine.codebook import Codebook
from mpc_engine.errors import DocumentError, EngineError, PublicationError
from mpc_engine.release.files import check_free, check_writable, write_published

if TYPE_CHECKING:
    from mpc_engine.result import Result
    from mpc_engine.result.layouts import Frame, Page

MOST_ROWS = 60
"""Rows of a table that are printed; all of them are in the files."""
MOST_PAGES = 24
"""Tables that are printed one after the other."""
MOST_WITHOUT_FILES = 200_000
"""Cells of a release that is shown as tables although no file keeps it."""
RELEASE_FILES = ("release.json", "cells.csv", "openings.json", "receipt.json")

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the release that the folder holds.")]
"""The option of commands whose release cannot be had again, as no party stores it."""

_WIDEST = 10_000
"""Columns of an imagined terminal on which no table is squeezed."""


def check_place(directory: Path, overwrite: bool) -> None:
    """Raise DocumentError unless a release that cannot be had again may be put into this folder."""
    check_writable(directory)
    if overwrite:
        return
    try:
        check_free(directory)
    except DocumentError as error:
        raise DocumentError(f"{error}; --overwrite replaces them") from None


def present(release: Mapping[str, Any], codebook: Codebook, directory: Path | None, as_json: bool) -> None:
    """Show a release that has just been made, and put its presentation beside its files, all or none.

    Prints the release document itself with ``as_json``, and whatever happens if no file holds it. Raises
    PublicationError for what fails: the release exists, and its ε is spent.
    """
    if as_json:
        typer.echo(json.dumps(release, indent=1, ensure_ascii=False))
    if as_json and directory is None:
        return
    size = sum(len(tally["values"]) for groups in release["groups"] for tally in groups["tallies"])
    if directory is None and size > MOST_WITHOUT_FILES:
        # Statistics of so many cells may need more memory than there is; what was paid for comes first.
        typer.echo(json.dumps(release, ensure_ascii=False))
        terminal.err.print(f"{size:,} cells: printed as a document; --out DIR makes tables of them too.")
        return
    try:
        result = read(release, codebook)
        made = {} if directory is None else result.files()
        if directory is not None:
            write_published(directory, made)
        if not as_json:
            show(result)
    except Exception as error:
        if not as_json and directory is None:
            typer.echo(json.dumps(release, ensure_ascii=False))  # what has been paid for is not lost
        if isinstance(error, EngineError) and not isinstance(error, PublicationError):
            raise PublicationError(f"the release was made, but not presented: {error}") from error
        raise
    if directory is not None and not as_json:
        terminal.out.print()
        say(f"Written to {directory}: {', '.join((*RELEASE_FILES, *made))}")


def read(release: Mapping[str, Any], codebook: Codebook) -> Result:
    """Return the result of a release document; errors as `mpc_engine.result.Result`."""
    # Imported here, for the other commands need not load the libraries of tables and pictures.
    from mpc_engine.result import Result

    quiet()
    return Result(release, codebook)


def quiet() -> None:
    """Let matplotlib keep to itself what it finds out about fonts and folders."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def show(result: Result, layout: Any = None) -> None:
    """Print a result: the tables that suit it, the notation, the explanation, and what is promised."""
    say(result.title, style="bold")
    pages = result.pages(layout)
    if pages[0].title:
        terminal.out.print()
    for page in pages[:MOST_PAGES]:
        _show_page(page)
    if len(pages) > MOST_PAGES:
        say(f"The first {MOST_PAGES} of {len(pages):,} tables; table.csv of --out DIR has the rest.")
        terminal.out.print()
    for line in result.legend():
        say(line)
    if result.legend():
        terminal.out.print()
    say(result.explain())
    terminal.out.print()
    parties = ", ".join(f"{name} ({role})" for name, role in result.parameters["parties"].items())
    show_points([*result.release["promise"], f"Parties: {parties}."])


def _show_page(page: Page) -> None:
    if page.title:
        say(page.title, style="italic")
    wide = page.frame.assign(note=list(page.notes)) if any(page.notes) else page.frame
    forms = [(wide, page.keys)]
    if page.narrow is not None:
        forms.append((page.narrow, page.narrow_keys))
    tries = []
    for form, keys in forms:
        frame, notes = _numbered(form)
        for squeeze, broken in ((False, False), (True, False), (True, True)):
            tries.append((_table(frame, keys, squeeze, broken), notes, len(frame)))
    # Where nothing fits, labels are broken and numbers are not.
    table, notes, rows = next((each for each in tries if _fits(each[0])), tries[-1])
    show_table(table)
    for line in (*notes, *page.foot):
        say(line)
    if rows > MOST_ROWS:
        say(f"The first {MOST_ROWS} of {rows:,} rows; table.csv, which --out DIR writes, has all of them.")
    if notes or page.foot or rows > MOST_ROWS:
        terminal.out.print()


def _numbered(frame: Frame) -> tuple[Frame, list[str]]:
    """Return a frame with numbers in place of its notes, and the notes; without a column if all are one."""
    if "note" not in frame:
        return frame, []
    notes = [note for note in dict.fromkeys(frame["note"].head(MOST_ROWS)) if note]
    if len(notes) == 1 and (frame["note"] == notes[0]).all():
        return frame.drop(columns="note"), [notes[0]]
    numbers = {note: f"({number})" for number, note in enumerate(notes, start=1)}
    marks = frame["note"].map(lambda note: numbers.get(note, ""))
    return frame.assign(note=marks), [f"{number} {note}" for note, number in numbers.items()]


def _table(frame: Frame, keys: int, squeeze: bool, broken: bool) -> Table:
    """Return the first rows of a frame as a table; nothing in it is markup.

    ``squeeze`` breaks heads into lines no wider than their column; ``broken`` puts intervals on a line of
    their own. Only labels are ever broken within a line, where the terminal is too narrow for them.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    rows = frame.head(MOST_ROWS)
    if broken:
        rows = rows.assign(**{name: rows[name].str.replace(" (", "\n(") for name in rows.columns[keys:]})
    for place, name in enumerate(rows.columns):
        head = str(name)
        lines = [line for cell in rows[name] for line in str(cell).split("\n")]
        if squeeze:
            widest = max([len(word) for word in head.split()] + [len(line) for line in lines])
            head = "\n".join(textwrap.wrap(head, widest))
        number = place >= keys and name != "note"
        table.add_column(
            Text(head), justify="right" if place >= keys else "left", overflow="fold", no_wrap=number
        )
    for row in rows.itertuples(index=False, name=None):
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def _fits(table: Table) -> bool:
    wide = terminal.out.options.update_width(_WIDEST)
    return Measurement.get(terminal.out, wide, table).maximum <= terminal.out.width
