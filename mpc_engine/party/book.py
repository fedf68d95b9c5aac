"""What one session writes down, and the facts that it commits: the port between a session and the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mpc_engine.codebook import Codebook
from mpc_engine.errors import LedgerBrokenError
from mpc_engine.identity.signing import SigningKey
from mpc_engine.ledger.chain import EMPTY, Head
from mpc_engine.party.proposal import propose
from mpc_engine.release.execute import Computed
from mpc_engine.release.plan import Member, Plan
from mpc_engine.statistics.presets import parse_query
from mpc_engine.transport.control import Agree, Commit


@dataclass(frozen=True)
class Credentials:
    """What a party declares of itself in a session, and whose signatures it takes for whose.

    Attributes:
        signer: its signing key.
        keys: the signing keys that it trusts, by party number; its own among them.
        former: its signing keys before a rotation, for what it committed with them.
        source: SHA-256 of its engine's source.
        policy: SHA-256 of what it publishes of its policy.
        engines: SHA-256 of sources that it accepts at others; its own is always accepted.
    """

    signer: SigningKey = field(repr=False)
    keys: Mapping[int, tuple[bytes, ...]]
    source: bytes
    policy: bytes = bytes(32)
    engines: tuple[bytes, ...] = ()
    former: tuple[SigningKey, ...] = field(default=(), repr=False)

    def signer_for(self, public: bytes) -> SigningKey:
        """Return the key with which a session was begun. Raises LedgerBrokenError when it is gone."""
        for key in (self.signer, *self.former):
            if key.public == public:
                return key
        raise LedgerBrokenError("the signing key with which a session was begun is not on this machine")


@dataclass(frozen=True)
class Committed:
    """One session at one party, committed: everything that publishing it needs.

    Attributes:
        plan, query: what was agreed.
        me: this party's number.
        session_id: 16 bytes.
        agrees: what each party declared, by number; no contributions to keys.
        computed: what this party opens, and the hash of what has been opened. Secret.
        head: of this party's ledger after the debit.
    """

    plan: Plan
    query: Mapping[str, object]
    me: int
    session_id: bytes
    agrees: Mapping[int, Agree]
    computed: Computed = field(repr=False)
    head: Head = EMPTY

    def facts(self) -> bytes:
        """Return all of it that is not secret, as JSON; `recall` reads it."""
        fields = {
            "query": self.query,
            "threshold": self.plan.guarantee.threshold,
            "members": [member.as_fields() for member in self.plan.members],
            "plan": self.plan.digest,
            "me": self.me,
            "session_id": self.session_id.hex(),
            "agrees": {str(number): agree.encode().hex() for number, agree in self.agrees.items()},
            "openings_hash": self.computed.openings_hash.hex(),
        }
        return json.dumps(fields, ensure_ascii=False).encode()


def recall(
    facts: bytes, codebook: Callable[[str], Codebook], outputs: Callable[[Plan], Sequence[Any]], head: Head
) -> Committed:
    """Return a committed session from its facts.

    Args:
        codebook: returns the codebook with a digest.
        outputs: returns this party's outputs for a plan.
        head: of the ledger after the debit.

    Raises LedgerBrokenError when the facts give another plan than the one that was agreed.
    """
    fields = json.loads(facts)
    agrees = {int(number): Agree.decode(bytes.fromhex(each)) for number, each in fields["agrees"].items()}
    members = tuple(Member(**each) for each in fields["members"])
    mine = agrees[fields["me"]]
    query = parse_query(fields["query"])
    proposal = propose(query, codebook(mine.digests["codebook"]), members)
    plan = proposal.plan(fields["threshold"])
    if plan.digest != fields["plan"]:
        raise LedgerBrokenError("a stored session does not give the plan that was agreed")
    computed = Computed(list(outputs(plan)), bytes.fromhex(fields["openings_hash"]))
    session_id = bytes.fromhex(fields["session_id"])
    return Committed(plan, proposal.query_fields, fields["me"], session_id, agrees, computed, head)


class Book(Protocol):
    """Where one session of one party is written down; each call is durable when it returns.

    All raise LedgerWriteError when nothing could be written.
    """

    def head(self) -> Head:
        """Return the head of this party's ledger."""

    def witnessed(self) -> Mapping[int, Head]:
        """Return the last heads seen of the others' ledgers, by party number."""

    def bodies(self, after: int, upto: int) -> Sequence[bytes]:
        """Return the body hashes of the ledger's entries after+1 … upto."""

    def claims(self, peer: int) -> Sequence[Head]:
        """Return the heads that another party has told since the one that was proved last."""

    def witness(self, peer: int, head: Head) -> None:
        """Note a head of another party's ledger that is proved to continue all that was seen of it.

        Raises LedgerRollbackError if it contradicts one seen before.
        """

    def vouch(self, peer: int, commit: Commit) -> None:
        """Keep another party's commitment: the head in it as a claim, all of it as proof of its debit."""

    def account(self) -> bytes:
        """Return what the session debits for what, as all parties must see it; b"" without a service."""

    def computing(self, session_id: bytes) -> None:
        """Note that the parties have agreed."""

    def commit(self, committed: Committed) -> Head:
        """Debit the budget and store what is to be opened, in one transaction; return the head after it."""

    def pattern(self, pattern_hash: bytes) -> None:
        """Note the pattern that was opened. Raises EquivocationError if another was opened before."""

    def opened(self, release: Mapping[str, Any], digest: str) -> None:
        """Store the release. Raises EquivocationError if another one is stored."""

    def signed(self, receipt: Mapping[str, Any]) -> None:
        """Store the receipt with all signatures."""


class Unrecorded(Book):
    """For a session that keeps no ledger, as in a simulation whose parties live for one release."""

    def head(self) -> Head:
        """Return the head of an empty ledger."""
        return EMPTY

    def witnessed(self) -> Mapping[int, Head]:
        """Return nothing."""
        return {}

    def bodies(self, after: int, upto: int) -> Sequence[bytes]:
        """Return nothing."""
        return []

    def claims(self, peer: int) -> Sequence[Head]:
        """Return nothing."""
        return []

    def witness(self, peer: int, head: Head) -> None:
        """Do nothing."""

    def vouch(self, peer: int, commit: Commit) -> None:
        """Do nothing."""

    def account(self) -> bytes:
        """Return nothing."""
        return b""

    def computing(self, session_id: bytes) -> None:
        """Do nothing."""

    def commit(self, committed: Committed) -> Head:
        """Return the head of an empty ledger."""
        return EMPTY

    def pattern(self, pattern_hash: bytes) -> None:
        """Do nothing."""

    def opened(self, release: Mapping[str, Any], digest: str) -> None:
        """Do nothing."""

    def signed(self, receipt: Mapping[str, Any]) -> None:
        """Do nothing."""
