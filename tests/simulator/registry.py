"""Three real parties for the simulator, and what must hold of their ledgers and of what they send.

Parties 1 and 2 hold records, party 3 helps. The budget of each data set is enough for two releases.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from hashlib import sha256
from typing import Any

import numpy as np

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.identity import Analyst, Identity, Terms, throwaway_identity
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import HOLDING, PUBLISHING, SessionRow
from mpc_engine.ledger.sealing import InMemoryKeys
from mpc_engine.ledger.transaction import Transaction
from mpc_engine.party import failpoints
from mpc_engine.party.daemon import Party
from mpc_engine.party.messages import Submission, make_submission, request_id
from mpc_engine.party.policy import BudgetLimits, Policy
from mpc_engine.party.proposal import propose
from mpc_engine.party.roster import Directory
from mpc_engine.party.situation import Counted, Situation
from mpc_engine.release.plan import Member
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query
from mpc_engine.transport.endpoint import Endpoint
from tests.simulator.operations import WRITE, Op, Recipe
from tests.simulator.virtual_time import START
from tests.simulator.world import REACH, BrokenError, Seat, World

NAMES = ("uk", "us", "helper")
AFFORDED = 2
"""So many releases the budget allows."""
SPENT = (*PUBLISHING, "RELEASED", "LOST", "ADOPTED")
RECIPE = Recipe(requests=4, length=9, places=(WRITE, *failpoints.FAILPOINTS))
BOOK = parse(
    {"name": "study", "version": "1", "variables": {"sex": {"kind": "category", "categories": ["f", "m"]}}},
    Codebook,
    "codebook",
)
_PRIVACY = {"epsilon": "1", "rule": "noisy", "threshold": 5, "max_records_per_patient": 1}
QUERIES = (
    {"preset": "count", "privacy": _PRIVACY},
    {"preset": "crosstab", "by": ["sex"], "privacy": _PRIVACY},
    {"preset": "count", "privacy": _PRIVACY | {"threshold": 6}},
    {"preset": "count", "privacy": _PRIVACY},
)
"""The question of each request; the first is asked a second time under another key."""


@functools.cache
def identity(name: str, role: Any = "party") -> Identity:
    """Return the identity of a party or analyst, the same for all worlds of this process."""
    address = "127.0.0.1:1" if role == "party" else ""
    return throwaway_identity(name, address=address, role=role, clock=lambda: START - timedelta(days=100))


@functools.cache
def directory() -> Directory:
    """Return the roster with everybody's cards."""
    cards = [identity(name).card for name in NAMES]
    return Directory(
        tuple(
            Member(name, True, name != "helper", card.origin_fingerprint, 1 << 20)
            for name, card in zip(NAMES, cards, strict=True)
        ),
        tuple(
            Endpoint(number, name, card.address, (card.pinned.pem,), True)
            for number, (name, card) in enumerate(zip(NAMES, cards, strict=True), start=1)
        ),
        tuple((card,) for card in cards),
    )


def situation(number: int) -> Situation:
    """Return what a party is; the second approves cross-tabulations by hand."""
    silo = NAMES[number - 1] != "helper"
    analyst = identity("ada", "analyst").card
    policy = Policy(
        "1",
        1,
        approvals={"crosstab": "manual"} if number == 2 else {},
        budget=BudgetLimits(Fraction(AFFORDED)),
    )
    return Situation(
        number,
        directory(),
        identity(NAMES[number - 1]),
        policy,
        f"cancers of {NAMES[number - 1]}" if silo else "",
        BOOK,
        {analyst.fingerprint: Analyst("ada", (analyst,), Terms(budget="100"))},
    )


@functools.cache
def submission(number: int, question: int) -> Submission:
    """Return the request under key `number`."""
    query = parse_query(QUERIES[question])
    return make_submission(
        query, BOOK.digest(), "colon", f"key{number}", identity("ada", "analyst"), lambda: START
    )


class Records:
    """Counts records that every silo has alike."""

    def __init__(self, number: int) -> None:
        self._silo = NAMES[number - 1] != "helper"
        self._snapshot = f"{number:032x}" if self._silo else ""

    def snapshot(self) -> str:
        """Return the id of the registered records."""
        return self._snapshot

    async def count(self, query: Query, codebook: Codebook) -> Counted:
        """Return twenty in each cell."""
        if not self._silo:
            return Counted("", None)
        plan = propose(query, codebook, directory().members).plan(query.privacy.threshold)
        return Counted(self._snapshot, tuple(np.full((2, line.cells), 20, np.int64) for line in plan.lines))


class _Disk(Ledger):
    """A ledger whose party can be killed after every transaction."""

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with super().transaction() as tx:
            yield tx
        REACH.get()(WRITE)


@dataclass(frozen=True)
class Image:
    """What a killed party's disk holds."""

    ledger: bytes
    keys: dict[str, bytes]
    sessions: Sequence[SessionRow]


