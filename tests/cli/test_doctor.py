"""`party doctor` and `party status`, on a party whose service does not run, at 80 columns."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mpc_engine.cli import serve
from mpc_engine.errors import CertificateError, DocumentError, LedgerBrokenError, PeerError
from mpc_engine.identity import create_identity
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.party import checkup
from mpc_engine.party import serve as service
from mpc_engine.party.recovery import BEHIND, RECOVERED
from mpc_engine.scenario.trial import Trial, make_trial
from tests.cli.conftest import Run
from tests.cli.registry import fits


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """A trial whose services do not run; not to be changed."""
    return make_trial(tmp_path_factory.mktemp("doctor") / "trial", rows=40)


@pytest.fixture
def trial(made: Trial, tmp_path: Path) -> Trial:
    """A copy of it."""
    copy = Trial(tmp_path / "trial")
    shutil.copytree(made.folder, copy.folder)
    registered = copy.folder / "north" / "data" / "registration.json"
    registered.write_text(registered.read_text().replace(str(made.folder), str(copy.folder)))
    return copy


def steps(run: Run, trial: Trial, name: str = "north") -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return what the doctor found, by place and step."""
    result = run("party", "doctor", "--json", "--config", trial.config(name))
    found = json.loads(result.out)
    failed = any(each["verdict"] == "failed" for each in found["findings"])
    assert found["healthy"] != failed and result.status == int(failed)
    return {(each["place"], each["step"]): each for each in found["findings"]}


def test_each_step_is_shown_with_what_to_do(run: Run, trial: Trial) -> None:
    result = run("party", "doctor", "--config", trial.config("south"))
    assert result.status == 1
    fits(result.out)
    lines = [line.split(maxsplit=2) for line in result.out.splitlines()]
    assert ["ok", "data", "snapshot"] in [line[:2] + line[2].split()[:1] for line in lines if len(line) == 3]
    assert ["FAILED", "tcp"] in [line[:2] for line in lines]
    flat = " ".join(result.out.split())
    assert "The peer north" in flat and "Have the peer start its party" in flat
    assert "note service it does not run; its ports are free → Start it with" in flat
    assert "1 failed, 1 with a note" in flat
    found = steps(run, trial, "south")
    # The helper dials everybody, and nobody dials it: there is nothing to be tried.
    assert [step for place, step in found if place == "helper"] == ["admission"]


def test_a_peer_that_dials_need_not_be_reachable(run: Run, trial: Trial) -> None:
    # South is not started: it dials north, and would listen for the helper.
    found = steps(run, trial)["south", "tcp"]
    assert found["verdict"] == "warning" and "need not be reachable from here" in found["advice"]
    assert run("party", "doctor", "--config", trial.config("north")).status == 0


def test_a_document_at_fault_is_named_with_its_message(run: Run, trial: Trial) -> None:
    path = trial.config("north")
    path.write_text(path.read_text().replace("least_threshold = 5", "least_threshold = 0"))
    found = steps(run, trial)
    assert list(found) == [("here", "configuration")]
    assert "least_threshold" in found["here", "configuration"]["found"]
    assert found["here", "configuration"]["advice"] == DocumentError.next_step
    (trial.folder / "south" / "trust" / "helper.card.json").unlink()
    found = steps(run, trial, "south")
    assert [each["verdict"] for each in found.values()] == ["ok", "ok", "failed"]
    assert "holds no card of helper" in found["here", "roster"]["found"]


def test_keys_and_folders_that_others_may_read_are_found(run: Run, trial: Trial) -> None:
    (trial.folder / "north" / "state").mkdir(mode=0o755)
    assert steps(run, trial)["here", "state"]["verdict"] == "failed"
    key = trial.folder / "north" / "identity" / "key.pem"
    key.chmod(0o644)
    assert steps(run, trial)["here", "identity"]["verdict"] == "failed"


def test_certificates_are_told_of_before_they_end(run: Run, trial: Trial) -> None:
    for days, verdict in ((800, "warning"), (830, "failed")):
        shutil.rmtree(trial.folder / "north" / "identity")
        made = datetime.now(UTC) - timedelta(days=days)
        create_identity(
            "north",
            trial.folder / "north" / "identity",
            address="127.0.0.1:1",
            dev=True,
            clock=lambda made=made: made,  # type: ignore[misc]
        )
        result = run("party", "doctor", "--json", "--config", trial.config("north"))
        found = json.loads(result.out)["findings"]
        told = [each for each in found if each["verdict"] == verdict and "certificate" in each["found"]]
        assert told and ("rotate" in told[0]["advice"]), found
    assert told[0]["advice"] == CertificateError.next_step


