"""Ledgers for tests, and the way of a session through them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from mpc_engine.ledger.charge import Charge, Limit, Scope
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import RequestRow
from mpc_engine.ledger.transaction import Transaction

DATASET, PROJECT, ANALYST = Scope("dataset", "nordic"), Scope("project", "colon"), Scope("analyst", "ada")
SCOPES = (DATASET, PROJECT, ANALYST)
ONE = Charge(1_000_000, 2**36)
TICKET, REQUEST = "0" * 31 + "1", "r" * 32
HASH, OTHER_HASH = b"p" * 32, b"q" * 32


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **amount: int) -> None:
        self.now += timedelta(**amount)


def counted(size: int) -> bytes:
    """Salts that are the same in every run."""
    return bytes(size)


def memory(party: str = "se") -> Ledger:
    """A ledger in memory."""
    return Ledger.in_memory(party=party, clock=Clock(), entropy=counted)


def reopened(ledger: Ledger) -> Ledger:
    """What a crash at this moment leaves, opened (and so verified) again."""
    return Ledger.from_image(ledger.image(), party=ledger.party, clock=Clock(), entropy=counted)


def submit(tx: Transaction, request: str = REQUEST, key: str = "k", digest: str = "d") -> RequestRow:
    """Take in a request of Ada's."""
    return tx.submit(
        id=request,
        analyst="sha256:ada",
        analyst_name="ada",
        key=key,
        project="colon",
        body=b"{}",
        digest=digest,
        received_from="se",
    )


def reserve(
    tx: Transaction,
    ticket: str = TICKET,
    request: str = REQUEST,
    question: str = "q1",
    charge: Charge = ONE,
    scopes: Sequence[Scope] = SCOPES,
    limits: Sequence[Limit] = (),
) -> None:
    """Reserve for a ticket."""
    tx.reserve(ticket, request=request, question=question, charge=charge, scopes=scopes, limits=limits)


WAY = ("RESERVED", "COMPUTING", "COMMITTED", "PATTERN", "OPENED", "SIGNED", "RELEASED")
STEPS = {
    "RESERVED": lambda tx: reserve(tx),
    "COMPUTING": lambda tx: tx.computing(TICKET, "s1"),
    "COMMITTED": lambda tx: tx.commit(TICKET, b"facts", b"cipher text"),
    "PATTERN": lambda tx: tx.pattern(TICKET, HASH),
    "OPENED": lambda tx: tx.opened(TICKET, b"release", "digest"),
    "SIGNED": lambda tx: tx.signed(TICKET, b"receipt"),
    "RELEASED": lambda tx: tx.released(TICKET),
    "ABORTED": lambda tx: tx.abort(TICKET, "ROUND_TIMEOUT", "round 3"),
    "LOST": lambda tx: tx.lose(TICKET, "PUBLICATION_ABORT", b"signed words"),
    "ADOPTED": lambda tx: adopt(tx),
}
"""What brings the session of `TICKET` into each state."""


def adopt(tx: Transaction, charge: Charge = ONE, scopes: Sequence[Scope] = SCOPES) -> None:
    """Adopt the debit of `TICKET`."""
    tx.adopt(
        TICKET,
        request=REQUEST,
        question="q1",
        charge=charge,
        scopes=scopes,
        peer="no",
        analyst_name="ada",
        project="colon",
    )


def brought_to(state: str, ledger: Ledger | None = None) -> Ledger:
    """A ledger whose session `TICKET` is in ``state``, one transaction for each step."""
    ledger = memory() if ledger is None else ledger
    with ledger.transaction() as tx:
        submit(tx)
    way = {"ABORTED": (*WAY[:2], state), "LOST": (*WAY[:4], state), "ADOPTED": (state,), "NONE": ()}
    for step in way.get(state) or WAY[: WAY.index(state) + 1] if state != "NONE" else ():
        with ledger.transaction() as tx:
            STEPS[step](tx)
    return ledger
