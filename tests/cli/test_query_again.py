"""`mpc-engine query` where a question was answered before, or the folder of a result holds another."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mpc_engine.cli import simulate
from mpc_engine.client import connect
from mpc_engine.party.messages import StoredRelease
from mpc_engine.scenario.simulate import Simulated
from tests.cli.conftest import Run
from tests.client.fakes import Study
from tests.party.nursery import ROOT
from tests.scenario.studies import write_scenario


def submit(run: Run, key: str, document: str = "query.toml") -> str:
    """Hand a question in and return the request's id."""
    return str(json.loads(run("query", "submit", document, "--key", key, "--json").out)["id"])


def other(name: str, before: str, after: str) -> str:
    """Write another question and return its file."""
    text = Path("query.toml").read_text()
    assert before in text
    Path(name).write_text(text.replace(before, after))
    return name


# --- the same question again --------------------------------------------------------------------------


def test_the_analyst_is_told_that_the_same_question_is_served(run: Run, party: Study) -> None:
    assert "This would cost ε = 1" in run("query", "cost", "query.toml").out
    first = submit(run, "one")
    served = f"served from the release of {first[:8]} on 2026-11-01"
    cost = " ".join(run("query", "cost", "query.toml").out.split())
    assert f"Answered before: it would be {served}; cost: nothing." in cost
    assert "is found when it is asked" in cost and "This would cost" not in cost
    assert json.loads(run("query", "cost", "query.toml", "--json").out)["served_from"]["ticket"] == first
    sent = run("query", "submit", "query.toml", "--key", "two")
    assert f"cost: nothing; {served}" in sent.out
    second = next(request for request in party.desk.held if request != first)
    assert f"cost: nothing; {served}" in run("query", "status", second).out
    assert "cost: ε = 1" in run("query", "status", first).out
    told = json.loads(run("query", "status", second, "--json").out)
    assert told["served_from"]["ticket"] == first and told["cost"]["epsilon"] == "0"
    assert f"Cost: nothing; {served}." in " ".join(run("query", "wait", second).out.split())
    listed = run("query", "list").out
    assert f"{second[:8]} costs nothing; {served}." in " ".join(listed.split())
    assert re.search(rf"{second[:8]} .*nothing", listed) and re.search(rf"{first[:8]} .*ε = 1", listed)
    assert max(map(len, listed.splitlines())) <= 80
    waited = run("query", "submit", "query.toml", "--key", "three", "--wait", "--json")
    assert served in waited.said and json.loads(waited.out)["release"]["session"]["id"] == first


def test_until_it_is_answered_nothing_is_promised(run: Run, party: Study) -> None:
    submit(run, "one")
    party.desk.auto = False
    said = " ".join(run("query", "submit", "query.toml", "--key", "two").out.split())
    assert re.search(
        r"cost: nothing, served from .*, unless records, a least k .* change before; else ε", said
    )


def test_a_raised_threshold_is_pointed_out(run: Run, party: Study) -> None:
    assert "asks for k" not in run("query", "cost", "query.toml").out
    low = other("low.toml", "threshold = 5", "threshold = 3")
    said = " ".join(run("query", "cost", low).out.split())
    assert "The query asks for k = 3; the parties' policies make it 5." in said
    assert "With threshold = 5 it would be another question" in said
    assert json.loads(run("query", "cost", low, "--json").out)["threshold"] == {"asked": 3, "used": 5}
    shown = run("query", "submit", low, "--wait", "--out", "low")
    assert shown.status == 0
    text = " ".join(Path("low/explanation.txt").read_text().split())
    assert "The query asked for k = 3; the parties' policies made it 5." in text


def test_what_was_debited_without_an_answer_is_told_alike(run: Run, party: Study) -> None:
    party.desk.auto = False
    lost = submit(run, "one")
    party.desk.move(lost, "RETURNED", reason="PUBLICATION_ABORT")
    assert "cost: ε = 1" in run("query", "status", lost).out
    assert re.search(rf"{lost[:8]} .*ε = 1", run("query", "list").out)
    plain = submit(run, "two", other("other.toml", 'epsilon = "1"', 'epsilon = "0.5"'))
    party.desk.move(plain, "RETURNED", reason="MISMATCH_ENGINE", spent=False)
    assert "cost: nothing" in run("query", "status", plain).out
    assert re.search(rf"{plain[:8]} .*nothing", run("query", "list").out)


def test_a_release_that_somebody_else_had_has_no_date() -> None:
    unknown = StoredRelease(ticket="ab" * 16)
    assert unknown.words == "an earlier release, abababab"
    dated = StoredRelease(ticket="ab" * 16, released="2026-11-01T12:00:00Z")
    assert dated.words == "the release of abababab on 2026-11-01"


# --- folders ------------------------------------------------------------------------------------------


def test_a_result_never_replaces_another_release(run: Run, party: Study) -> None:
    first = submit(run, "one")
    second = submit(run, "two", other("other.toml", 'epsilon = "1"', 'epsilon = "0.5"'))
    assert run("query", "result", first, "--out", "r1").status == 0
    before = {path: path.read_bytes() for path in Path("r1").iterdir()}
    refused = run("query", "result", second, "--out", "r1")
    refused.failed_with(2, "r1: holds another release", f"mpc-engine query result {second} --out DIR")
    assert {path: path.read_bytes() for path in Path("r1").iterdir()} == before
    assert run("query", "result", first, "--out", "r1").status == 0  # the same release
    assert run("query", "result", second, "--out", "r2").status == 0
    Path("r2/release.json").write_text("{")
    run("query", "result", second, "--out", "r2").failed_with(2, "r2: holds another release")


def test_a_question_is_not_asked_if_its_folder_holds_another_ones_release(run: Run, party: Study) -> None:
    assert run("query", "submit", "query.toml", "--wait", "--out", "r1").status == 0
    assert run("query", "submit", "query.toml", "--wait", "--out", "r1").status == 0
    asked = party.desk.calls.count("Submit")
    low = other("low.toml", 'epsilon = "1"', 'epsilon = "0.5"')
    run("query", "submit", low, "--wait", "--out", "r1").failed_with(2, "r1: holds another release")
    assert party.desk.calls.count("Submit") == asked == 2


def test_a_simulation_replaces_a_release_only_if_told_to(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = write_scenario(tmp_path)
    with connect(path) as client:
        release = client.ask(tmp_path / "query.toml").preview(rows=500, seed=1).release
    runs: list[Any] = []

    async def simulated(scenario: Any, on_event: Any) -> Simulated:
        runs.append(scenario)
        return Simulated(dict(release), {}, {"release.json": json.dumps({"run": len(runs)})})

    monkeypatch.setattr(simulate, "simulate", simulated)
    file = tmp_path / "out/release.json"
    assert run("simulate", path, "--out", tmp_path / "out").status == 0
    assert json.loads(file.read_text()) == {"run": 1}
    again = run("simulate", path, "--out", tmp_path / "out")
    again.failed_with(2, "out: holds another release", "Give another folder", "--overwrite replaces")
    assert json.loads(file.read_text()) == {"run": 1} and len(runs) == 1
    assert run("simulate", path, "--out", tmp_path / "out", "--overwrite").status == 0
    assert json.loads(file.read_text()) == {"run": 2}
    demo = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "simulate scenarios" in line)
    assert demo.endswith("--overwrite")  # it is run again and again
