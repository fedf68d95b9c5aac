"""Real parties for the simulator: daemons with ledgers in memory, killed, stopped and put back at will."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from mpc_engine.errors import LedgerWriteError, catalogue
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import HOLDING, PUBLISHING, SessionRow
from mpc_engine.ledger.sealing import InMemoryKeys
from mpc_engine.ledger.transaction import Transaction
from mpc_engine.party import failpoints
from mpc_engine.party.daemon import Party
from mpc_engine.party.submission import request_id
from tests.simulator import promises
from tests.simulator.cast import AFFORDED, FIVE, RICH, THREE, Cast, Records, identity, situation, submission
from tests.simulator.operations import WRITE, Op, Recipe
from tests.simulator.world import REACH, BrokenError, Seat, World, nothing_more

RECIPE = Recipe(
    requests=4,
    length=9,
    places=(WRITE, *failpoints.FAILPOINTS),
    weights={
        **Recipe().weights,
        "twice": 0.5,
        "policy": 0.4,
        "snapshot": 0.5,
        "full": 0.5,
        "stop": 1.0,
    },
    rare={"lie": 0.15, "rollback": 0.1},
)
FULL_S = 30.0
"""How long a full disk stays so."""
_GRACE_S = 5.0
_UNFORESEEN = ("party.failed", "session.failed", "session.publish_failed")
"""Events that tell of an exception; it must be one of the engine's own."""
_ERRORS = {cls.__name__ for cls in catalogue()} - {"EngineError"}

Happened = Callable[[int, str, str, str], None]
"""Told what a ledger takes in about a session: the party, the kind of entry, the ticket and the request."""


class _Disk(Ledger):
    """A ledger whose party can be killed after every transaction, and whose disk can be full."""

    number = 0
    happened: Happened | None = None
    _left: int | None = None
    _full_until = 0.0

    def fill(self, writes: int) -> None:
        """Take nothing from the `writes`-th transaction from now on, for a while."""
        self._left, self._full_until = writes, 0.0

    def mend(self) -> None:
        """Have space again, for ever."""
        self._left = None

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        before = self.head().seq if self.happened is not None else 0
        with super().transaction() as tx:
            yield tx
            self._check_space()
        if self.happened is not None:
            self._tell(before)
        REACH.get()(WRITE)

    def _check_space(self) -> None:
        if self._left is None:
            return
        now = asyncio.get_running_loop().time()
        self._left = max(self._left - 1, 0)
        if self._left == 0:
            self._full_until = self._full_until or now + FULL_S
            if now < self._full_until:
                raise LedgerWriteError("the ledger cannot be written (SQLITE_FULL)")
            self._left = None

    def _tell(self, before: int) -> None:
        for entry in self.entries(before):
            fields = promises.fields_of(entry)
            if "ticket" in fields and self.happened is not None:
                self.happened(self.number, entry.kind, fields["ticket"], fields.get("request", ""))


@dataclass(frozen=True)
class Image:
    """What a party's disk holds: the ledger, the keys beside it, and which policy and records are there."""

    ledger: bytes
    keys: dict[str, bytes]
    sessions: Sequence[SessionRow]
    policy: int
    edition: int


def restored(old: Image, now: Image) -> Image:
    """Return what a disk holds whose ledger is put back from a copy; no copy has keys."""
    return replace(now, ledger=old.ledger, sessions=old.sessions)


