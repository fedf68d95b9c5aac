"""The audit chain: every entry is hashed with the hash of the one before it.

An entry's body (time, kind, salt, fields) has a hash of its own, and the chain is made of those. A peer
that is given the body hashes can therefore follow the chain without learning what the entries say; the
salt keeps it from guessing them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mpc_engine import documents
from mpc_engine.errors import DocumentError, LedgerBrokenError

HASH_BYTES = 32
SALT_BYTES = 16
_BODY = b"mpc-engine/ledger-body/1\0"
_ENTRY = b"mpc-engine/ledger-entry/1\0"


class Head(NamedTuple):
    """The end of a chain: the number of its entries and the last one's hash (32 zero bytes if none)."""

    seq: int
    hash: bytes


EMPTY = Head(0, bytes(HASH_BYTES))


@dataclass(frozen=True)
class Entry:
    """One entry of the chain. ``fields`` is canonical JSON (RFC 8785), as hashed."""

    seq: int
    prev_hash: bytes
    time_utc: str
    kind: str
    fields: str
    salt: bytes
    body_hash: bytes
    entry_hash: bytes


def canonical(fields: Mapping[str, Any]) -> str:
    """Return the canonical JSON of ``fields``: text, integers below 2^53 and lists of them.

    Raises :class:`DocumentError` for anything else.
    """
    return documents.canonical(dict(fields)).decode()


def body_hash(time_utc: str, kind: str, salt: bytes, fields: str) -> bytes:
    """Return the SHA-256 of an entry's body. Time, kind and salt cannot run into each other or the fields."""
    head = _BODY + time_utc.encode() + b"\0" + kind.encode() + b"\0"
    return hashlib.sha256(head + len(salt).to_bytes(4, "big") + salt + fields.encode()).digest()


def entry_hash(prev_hash: bytes, body: bytes) -> bytes:
    """Return the SHA-256 over the hash of the entry before and this entry's body hash."""
    return hashlib.sha256(_ENTRY + prev_hash + body).digest()


def extend(head: Head, bodies: Iterable[bytes]) -> Head:
    """Return the head of the chain that continues ``head`` with entries of these body hashes.

    A peer compares it with the head that it is told. Raises :class:`DocumentError` for a body hash that
    is not 32 bytes long.
    """
    seq, last = head
    for body in bodies:
        if len(body) != HASH_BYTES:
            raise DocumentError("a body hash of a ledger has 32 bytes")
        seq, last = seq + 1, entry_hash(last, body)
    return Head(seq, last)


def follow(head: Head, entry: Entry) -> Head:
    """Return the head after ``entry``; raises :class:`LedgerBrokenError` if it does not continue ``head``."""
    if entry.seq != head.seq + 1:
        raise LedgerBrokenError(f"entry {head.seq + 1} of the audit chain is missing")
    if entry.prev_hash != head.hash:
        raise LedgerBrokenError(f"entry {entry.seq} of the audit chain does not follow the one before it")
    body = body_hash(entry.time_utc, entry.kind, entry.salt, entry.fields)
    if body != entry.body_hash or entry_hash(entry.prev_hash, body) != entry.entry_hash:
        raise LedgerBrokenError(f"entry {entry.seq} of the audit chain was changed after it was written")
    return Head(entry.seq, entry.entry_hash)
