"""`mpc-engine party serve | status`: the service, and how it stands."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mpc_engine.cli.operator import LEAST_DIGITS, print_json, told
from mpc_engine.cli.tables import say, show
from mpc_engine.errors import EngineError
from mpc_engine.party.config import load_config
from mpc_engine.party.overview import Summary

Config = Annotated[Path, typer.Option(help="This party's configuration.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

MISSING = {
    "SHUTTING_DOWN": "it is shutting down",
    "LEDGER_BROKEN": "its ledger has failed",
    "LEDGER_ROLLBACK": "peers have seen more entries of its ledger than there are: run "
    "`mpc-engine party recover`",
    "DISK_FULL": "its disk is nearly full",
    "CERT_EXPIRED": "its certificate has expired",
    "DATA": "it has no registered data that can be counted",
    "PEER_UNAVAILABLE": "not all peers are connected",
}


def add_to(commands: typer.Typer) -> None:
    """Add the commands to those of `mpc-engine party`."""
    commands.command("serve", short_help="Run this party as a service.")(serve_party)
    commands.command("status", short_help="Show how the running service stands.")(status)


def serve_party(config: Config) -> None:
    """Run this party until it is stopped; SIGHUP reads its documents again.

    The log goes where the configuration says, in lines of JSON. If the party cannot start, the reason is
    printed to a terminal, while a log names its code only; `mpc-engine party doctor` explains it.
    """
    # Imported here, for the other commands need neither metrics nor logs.
    from mpc_engine.party.serve import serve

    try:
        ended = serve(config)
    except EngineError as error:
        if sys.stderr.isatty():
            raise
        # A log keeps nothing of the message, which names files and may quote documents.
        ended = error.exit_status
    raise typer.Exit(ended)


def status(config: Config, as_json: AsJson = False) -> None:
    """Show whether the running party is ready, its peers, what runs and which requests wait for you."""
    party, _ = load_config(config)
    found = told(party, "status")
    requests = [Summary.of(each) for each in told(party, "list", all=False)["requests"]]
    waiting = [each for each in requests if each.waits]
    if as_json:
        print_json(found | {"waiting_requests": [each.as_fields() for each in waiting]})
        return
    _show_party(found)
    show(
        "Peers",
        ("peer", "line", "since (UTC)", "round trip", "clock"),
        [_peer_row(peer) for peer in found["peers"]],
        left=("peer", "line", "since (UTC)"),
    )
    for peer in found["peers"]:
        if peer.get("trouble"):
            say(f"{peer['name']}: {_printable(str(peer['trouble']))}", style="yellow")
    sessions = {0: "No session runs", 1: "One session runs"}.get(
        found["sessions"], f"{found['sessions']} sessions run"
    )
    opened = {0: "no request is open", 1: "one request is open"}.get(
        found["open"], f"{found['open']} requests are open"
    )
    say(f"{sessions}; {opened}.")
    if waiting:
        names = ", ".join(each.id[:LEAST_DIGITS] for each in waiting)
        say(f"Waiting for you: {names}. `mpc-engine party show ID` explains one.", style="bold")


def _show_party(found: Mapping[str, Any]) -> None:
    kind = "DEV party" if found["dev"] else "Party"
    say(f"{kind} {found['party']}, engine {found['engine']}, running since {_moment(found['started'])} UTC")
    if found["ready"]:
        say("It is ready.", style="bold green")
    else:
        why = "; ".join(MISSING.get(each, each) for each in found["missing"])
        say(f"It is not ready: {why}.", style="bold yellow")
    if found.get("records"):
        _show_records(found["records"])
    say(f"Its certificate ends on {str(found['not_after'])[:10]}.")


def _show_records(records: Mapping[str, Any]) -> None:
    line = f"Records: {records['words'] or 'none registered'}"
    if records["fault"]:
        say(_printable(f"{line}; they cannot be counted: {records['fault']}"), style="bold yellow")
    elif records["newer"]:
        new = "`mpc-engine data register` takes what is new"
        say(_printable(f"{line}; {', '.join(records['newer'])}: {new}."), style="yellow")
    else:
        say(f"{line}.")


def _peer_row(peer: Mapping[str, Any]) -> tuple[str, ...]:
    rtt, skew = peer.get("rtt_s"), peer.get("clock_skew_s")
    return (
        str(peer["name"]),
        "up" if peer["up"] else "down",
        _moment(str(peer.get("since", ""))),
        "–" if rtt is None else f"{rtt * 1000:.1f} ms",
        "–" if skew is None else f"{skew:+.2f} s",
    )


def _moment(time: str) -> str:
    return time[:16].replace("T", " ")


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
