"""The front desk: requests as they come in, what each party decides about them, and what becomes of them.

Requests and decisions travel by way of the sequencer, party 1: every party sends it its own, and it passes
them on to all. Each party acts on nothing but its own decision; the others' are for people to see, and
for the sequencer to know when to begin. What has become of a request is for the sequencer alone to say, so
that all say the same; but for a release, which a party has when it holds all signatures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache

from mpc_engine.documents import canonical
from mpc_engine.errors import (
    EngineError,
    IdempotencyError,
    LedgerRollbackError,
    PolicyError,
    ProtocolOrderError,
    RateLimitError,
    RequestStateError,
    UnknownRequestError,
)
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import OPEN_REQUEST, RequestRow, Verdict
from mpc_engine.ledger.transaction import Transaction
from mpc_engine.party.encoding import read_message
from mpc_engine.party.judgement import Judgement
from mpc_engine.party.lines import Opinion, Passed, Settled
from mpc_engine.party.post import Post
from mpc_engine.party.situation import Situation
from mpc_engine.party.submission import Submission

SEQUENCER = 1
"""The party that puts sessions in order; it always computes, and is connected with everybody."""
MOST_OPEN = 1000
"""Most requests that are open at a time; more would only wait."""


@lru_cache(maxsize=64)
def submission_of(body: bytes) -> Submission:
    """Return a request from its body as it came, read once for many looks at it. Raises DocumentError."""
    return read_message(body, Submission, "request")


class Desk:
    """One party's requests.

    Args:
        situation: returns what the party is and may do at present.
        thresholds: returns the least k of each party that has published it, by name.
        stop: told the id of a request that was withdrawn or refused: its session must end, if it still can.
        changed: called when something that people see has changed.
    """

    def __init__(
        self,
        ledger: Ledger,
        post: Post,
        situation: Callable[[], Situation],
        thresholds: Callable[[], Mapping[str, int]],
        stop: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._ledger, self._post = ledger, post
        self._situation, self._thresholds = situation, thresholds
        self._stop, self._changed = stop, changed
        self._withdrawn: set[str] = set()
        self.on_unknown_release: Callable[[], None] = lambda: None
        """Called when a question was answered by a release of which this ledger knows nothing."""
        post.handle({"request": self._passed, "opinion": self._opinion, "settled": self._settled}, {})

    # --- from people --------------------------------------------------------------------------------

    def submit(self, submission: Submission) -> tuple[RequestRow, bool]:
        """Take a verified request in and return it, and whether it was here already.

        Raises the PolicyError of a policy that refuses it, before anything is stored; IdempotencyError for
        a key that was used for another question.
        """
        here = self._situation()
        known = self._ledger.request(submission.request_id)
        judgement = self.judge(submission)
        if known is None:
            judgement.check()
            if len(self._ledger.requests(states=OPEN_REQUEST)) >= MOST_OPEN:
                raise RequestStateError(f"{MOST_OPEN} requests are open at {here.name}; none is taken in now")
        body = canonical(submission.model_dump(by_alias=True))
        with self._post.transaction() as tx:
            row = self._take_in(tx, submission, body, here.name)
            if known is None:
                self._pass_on(tx, Passed(body=body.decode(), received_from=here.name), here.number)
                self._decide_by_policy(tx, row, judgement)
        return self._current(row.id), known is not None

    def judge(self, submission: Submission) -> Judgement:
        """Return what this party's policy says of a request."""
        return self._situation().judge(submission, self._thresholds())

    def decide(self, request: str, verdict: Verdict, by: str, detail: str = "") -> RequestRow:
        """Record the decision of this party's operator. Raises RequestStateError if there is none to make."""
        row = self._current(request)
        if row.state not in OPEN_REQUEST:
            raise RequestStateError(f"the request is {row.state}; there is nothing to decide any more")
        reason = "" if verdict == "approved" else "REQUEST_DECLINED"
        with self._post.transaction() as tx:
            self._decide(tx, request, verdict, reason, detail, by)
        return self._current(request)

    def withdraw(self, request: str, detail: str = "") -> RequestRow:
        """Withdraw a request, unless its session has committed here or it has ended otherwise.

        It is withdrawn when the sequencer says so; until then no session of it is begun here any more.
        Raises RequestStateError.
        """
        row = self._current(request)
        if row.state == "WITHDRAWN":
            return row
        if row.state not in OPEN_REQUEST:
            raise RequestStateError(f"the request is {row.state} and cannot be withdrawn")
        attempts = self._ledger.sessions_of(request)
        if any(each.state not in ("RESERVED", "COMPUTING", "ABORTED") for each in attempts):
            raise RequestStateError("its release is being opened; it cannot be withdrawn any more")
        here = self._situation()
        settled = Settled(request=request, digest=row.digest, state="WITHDRAWN", detail=detail)
        with self._post.transaction() as tx:
            if here.number == SEQUENCER:
                self.settle(tx, settled)
            elif request not in self._withdrawn:
                self._withdrawn.add(request)
                self._post.post(tx, SEQUENCER, settled)
                self._post.afterwards(lambda: self._stop(request))
                self._post.afterwards(self._changed)
        return self._current(request)

    def check_wanted(self, request: str) -> None:
        """Raise EngineError unless this party, by its present documents, still wants a request answered."""
        here = self._situation()
        row = self._current(request)
        own = self._ledger.decisions(request).get(here.name)
        if row.state not in OPEN_REQUEST or own is None or own.verdict != "approved":
            raise RequestStateError(f"the request is {row.state} at {here.name}, which has not approved it")
        if request in self._withdrawn:
            raise RequestStateError("the request is being withdrawn")
        self.judge(submission_of(row.body)).check()

    # --- for the rest of the party ------------------------------------------------------------------

    def settle(self, tx: Transaction, settled: Settled) -> None:
        """Bring a request to its end, or to APPROVED; the sequencer lets all others know."""
        here = self._situation()
        row = self._ledger.request(settled.request)
        if row is None:
            raise UnknownRequestError("there is no such request")
        if row.state not in OPEN_REQUEST or row.digest != settled.digest:
            return
        tx.settle(settled.request, settled.state, settled.reason, settled.detail, settled.ticket)
        if settled.state in ("RETURNED", "REJECTED", "WITHDRAWN"):
            self._post.afterwards(lambda: self._stop(settled.request))
        self._post.afterwards(self._changed)
        if here.number == SEQUENCER:
            self._pass_on(tx, settled, SEQUENCER)

    # --- from peers ---------------------------------------------------------------------------------

    def _passed(self, tx: Transaction, sender: int, passed: Passed) -> None:
        """A request that another party took in."""
        here = self._situation()
        own = here.names[sender] == passed.received_from
        self._post.check_sender(sender, own if here.number == SEQUENCER else sender == SEQUENCER)
        submission = submission_of(passed.body.encode())
        submission.verify()
        known = self._ledger.request(submission.request_id)
        failure: EngineError | None = None
        if known is not None and known.digest != submission.digest:
            failure = IdempotencyError("the same analyst used this key for another question here")
        elif known is None and len(self._ledger.requests(states=OPEN_REQUEST)) >= MOST_OPEN:
            failure = RateLimitError(f"{MOST_OPEN} requests are open at {here.name}")
        if failure is not None:
            self._turn_away(tx, submission, sender, failure)
            return
        row = self._take_in(tx, submission, passed.body.encode(), passed.received_from)
        if here.number == SEQUENCER:
            self._pass_on(tx, passed, sender)
        self._decide_by_policy(tx, row, self.judge(submission))

    def _turn_away(self, tx: Transaction, submission: Submission, sender: int, failure: EngineError) -> None:
        """Return a request that cannot be taken in: by this party's word as sequencer, or by its opinion."""
        here = self._situation()
        request, digest, words = submission.request_id, submission.digest, f"{here.name}: {failure}"
        if here.number == SEQUENCER:
            settled = Settled(
                request=request, digest=digest, state="RETURNED", reason=failure.reason, detail=words
            )
            self._post.post(tx, sender, settled)
            return
        opinion = Opinion(
            request=request,
            digest=digest,
            party=here.name,
            verdict="returned",
            reason=failure.reason,
            detail=words,
        )
        self._post.post(tx, SEQUENCER, opinion.signed(here.identity.signing))

    def _opinion(self, tx: Transaction, sender: int, opinion: Opinion) -> None:
        """Another party's decision."""
        here = self._situation()
        own = here.names[sender] == opinion.party
        self._post.check_sender(sender, own if here.number == SEQUENCER else sender == SEQUENCER)
        numbers = {name: number for number, name in here.names.items()}
        origin = numbers.get(opinion.party, here.number)
        if origin == here.number or not opinion.signed_by(here.keys(origin)):
            raise ProtocolOrderError("a decision that no other party of the roster has signed")
        if self._current(opinion.request).digest != opinion.digest:
            return  # about another question that the analyst asked under the same key
        tx.decide(opinion.request, opinion.party, opinion.verdict, opinion.reason, opinion.detail, opinion.by)
        if here.number == SEQUENCER:
            self._pass_on(tx, opinion, sender)
        self._review(tx, opinion.request)

    def _settled(self, tx: Transaction, sender: int, settled: Settled) -> None:
        """What the sequencer says has become of a request; to the sequencer, that one is withdrawn."""
        if self._situation().number == SEQUENCER:
            self._post.check_sender(sender, settled.state == "WITHDRAWN")
            attempts = self._ledger.sessions_of(settled.request)
            if all(each.state in ("RESERVED", "COMPUTING", "ABORTED") for each in attempts):
                self.settle(tx, settled)
            return
        self._post.check_sender(sender, sender == SEQUENCER)
        if settled.state != "RELEASED" or self._may_serve(settled):
            self.settle(tx, settled)
        elif settled.ticket is not None and self._lacks(settled.ticket):
            self._return_unknown(tx, settled)
        elif settled.ticket is not None:
            self._end_unwanted(tx, settled, settled.ticket)

    def _lacks(self, ticket: str) -> bool:
        """Tell whether no session of this party's own can bring a release, as after a restored backup."""
        session = self._ledger.session(ticket)
        return session is None or (session.state == "ADOPTED" and self._ledger.receipt(ticket) is None)

    def _return_unknown(self, tx: Transaction, settled: Settled) -> None:
        """End a request whose answer this ledger lacks."""
        here = self._situation()
        words = (
            f"the ledger of {here.name} lacks the release that answers this; after "
            "`mpc-engine party recover` at that party ask again, at no cost"
        )
        reason = LedgerRollbackError.reason
        ended = {"state": "RETURNED", "reason": reason, "detail": words, "ticket": None}
        self.settle(tx, settled.model_copy(update=ended))
        self._post.afterwards(self.on_unknown_release)

    def _end_unwanted(self, tx: Transaction, settled: Settled, ticket: str) -> None:
        """End a request whose answer is here, and which this party's policy would not have answered now.

        If a session of its own answers it, this party says so itself when it holds the release.
        """
        row, session = self._ledger.request(settled.request), self._ledger.session(ticket)
        if row is None or session is None or session.request == row.id:
            return
        for error in self.judge(submission_of(row.body)).reasons[:1]:
            state = "REJECTED" if isinstance(error, PolicyError) else "RETURNED"
            ended = {"state": state, "reason": error.reason, "detail": str(error), "ticket": None}
            self.settle(tx, settled.model_copy(update=ended))

    def _may_serve(self, settled: Settled) -> bool:
        """Tell whether a release that is here answers a request that this party approved and would again.

        Whoever withdraws it at the same time comes too late.
        """
        row = self._ledger.request(settled.request)
        session = None if settled.ticket is None else self._ledger.session(settled.ticket)
        if row is None or session is None or self._ledger.receipt(session.ticket) is None:
            return False
        own, asked = self._ledger.decisions(row.id).get(self._situation().name), submission_of(row.body)
        if own is None or own.verdict != "approved" or self.judge(asked).reasons:
            return False
        first, release = self._ledger.request(session.request), self._ledger.release(session.ticket)
        if first is not None:
            answered = submission_of(first.body)
            return asked.query == answered.query and asked.codebook == answered.codebook
        # Its request was lost with a ledger; release and receipt have come back from a peer.
        if release is None:
            return False
        stored = json.loads(release)
        same = canonical(asked.query) == canonical(stored["query"])
        return same and asked.codebook == stored["digests"]["codebook"]

    # --- within -------------------------------------------------------------------------------------

    def _take_in(
        self, tx: Transaction, submission: Submission, body: bytes, received_from: str
    ) -> RequestRow:
        row = tx.submit(
            id=submission.request_id,
            analyst=submission.analyst.fingerprint,
            analyst_name=submission.analyst.name,
            key=submission.key,
            project=submission.project,
            body=body,
            digest=submission.digest,
            received_from=received_from,
        )
        self._post.afterwards(self._changed)
        return row

    def _decide_by_policy(self, tx: Transaction, row: RequestRow, judgement: Judgement) -> None:
        """Decide at once where the policy can."""
        if row.state not in OPEN_REQUEST or self._situation().name in self._ledger.decisions(row.id):
            return
        if judgement.verdict == "auto":
            self._decide(tx, row.id, "approved")
        elif judgement.verdict == "refused":
            first = judgement.reasons[0]
            verdict: Verdict = "rejected" if isinstance(first, PolicyError) else "returned"
            self._decide(tx, row.id, verdict, first.reason, str(first))

    def _decide(
        self,
        tx: Transaction,
        request: str,
        verdict: Verdict,
        reason: str = "",
        detail: str = "",
        by: str = "",
    ) -> None:
        here = self._situation()
        tx.decide(request, here.name, verdict, reason, detail, by)
        opinion = Opinion(
            request=request,
            digest=self._current(request).digest,
            party=here.name,
            verdict=verdict,
            reason=reason,
            detail=detail[:4000],
            by=by,
        )
        self._pass_on(tx, opinion.signed(here.identity.signing), here.number)
        self._review(tx, request)

    def _review(self, tx: Transaction, request: str) -> None:
        """Bring a request to the state that the decisions give; its end is for the sequencer to say."""
        here = self._situation()
        decisions = self._ledger.decisions(request)
        row = self._current(request)
        self._post.afterwards(self._changed)
        if row.state not in OPEN_REQUEST or row.state == "APPROVED":
            return
        against = [each for each in decisions.values() if each.verdict != "approved"]
        complete = set(decisions) == set(here.names.values())
        if here.number == SEQUENCER and against:
            first = against[0]
            self.settle(
                tx,
                Settled(
                    request=request,
                    digest=row.digest,
                    state="REJECTED" if first.verdict == "rejected" else "RETURNED",
                    reason=first.reason,
                    detail=f"{first.party}: {first.detail}"[:4000],
                ),
            )
        elif here.number == SEQUENCER and complete:
            self.settle(tx, Settled(request=request, digest=row.digest, state="APPROVED"))
        elif complete and not against:
            if row.state != "REVIEWED":
                tx.settle(request, "REVIEWED")
        elif row.state != "PARTIALLY_REVIEWED":
            tx.settle(request, "PARTIALLY_REVIEWED")

    def _pass_on(self, tx: Transaction, message: Passed | Opinion | Settled, origin: int) -> None:
        """Post a message to the sequencer, or from it to everybody but where it came from."""
        here = self._situation()
        for peer in here.peers if here.number == SEQUENCER else (SEQUENCER,):
            if peer != origin:
                self._post.post(tx, peer, message)

    def _current(self, request: str) -> RequestRow:
        row = self._ledger.request(request)
        if row is None:
            raise UnknownRequestError("there is no such request")
        return row
