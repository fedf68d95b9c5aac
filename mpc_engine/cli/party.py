"""`mpc-engine party …`: one party, on the machine it runs on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mpc_engine.cli import doctor, identity, serve, trust
from mpc_engine.cli.presentation import Overwrite, check_place, present
from mpc_engine.cli.terminal import PartyProgress
from mpc_engine.codebook import load_codebook
from mpc_engine.errors import DocumentError, PublicationError
from mpc_engine.party.config import load_config
from mpc_engine.party.process import run_until_stopped
from mpc_engine.party.service import Show, Usage, prepare, take_part
from mpc_engine.release.files import write_release

commands = typer.Typer(
    help="Take part in releases as one party.", no_args_is_help=True, rich_markup_mode=None
)

Config = Annotated[Path, typer.Option(help="This party's configuration.")]


commands.command("init", short_help="Make this party's keys and card.")(identity.init)
commands.command("card", short_help="Print this party's card.")(identity.card)
commands.add_typer(trust.trust_commands, name="trust")
commands.command("roster", short_help="Show all parties and the roster's digest.")(identity.roster)
commands.command("rotate", short_help="Change this party's keys.")(identity.rotate_keys)
commands.command("revoke", short_help="Trust a card no more.")(identity.revoke)
commands.add_typer(trust.enrolment_commands, name="analyst")
serve.add_to(commands)
doctor.add_to(commands)


@commands.command("run", short_help="Take part in one release, in a trial.")
def run(
    config: Config,
    query: Annotated[Path, typer.Option(help="The query, the same at all parties.")],
    out_dir: Annotated[Path | None, typer.Option("--out", help="Folder for the release's files.")] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print release.json instead of tables.")] = False,
) -> None:
    """Take part in one release together with the other parties of the roster, all started by hand.

    For trials with DEV identities only: it keeps no ledger, so nothing adds up what is spent.
    """
    if out_dir is not None:
        check_place(out_dir, overwrite)
    party, _ = load_config(config)
    if not party.dev:
        raise DocumentError(
            f"{config}: `party run` keeps no ledger and is for trials, with `dev = true`; "
            "`mpc-engine party serve` answers requests and keeps account of what they spend"
        )
    name, codebook = party.name, load_codebook(party.path(party.codebook))
    with PartyProgress([name]) as shown:
        show = Show(
            lambda phase: shown.phase(name, phase),
            lambda section, done, of: shown.progress(name, section.name, done, of),
        )
        finished = run_until_stopped(take_part(prepare(config, query, show), show, Usage()))
    fields = finished.release.as_fields()
    if out_dir is not None:
        try:
            write_release(finished.release, finished.receipt, out_dir)
        except PublicationError:
            typer.echo(json.dumps(fields, ensure_ascii=False))  # what has been paid for is not lost
            raise
    present(fields, codebook, out_dir, as_json)
