"""F24 and F35: a ledger put back to an older state, edited, or of a newer engine; and another engine."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mpc_engine.errors import LedgerBrokenError
from mpc_engine.scenario.trial import NAMES
from tests.faults.parties import CHARGE, Parties
from tests.party.services import until

OTHER_ENGINE = """
from mpc_engine.party import situation
situation.source_digest = lambda: b"another engine's source, 32 bytes"[:32]
"""


@contextmanager
def at_rest(parties: Parties, name: str) -> Iterator[Path]:
    """Stop a party and give its ledger's folder; whatever becomes of that, it is as before afterwards."""
    state = parties.home(name) / "state"
    kept = state.with_name("kept")
    assert parties.stop(name) == [0]
    shutil.copytree(state, kept)
    try:
        yield state
    finally:
        shutil.rmtree(state)
        kept.rename(state)


def test_an_older_copy_of_a_ledger_is_refused_until_it_has_recovered(parties: Parties) -> None:
    state = parties.home("south") / "state"
    copy = state.with_name("backup")
    assert parties.stop("south") == [0]
    shutil.copytree(state, copy)
    parties.start("south")
    parties.wait_ready()
    with parties.client() as client:
        forgotten = parties.ask_new(client)
        parties.end_of(forgotten)
        parties.quiet()
        assert parties.stop("south") == [0]
        shutil.rmtree(state)
        copy.rename(state)
        parties.start("south")
        parties.wait_ready()
        refused = parties.ask_new(client)
        parties.end_of(refused, "RETURNED", "LEDGER_ROLLBACK")
        assert parties.spent(refused.id) == dict.fromkeys(NAMES, 0)
        # The party itself says what is the matter, to its operator and to probes, until it has recovered.
        until(lambda: parties.status("south")["missing"] == ["LEDGER_ROLLBACK"], "south to know")
        until(lambda: not parties.serves("south", "mpc.Peer"), "probes to be told")
        assert parties.serves("south", "mpc.Analyst") and parties.status("north")["ready"]
        answer = parties.ask("south", "recover")
        until(lambda: parties.serves("south", "mpc.Peer"), "south to be ready again")
        assert [each["micro_epsilon"] for each in answer["adopted"]] == [CHARGE]
        assert sorted(answer["peers"]) == ["helper", "north"]
    assert parties.spent(forgotten.id) == dict.fromkeys(NAMES, CHARGE)


def change(statement: str) -> Callable[[Path], None]:
    """Return what changes a ledger behind its party's back."""

    def made(state: Path) -> None:
        with sqlite3.connect(state / "ledger.sqlite") as db:
            for trigger in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                db.execute(f"DROP TRIGGER {trigger[0]}")
            db.execute(statement)
        db.close()

    return made


def cut(state: Path) -> None:
    """Cut a ledger in half."""
    file = state / "ledger.sqlite"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    "spoil",
    [
        change("UPDATE charge SET micro_epsilon = micro_epsilon / 2"),
        change("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)"),
        change("PRAGMA user_version = 1000"),
        cut,
    ],
    ids=["edited", "entry removed", "of a newer engine", "cut"],
)
def test_a_spoilt_ledger_does_not_start(parties: Parties, spoil: Callable[[Path], None]) -> None:
    with at_rest(parties, "south") as state:
        spoil(state)
        said = len(parties.errors("south").read_text())
        parties.start("south")
        assert parties.ended("south") == LedgerBrokenError.exit_status
        assert "LEDGER_BROKEN" in parties.errors("south").read_text()[said:]
    parties.start("south")


def test_another_engine_is_refused_before_anything_is_counted(parties: Parties) -> None:
    assert parties.stop("helper") == [0]
    parties.start("helper", program=OTHER_ENGINE)
    parties.wait_ready()
    with parties.client() as client:
        request = parties.ask_new(client)
        status = parties.end_of(request, "RETURNED", "MISMATCH_ENGINE")
        assert "`engine` differs" in status.detail
        assert parties.spent(request.id) == dict.fromkeys(NAMES, 0)
    assert parties.stop("helper") == [0]
    parties.start("helper")
