"""The course of a session: what may follow what, and what becomes of its budget."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NoReturn

from mpc_engine.errors import (
    BudgetError,
    DocumentError,
    EquivocationError,
    QuestionBusyError,
    RequestStateError,
    StaleSessionError,
    UnknownRequestError,
    UnknownSessionError,
)
from mpc_engine.ledger.chain import Head
from mpc_engine.ledger.charge import LARGEST_MICRO_EPSILON, ORDER, Charge, Limit, Scope
from mpc_engine.ledger.rows import HOLDING, OPEN_REQUEST, SessionRow, SessionState
from mpc_engine.ledger.writing import Writing, sha256

_OPENED: tuple[SessionState, ...] = ("OPENED", "SIGNED", "RELEASED")


class SessionWriting(Writing):
    """The changes of a transaction that concern sessions and budgets.

    Every change raises :class:`UnknownSessionError` for a ticket that this ledger never had, and
    :class:`StaleSessionError` for a session that is not in a state in which it may happen.
    """

    def reserve(
        self,
        ticket: str,
        *,
        request: str,
        question: str,
        charge: Charge,
        scopes: Sequence[Scope],
        limits: Sequence[Limit],
    ) -> Head:
        """Begin a session: hold ``charge`` of every scope, and return the ledger's head after that.

        Raises :class:`BudgetError` naming the first scope (analyst, project, data set) that does not have
        so much left, :class:`StaleSessionError` if the ticket was used before, :class:`QuestionBusyError` if
        another session answers or has answered the question, :class:`RequestStateError` if the request is
        closed, and :class:`UnknownRequestError`.
        """
        ordered = _in_order(scopes)
        if not (0 <= charge.micro_epsilon <= LARGEST_MICRO_EPSILON and charge.delta >= 0 and ordered):
            raise DocumentError("a session takes a charge that is not negative, of at least one budget")
        with self._step():
            asked = self._read.request(request)
            if self._read.session(ticket) is not None:
                raise StaleSessionError("this session was begun before; a session is never run twice")
            if asked is None:
                raise UnknownRequestError("there is no such request")
            if asked.state not in OPEN_REQUEST:
                raise RequestStateError(f"the request is {asked.state}")
            self._within(ordered, limits, charge)
            head = self._append(
                "reserved",
                ticket=ticket,
                request=request,
                question=question,
                micro_epsilon=charge.micro_epsilon,
                delta=str(charge.delta),
                scopes=[f"{scope.kind}:{scope.name}" for scope in ordered],
            )
            try:
                self._begin(
                    ticket, request, question, "RESERVED", charge, head, asked.analyst_name, asked.project
                )
            except sqlite3.IntegrityError as error:
                raise QuestionBusyError("the same question is being answered or was answered") from error
            for scope in ordered:
                self._store.write(
                    "INSERT INTO charge VALUES (?, ?, ?, ?, ?, 'held')",
                    (ticket, scope.kind, scope.name, charge.micro_epsilon, str(charge.delta)),
                )
            self._store.write(
                "UPDATE request SET ticket = ?, question = ?, changed = ? WHERE id = ?",
                (ticket, question, self._time, request),
            )
            return head

    def computing(self, ticket: str, session_id: str) -> None:
        """RESERVED → COMPUTING under an id that no session ever had (else :class:`StaleSessionError`)."""
        with self._step():
            try:
                self._move(ticket, ("RESERVED",), "COMPUTING", session_id=session_id)
            except sqlite3.IntegrityError as error:
                raise StaleSessionError("a session of this id was run before") from error
            self._append("computing", ticket=ticket, session=session_id)

    def commit(self, ticket: str, facts: bytes, sealed: bytes | None) -> Head:
        """COMPUTING → COMMITTED: the hold becomes spent, and what publishing needs is stored with it.

        Returns the ledger's head after that, which travels in the COMMIT message.
        """
        with self._step():
            self._move(ticket, ("COMPUTING",), "COMMITTED", facts=facts, sealed=sealed)
            self._store.write("UPDATE charge SET state = 'spent' WHERE ticket = ?", (ticket,))
            head = self._append("committed", ticket=ticket, facts=sha256(facts))
            self._store.write(
                "UPDATE session SET seq_after = ?, hash_after = ? WHERE ticket = ?", (*head, ticket)
            )
            return head

    def pattern(self, ticket: str, pattern_hash: bytes) -> None:
        """COMMITTED → PATTERN: the suppression pattern is known. The same hash again is ignored.

        Raises :class:`EquivocationError` for another one.
        """
        with self._step():
            row = self._session(ticket)
            if row.state in ("PATTERN", *_OPENED):
                if row.pattern_hash != pattern_hash:
                    raise EquivocationError("a second suppression pattern was opened for one session")
                return
            self._move(ticket, ("COMMITTED",), "PATTERN", pattern_hash=pattern_hash)
            self._append("pattern", ticket=ticket, hash=pattern_hash.hex())

    def opened(self, ticket: str, release: bytes, release_digest: str) -> None:
        """PATTERN → OPENED: store the release. The same again is ignored.

        Raises :class:`EquivocationError` for a release of another digest; nothing is changed then.
        """
        with self._step():
            row = self._session(ticket)
            if row.state in _OPENED:
                if row.release_digest != release_digest:
                    raise EquivocationError("a second, different release was opened for one session")
                return
            self._move(ticket, ("PATTERN",), "OPENED", release=release, release_digest=release_digest)
            self._append("opened", ticket=ticket, release=sha256(release), digest=release_digest)

    def signed(self, ticket: str, receipt: bytes) -> None:
        """OPENED → SIGNED: store the receipt that all parties signed. The same again is ignored.

        Raises :class:`EquivocationError` for another one.
        """
        with self._step():
            if self._session(ticket).state in ("SIGNED", "RELEASED"):
                if self._read.receipt(ticket) != receipt:
                    raise EquivocationError("a second, different receipt was signed for one session")
                return
            self._move(ticket, ("OPENED",), "SIGNED", receipt=receipt)
            self._append("signed", ticket=ticket, receipt=sha256(receipt))

    def stored(self, ticket: str, peer: str) -> frozenset[str]:
        """Record that ``peer`` has stored release and receipt; return who has so far."""
        with self._step():
            row = self._session(ticket)
            if row.state not in ("COMMITTED", "PATTERN", *_OPENED):
                self._stale(row)
            if peer not in row.stored_by:
                self._store.write("INSERT INTO stored VALUES (?, ?)", (ticket, peer))
                self._append("stored", ticket=ticket, peer=peer)
            return row.stored_by | {peer}

    def released(self, ticket: str) -> None:
        """SIGNED → RELEASED: everybody has it, and the sealed shares are dropped. Again: ignored."""
        with self._step():
            if self._session(ticket).state == "RELEASED":
                return
            self._move(ticket, ("SIGNED",), "RELEASED", sealed=None)
            self._append("released", ticket=ticket)

    def abort(self, ticket: str, reason: str, detail: str = "") -> None:
        """RESERVED or COMPUTING → ABORTED: the hold is given back."""
        with self._step():
            self._move(ticket, HOLDING, "ABORTED", reason=reason, detail=detail)
            self._store.write("UPDATE charge SET state = 'released' WHERE ticket = ?", (ticket,))
            self._append("aborted", ticket=ticket, reason=reason, detail=detail)

    def lose(self, ticket: str, reason: str, evidence: bytes) -> None:
        """COMMITTED, PATTERN or OPENED → LOST: spent, never to be released; the sealed shares are dropped.

        ``evidence`` is what the peer signed that never committed this session, or that gave it up; a release
        that not all have signed is dropped.
        """
        with self._step():
            self._move(
                ticket,
                ("COMMITTED", "PATTERN", "OPENED"),
                "LOST",
                reason=reason,
                evidence=evidence,
                sealed=None,
                release=None,
            )
            self._append("lost", ticket=ticket, reason=reason, evidence=sha256(evidence))

    def adopt(
        self,
        ticket: str,
        *,
        request: str,
        question: str,
        charge: Charge,
        scopes: Sequence[Scope],
        peer: str,
        analyst_name: str,
        project: str,
    ) -> None:
        """Record a debit that ``peer`` witnessed and this ledger lacks, as spent: state ADOPTED.

        A session that is RESERVED, COMPUTING or ABORTED here becomes spent too, at the greater of the two
        charges; one that is spent already is left as it is.
        """
        ordered = _in_order(scopes)
        if not (0 <= charge.micro_epsilon <= LARGEST_MICRO_EPSILON and charge.delta >= 0 and ordered):
            raise DocumentError("a debit is not negative, and of at least one budget")
        with self._step():
            row = self._read.session(ticket)
            if row is not None and row.state not in (*HOLDING, "ABORTED"):
                return
            head = self._append(
                "adopted",
                ticket=ticket,
                request=request,
                question=question,
                micro_epsilon=charge.micro_epsilon,
                delta=str(charge.delta),
                scopes=[f"{scope.kind}:{scope.name}" for scope in ordered],
                peer=peer,
                analyst_name=analyst_name,
                project=project,
            )
            if row is None:
                self._begin(ticket, request, question, "ADOPTED", charge, head, analyst_name, project, peer)
            else:
                total = _greater(row.charge, charge)
                self._store.write(
                    """UPDATE session SET state = 'ADOPTED', peer = ?, micro_epsilon = ?, delta = ?,
                        changed = ? WHERE ticket = ?""",
                    (peer, total.micro_epsilon, str(total.delta), self._time, ticket),
                )
            before = self._read.charges(ticket)
            for scope in dict.fromkeys((*before, *ordered)):
                own = before[scope][0] if scope in before else charge
                total = _greater(own, charge)
                self._store.write(
                    """INSERT INTO charge VALUES (?, ?, ?, ?, ?, 'spent')
                        ON CONFLICT (ticket, kind, name) DO UPDATE
                        SET state = 'spent', micro_epsilon = excluded.micro_epsilon,
                            delta = excluded.delta""",
                    (ticket, scope.kind, scope.name, total.micro_epsilon, str(total.delta)),
                )

    def restore(self, ticket: str, release: bytes, release_digest: str, receipt: bytes) -> None:
        """Store at an ADOPTED session the release and receipt that a peer has kept; again: ignored.

        The question is then answered with them here too. Raises :class:`EquivocationError` for others.
        """
        with self._step():
            row = self._session(ticket)
            if self._read.receipt(ticket) is not None:
                if (row.release_digest, self._read.receipt(ticket)) != (release_digest, receipt):
                    raise EquivocationError("a second, different release was given for one session")
                return
            self._move(
                ticket,
                ("ADOPTED",),
                "ADOPTED",
                release=release,
                release_digest=release_digest,
                receipt=receipt,
            )
            self._append(
                "restored",
                ticket=ticket,
                release=sha256(release),
                digest=release_digest,
                receipt=sha256(receipt),
            )

    # --- inside ----------------------------------------------------------------------------------

    def _within(self, scopes: Sequence[Scope], limits: Sequence[Limit], charge: Charge) -> None:
        for scope in scopes:
            for limit in limits:
                if limit.scope != scope:
                    continue
                spent, held = self._read.spent(scope), self._read.held(scope)
                if not limit.allows(spent + held + charge):
                    raise BudgetError(
                        f"{charge.words} is more than is left of the budget of {scope.words}: "
                        f"limit {limit.words}; spent {spent.words}; held {held.words}"
                    )

    def _begin(
        self,
        ticket: str,
        request: str,
        question: str,
        state: SessionState,
        charge: Charge,
        head: Head,
        analyst_name: str,
        project: str,
        peer: str = "",
    ) -> None:
        self._store.write(
            """INSERT INTO session (ticket, request, question, state, micro_epsilon, delta, seq_before,
                hash_before, began, changed, analyst_name, project, peer)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (
                *(ticket, request, question, state, charge.micro_epsilon, str(charge.delta), *head),
                *(self._time, self._time, analyst_name, project, peer),
            ),
        )

    def _move(
        self,
        ticket: str,
        states: Sequence[SessionState],
        state: SessionState,
        **columns: str | bytes | None,
    ) -> None:
        """The guard of every transition: it changes one row in one of ``states``, or raises."""
        assigned = "".join(f", {name} = ?" for name in columns)
        among = ", ".join("?" * len(states))
        changed = self._store.write(
            f"UPDATE session SET state = ?, changed = ?{assigned} WHERE ticket = ? AND state IN ({among})",
            (state, self._time, *columns.values(), ticket, *states),
        )
        if changed != 1:
            self._stale(self._session(ticket))

    def _session(self, ticket: str) -> SessionRow:
        row = self._read.session(ticket)
        if row is None:
            raise UnknownSessionError("this party has no such session")
        return row

    def _stale(self, row: SessionRow) -> NoReturn:
        raise StaleSessionError(f"the session is {row.state} here")


def _in_order(scopes: Sequence[Scope]) -> list[Scope]:
    return sorted(dict.fromkeys(scopes), key=lambda scope: ORDER.index(scope.kind))


def _greater(one: Charge, other: Charge) -> Charge:
    return Charge(max(one.micro_epsilon, other.micro_epsilon), max(one.delta, other.delta))
