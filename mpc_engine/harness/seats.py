"""Parties of one process that come and go: started from what their disks hold, killed and stopped at will.

A party's code runs in a context of its own, by which its tasks are known and its failpoints are told from the
other parties'. Only what the disk holds outlives it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from mpc_engine.errors import EngineError, LedgerWriteError, PeerError
from mpc_engine.harness.virtual_time import PARTY, Clock
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import HOLDING, SessionRow
from mpc_engine.ledger.sealing import InMemoryKeys
from mpc_engine.party import failpoints
from mpc_engine.party.daemon import Party
from mpc_engine.runtime.memory_switchboard import MemoryExchange
from mpc_engine.runtime.switchboard import Switchboard

T = TypeVar("T")
Build = Callable[[int, Ledger, InMemoryKeys, Switchboard], Party]
"""Makes a party of its number, ledger, keys and connections."""
Reached = Callable[[int, str], None]
"""Told when a party passes a failpoint; may `Seats.kill` it."""
GRACE_S = 30.0
"""How long a party that is stopped may take for what it has committed, as in service."""


class KilledError(BaseException):
    """Ends whatever a party does at the place where it is killed."""


def _nowhere(name: str) -> None:
    """Pass a failpoint outside of every stage."""


_REACH: contextvars.ContextVar[Callable[[str], None]] = contextvars.ContextVar("_REACH", default=_nowhere)
"""What happens at the failpoints of whose code runs."""
_SEAT: contextvars.ContextVar[_Seat | None] = contextvars.ContextVar("_SEAT", default=None)
"""Whose code runs."""


class _Keys(InMemoryKeys):
    """Keys beside a ledger in memory; a copy of them is what a crash would leave."""

    def __init__(self, kept: Mapping[str, bytes]) -> None:
        super().__init__()
        self._keys.update(kept)

    def image(self) -> Mapping[str, bytes]:
        """Return the keys."""
        return dict(self._keys)


@dataclass(frozen=True)
class Disk:
    """What a party's disk holds: its ledger, and the keys beside it. None: nothing yet."""

    ledger: bytes | None = field(default=None, repr=False)
    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    sessions: tuple[SessionRow, ...] = ()


@dataclass(eq=False)
class _Seat:
    """One life of a party, from a start to its end."""

    number: int
    party: Party
    ledger: Ledger
    keys: _Keys
    context: contextvars.Context
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def disk(self) -> Disk:
        return Disk(self.ledger.image(), self.keys.image(), tuple(self.ledger.sessions()))


