"""`mpc-engine simulate`: a whole study on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mpc_engine.cli.terminal import PartyProgress, show_release
from mpc_engine.party.process import run_until_stopped
from mpc_engine.release.files import check_writable, write_published
from mpc_engine.scenario.document import load_scenario
from mpc_engine.scenario.simulate import simulate


def simulate_scenario(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="The scenario document.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for release.json, table.csv and openings.json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print release.json instead of a table.")] = False,
) -> None:
    """Run every party of a scenario as a process of its own, on loopback, with throw-away identities."""
    study = load_scenario(scenario)
    if out is not None:
        check_writable(out)
    with PartyProgress([party.name for party in study.ordered]) as shown:

        def on_event(party: str, event: dict[str, Any]) -> None:
            match event["event"]:
                case "phase":
                    shown.phase(party, event["name"])
                case "progress":
                    shown.progress(party, event["section"], event["done"], event["of"])
                case "error":
                    shown.phase(party, "stopped")
                case other:
                    shown.phase(party, other)

        result = run_until_stopped(simulate(study, on_event))
    if out is not None:
        write_published(out, result.files)
    if as_json:
        typer.echo(result.files["release.json"], nl=False)
    else:
        show_release(result.release, None if out is None else str(out))
