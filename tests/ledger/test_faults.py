"""Full and failing disks."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mpc_engine.errors import LedgerBrokenError, LedgerWriteError
from mpc_engine.ledger.charge import NOTHING
from mpc_engine.ledger.ledger import Ledger
from tests.ledger.books import (
    DATASET,
    ONE,
    REQUEST,
    STEPS,
    TICKET,
    Clock,
    brought_to,
    counted,
    reserve,
    submit,
)


def opened(folder: Path) -> Ledger:
    return Ledger.open(folder, party="se", clock=Clock(), entropy=counted)


def full(ledger: Ledger) -> int:
    """Let the file grow no further, and fill the pages it has; return the largest size."""
    pages = int(ledger._store.value("PRAGMA page_count"))
    ledger._store.run(f"PRAGMA max_page_count = {pages}")
    return pages


BIG = b"x" * 100_000
WRITES = {
    "COMMITTED": lambda tx: tx.commit(TICKET, BIG, BIG),
    "OPENED": lambda tx: tx.opened(TICKET, BIG, "digest"),
    "SIGNED": lambda tx: tx.signed(TICKET, BIG),
}


@pytest.mark.parametrize(
    ("state", "then"), [("COMPUTING", "COMMITTED"), ("PATTERN", "OPENED"), ("OPENED", "SIGNED")]
)
def test_no_space_for_what_a_session_stores(tmp_path: Path, state: str, then: str) -> None:
    ledger = brought_to(state, opened(tmp_path / "l"))
    before = ledger.session(TICKET), ledger.head(), ledger.spent(DATASET), ledger.held(DATASET)
    full(ledger)
    for _ in range(2):
        with pytest.raises(LedgerWriteError, match="SQLITE_FULL"), ledger.transaction() as tx:
            WRITES[then](tx)
    assert (ledger.session(TICKET), ledger.head(), ledger.spent(DATASET), ledger.held(DATASET)) == before
    assert not ledger.broken
    ledger._store.run("PRAGMA max_page_count = 100000")
    with ledger.transaction() as tx:
        WRITES[then](tx)
    row = ledger.session(TICKET)
    assert row is not None and row.state == then
    ledger.close()
    opened(tmp_path / "l").close()


def test_no_space_for_reservations(tmp_path: Path) -> None:
    ledger = brought_to("NONE", opened(tmp_path / "l"))
    full(ledger)
    number = 0
    with pytest.raises(LedgerWriteError, match="SQLITE_FULL"):
        while number < 1000:
            with ledger.transaction() as tx:
                reserve(tx, f"t{number}", question=f"q{number}")
            number += 1
    assert 0 < number < 1000
    assert len(ledger.sessions()) == number
    assert ledger.held(DATASET).micro_epsilon == number * 1_000_000
    assert ledger.verify() == ledger.head()
    ledger.close()


def test_a_failure_that_is_swallowed_inside_still_takes_all_of_it_back(tmp_path: Path) -> None:
    ledger = brought_to("COMPUTING", opened(tmp_path / "l"))
    head = ledger.head()
    full(ledger)
    with pytest.raises(LedgerWriteError), ledger.transaction() as tx:
        tx.settle(REQUEST, "APPROVED")
        for change in (
            lambda tx: tx.keep("d", BIG),
            lambda tx: tx.post("no", "kind", b"spent!"),
            STEPS["COMMITTED"],
        ):
            with pytest.raises(LedgerWriteError):
                change(tx)
    assert ledger.head() == head
    assert ledger.outgoing("no") == []
    assert ledger.spent(DATASET) == NOTHING
    request = ledger.request(REQUEST)
    assert request is not None and request.state == "SUBMITTED"
    ledger.close()


def test_a_statement_that_fails_alone_takes_all_of_it_back_too(tmp_path: Path) -> None:
    ledger = brought_to("COMPUTING", opened(tmp_path / "l"))
    real, head = ledger._store._db, ledger.head()
    with pytest.raises(LedgerWriteError, match="was taken back"), ledger.transaction() as tx:
        tx.note("before", {})
        ledger._store._db = Failing(real, "UPDATE charge", "SQLITE_NOMEM")  # type: ignore[assignment]
        with pytest.raises(LedgerWriteError):
            STEPS["COMMITTED"](tx)
        ledger._store._db = real
    assert ledger.head() == head
    with ledger.transaction() as tx:
        STEPS["COMMITTED"](tx)
    ledger.close()


class Failing:
    """A connection of which one kind of statement fails as if SQLite had said so."""

    def __init__(self, db: sqlite3.Connection, statement: str, name: str) -> None:
        self._db, self._statement = db, statement
        self._error = sqlite3.OperationalError("disk I/O error")
        self._error.sqlite_errorname, self._error.sqlite_errorcode = name, getattr(sqlite3, name)

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        if sql.startswith(self._statement):
            raise self._error
        return self._db.execute(sql, values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@pytest.mark.parametrize(
    "name", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_WRITE", "SQLITE_IOERR", "SQLITE_IOERR_DIR_FSYNC"]
)
@pytest.mark.parametrize("statement", ["COMMIT", "UPDATE charge", "PRAGMA wal_checkpoint"])
def test_a_failing_disk_ends_all_use_of_the_ledger(
    tmp_path: Path, name: str, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpc_engine.ledger.store.CHECKPOINT_BYTES", 1)
    ledger = brought_to("COMPUTING", opened(tmp_path / "l"))
    real = ledger._store._db
    ledger._store._db = Failing(real, statement, name)  # type: ignore[assignment]
    with pytest.raises(LedgerWriteError, match=f"{name}.*has to end"), ledger.transaction() as tx:
        STEPS["COMMITTED"](tx)
    assert ledger.broken
    for call in (ledger.head, lambda: ledger.session(TICKET), ledger.image, ledger.verify):
        with pytest.raises(LedgerWriteError, match="has to end"):
            call()
    with pytest.raises(LedgerWriteError, match="has to end"), ledger.transaction():
        pass
    # Closing would carry over a log whose pages may be lost; the folder stays locked until the end.
    ledger.close()
    assert (tmp_path / "l" / "ledger.sqlite-wal").stat().st_size > 0
    shutil.copytree(tmp_path / "l", tmp_path / "after")
    after = opened(tmp_path / "after")
    row = after.session(TICKET)
    assert row is not None and (row.state, after.spent(DATASET)) in (
        ("COMPUTING", NOTHING),
        ("COMMITTED", ONE),
    )
    after.close()
    ledger._store._disk_failed, ledger._store._db = False, real
    ledger.close()


@pytest.mark.parametrize("name", ["SQLITE_IOERR_SHMSIZE", "SQLITE_BUSY", "SQLITE_NOMEM", "SQLITE_FULL"])
def test_what_passes_lets_the_ledger_go_on(tmp_path: Path, name: str) -> None:
    ledger = brought_to("COMPUTING", opened(tmp_path / "l"))
    real = ledger._store._db
    for statement in ("BEGIN", "COMMIT", "SAVEPOINT"):
        ledger._store._db = Failing(real, statement, name)  # type: ignore[assignment]
        with pytest.raises(LedgerWriteError, match=name), ledger.transaction() as tx:
            STEPS["COMMITTED"](tx)
    ledger._store._db = real
    assert not ledger.broken and ledger.spent(DATASET) == NOTHING
    with ledger.transaction() as tx:
        STEPS["COMMITTED"](tx)
    ledger.close()


def test_a_checkpoint_without_space_is_put_off(tmp_path: Path) -> None:
    ledger = brought_to("COMPUTING", opened(tmp_path / "l"))
    real = ledger._store._db
    ledger._store._db = Failing(real, "PRAGMA wal_checkpoint", "SQLITE_FULL")  # type: ignore[assignment]
    ledger._store.checkpoint("PASSIVE")
    with ledger.transaction() as tx:
        STEPS["COMMITTED"](tx)
    ledger._store._db = real
    ledger.close()


def test_damage_found_while_running_ends_all_use_of_the_ledger(tmp_path: Path) -> None:
    ledger = brought_to("COMPUTING", opened(tmp_path / "l"))
    real = ledger._store._db
    ledger._store._db = Failing(real, "UPDATE", "SQLITE_CORRUPT")  # type: ignore[assignment]
    with pytest.raises(LedgerBrokenError, match="SQLITE_CORRUPT"), ledger.transaction() as tx:
        STEPS["COMMITTED"](tx)
    assert ledger.broken
    ledger._store._disk_failed, ledger._store._db = False, real
    ledger.close()


def test_a_file_that_another_program_has_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpc_engine.ledger.store.BUSY_MS", 10)
    ledger = brought_to("NONE", opened(tmp_path / "l"))
    other = sqlite3.connect(tmp_path / "l" / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerWriteError, match="SQLITE_BUSY"), ledger.transaction() as tx:
        reserve(tx)
    assert ledger.sessions() == []
    other.execute("ROLLBACK")
    other.close()
    with ledger.transaction() as tx:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            sqlite3.connect(tmp_path / "l" / "ledger.sqlite", timeout=0).execute("BEGIN IMMEDIATE")
        reserve(tx)
    ledger.close()


# --- real ones ------------------------------------------------------------------------------------

FILLING = """
import os, pathlib, sys
from mpc_engine.errors import LedgerWriteError
from mpc_engine.ledger.ledger import Ledger
from tests.ledger.books import DATASET, reserve, submit
disk = pathlib.Path(sys.argv[1])
ballast = disk / "ballast"
ballast.write_bytes(bytes(128 << 10))
ledger = Ledger.open(disk / "l", party="se")
with ledger.transaction() as tx:
    submit(tx)
