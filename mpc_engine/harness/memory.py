"""The stage in one process: whole parties on virtual time, with their ledgers in memory.

What a party is, keeps and says is as in service: real records registered, real sessions, signed requests.
Only ports, files and clocks are not: messages go through memory with the weather of the scenario's network,
and time passes only when everybody waits, so that a day takes as long as what happens on it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import datetime
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from mpc_engine.codebook import load_codebook
from mpc_engine.documents import canonical, parse
from mpc_engine.errors import DocumentError, EngineError, PeerError
from mpc_engine.harness.befalling import Befalling, Exchange
from mpc_engine.harness.meters import Meters
from mpc_engine.harness.record import Happened, Noted, PartyRecord, Usage
from mpc_engine.harness.seats import Seats
from mpc_engine.harness.sources import own_mapping
from mpc_engine.harness.stage import PROJECT, Ended, Show, Stage, policy_of, terms_under
from mpc_engine.harness.views import Views
from mpc_engine.harness.virtual_time import START, VirtualLoop
from mpc_engine.harness.weather import Weather
from mpc_engine.identity import Analyst, throwaway_identity
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import HOLDING, PUBLISHING
from mpc_engine.ledger.sealing import Sealing
from mpc_engine.party.counting import RegisteredCounter
from mpc_engine.party.daemon import Party
from mpc_engine.party.messages import Status
from mpc_engine.party.roster import Directory
from mpc_engine.party.situation import Deadlines, Situation
from mpc_engine.party.submission import make_submission
from mpc_engine.release.plan import Member
from mpc_engine.runtime.switchboard import Switchboard
from mpc_engine.scenario import document
from mpc_engine.scenario.document import Ask, Scenario
from mpc_engine.scenario.faults import Fault
from mpc_engine.silo.register import load_registration, register
from mpc_engine.statistics.query import Query
from mpc_engine.transport.endpoint import Endpoint

MEND_S: Final = 3_600.0
"""How long parties are given to serve again in the end; costs nothing where they do."""
_LOOK_S: Final = 0.5
_AGAIN_S: Final = 1.0
"""After so long an analyst's program calls again a party that could not be reached."""
_WAIT_S: Final = 60
"""The longest that one call waits for news."""
_PATIENCE_S: Final = 1_800.0
"""After so long an analyst's program asks for news once a minute only."""


