"""A scenario in the place of a party: the same questions and results, all parties on this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mpc_engine import __version__
from mpc_engine.client.desk import Desk
from mpc_engine.codebook import Codebook
from mpc_engine.errors import (
    EngineError,
    IdempotencyError,
    RequestStateError,
    UnknownRequestError,
)
from mpc_engine.identity import Card, utc_now
from mpc_engine.ledger.charge import NOTHING
from mpc_engine.party.account import charge_of
from mpc_engine.party.messages import (
    Amounts,
    CostAnswer,
    Decided,
    PartiesAnswer,
    PartyEntry,
    Phase,
    PlanOutline,
    Progress,
    State,
    Status,
    StoredRelease,
    Submitted,
    timestamp,
)
from mpc_engine.party.policy import PolicyDocument
from mpc_engine.party.proposal import propose
from mpc_engine.party.published import published
from mpc_engine.party.source import source_digest
from mpc_engine.party.submission import question_digest, request_id
from mpc_engine.release.plan import Member, Plan
from mpc_engine.scenario.document import Scenario
from mpc_engine.scenario.simulate import simulate
from mpc_engine.statistics.query import Query

PROJECT = "simulation"
_PHASES: dict[str, Phase] = {
    "count": "count",
    "connect": "connect",
    "agree": "agree",
    "reserve": "reserve",
    "compute": "compute",
    "commit": "commit",
    "open": "open",
    "sign": "sign",
}


@dataclass
class _Run:
    """One request of a simulation."""

    id: str
    key: str
    question: str
    title: str
    charge: Amounts
    state: State = "APPROVED"
    failure: EngineError | None = None
    progress: Progress | None = None
    release: dict[str, Any] | None = None
    receipt: dict[str, Any] | None = None
    served_from: StoredRelease | None = None
    times: dict[State, str] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class SimulatedDesk(Desk):
    """Runs a scenario for each question: no budgets, no operators, receipts signed with throw-away keys."""

    simulated = True

    def __init__(
        self, scenario: Scenario, codebook: Codebook, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.cards: Mapping[str, Sequence[Card]] = {}
        self._scenario, self._codebook, self._clock = scenario, codebook, clock
        self._parties = scenario.ordered
        self._policies: dict[str, PolicyDocument] = {
            party.name: party.policy or scenario.policy for party in self._parties
        }
        self.members = tuple(
            Member(party.name, party.computing, party.mapping is not None, "simulated", 1 << 24)
            for party in self._parties
        )
        self.least_threshold = max(policy.least_threshold for policy in self._policies.values())
        self._runs: dict[str, _Run] = {}

    async def submit(self, query: Query, key: str) -> Submitted:
        """Start the parties; the same question again is answered with the release there is."""
        question = question_digest(query.digest_fields(), self._codebook.digest(), PROJECT)
        name = request_id(PROJECT, key)
        if name in self._runs:
            if self._runs[name].question != question:
                raise IdempotencyError(f"the key {key!r} is that of another question")
            return Submitted(status=self._status(name), known=True)
        charge = Amounts.of(charge_of(self._plan(query).guarantee))
        run = _Run(name, key, question, query.title or query.question(), charge)
        same = self._answered(question)
        self._runs[name] = run
        for state in ("SUBMITTED", "APPROVED"):
            self._set(run, state)
        if same is not None:
            run.release, run.receipt = same.release, same.receipt
            run.served_from, run.charge = _stored(same), Amounts.of(NOTHING)
            self._set(run, "RELEASED")
        else:
            run.task = asyncio.create_task(self._answer(run, query))
        return Submitted(status=self._status(name), known=False)

    async def status(self, request: str) -> Status:
        """Return what has become of a request."""
        return self._status(request)

    async def wait(self, request: str, seen: Status, timeout_s: float) -> Status:
        """Return a changed status, or the present one after ``timeout_s``."""
        run = self._run(request)
        try:
            async with asyncio.timeout(timeout_s):
                while self._status(request) == seen:
                    run.changed.clear()
                    await run.changed.wait()
        except TimeoutError:
            pass
        return self._status(request)

    async def withdraw(self, request: str) -> Status:
        """Stop the parties."""
        run = self._run(request)
        if run.state != "APPROVED" or run.task is None:
            raise RequestStateError(f"request {request} is {run.state} and can no longer be withdrawn")
        self._set(run, "WITHDRAWN")
        run.task.cancel()
        await asyncio.wait([run.task])
        return self._status(request)

    async def result(self, request: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return the release and its receipt."""
        run = self._run(request)
        if run.release is None:
            raise RequestStateError(f"request {request} is {run.state} and has no result")
        return run.release, run.receipt

    async def requests(self) -> tuple[Status, ...]:
        """Return all requests of this object, newest first."""
        return tuple(self._status(name) for name in reversed(self._runs))

    async def cost(self, query: Query) -> CostAnswer:
        """Return the plan; nothing keeps budgets."""
        plan = self._plan(query)
        same = self._answered(question_digest(query.digest_fields(), self._codebook.digest(), PROJECT))
        return CostAnswer(
            plan=PlanOutline.of(plan),
            cost=Amounts.of(charge_of(plan.guarantee)),
            remaining={},
            verdicts={party.name: "simulated: it keeps no budget" for party in self._parties},
            served_from=None if same is None else _stored(same),
        )

    async def policy(self, party: str) -> tuple[dict[str, Any], bool]:
        """Return a party's policy, which nobody signed."""
        if party not in self._policies:
            raise UnknownRequestError(f"no party is called {party!r}; parties: {', '.join(self._policies)}")
        silo = next(each.mapping is not None for each in self._parties if each.name == party)
        engine = {"version": __version__, "source": source_digest().hex()}
        dataset = party if silo else ""
        return published(self._policies[party].policy(), party, dataset, "", engine, silo=silo), False

    async def parties(self) -> PartiesAnswer:
        """Return the scenario's parties."""
        return PartiesAnswer(
            asked=self._parties[0].name,
            parties=tuple(
                PartyEntry(
                    name=member.name,
                    role="helper"
                    if not member.silo
                    else "silo and computing party"
                    if member.computing
                    else "input-only silo",
                    connected=True,
                    engine=__version__,
                )
                for member in self.members
            ),
        )

    async def close(self) -> None:
        """Stop what runs."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- within -----------------------------------------------------------------------------------

    def _plan(self, query: Query) -> Plan:
        threshold = max(self.least_threshold, query.privacy.threshold)
        return propose(query, self._codebook, self.members).plan(threshold)

    def _answered(self, question: str) -> _Run | None:
        """Return the run that answered a question first, by its digest; None if none has."""
        found = (each for each in self._runs.values() if each.question == question and each.release)
        return next(found, None)

    async def _answer(self, run: _Run, query: Query) -> None:
        def on_event(party: str, event: dict[str, Any]) -> None:
            phase = _PHASES.get(str(event.get("name"))) if event["event"] == "phase" else None
            if phase is not None and (run.progress is None or run.progress.phase != phase):
                run.progress = Progress(phase=phase, since=timestamp(self._clock()))
                run.changed.set()

        try:
            with TemporaryDirectory(prefix="mpc-engine-") as folder:
                asked = Path(folder) / "query.json"
                asked.write_text(json.dumps(query.digest_fields()), encoding="utf-8")
                study = self._scenario.model_copy(update={"query": str(asked), "ask": ()})
                study._origin = self._scenario._origin
                made = await simulate(study, on_event)
                run.release, run.receipt = made.release, made.receipt
        except EngineError as failure:
            run.failure = failure
            self._set(run, "RETURNED")
        except Exception as error:
            run.failure = EngineError(f"the simulation failed: {type(error).__name__}: {error}")
            self._set(run, "RETURNED")
        else:
            self._set(run, "RELEASED")

    def _set(self, run: _Run, state: State) -> None:
        run.state = state
        run.times[state] = timestamp(self._clock())
        run.changed.set()

    def _run(self, request: str) -> _Run:
        if request not in self._runs:
            raise UnknownRequestError(f"there is no request {request}")
        return self._runs[request]

    def _status(self, request: str) -> Status:
        run = self._run(request)
        failure = run.failure
        return Status(
            id=run.id,
            state=run.state,
            reason="" if failure is None else failure.reason,
            detail="" if failure is None else str(failure)[:4000],
            next_step="" if failure is None else failure.next_step,
            title=run.title[:400],
            key=run.key,
            project=PROJECT,
            parties={party.name: Decided(decision="approved") for party in self._parties},
            progress=run.progress if run.state == "APPROVED" else None,
            cost=run.charge,
            served_from=run.served_from,
            release_available=run.release is not None,
            receipt_complete=run.receipt is not None,
            times=dict(run.times),
        )


def _stored(run: _Run) -> StoredRelease:
    """Return the release of a run, which has no ticket: its request's id stands for one."""
    return StoredRelease(ticket=run.id, released=run.times["RELEASED"])