class Registry:
    """One party's station."""

    def __init__(
        self,
        seat: Seat,
        cast: Cast,
        policy: int,
        unforeseen: Callable[[str], None],
        happened: Happened | None,
    ) -> None:
        name, disk = cast.names[seat.number - 1], seat.image
        self.cast, self.number = cast, seat.number
        self.keys = InMemoryKeys()
        self.policy, edition = policy, 0
        if isinstance(disk, Image):
            self.keys._keys.update(disk.keys)
            self.ledger = _Disk.from_image(disk.ledger, party=name, clock=seat.clock)
            self.policy, edition = disk.policy, disk.edition
        else:
            self.ledger = _Disk.in_memory(party=name, clock=seat.clock)
        self.ledger.number, self.ledger.happened = seat.number, happened
        self.records = Records(cast, seat.number, edition)

        def journal(event: str, /, **fields: str | int) -> None:
            if event in _UNFORESEEN and fields.get("kind") not in _ERRORS:
                unforeseen(f"party {seat.number} met something unforeseen: {event} {fields}")

        self.party = Party(
            situation(cast, seat.number, self.policy),
            self.ledger,
            self.keys,
            seat.switchboard,
            self.records,
            journal=journal,
            clock=seat.clock,
        )

    async def run(self) -> None:
        """Run the party until it fails, is stopped or killed."""
        await self.party.start()
        await self.party.failed()

    async def stop(self) -> None:
        """Stop the party as SIGTERM does."""
        await self.party.stop(_GRACE_S)

    def image(self) -> Image:
        """Return what the disk would hold after a crash at this moment."""
        sessions = self.ledger.sessions()
        return Image(self.ledger.image(), dict(self.keys._keys), sessions, self.policy, self.records.edition)

    def use(self, policy: int) -> None:
        """Take on another policy."""
        self.policy = policy
        self.party.reload(situation(self.cast, self.number, policy))

    async def do(self, op: Op) -> None:
        """Do what a person asks for. Raises EngineError."""
        desk = self.party.desk
        match op.kind:
            case "submit":
                desk.submit(submission(op.place or f"key{op.number}", op.number))
            case "differ":
                desk.submit(submission(f"key{op.number}", 1 - op.number % 2))
            case "policy":
                self.use(op.number)
            case "snapshot":
                self.records.edition += 1
                self.party.reload(situation(self.cast, self.number, self.policy))
            case "full":
                self.ledger.fill(op.number)
            case "mend":
                self.ledger.mend()
            case "recover":
                await self.party.recovery.recover()
            case _:
                request = request_id(identity("ada", "analyst").card.fingerprint, f"key{op.number}")
                if op.kind == "withdraw":
                    desk.withdraw(request)
                else:
                    desk.decide(request, "approved" if op.kind == "approve" else "rejected", "operator")


def running(world: World) -> dict[int, Registry]:
    """Return the parties that run, by number."""
    return {number: each for number, each in world.stations.items() if isinstance(each, Registry)}


def sessions(world: World, number: int) -> Sequence[SessionRow]:
    """Return a party's sessions, whether it runs or not."""
    station = world.stations.get(number)
    if isinstance(station, Registry):
        return station.ledger.sessions()
    disk = world.disks.get(number)
    return disk.sessions if isinstance(disk, Image) else ()


def quiet(world: World) -> bool:
    """Tell that no session runs, no message is owed and no request is about to begin."""
    for each in running(world).values():
        if (
            each.ledger.sessions(*HOLDING, *PUBLISHING)
            # Requests of which a party that was put back knows nothing wait for ever.
            or (not world.ever_set_back and each.ledger.requests(states=("REVIEWED", "APPROVED")))
            or any(each.ledger.outgoing(each.cast.names[peer - 1]) for peer in each.party.situation().peers)
        ):
            return False
    return True


async def ask_afresh(world: World) -> None:
    """See that a new question, for which there is budget, is answered everywhere."""
    stations = running(world)
    for station in stations.values():
        station.use(RICH)
    await asyncio.sleep(1.0)
    submitted = submission("fresh", -1)
    stations[2].party.desk.submit(submitted)

    def released(world: World) -> bool:
        rows = [each.ledger.request(submitted.request_id) for each in stations.values()]
        return all(row is not None and row.state == "RELEASED" for row in rows) and quiet(world)

    if not await world.until(released, 1_000.0):
        rows = {number: each.ledger.request(submitted.request_id) for number, each in stations.items()}
        told = {number: row and f"{row.state} {row.reason} {row.detail}" for number, row in rows.items()}
        raise BrokenError(f"a fresh request is not answered: {told}")


def registries(
    seed: int,
    ops: Sequence[Op] | None,
    happened: Happened | None = None,
    afforded: int = AFFORDED,
) -> World:
    """Return a world of real parties; every twentieth seed has five of them.

    Every fourth seed and those with five end with a fresh question, which has to be answered.
    """
    failpoints.hook = _reach
    cast = FIVE if seed % 20 == 19 else THREE
    openings = promises.Openings(cast, sessions)

    def start(seat: Seat) -> Registry:
        def alive() -> bool:
            # What is left of a party that was killed does nothing that counts.
            return world.stations.get(seat.number) is station

        def told(number: int, kind: str, ticket: str, request: str) -> None:
            if happened is not None and alive():
                happened(number, kind, ticket, request)

        station = Registry(
            seat, cast, seed % 2, lambda words: world.broke(words) if alive() else None, happened and told
        )
        return station

    world = World(
        seed,
        start,
        promises.all_promises(cast, sessions, running, afforded),
        recipe=RECIPE._replace(parties=len(cast.names)),
        ops=ops,
        watch=openings,
        quiet=quiet,
        restored=restored,
        last=ask_afresh if seed % 4 == 0 or cast is FIVE else nothing_more,
        computing=cast.computing,
    )
    openings.world = world
    return world


def _reach(name: str) -> None:
    REACH.get()(name)
