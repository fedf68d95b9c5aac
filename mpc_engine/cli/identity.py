"""`mpc-engine party init | card | roster | rotate | revoke`: this party's keys and the roster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mpc_engine.cli.tables import say, show
from mpc_engine.cli.terminal import err
from mpc_engine.documents import load
from mpc_engine.errors import DocumentError
from mpc_engine.identity import (
    CARD_FILE,
    Card,
    Identity,
    TrustStore,
    activate,
    create_identity,
    expiry_warning,
    finish,
    load_identity,
    rotate,
    update_card,
    utc_now,
)
from mpc_engine.identity.certificates import SIGNING_FILE
from mpc_engine.identity.folder import NEXT, PREVIOUS
from mpc_engine.identity.words import words
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import PUBLISHING
from mpc_engine.ledger.store import FILE as LEDGER_FILE
from mpc_engine.party.config import PartyConfig, load_config
from mpc_engine.party.roster import Directory, Roster

ConfigOption = Annotated[Path | None, typer.Option("--config", help="This party's configuration.")]
IdentityOption = Annotated[
    Path | None,
    typer.Option("--identity", help="Folder of keys, without a configuration.  [default: identity]"),
]
TrustOption = Annotated[
    Path | None, typer.Option("--trust", help="Folder of cards, without a configuration.  [default: trust]")
]
DevOption = Annotated[bool, typer.Option("--dev", help="For trials: DEV cards instead of real ones.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
AddressOption = Annotated[
    str | None, typer.Option(help="Where the other parties reach this one.", metavar="HOST:PORT")
]
NoInboundOption = Annotated[
    bool, typer.Option("--no-inbound", help="Nobody can connect to this party; it connects to the others.")
]


# --- what several commands need ---------------------------------------------------------------------


def identity_folder(config: Path | None, identity: Path | None) -> Path:
    """Return the folder of keys that the options name."""
    if config is None:
        return identity or Path("identity")
    if identity is not None:
        raise DocumentError("name either --config or --identity: the configuration names the folder")
    document = load(config, PartyConfig)
    return document.path(document.identity)


def trust_store(config: Path | None, trust: Path | None, dev: bool) -> TrustStore:
    """Return the store of cards that the options name."""
    if config is None:
        return TrustStore(trust or Path("trust"), dev=dev)
    if trust is not None or dev:
        raise DocumentError("name either --config, or --trust and --dev: the configuration states both")
    return load(config, PartyConfig).store()


def tell_when(config: Path | None) -> None:
    """Say when a running service takes on a change of the cards, where a configuration names the service."""
    if config is not None:
        unit = f"mpc-engine@{load(config, PartyConfig).name}"
        say(f"In force at the next start or reload of the service (`systemctl reload {unit}`).")


def describe(card: Card) -> None:
    """Print what an operator compares: whose card it is, its fingerprint and its words."""
    kind = "DEV " if card.dev else ""
    where = card.address or ("accepts no connections" if card.role == "party" else "")
    end = f"valid until {card.pinned.not_after:%Y-%m-%d}"
    say(f"{kind}{card.role} {card.name}: " + ", ".join(part for part in (where, end) if part))
    say(card.fingerprint)
    say_words(card.words)


def say_words(spoken: tuple[str, ...]) -> None:
    """Print words in lines of six."""
    for start in range(0, len(spoken), 6):
        say("  " + " ".join(spoken[start : start + 6]))


def warn_of_expiry(card: Card) -> None:
    """Print a note if a card's certificate ends soon."""
    warning = expiry_warning(card, utc_now())
    if warning is not None:
        err.print(f"note: {warning.message}", markup=False)


def short(fingerprint: str) -> str:
    """Return the last 8 digits of a fingerprint, those that operators type."""
    return "…" + fingerprint[-8:]


# --- commands ---------------------------------------------------------------------------------------


