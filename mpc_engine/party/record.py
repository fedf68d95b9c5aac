"""A session's book in the ledger, and committed sessions read back from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpc_engine.codebook import Codebook
from mpc_engine.documents import canonical, parse
from mpc_engine.errors import LedgerBrokenError
from mpc_engine.ledger.chain import Head
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.sealing import Sealing
from mpc_engine.ledger.transaction import Transaction
from mpc_engine.party.book import Book, Committed, recall
from mpc_engine.party.failpoints import reach
from mpc_engine.party.lines import Account
from mpc_engine.party.post import Post
from mpc_engine.release.execute import Outputs
from mpc_engine.release.outputs import pack_outputs, unpack_outputs
from mpc_engine.release.plan import Plan
from mpc_engine.transport.control import Commit


class Record(Book):
    """Writes one session of one party into its ledger.

    Args:
        names: of all parties by number.
        wanted: raises EngineError if the session is not to be committed any more.
        on_signed: called within the transaction that stores the receipt.
    """

    def __init__(
        self,
        ticket: str,
        ledger: Ledger,
        keys: Sealing,
        post: Post,
        names: Mapping[int, str],
        codebook: Codebook,
        wanted: Callable[[], None],
        on_signed: Callable[[Transaction], None],
    ) -> None:
        self._ticket, self._ledger, self._keys, self._post = ticket, ledger, keys, post
        self._names, self._codebook = names, codebook
        self._wanted, self._on_signed = wanted, on_signed

    def head(self) -> Head:
        """Return the head of this party's ledger."""
        return self._ledger.head()

    def witnessed(self) -> Mapping[int, Head]:
        """Return the last heads seen of the others' ledgers, by party number."""
        seen = {number: self._ledger.witnessed(name) for number, name in self._names.items()}
        return {number: head for number, head in seen.items() if head is not None}

    def bodies(self, after: int, upto: int) -> Sequence[bytes]:
        """Return the body hashes of the entries after+1 … upto."""
        return self._ledger.bodies(after, upto)

    def claims(self, peer: int) -> Sequence[Head]:
        """Return the heads that another party has told since the one that was proved last."""
        return self._ledger.claims(self._names[peer])

    def witness(self, peer: int, head: Head) -> None:
        """Note a proved head of another party's ledger."""
        with self._post.transaction() as tx:
            tx.witness(self._names[peer], head)

    def vouch(self, peer: int, commit: Commit) -> None:
        """Keep another party's commitment."""
        with self._post.transaction() as tx:
            tx.claim(self._names[peer], commit.head)
            tx.vouch(self._ticket, self._names[peer], commit.encode())

    def account(self) -> bytes:
        """Return what is debited for what, which all parties must see alike."""
        row = self._ledger.session(self._ticket)
        request = None if row is None else self._ledger.request(row.request)
        if row is None or request is None:
            raise LedgerBrokenError(f"the session {self._ticket} or its request is missing")
        return Account(
            ticket=row.ticket,
            request=row.request,
            digest=request.digest,
            question=row.question,
            micro_epsilon=row.charge.micro_epsilon,
            delta=str(row.charge.delta),
            analyst=request.analyst,
            analyst_name=row.analyst_name,
            project=row.project,
        ).encode()

    def computing(self, session_id: bytes) -> None:
        """Note that the parties have agreed."""
        with self._post.transaction() as tx:
            tx.computing(self._ticket, session_id.hex())

    def commit(self, committed: Committed) -> Head:
        """Debit the budget and store what is to be opened, in one transaction."""
        sealed = None
        if committed.me <= committed.plan.computing:
            packed = pack_outputs(committed.plan, committed.computed.outputs)
            sealed = self._keys.seal(self._ticket, packed)
        reach("before_commit")
        try:
            self._wanted()
            with self._post.transaction() as tx:
                tx.keep(self._codebook.digest(), canonical(self._codebook.model_dump(mode="json")))
                head = tx.commit(self._ticket, committed.facts(), sealed)
        except Exception:
            # After a disk failure the debit may turn out to be durable, and then needs its key.
            if not self._ledger.broken:
                self._keys.shred(self._ticket)
            raise
        reach("after_commit")
        return head

    def pattern(self, pattern_hash: bytes) -> None:
        """Note the pattern that was opened."""
        with self._post.transaction() as tx:
            tx.pattern(self._ticket, pattern_hash)
        reach("after_pattern")

    def opened(self, release: Mapping[str, Any], digest: str) -> None:
        """Store the release."""
        reach("before_opened")
        content = json.dumps(release, ensure_ascii=False).encode()
        with self._post.transaction() as tx:
            tx.opened(self._ticket, content, digest)
        reach("after_opened")

    def signed(self, receipt: Mapping[str, Any]) -> None:
        """Store the receipt, and tell the others that everything is stored here."""
        with self._post.transaction() as tx:
            tx.signed(self._ticket, canonical(receipt))
            self._on_signed(tx)
        reach("after_signed")


def remembered(ledger: Ledger, keys: Sealing, ticket: str, codebook: Codebook) -> Committed:
    """Return a committed session as the ledger has it.

    `codebook` is the present one; the one of the session is kept in the ledger. Raises LedgerBrokenError when
    something of it is missing.
    """
    row = ledger.session(ticket)
    if row is None or row.facts is None or row.head_after is None:
        raise LedgerBrokenError(f"the session {ticket} is not committed")

    def book(digest: str) -> Codebook:
        if codebook.digest() == digest:
            return codebook
        kept = ledger.document(digest)
        if kept is None:
            raise LedgerBrokenError(f"the codebook of session {ticket} is missing")
        return parse(json.loads(kept), Codebook, "codebook")

    def outputs(plan: Plan) -> Sequence[Outputs]:
        sealed = ledger.sealed(ticket)
        if sealed is None:
            return [Outputs(None, None) for _ in plan.blocks]
        return unpack_outputs(plan, keys.unseal(ticket, sealed))

    return recall(row.facts, book, outputs, row.head_after)
