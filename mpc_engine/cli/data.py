"""`mpc-engine data …`: a silo's records. What these commands print is for this machine only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpc_engine.cli.terminal import err, out
from mpc_engine.documents import load
from mpc_engine.errors import DataError, DocumentError, EngineError
from mpc_engine.party.config import PartyConfig
from mpc_engine.silo.registration import Registration, newer, read_registration

commands = typer.Typer(
    help="Check and register a silo's records.", no_args_is_help=True, rich_markup_mode=None
)

ConfigOption = Annotated[Path | None, typer.Option("--config", help="This party's configuration.")]
MappingOption = Annotated[
    Path | None, typer.Option("--mapping", help="The mapping, without a configuration.")
]


@commands.command("check", short_help="Check every row; changes nothing.")
def check(config: ConfigOption = None, mapping: MappingOption = None) -> None:
    """Check every row against mapping and codebook, and say what does not fit."""
    # Imported here, for the other commands need not load the table libraries.
    from mpc_engine.silo.mapping import load_mapping
    from mpc_engine.silo.register import check as check_rows

    document, codebook = load_mapping(_mapping(config, mapping))
    with err.status("checking every row"):
        report = check_rows(document, codebook)
    out.print(report.render(), markup=False, soft_wrap=True)
    if config is not None:
        _tell_age(load(config, PartyConfig))
    if report.problems:
        raise DataError("the data cannot be registered until each of these problems is mended")


@commands.command("register", short_help="Check every row and freeze what releases count.")
def register(
    config: ConfigOption = None,
    mapping: MappingOption = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder for the snapshot, without a configuration.")
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Register a source without any row.")
    ] = False,
) -> None:
    """Check every row and, if all fit, freeze them as the snapshot that sessions count.

    The snapshot before it is replaced.
    """
    from mpc_engine.silo.register import register as register_rows

    if config is not None:
        document = load(config, PartyConfig)
        if document.data is None:
            raise DocumentError(f"{config}: names no `data`; a helper registers none")
        state = document.path(document.data)
    if state is None:
        raise DocumentError("say where the snapshot goes: --config, or --state together with --mapping")
    source = _mapping(config, mapping)
    before = _registered(state)
    with err.status("checking and registering every row"):
        registered = register_rows(source, state, _note, refuse_empty=not allow_empty)
    out.print(f"registered as snapshot {registered.snapshot_id}", markup=False)
    rows = f"{registered.rows:,} {'row' if registered.rows == 1 else 'rows'} registered"
    if before is None:
        out.print(rows)
        return
    out.print(f"{rows}, {before.rows:,} before")
    if 5 * registered.rows < 4 * before.rows:
        _note(
            f"there were {before.rows:,} rows before and are {registered.rows:,} now: if that is not meant, "
            "put the source right and register again"
        )


def _note(words: str) -> None:
    err.print(f"note: {words}", markup=False)


def _registered(state: Path) -> Registration | None:
    """Return the registration in a folder, None if there is none or it cannot be read."""
    try:
        return read_registration(state)
    except EngineError:
        return None


def _tell_age(config: PartyConfig) -> None:
    """Note that what is registered is older than its source or mapping."""
    registered = None if config.data is None else _registered(config.path(config.data))
    if registered is not None and (changed := newer(registered)):
        said = ", ".join(each.words for each in changed)
        _note(f"{registered.words}; {said}: `mpc-engine data register` takes what is new")


def _mapping(config: Path | None, mapping: Path | None) -> Path:
    if (config is None) == (mapping is None):
        raise DocumentError("name either --config or --mapping")
    if mapping is not None:
        return mapping
    if config is None:
        raise DocumentError("name either --config or --mapping")
    document = load(config, PartyConfig)
    if document.mapping is None:
        raise DocumentError(f"{config}: names no `mapping`; a helper has none")
    return document.path(document.mapping)
