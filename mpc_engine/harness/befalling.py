"""The faults that befall parties in one process: begun at a failpoint or at a time, and undone again."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from mpc_engine.errors import PeerError
from mpc_engine.harness.record import Happened
from mpc_engine.harness.seats import Seats
from mpc_engine.harness.weather import Weather
from mpc_engine.runtime.link import Section
from mpc_engine.runtime.memory_lines import Cable
from mpc_engine.runtime.memory_switchboard import MemoryExchange
from mpc_engine.scenario.faults import Fault

NOTICED_S: Final = 25.0
"""After so long a peer that is silent is given up, as by the keepalive of the real connections."""


class Exchange(MemoryExchange):
    """Connections of which new ones are refused to and from some parties."""

    def __init__(self, parties: int, computing: int, weather: Weather) -> None:
        super().__init__(parties, computing, faults=weather)
        self.refused: set[int] = set()
        """Parties whose certificate has expired. What stands, stands: TLS looks at certificates at first."""

    def _possible(self, cable: Cable) -> bool:
        return self.refused.isdisjoint(cable.ends) and super()._possible(cable)


@dataclass(eq=False)
class _Running:
    """A fault that has begun. `undo` ends it; `timer` will do so."""

    happened: Happened
    undo: Callable[[], Coroutine[Any, Any, None]]
    timer: asyncio.Task[None] | None = None


class Befalling:
    """The faults of one stage; `seats` is to be set before any comes.

    Args:
        names: of the parties, in order.
        now: the stage's clock.
    """

    seats: Seats

    def __init__(
        self, names: Sequence[str], exchange: Exchange, weather: Weather, now: Callable[[], float]
    ) -> None:
        self._numbers = {name: number for number, name in enumerate(names, start=1)}
        self._exchange, self._weather, self._now = exchange, weather, now
        # What faults do is done by nobody's code, not even by that of the party that reaches a failpoint.
        self._context = contextvars.copy_context()
        self._armed: list[Happened] = []
        self._running: list[_Running] = []
        self._jobs: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        """What went wrong in jobs that nobody waited for."""
        self._cut: Counter[frozenset[int]] = Counter()
        self.frozen: Counter[int] = Counter()
        """Parties that stand still."""

    # --- called by the stage ----------------------------------------------------------------------------

    def arm(self, happened: Happened) -> None:
        """Prepare a fault that comes at a failpoint, or at a certificate's end."""
        if happened.fault.kind == "expire":
            self._job(self._later(happened, happened.fault.after_s - self._now()))
        else:
            self._armed.append(happened)

    def strike(self, happened: Happened) -> None:
        """Have a fault befall its party now."""
        fault, number = happened.fault, self._numbers[happened.fault.party]
        if fault.kind == "reset":
            self._arm_reset(happened, number)
            return
        spent = self._spent()
        kind: dict[str, Callable[[Fault, int], Callable[[], Coroutine[Any, Any, None]]]] = {
            "kill": self._kill,
            "stop": self._stop,
            "freeze": self._freeze,
            "partition": self._part,
            "slow": self._slow,
            "tamper": self._tamper,
            "expire": self._expire,
        }
        running = _Running(happened, kind[fault.kind](fault, number))
        self._note(happened, spent)
        self._running.append(running)
        if fault.for_s is not None:
            running.timer = self._job(self._end_after(running, fault.for_s))

    def reached(self, number: int, place: str) -> None:
        """Have those faults befall a party that come at a place."""
        for happened in list(self._armed):
            if happened.fault.at == place and self._numbers[happened.fault.party] == number:
                self._armed.remove(happened)
                self._within(self.strike, happened)

    async def mend(self) -> None:
        """Undo all faults, start who is down, and let no further one come; raise what went wrong with any."""
        self._armed.clear()
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        for running in list(self._running):
            self._running.remove(running)
            await running.undo()
        for number in self._numbers.values():
            await self._start(number)
        if self._failures:
            raise self._failures[0]

    async def close(self) -> None:
        """Let nothing come any more."""
        self._armed.clear()
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    # --- kinds ------------------------------------------------------------------------------------------

    def _kill(self, fault: Fault, number: int) -> Callable[[], Coroutine[Any, Any, None]]:
        self.seats.kill(number)
        return lambda: self._start(number)

    def _stop(self, fault: Fault, number: int) -> Callable[[], Coroutine[Any, Any, None]]:
        stopping = self._job(self.seats.stop(number))

        async def undo() -> None:
            await asyncio.gather(stopping, return_exceptions=True)
            await self.seats.stop(number)  # if that was cut short
            await self._start(number)

        return undo

    def _freeze(self, fault: Fault, number: int) -> Callable[[], Coroutine[Any, Any, None]]:
        self.frozen[number] += 1
        silent = self._silence(fault, number, self._exchange.peers(number))

        async def undo() -> None:
            self.frozen[number] -= 1
            await silent()

        return undo

    def _part(self, fault: Fault, number: int) -> Callable[[], Coroutine[Any, Any, None]]:
        """Part a party and those on its side – nobody else is – from those in `against`."""
        return self._silence(fault, number, self._against(fault, number))

    def _silence(
        self, fault: Fault, number: int, others: Sequence[int]
    ) -> Callable[[], Coroutine[Any, Any, None]]:
        """Hold what is said between a party and others; after a while they give each other up."""
        pairs = [frozenset((number, other)) for other in others]
        until = asyncio.get_running_loop().time() + fault.for_s if fault.for_s is not None else float("inf")
        release = self._weather.hold(pairs, until)
        cut: list[frozenset[int]] = []

        async def give_up() -> None:
            await asyncio.sleep(NOTICED_S)
            for pair in pairs:
                self._exchange.cut(*sorted(pair))
                self._cut[pair] += 1
                cut.append(pair)

        giving_up = self._job(give_up())

        async def undo() -> None:
            giving_up.cancel()
            release()
            for pair in cut:
                self._cut[pair] -= 1
                if not self._cut[pair]:
                    self._exchange.heal(*sorted(pair))

        return undo

    def _slow(self, fault: Fault, number: int) -> Callable[[], Coroutine[Any, Any, None]]:
        return _ending(self._weather.slow(number, fault.factor))

    def _tamper(self, fault: Fault, number: int) -> Callable[[], Coroutine[Any, Any, None]]:
        return _ending(self._weather.tamper(number, Section[fault.section or "VALUES"]))

    def _expire(self, fault: Fault, number: int) -> Callable[[], Coroutine[Any, Any, None]]:
        self._exchange.refused.add(number)

        async def undo() -> None:
            # As after `mpc-engine party rotate`, which all others have been told of.
            self._exchange.refused.discard(number)
            self._exchange.plug([number], 0.0)

        return undo

    def _arm_reset(self, happened: Happened, number: int) -> None:
        against = self._against(happened.fault, number)

        def come() -> None:
            spent = self._spent()
            for other in against:
                self._exchange.cut(number, other)
                if not self._cut[frozenset((number, other))]:
                    self._exchange.heal(number, other)
            self._note(happened, spent)
            happened.ended_s = happened.began_s

        if happened.fault.bytes == 0:
            come()
            return
        prevent = self._weather.reset_after(
            number, against, happened.fault.bytes, partial(self._within, come)
        )
        self._running.append(_Running(happened, _ending(prevent)))

    # --- within -----------------------------------------------------------------------------------------

    def _against(self, fault: Fault, number: int) -> tuple[int, ...]:
        """Return the parties that a fault is about which are connected with its own."""
        wanted = {self._numbers[name] for name in fault.against} or set(self._numbers.values())
        return tuple(peer for peer in self._exchange.peers(number) if peer in wanted)

    def _within(self, strike: Callable[..., None], *of: Happened) -> None:
        """Have a fault come within a party's code, which must not take what goes wrong there for its own."""
        try:
            strike(*of)
        except Exception as failure:
            self._failures.append(failure)

    def _spent(self) -> dict[str, int]:
        return {name: self.seats.spent(number) for name, number in self._numbers.items()}

    def _note(self, happened: Happened, spent: dict[str, int]) -> None:
        happened.began_s, happened.spent_before = self._now(), spent

    async def _start(self, number: int) -> None:
        # With a certificate that has expired a party does not start.
        if number not in self._exchange.refused:
            with suppress(PeerError):  # it was killed meanwhile
                await self.seats.start(number)

    async def _later(self, happened: Happened, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))
        self.strike(happened)

    async def _end_after(self, running: _Running, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._running.remove(running)
        await running.undo()
        running.happened.ended_s = self._now()

    def _job(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        job = self._context.copy().run(asyncio.get_running_loop().create_task, work)
        self._jobs.add(job)
        job.add_done_callback(self._over)
        return job

    def _over(self, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (failure := job.exception()) is not None:
            self._failures.append(failure)


def _ending(end: Callable[[], None]) -> Callable[[], Coroutine[Any, Any, None]]:
    async def undo() -> None:
        end()

    return undo
