"""`mpc-engine result`: a stored release once more, without any party."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mpc_engine.cli.presentation import quiet, show
from mpc_engine.cli.tables import say
from mpc_engine.codebook import load_codebook
from mpc_engine.errors import DocumentError


class LayoutName(StrEnum):
    """Layouts that can be asked for."""

    LIFE_TABLE = "life-table"
    SUMMARY = "summary"
    CROSSTAB = "crosstab"
    ESTIMATES = "estimates"


def show_result(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A release's folder or release.json.")],
    codebook: Annotated[Path, typer.Option(help="The codebook with which it was made.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the statistics as CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the statistics as JSON.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw a picture: png, pdf or svg.")] = None,
    layout: Annotated[LayoutName | None, typer.Option(help="Show this layout.")] = None,
) -> None:
    """Show the result of a stored release: tables by default, or CSV, JSON or a picture."""
    if as_csv and as_json:
        raise DocumentError("--csv and --json exclude each other")
    # Imported here, for the other commands need not load the libraries of tables and pictures.
    from mpc_engine.result import Result

    quiet()
    result = Result.load(directory, load_codebook(codebook))
    if plot is not None:
        result.plot(plot)
    if as_csv:
        typer.echo(result.to_csv(), nl=False)
    elif as_json:
        typer.echo(result.to_json(), nl=False)
    elif plot is None or layout is not None:
        show(result, None if layout is None else layout.value)
    else:
        say(f"Written to {plot}")
