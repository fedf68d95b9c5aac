"""What a ledger can be asked. Nothing here changes anything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mpc_engine.errors import LedgerBrokenError
from mpc_engine.ledger.chain import Entry, Head
from mpc_engine.ledger.charge import NOTHING, Charge, Limit, Scope
from mpc_engine.ledger.rows import (
    BudgetRow,
    ChargeState,
    Decision,
    Line,
    Outgoing,
    RequestRow,
    SessionRow,
    Spending,
    SpendingState,
)
from mpc_engine.ledger.store import Store

_PAGE = 1_000
_SESSION = """SELECT ticket, request, question, state, session_id, micro_epsilon, delta, reason, detail,
    facts, pattern_hash, release_digest, seq_before, hash_before, seq_after, hash_after, began, changed,
    analyst_name, project, peer,
    (SELECT json_group_array(stored.peer) FROM stored WHERE stored.ticket = session.ticket) FROM session"""
_REQUEST = """SELECT id, analyst, analyst_name, key, project, body, digest, state, reason, detail, ticket,
    question, received, changed, received_from FROM request"""
_SPENDING: dict[str, SpendingState] = {
    "RESERVED": "held",
    "COMPUTING": "held",
    "COMMITTED": "spent, not released",
    "PATTERN": "spent, not released",
    "LOST": "spent, not released",
    "OPENED": "spent",
    "SIGNED": "spent",
    "RELEASED": "spent",
    "ADOPTED": "adopted",
    "ABORTED": "released",
}


class Reading:
    """The queries of a ledger; inside a transaction they see what it has written so far."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # --- the chain -------------------------------------------------------------------------------

    def head(self) -> Head:
        """Return the number of entries of the audit chain and the hash of the last one."""
        seq, last = self._one("SELECT seq, hash FROM place")
        return Head(seq, last)

    def bodies(self, after: int, upto: int) -> list[bytes]:
        """Return the body hashes of the entries ``after`` + 1 … ``upto``, as far as there are any."""
        sql = "SELECT body_hash FROM audit WHERE seq > ? AND seq <= ? ORDER BY seq"
        return [row[0] for row in self._store.rows(sql, (after, upto))]

    def entries(self, since: int = 0) -> Iterator[Entry]:
        """Yield the entries after number ``since`` in order."""
        sql = """SELECT seq, prev_hash, time_utc, kind, fields, salt, body_hash, entry_hash FROM audit
            WHERE seq > ? ORDER BY seq LIMIT ?"""
        while page := self._store.rows(sql, (since, _PAGE)):
            yield from (Entry(*row) for row in page)
            since = page[-1][0]

    def latest(self, *kinds: str) -> str:
        """Return the kind of the last entry that is of one of ``kinds``, "" if none is."""
        where, values = _among("kind", kinds)
        found = self._store.value(f"SELECT kind FROM audit {where} ORDER BY seq DESC LIMIT 1", values)
        return "" if found is None else str(found)

    # --- sessions --------------------------------------------------------------------------------

    def session(self, ticket: str) -> SessionRow | None:
        """Return a session, or ``None`` if this ledger never had it."""
        found = self._sessions(f"{_SESSION} WHERE ticket = ?", (ticket,))
        return found[0] if found else None

    def sessions(self, *states: str) -> list[SessionRow]:
        """Return the sessions in any of ``states`` (none given: all), in the order in which they began."""
        where, values = _among("state", states or None)
        return self._sessions(f"{_SESSION} {where} ORDER BY seq_before, ticket", values)

    def sessions_of(self, request: str) -> list[SessionRow]:
        """Return the attempts to answer a request, in the order in which they began."""
        return self._sessions(f"{_SESSION} WHERE request = ? ORDER BY seq_before, ticket", (request,))

    def answering(self, question: str) -> SessionRow | None:
        """Return the one session that answers or has answered ``question``; it keeps others from starting."""
        sql = f"{_SESSION} WHERE question = ? AND state NOT IN ('ABORTED', 'LOST', 'ADOPTED')"
        found = self._sessions(sql, (question,))
        return found[0] if found else None

    def sealed(self, ticket: str) -> bytes | None:
        """Return the encrypted shares to open, or ``None`` where there are none (any more)."""
        return self._blob("sealed", ticket)

    def release(self, ticket: str) -> bytes | None:
        """Return the release, once the session is OPENED."""
        return self._blob("release", ticket)

    def receipt(self, ticket: str) -> bytes | None:
        """Return the receipt, once the session is SIGNED."""
        return self._blob("receipt", ticket)

    def evidence(self, ticket: str) -> bytes | None:
        """Return what the peer signed for which a session is LOST."""
        return self._blob("evidence", ticket)

    def released_for(self, question: str) -> str | None:
        """Return the ticket of the release, with its receipt, that answers ``question``."""
        sql = """SELECT ticket FROM session WHERE question = ? AND receipt IS NOT NULL
            ORDER BY seq_before LIMIT 1"""
        found = self._store.value(sql, (question,))
        return None if found is None else str(found)

    # --- requests --------------------------------------------------------------------------------

    def request(self, id: str) -> RequestRow | None:
        """Return a request, or ``None`` if this ledger does not have it."""
        row = self._store.row(f"{_REQUEST} WHERE id = ?", (id,))
        return None if row is None else RequestRow(*row)

    def requests(
        self, *, states: Iterable[str] | None = None, analyst: str | None = None
    ) -> list[RequestRow]:
        """Return requests in order of arrival, only those in ``states`` or of ``analyst`` if given."""
        where, values = _among("state", None if states is None else tuple(states))
        if analyst is not None:
            where, values = f"{where or 'WHERE TRUE'} AND analyst = ?", (*values, analyst)
        rows = self._store.rows(f"{_REQUEST} {where} ORDER BY rowid", values)
        return [RequestRow(*row) for row in rows]

    def decisions(self, id: str) -> dict[str, Decision]:
        """Return what the parties decided about a request so far, by party."""
        sql = """SELECT party, verdict, reason, detail, decided_by, time FROM decision
            WHERE request = ? ORDER BY rowid"""
        return {row[0]: Decision(*row) for row in self._store.rows(sql, (id,))}

    # --- budgets ---------------------------------------------------------------------------------

    def spent(self, scope: Scope) -> Charge:
        """Return all that was ever spent of a scope, adopted debits included."""
        return self._total(scope, "spent")

    def held(self, scope: Scope) -> Charge:
        """Return what running sessions hold of a scope."""
        return self._total(scope, "held")

    def budgets(self, limits: Sequence[Limit]) -> list[BudgetRow]:
        """Return spent and held for every limit."""
        return [
            BudgetRow(limit.scope, self.spent(limit.scope), self.held(limit.scope), limit) for limit in limits
        ]

    def spendings(self, scope: Scope | None = None) -> list[Spending]:
        """Return what every session (of a scope) cost or holds, in order.

        Of an adopted debit that this ledger had held itself, the time is that of the reservation.
        """
        charged, where = "session", ""
        values: tuple[str, ...] = ()
        if scope is not None:
            charged, where = "charge", "JOIN charge USING (ticket) WHERE charge.kind = ? AND charge.name = ?"
            values = (scope.kind, scope.name)
        sql = f"""SELECT began, ticket, request, analyst_name, project, {charged}.micro_epsilon,
            {charged}.delta, session.state FROM session {where} ORDER BY seq_before, ticket"""
        return [
            Spending(time, ticket, request, name, project, Charge(micro, int(delta)), _SPENDING[state])
            for time, ticket, request, name, project, micro, delta, state in self._store.rows(sql, values)
        ]

    def charges(self, ticket: str) -> dict[Scope, tuple[Charge, ChargeState]]:
        """Return what a session takes of each scope, and whether that is held, spent or given back."""
        sql = "SELECT kind, name, micro_epsilon, delta, state FROM charge WHERE ticket = ? ORDER BY rowid"
        rows = self._store.rows(sql, (ticket,))
        return {Scope(row[0], row[1]): (Charge(row[2], int(row[3])), row[4]) for row in rows}

    # --- peers -----------------------------------------------------------------------------------

    def outgoing(self, peer: str, after: int = 0) -> list[Outgoing]:
        """Return the messages to a peer after number ``after`` that it has not acknowledged, in order."""
        sql = "SELECT id, kind, body FROM outgoing WHERE peer = ? AND id > ? ORDER BY id"
        return [Outgoing(*row) for row in self._store.rows(sql, (peer, after))]

    def line(self, peer: str) -> Line:
        """Return how far the messages to and from a peer have come."""
        row = self._store.row("SELECT sent, received FROM line WHERE peer = ?", (peer,))
        return Line(0, 0) if row is None else Line(*row)

    def witnessed(self, peer: str) -> Head | None:
        """Return the last head that was seen of a peer's ledger."""
        row = self._store.row("SELECT seq, hash FROM witness WHERE peer = ?", (peer,))
        return None if row is None else Head(*row)

    def claims(self, peer: str) -> list[Head]:
        """Return the heads that a peer has told since the one that was proved last."""
        rows = self._store.rows("SELECT seq, hash FROM claim WHERE peer = ? ORDER BY seq, hash", (peer,))
        return [Head(*row) for row in rows]

    def vouched(self, ticket: str) -> dict[str, bytes]:
        """Return the commitments that peers signed for a session, by peer."""
        rows = self._store.rows("SELECT peer, content FROM vouched WHERE ticket = ? ORDER BY peer", (ticket,))
        return {peer: bytes(content) for peer, content in rows}

    def document(self, digest: str) -> bytes | None:
        """Return the content that was kept under a digest."""
        found = self._store.value("SELECT content FROM document WHERE digest = ?", (digest,))
        return None if found is None else bytes(found)

    # --- inside ----------------------------------------------------------------------------------

    def _one(self, sql: str) -> tuple[Any, ...]:
        row = self._store.row(sql)
        if row is None:
            raise LedgerBrokenError("the ledger does not say whose it is")
        return row

    def _blob(self, column: str, ticket: str) -> bytes | None:
        found = self._store.value(f"SELECT {column} FROM session WHERE ticket = ?", (ticket,))
        return None if found is None else bytes(found)

    def _total(self, scope: Scope, state: ChargeState) -> Charge:
        sql = "SELECT micro_epsilon, delta FROM charge WHERE kind = ? AND name = ? AND state = ?"
        total = NOTHING
        for micro_epsilon, delta in self._store.rows(sql, (scope.kind, scope.name, state)):
            total += Charge(micro_epsilon, int(delta))
        return total

    def _sessions(self, sql: str, values: Sequence[Any]) -> list[SessionRow]:
        return [
            SessionRow(
                ticket=row[0],
                request=row[1],
                question=row[2],
                state=row[3],
                session_id=row[4] or "",
                charge=Charge(row[5], int(row[6])),
                reason=row[7],
                detail=row[8],
                facts=row[9],
                pattern_hash=row[10],
                release_digest=row[11],
                stored_by=frozenset(json.loads(row[21])),
                head_before=Head(row[12], row[13]),
                head_after=None if row[14] is None else Head(row[14], row[15]),
                began=row[16],
                changed=row[17],
                analyst_name=row[18],
                project=row[19],
                peer=row[20],
            )
            for row in self._store.rows(sql, values)
        ]


def _among(column: str, values: Sequence[str] | None) -> tuple[str, tuple[str, ...]]:
    if values is None:
        return "", ()
    if not values:
        return "WHERE FALSE", ()
    return f"WHERE {column} IN ({', '.join('?' * len(values))})", tuple(values)
