"""The stage of processes: every party a process of this machine, as it would be served, on loopback.

`mpc_engine.harness.network` is this stage with each process in a network of its own: it overrides
`address` and `namespace`, and the faults of the network in `disturb`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from mpc_engine.errors import DocumentError, EngineError
from mpc_engine.harness import actor
from mpc_engine.harness.children import Analysts, LostError, Nursery
from mpc_engine.harness.fleet import Fleet
from mpc_engine.harness.layout import LOOPBACK, Home, Layout
from mpc_engine.harness.ledgers import read_ledger
from mpc_engine.harness.logbook import read_journal
from mpc_engine.harness.record import Happened, PartyRecord
from mpc_engine.harness.stage import Ended, Show, Stage
from mpc_engine.party.control import SOCKET_NAME, ask
from mpc_engine.scenario import document
from mpc_engine.scenario.document import Ask, Scenario
from mpc_engine.scenario.faults import Fault
from mpc_engine.statistics.query import Query

ANALYSTS: Final = "analysts"
"""What the analysts' process is called where parties are by name; no party of this name may then be there."""
MEND_S: Final = 120.0
"""How long parties are given to serve again in the end."""
_LOOK_S: Final = 0.02
_ASK_S: Final = 5.0
_MAKING_S: Final = 12.0
"""What starting is given before a certificate's time is counted, and what each party adds to it."""
_MAKING_EACH_S: Final = 1.0
_BY_ITSELF: Final = frozenset({*actor.SIGNALS, "tamper"})
"""Faults that a trap itself makes; before others it holds its party."""
_SLICE_S: Final = 0.05
"""A slowed party runs for its part of each of these."""


