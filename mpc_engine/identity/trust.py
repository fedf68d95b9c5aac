"""The cards that this party trusts: those of the other parties and of its own analysts.

    trust/NAME.card.json              the newest card of a party
    trust/NAME@FINGERPRINT.card.json  its earlier cards, trusted until they expire or are revoked
    trust/analysts/…                  the same for analysts, and NAME.json: what each may spend
    trust/revoked/FINGERPRINT.json    cards that count no more, with date and reason

A card enters when an operator confirms its fingerprint, or when a card that is trusted endorses it. Every
reading checks every card again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

from mpc_engine.documents import AfterValidator, Document, Field, canonical, load_json, parse
from mpc_engine.dp import parse_delta, parse_epsilon
from mpc_engine.errors import CertificateError, DocumentError
from mpc_engine.identity.cards import Card, Role, load_card, read_card
from mpc_engine.identity.certificates import Clock, utc_now
from mpc_engine.identity.files import replace, sync_folder

ANALYSTS = "analysts"
REVOKED = "revoked"
SUFFIX = ".card.json"
TYPED_DIGITS = 8
"""So many last digits of a fingerprint an operator types."""


def _epsilon(text: str) -> str:
    try:
        parse_epsilon(text)
    except DocumentError as error:
        raise ValueError(str(error)) from None
    return text


def _delta(text: str) -> str:
    try:
        parse_delta(text)
    except DocumentError as error:
        raise ValueError(str(error)) from None
    return text


_Names = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=100)], ...], Field(min_length=1, max_length=50)
]


class Terms(Document):
    """What an analyst may do here: ε in total, δ in total (None: as the policy says), presets and projects.

    `presets` and `projects` left out allow all that the policy allows.
    """

    budget: Annotated[str, AfterValidator(_epsilon)]
    delta: Annotated[str, AfterValidator(_delta)] | None = None
    presets: _Names | None = None
    projects: _Names | None = None


class Revocation(Document):
    """A card that counts no more."""

    card: Annotated[str, Field(max_length=16_384)]
    revoked: str
    reason: Annotated[str, Field(min_length=1, max_length=500)]

    def read(self) -> Card:
        """Return the card. Raises DocumentError if it was tampered with."""
        return read_card(self.card.encode(), self.origin)


@dataclass(frozen=True)
class Analyst:
    """An analyst enrolled here: cards newest first, none expired, and the terms."""

    name: str
    cards: tuple[Card, ...]
    terms: Terms


class Standing(Enum):
    """How a card stands to those that are trusted already."""

    NEW = "new"
    """Nobody of this name is trusted: an operator must confirm it."""
    REPLACEMENT = "replacement"
    """Somebody of this name is trusted, who did not endorse it: to be confirmed; the old cards go."""
    SUCCESSOR = "successor"
    """A trusted card endorses it."""
    UPDATE = "update"
    """The same keys, with a newer date: another address, for example."""
    KNOWN = "known"
    """It is trusted already."""

    @property
    def needs_confirmation(self) -> bool:
        """Whether an operator must compare the fingerprint."""
        return self in (Standing.NEW, Standing.REPLACEMENT)


class TrustStore:
    """The cards in `directory`. `dev` tells which kind of cards it holds: DEV ones or real ones, never both.

    All methods raise DocumentError if a file of the store cannot be read or breaks a rule.
    """

    def __init__(self, directory: Path, *, dev: bool = False, clock: Clock = utc_now) -> None:
        self.directory = directory
        self.dev = dev
        self._clock = clock

    # --- reading ------------------------------------------------------------------------------------

    def names(self) -> tuple[str, ...]:
        """Return the names of the parties that have a card here, in alphabetical order."""
        return tuple(sorted({card.name for card in self._all("party")}))

    def cards(self, name: str) -> tuple[Card, ...]:
        """Return a party's cards that are trusted now, newest first: neither revoked nor expired.

        Raises DocumentError if there are none, CertificateError if all have expired.
        """
        stored = _of(self._all("party"), name)
        if not stored:
            raise DocumentError(
                f"{self.directory}: holds no card of {name}; add it with `mpc-engine party trust add`"
            )
        return self.unexpired(stored)

    def stored(self, role: Role = "party") -> tuple[Card, ...]:
        """Return all cards of a role that are not revoked, expired ones included, by name, newest first."""
        return tuple(self._all(role))

    def analysts(self) -> tuple[Analyst, ...]:
        """Return the analysts with at least one card that has not expired, in alphabetical order."""
        stored = self._all("analyst")
        found = []
        for name in sorted({card.name for card in stored}):
            cards = tuple(card for card in _of(stored, name) if not card.expired(self._clock()))
            if cards:
                found.append(Analyst(name, cards, self.terms(name)))
        return tuple(found)

    def terms(self, name: str) -> Terms:
        """Return an analyst's terms. Raises DocumentError if there are none."""
        return load_json(self._folder("analyst") / f"{name}.json", Terms)

    def revoked(self) -> tuple[Revocation, ...]:
        """Return the revocations, in order of their dates."""
        found = [load_json(path, Revocation) for path in sorted((self.directory / REVOKED).glob("*.json"))]
        return tuple(sorted(found, key=lambda each: each.revoked))

    # --- changing -----------------------------------------------------------------------------------

    def standing(self, card: Card) -> Standing:
        """Return how a card stands to those of its name here, after all checks but the confirmation.

        Raises DocumentError for a card that may not enter: expired or broken, of the other kind (DEV),
        revoked, older than a trusted one, or with a name, key or certificate of somebody else.
        """
        card.verify(self._clock())
        if card.dev != self.dev:
            raise DocumentError(
                f"the card of {card.name} is marked DEV, for trials only; this configuration is not"
                if card.dev
                else f"the card of {card.name} is a real one, but this configuration is for DEV parties only"
            )
        if self._is_revoked(card):
            raise DocumentError(f"the card of {card.name} with {card.fingerprint} was revoked here")
        everybody = [*self._all("party"), *self._all("analyst")]
        _check_unique(card, everybody)
        stored = [each for each in everybody if each.name == card.name]
        if not stored:
            return Standing.NEW
        same = next((each for each in stored if each.fingerprint == card.fingerprint), None)
        if same == card:
            return Standing.KNOWN
        newest = stored[0] if same is None else same
        if card.made < newest.made:
            raise DocumentError(
                f"the card of {card.name} was made at {card.made}, before the one trusted here "
                f"({newest.made}); ask for the newest"
            )
        if same is not None:
            return Standing.UPDATE
        if any(card.endorsed_by(each) for each in stored):
            return Standing.SUCCESSOR
        return Standing.REPLACEMENT

    def add(self, card: Card, *, typed: str | None = None) -> Standing:
        """Trust a party's card and return how it stood before.

        `typed` is what the operator confirms it with: the fingerprint or its last 8 digits. A successor,
        an update and a known card need none. A replacement revokes all earlier cards of the name, for
        whoever lost their keys can endorse nothing, and whoever stole them could. Raises DocumentError as
        `standing`, and for a missing or wrong confirmation.
        """
        if card.role != "party":
            raise DocumentError(
                f"this is an analyst's card; use `mpc-engine party analyst add` for {card.name}"
            )
        return self._add(card, typed)

    def add_analyst(self, card: Card, terms: Terms, *, typed: str | None = None) -> Standing:
        """Enrol an analyst, or change the terms of one; otherwise as `add`."""
        if card.role != "analyst":
            raise DocumentError(f"this is a party's card; use `mpc-engine party trust add` for {card.name}")
        standing = self.standing(card)
        _check_confirmed(card, standing, typed)
        # The terms go first: a card without them would be refused by every reading.
        self._store(self._folder("analyst") / f"{card.name}.json", terms.model_dump(exclude_none=True))
        self._add(card, typed)
        return standing

    def revoke(self, fingerprint: str, reason: str) -> Card:
        """Trust a card no more and return it; `fingerprint` is the card's, or its last 8 or more digits.

        Raises DocumentError if no card, or more than one, has it, or for an empty reason.
        """
        wanted = fingerprint.lower().removeprefix("sha256:")
        everybody = [*self._all("party"), *self._all("analyst")]
        found = [
            card for card in everybody if len(wanted) >= TYPED_DIGITS and card.fingerprint.endswith(wanted)
        ]
        if len(found) != 1:
            how_many = "several cards have" if found else "no card has"
            raise DocumentError(
                f"{self.directory}: {how_many} a fingerprint that ends in {wanted!r}; "
                "see `mpc-engine party trust list`"
            )
        self._revoke(found[0], reason)
        return found[0]

    # --- within -------------------------------------------------------------------------------------

    def _folder(self, role: Role) -> Path:
        return self.directory if role == "party" else self.directory / ANALYSTS

    def _all(self, role: Role) -> list[Card]:
        """Return the cards of a role, each once, by name and newest first, after checking them."""
        found: dict[str, Card] = {}
        for path in sorted(self._folder(role).glob(f"*{SUFFIX}")):
            card = load_card(path)
            if card.role != role or path.name.removesuffix(SUFFIX).partition("@")[0] != card.name:
                raise DocumentError(f"{path}: holds the card of the {card.role} {card.name}")
            if card.dev != self.dev:
                kind = "a DEV card" if card.dev else "a real card"
                wanted = "DEV cards" if self.dev else "real ones"
                raise DocumentError(f"{path}: is {kind}, but this configuration accepts only {wanted}")
            if self._is_revoked(card):
                continue
            twin = found.get(card.fingerprint)
            if twin is None or twin.made < card.made:
                found[card.fingerprint] = card
        cards = sorted(found.values(), key=lambda card: card.made, reverse=True)
        cards.sort(key=lambda card: card.name)
        for index, card in enumerate(cards):
            _check_unique(card, cards[:index])
        return cards

    def _is_revoked(self, card: Card) -> bool:
        return (self.directory / REVOKED / f"{card.fingerprint.removeprefix('sha256:')}.json").exists()

    def unexpired(self, cards: Sequence[Card]) -> tuple[Card, ...]:
        """Return those of a party's cards that have not expired; raises CertificateError if all have."""
        now = self._clock()
        valid = tuple(card for card in cards if not card.expired(now))
        if not valid:
            end = cards[0].pinned.not_after
            raise CertificateError(f"the certificate of {cards[0].name} expired at {end:%Y-%m-%d %H:%M} UTC")
        return valid

    def _add(self, card: Card, typed: str | None) -> Standing:
        standing = self.standing(card)
        _check_confirmed(card, standing, typed)
        if standing is Standing.KNOWN:
            return standing
        stored = _of(self._all(card.role), card.name)
        folder = self._folder(card.role)
        newest = folder / f"{card.name}{SUFFIX}"
        if standing is Standing.UPDATE and stored[0].fingerprint != card.fingerprint:
            self._write(folder / _aside(card), card.encode())
            return standing
        if standing is Standing.REPLACEMENT:
            for old in stored:
                self._revoke(old, f"replaced by {card.fingerprint}, which it did not endorse")
        elif standing is Standing.SUCCESSOR:
            self._write(folder / _aside(stored[0]), stored[0].encode())
        self._write(newest, card.encode())
        return standing

    def _revoke(self, card: Card, reason: str) -> None:
        name = card.fingerprint.removeprefix("sha256:")
        now = f"{self._clock():%Y-%m-%dT%H:%M:%SZ}"
        fields = {"card": card.encode().decode(), "revoked": now, "reason": reason}
        parse(fields, Revocation, "the revocation")
        # Written first: after a crash between the two steps the card is revoked and still there, and every
        # reading of the store leaves it out.
        self._store(self.directory / REVOKED / f"{name}.json", fields)
        folder = self._folder(card.role)
        self._remove(folder, card.fingerprint)

    def _remove(self, folder: Path, fingerprint: str) -> None:
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if load_card(path).fingerprint == fingerprint:
                try:
                    path.unlink()
                    sync_folder(folder)
                except OSError as error:
                    raise DocumentError(f"{path}: cannot be removed: {error.strerror}") from None

    def _store(self, path: Path, fields: Mapping[str, object]) -> None:
        self._write(path, canonical(fields) + b"\n")

    def _write(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace(path, content)
        except OSError as error:
            raise DocumentError(f"{path}: cannot be written: {error.strerror}") from None


def _of(cards: Iterable[Card], name: str) -> list[Card]:
    return [card for card in cards if card.name == name]


def _aside(card: Card) -> str:
    return f"{card.name}@{card.fingerprint.removeprefix('sha256:')[:16]}{SUFFIX}"


def _check_confirmed(card: Card, standing: Standing, typed: str | None) -> None:
    if not standing.needs_confirmation:
        return
    if typed is None:
        raise DocumentError(
            f"the card of {card.name} must be confirmed: compare {card.fingerprint} with its owner by "
            "telephone, then pass it with --fingerprint"
        )
    said = typed.strip().lower().removeprefix("sha256:")
    if len(said) not in (TYPED_DIGITS, 64) or not card.fingerprint.endswith(said):
        raise DocumentError(
            f"the card of {card.name} has another fingerprint than confirmed: {card.fingerprint}"
        )


def _check_unique(card: Card, others: Iterable[Card]) -> None:
    """Raise DocumentError if somebody else has the name, a key, the certificate or the origin of `card`."""
    for other in others:
        if (other.role, other.name) == (card.role, card.name):
            if other.fingerprint != card.fingerprint and (
                other.signing_key == card.signing_key
                or other.certificate_fingerprint == card.certificate_fingerprint
            ):
                raise DocumentError(f"two cards of {card.name} share a key; `party rotate` makes both anew")
            continue
        if other.name == card.name:
            raise DocumentError(f"{card.name} is the name of the {other.role} with {other.fingerprint}")
        if (
            other.signing_key == card.signing_key
            or other.certificate_fingerprint == card.certificate_fingerprint
            or other.origin_fingerprint == card.origin_fingerprint
        ):
            raise DocumentError(f"the cards of {other.name} and {card.name} share a key or an origin")
