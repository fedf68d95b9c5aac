"""`mpc-engine party trust …`, `party analyst …` and `analyst …`: cards of others, and an analyst's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from mpc_engine.cli.identity import (
    ConfigOption,
    DevOption,
    JsonOption,
    TrustOption,
    card_fields,
    describe,
    short,
    tell_when,
    trust_store,
    warn_of_expiry,
)
from mpc_engine.cli.tables import say, show
from mpc_engine.documents import parse
from mpc_engine.errors import DocumentError
from mpc_engine.identity import (
    CARD_FILE,
    Analyst,
    Card,
    Standing,
    Terms,
    TrustStore,
    create_identity,
    load_card,
    load_identity,
    utc_now,
)
from mpc_engine.statistics.presets import presets as known_presets

trust_commands = typer.Typer(
    help="The cards that this party trusts.", no_args_is_help=True, rich_markup_mode=None
)
enrolment_commands = typer.Typer(
    help="The analysts whom this party enrols.", no_args_is_help=True, rich_markup_mode=None
)
analyst_commands = typer.Typer(
    help="An analyst's own keys and card.", no_args_is_help=True, rich_markup_mode=None
)

CardArgument = Annotated[Path, typer.Argument(metavar="CARD", help="The card's file.")]
FingerprintOption = Annotated[
    str | None,
    typer.Option(help="What its owner said by telephone: the fingerprint, or its last 8 digits."),
]

_OUTCOMES = {
    Standing.NEW: "Added to the cards that are trusted.",
    Standing.REPLACEMENT: "Added to the cards that are trusted; the former ones were revoked.",
    Standing.SUCCESSOR: "Added beside the former card, which endorses it.",
    Standing.UPDATE: "The same keys as before; the card was replaced.",
    Standing.KNOWN: "It is trusted already.",
}


def confirm(store: TrustStore, card: Card, fingerprint: str | None) -> str | None:
    """Show a card and return what confirms it: the option, or what is typed at the terminal.

    None if it needs no confirmation, or nobody is there to type one. Raises DocumentError for a card that may
    not enter whatever is typed.
    """
    standing = store.standing(card)
    describe(card)
    if fingerprint is not None or not standing.needs_confirmation:
        return fingerprint
    if standing is Standing.REPLACEMENT:
        say(f"It is NOT endorsed by the card of {card.name} that is trusted now: ask why before going on.")
    if not sys.stdin.isatty():
        return None
    typed: str = typer.prompt(f"Have {card.name} read its fingerprint to you; type the last 8 digits")
    return typed


@trust_commands.command("add", short_help="Trust the card of another party.")
def trust_add(
    card: CardArgument,
    fingerprint: FingerprintOption = None,
    config: ConfigOption = None,
    trust: TrustOption = None,
    dev: DevOption = False,
) -> None:
    """Trust the card of another party, after comparing its fingerprint with the owner by telephone.

    A card that a trusted one endorses needs no comparison.
    """
    store = trust_store(config, trust, dev)
    read = load_card(card, now=utc_now())
    if read.role != "party":
        raise DocumentError(f"{card}: this is an analyst's card; use `mpc-engine party analyst add`")
    standing = store.add(read, typed=confirm(store, read, fingerprint))
    say(_OUTCOMES[standing])
    if standing is not Standing.KNOWN:
        tell_when(config)


@trust_commands.command("list", short_help="Show the cards that this party trusts.")
def trust_list(
    config: ConfigOption = None,
    trust: TrustOption = None,
    dev: DevOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the cards of parties that this party trusts, and the cards that it revoked."""
    store = trust_store(config, trust, dev)
    stored, revoked = store.stored(), store.revoked()
    if as_json:
        gone = [
            card_fields(each.read()) | {"revoked": each.revoked, "reason": each.reason} for each in revoked
        ]
        fields = {"trusted": [card_fields(each) for each in stored], "revoked": gone}
        typer.echo(json.dumps(fields, indent=1, ensure_ascii=False))
        return
    heads = ("name", "address", "fingerprint", "made", "valid until")
    rows = [
        (
            each.name,
            each.address or "none",
            short(each.fingerprint),
            each.made[:10],
            f"{each.pinned.not_after:%Y-%m-%d}",
        )
        for each in stored
    ]
    if rows:
        show(f"Cards in {store.directory}.", heads, rows, heads)
    else:
        say(f"{store.directory} holds no card; `mpc-engine party trust add` adds one.")
    if revoked:
        titles = ("name", "fingerprint", "revoked", "reason")
        lines = [
            (card.name, short(card.fingerprint), each.revoked[:10], each.reason)
            for each in revoked
            for card in (each.read(),)
        ]
        show("Revoked.", titles, lines, titles)
    for each in stored:
        warn_of_expiry(each)


