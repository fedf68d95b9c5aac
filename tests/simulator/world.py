"""A world of parties in virtual time, to which a list of operations happens.

The world knows the parties only as stations; what runs in them is the business of whoever builds them. One
seed fixes everything, in any process: the operating system's randomness, delays and losses, and how the
parties' steps interleave.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from unittest import mock

import numpy as np

from mpc_engine.errors import EngineError
from mpc_engine.harness import virtual_time
from mpc_engine.harness.virtual_time import PARTY, Clock
from mpc_engine.runtime.memory_switchboard import MemoryExchange
from mpc_engine.runtime.switchboard import Switchboard
from tests.simulator.operations import Op, Recipe
from tests.simulator.weather import Watch, Weather

MOST_STEPS = 100_000
"""After so many turns of the loop a run counts as one that never ends."""


class BrokenError(Exception):
    """An invariant does not hold, or a party fell over; says which and when."""


class Killed(BaseException):
    """Ends whatever a party does at the place where it is killed."""


@dataclass
class Seat:
    """Where a party is started: its number, connections and clock, and what its disk holds (None: nothing).

    `reach` is to be called at places where the party may be killed; it then raises `Killed`.
    """

    number: int
    switchboard: Switchboard
    clock: Clock
    image: Any
    reach: Callable[[str], None]


class Station(Protocol):
    """One running party."""

    async def run(self) -> None:
        """Run until cancelled."""

    def image(self) -> Any:
        """Return what the disk would hold if the party were killed now."""

    async def do(self, op: Op) -> None:
        """Do what a person asks for, or what brings the party in order at last. Raises EngineError."""

    async def stop(self) -> None:
        """End in good order; `run` ends too."""


def _nowhere(place: str) -> None:
    """Reach a place outside of every world."""


REACH: contextvars.ContextVar[Callable[[str], None]] = contextvars.ContextVar("REACH", default=_nowhere)
"""The `Seat.reach` of whose code runs, for places that know no seat."""
_SEAT: contextvars.ContextVar[int] = contextvars.ContextVar("_SEAT", default=0)
"""Number of the incarnation whose code runs."""


class Invariant(Protocol):
    """Something that holds after every operation, and perhaps more once everything has settled."""

    def __call__(self, world: World, settled: bool) -> None:
        """Raise `BrokenError` if it does not hold."""


def _as_it_was(old: Any, now: Any) -> Any:
    """Return what a disk holds that is put back from a copy."""
    return old


async def nothing_more(world: World) -> None:
    """Do nothing."""


@dataclass
class World:
    """One run: parties 1..`parties`, started by `start`, and the operations of `seed` unless given."""

    seed: int
    start: Callable[[Seat], Station]
    invariants: Sequence[Invariant] = ()
    recipe: Recipe = field(default_factory=Recipe)
    ops: Sequence[Op] | None = None
    settle_s: float = 4_000.0
    watch: Watch | None = None
    quiet: Callable[[World], bool] = lambda world: False
    """Tells that nothing is left to do; `settle_s` is the longest wait for it."""
    restored: Callable[[Any, Any], Any] = _as_it_was
    """Returns what a disk holds that is put back from a copy: of the copy, and of what it held last."""
    last: Callable[[World], Awaitable[None]] = nothing_more
    """What is done when everything has settled. Raises BrokenError."""
    computing: int | None = None
    """So many of the parties compute; by default all."""
    stations: dict[int, Station] = field(default_factory=dict)
    """The parties that run now."""
    disks: dict[int, Any] = field(default_factory=dict)
    """What the disks of the others hold."""
    refusals: Counter[str] = field(default_factory=Counter)
    """How often people were refused what they asked for, by reason."""
    crashes: int = 0
    liars: set[int] = field(default_factory=set)
    """Parties that lied at some time."""
    set_back: set[int] = field(default_factory=set)
    """Parties whose disks were put back, and which have not been brought in line yet."""
    ever_set_back: set[int] = field(default_factory=set)

    def run(self) -> None:
        """Let everything happen. Raises BrokenError."""
        self.ops = self.recipe.draw(self.seed) if self.ops is None else list(self.ops)
        self._rng = random.Random(self.seed + 1)
        with mock.patch("os.urandom", np.random.default_rng(self.seed).bytes):
            try:
                virtual_time.run(self._main, random.Random(self.seed).shuffle)
            except virtual_time.DeadlockError as error:
                raise BrokenError(str(error)) from error

    # --- within -----------------------------------------------------------------------------------

    async def _main(self) -> None:
        self.weather = Weather(self._rng, self.watch)
        self.exchange = MemoryExchange(
            self.recipe.parties, self.computing, faults=self.weather, reconnect_s=0.5
        )
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._fell_over)
        self.clocks = {i: Clock(loop) for i in range(1, self.recipe.parties + 1)}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._traps: dict[int, tuple[str, int]] = {}
        self._broken: BrokenError | None = None
        self._seats: dict[int, int] = {}
        self._contexts: dict[int, contextvars.Context] = {}
        self._running: dict[int, list[asyncio.Task[Any]]] = {}
        self._copies: dict[int, list[Any]] = {i: [] for i in self.clocks}
        copied = {op.party for op in self.ops or () if op.kind == "rollback"}
        self._incarnations = 0
        self._stopping: set[int] = set()
        loop.set_task_factory(self._task)
        for number in self.clocks:
            self._restart(number)
        try:
            for op in self.ops or ():
                await asyncio.sleep(op.after_s)
                for number in copied & self.stations.keys():
                    self._copies[number].append(self.stations[number].image())
                await self._happen(op)
                self._check(settled=False, when=str(op))
            await self._settle()
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _happen(self, op: Op) -> None:
        number = op.party
        if op.kind in ("cut", "heal"):
            if op.other in self.exchange.peers(number):
                (self.exchange.cut if op.kind == "cut" else self.exchange.heal)(number, op.other)
        elif op.kind == "crash":
            if op.place and number in self.stations:
                self._traps[number] = (op.place, op.number)
            elif number in self.stations:
                self._kill(number)
        elif op.kind == "restart":
            if number not in self.stations:
                self._restart(number)
        elif op.kind == "clock":
            self.clocks[number].step(op.number)
        elif op.kind == "weather":
            self.weather.now = op.place
        elif op.kind == "lie":
            self.weather.lie(number, op.place)
            self.liars.add(number)
        elif op.kind == "stop":
            if number in self.stations:
                await self._stop(number)
        elif op.kind == "rollback":
            self._put_back(number, op.number)
        elif op.kind == "twice":
            both = [op._replace(kind="submit", party=each) for each in (op.party, op.other)]
            await asyncio.gather(*(self._ask(each) for each in both if each.party in self.stations))
        elif op.kind != "wait" and number in self.stations:
            await self._ask(op)
        await asyncio.sleep(0)

    def _put_back(self, number: int, ago: int) -> None:
        """Start a party from an earlier state of its disk, if there is one."""
        copies = self._copies[number]
        if not copies:
            return
        if number in self.stations:
            self._kill(number)
        self.disks[number] = self.restored(copies[-min(ago, len(copies))], self.disks[number])
        self.set_back.add(number)
        self.ever_set_back.add(number)
        self._restart(number)

    async def _stop(self, number: int) -> None:
        """Stop a party as its operator would, and see that it leaves nothing behind."""
        incarnation = self._seats[number]
        context = self._contexts[number].copy()
        self._stopping.add(number)
        stop = context.run(asyncio.create_task, self.stations[number].stop())
        await asyncio.wait([stop])
        if self._seats.get(number) != incarnation:  # it was killed meanwhile
            self._stopping.discard(number)
            await asyncio.gather(stop, return_exceptions=True)
            return
        stop.result()
        self._traps.pop(number, None)
        for _ in range(5):
            await asyncio.sleep(0)
        left = [task for task in self._running.pop(incarnation, []) if not task.done()]
        if left:
            self.broke(f"party {number} was stopped and left {left[0].get_coro()} behind")
        self._stopping.discard(number)
        self.disks[number] = self.stations.pop(number).image()
        del self._seats[number]

    async def _ask(self, op: Op) -> None:
        """Do as a person does who asks a party for something, and hears no answer if it is killed."""
        context = self._contexts[op.party].copy()
        asked = context.run(asyncio.create_task, self._asked(op))
        await asyncio.wait([asked, self._tasks[op.party]], return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        error = None if asked.cancelled() else asked.exception()
        if error is not None:
            raise error

    async def _asked(self, op: Op) -> None:
        try:
            await self.stations[op.party].do(op)
        except EngineError as error:
            self.refusals[error.reason] += 1
        except Killed:
            pass

    def _restart(self, number: int) -> None:
        self._incarnations += 1
        incarnation = self._seats[number] = self._incarnations

        def reach(place: str) -> None:
            # What is left of a party that was killed reaches nothing.
            if self._seats.get(number) == incarnation:
                self._reach(number, place)

        context = self._contexts[number] = contextvars.copy_context()
        context.run(PARTY.set, number)
        context.run(_SEAT.set, incarnation)
        context.run(REACH.set, reach)

        def begin() -> None:
            board = self.exchange.switchboard(number)
            board.say = self.weather.said_by(number, board.say)  # type: ignore[method-assign,assignment]
            seat = Seat(number, board, self.clocks[number], self.disks.pop(number, None), reach)
            try:
                station = self.stations[number] = self.start(seat)
            except EngineError as error:
                raise BrokenError(f"party {number} cannot start: {error}") from error
            task = self._tasks[number] = asyncio.create_task(station.run())
            task.add_done_callback(lambda done: self._ended(number, done))

        context.copy().run(begin)

    def _reach(self, number: int, place: str) -> None:
        """Kill a party at the place at which its trap is set, the last time it was to be passed."""
        trap, times = self._traps.get(number, ("", 0))
        if place != trap or number not in self.stations:
            return
        if times > 1:
            self._traps[number] = (trap, times - 1)
            return
        self._kill(number)
        raise Killed(place)

    def _kill(self, number: int) -> None:
        self.crashes += 1
        self._traps.pop(number, None)
        self.disks[number] = self.stations.pop(number).image()
        self.exchange.kill(number)
        for task in self._running.pop(self._seats.pop(number), []):
            task.cancel()

    def _task(
        self, loop: asyncio.AbstractEventLoop, work: Any, context: contextvars.Context | None = None
    ) -> asyncio.Task[Any]:
        """Make a task, and note whose it is."""
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
        seat = _SEAT.get() if context is None else context.get(_SEAT, 0)
        running = self._running.setdefault(seat, [])
        running.append(task)
        if len(running) > 100:
            running[:] = [each for each in running if not each.done()]
        return task

    def broke(self, words: str) -> None:
        """Note that something is wrong, from a place where raising would be taken for a party's failure."""
        self._broken = self._broken or BrokenError(words)

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        """Note a party that ended by itself; nobody may."""
        if self._tasks.get(number) is task and number in self.stations and number not in self._stopping:
            error = None if task.cancelled() else task.exception()
            self._broken = BrokenError(f"party {number} ended by itself: {error!r}")
            self._broken.__cause__ = error

    def _fell_over(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Note an exception that a listener or a timer's callback let out; none may."""
        error = context.get("exception")
        if "handle" in context and not isinstance(error, Killed):
            self._broken = BrokenError(f"a callback failed: {error!r}")
            self._broken.__cause__ = error

    def _raise_broken(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _check(self, settled: bool, when: str) -> None:
        self._raise_broken()
        for invariant in self.invariants:
            try:
                invariant(self, settled)
            except BrokenError as error:
                raise BrokenError(f"after {when}: {error}") from error

    async def _settle(self) -> None:
        """Let all cables hold and all parties run, and see that everything comes to its end."""
        self.weather.now = "calm"
        self.weather.lie(0, "")
        self._traps.clear()
        for one in self.clocks:
            for two in self.exchange.peers(one):
                self.exchange.heal(one, two)
            if one not in self.stations:
                self._restart(one)
        for number in list(self.stations):
            await self._ask(Op(0.0, "mend", number))
        if self.set_back:
            await asyncio.sleep(5.0)
        for number in sorted(self.set_back):
            await self._ask(Op(0.0, "recover", number))
            self.set_back.discard(number)
        await self.until(self.quiet, self.settle_s)
        self._raise_broken()
        await self.last(self)
        self._check(settled=True, when="everything had settled")
        for number in list(self.stations):
            await self._stop(number)
        self._raise_broken()

    async def until(self, reached: Callable[[World], bool], longest_s: float) -> bool:
        """Wait until something holds twice in a row, and tell whether it did in time."""
        loop = asyncio.get_running_loop()
        end, times = loop.time() + longest_s, 0
        while loop.time() < end and times < 2:
            await asyncio.sleep(longest_s / 400)
            times = times + 1 if reached(self) else 0
            if isinstance(loop, virtual_time.VirtualLoop) and loop.steps > MOST_STEPS:
                raise BrokenError("this run does not come to an end")
        return times >= 2
