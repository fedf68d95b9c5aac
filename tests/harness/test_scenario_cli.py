"""`mpc-engine scenario list | run | report`, and `pytest scenarios/`: what people see, and exit statuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mpc_engine.cli.scenario import interruptible
from mpc_engine.errors import DocumentError, StoppedError
from mpc_engine.harness import programme
from mpc_engine.harness.report.document import read_entries
from mpc_engine.harness.stage import Show
from mpc_engine.scenario.document import Stage, load_scenario
from tests.party.nursery import environment

ROOT = Path(__file__).resolve().parents[2]
WILMS = ROOT / "scenarios" / "wilms"
TEXT = """
title = "Small"
codebook = "{wilms}/codebook.toml"
query = "{wilms}/stage_by_histology.toml"
runs_in = ["memory", "processes"]
policy = {{ greatest_epsilon = "1", least_threshold = 5 }}
{more}
[[party]]
name = "uk"
mapping = "{wilms}/uk.mapping.toml"
[[party]]
name = "us"
mapping = "{wilms}/us.mapping.toml"
[[party]]
name = "helper"
[[expect]]
kind = "budget"
spent = "{spent}"
"""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a scenario called `name` into a folder of its own and return its path."""

    def written(name: str, spent: str = "1", more: str = "") -> Path:
        path = tmp_path / "studies" / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(TEXT.format(wilms=WILMS, spent=spent, more=more))
        return path

    return written


