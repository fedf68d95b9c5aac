"""`mpc-engine simulate`: a whole study on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mpc_engine.cli.presentation import Overwrite, check_place, present
from mpc_engine.cli.terminal import PartyProgress
from mpc_engine.codebook import load_codebook
from mpc_engine.party.process import run_until_stopped
from mpc_engine.release.files import write_published
from mpc_engine.scenario.document import load_scenario
from mpc_engine.scenario.simulate import simulate


def simulate_scenario(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="The scenario document.")],
    query: Annotated[
        Path | None, typer.Option(help="Another query than the scenario's, on the same codebook.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the release's files.")] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print release.json instead of tables.")] = False,
) -> None:
    """Run every party of a scenario as a process of its own, on loopback, with throw-away identities."""
    study = load_scenario(scenario)
    if query is not None:
        study = study.model_copy(update={"query": str(query.resolve()), "ask": ()})
    codebook = load_codebook(study.path(study.codebook))
    if out is not None:
        check_place(out, overwrite)
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
    present(result.release, codebook, out, as_json)
