"""One party's ledger: its requests, sessions, budgets, messages and audit chain in one SQLite file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from mpc_engine.ledger import replay, schema
from mpc_engine.ledger.chain import EMPTY, Head
from mpc_engine.ledger.reading import Reading
from mpc_engine.ledger.store import Store
from mpc_engine.ledger.transaction import Transaction
from mpc_engine.ledger.writing import stamp

Clock = Callable[[], datetime]
Entropy = Callable[[int], bytes]


def utc_now() -> datetime:
    """Return the time of this machine's clock in UTC."""
    return datetime.now(UTC)


def salts(size: int) -> bytes:
    """Return random bytes of the operating system."""
    return os.urandom(size)


class Ledger(Reading):
    """An open ledger. It is used from one thread and holds its folder until it is closed.

    Every call may raise :class:`LedgerWriteError` (no space; try again later) and
    :class:`LedgerBrokenError`. If ``broken`` is set, the disk failed in the middle of a write: whether that
    is durable is open, so nothing may be sent any more and the process has to end; see :meth:`close`.
    """

    def __init__(self, store: Store, party: str, clock: Clock, entropy: Entropy) -> None:
        super().__init__(store)
        self.party = party
        self._clock = clock
        self._entropy = entropy

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        party: str,
        clock: Clock = utc_now,
        entropy: Entropy = salts,
        read_only: bool = False,
    ) -> Self:
        """Open the ledger in the folder ``path``, making it (0700) and its file (0600) if they are missing.

        The whole of it is verified. ``read_only`` looks at a ledger that another process may hold.
        ``entropy`` supplies the salts of the audit entries. Raises :class:`InUseError` if another process
        holds the folder, :class:`LedgerBrokenError` for a ledger that does not verify, is another party's
        or a newer engine's, and :class:`LedgerWriteError` if it cannot be made or written.
        """
        return cls._opened(Store.on_disk(path, read_only), party, clock, entropy)

    @classmethod
    def in_memory(cls, *, party: str, clock: Clock = utc_now, entropy: Entropy = salts) -> Self:
        """Return a new ledger in memory, for simulations and tests."""
        return cls._opened(Store.in_memory(), party, clock, entropy)

    @classmethod
    def from_image(
        cls, image: bytes, *, party: str, clock: Clock = utc_now, entropy: Entropy = salts
    ) -> Self:
        """Return a ledger in memory with the content of :meth:`image`, verified like any other."""
        return cls._opened(Store.in_memory(image), party, clock, entropy)

    @classmethod
    def _opened(cls, store: Store, party: str, clock: Clock, entropy: Entropy) -> Self:
        ledger = cls(store, party, clock, entropy)
        try:
            store.prepare(ledger._begin)
            store.check()
            ledger.verify()
        except BaseException:
            store.close()
            raise
        return ledger

    def _begin(self, found: int) -> None:
        """Write the first entry of a new ledger, or that an older one was brought to a newer format."""
        if found == 0:
            now = stamp(self._clock())
            self._store.write("INSERT INTO place VALUES (1, ?, ?, ?, ?)", (self.party, *EMPTY, now))
            self._transaction()._append("created", party=self.party, format=len(schema.MIGRATIONS))
        else:
            self._transaction()._append("migrated", found=found, format=len(schema.MIGRATIONS))

    @property
    def broken(self) -> bool:
        """Whether the disk has failed under this ledger, so that the process has to end."""
        return self._store.broken

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Change the ledger: all that happens inside becomes durable together at the end, or not at all.

        Nothing may be awaited inside. Whatever is raised inside takes everything back. Raises
        :class:`LedgerWriteError` if it cannot be written; see ``broken``.
        """
        with self._store.transaction():
            yield self._transaction()

    def _transaction(self) -> Transaction:
        last = str(self._one("SELECT time FROM place")[0])
        return Transaction(self._store, max(last, stamp(self._clock())), self._entropy)

    def verify(self) -> Head:
        """Verify the chain and the tables against it and return the head; else :class:`LedgerBrokenError`."""
        return replay.verify(self._store, self.party)

    def image(self) -> bytes:
        """Return the content of the file as of the last commit: what a crash at this moment would leave."""
        return self._store.image()

    def back_up(self, target: Path) -> Head:
        """Write a verified copy to the new file ``target`` and return its head.

        It is the state of one moment, whatever another process writes meanwhile; keys of sealed shares are
        not part of it. Raises :class:`LedgerBrokenError` if the ledger does not verify, and
        :class:`LedgerWriteError` if the copy cannot be written, which then leaves no file.
        """
        with self._store.view():
            head = self.verify()
            self._store.back_up(target)
        return head

    def close(self) -> None:
        """Carry the write-ahead log over into the file, close it and give the folder free.

        If the disk has failed the file stays open instead, and the process has to end by ``os._exit``:
        anything gentler would close it and so drop the log, perhaps the only good copy. Raises
        :class:`LedgerWriteError` if the disk fails only now.
        """
        self._store.close()