done, failed = 0, 0
while failed < 3 and done < 2000:
    try:
        with ledger.transaction() as tx:
            reserve(tx, f"t{done}", question=f"q{done}")
        done += 1
    except LedgerWriteError:
        failed += 1
assert failed == 3 and done > 0, (failed, done)
assert len(ledger.sessions()) == done and not ledger.broken
ledger.verify()
ballast.unlink()
for number in range(3):
    with ledger.transaction() as tx:
        reserve(tx, f"u{number}", question=f"u{number}")
ledger.close()
ledger = Ledger.open(disk / "l", party="se")
assert len(ledger.sessions()) == done + 3
print("done", done)
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=1m none {disk}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a file system")
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" "$@"', sys.executable, "-c", FILLING, disk],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.startswith("done"), run.stderr


WORKING = """
import os, pathlib, sys
from mpc_engine.errors import LedgerWriteError
from mpc_engine.ledger.ledger import Ledger
from tests.ledger.books import reserve, submit
ledger = Ledger.open(pathlib.Path(sys.argv[1]), party="se")
with ledger.transaction() as tx:
    submit(tx)
print("open", flush=True)
try:
    for number in range(2):
        with ledger.transaction() as tx:
            reserve(tx, f"t{number}", question=f"q{number}")
            tx.computing(f"t{number}", f"s{number}")
        with ledger.transaction() as tx:
            tx.commit(f"t{number}", b"facts", b"cipher text")
        print(f"t{number}", flush=True)
    ledger.close()
except LedgerWriteError:
    print("broken" if ledger.broken else "not broken", flush=True)
    os._exit(10)
"""


