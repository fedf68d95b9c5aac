"""A party's side of the analyst port, in memory: it answers as a real one would, when a test lets it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mpc_engine.client.loop import Loop
from mpc_engine.client.preview import suppressed
from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.errors import (
    BudgetError,
    IdempotencyError,
    RequestStateError,
    UnknownCertificateError,
    UnknownRequestError,
)
from mpc_engine.identity import Identity, create_identity
from mpc_engine.ledger.charge import NOTHING, Charge
from mpc_engine.party.account import charge_of
from mpc_engine.party.encoding import read_message, write_message, write_result
from mpc_engine.party.messages import (
    FINAL,
    About,
    Amounts,
    CostAnswer,
    CostQuestion,
    Decided,
    Nothing,
    PartiesAnswer,
    PartyEntry,
    PlanOutline,
    PolicyQuestion,
    Progress,
    Remaining,
    State,
    Status,
    Statuses,
    StoredRelease,
    Submitted,
    WaitFor,
    publish_policy,
)
from mpc_engine.party.policy import Policy
from mpc_engine.party.proposal import propose
from mpc_engine.party.published import published
from mpc_engine.party.receipt import FORMAT, RECEIPT_PURPOSE, receipt_content
from mpc_engine.party.submission import Submission, question_digest
from mpc_engine.release.plan import Member, Plan
from mpc_engine.release.table import Release, release_digest
from mpc_engine.statistics.query import Query
from mpc_engine.transport.analyst_port import AnalystServer
from tests.party.machines import CODEBOOK, QUERY

TIME = "2026-11-01T12:00:00Z"
COUNTS = (40, 30, 6, 2, 0, 50)
"""Records in the cells of the usual query."""


@dataclass
class Held:
    """A request as the fake desk keeps it."""

    submission: Submission
    query: Query
    state: State = "SUBMITTED"
    reason: str = ""
    detail: str = ""
    progress: Progress | None = None
    spent: bool = True
    """Whether ending without an answer has cost something."""
    decisions: dict[str, Decided] = field(default_factory=dict)
    times: dict[State, str] = field(default_factory=lambda: {"SUBMITTED": TIME})


class FakeDesk:
    """Answers calls from memory. Requests are answered at once if ``auto``, else as :meth:`move` says."""

    def __init__(self, party: Identity, analysts: list[Identity], codebook: Codebook) -> None:
        self.party, self.codebook = party, codebook
        self.analysts = {each.fingerprint: each for each in analysts}
        self.held: dict[str, Held] = {}
        self.auto = True
        self.calls: list[str] = []
        self.members = tuple(
            Member(name, True, name != "helper", party.card.origin_fingerprint, 1 << 24)
            for name in ("uk", "us", "helper")
        )
        self.script: list[tuple[State, dict[str, Any]]] = []
        """What happens to the newest request, one step with each call of Wait."""
        self._changed = asyncio.Event()

    def plan(self, query: Query) -> Plan:
        """Return the plan of a query on this desk's roster."""
        return propose(query, self.codebook, self.members).plan(max(5, query.privacy.threshold))

    async def answer(self, analyst: str, method: str, body: bytes) -> bytes:
        """Answer one call, as `AnalystServer` hands it over."""
        self.calls.append(method)
        if analyst not in self.analysts:
            raise UnknownCertificateError("not enrolled")
        name = self.analysts[analyst].card.fingerprint
        match method:
            case "Submit":
                return write_message(self._submit(name, read_message(body, Submission)))
            case "Status":
                return write_message(self._status(name, read_message(body, About).id))
            case "Wait":
                return write_message(await self._wait(name, read_message(body, WaitFor)))
            case "Withdraw":
                request = read_message(body, About).id
                if self._mine(name, request).state in FINAL:
                    raise RequestStateError(f"request {request} has ended")
                self.move(request, "WITHDRAWN")
                return write_message(self._status(name, request))
            case "Result":
                request = read_message(body, About).id
                if self._mine(name, request).state != "RELEASED":
                    raise RequestStateError(f"request {request} has no result")
                return write_result(*self.published(request))
            case "List":
                read_message(body, Nothing)
                mine = [key for key, held in self.held.items() if held.submission.analyst.fingerprint == name]
                return write_message(
                    Statuses(requests=tuple(self._status(name, each) for each in reversed(mine)))
                )
            case "Cost":
                return write_message(self._cost(read_message(body, CostQuestion)))
            case "Policy":
                party = read_message(body, PolicyQuestion).party
                if party != self.party.name:
                    raise UnknownRequestError(f"no party is called {party}")
                fields = published(
                    Policy("1", 5), party, "registry", "ab" * 16, {"version": "1", "source": "cd" * 32}
                )
                return write_message(publish_policy(fields, self.party))
            case _:
                read_message(body, Nothing)
                entries = tuple(
                    PartyEntry(
                        name=member.name,
                        role="silo and computing party" if member.silo else "helper",
                        connected=True,
                    )
                    for member in self.members
                )
                return write_message(PartiesAnswer(asked="uk", parties=entries))

    def move(self, request: str, state: State, **changes: Any) -> None:
        """Bring a request into another state."""
        held = self.held[request]
        held.state = state
        held.times[state] = TIME
        for name, value in changes.items():
            setattr(held, name, value)
        self._changed.set()

    def published(self, request: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return release and receipt of a request."""
        served = self._served_from(request)
        request = request if served is None else served.ticket
        query = self.held[request].query
        plan = self.plan(query)
        sums = [np.array([COUNTS, COUNTS], np.int64)]
        release = Release(plan, query.digest_fields(), suppressed(plan, sums), {"id": request}).as_fields()
        receipt: dict[str, Any] = {
            "format": FORMAT,
            "session_id": request,
            "parties": [
                {
                    "name": "uk",
                    "card": self.party.card.origin_fingerprint,
                    "signing_key": self.party.signing.public.hex(),
                }
            ],
            "release_sha256": release_digest(json.loads(json.dumps(release))),
        }
        signature = self.party.signing.sign(RECEIPT_PURPOSE, receipt_content(receipt)).hex()
        return release, receipt | {"signatures": {"uk": signature}}

    # --- within -----------------------------------------------------------------------------------

    def _submit(self, analyst: str, submission: Submission) -> Submitted:
        submission.verify()
        assert submission.analyst.fingerprint == analyst
        query = submission.asked()
        plan = self.plan(query)
        if charge_of(plan.guarantee).micro_epsilon > 2_000_000:
            raise BudgetError("uk: of project “wilms” ε = 2 is left")
        request = submission.request_id
        known = request in self.held
        if known and self.held[request].submission.digest != submission.digest:
            raise IdempotencyError(f"the key {submission.key!r} is that of another question")
        if not known:
            self.held[request] = Held(submission, query)
            if self.auto:
                self.move(request, "RELEASED")
        return Submitted(status=self._status(analyst, request), known=known)

    def _mine(self, analyst: str, request: str) -> Held:
        held = self.held.get(request)
        if held is None or held.submission.analyst.fingerprint != analyst:
            raise UnknownRequestError(f"there is no request {request}")
        return held

    def _served_from(self, request: str) -> StoredRelease | None:
        """Return the release of an earlier request with the same question; its id stands for the ticket."""
        return self._stored(self.held[request].submission.digest, before=request)

    def _stored(self, digest: str, before: str = "") -> StoredRelease | None:
        for key, held in self.held.items():
            if key == before:
                return None
            if held.state == "RELEASED" and held.submission.digest == digest:
                return StoredRelease(ticket=key, released=TIME)
        return None

    async def _wait(self, analyst: str, message: WaitFor) -> Status:
        self._mine(analyst, message.id)
        if self.script:
            state, changes = self.script.pop(0)
            self.move(message.id, state, **changes)
        try:
            async with asyncio.timeout(message.timeout_s):
                while self._status(analyst, message.id).mark == message.seen:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self._status(analyst, message.id)

    def _status(self, analyst: str, request: str) -> Status:
        held = self._mine(analyst, request)
        released, served = held.state == "RELEASED", self._served_from(request)
        free = (released and served) or not held.spent
        charge = NOTHING if free else charge_of(self.plan(held.query).guarantee)
        return Status(
            id=request,
            state=held.state,
            reason=held.reason,
            detail=held.detail,
            title=held.query.question(),
            key=held.submission.key,
            project=held.submission.project,
            parties={
                name: held.decisions.get(name, Decided(decision="approved" if released else "waiting"))
                for name in ("uk", "us")
            },
            waiting_for=() if held.state in FINAL else ("an operator at us",),
            progress=held.progress,
            cost=Amounts.of(charge),
            served_from=served,
            release_available=released,
            receipt_complete=released,
            times=dict(held.times),
        )

    def _cost(self, question: CostQuestion) -> CostAnswer:
        plan = self.plan(question.asked())
        left = Amounts.of(Charge(2_500_000, 1 << 60))
        return CostAnswer(
            plan=PlanOutline.of(plan),
            cost=Amounts.of(charge_of(plan.guarantee)),
            remaining={"uk": Remaining(dataset=left, project=left, analyst=None), "helper": Remaining()},
            verdicts={"uk": "would be approved automatically", "us": "needs an operator"},
            served_from=self._stored(question_digest(question.query, question.codebook, question.project)),
        )


@cache
def _identities() -> dict[str, Identity]:
    from mpc_engine.identity import throwaway_identity

    return {name: throwaway_identity(name, role="analyst") for name in ("alice", "bob")} | {
        "uk": throwaway_identity("uk", address="uk.example:8470")
    }


def someone(name: str) -> Identity:
    """Return the identity of uk, a party, or of alice or bob, analysts; the same for all tests."""
    return _identities()[name]


@dataclass
class Study:
    """A running party with a fake desk, and the analyst's files."""

    folder: Path
    desk: FakeDesk
    server: AnalystServer
    loop: Loop
    enrolled: list[Identity]

    @property
    def profile(self) -> Path:
        """The profile of the analyst alice."""
        return self.folder / "profile.toml"

    @property
    def query(self) -> Path:
        """The usual query."""
        return self.folder / "query.toml"


@contextmanager
def running(folder: Path) -> Iterator[Study]:
    """Serve a fake desk in a thread, and write a profile for it."""
    (folder / "codebook.toml").write_text(CODEBOOK)
    (folder / "query.toml").write_text(QUERY)
    alice = create_identity("alice", folder / "alice", role="analyst")
    enrolled = [alice, someone("bob")]
    loop = Loop()
    desk = FakeDesk(someone("uk"), enrolled, load_codebook(folder / "codebook.toml"))
    server = AnalystServer(
        "127.0.0.1:0",
        someone("uk"),
        trusted=lambda: {each.fingerprint: each.certificate.pem for each in enrolled},
        handle=desk.answer,
        burst=200,
    )
    port = loop.run(server.start())
    (folder / "uk.card.json").write_bytes(someone("uk").card.encode())
    (folder / "profile.toml").write_text(
        f'identity = "alice"\nparty = "uk.card.json"\naddress = "127.0.0.1:{port}"\n'
        'codebook = "codebook.toml"\nproject = "wilms"\n'
    )
    try:
        yield Study(folder, desk, server, loop, enrolled)
    finally:
        loop.run(server.stop(0))
        loop.close()
