"""A stage without parties: it notes what it is told, on a clock of its own, and answers from a list."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from mpc_engine.codebook import load_codebook
from mpc_engine.errors import EngineError
from mpc_engine.harness.play import play_on
from mpc_engine.harness.record import Happened, PartyRecord, Run
from mpc_engine.harness.stage import Ended, Stage
from mpc_engine.ledger.chain import EMPTY
from mpc_engine.ledger.charge import Charge
from mpc_engine.ledger.rows import SessionRow
from mpc_engine.release.plan import Member
from mpc_engine.scenario.document import Ask, Scenario, load_scenario
from mpc_engine.scenario.faults import Fault
from mpc_engine.scenario.questions import read_query
from mpc_engine.statistics.query import Query

CODEBOOK = 'name = "s"\nversion = "1"\n[variables.sex]\nkind = "category"\ncategories = ["female", "male"]\n'
QUERY = 'preset = "crosstab"\nby = ["sex"]\n[privacy]\nepsilon = "0.5"\n'
MAPPING = """
codebook = "codebook.toml"
one_row_per_patient = true
[source]
file = "rows.csv"
[variables.sex]
column = "sex"
codes = { f = "female", m = "male" }
"""
HEAD = """
codebook = "codebook.toml"
[policy]
greatest_epsilon = "1"
least_threshold = 5
"""
PARTIES = """
[[party]]
name = "one"
mapping = "mapping.toml"
[[party]]
name = "two"
mapping = "mapping.toml"
[[party]]
name = "helper"
"""
NAMES = ("one", "two", "helper")


def scenario_of(folder: Path, text: str, parties: str = PARTIES) -> Scenario:
    """Write a scenario of two silos and a helper; `text` holds questions, faults, and expectations."""
    rows = "sex\n" + 40 * "f\n" + 30 * "m\n"
    documents = {"codebook.toml": CODEBOOK, "query.toml": QUERY, "mapping.toml": MAPPING, "rows.csv": rows}
    for name, content in documents.items():
        (folder / name).write_text(content)
    (folder / "scenario.toml").write_text(HEAD + parties + text)
    return load_scenario(folder / "scenario.toml")


def row(ticket: str = "t1", state: str = "RELEASED", **changes: Any) -> SessionRow:
    """Return a session that was released, with some of its fields otherwise."""
    fields: dict[str, Any] = {
        "ticket": ticket,
        "request": "r1",
        "question": f"question of {ticket}",
        "state": state,
        "session_id": "s1",
        "charge": Charge(500_000),
        "reason": "",
        "detail": "",
        "facts": None,
        "pattern_hash": None,
        "release_digest": "d1" if state == "RELEASED" else "",
        "stored_by": frozenset(),
        "head_before": EMPTY,
        "head_after": None,
        "began": "2030-01-01T00:00:00Z",
        "changed": "2030-01-01T00:00:00Z",
        "analyst_name": "analyst",
        "project": "scenario",
        "peer": "",
    }
    return SessionRow(**fields | changes)


@dataclass
class FakeStage(Stage):
    """Answers requests from `ends`, by the ask's name, each of which takes `takes_s`."""

    scenario: Scenario
    ends: Mapping[str, Sequence[Ended | EngineError]] = field(default_factory=dict)
    takes_s: float = 1.0
    told: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)
    clock: float = 0.0
    broken: str = ""

    def __post_init__(self) -> None:
        self.name = "memory"
        self.codebook = load_codebook(self.scenario.path(self.scenario.codebook))
        self.members = tuple(Member(name, True, name != "helper", name, 1 << 24) for name in NAMES)
        self.registered = {}
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []

    async def __aenter__(self) -> Self:
        self.told.append("enter")
        self._time = asyncio.get_running_loop().create_task(self._pass())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._time.cancel()
        self.told.append("exit")

    async def _pass(self) -> None:
        """Let time jump to the next sleeper's end, once everybody has done all that can be done before."""
        while True:
            for _ in range(50):
                await asyncio.sleep(0)
            if self._sleepers:
                self._sleepers.sort(key=lambda each: each[:2])
                self.clock, _, woken = self._sleepers.pop(0)
                woken.set()

    def now(self) -> float:
        return self.clock

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self.clock + seconds, id(woken), woken))
        await woken.wait()

    async def submit(self, ask: Ask, number: int, query: Query) -> str:
        self.told.append(f"submit {ask.name} {number} at {self.clock:g}")
        self.queries.append(query)
        if self.broken == "submit":
            raise RuntimeError("the stage fell over")
        end = self._end(ask, number)
        if isinstance(end, EngineError):
            raise end
        return f"{ask.name}-{number}"

    async def wait(self, ask: Ask, request: str, wait_s: float) -> Ended:
        await self.sleep(min(self.takes_s, wait_s))
        end = self._end(ask, int(request.rpartition("-")[2]))
        assert isinstance(end, Ended)
        return end

    def _end(self, ask: Ask, number: int) -> Ended | EngineError:
        ends = self.ends.get(ask.name, ())
        return ends[number] if number < len(ends) else Ended("RELEASED", ticket="t", release={}, receipt={})

    def arm(self, fault: Fault, happened: Happened) -> None:
        self.told.append(f"arm {fault.kind}")

    async def strike(self, fault: Fault, happened: Happened) -> None:
        self.told.append(f"strike {fault.kind} at {self.clock:g}")
        happened.began_s = self.clock

    async def mend(self) -> None:
        self.told.append("mend")

    async def records(self) -> dict[str, PartyRecord]:
        return {name: record(name) for name in NAMES}

    def run(self) -> Run:
        """Play the scenario here."""
        queries = {ask.name: read_query(self.scenario, ask) for ask in self.scenario.asks}
        return asyncio.run(play_on(self, self.scenario, queries))


def record(name: str, sessions: Iterable[SessionRow] = (), **changes: Any) -> PartyRecord:
    """Return what is known of a party that is well."""
    rows = tuple(sessions)
    spent = sum(each.charge.micro_epsilon for each in rows if each.state not in ("ABORTED", "RESERVED"))
    fields: dict[str, Any] = {"sessions": rows, "spent": spent, "verified": True, "serves": True}
    return PartyRecord(name, NAMES.index(name) + 1, True, name != "helper", **fields | changes)
