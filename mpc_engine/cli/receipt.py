"""`mpc-engine receipt verify`: what a receipt proves, checked offline, and what it does not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from mpc_engine.cli.operator import AsJson, print_json
from mpc_engine.cli.tables import say
from mpc_engine.cli.terminal import out, show_points
from mpc_engine.documents import read
from mpc_engine.errors import DocumentError, IntegrityError
from mpc_engine.identity.cards import Card, load_card
from mpc_engine.identity.trust import SUFFIX, TrustStore
from mpc_engine.party.overview import printable
from mpc_engine.party.receipt import LIMITS, Finding, check_receipt, proves

commands = typer.Typer(
    help="Receipts: what all parties signed of a release.", no_args_is_help=True, rich_markup_mode=None
)

RECEIPT_FILE, RELEASE_FILE = "receipt.json", "release.json"
_NO_CARDS = (
    "The keys are those that the receipt itself names. Whose they are it cannot show: give --trust, a folder "
    "of the parties' cards, or --card, whose fingerprints you have compared."
)


@commands.command("verify", short_help="Check a receipt's signatures and its release.")
def verify(
    receipt: Annotated[Path, typer.Argument(metavar="FILE", help="The receipt, or the folder it is in.")],
    release: Annotated[Path | None, typer.Option(help="The release to compare, or its folder.")] = None,
    trust: Annotated[Path | None, typer.Option(help="Folder of the parties' cards that you trust.")] = None,
    card: Annotated[list[Path] | None, typer.Option(help="A card that you trust beside those.")] = None,
    dev: Annotated[bool, typer.Option("--dev", help="The cards are DEV ones, of a trial.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check that every party signed the receipt, with its card's key, and that the release is its own."""
    fields = read(_inside(receipt, RECEIPT_FILE))
    beside = receipt / RELEASE_FILE
    if release is None and receipt.is_dir() and beside.is_file():
        release = beside
    compared = None if release is None else _release(_inside(release, RELEASE_FILE))
    cards = _cards(trust, card or (), dev)
    findings = check_receipt(fields, compared, cards)
    failed = [each.words for each in findings if not each.ok]
    if as_json:
        print_json(
            {
                "ok": not failed,
                "findings": [{"ok": each.ok, "words": each.words} for each in findings],
                "proves": [] if failed else list(proves(fields)),
                "does_not_prove": [*LIMITS, *([_NO_CARDS] if cards is None else [])],
            }
        )
    else:
        _show(findings, () if failed else proves(fields), cards is not None, compared is not None)
    if failed:
        raise IntegrityError(f"{receipt}: the receipt does not hold: {printable('; '.join(failed))}")


def _inside(path: Path, name: str) -> Path:
    return path / name if path.is_dir() else path


def _release(path: Path) -> dict[str, Any]:
    """Return a release document, which may be larger than those that people write."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise DocumentError(f"{path}: is not valid JSON") from None
    if not isinstance(found, dict):
        raise DocumentError(f"{path}: is not a release")
    return found


def _cards(trust: Path | None, single: Sequence[Path], dev: bool) -> dict[str, list[Card]] | None:
    """Return the cards of a folder and single ones, by party; None if none are given.

    Those that have expired count: a receipt is as old as its release.
    """
    if trust is None and not single:
        return None
    if trust is not None and not trust.is_dir():
        raise DocumentError(f"{trust}: is no folder of cards")
    stored = () if trust is None else _stored(trust, dev)
    found: dict[str, list[Card]] = {}
    for card in (*stored, *(load_card(path) for path in single)):
        found.setdefault(card.name, []).append(card)
    return found


def _stored(trust: Path, dev: bool) -> tuple[Card, ...]:
    """Return the cards of a folder. Raises DocumentError for one of the other kind, DEV or real."""
    for path in sorted(trust.glob(f"*{SUFFIX}")):
        if load_card(path).dev != dev:
            told = "is a real card: leave --dev out" if dev else "is a DEV card, of a trial: add --dev"
            raise DocumentError(f"{path}: {told}")
    return TrustStore(trust, dev=dev).stored()


def _show(findings: Sequence[Finding], proved: Sequence[str], trusted: bool, compared: bool) -> None:
    for each in findings:
        mark = Text("✓ ", style="green") if each.ok else Text("✗ ", style="bold red")
        out.print(mark + Text(printable(each.words)))
    out.print()
    if proved:
        say("What this proves", style="bold")
        show_points(proved)
    else:
        say("This receipt proves nothing: what is marked ✗ does not hold.", style="bold red")
    out.print()
    say("What it does not prove", style="bold")
    show_points([*LIMITS, *([] if trusted else [_NO_CARDS])])
    if not compared:
        say("No release was compared; give --release to see that one is the receipt's own.", style="yellow")
