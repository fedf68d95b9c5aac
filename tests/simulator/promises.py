"""What must hold of simulated parties: of their ledgers at any time, of what they send, and in the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from mpc_engine.errors import LedgerBrokenError, catalogue
from mpc_engine.ledger.chain import Entry
from mpc_engine.ledger.rows import HOLDING, PUBLISHING, SessionRow
from mpc_engine.runtime.link import MessageKey, Section
from tests.simulator.cast import AFFORDED, Cast
from tests.simulator.world import BrokenError, Invariant, World

if TYPE_CHECKING:
    from tests.simulator.registry import Registry

SPENT = (*PUBLISHING, "RELEASED", "LOST", "ADOPTED")
REASONS = {cls.reason for cls in catalogue()} - {"INTERNAL"}
"""Reasons that a person may be told."""

Sessions = Callable[[World, int], Sequence[SessionRow]]
"""Returns a party's sessions, whether it runs or not."""
Running = Callable[[World], Mapping[int, "Registry"]]


class Openings:
    """Watches what is opened: all have paid for it, and nobody ever sends two different shares."""

    def __init__(self, cast: Cast, sessions: Sessions) -> None:
        self.world: World | None = None
        self._cast, self._sessions = cast, sessions
        self._shares: dict[tuple[int, int, bytes, MessageKey], bytes] = {}

    def __call__(self, sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes) -> None:
        """Look at one message of a link from a party that does not lie."""
        if key.section not in (Section.PATTERN, Section.VALUES) or self.world is None:
            return
        share = sha256(content).digest()
        if self._shares.setdefault((sender, 0, session, key), share) != share:
            self.world.broke(f"party {sender} opens two different shares in session {session.hex()}")
        for number in self._cast.numbers:
            if number in self.world.set_back:
                continue  # it has forgotten what it paid, and will be told
            rows = self._sessions(self.world, number)
            if not any(row.session_id == session.hex() and row.state in SPENT for row in rows):
                self.world.broke(f"party {sender} opens what party {number} has not debited")


def all_promises(
    cast: Cast, sessions: Sessions, running: Running, afforded: int = AFFORDED
) -> tuple[Invariant, ...]:
    """Return everything that must hold of the parties of a cast."""

    def within_budget(world: World, settled: bool) -> None:
        """No party spends, or holds, more than its budget; the last, fresh question has its own."""
        most = afforded + settled
        for number in cast.numbers:
            if number in world.set_back or not cast.silos[number - 1]:
                continue
            rows = [row for row in sessions(world, number) if row.state in (*SPENT, *HOLDING)]
            if len(rows) > most and number in world.stations:
                raise BrokenError(f"party {number} spent or held {len(rows)} times, and can afford {most}")

    def one_release(world: World, settled: bool) -> None:
        """A session has one release, the same everywhere, and a question one session that answers it."""
        releases: dict[str, set[str]] = {}
        for number in cast.numbers:
            answered: set[str] = set()
            for row in sessions(world, number):
                if row.release_digest:
                    releases.setdefault(row.ticket, set()).add(row.release_digest)
                    if row.question in answered and row.state != "LOST":
                        raise BrokenError(f"party {number} has two releases for one question")
                    if row.state != "LOST":
                        answered.add(row.question)
        if any(len(each) > 1 for each in releases.values()):
            raise BrokenError("a session has two different releases")

    ended: set[tuple[int, str]] = set()

    def ended_by_a_crash(world: World, settled: bool) -> None:
        """What held budget when its party was killed is never run again."""
        for number in cast.numbers:
            for row in sessions(world, number):
                place = (number, row.ticket)
                if number not in world.stations and row.state in HOLDING:
                    ended.add(place)
                elif place in ended and row.state in (*PUBLISHING, "RELEASED", "LOST"):
                    raise BrokenError(f"party {number} went on with a session that a crash had ended")

    def documented(world: World, settled: bool) -> None:
        """Whatever people are told has a reason of the catalogue."""
        told = set(world.refusals)
        if settled:
            for station in running(world).values():
                told |= {row.reason for row in station.ledger.requests()}
                told |= {row.reason for row in station.ledger.sessions()}
        if unknown := told - REASONS - {""}:
            raise BrokenError(f"reasons that nobody has documented: {', '.join(sorted(unknown))}")

    def same_requests(world: World, settled: bool) -> None:
        """In the end all parties say the same of every request, and know the same decisions."""
        if not settled or world.ever_set_back:
            return
        known = {
            number: {row.id: row.state for row in station.ledger.requests()}
            for number, station in running(world).items()
        }
        if any(each != known[1] for each in known.values()):
            raise BrokenError(f"the parties differ on their requests: {known}")

    def all_settled(world: World, settled: bool) -> None:
        """In the end every session has ended, alike for all that released it, and every chain verifies."""
        if not settled:
            return
        states: dict[str, dict[int, str]] = {}
        for number, station in running(world).items():
            try:
                station.ledger.verify()
            except LedgerBrokenError as error:
                raise BrokenError(f"the ledger of party {number} does not verify: {error}") from error
            if station.keys.tickets():
                raise BrokenError(f"party {number} keeps the keys of shares that nobody needs")
            for row in station.ledger.sessions():
                states.setdefault(row.ticket, {})[number] = row.state
        for ticket, found in states.items():
            if set(found.values()) & {*HOLDING, *PUBLISHING}:
                raise BrokenError(f"session {ticket} has not ended: {found}")
            if "RELEASED" in found.values():
                others = {"ADOPTED", "LOST"} if world.liars or world.ever_set_back else set()
                if len(found) < len(cast.numbers) or not set(found.values()) <= {"RELEASED"} | others:
                    raise BrokenError(f"session {ticket} was not released by all: {found}")
                if any(state not in SPENT for state in found.values()):
                    raise BrokenError(f"session {ticket} was released and not paid by all: {found}")

    return (within_budget, one_release, ended_by_a_crash, documented, same_requests, all_settled)


def fields_of(entry: Entry) -> dict[str, Any]:
    """Return the fields of an audit entry."""
    return dict(json.loads(entry.fields))
