"""Ledgers on disk: permissions, locks, formats, and whatever else may be found in the folder."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mpc_engine.errors import EngineError, InUseError, LedgerBrokenError, LedgerWriteError
from mpc_engine.ledger import schema, store
from mpc_engine.ledger.chain import EMPTY, extend
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.store import FILE
from tests.ledger.books import DATASET, ONE, REQUEST, TICKET, Clock, brought_to, counted, reserve, submit


def opened(folder: Path, party: str = "se", read_only: bool = False) -> Ledger:
    return Ledger.open(folder, party=party, clock=Clock(), entropy=counted, read_only=read_only)


def edited(folder: Path, *statements: str) -> None:
    """Change the closed file behind the ledger's back, triggers or not."""
    db = sqlite3.connect(folder / FILE)
    for trigger in ("audit_is_not_changed", "audit_is_not_deleted", "spent_stays_spent", "charges_stay"):
        db.execute(f"DROP TRIGGER {trigger}")
    for statement in statements:
        db.executescript(statement)
    db.commit()
    db.close()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a closed ledger with two sessions, one published and one running."""
    folder = tmp_path_factory.mktemp("prepared") / "ledger"
    ledger = brought_to("SIGNED", opened(folder))
    with ledger.transaction() as tx:
        tx.decide(REQUEST, "se", "approved", by="Ingrid")
        tx.stored(TICKET, "no")
        tx.released(TICKET)
        reserve(tx, "t2", question="q2")
        tx.post("no", "kind", b"body")
    ledger.close()
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(prepared, tmp_path / "ledger"))


# --- permissions and locks ------------------------------------------------------------------------


def test_nobody_else_may_look(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "ledger"
    ledger = brought_to("COMMITTED", opened(folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [FILE, f"{FILE}-shm", f"{FILE}-wal", "lock"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    ledger.close()
    folder.chmod(0o755)
    (folder / FILE).chmod(0o644)
    opened(folder).close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600


def test_a_closed_ledger_is_one_file(folder: Path) -> None:
    assert sorted(file.name for file in folder.iterdir()) == [FILE, "lock"]
    ledger = opened(folder)
    ledger.close()
    ledger.close()
    with pytest.raises(EngineError, match="closed"):
        ledger.head()


def test_a_second_opener_is_told_who_is_there(folder: Path) -> None:
    ledger = opened(folder)
    with pytest.raises(InUseError, match="another process"):
        opened(folder)
    code = (
        "import sys, pathlib\n"
        "from mpc_engine.errors import InUseError\n"
        "from mpc_engine.ledger.ledger import Ledger\n"
        "try: Ledger.open(pathlib.Path(sys.argv[1]), party='se')\n"
        "except InUseError as error: sys.exit(error.exit_status)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, folder], check=False).returncode == 12
    ledger.close()
    assert subprocess.run([sys.executable, "-c", code, folder], check=False).returncode == 0


def test_a_killed_process_leaves_no_lock_and_all_that_it_committed(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, signal\n"
        "from mpc_engine.ledger.ledger import Ledger\n"
        "from tests.ledger.books import brought_to\n"
        "brought_to('COMMITTED', Ledger.open(pathlib.Path(sys.argv[1]), party='se'))\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "l"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    ledger = opened(tmp_path / "l")
    assert ledger.spent(DATASET) == ONE
    assert ledger.sealed(TICKET) == b"cipher text"
    ledger.close()


def test_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerWriteError, match="cannot be opened"):
        opened(tmp_path / "file" / "ledger")


# --- readers, copies, crashes ---------------------------------------------------------------------


def test_a_reader_looks_on_while_the_owner_writes(folder: Path) -> None:
    owner = opened(folder)
    reader = opened(folder, read_only=True)
    with owner.transaction() as tx:
        submit(tx, "new", key="new")
        assert reader.request("new") is None
    assert reader.request("new") is not None
    assert reader.verify() == owner.head()
    with pytest.raises(EngineError, match="opened for reading"), reader.transaction():
        pass
    reader.close()
    with owner.transaction() as tx:
        tx.settle("new", "APPROVED")
    owner.close()
    again = opened(folder, read_only=True)
    assert [row.id for row in again.requests(states=["APPROVED"])] == ["new"]
    again.close()
    with pytest.raises(LedgerBrokenError, match="no ledger"):
        opened(folder / "elsewhere", read_only=True)


def test_what_a_crash_leaves_on_the_disk_after_every_transaction(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "l")
    with ledger.transaction() as tx:
        submit(tx)
    for number in range(12):
        with ledger.transaction() as tx:
            if number % 3 == 0:
                reserve(tx, f"t{number}", question=f"q{number}")
            elif number % 3 == 1:
                tx.computing(f"t{number - 1}", f"s{number}")
            else:
                tx.commit(f"t{number - 2}", b"facts", b"x" * 5000)
        copy = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "l", copy)
        after = opened(copy)
        assert after.head() == ledger.head()
        assert after.sessions() == ledger.sessions()
        after.close()
    ledger.close()


def test_a_copy_for_safekeeping_opens_as_a_ledger(folder: Path, tmp_path: Path) -> None:
    ledger, target = opened(folder), tmp_path / "copy.sqlite"
    ledger.back_up(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pytest.raises(LedgerWriteError, match="cannot be written"):
        ledger.back_up(target)
    (tmp_path / "restored").mkdir()
    shutil.move(target, tmp_path / "restored" / FILE)
    restored = opened(tmp_path / "restored")
    assert restored.head() == ledger.head()
    assert restored.outgoing("no") == ledger.outgoing("no")
    restored.close()
    ledger.close()


def test_an_old_copy_verifies_and_only_who_has_seen_later_heads_can_tell(
    folder: Path, tmp_path: Path
) -> None:
    ledger = opened(folder)
    ledger.back_up(tmp_path / "old.sqlite")
    old = ledger.head()
    with ledger.transaction() as tx:
        tx.computing("t2", "s2")
        witnessed = tx.commit("t2", b"", None)
    ledger.close()
    shutil.move(tmp_path / "old.sqlite", folder / FILE)
    ledger = opened(folder)
    assert ledger.head() == old
    assert ledger.bodies(old.seq, witnessed.seq) == []
    # Going on from the old copy, the chain becomes as long as the witnessed one but another.
    with ledger.transaction() as tx:
        tx.abort("t2", "INTERRUPTED")
        tx.note("more", {})
    assert ledger.head().seq == witnessed.seq
    assert extend(EMPTY, ledger.bodies(0, witnessed.seq)) != witnessed
    ledger.close()


def test_an_image_of_a_file_opens_in_memory(folder: Path) -> None:
    ledger = opened(folder)
    with ledger.transaction() as tx:
        tx.abort("t2", "INTERRUPTED")
        with pytest.raises(EngineError):
            ledger.image()
    twin = Ledger.from_image(ledger.image(), party="se", clock=Clock(), entropy=counted)
    assert twin.head() == ledger.head()
    assert twin.sessions() == ledger.sessions()
    ledger.close()


def test_the_write_ahead_log_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHECKPOINT_BYTES", 1 << 16)
    ledger = opened(tmp_path / "l")
    for number in range(40):
        with ledger.transaction() as tx:
            tx.keep(str(number), bytes(10_000))
    # SQLite's own carrying over would hide a failing disk.
    assert ledger._store.value("PRAGMA wal_autocheckpoint") == 0
    assert (tmp_path / "l" / f"{FILE}-wal").stat().st_size < 1 << 18
    assert (tmp_path / "l" / FILE).stat().st_size > 300_000
    ledger.close()


# --- what does not verify -------------------------------------------------------------------------

ANOTHER_REQUEST = """CREATE TEMP TABLE one AS SELECT * FROM request;
    UPDATE one SET id = 'x', key = 'x'; INSERT INTO request SELECT * FROM one"""
EDITS = {
    "an entry's fields": ("UPDATE audit SET fields = replace(fields, 'q1', 'q3')", "was changed"),
    "an entry's time": ("UPDATE audit SET time_utc = '2025-03-01T12:00:00Z' WHERE seq = 3", "was changed"),
    "an entry's kind": ("UPDATE audit SET kind = 'note' WHERE seq = 4", "was changed"),
    "an entry's salt": ("UPDATE audit SET salt = x'00' WHERE seq = 4", "was changed"),
    "an entry's link": ("UPDATE audit SET prev_hash = randomblob(32) WHERE seq = 4", "does not follow"),
    "the end cut off": ("DELETE FROM audit WHERE seq > 5", "was truncated"),
    "the beginning cut off": ("DELETE FROM audit WHERE seq = 1", "entry 1 .* missing"),
    "an entry cut out": ("DELETE FROM audit WHERE seq = 4", "entry 4 .* missing"),
    "all entries": ("DELETE FROM audit", "was truncated"),
    "no place": ("DELETE FROM place", "its beginning is missing|was truncated"),
    "a spent charge": ("UPDATE charge SET micro_epsilon = 1 WHERE ticket LIKE '0%'", "session 0+1 is not as"),
    "a charge given back": ("UPDATE charge SET state = 'released'", "is not as the audit chain says"),
    "delta": ("UPDATE charge SET delta = '0' WHERE kind = 'project'", "is not as"),
    "a charge dropped": ("DELETE FROM charge WHERE kind = 'dataset'", "is not as"),
    "a state": ("UPDATE session SET state = 'ABORTED' WHERE ticket = 't2'", "session t2 is not as"),
    "a state, to run again": ("UPDATE session SET state = 'RESERVED' WHERE ticket <> 't2'", "is not as"),
    "a cost": ("UPDATE session SET micro_epsilon = 1", "is not as"),
    "the facts": ("UPDATE session SET facts = x'00' WHERE facts NOT NULL", "is not as"),
    "the release": ("UPDATE session SET release = x'00' WHERE release NOT NULL", "is not as"),
    "its digest": ("UPDATE session SET release_digest = 'x' WHERE release NOT NULL", "is not as"),
    "the receipt": ("UPDATE session SET receipt = x'00' WHERE receipt NOT NULL", "is not as"),
    "the pattern": ("UPDATE session SET pattern_hash = x'00' WHERE pattern_hash NOT NULL", "is not as"),
    "shares put back": ("UPDATE session SET sealed = x'00' WHERE state = 'RELEASED'", "has sealed shares"),
    "a head": ("UPDATE session SET hash_after = zeroblob(32) WHERE state = 'RELEASED'", "is not as"),
    "who stored": ("UPDATE stored SET peer = 'dk'", "is not as"),
    "who did not": ("DELETE FROM stored", "is not as"),
    "a session dropped": ("DELETE FROM session WHERE ticket = 't2'", "session t2"),
    "a request": ("UPDATE request SET state = 'WITHDRAWN'", "request r+ is not as"),
    "a request's body": ("UPDATE request SET body = x'00'", "request r+ is not as"),
    "a request dropped": ("DELETE FROM request", "which is not there|not in its table"),
    "a request put in": (ANOTHER_REQUEST, "request x is not in the audit chain"),
    "a decision": ("UPDATE decision SET verdict = 'rejected'", "is not as"),
    "whose it is": ("UPDATE place SET party = 'no'", 'ledger of "se", not of "se"|ledger of'),
    "the time": ("UPDATE place SET time = '2020-01-01T00:00:00Z'", "was truncated"),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_ledger_does_not_open(folder: Path, edit: str) -> None:
    statement, says = EDITS[edit]
    edited(folder, statement)
    with pytest.raises(LedgerBrokenError, match=says):
        opened(folder)
    # The folder is free again, for whoever puts a backup there.
    (folder / FILE).unlink()
    opened(folder).close()


def test_the_chain_and_what_is_spent_cannot_be_changed_by_accident(folder: Path) -> None:
    ledger = opened(folder)
    for statement in (
        "UPDATE audit SET kind = 'x'",
        "DELETE FROM audit",
        "DELETE FROM charge",
        "UPDATE charge SET state = 'released'",
        "INSERT INTO audit SELECT 99, prev_hash, '', '', '', salt, body_hash, zeroblob(32) FROM audit",
    ):
        with pytest.raises(EngineError, match="rules forbid"), ledger.transaction() as tx:
            tx._store.write(statement)
    assert ledger.verify() == ledger.head()
    ledger.close()


def test_another_partys_ledger(folder: Path) -> None:
    with pytest.raises(LedgerBrokenError, match='the ledger of "se", not of "no"'):
        opened(folder, party="no")
    opened(folder).close()
    edited(folder, "UPDATE place SET party = 'no'")
    with pytest.raises(LedgerBrokenError, match='the ledger of "se", not of "no"'):
        opened(folder, party="no")


def test_a_chain_whose_time_goes_back(folder: Path) -> None:
    ledger = opened(folder)
    with ledger.transaction() as tx:
        tx._time = "2026-02-28T00:00:00Z"
        tx.note("early", {})
    with pytest.raises(LedgerBrokenError, match="goes back"):
        ledger.verify()
    ledger.close()


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be one" * 20, b"short"])
def test_a_file_of_something_else(folder: Path, content: bytes) -> None:
    (folder / FILE).write_bytes(content)
    with pytest.raises(LedgerBrokenError):
        opened(folder)


def test_a_database_of_something_else(folder: Path) -> None:
    (folder / FILE).unlink()
    db = sqlite3.connect(folder / FILE)
    db.execute("CREATE TABLE album (title TEXT)")
    db.close()
    with pytest.raises(LedgerBrokenError, match="not a ledger"):
        opened(folder)


def test_a_damaged_file(folder: Path) -> None:
    content = bytearray((folder / FILE).read_bytes())
    content[4096 * 3 : 4096 * 5] = b"\xff" * 8192
    (folder / FILE).write_bytes(content)
    with pytest.raises(LedgerBrokenError):
        opened(folder)


def test_half_a_file(folder: Path) -> None:
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(LedgerBrokenError):
        opened(folder)


# --- formats --------------------------------------------------------------------------------------


def test_a_ledger_of_a_newer_engine(folder: Path) -> None:
    edited(folder, "PRAGMA user_version = 2")
    with pytest.raises(LedgerBrokenError, match="has format 2; this engine knows up to 1"):
        opened(folder)


def newer(monkeypatch: pytest.MonkeyPatch, *statements: str) -> Callable[[], None]:
    def undo() -> None:
        monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])

    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, statements))
    return undo


def test_a_ledger_of_an_older_engine_is_brought_forward(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = newer(monkeypatch, "CREATE TABLE colour (name TEXT) STRICT", "INSERT INTO colour VALUES ('green')")
    with pytest.raises(LedgerBrokenError, match="start the party once"):
        opened(folder, read_only=True)
    ledger = opened(folder)
    last = list(ledger.entries())[-1]
    assert (last.kind, last.fields) == ("migrated", '{"format":2,"found":1}')
    assert ledger._store.value("SELECT name FROM colour") == "green"
    head = ledger.head()
    ledger.close()
    ledger = opened(folder)
    assert ledger.head() == head
    ledger.close()
    undo()
    with pytest.raises(LedgerBrokenError, match="has format 2"):
        opened(folder)


def test_a_migration_that_fails_leaves_the_older_ledger(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = newer(monkeypatch, "CREATE TABLE colour (name TEXT) STRICT", "INSERT INTO nowhere VALUES (1)")
    with pytest.raises(EngineError):
        opened(folder)
    undo()
    opened(folder).close()
