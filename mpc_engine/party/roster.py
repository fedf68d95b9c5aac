"""The roster: who takes part, in which role and order. Keys and addresses come from the parties' cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated

from mpc_engine.documents import Document, Field, broken, model_validator
from mpc_engine.errors import CertificateError, DocumentError, TooFewPartiesError
from mpc_engine.identity import Card, Identity, TrustStore
from mpc_engine.party.proposal import roster_digest
from mpc_engine.release.plan import Member
from mpc_engine.sharing.shamir import degree_for
from mpc_engine.transport.endpoint import Endpoint, dialler_of

LARGEST_ROSTER = 200
"""Most parties of a roster."""


class Entry(Document):
    """One party of the roster, as all others know it.

    `address` is where this machine reaches it, if not where its card says: behind a tunnel, for example.
    """

    name: Annotated[str, Field(min_length=1, max_length=63)]
    address: Annotated[str, Field(pattern=r"^\S+:[0-9]{1,5}$")] | None = None
    computing: bool = True
    silo: bool = True
    count_bound: Annotated[int, Field(ge=1, lt=1 << 29)] = 1 << 24

    @model_validator(mode="after")
    def _does_something(self) -> Entry:
        if not self.computing and not self.silo:
            raise broken("silo", "a party that holds no records must compute: set `computing = true`")
        return self


@dataclass(frozen=True)
class Directory:
    """A roster with everybody's cards; the tuples are in order of the parties' numbers 1..m.

    A member's fingerprint is that of the party's first card, so that a change of keys changes no roster. The
    cards are those trusted now, newest first; a party's own are its present one, one that waits for
    its activation and former ones.
    """

    members: tuple[Member, ...]
    endpoints: tuple[Endpoint, ...]
    cards: tuple[tuple[Card, ...], ...]

    @property
    def digest(self) -> str:
        """The roster's digest, which all parties compare: 64 hexadecimal digits."""
        return roster_digest(self.members)


class Roster(Document):
    """All parties, in order of their numbers 1..m; the computing ones come first."""

    party: Annotated[tuple[Entry, ...], Field(min_length=1, max_length=LARGEST_ROSTER)]

    @model_validator(mode="after")
    def _in_order(self) -> Roster:
        names = [entry.name for entry in self.party]
        if len(set(names)) != len(names):
            raise broken("party", "two parties have the same name")
        flags = [entry.computing for entry in self.party]
        if flags != sorted(flags, reverse=True):
            raise broken("party", "computing parties must come before input-only ones")
        return self

    def number(self, name: str) -> int:
        """Return a party's number. Raises DocumentError for a name that is not on the roster."""
        for number, entry in enumerate(self.party, start=1):
            if entry.name == name:
                return number
        raise DocumentError(f"{self.origin}: no party is called {name!r}")

    def read(self, trust: TrustStore, own: Identity, *, timely: bool = True) -> Directory:
        """Return members, endpoints and cards; the others' cards are in `trust`, this party's in `own`.

        Unless `timely`, a party whose certificates have all expired stands there with its last one, with
        which nobody connects.

        Raises TooFewPartiesError for fewer than three computing parties; DocumentError if cards are missing
        or not of the kind (DEV or real) that `trust` holds, two parties have the same card, or two that would
        be connected both accept no connections; CertificateError, if `timely`, for a party whose certificate
        has expired.
        """
        try:
            degree_for(sum(entry.computing for entry in self.party))
        except TooFewPartiesError as error:
            raise TooFewPartiesError(f"{self.origin}: {error}") from None
        cards = self._cards(trust, own, timely)
        members, endpoints = [], []
        for number, (entry, trusted) in enumerate(zip(self.party, cards, strict=True), start=1):
            newest = trusted[0]
            members.append(
                Member(entry.name, entry.computing, entry.silo, newest.origin_fingerprint, entry.count_bound)
            )
            if entry.address is not None and not newest.accepts:
                raise DocumentError(
                    f"{self.origin}: gives an address for {entry.name}, whose card says that it accepts no "
                    "connections"
                )
            pems = tuple(card.pinned.pem for card in trusted)
            endpoints.append(
                Endpoint(number, entry.name, entry.address or newest.address, pems, newest.accepts)
            )
        if len({member.fingerprint for member in members}) != len(members):
            raise DocumentError(f"{self.origin}: two parties of the roster have the same first card")
        self._check_connections(endpoints)
        return Directory(tuple(members), tuple(endpoints), tuple(cards))

    def _cards(self, trust: TrustStore, own: Identity, timely: bool) -> list[tuple[Card, ...]]:
        """Return each party's trusted cards, newest first."""
        self.number(own.name)
        if own.card.dev != trust.dev:
            raise DocumentError(
                f"{self.origin}: this party's identity is "
                + ("marked DEV, for trials; " if own.card.dev else "a real one, not a DEV one; ")
                + "`dev` of its configuration says otherwise"
            )
        stored: dict[str, list[Card]] = {}
        for card in trust.stored():
            stored.setdefault(card.name, []).append(card)
        missing = [entry.name for entry in self.party if entry.name not in {own.name, *stored}]
        if missing:
            raise DocumentError(
                f"{trust.directory}: holds no card of {', '.join(missing)}; ask for it and add it with "
                "`mpc-engine party trust add`"
            )
        mine = sorted((own.card, *own.others), key=lambda card: card.made, reverse=True)

        def trusted(cards: list[Card]) -> tuple[Card, ...]:
            try:
                return trust.unexpired(cards)
            except CertificateError:
                if timely:
                    raise
                return tuple(cards[:1])

        return [
            tuple(mine) if entry.name == own.name else trusted(stored[entry.name]) for entry in self.party
        ]

    def _check_connections(self, endpoints: Sequence[Endpoint]) -> None:
        """Raise DocumentError if two parties that exchange messages cannot be connected."""
        for one, other in combinations(endpoints, 2):
            if self.party[one.number - 1].computing:
                try:
                    dialler_of(one, other)
                except DocumentError as error:
                    raise DocumentError(f"{self.origin}: {error}") from None