def init(
    config: ConfigOption = None,
    name: Annotated[str | None, typer.Option(help="This party's name on the roster.")] = None,
    address: AddressOption = None,
    no_inbound: NoInboundOption = False,
    dev: DevOption = False,
    identity: IdentityOption = None,
) -> None:
    """Make this party's keys and its card, and print the fingerprint that the others compare."""
    folder = identity_folder(config, identity)
    if config is not None:
        document = load(config, PartyConfig)
        if name not in (None, document.name):
            raise DocumentError(f"{config}: this is the configuration of {document.name}, not of {name}")
        if dev:
            raise DocumentError("name either --config or --dev: the configuration states `dev`")
        name, dev = document.name, document.dev
        if address is None and not no_inbound:
            roster = load(document.path(document.roster), Roster)
            address = roster.party[roster.number(name) - 1].address
    if name is None:
        raise DocumentError("name this party: --name, or --config for the name in its configuration")
    _check_reachable(address, no_inbound)
    made = create_identity(name, folder, address=address or "", accepts=not no_inbound, dev=dev)
    describe(made.card)
    say(
        f"Send {folder / CARD_FILE} to the other parties, and have each compare the fingerprint or the words "
        "with you by telephone. The keys beside it never leave this machine."
    )


def _check_reachable(address: str | None, no_inbound: bool) -> None:
    if (address is None) != no_inbound:
        raise DocumentError(
            "say either where the other parties reach this one, --address HOST:PORT, or, if nobody can "
            "connect to it, --no-inbound"
        )


def card(
    config: ConfigOption = None,
    identity: IdentityOption = None,
    address: AddressOption = None,
    no_inbound: NoInboundOption = False,
    waiting: Annotated[
        bool, typer.Option("--next", help="The card that waits for its activation after `party rotate`.")
    ] = False,
) -> None:
    """Print this party's card, the file for the other parties; with --address, after changing it.

    A changed card has the same fingerprint, but the other parties must add it again.
    """
    folder = identity_folder(config, identity)
    if address is not None or no_inbound:
        if waiting:
            raise DocumentError("change the address of the card in use, then run `party rotate`")
        _check_reachable(address, no_inbound)
        printed = update_card(folder, address=address, accepts=not no_inbound)
    elif waiting:
        if not (folder / NEXT).exists():
            raise DocumentError(f"{folder}: no new identity waits here; `party rotate` makes one")
        printed = load_identity(folder / NEXT).card
    else:
        printed = load_identity(folder).card
    warn_of_expiry(printed)
    typer.echo(printed.encode().decode(), nl=False)


def roster(
    config: Annotated[Path, typer.Option(help="This party's configuration.")],
    as_json: JsonOption = False,
) -> None:
    """Show the roster with everybody's card, and its digest, which must be the same at all parties."""
    document, agreed = load_config(config)
    directory = document.directory(agreed)
    own = agreed.number(document.name)
    if as_json:
        typer.echo(json.dumps(_roster_fields(directory, own), indent=1, ensure_ascii=False))
        return
    rows = []
    for number, (member, cards) in enumerate(zip(directory.members, directory.cards, strict=True), start=1):
        does = ["silo"] * member.silo + ["computes"] * member.computing
        rows.append(
            (
                str(number),
                member.name + (" (this party)" if number == own else ""),
                ", ".join(does) if member.silo else "helper",
                ", ".join(short(each.fingerprint) for each in cards),
                f"{cards[0].pinned.not_after:%Y-%m-%d}",
            )
        )
    heads = ("party", "name", "role", "cards, newest first", "valid until")
    show("The roster.", heads, rows, heads[1:])
    say("Digest of the roster, the same at all parties:")
    say(directory.digest)
    say_words(words(bytes.fromhex(directory.digest)))
    for cards in directory.cards:
        warn_of_expiry(cards[0])


def _roster_fields(directory: Directory, own: int) -> dict[str, object]:
    parties = []
    for member, endpoint, cards in zip(directory.members, directory.endpoints, directory.cards, strict=True):
        parties.append(
            member.as_fields()
            | {
                "number": endpoint.number,
                "this_party": endpoint.number == own,
                "address": endpoint.address,
                "accepts": endpoint.accepts,
                "cards": [card_fields(each) for each in cards],
            }
        )
    spoken = words(bytes.fromhex(directory.digest))
    return {"parties": parties, "digest": directory.digest, "words": list(spoken)}


