"""What a party's ledger tells in the end, or while it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mpc_engine.errors import EngineError
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import PUBLISHING, SessionRow

if TYPE_CHECKING:
    from mpc_engine.harness.layout import Home

SPENT: Final = (*PUBLISHING, "RELEASED", "LOST", "ADOPTED")
"""States of a session that has cost its charge."""


@dataclass(frozen=True)
class Told:
    """A ledger's sessions, micro-ε spent on them, and whether its chain holds."""

    sessions: tuple[SessionRow, ...] = ()
    spent: int = 0
    verified: bool = False


def spent_on(sessions: Iterable[SessionRow]) -> int:
    """Return the micro-ε that sessions have cost."""
    return sum(row.charge.micro_epsilon for row in sessions if row.state in SPENT)


def read_ledger(home: Home) -> Told:
    """Return what a party's ledger tells, which the party may use meanwhile; nothing if it is broken."""
    try:
        ledger = Ledger.open(home.state, party=home.name, read_only=True)
    except EngineError:
        return Told()
    try:
        sessions = tuple(ledger.sessions())
        return Told(sessions, spent_on(sessions), ledger.verify() == ledger.head())
    except EngineError:
        return Told()
    finally:
        ledger.close()
