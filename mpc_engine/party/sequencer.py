"""The sequencer: party 1 begins sessions, in one order for all, so that a burst is served and not refused.

It has no power but this: every party begins only what it has approved itself, and debits its own budget.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from mpc_engine.errors import EngineError, PeerAbortedError, PublicationError, catalogue
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import HOLDING, PUBLISHING, RequestRow
from mpc_engine.party.desk import Desk, submission_of
from mpc_engine.party.journal import Journal
from mpc_engine.party.judgement import agreed_plan
from mpc_engine.party.lines import Begin, Settled
from mpc_engine.party.post import Post
from mpc_engine.party.publishing import GONE
from mpc_engine.party.runner import Runner, question_of
from mpc_engine.party.situation import Situation
from mpc_engine.runtime.switchboard import Switchboard

MOST_ATTEMPTS = 5
"""So often a request is tried that fails for reasons which may pass."""
LONGEST_PAUSE_S = 60.0
_PASSING = frozenset({"STALE_SESSION", "UNKNOWN_REQUEST"})
"""Reasons that may pass although the same attempt would fail again: the next one finds another state."""


class Sequencer:
    """Begins sessions for approved requests.

    Args:
        known: returns the least k and the snapshot ids that all parties have published, by name, or None
            while one has not.
    """

    def __init__(
        self,
        ledger: Ledger,
        post: Post,
        desk: Desk,
        runner: Runner,
        switchboard: Switchboard,
        situation: Callable[[], Situation],
        journal: Journal,
        known: Callable[[], tuple[Mapping[str, int], Mapping[str, str]] | None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._ledger, self._post, self._desk, self._runner = ledger, post, desk, runner
        self._switchboard, self._situation, self._journal = switchboard, situation, journal
        self._known, self._spawn = known, spawn
        self._not_before: dict[str, float] = {}
        self._cleared: set[str] = set()
        self._clearing: set[str] = set()
        self.stopped = False

    def pump(self) -> None:
        """Begin what can be begun now. Called whenever something has changed."""
        here = self._situation()
        if self.stopped or not all(self._switchboard.connected(peer) for peer in here.peers):
            return
        known = self._known()
        if known is None:
            return
        loop = asyncio.get_running_loop()
        under_way = self._ledger.sessions(*HOLDING, *PUBLISHING)
        asked = {row.question for row in under_way}
        answered = {row.request for row in under_way}
        busy = len([row for row in under_way if row.state in HOLDING])
        for row in self._ledger.requests(states=("APPROVED",)):
            if row.id in answered or self._not_before.get(row.id, 0.0) > loop.time() or not self._clear(row):
                continue
            try:
                question = self._question(row, *known)
                if question is None or question in asked:
                    continue
                released = self._ledger.released_for(question)
                if released is not None:
                    self._serve(row, released)
                elif busy < here.most_sessions:
                    asked.add(question)
                    busy += 1
                    self._begin(row, question)
            except EngineError as error:
                # One request never holds up those behind it.
                self._journal("request.stuck", request=row.id, reason=error.reason)

    def ended(self, ticket: str, state: str, failure: EngineError | None) -> None:
        """Decide what becomes of the request of a session that has ended here."""
        session = self._ledger.session(ticket)
        if session is None or failure is None:
            self.pump()
            return
        self._failed(session.request, ticket, failure, spent=state == "LOST")
        self.pump()

    # --- within -------------------------------------------------------------------------------------

    def _serve(self, row: RequestRow, ticket: str) -> None:
        """Answer a request with what was released before, if this party would still answer it."""
        try:
            self._desk.check_wanted(row.id)
        except EngineError as error:
            self._return(row.id, error.reason, str(error))
        else:
            self._settle(Settled(request=row.id, digest=row.digest, state="RELEASED", ticket=ticket))

    def _question(
        self, row: RequestRow, thresholds: Mapping[str, int], snapshots: Mapping[str, str]
    ) -> str | None:
        """Return what a request asks, as all parties will find it; settles one that cannot be asked."""
        here = self._situation()
        submission = submission_of(row.body)
        try:
            proposal = here.proposal(submission.asked(), submission.codebook)
            return question_of(proposal, agreed_plan(proposal, thresholds), snapshots)
        except EngineError as error:
            self._return(row.id, error.reason, str(error))
            return None

    def _begin(self, row: RequestRow, question: str) -> None:
        here = self._situation()
        begin = Begin(request=row.id, digest=row.digest, ticket=os.urandom(16).hex(), question=question)
        try:
            self._runner.begin(begin)
        except EngineError as error:
            self._failed(row.id, begin.ticket, error)
            return
        self._journal("session.begun", ticket=begin.ticket, request=row.id)
        for peer in here.peers:
            self._post.say(peer, begin)

    def _failed(self, request: str, ticket: str, failure: EngineError, spent: bool = False) -> None:
        """Return a request, or let it be tried again after a while."""
        row = self._ledger.request(request)
        if row is None or row.state != "APPROVED":
            return
        reason = failure.cause if isinstance(failure, PeerAbortedError) and failure.cause else failure.reason
        classes = {cls.reason: cls for cls in catalogue()}
        passing = classes.get(reason, EngineError).retryable or reason in _PASSING
        attempts = len(self._ledger.sessions_of(request))
        if spent:
            reason = PublicationError.reason
        if spent or not passing or attempts >= MOST_ATTEMPTS:
            self._return(request, reason, str(failure))
            return
        pause_s = min(LONGEST_PAUSE_S, self._situation().deadlines.pause_s * 2 ** max(attempts - 1, 0))
        loop = asyncio.get_running_loop()
        self._not_before[request] = loop.time() + pause_s
        self._spawn(self._pump_later(pause_s))
        self._journal("session.retried", ticket=ticket, request=request, reason=reason)

    async def _pump_later(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        self.pump()

    def _clear(self, row: RequestRow) -> bool:
        """Tell whether a new attempt costs nothing twice: no party has committed an earlier one.

        Asks them, if that is not known yet.
        """
        waiting = [
            each.ticket for each in self._ledger.sessions_of(row.id) if each.ticket not in self._cleared
        ]
        if waiting and row.id not in self._clearing:
            self._clearing.add(row.id)
            self._spawn(self._ask(row.id, waiting))
        return not waiting

    async def _ask(self, request: str, tickets: list[str]) -> None:
        """Ask all peers about earlier attempts, until all have answered."""
        try:
            for ticket in tickets:
                while not self.stopped:
                    states = await self._runner.publishing.states(ticket)
                    self._runner.publishing.forget(ticket)
                    here = self._situation()
                    settled = {p: state for p, state in states.items() if state not in HOLDING}
                    if any(state not in GONE or state == "LOST" for state in settled.values()):
                        row = self._ledger.session(ticket)
                        if row is None or row.state not in ("SIGNED", "RELEASED", *PUBLISHING):
                            told = "a party had committed a session that others had ended"
                            self._return(request, PublicationError.reason, told)
                        return
                    if set(settled) == set(here.peers):
                        self._cleared.add(ticket)
                        break
                    # Somebody has not answered, or runs it still: ask again, but not at once.
                    await asyncio.sleep(here.deadlines.pause_s)
        finally:
            self._clearing.discard(request)
        self.pump()

    def _return(self, request: str, reason: str, detail: str) -> None:
        row = self._ledger.request(request)
        if row is not None:
            self._settle(
                Settled(
                    request=request,
                    digest=row.digest,
                    state="RETURNED",
                    reason=reason,
                    detail=detail[:4000],
                )
            )

    def _settle(self, settled: Settled) -> None:
        with self._post.transaction() as tx:
            self._desk.settle(tx, settled)