def card_fields(card: Card) -> dict[str, object]:
    """Return what tables and JSON say of a card."""
    return {
        "name": card.name,
        "role": card.role,
        "dev": card.dev,
        "address": card.address,
        "fingerprint": card.fingerprint,
        "words": list(card.words),
        "certificate": card.certificate_fingerprint,
        "made": card.made,
        "valid_until": f"{card.pinned.not_after:%Y-%m-%dT%H:%M:%SZ}",
    }


def rotate_keys(
    config: ConfigOption = None,
    identity: IdentityOption = None,
    activating: Annotated[
        bool, typer.Option("--activate", help="Use the new keys, once all parties have added the card.")
    ] = False,
    finishing: Annotated[
        bool, typer.Option("--finish", help="Destroy the former keys, once the new ones work.")
    ] = False,
) -> None:
    """Make new keys, in three steps: without an option, then with --activate, then with --finish."""
    folder = identity_folder(config, identity)
    if activating and finishing:
        raise DocumentError("--activate and --finish are two steps; restart the party in between")
    if finishing or activating:
        _check_former_keys(config, folder)
    if finishing:
        ended = finish(folder)
        for each in ended:
            say(f"Destroyed the keys of {each.fingerprint}.")
            revoking = f"mpc-engine party revoke {each.fingerprint[-8:]} --reason rotated"
            say(f"Have the other parties run: {revoking}")
        if not ended:
            say("There are no former keys.")
    elif activating:
        describe(activate(folder).card)
        say(
            "This identity is used from the next start of `party run` or `party serve`. When it works, "
            "`party rotate --finish` destroys the former keys."
        )
    else:
        _announce(rotate(folder), folder)


def _check_former_keys(config: Path | None, folder: Path) -> None:
    """Refuse to destroy former keys as long as a session has to be published, which may need them."""
    if config is None or not any((folder / PREVIOUS).glob(f"*/{SIGNING_FILE}")):
        return
    party = load(config, PartyConfig)
    state = party.path(party.state)
    if not (state / LEDGER_FILE).is_file():
        return
    ledger = Ledger.open(state, party=party.name, read_only=True)
    try:
        unpublished = len(ledger.sessions(*PUBLISHING))
    finally:
        ledger.close()
    if unpublished:
        which = "one session is" if unpublished == 1 else f"{unpublished} sessions are"
        raise DocumentError(
            f"{folder}: {which} committed and not published yet, which may need the former keys; nothing was "
            "changed. Let all parties run until `party status` says that no session runs"
        )


def _announce(new: Identity, folder: Path) -> None:
    describe(new.card)
    say(
        f"Send {folder / NEXT / CARD_FILE} to the other parties. It is endorsed by the key in use, so that "
        "`party trust add` needs no telephone call. This party goes on with its old keys; when all others "
        "have added the card, run `party rotate --activate`."
    )


def revoke(
    fingerprint: Annotated[
        str, typer.Argument(metavar="FINGERPRINT", help="The card's, or its last 8 digits.")
    ],
    reason: Annotated[str, typer.Option(help="Why, for those who come later.")],
    config: ConfigOption = None,
    trust: TrustOption = None,
    dev: DevOption = False,
) -> None:
    """Trust a party's or analyst's card no more, from the next start or reload of the party."""
    store = trust_store(config, trust, dev)
    gone = store.revoke(fingerprint, reason)
    say(f"Revoked the card of the {gone.role} {gone.name}:")
    say(gone.fingerprint)
    left = [each for each in store.stored(gone.role) if each.name == gone.name]
    if left:
        say(f"Still trusted for {gone.name}: {', '.join(short(each.fingerprint) for each in left)}.")
    elif gone.role == "party":
        say(
            f"No card of {gone.name} is left: no release can be made with it until it sends a new one, or "
            "the roster goes on without it."
        )
    else:
        say(f"No card of {gone.name} is left: its requests are refused. What it has spent stays spent.")
    tell_when(config)