@enrolment_commands.command("add", short_help="Enrol an analyst, or change what one may do.")
def analyst_add(
    card: CardArgument,
    budget: Annotated[str, typer.Option(help="ε that all of the analyst's releases may spend here.")],
    delta: Annotated[str | None, typer.Option(help="δ likewise; by default as the policy says.")] = None,
    presets: Annotated[
        str | None, typer.Option(help="Presets allowed, with commas; by default all of the policy.")
    ] = None,
    projects: Annotated[
        str | None, typer.Option(help="Projects allowed, with commas; by default any.")
    ] = None,
    fingerprint: FingerprintOption = None,
    config: ConfigOption = None,
    trust: TrustOption = None,
    dev: DevOption = False,
) -> None:
    """Enrol an analyst at this party, after comparing the card's fingerprint by telephone.

    For an analyst enrolled already it changes budget, presets and projects.
    """
    store = trust_store(config, trust, dev)
    read = load_card(card, now=utc_now())
    if read.role != "analyst":
        raise DocumentError(f"{card}: this is a party's card; use `mpc-engine party trust add`")
    fields = {"budget": budget, "delta": delta, "presets": _listed(presets), "projects": _listed(projects)}
    terms = parse({key: value for key, value in fields.items() if value is not None}, Terms, "the enrolment")
    for name in terms.presets or ():
        if name not in known_presets():
            raise DocumentError(f"{name!r} is no preset; presets: {', '.join(known_presets())}")
    standing = store.add_analyst(read, terms, typed=confirm(store, read, fingerprint))
    say(
        _OUTCOMES[standing] if standing is not Standing.KNOWN else "Enrolled already; the terms were changed."
    )
    tell_when(config)


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


@enrolment_commands.command("list", short_help="Show the analysts enrolled here.")
def analyst_list(
    config: ConfigOption = None,
    trust: TrustOption = None,
    dev: DevOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the analysts enrolled at this party and what each may spend; `budget show` tells what is left."""
    store = trust_store(config, trust, dev)
    analysts = store.analysts()
    if as_json:
        fields = [_analyst_fields(each) for each in analysts]
        typer.echo(json.dumps({"analysts": fields}, indent=1, ensure_ascii=False))
        return
    if not analysts:
        say("No analyst is enrolled here; `mpc-engine party analyst add` enrols one.")
        return
    heads = ("name", "fingerprint", "ε", "δ", "presets", "projects", "valid until")
    rows = [
        (
            each.name,
            short(each.cards[0].fingerprint),
            each.terms.budget,
            each.terms.delta or "policy",
            ", ".join(each.terms.presets or ("all",)),
            ", ".join(each.terms.projects or ("any",)),
            f"{each.cards[0].pinned.not_after:%Y-%m-%d}",
        )
        for each in analysts
    ]
    show("Analysts enrolled here.", heads, rows, heads)
    for each in analysts:
        warn_of_expiry(each.cards[0])


def _analyst_fields(analyst: Analyst) -> dict[str, object]:
    terms = analyst.terms.model_dump(mode="json")
    return {"name": analyst.name, **terms, "cards": [card_fields(each) for each in analyst.cards]}


@analyst_commands.command("init", short_help="Make an analyst's keys and card.")
def analyst_init(
    name: Annotated[str, typer.Option(help="The analyst's name: lower-case letters, digits, hyphens.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the keys; it stays on this machine.")],
    dev: DevOption = False,
) -> None:
    """Make an analyst's keys and card, and print the fingerprint that the registries compare."""
    made = create_identity(name, out, role="analyst", accepts=False, dev=dev)
    describe(made.card)
    say(
        f"Send {out / CARD_FILE} to the registries that are to enrol you, and have each compare the "
        "fingerprint or the words with you by telephone. The keys beside it never leave this machine."
    )


@analyst_commands.command("card", short_help="Print an analyst's card.")
def analyst_card(
    identity: Annotated[Path, typer.Option(help="Folder of the analyst's keys.")],
) -> None:
    """Print an analyst's card, the file for the registries that enrol its owner."""
    own = load_identity(identity).card
    if own.role != "analyst":
        raise DocumentError(f"{identity}: is the identity of a party; use `mpc-engine party card`")
    warn_of_expiry(own)
    typer.echo(own.encode().decode(), nl=False)