class ProcessStage(Stage):
    """Processes on this machine. See `Stage`."""

    name: document.Stage = "processes"
    kinds: ClassVar[frozenset[str]] = frozenset({"kill", "stop", "freeze", "slow", "tamper", "expire"})
    """The faults that can befall parties here."""

    def __init__(self, scenario: Scenario, seed: int, folder: Path, show: Show) -> None:
        self.scenario, self.seed, self.folder, self.show = scenario, seed, folder, show
        for index, fault in enumerate(scenario.fault):
            if fault.kind not in self.kinds:
                raise DocumentError(
                    f"{scenario.origin}: fault[{index}]: `{fault.kind}` cannot be played on the stage "
                    f"{self.name}"
                )
        self.registered: Mapping[str, Path] = {}
        self._nursery = Nursery()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        """What went wrong in tasks that nobody waited for."""
        self._laid: list[tuple[Fault, Happened, Home]] = []
        """Traps that nobody has seen catch yet."""
        self._down: set[str] = set()
        """Parties that a fault has ended, and that are not to run until it is over."""
        self._renewed: set[str] = set()
        """Parties whose certificates had expired and have been renewed since."""
        self._ready, self._ready_at = 0.0, datetime.now(UTC)

    # --- what a stage of networks overrides -------------------------------------------------------------

    def address(self, party: str) -> str:
        """Return the host at which a party is reached."""
        return LOOPBACK

    def namespace(self, party: str) -> str:
        """Return the file of the network namespace of a party, or of `ANALYSTS`; "" for this process's."""
        return ""

    async def disturb(self, fault: Fault, happened: Happened) -> None:
        """Begin a fault of the network, note that, and see to its end."""
        raise DocumentError(f"`{fault.kind}` cannot be played on the stage {self.name}")

    # --- life -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _start(self) -> None:
        scenario = self.scenario
        laid = time.monotonic()
        making = _MAKING_S + _MAKING_EACH_S * len(scenario.party)
        expiring = {fault.party: fault.after_s for fault in scenario.fault if fault.kind == "expire"}
        self.layout = Layout(
            scenario,
            self.folder,
            address=self.address,
            validity={name: timedelta(seconds=making + after) for name, after in expiring.items()},
        )
        self.codebook, self.members = self.layout.codebook, self.layout.members
        self.analysts = Analysts(self.folder / "answers", self.namespace(ANALYSTS))
        starting = [asyncio.ensure_future(child.begin()) for child in (self._nursery, self.analysts)]
        try:
            await asyncio.to_thread(self.layout.register, self.show)
            self.registered = self.layout.registered
        finally:
            ends = await asyncio.gather(*starting, return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        self.fleet = Fleet(self._nursery, self.layout.homes, self.namespace)
        for name in self.layout.homes:
            await self.fleet.start(name)
        await self._until_ready(scenario.deadlines.connect_s)
        if expiring:
            await asyncio.sleep(max(0.0, laid + making - time.monotonic()))
        self._ready, self._ready_at = time.monotonic(), datetime.now(UTC)
        self.fleet.count_from_now()

    async def _end(self) -> None:
        """End every process; what fails meanwhile is of no more interest."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        children = [self._nursery] + ([self.analysts] if hasattr(self, "analysts") else [])
        await asyncio.gather(*(child.close() for child in children), return_exceptions=True)

    async def _until_ready(self, wait_s: float) -> None:
        """Wait until all parties are ready. Raises EngineError when one has ended, or time is up."""
        ends = time.monotonic() + wait_s
        missing = list(self.layout.homes)
        self.show("waiting until all parties are ready")
        while missing:
            for name in list(missing):
                if how := await self.fleet.ended(name):
                    raise LostError(f"{name} does not start: {how}")
                if (await self.status(name)).get("ready"):
                    missing.remove(name)
            if time.monotonic() > ends:
                raise LostError(f"not ready after {wait_s:g} s: {', '.join(missing)}")
            await asyncio.sleep(0.1)

    async def status(self, name: str) -> dict[str, Any]:
        """Return what a party's service says of itself, {} if it says nothing."""
        try:
            return await ask(self.layout.homes[name].state / SOCKET_NAME, "status", {}, _ASK_S)
        except EngineError:
            return {}

    # --- time -------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the seconds since all parties were ready."""
        return time.monotonic() - self._ready

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)

    # --- questions --------------------------------------------------------------------------------------

    async def submit(self, ask: Ask, number: int, query: Query) -> str:
        """Hand a question in."""
        key = f"{ask.name[:50]}-{number}"
        return await self.analysts.submit(self._profile(ask), query.digest_fields(), key, ask.wait_s)

    async def wait(self, ask: Ask, request: str, wait_s: float) -> Ended:
        """Wait for a request's end."""
        return await self.analysts.wait(self._profile(ask), request, wait_s)

    def _profile(self, ask: Ask) -> Path:
        return self.layout.profile(ask.analyst, self.layout.asked_by(ask).name)

    # --- faults -----------------------------------------------------------------------------------------

    def arm(self, fault: Fault, happened: Happened) -> None:
        """Set a party's trap; a party has one at a time."""
        if fault.kind == "expire":
            self._later(self._expire(fault, happened))
            return
        home = self.layout.homes[fault.party]
        how = fault.kind if fault.kind in (*actor.SIGNALS, "tamper") else "hold"
        (home.folder / actor.SPRUNG).unlink(missing_ok=True)
        trap = {"place": fault.at, "how": how, "section": fault.section or "VALUES"}
        actor.put(home.folder / actor.TRAP, trap)
        laid = (fault, happened, home)
        self._laid.append(laid)
        self._later(self._watch(laid))

    async def strike(self, fault: Fault, happened: Happened) -> None:
        """Have a fault befall the parties now."""
        if fault.kind in ("partition", "reset"):
            await self.disturb(fault, happened)
            return
        home = self.layout.homes[fault.party]
        numbers = {"kill": signal.SIGKILL, "stop": signal.SIGTERM, "freeze": signal.SIGSTOP}
        happened.spent_before = await self.spent()
        at_s = self.now()
        if fault.kind in numbers:
            self.fleet.signal(fault.party, numbers[fault.kind])
        elif fault.kind == "tamper":
            actor.put(home.folder / actor.TAMPER, {"section": fault.section or "VALUES"})
        self._note(happened, at_s)
        self._follow(happened)

    async def spent(self) -> dict[str, int]:
        """Return the micro-ε that each party has spent by now."""
        homes = self.layout.homes
        ledgers = await asyncio.gather(*(asyncio.to_thread(read_ledger, home) for home in homes.values()))
        return {name: ledger.spent for name, ledger in zip(homes, ledgers, strict=True)}

    async def _watch(self, laid: tuple[Fault, Happened, Home]) -> None:
        """Wait until a trap has caught, and see to what follows."""
        fault, happened, home = laid
        while not (home.folder / actor.SPRUNG).exists():
            await asyncio.sleep(_LOOK_S)
        if fault.kind in _BY_ITSELF:
            await self._caught(laid)
            self._follow(happened)
            return
        self._laid.remove(laid)
        await self.strike(fault, happened)
        self.fleet.signal(fault.party, signal.SIGCONT)

    async def _caught(self, laid: tuple[Fault, Happened, Home]) -> None:
        """Note that a trap has caught, which has done to its party what it was for."""
        _, happened, home = laid
        happened.spent_before = await self.spent()
        self._note(happened, json.loads((home.folder / actor.SPRUNG).read_text())["at"] - self._ready)
        self._laid.remove(laid)

    def _note(self, happened: Happened, at_s: float) -> None:
        """Note that a fault has come."""
        happened.began_s = at_s
        if happened.fault.kind in ("kill", "stop"):
            self._down.add(happened.fault.party)

    def _follow(self, happened: Happened) -> None:
        """Have somebody see to it that a fault ends, if it does."""
        fault = happened.fault
        if fault.kind == "slow":
            self._later(self._slow(fault, happened))
        elif fault.for_s is not None:
            self._later(self._undo(fault, happened, fault.for_s))

    async def _undo(self, fault: Fault, happened: Happened, for_s: float) -> None:
        name = fault.party
        await asyncio.sleep(for_s)
        if fault.kind == "freeze":
            self.fleet.signal(name, signal.SIGCONT)
        elif fault.kind == "tamper":
            (self.layout.homes[name].folder / actor.TAMPER).unlink(missing_ok=True)
        else:
            await self.fleet.end(name)
            self._down.discard(name)
            happened.ended_s = self.now()
            await self.fleet.revive(name, self._serves)
            return
        happened.ended_s = self.now()

    async def _serves(self, name: str) -> bool:
        return bool(await self.status(name))

    async def _slow(self, fault: Fault, happened: Happened) -> None:
        """Let a party's process run only for its part of the time."""
        name, ends = fault.party, time.monotonic() + (fault.for_s or 0.0)
        try:
            while time.monotonic() < ends:
                self.fleet.signal(name, signal.SIGSTOP)
                await asyncio.sleep(_SLICE_S * (1 - 1 / fault.factor))
                self.fleet.signal(name, signal.SIGCONT)
                await asyncio.sleep(_SLICE_S / fault.factor)
        finally:
            self.fleet.signal(name, signal.SIGCONT)
        happened.ended_s = self.now()

    async def _expire(self, fault: Fault, happened: Happened) -> None:
        await asyncio.sleep(max(0.0, fault.after_s - self.now()))
        at_s = self.now()
        happened.spent_before = await self.spent()
        self._note(happened, at_s)
        if fault.for_s is not None:
            await asyncio.sleep(fault.for_s)
            self._renew({fault.party})
            self._renewed.add(fault.party)
            happened.ended_s = self.now()
            await self.fleet.end(fault.party)
            await self.fleet.revive(fault.party, self._serves)

    def _renew(self, names: set[str]) -> None:
        """Give parties new certificates, stop them, and have the others read them."""
        for name in names:
            self.layout.renew(name)
        for name in self.layout.homes:
            self.fleet.signal(name, signal.SIGTERM if name in names else signal.SIGHUP)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failures.append(failure)

    # --- the end ----------------------------------------------------------------------------------------

    async def mend(self) -> None:
        """Take faults away, start who is down, renew who has expired, and wait for peace."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for laid in list(self._laid):
            # The question may have ended before anybody looked at the trap.
            fault, _, home = laid
            if fault.kind in _BY_ITSELF and (home.folder / actor.SPRUNG).exists():
                await self._caught(laid)
        for home in self.layout.homes.values():
            for trap in (actor.TRAP, actor.TAMPER):
                (home.folder / trap).unlink(missing_ok=True)
        now = self.now()
        expired = {
            fault.party for fault in self.scenario.fault if fault.kind == "expire" and fault.after_s <= now
        } - self._renewed
        for name in self.layout.homes:
            self.fleet.signal(name, signal.SIGCONT)
        if expired:
            self._renew(expired)
        with suppress(TimeoutError):
            async with asyncio.timeout(MEND_S):
                for name in expired | self._down:
                    await self.fleet.end(name)
                while not await self._peaceful():
                    await asyncio.sleep(0.1)
        if self._failures:
            raise self._failures[0]

    async def _peaceful(self) -> bool:
        """Start whoever has ended, and return whether all are ready and nothing runs."""
        peaceful = True
        for name in self.layout.homes:
            await self.fleet.restart(name)
            status = await self.status(name)
            peaceful = peaceful and bool(status.get("ready")) and status.get("sessions") == 0
        return peaceful

    async def records(self) -> dict[str, PartyRecord]:
        """Return what is known of the parties."""
        found = {}
        for home in self.layout.homes.values():
            status = await self.status(home.name)
            ledger = await asyncio.to_thread(read_ledger, home)
            found[home.name] = PartyRecord(
                home.name,
                home.number,
                home.party.computing,
                home.silo,
                ledger.sessions,
                ledger.spent,
                ledger.verified,
                bool(status.get("ready")),
                read_journal(home, self._ready_at),
                self.fleet.usage(home.name, status.get("link_bytes", (0, 0))),
            )
        return found

    def further(self) -> dict[str, Any]:
        """Return what each session took, by ticket and party."""
        meters: dict[str, dict[str, Any]] = {}
        for home in self.layout.homes.values():
            for path in sorted((home.folder / actor.METERS).glob("*.json")):
                meters.setdefault(path.stem, {})[home.name] = json.loads(path.read_text())
        return {"meters": meters}