def traced(folder: Path, inject: str) -> list[str]:
    """Run WORKING with one sync call going wrong; return what it printed. Skips without ptrace."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if (
        subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode
        != 0
    ):
        pytest.skip("no right to trace a process")
    run = subprocess.run(
        [
            *("strace", "-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"),
            *("-e", f"inject=fsync,fdatasync:{inject}", sys.executable, "-c", WORKING, folder),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.split("\n")[:-1]


@pytest.mark.parametrize("number", range(1, 15))
def test_a_kill_at_a_sync_call_loses_nothing_that_was_told(tmp_path: Path, number: int) -> None:
    told = traced(tmp_path / "l", f"signal=KILL:when={number}")
    ledger = opened(tmp_path / "l")
    committed = [row.ticket for row in ledger.sessions("COMMITTED")]
    assert {line for line in told if line.startswith("t")} <= set(committed)
    assert len(committed) <= len(told) + 1
    ledger.close()


@pytest.mark.parametrize("number", [9, 12, 13, 14])
def test_a_sync_call_that_fails_ends_the_process_and_loses_nothing_that_was_told(
    tmp_path: Path, number: int
) -> None:
    told = traced(tmp_path / "l", f"error=EIO:when={number}")
    assert told[0] == "open"
    assert told[-1] == "broken"
    ledger = opened(tmp_path / "l")
    committed = {row.ticket for row in ledger.sessions("COMMITTED")}
    assert {line for line in told if line.startswith("t")} <= committed
    with ledger.transaction() as tx:
        submit(tx, "another", key="another")
    ledger.close()
