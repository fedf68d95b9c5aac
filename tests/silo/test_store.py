"""The folder of a registration: private at every moment, one writer at a time, nothing left behind."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import studies

from mpc_engine.errors import DataError
from mpc_engine.silo import register as registering
from mpc_engine.silo import source
from mpc_engine.silo.register import load_registration, register
from mpc_engine.silo.store import draft

GOOD = "id,sex,stage,age\np1,F,1,4\np2,M,2,70\np3,M,,\n"


@pytest.fixture
def lax_umask() -> Iterator[None]:
    before = os.umask(0o000)
    yield
    os.umask(before)


@pytest.mark.usefixtures("lax_umask")
def test_nobody_else_can_reach_the_snapshot_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o777)
    chmod, seen = Path.chmod, []

    def watch(path: Path, mode: int) -> None:
        if path.suffix == ".parquet":  # written, and not yet made private
            seen.extend(stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, state))
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", watch)
    register(studies.write(tmp_path, GOOD), state)
    assert seen == [0o700, 0o700]
    assert {stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()} == {0o600}


def test_what_a_killed_registration_left_goes_at_the_next(tmp_path: Path) -> None:
    path, state = studies.write(tmp_path, GOOD), tmp_path / "state"
    first = register(path, state)
    (state / ".draft-killed").mkdir()
    (state / ".draft-killed" / "tmp_snapshot.parquet").write_bytes(b"half")
    (state / ".lock").write_bytes(b"")
    (state / "snapshot-orphan.parquet").write_bytes(b"old")
    assert load_registration(state) == first
    again = register(path, state)
    names = {found.name for found in state.iterdir()}
    assert names == {"registration.json", f"snapshot-{again.snapshot_id}.parquet"}


@pytest.mark.parametrize("moment", ["file_path", "store", "parse"])
def test_two_registrations_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    path, state = studies.write(tmp_path, GOOD), tmp_path / "state"
    refused = []
    was = getattr(registering, moment)

    def interrupted(*arguments: object) -> object:
        monkeypatch.setattr(registering, moment, was)
        with pytest.raises(DataError, match="another registration is under way") as error:
            register(path, state)
        refused.append(error)
        return was(*arguments)

    monkeypatch.setattr(registering, moment, interrupted)
    registration = register(path, state)
    assert len(refused) == 1
    assert load_registration(state) == registration
    assert register(path, state) != registration  # the lock is free again


def test_a_full_disk_is_not_a_malformed_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path, state = studies.write(tmp_path, GOOD), tmp_path / "state"
    monkeypatch.setattr(registering, "_frozen", full)
    with pytest.raises(DataError, match="disk with the folder for temporary files, is full"):
        register(path, state)


def test_a_snapshot_that_cannot_be_written_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, state = studies.write(tmp_path, GOOD), tmp_path / "state"
    kept = source.store
    gone = tmp_path / "gone" / "x.parquet"
    monkeypatch.setattr(registering, "store", lambda connection, rows, place: kept(connection, rows, gone))
    with pytest.raises(DataError, match="gone: the snapshot cannot be written"):
        register(path, state)
    assert list(state.iterdir()) == []


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file: cannot be written"), draft(tmp_path / "file"):
        pass
