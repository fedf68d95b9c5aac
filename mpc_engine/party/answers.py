"""What a party answers to analysts' programs, method by method; see :mod:`mpc_engine.party.messages`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, TypeVar

from mpc_engine.documents import Document, canonical
from mpc_engine.errors import (
    DocumentError,
    EngineError,
    RequestStateError,
    UnknownCertificateError,
    UnknownRequestError,
    catalogue,
)
from mpc_engine.identity import Analyst
from mpc_engine.ledger.charge import NOTHING, Charge
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import HOLDING, OPEN_REQUEST, RequestRow, SessionRow
from mpc_engine.party.account import charge_of
from mpc_engine.party.desk import Desk, submission_of
from mpc_engine.party.encoding import read_message
from mpc_engine.party.judgement import agreed_plan
from mpc_engine.party.messages import (
    About,
    Amounts,
    CostAnswer,
    CostQuestion,
    Decided,
    Decision,
    Nothing,
    PartiesAnswer,
    PartyEntry,
    PlanOutline,
    PolicyQuestion,
    Progress,
    Status,
    Statuses,
    StoredRelease,
    Submitted,
    WaitFor,
)
from mpc_engine.party.notices import Notices
from mpc_engine.party.overview import served_from, title_of
from mpc_engine.party.proposal import Proposal
from mpc_engine.party.repetition import answered_by, known_to
from mpc_engine.party.runner import Runner
from mpc_engine.party.situation import Situation
from mpc_engine.party.submission import Submission
from mpc_engine.party.verdicts import Asked, own_remaining, own_verdict, remaining, verdict
from mpc_engine.runtime.switchboard import Switchboard

M = TypeVar("M", bound=Document)
Role = Literal["silo and computing party", "helper", "input-only silo"]
MOST_LISTED = 1000
UNSPENT = (*HOLDING, "ABORTED")
"""States of a session in which nothing is debited (yet)."""


class Answers:
    """Answers analysts. `changes` is set, and replaced, whenever something that they see has changed."""

    def __init__(
        self,
        ledger: Ledger,
        desk: Desk,
        runner: Runner,
        notices: Notices,
        switchboard: Switchboard,
        situation: Callable[[], Situation],
    ) -> None:
        self._ledger, self._desk, self._runner, self._notices = ledger, desk, runner, notices
        self._switchboard, self._situation = switchboard, situation
        self._changes = asyncio.Event()
        self._methods: Mapping[str, Callable[[Analyst, str, bytes], Awaitable[Document | bytes]]] = {
            "Submit": self._submit,
            "Status": self._status,
            "List": self._list,
            "Wait": self._wait,
            "Withdraw": self._withdraw,
            "Result": self._result,
            "Cost": self._cost,
            "Policy": self._policy,
            "Parties": self._parties,
        }

    def changed(self) -> None:
        """Wake those who wait."""
        self._changes.set()
        self._changes = asyncio.Event()

    async def answer(self, certificate: str, method: str, content: bytes) -> bytes:
        """Answer a call of the analyst whose certificate has this fingerprint. Raises EngineError."""
        analyst, card = self._who(certificate)
        answered = await self._methods[method](analyst, card, content)
        return answered if isinstance(answered, bytes) else canonical(answered.model_dump(by_alias=True))

    # --- methods ------------------------------------------------------------------------------------

    async def _submit(self, analyst: Analyst, card: str, content: bytes) -> Submitted:
        submission = read_message(content, Submission)
        submission.verify()
        if submission.analyst.fingerprint != card:
            raise UnknownCertificateError("the request carries another card than the one that is used here")
        submission.asked()
        row, known = self._desk.submit(submission)
        return Submitted(status=self._about(row), known=known)

    async def _status(self, analyst: Analyst, card: str, content: bytes) -> Status:
        return self._about(self._request(analyst, read_message(content, About).id))

    async def _list(self, analyst: Analyst, card: str, content: bytes) -> Statuses:
        read_message(content, Nothing)
        rows = [row for each in analyst.cards for row in self._ledger.requests(analyst=each.fingerprint)]
        rows.sort(key=lambda row: row.received, reverse=True)
        return Statuses(requests=tuple(self._about(row) for row in rows[:MOST_LISTED]))

    async def _wait(self, analyst: Analyst, card: str, content: bytes) -> Status:
        wanted = read_message(content, WaitFor)
        loop = asyncio.get_running_loop()
        until = loop.time() + wanted.timeout_s
        while True:
            changes = self._changes
            status = self._about(self._request(analyst, wanted.id))
            left = until - loop.time()
            if status.mark != wanted.seen or left <= 0:
                return status
            try:
                async with asyncio.timeout(left):
                    await changes.wait()
            except TimeoutError:
                pass

    async def _withdraw(self, analyst: Analyst, card: str, content: bytes) -> Status:
        row = self._request(analyst, read_message(content, About).id)
        return self._about(self._desk.withdraw(row.id))

    async def _result(self, analyst: Analyst, card: str, content: bytes) -> bytes:
        row = self._request(analyst, read_message(content, About).id)
        release = None if row.ticket is None else self._ledger.release(row.ticket)
        receipt = None if row.ticket is None else self._ledger.receipt(row.ticket)
        if row.state != "RELEASED" or release is None or receipt is None:
            raise RequestStateError(f"the request is {row.state}; there is no result to fetch")
        return b'{"release":' + release + b',"receipt":' + receipt + b"}"

    async def _cost(self, analyst: Analyst, card: str, content: bytes) -> CostAnswer:
        question = read_message(content, CostQuestion)
        here, query = self._situation(), question.asked()
        proposal = here.proposal(query, question.codebook)
        thresholds = {**self._notices.thresholds(), here.name: here.policy.least_threshold}
        plan = agreed_plan(proposal, thresholds)
        charge, stored = charge_of(plan.guarantee), self._stored(analyst, proposal)
        due = None if stored is not None else charge
        asked = Asked(query, here.codebook, proposal, analyst, question.project, due, thresholds)
        budgets = self._ledger.budgets(here.limits(card, analyst.name, question.project))
        left, verdicts = {}, {}
        for name in here.names.values():
            if name == here.name:
                judgement = asked.judged(here.policy, name, silo=here.silo, terms=analyst.terms)
                left[name] = own_remaining(budgets, asked, silo=here.silo)
                verdicts[name] = own_verdict(judgement, budgets, due)
            else:
                notice = self._notices.of(name)
                left[name], verdicts[name] = remaining(notice, asked), verdict(notice, asked)
        return CostAnswer(
            plan=PlanOutline.of(plan),
            cost=Amounts.of(charge),
            remaining=left,
            verdicts=verdicts,
            served_from=stored,
        )

    async def _policy(self, analyst: Analyst, card: str, content: bytes) -> Document:
        party = read_message(content, PolicyQuestion).party
        notice = self._notices.of(party) if party in self._situation().names.values() else None
        if notice is None:
            raise DocumentError(f"{party}: no party of this name has published its policy here yet")
        return notice.published

    async def _parties(self, analyst: Analyst, card: str, content: bytes) -> PartiesAnswer:
        read_message(content, Nothing)
        here = self._situation()
        entries = []
        for number, member in enumerate(here.directory.members, start=1):
            notice = self._notices.of(member.name)
            policy = {} if notice is None else notice.published.policy
            role: Role = "input-only silo"
            if member.computing:
                role = "silo and computing party" if member.silo else "helper"
            entries.append(
                PartyEntry(
                    name=member.name,
                    role=role,
                    connected=number == here.number or self._switchboard.connected(number),
                    engine=str(policy.get("engine", {}).get("version", "")),
                    snapshot=str(policy.get("snapshot", "")),
                    card="" if notice is None else notice.published.card,
                )
            )
        return PartiesAnswer(asked=here.name, parties=tuple(entries))

    # --- within -------------------------------------------------------------------------------------

    def _who(self, certificate: str) -> tuple[Analyst, str]:
        """Return the enrolled analyst, and the card, that a certificate belongs to."""
        for fingerprint, analyst in self._situation().analysts.items():
            for card in analyst.cards:
                if card.fingerprint == fingerprint and card.certificate_fingerprint == certificate:
                    return analyst, fingerprint
        raise UnknownCertificateError("this certificate belongs to no analyst who is enrolled here")

    def _request(self, analyst: Analyst, request: str) -> RequestRow:
        row = self._ledger.request(request)
        if row is None or row.analyst not in {card.fingerprint for card in analyst.cards}:
            raise UnknownRequestError("you have no request with this id here")
        return row

    def _about(self, row: RequestRow) -> Status:
        here = self._situation()
        query = submission_of(row.body).asked()
        decisions = self._ledger.decisions(row.id)
        parties = {}
        for name in here.names.values():
            decision = decisions.get(name)
            if decision is None:
                parties[name] = Decided(decision="waiting")
            else:
                word: Decision = "approved" if decision.verdict == "approved" else "rejected"
                parties[name] = Decided(decision=word, reason=decision.detail[:4000])
        classes = {cls.reason: cls for cls in catalogue()}
        sessions = self._ledger.sessions_of(row.id)
        running = [each for each in sessions if each.ticket in self._runner.phases]
        progress = None
        if running:
            phase = self._runner.phases[running[-1].ticket]
            progress = Progress(phase=phase, since=running[-1].changed)  # type: ignore[arg-type]
        available = row.state == "RELEASED" and row.ticket is not None
        return Status(
            id=row.id,
            state=row.state,
            reason=row.reason if row.state in ("RETURNED", "REJECTED") else "",
            detail=row.detail[:4000],
            next_step=classes[row.reason].next_step if row.reason in classes else "",
            title=title_of(query),
            key=row.key,
            project=row.project,
            parties=parties,
            waiting_for=tuple(self._waiting(row, parties)),
            progress=progress,
            ticket=row.ticket,
            cost=Amounts.of(self._charge(row, sessions)),
            served_from=self._served(row),
            release_available=available,
            receipt_complete=available,
            times={"SUBMITTED": row.received, row.state: row.changed},
        )

    def _charge(self, row: RequestRow, sessions: Sequence[SessionRow]) -> Charge:
        """Return what a request that has ended was debited, or what an open one costs.

        Of one that has not begun, that is as far as the present documents tell.
        """
        if row.state not in OPEN_REQUEST:
            return sum((each.charge for each in sessions if each.state not in UNSPENT), NOTHING)
        if sessions:
            return sessions[-1].charge
        here, submission = self._situation(), submission_of(row.body)
        asked = submission.asked().privacy
        try:
            proposal = here.proposal(submission.asked(), submission.codebook)
            plan = agreed_plan(proposal, {here.name: here.policy.least_threshold})
        except EngineError:
            return Charge.of(asked.epsilon_exact, asked.delta_exact)
        return charge_of(plan.guarantee)

    def _served(self, row: RequestRow) -> StoredRelease | None:
        """Return the earlier release that answered a request, or that would answer it as things stand.

        When it was made is told only to an analyst who had it before this request.
        """
        here, submission = self._situation(), submission_of(row.body)
        analyst = here.terms(row.analyst)
        if row.state not in OPEN_REQUEST:
            found = served_from(self._ledger, row)
            cards = (row.analyst,) if analyst is None else _fingerprints(analyst)
            return None if found is None else known_to(self._ledger, cards, found, row)
        if analyst is None:
            return None
        try:
            return self._stored(analyst, here.proposal(submission.asked(), submission.codebook), row)
        except EngineError:
            return None

    def _stored(
        self, analyst: Analyst, proposal: Proposal, row: RequestRow | None = None
    ) -> StoredRelease | None:
        """Return the release that an analyst has and would get again for a proposal, as that of ``row``.

        That another analyst has it, nobody is told before all parties have approved the question.
        """
        found = answered_by(self._ledger, proposal, self._notices.known())
        if found is None:
            return None
        told = known_to(self._ledger, _fingerprints(analyst), found, row)
        return told if told.released is not None else None

    def _waiting(self, row: RequestRow, parties: Mapping[str, Decided]) -> list[str]:
        """Say what must happen before the request can go on."""
        here = self._situation()
        if row.state in ("SUBMITTED", "PARTIALLY_REVIEWED"):
            names = [name for name, decided in parties.items() if decided.decision == "waiting"]
            return [f"{name} to decide" for name in names]
        if row.state in ("REVIEWED", "APPROVED"):
            down = [here.names[peer] for peer in here.peers if not self._switchboard.connected(peer)]
            return [f"the line to {name}" for name in down] or ["its session"]
        return []


def _fingerprints(analyst: Analyst) -> tuple[str, ...]:
    return tuple(card.fingerprint for card in analyst.cards)