class Seats:
    """The parties of one stage, by number; entered within the running loop, left with all of them ended.

    Args:
        names: of the parties, in order.
        build: makes a party.
        reached: told of failpoints.
        enter: called in each party's context before it is made.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        exchange: MemoryExchange,
        build: Build,
        reached: Reached,
        enter: Callable[[], None] = lambda: None,
    ) -> None:
        self._names, self._exchange, self._build = names, exchange, build
        self._reached, self._enter = reached, enter
        self._seats: dict[int, _Seat] = {}
        self._ended: list[_Seat] = []
        self._disks: dict[int, Disk] = {}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.clocks = {number: Clock(loop) for number in range(1, len(self._names) + 1)}
        self._before = (loop.get_task_factory(), loop.get_exception_handler(), failpoints.hook)
        loop.set_task_factory(_noting)
        loop.set_exception_handler(_quiet_about_kills)
        failpoints.hook = _reach
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for number in list(self._seats):
                self.kill(number)
            for seat in self._ended:
                await _ended(seat)
        finally:
            loop = asyncio.get_running_loop()
            factory, handler, failpoints.hook = self._before
            loop.set_task_factory(factory)
            loop.set_exception_handler(handler)

    # --- lives --------------------------------------------------------------------------------------

    def runs(self, number: int) -> bool:
        """Tell whether a party runs."""
        return number in self._seats

    def party(self, number: int) -> Party:
        """Return a party that runs. Raises PeerError if it does not."""
        if number not in self._seats:
            raise PeerError(f"{self._names[number - 1]} does not run")
        return self._seats[number].party

    async def start(self, number: int) -> None:
        """Start a party from what its disk holds, unless it runs. Raises EngineError if it cannot start."""
        if number in self._seats:
            return
        name, disk, clock = self._names[number - 1], self.disk(number), self.clocks[number]
        keys = _Keys(disk.keys)
        if disk.ledger is None:
            ledger = Ledger.in_memory(party=name, clock=clock)
        else:
            ledger = Ledger.from_image(disk.ledger, party=name, clock=clock)
        context = contextvars.copy_context()
        context.run(PARTY.set, number)
        context.run(self._enter)
        board = self._exchange.switchboard(number)
        party = context.copy().run(self._build, number, ledger, keys, board)
        seat = self._seats[number] = _Seat(number, party, ledger, keys, context)
        context.run(_SEAT.set, seat)
        context.run(_REACH.set, lambda place: self._pass(seat, place))
        await self.call(number, party.start())

    def kill(self, number: int) -> None:
        """End a party as SIGKILL would, if it runs; also from within its own code, which ends there."""
        seat = self._seats.pop(number, None)
        if seat is None:
            return
        self._disks[number] = seat.disk()
        self._exchange.kill(number)
        self._end(seat)

    async def stop(self, number: int) -> None:
        """Stop a party as SIGTERM would, if it runs."""
        seat = self._seats.get(number)
        if seat is None:
            return
        with suppress(PeerError):  # it was killed meanwhile
            await self.call(number, seat.party.stop(GRACE_S))
            self._disks[number] = seat.disk()
            del self._seats[number]
            self._end(seat)

    async def call(self, number: int, work: Coroutine[Any, Any, T]) -> T:
        """Run what somebody asks of a party as a task of that party, and return what comes of it.

        Raises what it raises, and PeerError if the party does not run or ends before it.
        """
        seat = self._seats.get(number)
        if seat is None:
            work.close()
            raise PeerError(f"{self._names[number - 1]} does not run")
        task = seat.context.copy().run(asyncio.create_task, work)
        over = asyncio.create_task(seat.over.wait())
        try:
            await asyncio.wait((task, over), return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not task.cancelled() and not isinstance(task.exception(), KilledError):
                return task.result()
            raise PeerError(f"the connection to {self._names[number - 1]} was lost")
        finally:
            task.cancel()
            over.cancel()
            await asyncio.gather(task, over, return_exceptions=True)

    # --- what the disks hold ------------------------------------------------------------------------

    def disk(self, number: int) -> Disk:
        """Return what a party's disk holds now."""
        seat = self._seats.get(number)
        return self._disks.get(number, Disk()) if seat is None else seat.disk()

    def sessions(self, number: int) -> tuple[SessionRow, ...]:
        """Return a party's sessions, whether it runs or not."""
        seat = self._seats.get(number)
        return self.disk(number).sessions if seat is None else tuple(seat.ledger.sessions())

    def spent(self, number: int) -> int:
        """Return the micro-ε that a party has spent in all."""
        free = ("ABORTED", *HOLDING)
        return sum(row.charge.micro_epsilon for row in self.sessions(number) if row.state not in free)

    def verified(self, number: int) -> bool:
        """Tell whether the chain of a party's ledger holds, read anew as a start would read it."""
        disk = self.disk(number)
        if disk.ledger is None:
            return False
        try:
            ledger = Ledger.from_image(disk.ledger, party=self._names[number - 1])
        except EngineError:
            return False
        ledger.close()
        return True

    # --- within -------------------------------------------------------------------------------------

    def _pass(self, seat: _Seat, place: str) -> None:
        # What is left of a party that was killed passes nothing.
        if self._seats.get(seat.number) is seat:
            self._reached(seat.number, place)
            if self._seats.get(seat.number) is not seat:
                raise KilledError(place)

    def _end(self, seat: _Seat) -> None:
        seat.over.set()
        self._ended.append(seat)
        for task in seat.tasks:
            task.cancel()


async def _ended(seat: _Seat) -> None:
    """Wait until nothing is left of a life, and close its ledger."""
    me = asyncio.current_task()
    left = [task for task in seat.tasks if task is not me]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    with suppress(LedgerWriteError):
        seat.ledger.close()


def _noting(
    loop: asyncio.AbstractEventLoop, work: Any, context: contextvars.Context | None = None
) -> asyncio.Task[Any]:
    """Make a task, and note whose it is."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    seat = _SEAT.get() if context is None else context.get(_SEAT)
    if seat is not None:
        seat.tasks.append(task)
        if len(seat.tasks) > 100:
            seat.tasks[:] = [each for each in seat.tasks if not each.done()]
    return task


def _quiet_about_kills(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    among = isinstance(error, BaseExceptionGroup) and error.subgroup(KilledError) is not None
    if not (among or isinstance(error, KilledError)):
        loop.default_exception_handler(context)


def _reach(name: str) -> None:
    _REACH.get()(name)