class Registry:
    """One party's station."""

    def __init__(self, seat: Seat) -> None:
        name, disk = NAMES[seat.number - 1], seat.image
        self.keys = InMemoryKeys()
        if isinstance(disk, Image):
            self.keys._keys.update(disk.keys)
            self.ledger = _Disk.from_image(disk.ledger, party=name, clock=seat.clock)
        else:
            self.ledger = _Disk.in_memory(party=name, clock=seat.clock)
        self.party = Party(
            situation(seat.number),
            self.ledger,
            self.keys,
            seat.switchboard,
            Records(seat.number),
            clock=seat.clock,
        )

    async def run(self) -> None:
        """Run the party until it fails or is killed."""
        await self.party.start()
        await self.party.failed()

    def image(self) -> Image:
        """Return what the disk would hold after a crash at this moment."""
        return Image(self.ledger.image(), dict(self.keys._keys), self.ledger.sessions())

    async def do(self, op: Op) -> None:
        """Do what a person asks for."""
        if op.kind in ("submit", "differ"):
            self.party.desk.submit(
                submission(op.number, op.number if op.kind == "submit" else 1 - op.number % 2)
            )
            return
        request = request_id(identity("ada", "analyst").card.fingerprint, f"key{op.number}")
        if op.kind == "withdraw":
            self.party.desk.withdraw(request)
        else:
            self.party.desk.decide(request, "approved" if op.kind == "approve" else "rejected", "operator")


def sessions(world: World, number: int) -> Sequence[SessionRow]:
    """Return a party's sessions, whether it runs or not."""
    station = world.stations.get(number)
    if isinstance(station, Registry):
        return station.ledger.sessions()
    disk = world.disks.get(number)
    return disk.sessions if isinstance(disk, Image) else ()


class Openings:
    """Watches what is opened: all have paid for it, and nobody ever sends two different shares."""

    def __init__(self) -> None:
        self.world: World | None = None
        self._shares: dict[tuple[int, bytes, MessageKey], bytes] = {}

    def __call__(self, sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes) -> None:
        """Look at one message of a link."""
        if key.section not in (Section.PATTERN, Section.VALUES) or self.world is None:
            return
        share = sha256(content).digest()
        if self._shares.setdefault((sender, session, key), share) != share:
            self.world.broke(f"party {sender} opens two different shares in session {session.hex()}")
        for number in range(1, len(NAMES) + 1):
            paid = any(
                row.session_id == session.hex() and row.state in SPENT for row in sessions(self.world, number)
            )
            if not paid:
                self.world.broke(f"party {sender} opens what party {number} has not debited")


def within_budget(world: World, settled: bool) -> None:
    """No party spends, or holds, more than its budget."""
    for number in range(1, len(NAMES) + 1):
        rows = [row for row in sessions(world, number) if row.state in (*SPENT, *HOLDING)]
        if len(rows) > AFFORDED and NAMES[number - 1] != "helper":
            raise BrokenError(f"party {number} spent or held {len(rows)} times, and can afford {AFFORDED}")


def one_release(world: World, settled: bool) -> None:
    """A session has one release, the same everywhere, and a question one session that answers it."""
    releases: dict[str, set[str]] = {}
    for number in range(1, len(NAMES) + 1):
        answered: set[str] = set()
        for row in sessions(world, number):
            if row.release_digest:
                releases.setdefault(row.ticket, set()).add(row.release_digest)
                if row.question in answered:
                    raise BrokenError(f"party {number} has two releases for one question")
                answered.add(row.question)
    if any(len(each) > 1 for each in releases.values()):
        raise BrokenError("a session has two different releases")


def quiet(world: World) -> bool:
    """Tell that no session runs, no message is owed and no request is about to begin."""
    for number, station in world.stations.items():
        if isinstance(station, Registry):
            ledger = station.ledger
            peers = [name for other, name in enumerate(NAMES, start=1) if other != number]
            if (
                ledger.sessions(*HOLDING, *PUBLISHING)
                or ledger.requests(states=("REVIEWED", "APPROVED"))
                or any(ledger.outgoing(peer) for peer in peers)
            ):
                return False
    return True


def same_requests(world: World, settled: bool) -> None:
    """In the end all parties say the same of every request."""
    known = [
        {row.id: row.state for row in station.ledger.requests()}
        for station in world.stations.values()
        if isinstance(station, Registry)
    ]
    if settled and any(each != known[0] for each in known):
        raise BrokenError(f"the parties differ on their requests: {known}")


def all_settled(world: World, settled: bool) -> None:
    """In the end every session has ended, the same way for all that released it, and every chain verifies."""
    if not settled:
        return
    states: dict[str, set[str]] = {}
    for number, station in world.stations.items():
        if isinstance(station, Registry):
            station.ledger.verify()
        for row in sessions(world, number):
            states.setdefault(row.ticket, set()).add(row.state)
    for ticket, found in states.items():
        if found & {*HOLDING, *PUBLISHING}:
            raise BrokenError(f"session {ticket} has not ended: {', '.join(sorted(found))}")
        if "RELEASED" in found and found != {"RELEASED"}:
            raise BrokenError(f"session {ticket} was not released by all: {', '.join(sorted(found))}")


def registries(seed: int, ops: Sequence[Op] | None) -> World:
    """Return a world of real parties."""
    failpoints.hook = _reach
    watch = Openings()
    world = World(
        seed,
        Registry,
        (within_budget, one_release, all_settled, same_requests),
        recipe=RECIPE,
        ops=ops,
        watch=watch,
        quiet=quiet,
    )
    watch.world = world
    return world


def _reach(name: str) -> None:
    REACH.get()(name)
