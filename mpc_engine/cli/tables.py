"""Tables and paragraphs that fit the terminal they are printed on."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from mpc_engine.cli.terminal import out, show_table


def titled(title: str, heads: Sequence[str], left: Sequence[str] = ()) -> Table:
    """Return an empty table with columns of these heads, after printing its title.

    A title in the table would be wrapped to its width. Columns are for numbers, aligned to the right, but
    for those named in ``left``.
    """
    say(title, style="italic")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for head in heads:
        words = head in left
        table.add_column(Text(head), justify="left" if words else "right", no_wrap=not words, overflow="fold")
    return table


def show(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> None:
    """Print a table of texts; nothing in them is markup."""
    table = titled(title, heads, left)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    show_table(table)


def say(text: str, style: str = "") -> None:
    """Print a paragraph, wrapped at words, without markup and without blanks at the ends of its lines."""
    for line in Text(text, style=style).wrap(out, out.width):
        line.rstrip()
        out.print(line)
