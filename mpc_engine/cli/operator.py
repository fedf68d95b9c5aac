"""`mpc-engine party list | show | approve | reject | withdraw | recover | backup`: what an operator does.

The commands talk to the running daemon through its control socket. `backup` reads the ledger itself, and so
does `list` when no daemon runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from mpc_engine.cli.tables import say, show
from mpc_engine.cli.terminal import out
from mpc_engine.errors import DocumentError, RequestStateError, StoppedError
from mpc_engine.ledger.charge import micro_words
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import OPEN_REQUEST
from mpc_engine.ledger.store import FILE
from mpc_engine.party.config import PartyConfig, load_config
from mpc_engine.party.control import SOCKET_NAME, ask, served
from mpc_engine.party.overview import Summary, summaries

Config = Annotated[Path, typer.Option(help="This party's configuration.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The request's id, or its first eight digits or more.")]
Reason = Annotated[str, typer.Option(help="Why, in words that the analyst and the other parties read.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

LEAST_DIGITS = 8
_RECOVER_S = 600.0
_WORDS = {
    "SUBMITTED": "submitted",
    "PARTIALLY_REVIEWED": "being reviewed",
    "REVIEWED": "reviewed",
    "APPROVED": "approved",
    "RELEASED": "released",
    "RETURNED": "returned",
    "REJECTED": "rejected",
    "WITHDRAWN": "withdrawn",
}


def add_to(commands: typer.Typer) -> None:
    """Add the commands to those of `mpc-engine party`."""
    commands.command("list", short_help="Show requests and what has become of them.")(list_requests)
    commands.command("show", short_help="Explain a request before deciding about it.")(show_request)
    commands.command("approve", short_help="Approve a request.")(approve)
    commands.command("reject", short_help="Reject a request.")(reject)
    commands.command("withdraw", short_help="Withdraw a request for an analyst of this party.")(withdraw)
    commands.command("recover", short_help="Take over debits that the peers witnessed.")(recover)
    commands.command("backup", short_help="Write a verified copy of the ledger.")(back_up)


def socket_of(config: PartyConfig) -> Path:
    """Return where a party's daemon listens for its operator."""
    return config.path(config.state) / SOCKET_NAME


def told(config: PartyConfig, command: str, timeout_s: float = 30.0, **fields: Any) -> dict[str, Any]:
    """Return the daemon's answer to a command; raises as :func:`mpc_engine.party.control.ask`."""
    return asyncio.run(ask(socket_of(config), command, fields, timeout_s))


def running(config: PartyConfig) -> bool:
    """Return whether the party's daemon runs."""
    return asyncio.run(served(socket_of(config)))


def ledger_of(config: PartyConfig) -> Ledger:
    """Return the party's ledger, opened for reading. Raises DocumentError if there is none yet."""
    folder = config.path(config.state)
    if not (folder / FILE).is_file():
        raise DocumentError(f"{folder}: holds no ledger; `mpc-engine party serve` begins one")
    return Ledger.open(folder, party=config.name, read_only=True)


def print_json(fields: object) -> None:
    """Print fields as JSON."""
    typer.echo(json.dumps(fields, indent=1, ensure_ascii=False, allow_nan=False))


