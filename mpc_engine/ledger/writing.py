"""What all changes of a ledger have in common: whole steps, and an audit entry for each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from mpc_engine.ledger.chain import SALT_BYTES, Head, body_hash, canonical, entry_hash
from mpc_engine.ledger.reading import Reading
from mpc_engine.ledger.store import Store


class Writing:
    """An open transaction; it lives as long as the ``with`` block that made it."""

    def __init__(self, store: Store, time: str, entropy: Callable[[int], bytes]) -> None:
        self._store = store
        self._read = Reading(store)
        self._entropy = entropy
        self._time = time

    @contextmanager
    def _step(self) -> Iterator[None]:
        with self._store.step():
            yield

    def _append(self, kind: str, /, **fields: str | int | list[str]) -> Head:
        """Append an entry and return the new head."""
        seq, last = self._read.head()
        text = canonical(fields)
        salt = self._entropy(SALT_BYTES)
        body = body_hash(self._time, kind, salt, text)
        entry = entry_hash(last, body)
        sql = "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        self._store.write(sql, (seq + 1, last, self._time, kind, text, salt, body, entry))
        self._store.write("UPDATE place SET seq = ?, hash = ?, time = ?", (seq + 1, entry, self._time))
        return Head(seq + 1, entry)


def stamp(moment: datetime) -> str:
    """Return a time as ``YYYY-MM-DDThh:mm:ssZ``; one without a zone is taken to be UTC."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def sha256(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
