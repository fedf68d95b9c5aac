"""All that a transaction can change: requests, sessions with their budgets, and what concerns peers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mpc_engine.errors import DocumentError, EngineError, LedgerRollbackError
from mpc_engine.ledger.chain import Head
from mpc_engine.ledger.course import SessionWriting
from mpc_engine.ledger.desk import RequestWriting
from mpc_engine.ledger.replay import KINDS

_KIND = re.compile(r"[a-z][a-z0-9._-]{0,63}")


class Transaction(RequestWriting, SessionWriting):
    """Changes that become durable together when the ``with`` block ends, or not at all."""

    # --- durable messages --------------------------------------------------------------------------

    def post(self, peer: str, kind: str, body: bytes) -> None:
        """Put a message to ``peer`` into the outbox; its id is one more than the last one's."""
        with self._step():
            self._store.write(
                """INSERT INTO line (peer, sent) VALUES (?, 1)
                    ON CONFLICT (peer) DO UPDATE SET sent = sent + 1""",
                (peer,),
            )
            self._store.write(
                "INSERT INTO outgoing SELECT peer, sent, ?, ? FROM line WHERE peer = ?", (kind, body, peer)
            )

    def acknowledge(self, peer: str, upto: int) -> None:
        """Drop the messages to ``peer`` up to number ``upto``: it has stored them."""
        self._store.write("DELETE FROM outgoing WHERE peer = ? AND id <= ?", (peer, upto))

    def received(self, peer: str, id: int) -> bool:
        """Note message ``id`` of ``peer``; ``False`` if it, or a later one, was received before."""
        if id < 1:
            raise DocumentError("messages are numbered from 1")
        with self._step():
            self._store.write("INSERT INTO line (peer) VALUES (?) ON CONFLICT (peer) DO NOTHING", (peer,))
            changed = self._store.write(
                "UPDATE line SET received = ? WHERE peer = ? AND received < ?", (id, peer, id)
            )
            return changed == 1

    def advance(self, peer: str, upto: int) -> None:
        """Number on after ``upto``, the last message that ``peer`` has of this party.

        A restored ledger counts from an old number, and the peer would take new messages for old ones.
        Messages that wait under such a number get a new one; a peer may so receive one twice.
        """
        with self._step():
            waiting = self._read.outgoing(peer)
            if self._read.line(peer).sent >= upto:
                return
            self._store.write("DELETE FROM outgoing WHERE peer = ?", (peer,))
            self._store.write(
                """INSERT INTO line (peer, sent) VALUES (?, ?)
                    ON CONFLICT (peer) DO UPDATE SET sent = excluded.sent""",
                (peer, upto),
            )
            for message in waiting:
                self.post(peer, message.kind, message.body)

    # --- heads of peers -----------------------------------------------------------------------------

    def witness(self, peer: str, head: Head) -> None:
        """Remember the head of a peer's ledger, unless a longer chain was seen already.

        Raises :class:`LedgerRollbackError` if another hash was seen at the same place.
        """
        with self._step():
            known = self._read.witnessed(peer)
            if known is not None and known.seq == head.seq and known.hash != head.hash:
                raise LedgerRollbackError(
                    f"the ledger of {peer} is not the one that this party has seen before"
                )
            if known is None or known.seq < head.seq:
                self._store.write("INSERT OR REPLACE INTO witness VALUES (?, ?, ?)", (peer, *head))
                self._store.write("DELETE FROM claim WHERE peer = ? AND seq <= ?", (peer, head.seq))

    def claim(self, peer: str, head: Head) -> None:
        """Remember a head that a peer told, to be compared with its chain when that is proved next."""
        with self._step():
            known = self._read.witnessed(peer)
            if known is None or known.seq < head.seq:
                self._store.write("INSERT INTO claim VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (peer, *head))

    def rewitness(self, peer: str, head: Head) -> None:
        """Replace what is remembered of a peer's ledger, after the peer recovered; audited."""
        with self._step():
            known = self._read.witnessed(peer) or Head(0, b"")
            self._store.write("INSERT OR REPLACE INTO witness VALUES (?, ?, ?)", (peer, *head))
            self._store.write("DELETE FROM claim WHERE peer = ?", (peer,))
            self._append(
                "rewitnessed",
                peer=peer,
                seq=head.seq,
                hash=head.hash.hex(),
                was_seq=known.seq,
                was_hash=known.hash.hex(),
            )

    # --- other ---------------------------------------------------------------------------------------

    def vouch(self, ticket: str, peer: str, content: bytes) -> None:
        """Keep the commitment that a peer signed for a session; the first one stands."""
        self._store.write(
            "INSERT INTO vouched VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (ticket, peer, content)
        )

    def keep(self, digest: str, content: bytes) -> None:
        """Keep a document under its digest, once."""
        self._store.write("INSERT INTO document VALUES (?, ?) ON CONFLICT DO NOTHING", (digest, content))

    def note(self, kind: str, fields: Mapping[str, str | int]) -> None:
        """Append an entry of a kind of its own to the audit chain."""
        if kind in KINDS or not _KIND.fullmatch(kind):
            raise EngineError("a note's kind is a word that the ledger does not use itself")
        with self._step():
            self._append(kind, **dict(fields))
