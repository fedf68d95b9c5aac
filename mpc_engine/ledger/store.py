"""The file under a ledger: the one place that knows SQLite, its errors, locks and permissions."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from mpc_engine.errors import EngineError, InUseError, LedgerBrokenError, LedgerWriteError
from mpc_engine.ledger import schema

FILE = "ledger.sqlite"
LOCK = "lock"
BUSY_MS = 2_000
"""How long a backup program may keep the file locked before a write fails."""
CHECKPOINT_BYTES = 1 << 20
"""The write-ahead log is carried over into the file when it has grown to this."""

_TRANSIENT = frozenset({sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_NOMEM})
"""Failures of the I/O family that mean lack of space or memory, and leave the disk trusted."""
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Store:
    """One open database. Every statement runs through :meth:`run` or :meth:`write`, which know the errors.

    ``broken`` is set when the disk failed in a way that leaves it open what is durable; from then on
    every call raises :class:`LedgerWriteError`, and the process has to end.
    """

    def __init__(
        self, db: sqlite3.Connection, folder: Path | None, lock: int | None, read_only: bool
    ) -> None:
        self._db = db
        self._folder = folder
        self._lock = lock
        self._doomed = False
        self._closed = False
        self._disk_failed = False
        self.read_only = read_only
        self.broken = False

    # --- opening ---------------------------------------------------------------------------------

    @classmethod
    def on_disk(cls, folder: Path, read_only: bool) -> Store:
        """Open the file in ``folder``, making both (0700, 0600) unless ``read_only``, and lock the folder.

        A reader takes no lock and may look while the owner works. Raises :class:`InUseError`,
        :class:`LedgerWriteError` and :class:`LedgerBrokenError`.
        """
        file, lock = folder / FILE, None
        try:
            if read_only:
                if not file.is_file():
                    raise LedgerBrokenError(f"there is no ledger in {folder}")
            else:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
                lock = _locked(folder)
                os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
                file.chmod(0o600)
                _sync_folder(folder)
            db = sqlite3.connect(
                f"{file.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}",
                uri=True,
                isolation_level=None,
                timeout=BUSY_MS / 1000,
            )
        except (OSError, sqlite3.Error) as error:
            if lock is not None:
                os.close(lock)
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise LedgerWriteError(f"the ledger in {folder} cannot be opened: {why}") from error
        except EngineError:
            if lock is not None:
                os.close(lock)
            raise
        return cls(db, folder, lock, read_only)

    @classmethod
    def in_memory(cls, image: bytes | None = None) -> Store:
        """Open an empty database in memory, or one with the content of ``image``."""
        db = sqlite3.connect(":memory:", isolation_level=None)
        if image is not None:
            # Bytes 18 and 19 say that there is a write-ahead log, which memory cannot have.
            db.deserialize(image[:18] + b"\x01\x01" + image[20:])
        return cls(db, None, None, False)

    def prepare(self, migrated: Callable[[int], None]) -> None:
        """Set the connection up and bring the tables to the newest version, in one transaction.

        ``migrated`` is called in it with the version that was found (0: a new file), if that was an older
        one. Raises :class:`LedgerBrokenError` for a file of something else, of a newer engine, or damaged.
        """
        if self._folder is not None and not self.read_only:
            self.run("PRAGMA journal_mode = WAL")
            # A failed sync inside an automatic checkpoint would go unnoticed; see `checkpoint`.
            self.run("PRAGMA wal_autocheckpoint = 0")
            self.run("PRAGMA synchronous = FULL")
        for pragma in ("foreign_keys = ON", "secure_delete = ON", "trusted_schema = OFF"):
            self.run(f"PRAGMA {pragma}")
        if self.read_only:
            self.run("PRAGMA query_only = ON")
        newest = len(schema.MIGRATIONS)
        found = self._version()
        if found > newest:
            raise LedgerBrokenError(f"the ledger has format {found}; this engine knows up to {newest}")
        if found == newest:
            return
        if self.read_only:
            raise LedgerBrokenError(
                f"the ledger has format {found}; start the party once to bring it to {newest}"
            )
        with self.transaction():
            for step in schema.MIGRATIONS[found:]:
                for statement in step:
                    self.write(statement)
            self.write(f"PRAGMA application_id = {schema.APPLICATION}")
            self.write(f"PRAGMA user_version = {newest}")
            migrated(found)

    def _version(self) -> int:
        application = self.value("PRAGMA application_id")
        empty = self.value("SELECT count(*) FROM sqlite_schema") == 0
        if application != schema.APPLICATION and not (application == 0 and empty):
            raise LedgerBrokenError("the file is not a ledger of this engine")
        return int(self.value("PRAGMA user_version"))

    def check(self) -> None:
        """Have SQLite look at the file's pages; raises :class:`LedgerBrokenError` if they are damaged."""
        found = self.rows("PRAGMA quick_check(1)")
        if found != [("ok",)]:
            raise LedgerBrokenError("the file of the ledger is damaged")

    # --- statements ------------------------------------------------------------------------------

    def run(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement. Raises the engine's errors in place of SQLite's, except for constraints."""
        self._usable()
        try:
            return self._db.execute(sql, values)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            self._failed(error)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        cursor = self.run(sql, values)
        try:
            return cursor.fetchall()
        except sqlite3.Error as error:
            self._failed(error)

    def row(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """Return the first row of a query, or ``None``."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def value(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """Return the first column of the first row, or ``None``."""
        found = self.row(sql, values)
        return None if found is None else found[0]

    def write(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run a statement of the current transaction and return the number of rows that it changed.

        Without a transaction, or in one that a failure has already rolled back, nothing may be written:
        it would be committed on its own. Raises ``sqlite3.IntegrityError`` where a constraint forbids it.
        """
        if self._doomed:
            raise LedgerWriteError("the transaction has failed and was taken back")
        if not self._db.in_transaction:
            raise EngineError("the ledger is written in transactions only")
        return self.run(sql, values).rowcount

    # --- transactions ----------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, for writing or for reading."""
        return self._db.in_transaction

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """BEGIN IMMEDIATE … COMMIT; rolled back, and nothing of it kept, if anything raises."""
        if self.read_only:
            raise EngineError("this ledger was opened for reading")
        if self._db.in_transaction:
            raise EngineError("a transaction of the ledger is open already")
        self._doomed = False
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            if self._doomed:
                raise LedgerWriteError("the transaction has failed and was taken back")
            self.run("COMMIT")
        except sqlite3.IntegrityError as error:
            self._roll_back()
            raise EngineError(f"the ledger's rules forbid a row ({error.sqlite_errorname})") from error
        except LedgerWriteError:
            self._roll_back()
            if not self.broken:
                # On a full disk the log is what can be made smaller.
                self.checkpoint("TRUNCATE")
            raise
        except BaseException:
            self._roll_back()
            raise
        self._checkpoint_if_due()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Part of a transaction that happens whole or not at all, even if the caller goes on after it."""
        self.write("SAVEPOINT step")
        try:
            yield
        except BaseException:
            if self._db.in_transaction and not self.broken:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK TO step")
                    self._db.execute("RELEASE step")
            raise
        self.write("RELEASE step")

    @contextmanager
    def view(self) -> Iterator[None]:
        """All queries inside see the same state, whatever another process writes meanwhile."""
        if self._db.in_transaction:
            yield
            return
        self.run("BEGIN")
        try:
            yield
        finally:
            self._roll_back()

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
        self._doomed = False

    # --- upkeep ----------------------------------------------------------------------------------

    def _checkpoint_if_due(self) -> None:
        if self._folder is None:
            return
        with suppress(FileNotFoundError):
            if (self._folder / f"{FILE}-wal").stat().st_size >= CHECKPOINT_BYTES:
                self.checkpoint("PASSIVE")

    def checkpoint(self, mode: str) -> None:
        """Carry the write-ahead log over into the file. What is committed is durable before and after.

        Lack of space only puts it off. A failed sync is fatal: a second one would succeed although the
        pages are lost, and the log would then be overwritten.
        """
        if self._folder is None or self.read_only:
            return
        try:
            self.run(f"PRAGMA wal_checkpoint({mode})")
        except LedgerWriteError:
            if self.broken:
                raise

    def image(self) -> bytes:
        """Return the content of the database file as of the last commit."""
        self._usable()
        if self._db.in_transaction:
            raise EngineError("a transaction of the ledger is open")
        return self._db.serialize()

    def back_up(self, target: Path) -> None:
        """Write a copy of the database to the new file ``target`` (0600), synced; whole or not at all."""
        self._usable()
        made = False
        try:
            os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            made = True
            copy = sqlite3.connect(target, isolation_level=None)
            try:
                copy.execute("PRAGMA synchronous = FULL")
                self._db.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
            finally:
                copy.close()
            _sync_folder(target.parent)
        except (OSError, sqlite3.Error) as error:
            if made:
                with suppress(OSError):
                    target.unlink()
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise LedgerWriteError(f"the copy {target} cannot be written: {why}") from error

    def close(self) -> None:
        """Close the file and give the folder free. May be called again.

        Closing carries the write-ahead log over and removes it, which must not happen on a disk that has
        failed. The file then stays open, and the folder locked, until the process ends; if that turns out
        only now, :class:`LedgerWriteError` is raised.
        """
        if self._disk_failed or self._closed:
            return
        self._roll_back()
        if not self.broken:
            self.checkpoint("TRUNCATE")
        self._closed = True
        self._db.close()
        if self._lock is not None:
            os.close(self._lock)

    # --- failures --------------------------------------------------------------------------------

    def _usable(self) -> None:
        if self.broken:
            raise LedgerWriteError(
                "the disk failed under the ledger; this process has to end and start again"
            )

    def _failed(self, error: sqlite3.Error) -> NoReturn:
        if isinstance(error, sqlite3.ProgrammingError):
            raise EngineError("the ledger is closed or was called wrongly") from error
        code = getattr(error, "sqlite_errorcode", 0)
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        self._doomed = True
        if code & 0xFF in _DAMAGED:
            self.broken = True
            raise LedgerBrokenError(f"the file of the ledger is damaged ({name})") from error
        if code & 0xFF == sqlite3.SQLITE_IOERR and code not in _TRANSIENT:
            self.broken = self._disk_failed = True
            raise LedgerWriteError(
                f"the disk failed under the ledger ({name}); this process has to end and start again"
            ) from error
        raise LedgerWriteError(f"the ledger cannot be written ({name})") from error


def _locked(folder: Path) -> int:
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise InUseError(f"another process holds {folder}") from None
    return lock


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
