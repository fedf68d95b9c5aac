"""Parties that get the protocol wrong on purpose: what the promises of the simulator must catch.

Each mutant replaces a piece of the real daemon while its worlds run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np

from mpc_engine.ledger import course
from mpc_engine.ledger.chain import Head
from mpc_engine.ledger.rows import HOLDING, PUBLISHING
from mpc_engine.party import publish, publishing, runner
from mpc_engine.party.desk import submission_of
from mpc_engine.party.judgement import agreed_plan
from mpc_engine.party.lines import Begin
from mpc_engine.party.post import Post
from mpc_engine.party.record import Record, remembered
from mpc_engine.release.execute import Computed
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.transport.control import MAX_CONTROL_BYTES, Commit

Change = tuple[Any, str, Any]
"""An object, the name of its attribute, and what replaces it."""


def debit_after_opening() -> list[Change]:
    """The budget is debited only when the release is stored."""
    commit, opened = Record.commit, Record.opened
    kept: dict[str, Any] = {}

    def no_commit(self: Record, committed: Any) -> Head:
        kept[self._ticket] = committed
        return self.head()

    def late(self: Record, release: Mapping[str, Any], digest: str) -> None:
        commit(self, kept[self._ticket])
        opened(self, release, digest)

    return [
        (Record, "commit", no_commit),
        (Record, "pattern", lambda self, pattern_hash: None),
        (Record, "opened", late),
    ]


def _commits_of(awaited: int) -> list[Change]:
    """Return a publisher that opens the pattern on the commitments of so many peers."""
    compare = publish._Publisher._compare_patterns
    key = MessageKey(0, Section.CONTROL, publish.COMMIT)

    async def commit(self: Any, timeout_s: float | None) -> dict[int, Any]:
        hash_ = self.committed.computed.openings_hash
        unsigned = Commit(hash_, self.me, self.committed.head, bytes(64))
        content = unsigned.signed_content(self.committed.session_id, self.plan.digest)
        mine = dataclasses.replace(unsigned, signature=self.credentials.signer.sign("commit", content))
        for peer in self.link.peers:
            await self._send(peer, publish.COMMIT, mine.encode())
        commits = dict.fromkeys(range(1, len(self.plan.members) + 1), mine)
        await take(self, commits, list(self.link.peers)[:awaited], timeout_s)
        return commits

    async def take(self: Any, commits: dict[int, Any], peers: list[int], timeout_s: float | None) -> None:
        for peer in peers:
            data = await self.link.receive_control(peer, key, MAX_CONTROL_BYTES, timeout_s)
            commits[peer] = Commit.decode(data)

    async def late(self: Any, pattern: bytes, commits: dict[int, Any]) -> None:
        await take(self, commits, list(self.link.peers)[awaited:], None)
        await compare(self, pattern, commits)

    return [(publish._Publisher, "_commit", commit), (publish._Publisher, "_compare_patterns", late)]


def pattern_before_commits() -> list[Change]:
    """The pattern is opened right after the own commitment."""
    return _commits_of(0)


def opening_on_a_quorum() -> list[Change]:
    """Openings begin when t + 1 parties have committed."""
    return _commits_of(1)


def noise_drawn_again() -> list[Change]:
    """After a restart the shares are made anew in place of those that were stored."""

    def redrawn(*given: Any) -> Any:
        committed = remembered(*given)
        outputs = [_other(each) for each in committed.computed.outputs]
        return dataclasses.replace(committed, computed=Computed(outputs, committed.computed.openings_hash))

    return [(publishing, "remembered", redrawn)]


def _other(output: Any) -> Any:
    changed = {}
    for field in dataclasses.fields(output):
        value = getattr(output, field.name)
        changed[field.name] = np.roll(value ^ 1, 1) if isinstance(value, np.ndarray) else value
    return dataclasses.replace(output, **changed)


def refund_after_commit() -> list[Change]:
    """A session that cannot be published at once gives its budget back."""
    run = publishing.Publishing.run

    async def refund(self: Any, ticket: str, failure: Any = None) -> None:
        if failure is None:
            await run(self, ticket)
            return
        with self._post.transaction() as tx:
            tx.abort(ticket, "PEER_UNAVAILABLE")

    return [(course, "HOLDING", (*HOLDING, *PUBLISHING)), (publishing.Publishing, "run", refund)]


def ticket_run_again() -> list[Change]:
    """After a restart a session that was cut off begins again under its ticket."""
    resume = runner.Runner.resume

    def again(self: Any) -> None:
        cut_off = self._ledger.sessions(*HOLDING)
        resume(self)
        for row in cut_off:
            with self._post.transaction() as tx:
                tx._store.write(
                    "UPDATE session SET state = 'RESERVED', session_id = NULL WHERE ticket = ?", (row.ticket,)
                )
                tx._store.write("UPDATE charge SET state = 'held' WHERE ticket = ?", (row.ticket,))
            request = self._ledger.request(row.request)
            fields = {"request": row.request, "ticket": row.ticket, "question": row.question}
            begin = Begin(**fields, digest=request.digest)
            here = self._situation()
            submission = submission_of(request.body)
            proposal = here.proposal(submission.asked(), submission.codebook)
            plan = agreed_plan(proposal, {here.name: here.policy.least_threshold})
            self._start(row.ticket, self._attempt(begin, proposal, plan))

    return [(runner.Runner, "resume", again)]


def gaps_let_pass() -> list[Change]:
    """A durable message is taken although one before it is missing."""
    receive = Post._receive

    def careless(self: Any, peer: int, number: int, message: Any) -> None:
        name = self._names[peer]
        if number > self._ledger.line(name).received + 1:
            with self._ledger.transaction() as tx:
                tx.received(name, number - 1)
        receive(self, peer, number, message)

    return [(Post, "_receive", careless)]


def budget_not_checked() -> list[Change]:
    """Holds are taken whatever is left."""
    return [(course.SessionWriting, "_within", lambda self, scopes, limits, charge: None)]


MUTANTS: Mapping[str, Callable[[], list[Change]]] = {
    each.__name__: each
    for each in (
        debit_after_opening,
        pattern_before_commits,
        opening_on_a_quorum,
        noise_drawn_again,
        refund_after_commit,
        ticket_run_again,
        gaps_let_pass,
        budget_not_checked,
    )
}


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Let all parties that run meanwhile be wrong in one way."""
    with ExitStack() as stack:
        for place, attribute, wrong in MUTANTS[name]():
            stack.enter_context(mock.patch.object(place, attribute, wrong))
        yield
