"""What the tests of attacks and of bad luck share: a hasty household, and looks into its ledgers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from mpc_engine.errors import LedgerWriteError
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.party.record import Record
from mpc_engine.party.situation import Deadlines
from tests.party.household import Household

FAST = Deadlines(connect_s=0.6, round_s=0.6, session_s=6, pause_s=0.1)
Scenario = Callable[[Household], Awaitable[None]]


def run(scenario: Scenario, **options: Any) -> None:
    """Play a scenario in a household that does not wait long for anybody."""

    async def within() -> None:
        async with asyncio.timeout(60), Household(**{"deadlines": FAST, **options}) as house:
            await scenario(house)

    asyncio.run(within())


async def eventually(holds: Callable[[], object], within_s: float = 15.0) -> bool:
    """Tell whether something comes to hold.

    What must come is given time enough for a busy machine; who waits for what must not come says how long.
    """
    for _ in range(int(within_s / 0.02)):
        if holds():
            return True
        await asyncio.sleep(0.02)
    return bool(holds())


@contextmanager
def write_fails(ledger: Ledger, method: str) -> Iterator[list[bool]]:
    """Let a change of a record fail at one party as on a full disk, while the first of the list is True."""
    failing = [True]
    real = getattr(Record, method)

    def change(self: Record, *args: Any) -> Any:
        if self._ledger is ledger and failing[0]:
            raise LedgerWriteError("no space")
        return real(self, *args)

    with mock.patch.object(Record, method, change):
        yield failing


def states(house: Household, ticket: str) -> dict[int, str]:
    """Return the state of a session at each party that runs, empty where there is none."""
    rows = {number: house.ledgers[number].session(ticket) for number in house.parties}
    return {number: "" if row is None else row.state for number, row in rows.items()}


def state_of(house: Household, request: str, number: int = 1) -> str:
    """Return the state of a request at one party, empty where there is none."""
    row = house.ledgers[number].request(request)
    return "" if row is None else row.state


def ticket_of(house: Household, request: str, number: int = 1) -> str:
    """Return the session that a request is in."""
    row = house.ledgers[number].request(request)
    assert row is not None and row.ticket is not None
    return row.ticket


async def idle(house: Household) -> None:
    """Wait until no party runs a session."""
    assert await eventually(lambda: not any(party.runner.running for party in house.parties.values()))
