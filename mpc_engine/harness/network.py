"""The stage of networks: every party a process in a network namespace of its own, joined by a relay.

Packets take as long, and are lost as often, as the scenario's network says. All of TCP is the kernel's.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from mpc_engine.errors import EngineError
from mpc_engine.harness import namespaces
from mpc_engine.harness.logbook import read_journal
from mpc_engine.harness.play import titled
from mpc_engine.harness.processes import ANALYSTS, ProcessStage
from mpc_engine.harness.record import Happened
from mpc_engine.harness.stage import Show
from mpc_engine.harness.timeline import Timeline, timelines
from mpc_engine.harness.wires import Traffic, Wires
from mpc_engine.scenario import document
from mpc_engine.scenario.document import Ask, Scenario, Weather
from mpc_engine.scenario.expectations import Trips
from mpc_engine.scenario.faults import Fault
from mpc_engine.statistics.query import Query

SETTINGS: Final[Mapping[str, str]] = {"net.ipv4.tcp_slow_start_after_idle": "0"}
"""What the operator's guide advises for parties far apart."""
_SUBNET: Final = "10.83.8"
_ANALYSTS_HOST: Final = 250
_MOST_PARTIES: Final = 240
_FIRST_EXTRA: Final = 1_000
"""Numbers of the questions that are asked for measuring only begin here."""


class UnavailableError(EngineError):
    """This machine, or the right to use it, lacks what a stage needs."""

    reason = "STAGE_UNAVAILABLE"
    next_step = "Play the scenario on another stage, or as root on Linux with iproute2 and /dev/net/tun."


