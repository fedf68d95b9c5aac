"""The profile: whom an analyst talks to, as whom, for which project and with which codebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.documents import Document, Field, parse, read
from mpc_engine.errors import DocumentError
from mpc_engine.identity import Card, Identity, load_card, load_identity
from mpc_engine.party.messages import Project


class Profile(Document):
    """An analyst's profile; paths are relative to the document.

    ``identity`` is the folder that `mpc-engine analyst init` made, ``party`` the card of the party to
    talk to and ``address`` its analyst port, which is another one than that of the card. ``trust`` is a
    folder of the cards of all parties, ``NAME.card.json``, by which receipts and policies are checked.
    ``dev`` says that all of it belongs to a trial.
    """

    identity: Annotated[str, Field(min_length=1)]
    party: Annotated[str, Field(min_length=1)]
    address: Annotated[str, Field(pattern=r"^\S{1,253}:[0-9]{1,5}$")]
    codebook: Annotated[str, Field(min_length=1)]
    project: Project
    trust: str | None = None
    dev: bool = False


@dataclass(frozen=True)
class Access:
    """A profile with everything it names read. ``cards`` are those trusted, by party."""

    identity: Identity
    party: Card
    address: str
    codebook: Codebook
    project: str
    cards: Mapping[str, tuple[Card, ...]]


def is_scenario(fields: Mapping[str, object]) -> bool:
    """Return whether a document is a scenario, which lists its parties; a profile names one."""
    return isinstance(fields.get("party"), list)


def load_access(path: str | Path, project: str | None = None) -> Access:
    """Return what the profile at ``path`` names, for its project or another one.

    Raises DocumentError for a file that is missing or breaks a rule, and for cards of a trial in a profile
    that does not say ``dev = true``, or the other way round.
    """
    fields = read(path)
    profile = parse(fields if project is None else {**fields, "project": project}, Profile, str(path))
    base = Path(path).parent
    party = load_card(base / profile.party)
    if party.role != "party":
        raise DocumentError(f"{path}: party: {profile.party} is the card of an analyst")
    identity = load_identity(base / profile.identity)
    if identity.card.role != "analyst":
        raise DocumentError(f"{path}: identity: {profile.identity} is a party's; analysts have their own")
    for card in (party, identity.card):
        if card.dev != profile.dev:
            what = "of a trial" if card.dev else "not of a trial"
            raise DocumentError(
                f"{path}: dev is {str(profile.dev).lower()}, but {card.name}'s card is {what}"
            )
    cards: dict[str, list[Card]] = {party.name: [party]}
    if profile.trust is not None:
        folder = base / profile.trust
        if not folder.is_dir():
            raise DocumentError(f"{path}: trust: there is no folder {folder}")
        for file in sorted(folder.glob("*.card.json")):
            card = load_card(file)
            if card.role == "party" and card.dev == profile.dev and card.encode() != party.encode():
                cards.setdefault(card.name, []).append(card)
    return Access(
        identity,
        party,
        profile.address,
        load_codebook(base / profile.codebook),
        profile.project,
        {name: tuple(each) for name, each in cards.items()},
    )
