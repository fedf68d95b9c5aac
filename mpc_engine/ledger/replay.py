"""What the tables have to say if the audit chain is true: the chain told again, and compared with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mpc_engine.errors import LedgerBrokenError
from mpc_engine.ledger.chain import EMPTY, Entry, Head, follow
from mpc_engine.ledger.reading import Reading
from mpc_engine.ledger.store import Store

Fields = dict[str, Any]


@dataclass
class _Session:
    request: str
    question: str
    state: str
    micro_epsilon: int
    delta: int
    before: Head
    began: str
    changed: str
    session_id: str | None = None
    reason: str = ""
    detail: str = ""
    facts: str | None = None
    pattern: str | None = None
    release: str | None = None
    digest: str = ""
    receipt: str | None = None
    evidence: str | None = None
    after: Head | None = None
    analyst_name: str = ""
    project: str = ""
    peer: str = ""
    stored: set[str] = field(default_factory=set)
    charges: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    def spend(self, state: str) -> None:
        self.charges = {scope: (epsilon, delta, state) for scope, (epsilon, delta, _) in self.charges.items()}


@dataclass
class _Request:
    fixed: tuple[str, ...]
    body: str
    received: str
    state: str = "SUBMITTED"
    reason: str = ""
    detail: str = ""
    ticket: str | None = None
    question: str | None = None
    changed: str = ""
    decisions: dict[str, tuple[str, ...]] = field(default_factory=dict)


class Replay:
    """The state that the entries followed so far lead to."""

    def __init__(self) -> None:
        self.head = EMPTY
        self.time = ""
        self.party = ""
        self.sessions: dict[str, _Session] = {}
        self.requests: dict[str, _Request] = {}

    def follow(self, entry: Entry) -> None:
        """Take one more entry; raises :class:`LedgerBrokenError` if it does not continue the chain."""
        self.head = follow(self.head, entry)
        if entry.time_utc < self.time:
            raise LedgerBrokenError(f"the time of entry {entry.seq} of the audit chain goes back")
        self.time = entry.time_utc
        tell = _TELL.get(entry.kind)
        if tell is None:
            return
        try:
            tell(self, json.loads(entry.fields))
        except (KeyError, ValueError, TypeError) as error:
            raise LedgerBrokenError(f"entry {entry.seq} of the audit chain makes no sense") from error

    # --- one method for each kind of entry -----------------------------------------------------------

    def _created(self, f: Fields) -> None:
        self.party = f["party"]

    def _submitted(self, f: Fields) -> None:
        fixed = ("analyst", "analyst_name", "key", "project", "digest", "received_from")
        self.requests[f["request"]] = _Request(
            tuple(f[name] for name in fixed), f["body"], self.time, changed=self.time
        )

    def _decided(self, f: Fields) -> None:
        said = (f["verdict"], f["reason"], f["detail"], f["by"], self.time)
        self.requests[f["request"]].decisions[f["party"]] = said

    def _settled(self, f: Fields) -> None:
        request = self.requests[f["request"]]
        request.state, request.reason, request.detail = f["state"], f["reason"], f["detail"]
        request.ticket, request.changed = f["ticket"] or request.ticket, self.time

    def _reserved(self, f: Fields) -> None:
        request = self.requests[f["request"]]
        request.ticket, request.question, request.changed = f["ticket"], f["question"], self.time
        session = self._begun(f, "RESERVED")
        session.analyst_name, session.project = request.fixed[1], request.fixed[3]
        session.charges = {scope: (session.micro_epsilon, session.delta, "held") for scope in f["scopes"]}

    def _adopted(self, f: Fields) -> None:
        session = self.sessions.get(f["ticket"])
        if session is None:
            session = self._begun(f, "ADOPTED")
            session.analyst_name, session.project = f["analyst_name"], f["project"]
        epsilon, delta = f["micro_epsilon"], int(f["delta"])
        session.state, session.peer, session.changed = "ADOPTED", f["peer"], self.time
        session.micro_epsilon, session.delta = max(session.micro_epsilon, epsilon), max(session.delta, delta)
        for scope in {*session.charges, *f["scopes"]}:
            own = session.charges.get(scope, (0, 0, ""))
            session.charges[scope] = (max(own[0], epsilon), max(own[1], delta), "spent")

    def _begun(self, f: Fields, state: str) -> _Session:
        if f["ticket"] in self.sessions:
            raise ValueError
        session = _Session(
            f["request"],
            f["question"],
            state,
            f["micro_epsilon"],
            int(f["delta"]),
            self.head,
            self.time,
            self.time,
        )
        self.sessions[f["ticket"]] = session
        return session

    def _changed(self, f: Fields, state: str) -> _Session:
        session = self.sessions[f["ticket"]]
        session.state, session.changed = state, self.time
        return session

    def _computing(self, f: Fields) -> None:
        self._changed(f, "COMPUTING").session_id = f["session"]

    def _committed(self, f: Fields) -> None:
        session = self._changed(f, "COMMITTED")
        session.facts, session.after = f["facts"], self.head
        session.spend("spent")

    def _pattern(self, f: Fields) -> None:
        self._changed(f, "PATTERN").pattern = f["hash"]

    def _opened(self, f: Fields) -> None:
        session = self._changed(f, "OPENED")
        session.release, session.digest = f["release"], f["digest"]

    def _signed(self, f: Fields) -> None:
        self._changed(f, "SIGNED").receipt = f["receipt"]

    def _stored(self, f: Fields) -> None:
        self.sessions[f["ticket"]].stored.add(f["peer"])

    def _released(self, f: Fields) -> None:
        self._changed(f, "RELEASED")

    def _aborted(self, f: Fields) -> None:
        session = self._changed(f, "ABORTED")
        session.reason, session.detail = f["reason"], f["detail"]
        session.spend("released")

    def _lost(self, f: Fields) -> None:
        session = self._changed(f, "LOST")
        session.reason, session.evidence = f["reason"], f["evidence"]
        session.release = None

    def _restored(self, f: Fields) -> None:
        session = self._changed(f, "ADOPTED")
        session.release, session.digest, session.receipt = f["release"], f["digest"], f["receipt"]

    def _nothing(self, f: Fields) -> None:
        """Entries that no other table follows."""


_TELL: dict[str, Callable[[Replay, Fields], None]] = {
    "created": Replay._created,
    "migrated": Replay._nothing,
    "submitted": Replay._submitted,
    "decided": Replay._decided,
    "settled": Replay._settled,
    "reserved": Replay._reserved,
    "computing": Replay._computing,
    "committed": Replay._committed,
    "pattern": Replay._pattern,
    "opened": Replay._opened,
    "signed": Replay._signed,
    "stored": Replay._stored,
    "released": Replay._released,
    "aborted": Replay._aborted,
    "lost": Replay._lost,
    "adopted": Replay._adopted,
    "restored": Replay._restored,
    "rewitnessed": Replay._nothing,
}
KINDS = frozenset(_TELL)
"""The kinds of entries that the ledger writes itself."""


def verify(store: Store, party: str) -> Head:
    """Follow the whole chain, compare every table that it determines, and return its head.

    Raises :class:`LedgerBrokenError` saying what is wrong. An old copy of the whole file verifies: that
    it is old, only the peers know.
    """
    with store.view():
        reading = Reading(store)
        replay = Replay()
        for entry in reading.entries():
            replay.follow(entry)
        place = store.row("SELECT party, seq, hash, time FROM place")
        if place is None or replay.head.seq == 0:
            raise LedgerBrokenError("the audit chain was truncated: its beginning is missing")
        if place[0] != party or replay.party != party:
            raise LedgerBrokenError(f'this is the ledger of "{replay.party}", not of "{party}"')
        if (Head(place[1], place[2]), place[3]) != (replay.head, replay.time):
            raise LedgerBrokenError(
                f"the audit chain was truncated: it ends at entry {replay.head.seq}, not at {place[1]}"
            )
        _compare("request", _requests(store), {id: row for id, row in _expected_requests(replay)})
        _compare("session", _sessions(store), {ticket: row for ticket, row in _expected_sessions(replay)})
        return replay.head


def _compare(what: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    if found == expected:
        return
    for key in sorted({*found, *expected}):
        if key not in found:
            raise LedgerBrokenError(f"{what} {key} is in the audit chain but not in its table")
        if key not in expected:
            raise LedgerBrokenError(f"{what} {key} is not in the audit chain")
        if found[key] != expected[key]:
            raise LedgerBrokenError(f"{what} {key} is not as the audit chain says")


def _digest(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()


def _requests(store: Store) -> dict[str, Any]:
    decisions: dict[str, dict[str, tuple[str, ...]]] = {}
    for row in store.rows("SELECT request, party, verdict, reason, detail, decided_by, time FROM decision"):
        decisions.setdefault(row[0], {})[row[1]] = row[2:]
    found: dict[str, Any] = {}
    cursor = store.run(
        """SELECT id, body, analyst, analyst_name, key, project, digest, received_from, received, state,
            reason, detail, ticket, question, changed FROM request"""
    )
    for row in cursor:
        found[row[0]] = (_digest(row[1]), row[2:], decisions.pop(row[0], {}))
    if decisions:
        raise LedgerBrokenError(f"a decision is about request {next(iter(decisions))}, which is not there")
    return found


def _expected_requests(replay: Replay) -> list[tuple[str, Any]]:
    return [
        (
            id,
            (
                r.body,
                (*r.fixed, r.received, r.state, r.reason, r.detail, r.ticket, r.question, r.changed),
                r.decisions,
            ),
        )
        for id, r in replay.requests.items()
    ]


def _sessions(store: Store) -> dict[str, Any]:
    stored: dict[str, set[str]] = {}
    for ticket, peer in store.rows("SELECT ticket, peer FROM stored"):
        stored.setdefault(ticket, set()).add(peer)
    charges: dict[str, dict[str, tuple[int, int, str]]] = {}
    for ticket, kind, name, epsilon, delta, state in store.rows(
        "SELECT ticket, kind, name, micro_epsilon, delta, state FROM charge"
    ):
        charges.setdefault(ticket, {})[f"{kind}:{name}"] = (epsilon, int(delta), state)
    found: dict[str, Any] = {}
    cursor = store.run(
        """SELECT ticket, facts, release, receipt, evidence, sealed IS NULL, request, question, state,
            micro_epsilon, delta, session_id, reason, detail, hex(pattern_hash), release_digest, seq_before,
            hash_before, seq_after, hash_after, began, changed, analyst_name, project, peer FROM session"""
    )
    for row in cursor:
        ticket, state, unsealed = row[0], row[8], row[5]
        if not unsealed and state not in ("COMMITTED", "PATTERN", "OPENED", "SIGNED"):
            raise LedgerBrokenError(f"session {ticket} is {state} and still has sealed shares")
        blobs = tuple(_digest(blob) for blob in row[1:5])
        found[ticket] = (blobs, row[6:], stored.pop(ticket, set()), charges.pop(ticket, {}))
    for rest in (stored, charges):
        if rest:
            raise LedgerBrokenError(f"a row belongs to session {next(iter(rest))}, which is not there")
    return found


def _expected_sessions(replay: Replay) -> list[tuple[str, Any]]:
    return [
        (
            ticket,
            (
                (s.facts, s.release, s.receipt, s.evidence),
                (
                    *(s.request, s.question, s.state, s.micro_epsilon, str(s.delta), s.session_id),
                    *(s.reason, s.detail, (s.pattern or "").upper(), s.digest),
                    *(*s.before, *(s.after or (None, None))),
                    *(s.began, s.changed, s.analyst_name, s.project, s.peer),
                ),
                s.stored,
                s.charges,
            ),
        )
        for ticket, s in replay.sessions.items()
    ]
