"""A household that is fuzzed: what must hold after every message, and after all of them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any

from mpc_engine.errors import EngineError, catalogue
from mpc_engine.ledger.charge import Scope
from mpc_engine.party.receipt import check_receipt
from tests.faults.universal import has_opened
from tests.party.household import Household, crosstab, with_policy

SPENT = ("COMMITTED", "PATTERN", "OPENED", "SIGNED", "RELEASED", "LOST", "ADOPTED")
REASONS = frozenset(cls.reason for cls in catalogue()) - {"INTERNAL"}
_MARKS = ("Traceback", 'File "', "object at 0x", "line ", "sqlite", "pydantic", "errors.pydantic.dev")
_FALLEN = ("party.failed", "session.failed", "session.publish_failed")
"""Events that tell of a failure which nobody foresaw."""


def check_failure(error: BaseException, seen: Counter[str]) -> None:
    """Check that a failure is one of the catalogue and tells nothing of the engine's inside; count it."""
    if not isinstance(error, EngineError):
        raise AssertionError(f"{type(error).__name__} came out") from error
    assert error.reason in REASONS, f"{error.reason}: {error}"
    check_words(str(error))
    seen[error.reason] += 1


def check_words(text: str) -> None:
    """Check that a text for others is no traceback and quotes nothing at length."""
    for mark in _MARKS:
        assert mark not in text or mark == "line ", text
    assert len(text) < 20_000, text[:200]


def manual_at(number: int) -> dict[int, dict[str, Any]]:
    """Return policies by which one party's operator decides."""
    return {number: with_policy(approval="manual")}


class Ordeal:
    """Requests in all states at a household's parties, and checks of its state. All follows from the seed."""

    def __init__(self, house: Household, rng: random.Random) -> None:
        self.house, self.rng = house, rng
        self.requests: list[str] = []
        self.seen: Counter[str] = Counter()
        self.fresh = 0

    async def attempt(self, call: Awaitable[Any]) -> Any:
        """Await a call; None if it fails, as it may."""
        try:
            answer = await call
        except Exception as error:
            check_failure(error, self.seen)
            return None
        self.seen["OK"] += 1
        return answer

    async def live(self) -> None:
        """Let something happen that happens to honest parties: a request, a decision, a withdrawal."""
        number = self.rng.choice(sorted(self.house.parties))
        with suppress(EngineError):
            match self.rng.randrange(5):
                case 0 | 1:
                    self.fresh += 1
                    query = crosstab(self.rng.choice(("0.1", "0.2")), title=f"question {self.fresh}")
                    status = await self.house.submit(query, f"live {self.fresh}", number)
                    self.requests.append(status.id)
                case 2 if self.requests:
                    fields = {"id": self.rng.choice(self.requests), "operator": "eve", "reason": ""}
                    for each in self.house.parties.values():
                        with suppress(EngineError):
                            await each.operator.handle("approve", fields)
                case 3 if self.requests:
                    fields = {"id": self.rng.choice(self.requests), "operator": "eve", "reason": "no"}
                    await self.house.parties[number].operator.handle("reject", fields)
                case 4 if self.requests and self.rng.random() < 0.3:
                    await self.house.call(number, "Withdraw", id=self.rng.choice(self.requests))

    def request(self) -> str:
        """Return the id of a request, or of none."""
        return self.rng.choice(self.requests) if self.requests and self.rng.random() < 0.8 else 32 * "a"

    def ticket(self) -> str:
        """Return the ticket of a session, or of none."""
        tickets = [row.ticket for ledger in self.house.ledgers.values() for row in ledger.sessions()]
        return (
            self.rng.choice(tickets) if tickets and self.rng.random() < 0.8 else self.rng.randbytes(16).hex()
        )

    # --- at the end ---------------------------------------------------------------------------------

    async def serves_a_fresh_query(self, title: str = "fresh") -> None:
        """Ask what nobody has asked, at every party in turn, and check release, receipt and debit."""
        house = self.house
        before = {number: house.spent(number) for number in house.parties}
        status = await house.submit(crosstab("0.5", title=title), f"key of {title}")
        await self.approved(status.id)
        done = await house.until(status.id)
        assert done.ticket is not None
        await house.settled(done.ticket)
        results = [await house.call(number, "Result", id=status.id) for number in house.parties]
        assert all(result == results[0] for result in results)
        cards = {each.name: (each.card,) for each in house.identities}
        findings = check_receipt(results[0]["receipt"], results[0]["release"], cards)
        assert all(finding.ok for finding in findings), findings
        # Others may have been published meanwhile: at least this one was debited.
        assert all(house.spent(number) >= before[number] + 500_000 for number in before)

    async def approved(self, request: str) -> None:
        """Have a request approved wherever an operator must do so, as soon as it has come there."""
        async with asyncio.timeout(600):
            for number, party in self.house.parties.items():
                ledger = self.house.ledgers[number]
                while (row := ledger.request(request)) is None:
                    await asyncio.sleep(0.05)
                if party.situation().name not in ledger.decisions(row.id):
                    await party.operator.handle("approve", {"id": request, "operator": "eve"})

    def is_sound(self, quiet: bool = True) -> None:
        """Check ledgers, budgets and journal; `quiet`: nothing runs any more, so nothing may be held."""
        house = self.house
        for number, ledger in house.ledgers.items():
            ledger.verify()
            assert not ledger.broken
            rows = ledger.sessions()
            spent = {row.ticket: row.charge.micro_epsilon for row in rows if row.state in SPENT}
            booked = ledger.spent(Scope("analyst", house.analyst.name)).micro_epsilon
            assert sum(spent.values()) == booked, number
            if quiet:
                assert not [row for row in rows if row.state in ("RESERVED", "COMPUTING")], number
        opened = {
            row.ticket for ledger in house.ledgers.values() for row in ledger.sessions() if has_opened(row)
        }
        for number, ledger in house.ledgers.items():
            debited = {row.ticket for row in ledger.sessions(*SPENT)}
            assert opened <= debited, f"party {number} has not spent what was opened"
        self.is_calm()

    def is_calm(self) -> None:
        """Check that nothing unforeseen was noted, and no reason that is not in the catalogue."""
        fallen = [entry for entry in self.house.journal if entry[1] in _FALLEN]
        assert not fallen, fallen[:5]
        reasons = {str(fields["reason"]) for _, _, fields in self.house.journal if "reason" in fields}
        assert reasons <= REASONS, reasons - REASONS

    async def mend(self, pairs: Sequence[tuple[int, int]] = ((1, 2), (1, 3), (2, 3))) -> None:
        """Do what operators would after a peer went mad: new connections, and `party recover` everywhere."""
        for one, two in pairs:
            self.house.exchange.cut(one, two)
        for one, two in pairs:
            self.house.exchange.heal(one, two)
        await self.connected()
        for party in self.house.parties.values():
            await party.operator.handle("recover", {})

    async def connected(self) -> None:
        """Wait until all lines stand."""
        async with asyncio.timeout(600):
            while not all(
                party._switchboard.connected(peer)
                for party in self.house.parties.values()
                for peer in party.situation().peers
            ):
                await asyncio.sleep(0.1)
