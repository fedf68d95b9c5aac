"""`mpc-engine query` as an analyst types it, against a party on loopback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mpc_engine.party.messages import Decided, Progress
from tests.cli.conftest import Run
from tests.client.fakes import TIME, Study
from tests.scenario.studies import write_scenario


def test_the_whole_way_by_hand(run: Run, party: Study) -> None:
    assert "fits the codebook" in run("query", "validate", "query.toml").out
    cost = run("query", "cost", "query.toml")
    for words in ("How ε is split", "What is left of the budgets", "ε = 2.5", "us: needs an operator"):
        assert words in cost.out, cost.err
    shown = run("query", "preview", "query.toml", "--rows", 200, "--seed", 3, "--out", "seen")
    assert shown.status == 0 and "DUMMY DATA" in shown.out
    names = {"dummy-table.csv", "dummy-result.json", "dummy-plot.png", "dummy-explanation.txt"}
    assert {path.name for path in Path("seen").iterdir()} == names
    assert party.desk.calls == ["Cost"]  # nothing else was sent
    sent = run("query", "submit", "query.toml", "--key", "first")
    assert sent.status == 0 and sent.out.startswith("Submitted: request ")
    request = next(iter(party.desk.held))
    assert run("query", "submit", "query.toml", "--key", "first").out.startswith("Already submitted: ")
    assert "RELEASED: it is answered" in run("query", "status", request).out
    assert run("query", "wait", request).status == 0
    got = run("query", "result", request, "--out", "answer")
    assert got.status == 0 and "ok: uk signed it" in got.out and "does not prove" in got.out
    names = {"release.json", "receipt.json", "table.csv", "result.json", "plot.png", "explanation.txt"}
    assert {path.name for path in Path("answer").iterdir()} == names
    assert request[:8] in run("query", "list").out
    assert run("query", "status", request[:8]).status == 0
    run("query", "status", request[:7]).failed_with(13, "its first 8 digits")
    run("query", "status", "zzzzzzzzz").failed_with(13, "no request of yours")
    stored = run("result", "answer", "--codebook", "codebook.toml", "--csv")
    assert stored.status == 0 and stored.out == Path("answer/table.csv").read_text()


def test_everything_is_there_as_json(run: Run, party: Study) -> None:
    def fields(*arguments: object) -> Any:
        done = run("query", *arguments, "--json")
        assert done.status == 0, done.err
        return json.loads(done.out)

    assert fields("list") == []
    assert fields("validate", "query.toml")["cells"] == 6
    cost = fields("cost", "query.toml", "--cases", 500)
    assert cost["remaining"]["uk"]["project"]["epsilon"] == "2.5" and cost["plan"]["cells"] == 6
    assert cost["forecasts"]
    preview = fields("preview", "query.toml", "--rows", 50, "--seed", 1)
    assert preview["parameters"]["title"].startswith("DUMMY DATA")
    first = fields("submit", "query.toml", "--key", "a")
    again = fields("submit", "query.toml", "--key", "a")
    assert (first["already_submitted"], again["already_submitted"]) == (False, True)
    assert first["id"] == again["id"] and first["cost"]["epsilon"] == "1"
    assert fields("status", first["id"])["state"] == fields("wait", first["id"])["state"] == "RELEASED"
    result = fields("result", first["id"])
    assert result["verified"]["ok"] and result["release"]["format"].startswith("mpc-engine/release/")
    assert [each["id"] for each in fields("list")] == [first["id"]]
    party.desk.auto = False
    open_one = fields("submit", "query.toml")
    assert len(open_one["key"]) == 32
    assert fields("withdraw", open_one["id"])["state"] == "WITHDRAWN"


def test_waiting_shows_who_has_approved_and_what_the_parties_do(run: Run, party: Study) -> None:
    party.desk.auto = False
    party.desk.script = [
        ("PARTIALLY_REVIEWED", {"decisions": {"uk": Decided(decision="approved")}}),
        ("APPROVED", {"progress": Progress(phase="compute", since=TIME)}),
        ("RELEASED", {"progress": None}),
    ]
    done = run("query", "submit", "query.toml", "--wait", "--out", "answer")
    assert done.status == 0, done.err
    for words in (
        "key: ",
        "… SUBMITTED: approved by nobody yet; waiting for an operator at us",
        "… PARTIALLY_REVIEWED: approved by uk",
        "… APPROVED: computing on shares",
        "… RELEASED",
    ):
        assert words in done.err
    assert Path("answer/receipt.json").exists()


@pytest.mark.parametrize(
    ("state", "reason", "status"),
    [("REJECTED", "REQUEST_DECLINED", 4), ("RETURNED", "BUDGET_EXCEEDED", 9), ("RETURNED", "NEW_REASON", 13)],
)
def test_the_exit_status_says_why_there_is_no_result(
    run: Run, party: Study, state: Any, reason: str, status: int
) -> None:
    party.desk.auto = False
    run("query", "submit", "query.toml", "--key", "a")
    request = next(iter(party.desk.held))
    run("query", "result", request).failed_with(13, "is SUBMITTED and has no result")
    waited = run("query", "wait", request, "--timeout", 0)
    waited.failed_with(16, "is SUBMITTED and waits for an operator at us", "It goes on", "query wait")
    assert "certificate" not in waited.err
    party.desk.move(request, state, reason=reason, detail="for a reason")
    run("query", "wait", request).failed_with(status, f"was {state.lower()}: for a reason")
    run("query", "result", request).failed_with(status, "for a reason")
    shown = run("query", "status", request)
    assert shown.status == 0 and f"reason: {reason}: for a reason" in shown.out
    told = run("query", "wait", request, "--json")
    assert told.status == status and json.loads(told.out)["reason"] == reason


def test_mistakes_have_the_statuses_of_the_catalogue(run: Run, party: Study) -> None:
    run("query", "submit", "query.toml", "--key", "a")
    Path("other.toml").write_text(Path("query.toml").read_text().replace('epsilon = "1"', 'epsilon = "0.5"'))
    run("query", "submit", "other.toml", "--key", "a").failed_with(
        13, "another question", "leave the key out"
    )
    run("query", "submit", "query.toml", "--out", "x").failed_with(2, "--wait")
    run("query", "submit", "query.toml", "--project", "a b").failed_with(2, "project")
    run("query", "status", "0" * 32).failed_with(13, "there is no request")
    run("query", "status", "nonsense").failed_with(13, "no request of yours")
    run("query", "status", "0" * 32, "--profile", "none.toml").failed_with(2, "there is no such file")
    Path("wrong.toml").write_text(Path("query.toml").read_text().replace('"stage"', '"height"'))
    for command in ("validate", "cost", "preview", "submit"):
        run("query", command, "wrong.toml").failed_with(2, "height")
    party.enrolled.clear()
    party.loop.run(_reload(party))
    run("query", "list").failed_with(6, "refuses the certificate sha256:", "not enrolled", "Have your card")


async def _reload(party: Study) -> None:
    party.server.reload()


def test_a_scenario_takes_the_place_of_a_profile(run: Run, party: Study, tmp_path: Path) -> None:
    folder = tmp_path / "scenario"
    folder.mkdir()
    path, _ = write_scenario(folder)
    done = run("query", "cost", "query.toml", "--profile", path)
    assert done.status == 0 and "silo-0: simulated: it keeps no budget" in done.out
    run("query", "submit", "query.toml", "--profile", path).failed_with(2, "submit with --wait")
