"""What must hold after every fault, whatever it was: the universal outcome U of the fault matrix.

1. whoever waits gets a documented reason; 2. a party has spent at least what anyone could have opened;
3. at most one release per session, and none unless all have committed; 4. the party then serves a fresh
query; 5. no canary in any log; 6. the audit chain verifies; 7. nothing is left over: no task, session, link
or descriptor.

`check_universal` looks at 1, 2, 3, 5 and 6 in ledgers and logs; its two callers add 4 and 7: `Parties.holds`
for processes, `house_holds` for parties in one process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from mpc_engine.errors import catalogue
from mpc_engine.ledger.reading import Reading
from mpc_engine.ledger.rows import HOLDING, PUBLISHING, SessionRow
from tests.party.household import Household, crosstab

CANARIES = ("canary-folder-93e1", "canary-title-5b07", "canary-record-4711")
REASONS = frozenset(cls.reason for cls in catalogue()) - {"INTERNAL"}
OPENING = ("PATTERN", "OPENED", "SIGNED", "RELEASED")
"""States of a session that goes on or is released in which a party has opened something."""
SPENT = (*PUBLISHING, "RELEASED", "LOST", "ADOPTED")


def has_opened(row: SessionRow) -> bool:
    """Tell whether a party has seen anything of what a session opens, whatever became of the session then.

    One that has given it up is LOST, and keeps the hash of the pattern that it saw.
    """
    return row.state in OPENING or row.pattern_hash is not None or bool(row.release_digest)


def check_universal(ledgers: Mapping[str, Reading], texts: Iterable[str], roster: int) -> None:
    """Check what ledgers and logs tell, when nothing runs any more; `roster` is the number of parties."""
    rows = {name: {row.ticket: row for row in ledger.sessions()} for name, ledger in ledgers.items()}
    for name, ledger in ledgers.items():
        verify = getattr(ledger, "verify", None)
        assert verify is not None and verify() == ledger.head()
        for request in ledger.requests():
            assert request.reason in ("", *REASONS), (name, request.reason)
            if request.state in ("RETURNED", "REJECTED"):
                assert request.reason, (name, request.id)
        for row in rows[name].values():
            assert row.state not in (*HOLDING, *PUBLISHING), (name, row.ticket, row.state)
            assert row.reason in ("", *REASONS), (name, row.reason)
            for scope, (_, state) in ledger.charges(row.ticket).items():
                expected = ("spent", "adopted") if row.state in SPENT else ("released",)
                assert state in expected, (name, scope, state)
    for ticket in {ticket for each in rows.values() for ticket in each}:
        found = {name: each[ticket] for name, each in rows.items() if ticket in each}
        releases = {ledger.release(ticket) for ledger in ledgers.values()} - {None}
        assert len(releases) <= 1, f"two releases of the session {ticket}"
        if releases or any(has_opened(row) for row in found.values()):
            states = {name: row.state for name, row in found.items()}
            assert len(found) == roster and all(row.state in SPENT for row in found.values()), states
            assert len({row.charge for row in found.values()}) == 1
    for ledger in ledgers.values():
        questions = [row.question for row in ledger.sessions("RELEASED")]
        assert len(questions) == len(set(questions)), "a question was answered twice"
    for text in texts:
        assert not [canary for canary in CANARIES if canary in text]


async def house_holds(house: Household, title: str = "fresh") -> None:
    """Check the universal outcome at the parties of a household; ends their work."""
    status = await house.submit(crosstab("0.25", title=title), f"key of {title}")
    done = await house.until(status.id)
    await house.settled(done.ticket or "")
    async with asyncio.timeout(60):
        while any(
            party.runner.running or ledger.sessions(*HOLDING, *PUBLISHING)
            for party, ledger in zip(house.parties.values(), house.ledgers.values(), strict=True)
        ):
            await asyncio.sleep(0.02)
    texts = [repr(house.journal)]
    ledgers: dict[str, Reading] = {str(number): ledger for number, ledger in house.ledgers.items()}
    check_universal(ledgers, texts, len(house.silos))
    assert not any(keys.tickets() for keys in house.keys.values())
    for party in house.parties.values():
        # Its tick, and nothing that belonged to a session.
        assert len(party._tasks) == 1 and not party.runner._tasks
        assert not party.runner.publishing._news and not party.runner.phases
    for number in house.parties:
        assert not house.exchange._boards[number].wires
