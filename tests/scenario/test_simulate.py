"""Whole studies through `mpc-engine simulate`: what comes out, and what is said when a party fails."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from mpc_engine.errors import DocumentError, EngineError
from mpc_engine.scenario.simulate import free_addresses
from tests.party.machines import QUERY, Command, engine, start, values_of
from tests.scenario.studies import Truth, write_scenario

LARGEST_NOISE = 64


def _check(released: dict, truth: Truth, names: list[str]) -> None:
    """Check a release of `tests.scenario.studies` against the truth."""
    assert [party["name"] for party in released["parties"]] == names
    cells = values_of(released)
    assert list(cells) == list(truth)
    errors = []
    for labels, value in cells.items():
        if value is None:
            assert truth[labels] == 0
        else:
            errors.append(abs(value - truth[labels]))
    assert max(errors) <= LARGEST_NOISE
    assert sum(errors) < 60


def test_input_only_silos_count(tmp_path: Path) -> None:
    path, truth = write_scenario(tmp_path, computing=2, helpers=1, input_only=4, seed=20)
    command = engine(tmp_path, "simulate", str(path), "--json")
    assert command.process.returncode == 0, command.err
    silos = [f"silo-{number}" for number in range(6)]
    # the helper computes, so it comes before the silos that only bring counts
    _check(json.loads(command.out), truth, [*silos[:2], "helper-0", *silos[2:]])


def test_rule_exact_says_what_it_is(tmp_path: Path) -> None:
    query = QUERY.replace("noisy", "exact")
    path, truth = write_scenario(tmp_path, query=query, seed=3)
    text = path.read_text().replace("least_threshold = 5", 'least_threshold = 5\nrules = ["exact"]')
    path.write_text(text)
    command = engine(tmp_path, "simulate", str(path), "--out", "out")
    assert command.process.returncode == 0, command.err
    words = "statistical disclosure control, not differential privacy"
    assert words in " ".join(command.out.split())
    released = json.loads((tmp_path / "out/release.json").read_text())
    assert released["parameters"]["notice"] == words
    assert words in released["parameters"]["statement"]
    assert released["parameters"]["differentially_private"] is False
    _check(released, truth, ["silo-0", "silo-1", "helper-0"])


def test_the_first_question_is_asked_changed_as_it_says(tmp_path: Path) -> None:
    path, _ = write_scenario(tmp_path, seed=6)
    change = '{ by = ["sex"], privacy = { epsilon = "0.5" } }'
    ask = f'\n[[ask]]\nname = "sexes"\nquery = "query.toml"\nchange = {change}\n'
    path.write_text(path.read_text().replace('query = "query.toml"\n', "", 1) + ask)
    command = engine(tmp_path, "simulate", str(path), "--json")
    assert command.process.returncode == 0, command.err
    released = json.loads(command.out)
    assert list(values_of(released)) == [("female",), ("male",)]
    assert released["parameters"]["epsilon"] == "0.5"


@pytest.mark.parametrize(
    "own", ['codebook = "codebook.toml"', 'records = { kind = "dummy", seed = 1, rows = 9 }']
)
def test_what_takes_the_harness_is_refused(tmp_path: Path, own: str) -> None:
    path, _ = write_scenario(tmp_path, seed=7)
    path.write_text(path.read_text().replace('name = "silo-1"', f'name = "silo-1"\n{own}'))
    command = start(tmp_path, "simulate", str(path))
    key = own.partition(" ")[0]
    command.failed_with(DocumentError.exit_status, f"party[1].{key}", "`mpc-engine scenario run`")


def test_ports_that_are_all_taken_are_a_clear_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*arguments: object) -> socket.socket:
        raise OSError("in use")

    monkeypatch.setattr(socket, "create_server", taken)
    with pytest.raises(EngineError, match=r"3 free ports .* 0 were found"):
        free_addresses(3)


def test_another_query_than_the_scenarios(tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    path, truth = write_scenario(study, seed=5)
    (tmp_path / "sexes.toml").write_text(QUERY.replace('["stage", "sex"]', '["sex"]'))
    command = engine(tmp_path, "simulate", "study/scenario.toml", "--query", "sexes.toml", "--json")
    assert command.process.returncode == 0, command.err
    cells = values_of(json.loads(command.out))
    assert list(cells) == [("female",), ("male",)]
    for (sex,), value in cells.items():
        assert value is not None
        assert abs(value - sum(n for (_, each), n in truth.items() if each == sex)) <= LARGEST_NOISE
    # Its own path counts, not the scenario's; and it must fit the scenario's codebook.
    command = engine(tmp_path, "simulate", str(path), "--query", "query.toml")
    command.failed_with(2, "query.toml: there is no such file")
    (tmp_path / "ages.toml").write_text(QUERY.replace('"sex"', '"age"'))
    command = engine(tmp_path, "simulate", str(path), "--query", "ages.toml")
    command.failed_with(2, "ages.toml: by[1]", "no variable 'age'")


def test_the_root_cause_is_reported(tmp_path: Path) -> None:
    path, _ = write_scenario(tmp_path)
    with (tmp_path / "rows1.csv").open("a") as rows:
        rows.write("9,f\n")
    command = engine(tmp_path, "simulate", str(path), "--out", "out")
    command.failed_with(3, "party silo-1:", "column stage", '"9"', "1 row")
    assert 'add under [variables.stage.codes]: "9" = "I | II | III"' in command.said
    assert command.seconds < 40  # the others are not left to their deadline of minutes
    assert not list((tmp_path / "out").iterdir())


def test_a_policy_that_refuses(tmp_path: Path) -> None:
    path, _ = write_scenario(tmp_path)
    path.write_text(
        path.read_text().replace(
            'mapping = "mapping1.toml"\n',
            'mapping = "mapping1.toml"\npolicy = { greatest_epsilon = "0.1", least_threshold = 5 }\n',
        )
    )
    command = engine(tmp_path, "simulate", str(path))
    command.failed_with(4, "the query asks for ε = 1, but silo-1 accepts at most ε = 0.1")


@pytest.mark.parametrize(
    ("document", "old", "new", "status", "words"),
    [
        (
            "scenario.toml",
            '[[party]]\nname = "helper-0"\n',
            "",
            2,
            "2 computing parties cannot keep a secret",
        ),
        ("scenario.toml", "mapping1.toml", "nosuch.toml", 2, "nosuch.toml: there is no such file"),
        ("scenario.toml", "helper-0", "silo-0", 2, "two parties have the same name"),
        ("query.toml", 'epsilon = "1"', 'epsilon = "0"', 2, "query.toml: privacy.epsilon"),
        ("mapping1.toml", '3 = "III"', '3 = "IV"', 2, "'IV' is not a category of the codebook"),
    ],
)
def test_documents_are_refused_before_any_party_starts(
    tmp_path: Path, document: str, old: str, new: str, status: int, words: str
) -> None:
    path, _ = write_scenario(tmp_path)
    target = tmp_path / document
    assert old in target.read_text()
    target.write_text(target.read_text().replace(old, new))
    command = engine(tmp_path, "simulate", str(path), "--out", "out")
    command.failed_with(status, words)
    assert "…" not in command.err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


# --- ended from outside ---------------------------------------------------------------------------------


def _children(pid: int) -> dict[str, int]:
    """Return the processes of a scenario's parties, by the parties' names."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (OSError, IndexError, ValueError):
                continue
            if parent == pid and b"mpc_engine.scenario.child" in words:
                config = Path(words[words.index(b"mpc_engine.scenario.child") + 1].decode())
                found[config.parent.name] = int(entry.name)
    return found


def _running(tmp_path: Path) -> tuple[Command, dict[str, int]]:
    """Start a scenario and return it with its parties' processes, once all of them run."""
    path, _ = write_scenario(tmp_path)
    (tmp_path / "scratch").mkdir()
    command = start(tmp_path, "simulate", str(path), "--out", "out", TMPDIR=str(tmp_path / "scratch"))
    while len(children := _children(command.process.pid)) < 3:
        assert command.process.poll() is None, command.err
        time.sleep(0.01)
    return command, children


def test_a_party_whose_process_is_killed(tmp_path: Path) -> None:
    command, children = _running(tmp_path)
    os.kill(children["silo-1"], signal.SIGKILL)
    command.failed_with(70, "party silo-1: its process was ended by SIGKILL")
    assert not list((tmp_path / "out").iterdir())
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_a_scenario_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    command, children = _running(tmp_path)
    command.process.send_signal(number)
    command.failed_with(130, f"stopped by {number.name}")
    assert not [pid for pid in children.values() if Path(f"/proc/{pid}").exists()]
    assert not list((tmp_path / "out").iterdir())
    assert not list((tmp_path / "scratch").iterdir()), "identities and registered records were left behind"
