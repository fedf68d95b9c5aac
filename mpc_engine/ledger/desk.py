"""Requests and what was decided about them."""

from __future__ import annotations

import sqlite3

from mpc_engine.errors import EngineError, IdempotencyError, RequestStateError, UnknownRequestError
from mpc_engine.ledger.rows import OPEN_REQUEST, RequestRow, RequestState, Verdict
from mpc_engine.ledger.writing import Writing, sha256


class RequestWriting(Writing):
    """The changes of a transaction that concern requests."""

    def submit(
        self,
        *,
        id: str,
        analyst: str,
        analyst_name: str,
        key: str,
        project: str,
        body: bytes,
        digest: str,
        received_from: str,
    ) -> RequestRow:
        """Take a request in, in state SUBMITTED, and return it.

        The same analyst, key and digest again: the row as it is now, and nothing changes. Raises
        :class:`IdempotencyError` for another digest under the same key.
        """
        with self._step():
            try:
                self._store.write(
                    """INSERT INTO request VALUES
                        (?, ?, ?, ?, ?, ?, ?, 'SUBMITTED', '', '', NULL, NULL, ?, ?, ?)""",
                    (
                        id,
                        analyst,
                        analyst_name,
                        key,
                        project,
                        body,
                        digest,
                        self._time,
                        self._time,
                        received_from,
                    ),
                )
            except sqlite3.IntegrityError:
                return self._known(id, analyst, key, digest)
            self._append(
                "submitted",
                request=id,
                analyst=analyst,
                analyst_name=analyst_name,
                key=key,
                project=project,
                body=sha256(body),
                digest=digest,
                received_from=received_from,
            )
            return self._request(id)

    def _known(self, id: str, analyst: str, key: str, digest: str) -> RequestRow:
        found = self._store.value("SELECT id FROM request WHERE analyst = ? AND key = ?", (analyst, key))
        if found is None or found != id:
            raise EngineError("a request's id does not follow from its analyst and key")
        row = self._request(id)
        if row.digest != digest:
            raise IdempotencyError("this key was used for another question")
        return row

    def decide(
        self, request: str, party: str, verdict: Verdict, reason: str = "", detail: str = "", by: str = ""
    ) -> None:
        """Record what ``party`` decided. Its first decision stands; the same verdict again is ignored.

        Raises :class:`UnknownRequestError`, and :class:`RequestStateError` for a different verdict.
        """
        with self._step():
            self._request(request)
            earlier = self._read.decisions(request).get(party)
            if earlier is not None:
                if earlier.verdict != verdict:
                    raise RequestStateError(f"{party} has decided already: {earlier.verdict}")
                return
            self._store.write(
                "INSERT INTO decision VALUES (?, ?, ?, ?, ?, ?, ?)",
                (request, party, verdict, reason, detail, by, self._time),
            )
            self._append(
                "decided", request=request, party=party, verdict=verdict, reason=reason, detail=detail, by=by
            )

    def settle(
        self, request: str, state: RequestState, reason: str = "", detail: str = "", ticket: str | None = None
    ) -> None:
        """Bring a request into ``state``; with ``ticket``, the session whose release answers it.

        RELEASED, RETURNED, REJECTED and WITHDRAWN are final: the same again is ignored. Raises
        :class:`UnknownRequestError`, and :class:`RequestStateError` for any change of a final state.
        """
        with self._step():
            row = self._request(request)
            if row.state == state and (state not in OPEN_REQUEST or ticket in (None, row.ticket)):
                return
            names = ", ".join(f"'{name}'" for name in OPEN_REQUEST)
            changed = self._store.write(
                f"""UPDATE request SET state = ?, reason = ?, detail = ?,
                    ticket = coalesce(?, ticket), changed = ? WHERE id = ? AND state IN ({names})""",
                (state, reason, detail, ticket, self._time, request),
            )
            if changed != 1:
                raise RequestStateError(f"the request is {row.state} and stays so")
            self._append(
                "settled", request=request, state=state, reason=reason, detail=detail, ticket=ticket or ""
            )

    def _request(self, id: str) -> RequestRow:
        row = self._read.request(id)
        if row is None:
            raise UnknownRequestError("there is no such request")
        return row
