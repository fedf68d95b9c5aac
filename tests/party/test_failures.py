"""What goes wrong between parties: every party ends in time, with one message, and releases nothing.

Each test runs the parties as processes, as their operators would.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from mpc_engine.identity import create_identity
from tests.party.machines import Study, large_documents, make_study, values_of


def test_an_epsilon_beyond_one_party_s_policy(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    study.rewrite("p2", "party.toml", 'greatest_epsilon = "1"', 'greatest_epsilon = "0.5"')
    for command in study.run().values():
        status = command.process.returncode
        assert status in (4, 6)  # whoever hears of it first from a peer says so
        command.failed_with(status, "the query asks for ε = 1, but p2 accepts at most ε = 0.5")
    study.nothing_released()


@pytest.mark.parametrize(
    ("document", "old", "new", "field"),
    [
        ("query.toml", '"stage", "sex"', '"sex", "stage"', "query"),
        ("query.toml", "threshold = 5", "threshold = 6", "privacy"),
        ("codebook.toml", '["female", "male"]', '["male", "female"]', "codebook"),
        ("roster.toml", "silo = true", "silo = true\ncount_bound = 1000", "roster"),
    ],
)
def test_documents_that_differ(tmp_path: Path, document: str, old: str, new: str, field: str) -> None:
    study = make_study(tmp_path, registered=False)
    study.rewrite("p3", document, old, new)
    study.register()
    commands = study.run()
    for command in commands.values():
        status = command.process.returncode
        command.failed_with(status, f"the field `{field}` differs", "p3 has", "No count was shared")
    assert sorted(command.process.returncode for command in commands.values())[0] == 5
    assert {command.process.returncode for command in commands.values()} <= {5, 6}
    study.nothing_released()


def test_the_largest_threshold_of_all_policies_holds(tmp_path: Path) -> None:
    study = make_study(tmp_path, silos=(True, True, False))
    study.rewrite("p3", "party.toml", "least_threshold = 5", "least_threshold = 90")
    for name, command in study.run().items():
        assert command.process.returncode == 0, command.err
        release = json.loads((study.home(name) / "released/release.json").read_text())
        assert release["parameters"]["k"] == 90
        # 80 patients and 100: either side of the threshold, more than five times the noise's deviation away
        assert [value is None for value in values_of(release).values()] == [True] * 5 + [False]


def test_two_parties_are_too_few(tmp_path: Path) -> None:
    study = make_study(tmp_path, silos=(True, True))
    for command in study.run().values():
        command.failed_with(2, "2 computing parties cannot keep a secret", "Bring a helper")
    study.nothing_released()


def test_a_certificate_that_is_not_pinned(tmp_path: Path) -> None:
    study = make_study(tmp_path, connect_s=5)
    home = study.home("p3")
    shutil.rmtree(home / "identity")
    impostor = create_identity("p3", home / "identity", address=study.addresses[2], dev=True)
    commands = study.run()
    commands["p3"].failed_with(6, "refuses this party's certificate", impostor.fingerprint)
    for name in ("p1", "p2"):
        commands[name].failed_with(6, "party 3 (p3) has not dialled")
        assert commands[name].seconds < 45  # of which 5 are the wait for p3
    study.nothing_released()


def test_a_listener_whose_certificate_is_not_pinned(tmp_path: Path) -> None:
    study = make_study(tmp_path, connect_s=4)
    home = study.home("p1")
    shutil.rmtree(home / "identity")
    impostor = create_identity("p1", home / "identity", address=study.addresses[0], dev=True)
    commands = study.run()
    commands["p1"].failed_with(6, "has not dialled")
    assert impostor.fingerprint in commands["p2"].said + commands["p3"].said
    for command in commands.values():
        command.failed_with(6)
    study.nothing_released()


def test_a_peer_that_never_starts(tmp_path: Path) -> None:
    study = make_study(tmp_path, connect_s=4)
    commands = study.run("p2", "p3")
    for command in commands.values():
        command.failed_with(6, "party 1 (p1)")
        assert command.seconds < 4 + 12
    assert any("not connected within 4 s" in command.said for command in commands.values())
    study.nothing_released()


def test_an_address_in_use(tmp_path: Path) -> None:
    study = make_study(tmp_path, connect_s=4)
    host, port = study.addresses[0].split(":")
    with socket.create_server((host, int(port))):
        commands = study.run()
    commands["p1"].failed_with(2, f"cannot listen on {study.addresses[0]}", "in use")
    for name in ("p2", "p3"):
        commands[name].failed_with(6, "party 1 (p1)")
    study.nothing_released()


def test_data_that_are_not_registered(tmp_path: Path) -> None:
    study = make_study(tmp_path, registered=False)
    study.start("p1").failed_with(3, "no data are registered", "data register")
    study.nothing_released()


def test_data_that_changed_since(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    with (study.home("p1") / "rows.csv").open("a") as rows:
        rows.write("1,f\n")
    for command in study.run().values():
        assert command.process.returncode == 0, command.err


def test_a_snapshot_that_was_altered(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    (snapshot,) = study.home("p1").rglob("snapshot-*.parquet")
    snapshot.write_bytes(snapshot.read_bytes()[:-1])
    study.start("p1").failed_with(3, "is missing or was altered", "register again")


# --- in the middle of the computation -----------------------------------------------------------------


def _interrupt(study: Study, victim: str, number: signal.Signals) -> tuple[dict[str, int], dict[str, str]]:
    """Send a signal to a party while all compute; return statuses and messages, after the common checks."""
    commands = {name: study.start(name) for name in study.names}
    commands[victim].until("… computing on shares")
    commands[victim].process.send_signal(number)
    at = time.monotonic()
    for command in commands.values():
        command.end()
    assert time.monotonic() - at < 15, "the deadline for a message is 20 s; a lost peer is noticed before"
    study.nothing_released()
    others = {name: command for name, command in commands.items() if name != victim}
    for command in others.values():
        command.failed_with(6, victim)
    assert "Traceback" not in commands[victim].err
    return (
        {name: command.process.returncode for name, command in commands.items()},
        {name: command.said for name, command in commands.items()},
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study whose table is large enough for a signal to come in the middle."""
    return make_study(tmp_path_factory.mktemp("large"), documents=large_documents())


def test_a_peer_that_is_killed_while_computing(large: Study) -> None:
    statuses, said = _interrupt(large, "p2", signal.SIGKILL)
    assert statuses == {"p1": 6, "p2": -signal.SIGKILL, "p3": 6}
    assert any("the connection to party 2 (p2) was lost" in text for text in said.values())


def test_a_party_that_is_stopped_while_computing(large: Study) -> None:
    statuses, said = _interrupt(large, "p1", signal.SIGTERM)
    assert statuses["p1"] == 130
    assert "stopped by SIGTERM" in said["p1"]
    for name in ("p2", "p3"):
        assert "SHUTTING_DOWN: p1 was stopped" in said[name]


def test_a_party_that_is_stopped_while_it_waits(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    command = study.start("p1")
    command.until("… connecting")
    command.process.send_signal(signal.SIGINT)
    command.failed_with(130, "stopped by SIGINT")
    assert command.seconds < 20
    study.nothing_released()
