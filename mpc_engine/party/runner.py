"""The sessions of one party: begun, run up to the commit, and handed on to be published, or ended.

Up to its commit a session lives in one task and dies with it: its hold is given back, and it is never run
again. What follows the commit is in :mod:`mpc_engine.party.publishing`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from mpc_engine.documents import digest
from mpc_engine.errors import (
    DocumentError,
    EngineError,
    LedgerBrokenError,
    LedgerRollbackError,
    LocalComputeError,
    PeerError,
    QuestionBusyError,
    RequestStateError,
    SessionTimeoutError,
    SnapshotMismatchError,
    StoppedError,
    UnknownRequestError,
)
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import HOLDING, PUBLISHING, SessionRow
from mpc_engine.ledger.sealing import Sealing
from mpc_engine.ledger.transaction import Transaction
from mpc_engine.party.account import charge_of
from mpc_engine.party.declining import Declining, public
from mpc_engine.party.desk import SEQUENCER, Desk, submission_of
from mpc_engine.party.failpoints import reach
from mpc_engine.party.journal import Journal
from mpc_engine.party.judgement import agreed_plan
from mpc_engine.party.lines import Begin, Declined, Settled, Stored
from mpc_engine.party.post import Post
from mpc_engine.party.process import place_of
from mpc_engine.party.proposal import Proposal
from mpc_engine.party.publishing import CONTROL_ALLOWANCE, Ended, Publishing, error_of, link_name
from mpc_engine.party.record import Record
from mpc_engine.party.session import Session
from mpc_engine.party.situation import Counter, Situation
from mpc_engine.release.plan import Plan
from mpc_engine.runtime.link import Link, Section
from mpc_engine.runtime.switchboard import Switchboard
from mpc_engine.transport.control import Agree


def question_of(proposal: Proposal, plan: Plan, snapshots: Mapping[str, str]) -> str:
    """Return the digest of all that a release follows from: the plan, and the snapshots by silo."""
    return digest({"plan": plan.digest, "snapshots": dict(sorted(snapshots.items()))})


class Runner:
    """Runs one party's sessions."""

    def __init__(
        self,
        ledger: Ledger,
        keys: Sealing,
        post: Post,
        desk: Desk,
        switchboard: Switchboard,
        counter: Counter,
        situation: Callable[[], Situation],
        journal: Journal,
        thresholds: Callable[[], Mapping[str, int]],
        ended: Ended,
        changed: Callable[[], None],
    ) -> None:
        self._ledger, self._keys, self._post, self._desk = ledger, keys, post, desk
        self._switchboard, self._counter, self._situation = switchboard, counter, situation
        self._journal, self._thresholds = journal, thresholds
        self._ended, self._changed = ended, changed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._why: dict[str, EngineError] = {}
        self._declining = Declining(post, situation, journal)
        self._stopping = False
        self._unlinked: set[str] = set()  # sessions without a link, which would break with a peer
        self.phases: dict[str, str] = {}
        """By ticket, the phase of each session that runs."""
        self.on_failure: Callable[[BaseException], None] = lambda error: None
        """Told of what no session survives: a ledger that failed."""
        self.publishing = Publishing(
            ledger, keys, post, switchboard, situation, journal, self._record, ended, self._phase
        )
        post.handle({}, {"begin": self._begin, "declined": self._declined})

    # --- beginning ----------------------------------------------------------------------------------

    @property
    def running(self) -> frozenset[str]:
        """Tickets of the sessions that run here."""
        return frozenset(self._tasks)

    def resume(self) -> None:
        """After a start: end what cannot go on, go on with what was committed, destroy keys of no use."""
        for row in self._ledger.sessions(*HOLDING):
            with self._post.transaction() as tx:
                tx.abort(row.ticket, StoppedError.reason, "the party was stopped")
            self._declining.cut_off(row.ticket)
        publishing = self._ledger.sessions(*PUBLISHING)
        self._check_roster(publishing)
        for ticket in self._keys.tickets() - {row.ticket for row in publishing}:
            self._keys.shred(ticket)
        for row in publishing:
            self._start(row.ticket, self.publishing.run(row.ticket))

    def _check_roster(self, rows: list[SessionRow]) -> None:
        """Raise DocumentError if the roster has changed and a session of the former one has not ended."""
        members = [member.as_fields() for member in self._situation().directory.members]
        for row in rows:
            if row.facts is not None and json.loads(row.facts)["members"] != members:
                raise DocumentError(
                    "the roster has changed while releases are being published: put the former one back "
                    "until `mpc-engine party status` shows that no session runs"
                )

    def sweep(self) -> None:
        """End, or take up again, what no task cares for: the ledger could not be written for a while."""
        if self._stopping:
            return
        for row in self._ledger.sessions(*HOLDING):
            if row.ticket not in self._tasks:
                self._abort(row.ticket, StoppedError(f"{self._situation().name} could not go on"))
        for row in self._ledger.sessions(*PUBLISHING):
            if row.ticket not in self._tasks:
                self._start(row.ticket, self.publishing.run(row.ticket))

    def begin(self, begin: Begin) -> None:
        """Reserve and begin a session. Raises EngineError; nothing has been begun then."""
        reach("begin")
        here = self._situation()
        if self._stopping:
            raise StoppedError(f"{here.name} is shutting down")
        row = self._ledger.request(begin.request)
        if row is None:
            raise UnknownRequestError("there is no such request here")
        if row.digest != begin.digest:
            raise RequestStateError(f"the request is about another question at {here.name}")
        self._desk.check_wanted(row.id)  # the policy may have changed since it was approved
        submission = submission_of(row.body)
        query = submission.asked()
        proposal = here.proposal(query, submission.codebook)
        plan = agreed_plan(proposal, {**self._thresholds(), here.name: here.policy.least_threshold})
        limits = here.limits(row.analyst, row.analyst_name, row.project)
        try:
            with self._post.transaction() as tx:
                tx.reserve(
                    begin.ticket,
                    request=row.id,
                    question=begin.question,
                    charge=charge_of(plan.guarantee),
                    scopes=[limit.scope for limit in limits],
                    limits=limits,
                )
        except QuestionBusyError:
            if here.number != SEQUENCER and self._ledger.released_for(begin.question) is not None:
                # The sequencer begins no session for a question whose release it has.
                raise LedgerRollbackError(
                    f"the ledger of {here.names[SEQUENCER]} lacks the release of this question, which "
                    f"{here.name} has"
                ) from None
            raise
        reach("reserved")
        self._journal("session.reserved", ticket=begin.ticket, request=row.id)
        self._unlinked.add(begin.ticket)
        self._start(begin.ticket, self._attempt(begin, proposal, plan))

    def _begin(self, sender: int, begin: Begin) -> None:
        """The sequencer begins a session."""
        self._post.check_sender(sender, sender == SEQUENCER)
        try:
            self.begin(begin)
        except EngineError as error:
            self._declining.decline(begin.ticket, error)

    def _declined(self, sender: int, declined: Declined) -> None:
        """Another party does not take part: end the session here; the sequencer's end ends it everywhere."""
        self._post.check_sender(sender, SEQUENCER in (sender, self._situation().number))
        self.fail(declined.ticket, error_of(declined.reason, declined.detail))

    def fail(self, ticket: str, error: EngineError) -> None:
        """End a session that has not committed here; one that has goes on."""
        row = self._ledger.session(ticket)
        task = self._tasks.get(ticket)
        if task is not None and row is not None and row.state in HOLDING:
            self._why.setdefault(ticket, error)
            task.cancel()

    def line_up(self, peer: int) -> None:
        """A line stands: let publishing try again, and tell what a stop of this party has cut off."""
        self.publishing.line_up()
        self._declining.line_up(peer)

    def line_down(self, peer: int) -> None:
        """A line broke: end sessions that still wait for all to come, for one that was killed never will."""
        here = self._situation()
        for ticket in self._unlinked:
            self.fail(ticket, PeerError(f"{here.name} lost {here.names[peer]} before the session began"))

    def withdraw(self, request: str) -> None:
        """End the sessions of a request that nobody waits for any more."""
        for row in self._ledger.sessions_of(request):
            self.fail(row.ticket, RequestStateError("the request was withdrawn or refused"))

    async def stop(self, grace_s: float) -> None:
        """End what has not committed, give the rest some time, and stop it: it goes on after a restart."""
        self._stopping = True
        for ticket in list(self._tasks):
            self.fail(ticket, StoppedError(f"{self._situation().name} is shutting down"))
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, ticket: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(ticket, work))
        self._tasks[ticket] = task
        task.add_done_callback(lambda _: self._over(ticket, work))

    async def _guarded(self, ticket: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a session's work: it never takes the party with it, unless the ledger has failed."""
        try:
            await work
        except asyncio.CancelledError:
            pass
        except LedgerBrokenError as error:
            self.on_failure(error)
        except Exception as error:
            self._journal("session.failed", ticket=ticket, kind=type(error).__name__, **place_of(error))
            if self._ledger.broken:
                self.on_failure(error)

    def _over(self, ticket: str, work: Coroutine[Any, Any, None]) -> None:
        """Clear up after a session's task, also after one that was cancelled before its first step."""
        work.close()
        self._tasks.pop(ticket, None)
        self.phases.pop(ticket, None)
        self.publishing.forget(ticket)
        why = self._why.pop(ticket, None)
        with suppress(EngineError):
            row = self._ledger.session(ticket)
            if why is not None and row is not None and row.state in HOLDING:
                self._abort(ticket, why)
        self._unlinked.discard(ticket)
        self._changed()

    # --- up to the commit ---------------------------------------------------------------------------

    async def _attempt(self, begin: Begin, proposal: Proposal, plan: Plan) -> None:
        """Run a session; if it commits, publish it to the end."""
        ticket = begin.ticket
        failure: EngineError | None = None
        try:
            async with asyncio.timeout(self._situation().deadlines.session_s) as limit:
                # In a task of its own: a task group that fails may leave its task marked as cancelled.
                run = self._run(begin, proposal, plan, lambda: limit.reschedule(None))
                await asyncio.get_running_loop().create_task(run)
        except asyncio.CancelledError:
            failure = self._why.pop(ticket, None) or StoppedError(f"{self._situation().name} was stopped")
            if self._is_committed(ticket):
                raise
        except TimeoutError:
            failure = SessionTimeoutError(
                f"{self._situation().name} gave the session "
                f"{self._situation().deadlines.session_s:g} s to its commit, and it took longer"
            )
        except EngineError as error:
            failure = error
        except Exception as error:
            failure = LocalComputeError(f"{self._situation().name} failed: {type(error).__name__}")
            self._journal("session.failed", ticket=ticket, kind=type(error).__name__, **place_of(error))
        self._why.pop(ticket, None)
        if self._is_committed(ticket):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError  # whatever has come of it on the way
            await self.publishing.run(ticket, failure)
        elif failure is not None:
            self._abort(ticket, failure)

    def _is_committed(self, ticket: str) -> bool:
        """Ask the ledger, and nothing else, whether a session is committed."""
        row = self._ledger.session(ticket)
        return row is not None and row.state in PUBLISHING

    async def _run(
        self,
        begin: Begin,
        proposal: Proposal,
        plan: Plan,
        committed: Callable[[], None],
    ) -> None:
        """Count, agree, compute, commit, and publish over the same link."""
        here, ticket = self._situation(), begin.ticket
        deadlines = here.deadlines
        self._phase(ticket, "count")
        row = self._ledger.request(begin.request)
        if row is None:
            raise UnknownRequestError("there is no such request here")
        query = submission_of(row.body).asked()
        try:
            counted = await self._counter.count(query, here.codebook)
        except EngineError as error:
            self._journal("session.count_failed", ticket=ticket, reason=error.reason)
            raise LocalComputeError(f"{here.name} cannot count: see its own log") from None
        except Exception as error:
            self._journal("session.count_failed", ticket=ticket, kind=type(error).__name__, **place_of(error))
            raise
        reach("counted")

        def check(agrees: Mapping[int, Agree], agreed: Plan) -> None:
            snapshots = {here.names[n]: agree.snapshot_id for n, agree in agrees.items() if agree.snapshot_id}
            if question_of(proposal, agreed, snapshots) != begin.question:
                raise SnapshotMismatchError(
                    "what the parties publish has changed since the session began: their records or least k"
                )
            if charge_of(agreed.guarantee) != charge_of(plan.guarantee):
                raise SnapshotMismatchError("the agreed plan costs something else than what was reserved")
            self._desk.check_wanted(begin.request)
            reach("agreed")

        self._phase(ticket, "connect")
        async with self._switchboard.link(
            link_name("session", ticket),
            connect_timeout_s=deadlines.connect_s,
            round_timeout_s=deadlines.round_s,
            max_ahead_bytes=plan.sent_bytes // plan.computing + CONTROL_ALLOWANCE,
        ) as link:
            self._unlinked.discard(ticket)
            session = Session(
                here.number,
                proposal,
                here.policy,
                link,
                counted.snapshot_id,
                counted.sums,
                here.credentials(counted.snapshot_id),
                book=self._record(ticket),
                ticket=bytes.fromhex(ticket),
                check_agreed=check,
                agree_timeout_s=deadlines.connect_s,
                round_timeout_s=deadlines.round_s,
                progress=lambda section, done, of: self._passed(ticket, section),
                announce=lambda phase: self._phase(ticket, phase),
            )
            try:
                await session.compute()
                committed()
                self._journal("session.committed", ticket=ticket)
                await session.publish()
            except BaseException as error:
                await _tell(session, link, error, self._why.get(ticket))
                raise

    def _record(self, ticket: str) -> Record:
        here = self._situation()

        def signed(tx: Transaction) -> None:
            row = self._ledger.session(ticket)
            for peer in here.peers:
                self._post.post(tx, peer, Stored(ticket=ticket))
            if row is not None:
                request = self._ledger.request(row.request)
                if request is not None:
                    settled = Settled(
                        request=request.id, digest=request.digest, state="RELEASED", ticket=ticket
                    )
                    self._desk.settle(tx, settled)
            self._post.afterwards(lambda: self._ended(ticket, "SIGNED", None))

        def wanted() -> None:
            row = self._ledger.session(ticket)
            self._desk.check_wanted("" if row is None else row.request)

        return Record(ticket, self._ledger, self._keys, self._post, here.names, here.codebook, wanted, signed)

    def _phase(self, ticket: str, phase: str) -> None:
        self.phases[ticket] = phase
        self._journal("session.phase", ticket=ticket, phase=phase)
        if phase == "open":
            reach("committed_sent")
        self._changed()

    def _passed(self, ticket: str, section: Section) -> None:
        """Note that a block has passed a section of the protocol, for who asks where time goes."""
        self._journal("session.section", ticket=ticket, section=section.name.lower())

    def _abort(self, ticket: str, failure: EngineError) -> None:
        told = public(self._situation().name, failure)
        with suppress(EngineError), self._post.transaction() as tx:
            tx.abort(ticket, failure.reason, str(told)[:1000])
            # Only here is it certain that the commit will not turn out to be durable and need its key.
            self._post.afterwards(lambda: self._keys.shred(ticket))
        self._journal("session.aborted", ticket=ticket, reason=failure.reason)
        if ticket in self._unlinked:
            self._declining.call_off(ticket, failure)
        self._ended(ticket, "ABORTED", told)


async def _tell(session: Session, link: Link, error: BaseException, why: EngineError | None) -> None:
    """Tell the peers why this party ends a session."""
    await session.tell(why if why is not None and isinstance(error, asyncio.CancelledError) else error)
