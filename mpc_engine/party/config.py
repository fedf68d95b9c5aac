"""A party's configuration and the roster it shares with the others, as TOML or JSON documents.

Paths in a document are relative to the document.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from mpc_engine.documents import (
    AfterValidator,
    Document,
    Field,
    broken,
    field_validator,
    load,
    model_validator,
)
from mpc_engine.dp import Rule, parse_delta, parse_epsilon
from mpc_engine.errors import DocumentError, TooFewPartiesError
from mpc_engine.party.session import Policy
from mpc_engine.release.plan import Member
from mpc_engine.sharing.shamir import degree_for
from mpc_engine.statistics.presets import presets
from mpc_engine.transport.grpc_link import Endpoint
from mpc_engine.transport.tls import load_certificate

_CHANCE = re.compile(r"0(\.[0-9]{1,20})?|1(\.0{1,20})?")
LARGEST_ROSTER = 200
"""Most parties of a roster."""


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


def _chance(text: str) -> str:
    if not _CHANCE.fullmatch(text):
        raise ValueError('must be a decimal number from "0" to "1" in quotes, such as "0.35"')
    return text


class Entry(Document):
    """One party of the roster, as all others know it."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    address: Annotated[str, Field(pattern=r"^\S+:[0-9]{1,5}$")]
    certificate: Annotated[str, Field(min_length=1)]
    computing: bool = True
    silo: bool = True
    count_bound: Annotated[int, Field(ge=1, lt=1 << 29)] = 1 << 24

    @model_validator(mode="after")
    def _does_something(self) -> Entry:
        if not self.computing and not self.silo:
            raise broken("silo", "a party that holds no records must compute: set `computing = true`")
        return self


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

    def read(self, base: Path) -> tuple[tuple[Member, ...], tuple[Endpoint, ...]]:
        """Return the members and endpoints, with the pinned certificates read from their files.

        Raises TooFewPartiesError for fewer than three computing parties, DocumentError for a
        certificate that cannot be pinned.
        """
        try:
            degree_for(sum(entry.computing for entry in self.party))
        except TooFewPartiesError as error:
            raise TooFewPartiesError(f"{self.origin}: {error}") from None
        members, endpoints = [], []
        for number, entry in enumerate(self.party, start=1):
            certificate = load_certificate(base / entry.certificate)
            members.append(
                Member(entry.name, entry.computing, entry.silo, certificate.fingerprint, entry.count_bound)
            )
            endpoints.append(Endpoint(number, entry.name, entry.address, certificate.pem))
        return tuple(members), tuple(endpoints)


class PolicyDocument(Document):
    """What this party accepts in one release, whatever a query asks.

    ``greatest_chance_for_nobody`` is the greatest probability with which a group that holds nobody may be
    shown: a query that gives its guards little of ε makes k mean little. ``presets`` are those allowed, all
    if left out; only ``count``, ``crosstab`` and ``histogram`` never show a number below k that is not
    itself compared with k.
    """

    greatest_epsilon: Annotated[str, AfterValidator(_epsilon)]
    least_threshold: Annotated[int, Field(ge=1, le=1_000_000)]
    rules: Annotated[tuple[Literal["noisy", "strict", "exact"], ...], Field(min_length=1)] = (
        "noisy",
        "strict",
    )
    greatest_delta: Annotated[str, AfterValidator(_delta)] = "0.00001"
    greatest_chance_for_nobody: Annotated[str, AfterValidator(_chance)] = "0.35"
    presets: Annotated[tuple[str, ...], Field(min_length=1, max_length=50)] | None = None

    @field_validator("presets")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in names or ():
            if name not in presets():
                raise ValueError(f"{name!r} is no preset; presets: {', '.join(presets())}")
        return names

    def policy(self) -> Policy:
        """Return the policy, its ε as a plain decimal."""
        return Policy(
            format(Decimal(self.greatest_epsilon), "f"),
            self.least_threshold,
            tuple(Rule(rule) for rule in self.rules),
            parse_delta(self.greatest_delta),
            Fraction(self.greatest_chance_for_nobody),
            self.presets,
        )


class Deadlines(Document):
    """How long this party waits, in seconds: for peers to appear, and for each message."""

    connect_s: Annotated[int, Field(ge=1, le=86_400)] = 60
    round_s: Annotated[int, Field(ge=1, le=86_400)] = 60


class PartyConfig(Document):
    """One party's own configuration.

    `data` is where `mpc-engine data register` put the registered snapshot, at a silo. `listen` is the
    address this party listens on, by default that of the roster.
    """

    name: str
    roster: str
    codebook: str
    identity: str
    policy: PolicyDocument
    listen: str | None = None
    data: str | None = None
    mapping: str | None = None
    deadlines: Deadlines = Deadlines()

    @model_validator(mode="after")
    def _mapping_needs_data(self) -> PartyConfig:
        if (self.data is None) != (self.mapping is None):
            raise broken("data", "a silo names both its `mapping` and the folder for its registered `data`")
        return self

    def path(self, relative: str) -> Path:
        """Return a path of this document."""
        return Path(self.origin).parent / relative

    def accepted(self) -> Policy:
        """Return the policy."""
        return self.policy.policy()


def load_config(path: str | Path) -> tuple[PartyConfig, Roster]:
    """Return a party's configuration and its roster.

    Raises DocumentError when one is missing or breaks a rule, or when the party is not on the roster
    in the role that its configuration describes.
    """
    config = load(path, PartyConfig)
    roster = load(config.path(config.roster), Roster)
    entry = roster.party[roster.number(config.name) - 1]
    if entry.silo and config.data is None:
        raise DocumentError(
            f"{path}: the roster has {config.name} as a silo, but no `data` and `mapping` are named"
        )
    if not entry.silo and config.data is not None:
        raise DocumentError(f"{path}: the roster has {config.name} as a helper, but `data` are named")
    return config, roster
