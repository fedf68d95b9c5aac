"""What a party is and may do at present: documents, cards and policy, read once and replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpc_engine import __version__
from mpc_engine.codebook import Codebook
from mpc_engine.errors import CodebookMismatchError, EngineError, PolicyError
from mpc_engine.identity import Analyst, Identity
from mpc_engine.ledger.charge import Limit
from mpc_engine.party.account import limits
from mpc_engine.party.book import Credentials
from mpc_engine.party.judgement import Judgement, judge
from mpc_engine.party.policy import Policy
from mpc_engine.party.proposal import Proposal, propose
from mpc_engine.party.published import policy_digest, published
from mpc_engine.party.roster import Directory
from mpc_engine.party.source import source_digest
from mpc_engine.party.submission import Submission
from mpc_engine.statistics.query import Query


@dataclass(frozen=True)
class Deadlines:
    """How long a party waits, in seconds.

    For peers to open a link, for each message, from a session's beginning to its commit, and between tries.
    """

    connect_s: float = 60.0
    round_s: float = 60.0
    session_s: float = 900.0
    pause_s: float = 5.0


@dataclass(frozen=True)
class Counted:
    """What a silo brings to a session: its snapshot's id and its sums; "" and None at a helper."""

    snapshot_id: str
    sums: tuple[NDArray[np.int64], ...] | None = field(repr=False)


class Counter(Protocol):
    """Counts a silo's registered records. The one place where a party meets records."""

    def snapshot(self) -> str:
        """Return the id of the registered snapshot, "" if there is none."""

    async def count(self, query: Query, codebook: Codebook) -> Counted:
        """Count the snapshot's records for a query. Raises EngineError; its text stays on this machine."""


@dataclass(frozen=True)
class Situation:
    """One party's documents.

    Attributes:
        number: this party's, 1..m.
        directory: all parties with their cards.
        identity: this party's keys and card.
        policy, dataset, codebook: its own; `dataset` is "" at a helper.
        analysts: those it enrolled, by the fingerprint of a card.
        most_sessions: that it runs at a time, if it is the sequencer.
        revoked: names of the analysts of whom it revoked a card.
    """

    number: int
    directory: Directory
    identity: Identity = field(repr=False)
    policy: Policy
    dataset: str
    codebook: Codebook
    analysts: Mapping[str, Analyst]
    deadlines: Deadlines = Deadlines()
    most_sessions: int = 4
    dev: bool = False
    revoked: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """This party's name."""
        return self.directory.members[self.number - 1].name

    @cached_property
    def names(self) -> dict[int, str]:
        """All parties' names by number."""
        return {number: member.name for number, member in enumerate(self.directory.members, start=1)}

    @property
    def computing(self) -> int:
        """Number of computing parties."""
        return sum(member.computing for member in self.directory.members)

    @property
    def silo(self) -> bool:
        """Whether this party holds records."""
        return self.directory.members[self.number - 1].silo

    @property
    def peers(self) -> tuple[int, ...]:
        """The parties it is connected with."""
        return tuple(n for n in self.names if n != self.number and min(n, self.number) <= self.computing)

    def keys(self, number: int) -> tuple[bytes, ...]:
        """Return the signing keys that are trusted for a party."""
        return tuple(card.public_key for card in self.directory.cards[number - 1])

    def terms(self, analyst: str) -> Analyst | None:
        """Return the enrolment of the analyst with this card, None without one."""
        return self.analysts.get(analyst)

    # --- what a request means -------------------------------------------------------------------------

    def proposal(self, query: Query, codebook: str) -> Proposal:
        """Return the proposal for a query made with the codebook of this digest.

        Raises CodebookMismatchError for another codebook than this party's, DocumentError for a query that
        does not fit it.
        """
        if codebook != self.codebook.digest():
            raise CodebookMismatchError(
                f"the request was made with the codebook {codebook[:16]}…, {self.name} has "
                f"{self.codebook.digest()[:16]}…"
            )
        return propose(query, self.codebook, self.directory.members)

    def judge(self, submission: Submission, thresholds: Mapping[str, int]) -> Judgement:
        """Return what this party's policy says of a request; a request that it cannot read is refused."""
        try:
            self._check_trusted(submission)
            query = submission.asked()
            proposal = self.proposal(query, submission.codebook)
            enrolled = self.terms(submission.analyst.fingerprint)
            return judge(
                self.policy,
                query,
                self.codebook,
                proposal,
                name=self.name,
                analyst=submission.analyst.name,
                project=submission.project,
                terms=None if enrolled is None else enrolled.terms,
                silo=self.silo,
                thresholds=thresholds,
            )
        except EngineError as error:
            return Judgement("refused", (error,))

    def _check_trusted(self, submission: Submission) -> None:
        """Raise PolicyError for an analyst whose card this party revoked, unless this one is enrolled here.

        Whoever else enrolled it. Told by the name, for whoever makes new keys keeps nothing else.
        """
        card = submission.analyst
        if card.fingerprint not in self.analysts and card.name in self.revoked:
            raise PolicyError(
                f"{self.name} revoked a card of {card.name}, and has not enrolled the one that signed this "
                "request. No count was shared"
            )

    def limits(self, analyst: str, analyst_name: str, project: str) -> tuple[Limit, ...]:
        """Return the budgets that a release is held to here; analysts are told apart by their first card."""
        enrolled = self.terms(analyst)
        if enrolled is None:
            # Nobody here has compared this card: another may bear the same name.
            stranger = f"{analyst_name} ({analyst[-8:]})"
            return limits(self.policy, self.dataset, project, stranger, None)
        return limits(self.policy, self.dataset, project, analyst_name, enrolled.terms)

    # --- what it declares -----------------------------------------------------------------------------

    def published(self, snapshot_id: str) -> dict[str, object]:
        """Return the policy as it is published."""
        engine = {"version": __version__, "source": source_digest().hex()}
        return published(self.policy, self.name, self.dataset, snapshot_id, engine, silo=self.silo)

    def credentials(self, snapshot_id: str) -> Credentials:
        """Return what this party declares in a session."""
        return Credentials(
            self.identity.signing,
            {number: self.keys(number) for number in self.names},
            source_digest(),
            bytes.fromhex(policy_digest(self.published(snapshot_id))),
            tuple(bytes.fromhex(each) for each in self.policy.engines),
            self.identity.former,
        )
