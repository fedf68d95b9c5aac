"""Whole parties as services in one process: real ledgers in memory, real protocols, made-up counts.

Lines and links are the memory exchange's; identities, policies and signatures are as in service.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from mpc_engine.codebook import Codebook
from mpc_engine.documents import canonical, parse
from mpc_engine.identity import Analyst, Identity, Terms, throwaway_identity, utc_now
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.sealing import InMemoryKeys
from mpc_engine.party.daemon import Party
from mpc_engine.party.messages import Status
from mpc_engine.party.policy import PolicyDocument
from mpc_engine.party.roster import Directory
from mpc_engine.party.situation import Counted, Deadlines, Situation
from mpc_engine.party.submission import make_submission
from mpc_engine.release.plan import Member
from mpc_engine.runtime.memory_switchboard import MemoryExchange
from mpc_engine.runtime.switchboard import Switchboard
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query
from mpc_engine.transport.endpoint import Endpoint

CODEBOOK = parse(
    {
        "name": "study",
        "version": "1",
        "variables": {
            "stage": {"kind": "category", "categories": ["I", "II", "III"]},
            "sex": {"kind": "category", "categories": ["female", "male"]},
        },
    },
    Codebook,
    "codebook",
)
POLICY: Mapping[str, Any] = {
    "greatest_epsilon": "10",
    "least_threshold": 5,
    "budget": {"epsilon": "100", "delta": "0.1", "per_analyst": "100", "other_projects": "100"},
}
QUICK = Deadlines(connect_s=20, round_s=10, session_s=60, pause_s=2)


def crosstab(epsilon: str = "1", by: Sequence[str] = ("sex",), **more: Any) -> Query:
    """Return a query on the codebook above."""
    privacy = {"epsilon": epsilon, "rule": "noisy", "threshold": 5, "max_records_per_patient": 1}
    return parse_query({"preset": "crosstab", "by": list(by), "privacy": privacy, **more})


class MadeUpCounter:
    """Brings the same number to every cell; `fail` raises in its place."""

    def __init__(self, each: int | None, snapshot: str = "") -> None:
        self.each, self.id = each, snapshot
        self.fail: Callable[[], None] = lambda: None

    def snapshot(self) -> str:
        """Return the snapshot's id."""
        return self.id

    async def count(self, query: Query, codebook: Codebook) -> Counted:
        """Return the made-up counts."""
        self.fail()
        if self.each is None:
            return Counted("", None)
        groups = query.layout(codebook).groups
        cells = [tally.grid.cells for each in groups for tally in each.tallies]
        return Counted(self.id, tuple(np.full((1, size), self.each, np.int64) for size in cells))


