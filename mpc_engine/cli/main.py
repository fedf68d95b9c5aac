"""The commands of `mpc-engine`, and what happens when one fails."""

from __future__ import annotations

import logging
import sys
from typing import NoReturn

import typer

from mpc_engine import __version__
from mpc_engine.cli import (
    budget,
    data,
    dev,
    dummy,
    noise,
    operator,
    party,
    plan,
    policy,
    query,
    receipt,
    result,
    scenario,
    simulate,
    trust,
)
from mpc_engine.cli.terminal import Notes, complain
from mpc_engine.errors import EngineError
from mpc_engine.party.process import harden, stop_on_signals, unexpected

cli = typer.Typer(
    name="mpc-engine",
    help="Joint registry statistics under secret sharing: one suppressed, noised table from many silos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cli.command("simulate", short_help="Run a whole study on this machine.")(simulate.simulate_scenario)
cli.command("plan", short_help="Show what a query would open and spend.")(plan.plan)
cli.command("noise-table", short_help="Show the noise of a release and its bounds.")(noise.noise_table)
cli.command("dummy", short_help="Make up records that fit a codebook.")(dummy.dummy)
cli.command("result", short_help="Show a stored release again.")(result.show_result)
cli.add_typer(party.commands, name="party")
cli.add_typer(data.commands, name="data")
cli.add_typer(trust.analyst_commands, name="analyst")
operator.add_to(party.commands)
cli.add_typer(budget.budget, name="budget")
cli.add_typer(budget.audit, name="audit")
cli.add_typer(policy.commands, name="policy")
cli.add_typer(receipt.commands, name="receipt")
cli.add_typer(query.commands, name="query")
cli.add_typer(scenario.commands, name="scenario")
cli.add_typer(dev.commands, name="dev")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@cli.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Joint registry statistics under secret sharing: one suppressed, noised table from many silos."""


def app() -> None:
    """Run a command and exit with its status: 0, or that of the failure as listed in docs/errors.md."""
    harden()
    stop_on_signals()
    logging.getLogger("mpc_engine").addHandler(Notes(logging.WARNING))
    try:
        cli(prog_name="mpc-engine")
    except EngineError as error:
        _fail(error)
    except Exception as error:
        _fail(unexpected(error))


def _fail(failure: EngineError) -> NoReturn:
    complain(str(failure), failure.next_step)
    sys.exit(failure.exit_status)


if __name__ == "__main__":
    app()
