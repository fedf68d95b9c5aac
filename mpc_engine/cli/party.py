"""`mpc-engine party …`: one party, on the machine it runs on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mpc_engine.cli.presentation import present
from mpc_engine.cli.terminal import PartyProgress, out
from mpc_engine.codebook import load_codebook
from mpc_engine.documents import load
from mpc_engine.errors import PublicationError
from mpc_engine.party.config import PartyConfig, load_config
from mpc_engine.party.process import run_until_stopped
from mpc_engine.party.service import Show, Usage, prepare, take_part
from mpc_engine.release.files import check_writable, write_release
from mpc_engine.transport.tls import CERTIFICATE_FILE, KEY_FILE, create_identity

commands = typer.Typer(
    help="Take part in releases as one party.", no_args_is_help=True, rich_markup_mode=None
)

Config = Annotated[Path, typer.Option(help="This party's configuration.")]


@commands.command("init", short_help="Make this party's key and certificate.")
def init(config: Config) -> None:
    """Make this party's key and certificate, and print the fingerprint that the others pin."""
    document = load(config, PartyConfig)
    folder = document.path(document.identity)
    identity = create_identity(document.name, folder)
    out.print(f"{document.name}: {identity.fingerprint}", markup=False, soft_wrap=True)
    out.print(
        f"Give {folder / CERTIFICATE_FILE} to the other parties and compare the fingerprint with them by "
        f"telephone. {KEY_FILE} beside it never leaves this machine. The certificate is valid until "
        f"{identity.certificate.not_after:%Y-%m-%d}.",
        markup=False,
    )


@commands.command("run", short_help="Take part in one release.")
def run(
    config: Config,
    query: Annotated[Path, typer.Option(help="The query, the same at all parties.")],
    out_dir: Annotated[Path | None, typer.Option("--out", help="Folder for the release's files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print release.json instead of tables.")] = False,
) -> None:
    """Take part in one release together with the other parties of the roster."""
    if out_dir is not None:
        check_writable(out_dir)
    party, _ = load_config(config)
    name, codebook = party.name, load_codebook(party.path(party.codebook))
    with PartyProgress([name]) as shown:
        show = Show(
            lambda phase: shown.phase(name, phase),
            lambda section, done, of: shown.progress(name, section.name, done, of),
        )
        release = run_until_stopped(take_part(prepare(config, query, show), show, Usage()))
    fields = release.as_fields()
    if out_dir is not None:
        try:
            write_release(release, out_dir)
        except PublicationError:
            typer.echo(json.dumps(fields, ensure_ascii=False))  # what has been paid for is not lost
            raise
    present(fields, codebook, out_dir, as_json)
