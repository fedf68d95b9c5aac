"""Who is simulated: parties and an analyst with keys that are the same in every process, and their documents.

`THREE` are two silos that compute and a helper; `FIVE` are these and two silos that only bring data. The
budget of each data set is enough for two releases.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from hashlib import sha256
from typing import Any
from unittest import mock

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.harness.virtual_time import START
from mpc_engine.identity import Analyst, Identity, Terms, throwaway_identity
from mpc_engine.party.policy import BudgetLimits, Policy
from mpc_engine.party.proposal import propose
from mpc_engine.party.roster import Directory
from mpc_engine.party.situation import Counted, Situation
from mpc_engine.party.submission import Submission, make_submission
from mpc_engine.release.plan import Member
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query
from mpc_engine.transport.endpoint import Endpoint

AFFORDED = 2
"""So many releases the budget allows."""
BOOK = parse(
    {"name": "study", "version": "1", "variables": {"sex": {"kind": "category", "categories": ["f", "m"]}}},
    Codebook,
    "codebook",
)
_PRIVACY = {"epsilon": "1", "rule": "noisy", "threshold": 5, "max_records_per_patient": 1}
QUERIES: tuple[Mapping[str, Any], ...] = (
    {"preset": "count", "privacy": _PRIVACY},
    {"preset": "crosstab", "by": ["sex"], "privacy": _PRIVACY},
    {"preset": "count", "privacy": _PRIVACY | {"threshold": 6}},
    {"preset": "count", "privacy": _PRIVACY},
)
"""The question of each request; the first is asked a second time under another key."""
FRESH: Mapping[str, Any] = {"preset": "count", "privacy": _PRIVACY | {"threshold": 40}}
"""A question that nobody has asked before everything has settled."""


@dataclass(frozen=True)
class Cast:
    """The parties of a world; the first `computing` compute."""

    names: tuple[str, ...]
    silos: tuple[bool, ...]
    computing: int = 3

    @property
    def numbers(self) -> range:
        """The parties' numbers."""
        return range(1, len(self.names) + 1)


THREE = Cast(("uk", "us", "helper"), (True, True, False))
FIVE = Cast(("uk", "us", "helper", "fr", "de"), (True, True, False, True, True))


@functools.cache
def identity(name: str, role: Any = "party") -> Identity:
    """Return the identity of a party or analyst, which follows from its name."""
    seed = sha256(f"{role} {name}".encode()).digest()
    address = "127.0.0.1:1" if role == "party" else ""
    sign = x509.CertificateBuilder.sign

    def signed(self: x509.CertificateBuilder, key: Any, algorithm: Any) -> x509.Certificate:
        return sign(self, key, algorithm, ecdsa_deterministic=True)

    curve_key = ec.derive_private_key(int.from_bytes(seed) >> 8, ec.SECP256R1())
    with (
        mock.patch.object(ec, "generate_private_key", lambda curve: curve_key),
        mock.patch.object(x509, "random_serial_number", lambda: int.from_bytes(seed[:16]) >> 1),
        mock.patch.object(x509.CertificateBuilder, "sign", signed),
        mock.patch.object(
            Ed25519PrivateKey, "generate", lambda: Ed25519PrivateKey.from_private_bytes(seed[::-1])
        ),
    ):
        return throwaway_identity(name, address=address, role=role, clock=lambda: START - timedelta(days=100))


@functools.cache
def directory(cast: Cast) -> Directory:
    """Return the roster with everybody's cards."""
    cards = [identity(name).card for name in cast.names]
    return Directory(
        tuple(
            Member(name, number <= cast.computing, silo, card.origin_fingerprint, 1 << 20)
            for number, name, silo, card in zip(cast.numbers, cast.names, cast.silos, cards, strict=True)
        ),
        tuple(
            Endpoint(number, name, card.address, (card.pinned.pem,), True)
            for number, name, card in zip(cast.numbers, cast.names, cards, strict=True)
        ),
        tuple((card,) for card in cards),
    )


def _policies() -> tuple[tuple[Policy, Policy], ...]:
    """Return the policies that an operator chooses among: the second party's, and everybody else's."""
    budget = BudgetLimits(Fraction(AFFORDED))
    usual = Policy("1", 1, budget=budget)
    by_hand = Policy("1", 1, approvals={"crosstab": "manual"}, budget=budget)
    larger_k = Policy("1", 7, budget=budget)
    no_tables = Policy("1", 1, approvals={"crosstab": "never"}, budget=budget)
    poor = Policy("1", 1, budget=BudgetLimits(Fraction(1)))
    rich = Policy("1", 1, budget=BudgetLimits(Fraction(AFFORDED + 1)))
    ten = Policy("1", 1, budget=BudgetLimits(Fraction(10)))
    return (
        (by_hand, usual),
        (usual, larger_k),
        (no_tables, by_hand),
        (poor, poor),
        (rich, rich),
        (ten, ten),
    )


POLICIES = _policies()
RICH, TEN = 4, 5
"""Numbers of the policies that leave enough for one more release, and for ten in all."""


@functools.cache
def situation(cast: Cast, number: int, policy: int = 0) -> Situation:
    """Return what a party is, with one of the `POLICIES`; the first has the second party decide by hand."""
    silo = cast.silos[number - 1]
    analyst = identity("ada", "analyst").card
    return Situation(
        number,
        directory(cast),
        identity(cast.names[number - 1]),
        POLICIES[policy][number != 2],
        f"cancers of {cast.names[number - 1]}" if silo else "",
        BOOK,
        {analyst.fingerprint: Analyst("ada", (analyst,), Terms(budget="100"))},
    )


@functools.cache
def submission(key: str, question: int) -> Submission:
    """Return the request under a key; question -1 is the fresh one, from 100 on as many as one likes."""
    fields = FRESH if question < 0 else QUERIES[question % len(QUERIES)]
    if question >= 100:
        fields = {"preset": "count", "privacy": _PRIVACY | {"threshold": question - 95}}
    return make_submission(
        parse_query(dict(fields)), BOOK.digest(), "colon", key, identity("ada", "analyst"), lambda: START
    )


class Records:
    """Counts records that every silo has alike; `edition` tells apart the snapshots of one silo."""

    def __init__(self, cast: Cast, number: int, edition: int = 0) -> None:
        self._members, self._number = directory(cast).members, number
        self._silo = cast.silos[number - 1]
        self.edition = edition

    def snapshot(self) -> str:
        """Return the id of the registered records."""
        return f"{1000 * self.edition + self._number:032x}" if self._silo else ""

    async def count(self, query: Query, codebook: Codebook) -> Counted:
        """Return twenty in each cell."""
        if not self._silo:
            return Counted("", None)
        plan = propose(query, codebook, self._members).plan(query.privacy.threshold)
        return Counted(self.snapshot(), tuple(np.full((2, line.cells), 20, np.int64) for line in plan.lines))