class MemoryStage(Stage):
    """Parties in one process. See `Stage`; it must be run in the loop of `new_loop`."""

    name: document.Stage = "memory"

    def __init__(self, scenario: Scenario, seed: int, folder: Path, show: Show) -> None:
        self.scenario, self.folder, self.show = scenario, folder, show
        self._order = scenario.ordered
        self._names = tuple(party.name for party in self._order)
        self._numbers = {name: number for number, name in enumerate(self._names, start=1)}
        # The schedule follows the seed; noise and keys are the operating system's.
        self._turns, winds = np.random.default_rng(seed).spawn(2)  # noqa: TID251 – schedules are no secret
        self.weather = Weather(scenario.network, self._names, winds)
        self.registered: Mapping[str, Path] = {}
        self._stack = AsyncExitStack()
        self._ready = 0.0
        self._journals: dict[int, list[Noted]] = {number: [] for number in self._numbers.values()}
        self._views = Views() if any(getattr(each, "views", False) for each in scenario.expect) else None
        self._meters = Meters()

    def new_loop(self) -> VirtualLoop:
        """Return a loop on virtual time, which mixes the parties' steps as the seed says."""
        return VirtualLoop(self._turns.shuffle)

    # --- life -----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if not isinstance(asyncio.get_running_loop(), VirtualLoop):
            raise EngineError("parties in one process are played on virtual time: use the stage's own loop")
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        scenario = self.scenario
        self.codebook = load_codebook(scenario.path(scenario.codebook))
        self._codebooks = {
            party.name: load_codebook(scenario.path(party.codebook or scenario.codebook))
            for party in self._order
        }
        for ask in scenario.asks:
            self._asked(ask)
        self._register()
        self._directory = self._identities()
        self.members = self._directory.members
        self._analysts = {
            name: throwaway_identity(f"analyst{number}.scenario", role="analyst", clock=_start)
            for number, name in enumerate(dict.fromkeys(ask.analyst for ask in scenario.asks), start=1)
        }
        computing = sum(party.computing for party in self._order)
        self.exchange = Exchange(len(self._names), computing, self.weather)
        self._stack.enter_context(self._meters.installed())
        if self._views is not None:
            self._stack.enter_context(self._views.installed())
            self.weather.on_sent = self._views.sent
        self._faults = Befalling(self._names, self.exchange, self.weather, self.now)
        seats = Seats(self._names, self.exchange, self._build, self._faults.reached, self._enter)
        self.seats = self._faults.seats = await self._stack.enter_async_context(seats)
        self._stack.push_async_callback(self._faults.close)
        for number in self._numbers.values():
            await self.seats.start(number)
        async with asyncio.timeout(scenario.deadlines.connect_s):
            while not all(self._serves(number) for number in self._numbers.values()):
                await asyncio.sleep(_LOOK_S / 10)
        self._ready = asyncio.get_running_loop().time()
        self.show(f"{len(self._names)} parties are ready")

    def _register(self) -> None:
        """Freeze the silos' records, as `mpc-engine data register` does; no virtual time passes."""
        registered = {}
        for party in self._order:
            if party.mapping is not None:
                self.show(f"registering the records of {party.name}")
                home = self.folder / party.name
                home.mkdir()
                register(own_mapping(self.scenario, party, home), home / "data")
                registered[party.name] = home / "data"
        self.registered = registered

    def _identities(self) -> Directory:
        self._own = [
            throwaway_identity(name, address=f"{name}.example:8470", clock=_start) for name in self._names
        ]
        bounds = {name: load_registration(folder).count_bound for name, folder in self.registered.items()}
        members, endpoints = [], []
        for number, (party, identity) in enumerate(zip(self._order, self._own, strict=True), start=1):
            silo, first = party.mapping is not None, identity.card.origin_fingerprint
            members.append(Member(party.name, party.computing, silo, first, bounds.get(party.name, 1 << 24)))
            pem = identity.card.pinned.pem
            endpoints.append(Endpoint(number, party.name, identity.card.address, (pem,)))
        return Directory(tuple(members), tuple(endpoints), tuple((each.card,) for each in self._own))

    # --- parties ----------------------------------------------------------------------------------------

    def _enter(self) -> None:
        self._meters.enter()
        if self._views is not None:
            self._views.enter()

    def _build(self, number: int, ledger: Ledger, keys: Sealing, board: Switchboard) -> Party:
        def journal(event: str, /, **fields: str | int) -> None:
            self._journals[number].append(Noted(self.now(), event, fields))

        folder = self.registered.get(self._names[number - 1])
        bound = self.members[number - 1].count_bound
        return Party(
            self._situation(number),
            ledger,
            keys,
            board,
            RegisteredCounter(folder, bound, away=_inline),
            journal=journal,
            clock=self.seats.clocks[number],
        )

    def _situation(self, number: int) -> Situation:
        scenario, party = self.scenario, self._order[number - 1]
        policy = policy_of(scenario, party)
        terms = terms_under([policy])
        enrolled = {
            each.card.fingerprint: Analyst(each.name, (each.card,), terms) for each in self._analysts.values()
        }
        return Situation(
            number,
            self._directory,
            self._own[number - 1],
            policy,
            f"scenario-{party.name}" if party.mapping is not None else "",
            self._codebooks[party.name],
            enrolled,
            Deadlines(scenario.deadlines.connect_s, scenario.deadlines.round_s),
        )

    def _serves(self, number: int) -> bool:
        """Tell whether a party is ready in the sense of the service, and knows what the others publish."""
        if not self.seats.runs(number) or number in self.exchange.refused or self._faults.frozen[number]:
            return False
        peers = self.exchange.peers(number)
        connected = all(self.exchange.line(number, peer) is not None for peer in peers)
        return connected and self.seats.party(number).notices.known() is not None

    # --- time -------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the seconds of virtual time since all parties were ready."""
        return asyncio.get_running_loop().time() - self._ready

    async def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)

    # --- questions --------------------------------------------------------------------------------------

    async def submit(self, ask: Ask, number: int, query: Query) -> str:
        """Hand a question in."""
        analyst, key = self._analysts[ask.analyst], f"{ask.name[:50]}-{number}"
        clock = self.seats.clocks[self._asked(ask)]
        made = make_submission(query, self.codebook.digest(), PROJECT, key, analyst, clock=clock)
        ends = self.now() + ask.wait_s
        while True:
            try:
                answer = await self._call(ask, "Submit", ends, made.model_dump(by_alias=True))
                return parse(answer["status"], Status, "status").id
            except PeerError:
                if self.now() + _AGAIN_S > ends:
                    raise
            await asyncio.sleep(_AGAIN_S)

    async def wait(self, ask: Ask, request: str, wait_s: float) -> Ended:
        """Wait for a request's end."""
        ends, known, seen = self.now() + wait_s, Ended("UNKNOWN"), ""
        patience = self.now() + _PATIENCE_S
        while True:
            left = ends - self.now()
            if self.now() > patience:
                # Each step of each try is news: of a day's none is worth the time.
                await asyncio.sleep(min(_WAIT_S, max(left, 0.0)))
                seen = ""
            try:
                asked = {"id": request, "timeout_s": max(0, min(_WAIT_S, ceil(left))), "seen": seen}
                status = parse(await self._call(ask, "Wait", ends, asked), Status, "status")
                seen = status.mark
                known = Ended(status.state, status.reason, status.detail, status.ticket or "")
                if status.state == "RELEASED":
                    found = await self._call(ask, "Result", ends, {"id": request})
                    return replace(known, release=found["release"], receipt=found["receipt"])
                if status.final:
                    return known
            except PeerError:
                await asyncio.sleep(_AGAIN_S)
            if self.now() >= ends:
                return known

    def _asked(self, ask: Ask) -> int:
        """Return the number of the party that a question is handed to."""
        if ask.party is not None:
            return self._numbers[ask.party]
        for number, party in enumerate(self._order, start=1):
            if party.mapping is not None:
                return number
        raise DocumentError(f"{self.scenario.origin}: party: none holds records, so there is nothing to ask")

    async def _call(self, ask: Ask, method: str, ends: float, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Call a method of a party as its analyst; one that stands still answers when it goes on."""
        number, certificate = self._asked(ask), self._analysts[ask.analyst].card.certificate_fingerprint
        while self._faults.frozen[number]:
            if self.now() + _LOOK_S > ends:
                raise PeerError(f"{self._names[number - 1]} does not answer")
            await asyncio.sleep(_LOOK_S)
        answers = self.seats.party(number).answers
        return dict(
            json.loads(await self.seats.call(number, answers.answer(certificate, method, canonical(fields))))
        )

    # --- faults -----------------------------------------------------------------------------------------

    def arm(self, fault: Fault, happened: Happened) -> None:
        """Prepare a fault."""
        self._faults.arm(happened)

    async def strike(self, fault: Fault, happened: Happened) -> None:
        """Have a fault befall the parties now."""
        self._faults.strike(happened)

    async def mend(self) -> None:
        """Undo faults and wait for peace."""
        await self._faults.mend()
        with suppress(TimeoutError):
            async with asyncio.timeout(MEND_S):
                while not all(self._peaceful(number) for number in self._numbers.values()):
                    await asyncio.sleep(_LOOK_S)

    def _peaceful(self, number: int) -> bool:
        if not self._serves(number):
            return False
        busy = any(row.state in (*HOLDING, *PUBLISHING) for row in self.seats.sessions(number))
        return not busy and not self.seats.party(number).runner.running

    # --- the end ----------------------------------------------------------------------------------------

    async def records(self) -> dict[str, PartyRecord]:
        """Return what is known of the parties."""
        found = {}
        for name, number in self._numbers.items():
            party = self._order[number - 1]
            found[name] = PartyRecord(
                name,
                number,
                party.computing,
                party.mapping is not None,
                self.seats.sessions(number),
                self.seats.spent(number),
                self.seats.verified(number),
                self._serves(number),
                tuple(noted for noted in self._journals[number] if noted.at_s >= 0),
                Usage(sent_bytes=self.weather.sent[number], received_bytes=self.weather.received[number]),
                tuple(() if self._views is None else self._views.seen.get(number, ())),
            )
        return found

    def further(self) -> dict[str, Any]:
        """Return what each session took, by ticket and party."""
        return {"meters": self._meters.as_fields()}


def _start() -> datetime:
    return START


async def _inline(work: Callable[..., Any], *arguments: Any) -> Any:
    """Count within the loop: no virtual time passes, and it waits for no thread."""
    return work(*arguments)
