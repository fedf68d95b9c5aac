"""The tables of a ledger, as the steps that lead from each version of the schema to the next."""

from __future__ import annotations

APPLICATION = 0x6D70656C
"""Marks a SQLite file as a ledger of this engine."""

_HASH = "BLOB NOT NULL CHECK (length({0}) = 32)"

_FIRST = (
    # One row: whose ledger this is, and where its chain ends.
    f"""CREATE TABLE place (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        party TEXT NOT NULL,
        seq INTEGER NOT NULL,
        hash {_HASH.format("hash")},
        time TEXT NOT NULL
    ) STRICT""",
    f"""CREATE TABLE audit (
        seq INTEGER PRIMARY KEY CHECK (seq >= 1),
        prev_hash {_HASH.format("prev_hash")} UNIQUE,
        time_utc TEXT NOT NULL,
        kind TEXT NOT NULL,
        fields TEXT NOT NULL,
        salt BLOB NOT NULL,
        body_hash {_HASH.format("body_hash")},
        entry_hash {_HASH.format("entry_hash")} UNIQUE
    ) STRICT""",
    """CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit chain only grows'); END""",
    """CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit chain only grows'); END""",
    """CREATE TABLE request (
        id TEXT PRIMARY KEY,
        analyst TEXT NOT NULL,
        analyst_name TEXT NOT NULL,
        key TEXT NOT NULL,
        project TEXT NOT NULL,
        body BLOB NOT NULL,
        digest TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('SUBMITTED', 'PARTIALLY_REVIEWED', 'REVIEWED', 'APPROVED',
            'RELEASED', 'RETURNED', 'REJECTED', 'WITHDRAWN')),
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        ticket TEXT,
        question TEXT,
        received TEXT NOT NULL,
        changed TEXT NOT NULL,
        received_from TEXT NOT NULL,
        UNIQUE (analyst, key)
    ) STRICT""",
    "CREATE INDEX request_state ON request (state)",
    """CREATE TABLE decision (
        request TEXT NOT NULL REFERENCES request (id),
        party TEXT NOT NULL,
        verdict TEXT NOT NULL CHECK (verdict IN ('approved', 'rejected', 'returned')),
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        decided_by TEXT NOT NULL,
        time TEXT NOT NULL,
        PRIMARY KEY (request, party)
    ) STRICT""",
    # An adopted session's request may be unknown here, so that there is no reference to it.
    f"""CREATE TABLE session (
        ticket TEXT PRIMARY KEY,
        request TEXT NOT NULL,
        question TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('RESERVED', 'COMPUTING', 'COMMITTED', 'PATTERN', 'OPENED',
            'SIGNED', 'RELEASED', 'ABORTED', 'LOST', 'ADOPTED')),
        session_id TEXT UNIQUE,
        micro_epsilon INTEGER NOT NULL CHECK (micro_epsilon >= 0),
        delta TEXT NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        detail TEXT NOT NULL DEFAULT '',
        facts BLOB,
        sealed BLOB,
        pattern_hash BLOB,
        release BLOB,
        release_digest TEXT NOT NULL DEFAULT '',
        receipt BLOB,
        evidence BLOB,
        seq_before INTEGER NOT NULL,
        hash_before {_HASH.format("hash_before")},
        seq_after INTEGER,
        hash_after BLOB,
        began TEXT NOT NULL,
        changed TEXT NOT NULL,
        analyst_name TEXT NOT NULL,
        project TEXT NOT NULL,
        peer TEXT NOT NULL DEFAULT ''
    ) STRICT""",
    "CREATE INDEX session_state ON session (state)",
    "CREATE INDEX session_request ON session (request)",
    # A question on the same records has one release, ever: asked again, that one is served.
    """CREATE UNIQUE INDEX session_question ON session (question)
        WHERE state NOT IN ('ABORTED', 'LOST', 'ADOPTED')""",
    "CREATE INDEX session_released ON session (question) WHERE receipt IS NOT NULL",
    """CREATE TABLE stored (
        ticket TEXT NOT NULL REFERENCES session (ticket),
        peer TEXT NOT NULL,
        PRIMARY KEY (ticket, peer)
    ) STRICT""",
    # δ in units of 2^-100 does not fit the database's 64-bit integers, hence text.
    """CREATE TABLE charge (
        ticket TEXT NOT NULL REFERENCES session (ticket),
        kind TEXT NOT NULL CHECK (kind IN ('dataset', 'project', 'analyst')),
        name TEXT NOT NULL,
        micro_epsilon INTEGER NOT NULL CHECK (micro_epsilon >= 0),
        delta TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('held', 'spent', 'released')),
        PRIMARY KEY (ticket, kind, name)
    ) STRICT""",
    "CREATE INDEX charge_scope ON charge (kind, name, state)",
    """CREATE TRIGGER spent_stays_spent BEFORE UPDATE ON charge
        WHEN OLD.state = 'spent' AND (NEW.state <> 'spent' OR NEW.micro_epsilon < OLD.micro_epsilon
            OR length(NEW.delta) < length(OLD.delta)
            OR (length(NEW.delta) = length(OLD.delta) AND NEW.delta < OLD.delta))
        BEGIN SELECT RAISE(ABORT, 'what is spent stays spent'); END""",
    """CREATE TRIGGER charges_stay BEFORE DELETE ON charge
        BEGIN SELECT RAISE(ABORT, 'charges are not deleted'); END""",
    """CREATE TABLE line (
        peer TEXT PRIMARY KEY,
        sent INTEGER NOT NULL DEFAULT 0,
        received INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    """CREATE TABLE outgoing (
        peer TEXT NOT NULL REFERENCES line (peer),
        id INTEGER NOT NULL,
        kind TEXT NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (peer, id)
    ) STRICT""",
    f"""CREATE TABLE witness (
        peer TEXT PRIMARY KEY,
        seq INTEGER NOT NULL,
        hash {_HASH.format("hash")}
    ) STRICT""",
    # Heads that a peer has told in a commitment, not proved yet to continue the one witnessed.
    f"""CREATE TABLE claim (
        peer TEXT NOT NULL,
        seq INTEGER NOT NULL,
        hash {_HASH.format("hash")},
        PRIMARY KEY (peer, seq, hash)
    ) STRICT""",
    # Commitments that peers signed: the proof of their debits, for them when they have lost their ledger.
    """CREATE TABLE vouched (
        ticket TEXT NOT NULL,
        peer TEXT NOT NULL,
        content BLOB NOT NULL,
        PRIMARY KEY (ticket, peer)
    ) STRICT""",
    "CREATE TABLE document (digest TEXT PRIMARY KEY, content BLOB NOT NULL) STRICT",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST,)
"""``MIGRATIONS[n]`` leads from version n to version n + 1. A published step is never changed."""