class NetworkStage(ProcessStage):
    """Processes in networks of their own. See `Stage`."""

    name: document.Stage = "network"
    kinds: ClassVar[frozenset[str]] = ProcessStage.kinds | {"partition", "reset"}

    def __init__(self, scenario: Scenario, seed: int, folder: Path, show: Show) -> None:
        if obstacle := namespaces.relay_obstacle():
            raise UnavailableError(obstacle)
        if len(scenario.party) > _MOST_PARTIES:
            raise UnavailableError(f"networks hold at most {_MOST_PARTIES} parties")
        super().__init__(scenario, seed, folder, show)
        self._hosts = {
            party.name: f"{_SUBNET}.{number}" for number, party in enumerate(scenario.ordered, start=1)
        } | {ANALYSTS: f"{_SUBNET}.{_ANALYSTS_HOST}"}
        self._stack = ExitStack()
        self._networks: Mapping[str, str] = {}
        self._queries: dict[str, Query] = {}
        self._resets: dict[int, Happened] = {}
        self.measuring: set[str] = set()
        self._trips: dict[str, dict[str, Any]] = {}

    def address(self, party: str) -> str:
        """Return the address of a party's network."""
        return self._hosts[party]

    def namespace(self, party: str) -> str:
        """Return the file of a party's network namespace."""
        return str(namespaces.path_of(self._networks[party]))

    # --- life -------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()

        def happening(event: Mapping[str, Any]) -> None:
            loop.call_soon_threadsafe(self._came, event)

        self.show("making networks")
        try:
            self._networks = self._stack.enter_context(namespaces.machines(list(self._hosts)))
            for network in self._networks.values():
                namespaces.configure(network, SETTINGS)
        except subprocess.SubprocessError as error:
            said = getattr(error, "stderr", None) or error
            raise UnavailableError(f"no networks can be made: {str(said).strip()}") from None
        ends = {name: (network, self._hosts[name]) for name, network in self._networks.items()}
        weathers: tuple[Weather, ...] = (self.scenario.network, *self.scenario.network.link)
        self._wires = self._stack.enter_context(
            Wires(
                ends,
                seed=self.seed,
                whole=not any(each.loss for each in weathers),
                happening=happening,
            )
        )
        self._set_weather(False)
        await super()._start()

    async def _end(self) -> None:
        try:
            await super()._end()
        finally:
            self._stack.close()

    def _set_weather(self, calm: bool) -> None:
        names = list(self._hosts)
        for index, one in enumerate(names):
            for two in names[index + 1 :]:
                self._wires.weather(one, two, Weather() if calm else self.scenario.network.between(one, two))

    # --- faults -----------------------------------------------------------------------------------------

    async def disturb(self, fault: Fault, happened: Happened) -> None:
        """Begin a partition, or have connections reset in a while."""
        others = [name for name in self.layout.homes if name != fault.party]
        against = list(fault.against) or others
        if fault.kind == "partition" and fault.for_s is not None:
            happened.spent_before = await self.spent()
            at_s = self.now()
            self._wires.cut(fault.party, against, fault.for_s)
            self._note(happened, at_s)
            self._later(self._healed(happened, fault.for_s))
        else:
            self._resets[self._wires.reset(fault.party, against, fault.bytes)] = happened

    async def _healed(self, happened: Happened, for_s: float) -> None:
        await asyncio.sleep(for_s)
        happened.ended_s = self.now()

    def _came(self, event: Mapping[str, Any]) -> None:
        """Note that the relay has reset a connection: the first of those that a fault names counts."""
        happened = self._resets.pop(event["order"], None)
        if happened is not None:
            happened.ended_s = event["at"] - self._ready
            self._note(happened, happened.ended_s)
            self._later(self._paid(happened))

    async def _paid(self, happened: Happened) -> None:
        happened.spent_before = await self.spent()

    # --- measuring --------------------------------------------------------------------------------------

    async def submit(self, ask: Ask, number: int, query: Query) -> str:
        """Hand a question in."""
        self._queries.setdefault(ask.name, query)
        return await super().submit(ask, number, query)

    async def mend(self) -> None:
        """Heal the network, let no more resets come, mend all else, then measure what is expected of time."""
        await asyncio.to_thread(self._wires.heal)
        await super().mend()
        for expected in self.scenario.expect:
            if isinstance(expected, Trips):
                await self._measure(expected)

    async def _measure(self, expected: Trips) -> None:
        """Ask a question again under other titles, in turn with delay and without.

        In turn, so that a slow minute of the machine is in both times; each time twice, for the first finds
        connections that know the other weather.
        """
        asks = {each.name: each for each in self.scenario.asks}
        ask = asks[expected.ask or self.scenario.asks[0].name]
        if ask.name in self._trips or ask.name not in self._queries:
            return
        numbers = itertools.count(_FIRST_EXTRA)
        weathers = {"delayed": _Sessions(), "calm": _Sessions()}
        for turn in range(1, expected.runs + 1):
            for weather, sessions in weathers.items():
                self.show(f"measuring {ask.name}, {weather}: {turn} of {expected.runs}")
                await asyncio.to_thread(self._set_weather, weather == "calm")
                await self._one(ask, next(numbers))
                before = await asyncio.to_thread(self._wires.traffic)
                sessions.add(await self._one(ask, next(numbers)))
                after = await asyncio.to_thread(self._wires.traffic)
                sessions.busiest.append(_busiest(before, after))
        self._trips[ask.name] = {weather: sessions.summary() for weather, sessions in weathers.items()}
        await asyncio.to_thread(self._set_weather, False)

    async def _one(self, ask: Ask, number: int) -> Timeline | None:
        """Ask once more, and return the session's timeline; None if nothing was released."""
        request = await self.submit(ask, number, titled(self._queries[ask.name], number))
        self.measuring.add(request)
        ended = await self.wait(ask, request, ask.wait_s)
        homes = [home for home in self.layout.homes.values() if home.party.computing]
        journals = {home.name: read_journal(home, self._ready_at) for home in homes}
        timeline = timelines(journals, [home.name for home in homes]).get(ended.ticket)
        return timeline if timeline is not None and timeline.complete else None

    def further(self) -> dict[str, Any]:
        """Return what was measured beside: sessions, wires, and the parts of `trips` by question."""
        traffic = [
            {"from": one, "to": two, **counts}
            for (one, two), counts in self._wires.traffic().items()
            if ANALYSTS not in (one, two)
        ]
        return {**super().further(), "wires": traffic, "trips": self._trips}


@dataclass
class _Sessions:
    """One question's sessions in one weather: those that were complete, and bytes on the busiest wire."""

    complete: list[Timeline] = field(default_factory=list)
    busiest: list[int] = field(default_factory=list)

    def add(self, session: Timeline | None) -> None:
        """Add a session, unless it is None."""
        if session is not None:
            self.complete.append(session)

    def summary(self) -> dict[str, Any]:
        """Return the seconds of each, the median of each phase, and the median of bytes."""
        return {
            "seconds": [each.seconds for each in self.complete],
            "phases": _medians([each.phases() for each in self.complete]),
            "busiest_bytes": statistics.median(self.busiest),
        }


def _busiest(before: Traffic, after: Traffic) -> int:
    """Return the bytes on the busiest wire between two parties: what analysts fetch is no session's."""
    return max(after[pair]["bytes"] - before[pair]["bytes"] for pair in after if ANALYSTS not in pair)


def _medians(phases: list[dict[str, float]]) -> dict[str, float]:
    names = [name for name in phases[0]] if phases else []
    return {name: statistics.median(each.get(name, 0.0) for each in phases) for name in names}
