"""`mpc-engine plan` and `mpc-engine noise-table`: what would happen, before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from mpc_engine.cli.terminal import SECTIONS, out, show_points, show_table
from mpc_engine.codebook import load_codebook
from mpc_engine.dp import (
    NoiseTable,
    expected_false_cells,
    parse_epsilon,
    publication_probability,
    table_for_counts,
)
from mpc_engine.dp.rationals import ceil_log2
from mpc_engine.errors import DocumentError
from mpc_engine.party.config import load_config
from mpc_engine.party.proposal import propose
from mpc_engine.release.plan import Member, Plan
from mpc_engine.release.table import promise
from mpc_engine.statistics.presets import load_query


def plan(
    query: Annotated[Path, typer.Argument(metavar="QUERY", help="The query.")],
    codebook: Annotated[
        Path | None, typer.Option(help="The codebook; by default codebook.toml beside the query.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A party's configuration, for its codebook and roster.")
    ] = None,
    parties: Annotated[
        int, typer.Option(help="Computing parties, without a configuration: two silos and helpers.")
    ] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Print what a query would open, spend and send, without touching records or other parties."""
    if config is not None:
        party, roster = load_config(config)
        codebook = codebook or party.path(party.codebook)
        members, _ = roster.read(party.path(party.roster).parent)
    else:
        members = tuple(
            Member(f"party-{number}", True, number <= 2, "unknown", 1 << 24)
            for number in range(1, parties + 1)
        )
    book = load_codebook(codebook or query.parent / "codebook.toml")
    made = propose(load_query(query), book, members).plan()
    if as_json:
        fields = made.as_fields() | {
            "openings": made.openings(),
            "cells": made.grid.cells,
            "rounds": made.rounds,
            "rounds_online": made.rounds_online,
            "payload_bytes": made.sent_bytes,
        }
        typer.echo(json.dumps(fields, indent=1, ensure_ascii=False))
        return
    _show_plan(made)


def _show_plan(made: Plan) -> None:
    guarantee = made.guarantee
    cells = made.grid.cells
    axes = (
        " × ".join(f"{axis.variable} ({len(axis.categories)})" for axis in made.grid.axes) or "no variables"
    )
    out.print(Text(f"{cells:,} cell{'' if cells == 1 else 's'}: {axes}", style="bold"))
    table = _table("What will be opened")
    for head in ("when", "what", "values"):
        table.add_column(head, justify="right" if head == "values" else "left")
    for opening in made.openings():
        table.add_row(SECTIONS[str(opening["section"])], str(opening["what"]), f"{opening['values']:,}")
    show_table(table)
    costs = _table("What it takes")
    for head in ("part", "rounds", "bytes, all parties"):
        costs.add_column(head, justify="left" if head == "part" else "right")
    for section, cost in made.costs.items():
        costs.add_row(SECTIONS[section.name], str(cost.rounds), f"{cost.sent_bytes:,}")
    costs.add_row("together", str(made.rounds), f"{made.sent_bytes:,}")
    show_table(costs)
    out.print(
        f"{made.rounds_online} of the rounds follow the sharing of counts; four control rounds come on top."
    )
    chances = _table("Chance in % that a cell is shown, by its true count")
    middle = guarantee.least_shown or guarantee.threshold
    counts = range(max(0, middle - 5), middle + 6)
    for count in counts:
        chances.add_column(str(count), justify="right")
    shown = [publication_probability(made.table, guarantee, count) for count in counts]
    chances.add_row(*(f"{100 * float(p):.1f}" for p in shown))
    show_table(chances)
    false_cells = float(expected_false_cells(made.table, guarantee, made.grid.cells))
    out.print(f"If every cell were empty, {false_cells:.2f} of {made.grid.cells:,} would show noise alone.")
    out.print()
    show_points(promise(made))


def noise_table(
    epsilon: Annotated[str, typer.Option(help="ε of a release, a decimal number.")],
    cap: Annotated[int, typer.Option(help="Most records of one patient.")] = 1,
    mantissa_bits: Annotated[int | None, typer.Option(help="Precision of the coins.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Print the noise of a release: its coins, probabilities and bounds, verified in exact arithmetic."""
    try:
        made = table_for_counts(parse_epsilon(epsilon), cap, mantissa_bits)
    except DocumentError as error:
        raise typer.BadParameter(str(error)) from None
    made.verify()
    if as_json:
        typer.echo(json.dumps(made.as_fields() | {"digest": made.digest()}, indent=1))
        return
    out.print(f"X = sign · nonzero · (1 + G), |X| ≤ {made.limit}; sign is a fair coin")
    coins = _table("Coins")
    for head in ("coin", "probability", "about"):
        coins.add_column(head, justify="left" if head == "coin" else "right")
    named = [(f"bit {i} of G", coin) for i, coin in enumerate(made.magnitude)] + [("nonzero", made.nonzero)]
    for name, coin in named:
        coins.add_row(name, f"{coin.numerator} / 2^{coin.bits}", f"{float(coin.probability):.6g}")
    show_table(coins)
    _show_probabilities(made)
    out.print(f"ε per unit           {made.epsilon}")
    out.print(
        f"largest ratio        {float(made.max_ratio()):.9f} ≤ e^ε, verified in exact rational arithmetic"
    )
    out.print(f"δ of a release       ≤ 2^{ceil_log2(made.truncation_delta)}, from truncation")
    out.print(f"standard deviation   {float(made.variance) ** 0.5:.6f}")
    out.print(f"random bits per cell {made.random_bits}")
    out.print(f"digest               {made.digest()}", soft_wrap=True)


def _table(title: str) -> Table:
    """Return an empty table, after printing its title: a title in the table would be wrapped to its width."""
    out.print(Text(title, style="italic"))
    return Table(box=box.SIMPLE_HEAD)


def _show_probabilities(made: NoiseTable) -> None:
    table = _table("Probabilities; the table is symmetric")
    table.add_column("x", justify="right")
    table.add_column("P(X = x)", justify="right")
    table.add_column("P(X ≥ x)", justify="right")
    for x in range(min(made.limit, 12) + 1):
        table.add_row(str(x), f"{float(made.probability(x)):.9f}", f"{float(made.tail(x)):.9f}")
    if made.limit > 12:
        x = made.limit
        table.add_row(str(x), f"{float(made.probability(x)):.3e}", f"{float(made.tail(x)):.3e}")
    show_table(table)
