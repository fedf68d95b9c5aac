"""The ledger's backup, and former keys that a committed session may need."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest

from mpc_engine.identity import activate, create_identity, load_identity, rotate
from mpc_engine.ledger.ledger import Ledger
from tests.cli.conftest import Run
from tests.cli.registry import fits, party_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A party's folder; the ledger has a session that has committed and is not published."""
    return party_folder(tmp_path)


def test_a_backup_is_a_whole_ledger_of_its_own(run: Run, folder: Path) -> None:
    config, target = ("--config", folder / "uk.toml"), folder / "copy.sqlite"
    holder = Ledger.open(folder / "state", party="uk")  # as the running service holds it
    try:
        made = run("party", "backup", "--out", target, *config)
    finally:
        holder.close()
    fits(made.out.replace(str(folder), ""))
    assert made.status == 0 and stat.S_IMODE(target.stat().st_mode) == 0o600
    (folder / "elsewhere").mkdir()
    shutil.copy(target, folder / "elsewhere/ledger.sqlite")
    restored = Ledger.open(folder / "elsewhere", party="uk")
    head = restored.head()
    restored.close()
    assert f"{head.seq} entries" in made.out and head.hash.hex() in made.out.replace("\n", "")
    before = target.read_bytes()
    run("party", "backup", "--out", target, *config).failed_with(2, "exists")
    assert target.read_bytes() == before
    told = json.loads(run("party", "backup", "--out", folder / "second.sqlite", "--json", *config).out)
    assert (told["entries"], told["head"]) == (head.seq, head.hash.hex())


def test_nothing_is_written_of_a_ledger_that_does_not_verify(run: Run, folder: Path) -> None:
    config, target = ("--config", folder / "uk.toml"), folder / "copy.sqlite"
    nowhere = run("party", "backup", "--out", folder / "nowhere/copy.sqlite", *config)
    nowhere.failed_with(2, "nowhere: there is no such folder")
    assert "Make room" not in nowhere.err
    run("party", "backup", "--out", folder / "uk.toml/copy.sqlite", *config).failed_with(2, "no such folder")
    ledger = folder / "state/ledger.sqlite"
    ledger.write_bytes(ledger.read_bytes().replace(b"too fine", b"too nice"))
    run("party", "backup", "--out", target, *config).failed_with(11, "changed after it was written")
    assert not target.exists()
    shutil.rmtree(folder / "state")
    run("party", "backup", "--out", target, *config).failed_with(2, "holds no ledger")
    assert not target.exists()


def test_former_keys_are_kept_until_what_was_committed_is_published(run: Run, folder: Path) -> None:
    config, identity = ("--config", folder / "uk.toml"), folder / "identity"
    create_identity("uk", identity, address="127.0.0.1:8471")
    rotate(identity)
    assert run("party", "rotate", "--activate", *config).status == 0  # it destroys none yet
    run("party", "rotate", "--finish", *config).failed_with(
        2, "one session is committed", "nothing was changed"
    )
    rotate(identity)
    run("party", "rotate", "--activate", *config).failed_with(2, "one session is committed")
    assert len(load_identity(identity).former) == 1
    ledger = Ledger.open(folder / "state", party="uk")
    with ledger.transaction() as tx:
        tx.lose("2" * 32, "PUBLICATION_ABORT", b"signed")
    ledger.close()
    finished = run("party", "rotate", "--finish", *config)
    assert finished.status == 0 and "Destroyed the keys" in finished.out
    assert load_identity(identity).former == ()
    assert activate(identity).former
