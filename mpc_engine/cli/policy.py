"""`mpc-engine policy show`: what a party accepts, in plain words, its own or another's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from mpc_engine import __version__
from mpc_engine.cli.operator import AsJson, print_json, running, told
from mpc_engine.cli.tables import say
from mpc_engine.cli.terminal import out, show_table
from mpc_engine.client.desk import PartyDesk
from mpc_engine.client.profile import load_access
from mpc_engine.codebook import load_codebook
from mpc_engine.errors import DataError, EngineMismatchError
from mpc_engine.party.config import PartyConfig, load_config
from mpc_engine.party.judgement import check_codebook
from mpc_engine.party.overview import printable
from mpc_engine.party.published import policy_digest, published, summary, warnings
from mpc_engine.party.source import source_digest
from mpc_engine.silo.registration import load_registration

commands = typer.Typer(
    help="What parties accept, whatever a query asks.", no_args_is_help=True, rich_markup_mode=None
)


@commands.command("show", short_help="Show a party's policy, and what to know of it.")
def show_policy(
    config: Annotated[Path | None, typer.Option(help="This party's configuration.")] = None,
    party: Annotated[str | None, typer.Option(help="Another party's name, with --profile.")] = None,
    profile: Annotated[Path | None, typer.Option(help="An analyst's profile.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a party's policy: that of a configuration, in use or not yet, or what a party published.

    With --profile the party of the profile is asked, for its own policy or for that of --party.
    """
    if (config is None) == (profile is None):
        raise typer.BadParameter("give either --config, or --profile and perhaps --party")
    if config is not None:
        if party is not None:
            raise typer.BadParameter("--party goes with --profile")
        _show_own(config, as_json)
    elif profile is not None:
        _show_published(profile, party, as_json)


def _show_own(config: Path, as_json: bool) -> None:
    own, roster = load_config(config)
    codebook = load_codebook(own.path(own.codebook))
    policy = own.accepted()
    check_codebook(policy, codebook)
    silo = own.data is not None
    engine = {"version": __version__, "source": source_digest().hex()}
    fields = published(policy, own.name, own.dataset or "", _snapshot(own), engine, silo=silo)
    notes = warnings(fields, sum(entry.silo for entry in roster.party))
    digest = policy_digest(fields)
    if running(own) and told(own, "policy")["digest"] != digest:
        notes.insert(0, "The running party has another policy: this one holds once it is started again.")
    if as_json:
        print_json({"policy": fields, "digest": digest, "warnings": notes})
        return
    _show(fields, notes, digest, f"Policy of {own.name}, as configured")


def _show_published(profile: Path, party: str | None, as_json: bool) -> None:
    access = load_access(profile)
    name = party or access.party.name

    async def fetch() -> tuple[dict[str, Any], bool]:
        desk = PartyDesk(access)
        try:
            return await desk.policy(name)
        finally:
            await desk.close()

    fields, signed = asyncio.run(fetch())
    try:
        notes, digest = warnings(fields), policy_digest(fields)
        summary(fields)
        if fields["party"] != name:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        raise EngineMismatchError(
            f"what {name} published is no policy that this version of the engine can read"
        ) from None
    if not signed:
        notes.insert(0, f"No card that the profile trusts signed this: {name} may never have published it.")
    if as_json:
        print_json({"policy": fields, "digest": digest, "signed": signed, "warnings": notes})
        return
    how = "signed by it" if signed else "not signed by a card you trust"
    _show(fields, notes, digest, f"Policy of {name}, as published; {how}")


def _snapshot(own: PartyConfig) -> str:
    """Return the id of the registered snapshot; "" at a helper, and where none holds."""
    if own.data is None:
        return ""
    try:
        return load_registration(own.path(own.data)).snapshot_id
    except DataError:
        return ""


def _show(fields: Mapping[str, Any], notes: list[str], digest: str, title: str) -> None:
    say(title, style="bold")
    if notes:
        out.print()
        for note in notes:
            grid = Table.grid(padding=(0, 1, 0, 0))
            grid.add_row(Text("!", style="bold red"), Text(printable(note), style="red"))
            show_table(grid)
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for what, how in summary(fields):
        table.add_row(Text(what), Text(printable(how)))
    show_table(table)
    say(f"Digest, as receipts name it: {digest}")