def command(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `mpc-engine scenario` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "mpc_engine", "scenario", *map(str, words)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_list_says_what_there_is(tmp_path: Path) -> None:
    done = command("list", ROOT / "scenarios", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "helper_dies\n    A helper dies, twice\n    3 parties, 2 questions, 2 faults," in done.stdout
    assert "memory or processes or" in done.stdout


def test_a_run_that_passes_and_one_that_fails(write: Write, tmp_path: Path) -> None:
    write("good")
    bad = write("bad", spent="3")
    done = command("run", "studies", "--out", "out", "--seed", 5, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "1/2 ✗ bad" in done.stderr and "2/2 ✓ good" in done.stderr
    assert "expected: It costs every silo ε = 3 in all." in done.stderr
    # How to see it again: the very command, and where everything is kept.
    again = "mpc-engine scenario run studies/bad.toml --in memory --seed 5"
    assert f"again:    {again}" in done.stderr and "records:  out/bad.memory" in done.stderr
    assert "1 of 2 failed: bad." in done.stdout
    minutes = json.loads((tmp_path / "out/bad.memory/minutes.json").read_text())
    assert [asked["state"] for asked in minutes["asked"]] == ["RELEASED"] and minutes["seed"] == 5
    assert minutes["parties"][0]["journal"] and minutes["parties"][0]["sessions"]
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "bad" in page and again in page
    # Corrected and played again it replaces its own entry, and the report holds.
    bad.write_text(bad.read_text().replace('spent = "3"', 'spent = "1"'))
    words = again.split()[2:]
    assert command(*words, "--out", "out", cwd=tmp_path).returncode == 0
    entries = read_entries(tmp_path / "out")
    assert all(entry.holds for entry in entries)
    facts = {
        "parties": 3,
        "computing": 3,
        "silos": 2,
        "questions": 1,
        "released": 1,
        "values": 8,
        "faults": 0,
    }
    assert entries[0].facts.items() >= facts.items() and 6 <= entries[0].facts["shown"] <= 8
    assert command("report", "out", cwd=tmp_path).returncode == 0


def test_what_cannot_be_played_is_skipped_with_the_reason(write: Write, tmp_path: Path) -> None:
    write("only")
    done = command("run", "studies", "--in", "network", "--out", "out", cwd=tmp_path)
    assert done.returncode == 1 and "Nothing was played." in done.stdout, done.stderr
    assert "only: not played: it is not made for network: its runs_in says memory, processes" in done.stderr
    (entry,) = read_entries(tmp_path / "out")
    assert entry.skipped and not entry.holds


def test_what_cannot_be_asked_for(write: Write, tmp_path: Path) -> None:
    write("slow", more="ci = false")
    for words, said in (
        (("run", "studies", "--ci"), "none of these scenarios has `ci = true`"),
        (("run", "studies", "--only", "fast"), "there is no scenario 'fast'"),
        (("run", "nowhere.toml"), "nowhere.toml: there is no such file"),
        (("run", "studies", "--in", "cloud"), "'cloud' is not one of memory, processes, network"),
        (("report", "studies"), "holds no scenario that was played"),
    ):
        done = command(*words, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert said in " ".join(done.stderr.replace("│", " ").split()) and "Traceback" not in done.stderr


def test_find(write: Write, tmp_path: Path) -> None:
    one, two = write("one"), write("two")
    assert [each.name for each in programme.find([two, one.parent])] == ["two", "one"]
    assert [each.name for each in programme.find([one.parent], ["two"])] == ["two"]
    other = tmp_path / "other" / "one.toml"
    other.parent.mkdir()
    other.write_text(one.read_text())
    with pytest.raises(DocumentError, match="has the same name"):
        programme.find([one, other])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DocumentError, match="holds no scenario"):
        programme.find([tmp_path / "empty"])


def test_the_first_stage_that_can_be_had(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    missing: dict[Stage, str] = {"memory": "no memory", "processes": ""}
    monkeypatch.setattr(programme, "obstacle", lambda stage: missing[stage])
    scenario = load_scenario(write("one"))
    assert programme.place(scenario) == ("processes", "")
    missing["processes"] = "no processes"
    assert programme.place(scenario) == ("memory", "no memory")
    assert programme.place(scenario, "processes") == ("processes", "no processes")


def test_a_failure_nobody_foresaw_is_an_entry(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = load_scenario(write("one"))
    for error, said in (
        (ZeroDivisionError("1/0"), "unexpected ZeroDivisionError"),
        (DocumentError("x"), "x"),
    ):

        def broken(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("mpc_engine.harness.play.play", broken)
        entry = programme.perform(scenario, "memory", 1, tmp_path / "out", print)
        assert said in entry.failed and not entry.holds
        assert [each.failed for each in read_entries(tmp_path / "out")] == [entry.failed]
    assert "ZeroDivisionError: 1/0" in (tmp_path / "out/one.memory/traceback.txt").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_is_told_as_such(number: signal.Signals) -> None:
    with interrupts(signal.default_int_handler):
        with pytest.raises(StoppedError), interruptible():
            os.kill(os.getpid(), number)
            time.sleep(5)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_runs_in_the_background_is_not_interrupted() -> None:
    with interrupts(signal.SIG_IGN):  # as a shell starts what does not hold its terminal
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@contextmanager
def interrupts(handler: Any) -> Iterator[None]:
    """Take interrupts in one way, and check that both signals are taken as before in the end."""
    found = signal.signal(signal.SIGINT, handler)
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        signal.signal(signal.SIGINT, found)


def test_an_interrupted_scenario_says_so(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, show: Show, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mpc_engine.harness.play.play", stopped)
    with pytest.raises(KeyboardInterrupt):
        programme.perform(load_scenario(write("one")), "memory", 1, tmp_path / "out", print)
    (entry,) = read_entries(tmp_path / "out")
    assert entry.failed == "it was interrupted"


def test_scenarios_are_tests(tmp_path: Path) -> None:
    def pytest_run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *words],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    listed = pytest_run("scenarios", "--collect-only")
    for path in (ROOT / "scenarios").glob("*.toml"):
        assert f"scenarios/{path.name}::{path.stem}" in listed
    words = ("scenarios/wrong_codebook.toml", "scenarios/twenty_hospitals.toml", "--scenario-stage", "memory")
    played = pytest_run(*words, "-rs")
    assert "1 passed, 1 skipped" in played and "--all-scenarios" in played
