"""`mpc-engine budget show` and `mpc-engine audit verify | export`: what a party's ledger holds.

They read the ledger beside the daemon, which may run or not.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mpc_engine.cli.operator import LEAST_DIGITS, AsJson, Config, ledger_of, print_json, running, told
from mpc_engine.cli.tables import say, show
from mpc_engine.errors import DocumentError
from mpc_engine.identity import load_card
from mpc_engine.ledger.audit import export as export_lines
from mpc_engine.ledger.audit import verify_export
from mpc_engine.ledger.charge import delta_words, micro_words
from mpc_engine.party.account import standing_limits
from mpc_engine.party.config import PartyConfig, load_config
from mpc_engine.party.overview import budget_fields, printable

budget = typer.Typer(
    help="What releases have spent at this party.", no_args_is_help=True, rich_markup_mode=None
)
audit = typer.Typer(
    help="The chain of everything this party's ledger did.", no_args_is_help=True, rich_markup_mode=None
)

_KINDS = {"dataset": "data set", "project": "project", "analyst": "analyst"}


@budget.command("show", short_help="Show each budget and what it was spent on.")
def show_budget(config: Config, as_json: AsJson = False) -> None:
    """Show what is spent, held and left of each budget, and every release that took part of it."""
    party, _ = load_config(config)
    found = told(party, "budget") if running(party) else _read(party)
    if as_json:
        print_json(found)
        return
    _show_scopes(found["scopes"])
    if not found["rows"]:
        say("Nothing has been spent.")
        return
    show(
        "Sessions, latest last",
        ("day", "request", "by", "query", "ε", "what became of it", "decided"),
        [
            (
                str(row["time"])[:10],
                str(row["request"])[:LEAST_DIGITS],
                str(row["analyst"]),
                str(row["query"]) or "(the request is not in this ledger)",
                micro_words(int(row["micro_epsilon"])),
                _became(str(row["state"])),
                str(row["decided"]),
            )
            for row in found["rows"]
        ],
        left=("day", "request", "by", "query", "what became of it", "decided"),
    )
    if any(row["state"] == "spent, not released" for row in found["rows"]):
        say(
            "Spent, not released: this party had committed when the session ended or was lost, so something "
            "may have been opened. A session under way is shown so for a moment, too."
        )


def _read(party: PartyConfig) -> dict[str, Any]:
    """Return the answer that the daemon would give, from the ledger and the configuration."""
    ledger = ledger_of(party)
    try:
        terms = {analyst.name: analyst.terms for analyst in party.store().analysts()}
        limits = standing_limits(party.accepted(), party.dataset or "", terms, ledger.spendings())
        return budget_fields(ledger, party.name, limits)
    finally:
        ledger.close()


def _show_scopes(scopes: list[Mapping[str, Any]]) -> None:
    limited = any(scope["limit"]["delta"] is not None for scope in scopes)
    heads = ["budget", "ε spent", "held", "left", "limit", "δ spent", *(["δ left"] if limited else [])]
    rows = []
    for scope in scopes:
        row = [
            f"{_KINDS.get(str(scope['kind']), scope['kind'])} {scope['name']}".rstrip(),
            *(_epsilon(scope[part]) for part in ("spent", "held", "remaining", "limit")),
            _delta(scope["spent"]),
        ]
        rows.append([*row, *([_delta(scope["remaining"])] if limited else [])])
    show("Budgets: ε and δ of all releases", heads, rows, left=("budget",))


def _epsilon(amount: Mapping[str, Any]) -> str:
    micro = amount["micro_epsilon"]
    return "no limit" if micro is None else micro_words(int(micro))


def _delta(amount: Mapping[str, Any]) -> str:
    delta = amount["delta"]
    return "no limit" if delta is None else delta_words(int(delta)).removeprefix("= ")


def _became(state: str) -> str:
    return {"released": "given back", "adopted": "spent, taken over"}.get(state, state)


@audit.command("verify", short_help="Verify the ledger's chain, or an export of one.")
def verify(
    config: Annotated[
        Path | None, typer.Option(help="This party's configuration: verify its ledger.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="An export to verify instead.")] = None,
    card: Annotated[Path | None, typer.Option(help="The card of the party that exported it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Verify that no entry of a ledger was changed or taken out, and that its tables agree with them."""
    if (config is None) == (file is None) or (file is None) != (card is None):
        raise DocumentError("name this party's --config, or an export's --file and the --card of its party")
    if file is not None and card is not None:
        _verify_export(file, card, as_json)
        return
    party, _ = load_config(config or "")
    ledger = ledger_of(party)
    try:
        head = ledger.head()  # opening has verified all of it
    finally:
        ledger.close()
    if as_json:
        print_json({"entries": head.seq, "head": head.hash.hex()})
        return
    say(
        f"{head.seq:,} entries verify, and all budgets, sessions and requests follow from them.", style="bold"
    )
    say(f"The last one's hash is {head.hash.hex()}.")
    say(
        "So no entry was changed or taken out. That the whole was not put back to an earlier day the other "
        "parties know: each remembers the last entry that it saw."
    )


def _verify_export(path: Path, card_path: Path, as_json: bool) -> None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DocumentError(f"{path}: cannot be read as text") from None
    card = load_card(card_path)
    shown = verify_export(lines, card.public_key)
    if shown.party != card.name:
        raise DocumentError(f"{path}: is an export of {printable(shown.party)}, the card is of {card.name}")
    if as_json:
        print_json({"party": shown.party, "entries": len(shown.entries), "head": shown.head.hash.hex()})
        return
    say(
        f"{len(shown.entries):,} entries of {shown.party}, up to number {shown.head.seq:,}, follow each "
        f"other, and {shown.party} signed for them on {shown.exported}.",
        style="bold",
    )
    if not shown.complete:
        say(f"What came before entry {shown.since.seq + 1:,} is not in it.")


@audit.command("export", short_help="Write the ledger's chain to a file.")
def export(
    config: Config,
    out_file: Annotated[Path, typer.Option("--out", help="File to write, one entry of JSON on each line.")],
    since: Annotated[int, typer.Option(min=0, help="Only entries after this number.")] = 0,
) -> None:
    """Write the entries of the ledger's chain to a file, signed, for an auditor or another system."""
    party, _ = load_config(config)
    ledger = ledger_of(party)
    try:
        lines = list(export_lines(ledger, party.own().signing, since))
    finally:
        ledger.close()
    _write(out_file, lines)
    count = len(lines) - 2
    say(f"{count:,} entr{'y' if count == 1 else 'ies'} after number {since:,}, signed: {out_file}")


def _write(path: Path, lines: Sequence[str]) -> None:
    """Write the file, whole or not at all, for its owner only."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DocumentError(f"{path}: cannot be written ({error.strerror})") from None