def test_records_that_changed_or_are_not_registered_are_found(run: Run, trial: Trial) -> None:
    assert steps(run, trial)["here", "data"]["verdict"] == "ok"
    rows = trial.folder / "north" / "rows.csv"
    rows.write_text(rows.read_text() + "\n")
    changed = steps(run, trial)["here", "data"]
    assert changed["verdict"] == "warning" and "data register" in changed["advice"]
    assert "40 rows; rows.csv has changed since" in changed["found"]
    checked = run("data", "check", "--config", trial.config("north"))
    assert "40 rows; rows.csv has changed since: `mpc-engine data register` takes what is new" in checked.said
    (snapshot,) = (trial.folder / "north" / "data").glob("*.parquet")
    snapshot.write_bytes(b"x" + snapshot.read_bytes()[1:])
    altered = steps(run, trial)["here", "data"]
    assert altered["verdict"] == "failed" and "missing or was altered" in altered["found"]
    shutil.rmtree(trial.folder / "north" / "data")
    assert "no data are registered" in steps(run, trial)["here", "data"]["found"]
    assert ("here", "data") not in steps(run, trial, "helper")


def test_the_ledger_is_verified_and_the_budget_shown(run: Run, trial: Trial) -> None:
    state = trial.folder / "north" / "state"
    assert "the first start begins it" in steps(run, trial)["here", "ledger"]["found"]
    Ledger.open(state, party="north").close()
    found = steps(run, trial)
    assert found["here", "ledger"]["verdict"] == "ok"
    assert found["here", "budget"]["found"] == "ε 20 of 20 is left for the data set"
    file = state / "ledger.sqlite"
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    file.write_bytes(content)
    broken = steps(run, trial)["here", "ledger"]
    assert (broken["verdict"], broken["advice"]) == ("failed", LedgerBrokenError.next_step)


def test_a_ledger_behind_what_peers_have_seen_is_found(run: Run, trial: Trial) -> None:
    ledger = Ledger.open(trial.folder / "north" / "state", party="north")
    with ledger.transaction() as tx:
        tx.note(BEHIND, {})
    found = steps(run, trial)["here", "ledger"]
    assert found["verdict"] == "failed" and "peers have seen more entries" in found["found"]
    assert "`mpc-engine party recover`" in found["advice"]
    with ledger.transaction() as tx:
        tx.note(RECOVERED, {})
    ledger.close()
    assert steps(run, trial)["here", "ledger"]["verdict"] == "ok"


def test_an_identity_that_is_not_there_is_made_first(run: Run, trial: Trial) -> None:
    shutil.rmtree(trial.folder / "north" / "identity")
    found = steps(run, trial)["here", "identity"]
    assert found["verdict"] == "failed" and "run `mpc-engine party init`" in found["found"]
    assert "do first what it says" in found["advice"]
    run("party", "roster", "--config", trial.config("north")).failed_with(2, "`mpc-engine party init`")


def test_a_full_disk_and_a_taken_port_are_found(
    run: Run, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "free_bytes", lambda folder: 1 << 20)
    assert steps(run, trial)["here", "disk"]["found"] == "1 MiB are free for the ledger"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        path = trial.config("helper")
        lines = [
            f'health = "127.0.0.1:{taken.getsockname()[1]}"' if line.startswith("health") else line
            for line in path.read_text().splitlines()
        ]
        path.write_text("\n".join(lines))
        found = steps(run, trial, "helper")["here", "service"]
    assert found["verdict"] == "failed" and "ss -ltnp" in found["advice"]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_service_that_cannot_start_says_so_to_whoever_reads_it(
    run: Run, trial: Trial, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    path = trial.config("north")
    path.write_text(path.read_text().replace("least_threshold = 5", "least_threshold = 0"))
    noted: list[Exception] = []
    monkeypatch.setattr(service, "_note_not_started", lambda _, error, clock: noted.append(error))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    ended = run("party", "serve", "--config", path)
    if terminal:
        ended.failed_with(DocumentError.exit_status, "least_threshold", DocumentError.next_step)
        assert not noted
    else:
        assert (ended.status, ended.err) == (DocumentError.exit_status, "")
        assert [type(each) for each in noted] == [DocumentError]


@pytest.mark.parametrize(
    ("fault", "newer", "words"),
    [
        ("", [], "Records: registered 2026-11-20, 1,857 rows."),
        (
            "",
            ["rows.csv has changed since"],
            "1,857 rows; rows.csv has changed since: `mpc-engine data register` takes what is new.",
        ),
        ("the snapshot was altered", [], "1,857 rows; they cannot be counted: the snapshot was altered"),
    ],
)
def test_status_says_how_old_the_records_are(
    run: Run, trial: Trial, monkeypatch: pytest.MonkeyPatch, fault: str, newer: list[str], words: str
) -> None:
    records = {"words": "registered 2026-11-20, 1,857 rows", "fault": fault, "newer": newer}
    found = {"party": "north", "engine": "1", "dev": True, "started": "2026-11-22T00:00:00Z", "ready": True}
    found |= {"records": records, "not_after": "2028-01-01T00:00:00Z", "peers": [], "sessions": 0, "open": 0}
    answers = {"status": found, "list": {"requests": []}}
    monkeypatch.setattr(serve, "told", lambda party, command, **fields: answers[command])
    assert words in " ".join(run("party", "status", "--config", trial.config("north")).out.split())


def test_status_needs_a_running_service(run: Run, trial: Trial) -> None:
    result = run("party", "status", "--config", trial.config("north"))
    result.failed_with(
        PeerError.exit_status, "this party is not running", "Start it with `mpc-engine party serve`"
    )