@dataclass
class Household:
    """Parties 1..m, their documents and an analyst whom all silos know.

    `silos` tells who holds records; the first `computing` compute (default: all).
    """

    silos: Sequence[bool] = (True, True, False)
    computing: int | None = None
    policy: Mapping[str, Any] = field(default_factory=lambda: dict(POLICY))
    policies: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    deadlines: Deadlines = QUICK
    most_sessions: int = 4
    analyst: Identity = field(default_factory=lambda: throwaway_identity("alice", role="analyst"))
    terms: Terms = field(default_factory=lambda: Terms(budget="100"))
    clock: Callable[[], datetime] = utc_now

    def __post_init__(self) -> None:
        m = len(self.silos)
        self.computing = m if self.computing is None else self.computing
        self.identities = [
            throwaway_identity(f"party{i}", address=f"party{i}.example:8470") for i in range(1, m + 1)
        ]
        members = tuple(
            Member(each.name, i <= self.computing, silo, each.card.origin_fingerprint, 1 << 20)
            for i, (each, silo) in enumerate(zip(self.identities, self.silos, strict=True), start=1)
        )
        endpoints = tuple(
            Endpoint(i, each.name, each.card.address, (each.certificate.pem,))
            for i, each in enumerate(self.identities, start=1)
        )
        self.directory = Directory(members, endpoints, tuple((each.card,) for each in self.identities))
        self.exchange = MemoryExchange(m, self.computing)
        self.parties: dict[int, Party] = {}
        self.ledgers: dict[int, Ledger] = {}
        self.keys = {i: InMemoryKeys() for i in range(1, m + 1)}
        self.counters = {
            i: MadeUpCounter(20 * i if silo else None, f"{i:032x}" if silo else "")
            for i, silo in enumerate(self.silos, start=1)
        }
        self.journal: list[tuple[int, str, dict[str, Any]]] = []

    def situation(self, number: int) -> Situation:
        """Return a party's documents."""
        enrolled = Analyst(self.analyst.name, (self.analyst.card,), self.terms)
        silo = self.silos[number - 1]
        policy = parse(dict(self.policies.get(number, self.policy)), PolicyDocument, "policy").policy()
        return Situation(
            number,
            self.directory,
            self.identities[number - 1],
            policy,
            "study" if silo else "",
            CODEBOOK,
            {self.analyst.card.fingerprint: enrolled},
            self.deadlines,
            self.most_sessions,
        )

    def build(
        self, number: int, switchboard: Switchboard | None = None, ledger: Ledger | None = None
    ) -> Party:
        """Return a party that has not been started; its ledger is new unless given."""
        name = self.identities[number - 1].name
        self.ledgers[number] = ledger or Ledger.in_memory(party=name, clock=self.clock)

        def journal(event: str, /, **fields: str | int) -> None:
            self.journal.append((number, event, fields))

        self.parties[number] = Party(
            self.situation(number),
            self.ledgers[number],
            self.keys[number],
            switchboard or self.exchange.switchboard(number),
            self.counters[number],
            journal=journal,
            clock=self.clock,
        )
        return self.parties[number]

    async def __aenter__(self) -> Household:
        for number in range(1, len(self.silos) + 1):
            await self.build(number).start()
        async with asyncio.timeout(60):
            while any(party.notices.known() is None for party in self.parties.values()):
                await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        for party in self.parties.values():
            await party.stop(0.1)

    async def kill(self, number: int) -> bytes:
        """End a party as SIGKILL would, and return what its disk holds."""
        party = self.parties.pop(number)
        image = self.ledgers[number].image()
        self.exchange.kill(number)
        tasks = [*party._tasks, *party.runner._tasks.values()]
        for task in tasks:
            task.cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks, return_exceptions=True)
        return image

    async def revive(self, number: int, image: bytes) -> Party:
        """Start a party again with what its disk held."""
        name = self.identities[number - 1].name
        ledger = Ledger.from_image(image, party=name, clock=self.clock)
        party = self.build(number, self.exchange.restart(number), ledger)
        await party.start()
        return party

    # --- an analyst's calls -------------------------------------------------------------------------

    async def call(self, number: int, method: str, **fields: Any) -> dict[str, Any]:
        """Call a method of a party as the analyst."""
        certificate = self.analyst.card.certificate_fingerprint
        answer = await self.parties[number].answers.answer(certificate, method, canonical(fields))
        return dict(json.loads(answer))

    async def submit(
        self, query: Query | None = None, key: str = "k1", number: int = 1, project: str = "wilms"
    ) -> Status:
        """Submit a query to a party."""
        made = make_submission(
            query or crosstab(), CODEBOOK.digest(), project, key, self.analyst, clock=self.clock
        )
        answer = await self.call(number, "Submit", **made.model_dump(by_alias=True))
        return parse(answer["status"], Status, "status")

    async def status(self, request: str, number: int = 1) -> Status:
        """Return what has become of a request."""
        return parse(await self.call(number, "Status", id=request), Status, "status")

    async def until(self, request: str, state: str = "RELEASED", number: int = 1) -> Status:
        """Wait until a request has ended at a party; it must be in `state` then."""
        async with asyncio.timeout(600):
            while self.ledgers[number].request(request) is None:
                await asyncio.sleep(0.02)
            while not (status := await self.status(request, number)).final:
                await asyncio.sleep(0.02)
        assert status.state == state, f"{status.state}: {status.reason}: {status.detail}"
        return status

    async def settled(self, ticket: str, state: str = "RELEASED") -> None:
        """Wait until a session is in a state at all parties."""
        async with asyncio.timeout(600):
            while any(
                (row := ledger.session(ticket)) is None or row.state != state
                for number, ledger in self.ledgers.items()
                if number in self.parties
            ):
                await asyncio.sleep(0.02)

    def spent(self, number: int) -> int:
        """Return the micro-ε that a party has spent in all."""
        states = ("ABORTED", "RESERVED", "COMPUTING")
        rows = self.ledgers[number].sessions()
        return sum(row.charge.micro_epsilon for row in rows if row.state not in states)


def with_policy(**changes: Any) -> dict[str, Any]:
    """Return the usual policy with other values."""
    return {**POLICY, **changes}
