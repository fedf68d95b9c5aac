"""What the ledger answers: rows of its tables as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from mpc_engine.ledger.chain import Head
from mpc_engine.ledger.charge import Charge, Limit, Scope

SessionState = Literal[
    "RESERVED",
    "COMPUTING",
    "COMMITTED",
    "PATTERN",
    "OPENED",
    "SIGNED",
    "RELEASED",
    "ABORTED",
    "LOST",
    "ADOPTED",
]
RequestState = Literal[
    "SUBMITTED",
    "PARTIALLY_REVIEWED",
    "REVIEWED",
    "APPROVED",
    "RELEASED",
    "RETURNED",
    "REJECTED",
    "WITHDRAWN",
]
Verdict = Literal["approved", "rejected", "returned"]
ChargeState = Literal["held", "spent", "released"]
SpendingState = Literal["held", "spent", "spent, not released", "adopted", "released"]

SESSION_STATES: tuple[SessionState, ...] = get_args(SessionState)
REQUEST_STATES: tuple[RequestState, ...] = get_args(RequestState)
HOLDING: tuple[SessionState, ...] = ("RESERVED", "COMPUTING")
"""The session holds budget and may still be aborted."""
PUBLISHING: tuple[SessionState, ...] = ("COMMITTED", "PATTERN", "OPENED", "SIGNED")
"""The session has spent its budget and only goes forward."""
OPEN_REQUEST: tuple[RequestState, ...] = ("SUBMITTED", "PARTIALLY_REVIEWED", "REVIEWED", "APPROVED")


@dataclass(frozen=True)
class SessionRow:
    """One attempt to answer a request. ``head_before`` is what `reserve` returned, ``head_after`` `commit`.

    ``session_id`` is empty until COMPUTING, ``reason`` and ``detail`` unless ABORTED or LOST. Times are
    ``YYYY-MM-DDThh:mm:ssZ``. ``peer`` is the witness of an adopted debit.
    """

    ticket: str
    request: str
    question: str
    state: SessionState
    session_id: str
    charge: Charge
    reason: str
    detail: str
    facts: bytes | None
    pattern_hash: bytes | None
    release_digest: str
    stored_by: frozenset[str]
    head_before: Head
    head_after: Head | None
    began: str
    changed: str
    analyst_name: str
    project: str
    peer: str


@dataclass(frozen=True)
class RequestRow:
    """What an analyst asked. ``analyst`` is the card's fingerprint, ``body`` the signed request as it came.

    ``ticket`` and ``question`` are those of the latest attempt, or of the release that answers it.
    """

    id: str
    analyst: str
    analyst_name: str
    key: str
    project: str
    body: bytes
    digest: str
    state: RequestState
    reason: str
    detail: str
    ticket: str | None
    question: str | None
    received: str
    changed: str
    received_from: str


@dataclass(frozen=True)
class Decision:
    """A party's word on a request, and who gave it (empty: the policy)."""

    party: str
    verdict: Verdict
    reason: str
    detail: str
    by: str
    time: str


@dataclass(frozen=True)
class Outgoing:
    """A message that waits for a peer's acknowledgement."""

    id: int
    kind: str
    body: bytes


@dataclass(frozen=True)
class Line:
    """How far the durable messages with a peer have come: the last id sent, and the last one received."""

    sent: int
    received: int


@dataclass(frozen=True)
class BudgetRow:
    """Spent and held of one scope, and its limit."""

    scope: Scope
    spent: Charge
    held: Charge
    limit: Limit

    @property
    def remaining_micro_epsilon(self) -> int | None:
        """Micro-ε that may still be asked for, at least 0; ``None`` without a limit."""
        if self.limit.micro_epsilon is None:
            return None
        return max(0, self.limit.micro_epsilon - self.spent.micro_epsilon - self.held.micro_epsilon)

    @property
    def remaining_delta(self) -> int | None:
        """δ in units of 2^-100 that may still be asked for, at least 0; ``None`` without a limit."""
        if self.limit.delta is None:
            return None
        return max(0, self.limit.delta - self.spent.delta - self.held.delta)


@dataclass(frozen=True)
class Spending:
    """A line of `budget show`. ``released`` means that the hold was given back and nothing was spent."""

    time: str
    ticket: str
    request: str
    analyst_name: str
    project: str
    charge: Charge
    state: SpendingState