def list_requests(
    config: Config,
    every: Annotated[bool, typer.Option("--all", help="Show requests that have ended, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the requests at this party: what they ask, who has decided, and which wait for you."""
    party, roster = load_config(config)
    if running(party):
        found = [Summary.of(each) for each in told(party, "list", all=every)["requests"]]
    else:
        ledger = ledger_of(party)
        try:
            found = summaries(ledger, party.name, [entry.name for entry in roster.party], every)
        finally:
            ledger.close()
        if not as_json:
            say("The party is not running; this is what its ledger holds.", style="bold yellow")
    if as_json:
        print_json({"requests": [each.as_fields() for each in found]})
        return
    if not found:
        say(
            "There are no requests." if every else "There are no open requests. --all shows those that ended."
        )
        return
    show(
        "Requests, latest last",
        ("request", "by", "for", "asks", "ε", "state", "decided"),
        [
            (
                each.id[:LEAST_DIGITS],
                each.analyst,
                each.project,
                f"{each.preset}: {each.title}",
                "0" if each.served_from else each.epsilon,
                _WORDS.get(each.state, each.state),
                _decided(each),
            )
            for each in found
        ],
        left=("request", "by", "for", "asks", "state", "decided"),
    )
    for each in found:
        if each.served_from:
            say(f"{each.id[:LEAST_DIGITS]}: served from {each.served_from}; cost: nothing.")
    waiting = [each.id[:LEAST_DIGITS] for each in found if each.waits]
    if waiting:
        say(f"Waiting for you: {', '.join(waiting)}. `mpc-engine party show ID` explains one.", style="bold")


def show_request(config: Config, id: Id, as_json: AsJson = False) -> None:
    """Explain a request: what would be opened, what hides small numbers, what it costs and what remains."""
    party, _ = load_config(config)
    answer = told(party, "show", id=_checked(id))
    if as_json:
        print_json(answer)
        return
    _show_explained(answer)


def approve(
    config: Config,
    id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Approve a request for this party, after showing what it would open and asking for confirmation."""
    party, _ = load_config(config)
    whole = _checked(id)
    if not yes:
        answer = told(party, "show", id=whole)
        request = Summary.of(answer["request"])
        whole = request.id
        if not _is_to_decide(request, party.name):
            _report(answer, "Approved already", as_json)
            return
        _show_explained(answer)
        if not typer.confirm("Approve this request?"):
            raise StoppedError("nothing was decided")
    _report(told(party, "approve", id=whole, operator=_operator()), "Approved", as_json)


def reject(config: Config, id: Id, reason: Reason, as_json: AsJson = False) -> None:
    """Reject a request for this party, which ends it everywhere."""
    party, _ = load_config(config)
    answer = told(party, "reject", id=_checked(id), reason=_text(reason), operator=_operator())
    _report(answer, "Rejected", as_json)


def withdraw(config: Config, id: Id, reason: Reason, as_json: AsJson = False) -> None:
    """Withdraw a request on behalf of an analyst whom this party enrolled."""
    party, _ = load_config(config)
    answer = told(party, "withdraw", id=_checked(id), reason=_text(reason), operator=_operator())
    _report(answer, "Withdrawn", as_json)


def recover(config: Config, as_json: AsJson = False) -> None:
    """After a restored backup: ask the peers which debits they witnessed, and take them over."""
    party, _ = load_config(config)
    answer = told(party, "recover", _RECOVER_S)
    if as_json:
        print_json(answer)
        return
    adopted = answer["adopted"]
    if adopted:
        show(
            "Debits taken over",
            ("request", "by", "ε", "witness"),
            [
                (
                    str(each["request"])[:LEAST_DIGITS],
                    str(each["analyst"]),
                    micro_words(int(each["micro_epsilon"])),
                    str(each["peer"]),
                )
                for each in adopted
            ],
            left=("by", "witness"),
        )
    missing = {0: "No debit was", 1: "One debit was"}.get(len(adopted), f"{len(adopted)} debits were")
    say(f"{missing} missing from this party's ledger. Answered: {', '.join(answer['peers']) or 'nobody'}.")
    if answer.get("missing"):
        say(
            f"Not reached: {', '.join(answer['missing'])}. Run this again when they are.",
            style="bold yellow",
        )
    say(
        "Requests that were handed in after the backup are not in this party's list: have them asked again. "
        "What was released then is served at no cost, as long as it is the same question on the same "
        "registered records."
    )


def back_up(
    config: Config,
    out_file: Annotated[Path, typer.Option("--out", help="File to write; it must not exist yet.")],
    as_json: AsJson = False,
) -> None:
    """Verify the ledger and write a copy of it to a new file; the party may run meanwhile.

    The copy holds no keys: neither the party's own nor those of shares that are not open yet.
    """
    party, _ = load_config(config)
    ledger = ledger_of(party)
    try:
        if os.path.lexists(out_file):
            raise DocumentError(f"{out_file}: exists; a backup is a new file, never written over another")
        if not out_file.parent.is_dir():
            raise DocumentError(f"{out_file.parent}: there is no such folder")
        if not os.access(out_file.parent, os.W_OK | os.X_OK):
            raise DocumentError(f"{out_file.parent}: this user may not write there")
        head = ledger.back_up(out_file)
    finally:
        ledger.close()
    if as_json:
        print_json({"file": str(out_file), "entries": head.seq, "head": head.hash.hex()})
        return
    say(f"{out_file}: a verified copy of the ledger, {head.seq:,} entries.", style="bold")
    say(f"The last one's hash is {head.hash.hex()}.")


# --- inside ---------------------------------------------------------------------------------------


def show_lines(lines: Sequence[Sequence[str]]) -> None:
    """Print an explanation: headings, paragraphs and warnings."""
    for style, text in lines:
        if style == "head":
            out.print()
            say(text, style="bold")
        elif style == "warn":
            _indented(text, "! ", "yellow")
        else:
            _indented(text, "  ", "")


def _indented(text: str, margin: str, style: str) -> None:
    for index, line in enumerate(Text(text, style=style).wrap(out, max(20, out.width - len(margin)))):
        line.rstrip()
        out.print(Text(margin if index == 0 else " " * len(margin), style=style) + line)


def _show_explained(answer: Mapping[str, Any]) -> None:
    request = Summary.of(answer["request"])
    say(f"Request {request.id}", style="bold")
    say(f"{_state(request)}; {_decided(request)}".capitalize() + ".")
    show_lines(answer["lines"])
    out.print()


def _report(answer: Mapping[str, Any], done: str, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    request = Summary.of(answer["request"])
    say(f"{done}: request {request.id[:LEAST_DIGITS]}. It is {_state(request)}; {_decided(request)}.")


def _is_to_decide(request: Summary, party: str) -> bool:
    """Tell whether a party has still to approve a request. Raises RequestStateError if it no longer can."""
    if request.state not in OPEN_REQUEST:
        raise RequestStateError(f"the request is {_state(request)}; there is nothing to decide any more")
    decision = request.decisions.get(party)
    if decision in ("rejected", "returned"):
        raise RequestStateError(f"{party} has {decision} the request, which ends it")
    return decision != "approved"


def _state(request: Summary) -> str:
    words = _WORDS.get(request.state, request.state)
    return f"{words} ({request.reason})" if request.reason else words


def _decided(request: Summary) -> str:
    by: dict[str, list[str]] = {}
    for party, decision in request.decisions.items():
        by.setdefault(decision, []).append(party)
    order = ("approved", "rejected", "returned", *(["waiting"] if request.state in OPEN_REQUEST else []))
    return "; ".join(f"{each} {', '.join(by[each])}" for each in order if each in by) or "nobody has"


def _checked(id: str) -> str:
    lowered = id.lower()
    if not LEAST_DIGITS <= len(lowered) <= 32 or set(lowered) - set("0123456789abcdef"):
        raise DocumentError(
            f"{id!r} is not the id of a request: give its {LEAST_DIGITS} first hexadecimal digits or more"
        )
    return lowered


def _text(reason: str) -> str:
    if not reason.strip() or not reason.isprintable() or len(reason) > 500:
        raise DocumentError("--reason: must be one line of up to 500 characters, and not empty")
    return reason.strip()


def _operator() -> str:
    """Return the name of the user who runs this, by the machine and not by what the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
