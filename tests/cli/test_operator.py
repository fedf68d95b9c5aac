"""What an operator sees and decides about requests, at 80 columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpc_engine.cli import operator
from mpc_engine.errors import RequestStateError
from tests.cli.conftest import Run
from tests.cli.registry import FIRST, LINES, SECOND, THIRD, Answers, fits, party_folder, running, summary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A party's folder."""
    return party_folder(tmp_path)


@pytest.fixture
def daemon(folder: Path) -> Iterator[Answers]:
    """A daemon of the party."""
    with running(folder) as answers:
        yield answers


def test_without_a_daemon_the_list_comes_from_the_ledger(run: Run, folder: Path) -> None:
    result = run("party", "list", "--config", folder / "uk.toml")
    assert result.status == 0, result.err
    fits(result.out)
    assert "The party is not running" in result.out
    assert THIRD.request_id[:8] in result.out and FIRST.request_id[:8] not in result.out
    assert f"Waiting for you: {THIRD.request_id[:8]}." in " ".join(result.out.split())
    whole = run("party", "list", "--all", "--json", "--config", folder / "uk.toml")
    found = json.loads(whole.out)["requests"]
    assert [each["id"] for each in found] == [each.request_id for each in (FIRST, SECOND, THIRD)]
    assert [each["waits"] for each in found] == [False, False, True]
    assert found[0]["title"] == "Stage\N{REPLACEMENT CHARACTER}[2J by sex"
    assert found[0]["reason"] == "REQUEST_DECLINED" and found[0]["detail"] == "too fine"
    assert found[2]["decisions"] == {"uk": "waiting", "us": "approved", "helper": "waiting"}
    shown = run("party", "list", "--all", "--config", folder / "uk.toml")
    fits(shown.out)
    assert "rejected" in shown.out


def test_with_a_daemon_the_list_is_its_own(run: Run, folder: Path, daemon: Answers) -> None:
    daemon["list"] = {"requests": [summary()]}
    result = run("party", "list", "--config", folder / "uk.toml")
    assert daemon["asked"] == [("list", {"all": False})]
    fits(result.out)
    assert "not running" not in result.out and "How many?" in result.out
    daemon["list"] = {"requests": []}
    assert "no open requests" in run("party", "list", "--config", folder / "uk.toml").out
    assert "There are no requests." in run("party", "list", "--all", "--config", folder / "uk.toml").out


def test_a_party_that_never_ran_has_no_ledger(run: Run, folder: Path) -> None:
    text = (
        (folder / "uk.toml")
        .read_text()
        .replace('dataset = "wilms-uk"', 'dataset = "wilms-uk"\nstate = "new"')
    )
    (folder / "new.toml").write_text(text)
    for command in (("party", "list"), ("budget", "show"), ("audit", "verify")):
        run(*command, "--config", folder / "new.toml").failed_with(2, "new: holds no ledger", "party serve")
    assert not (folder / "new").exists()


def test_show_explains(run: Run, folder: Path, daemon: Answers) -> None:
    daemon["show"] = {"request": summary(), "lines": LINES}
    result = run("party", "show", THIRD.request_id[:8].upper(), "--config", folder / "uk.toml")
    assert daemon["asked"] == [("show", {"id": THIRD.request_id[:8]})]
    fits(result.out)
    assert f"Request {THIRD.request_id}" in result.out
    assert "Being reviewed; approved us, helper; waiting uk." in result.out
    assert "! With two silos" in result.out
    whole = run("party", "show", THIRD.request_id, "--json", "--config", folder / "uk.toml")
    assert json.loads(whole.out)["lines"] == LINES


@pytest.mark.parametrize("id", ["abc", "x" * 8, "a" * 33, "../../x/"])
def test_what_is_no_id_is_not_asked_for(run: Run, folder: Path, daemon: Answers, id: str) -> None:
    run("party", "show", id, "--config", folder / "uk.toml").failed_with(2, "is not the id of a request")
    assert daemon["asked"] == []


def test_approve_shows_and_asks_first(
    run: Run, folder: Path, daemon: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon["show"] = {"request": summary(), "lines": LINES}
    decided = {"uk": "approved", "us": "approved", "helper": "approved"}
    daemon["approve"] = {"request": summary(state="APPROVED", decisions=decided, waits=False)}
    monkeypatch.setattr(operator, "_operator", lambda: "grace")
    monkeypatch.setattr("typer.confirm", lambda question: False)
    refused = run("party", "approve", THIRD.request_id[:8], "--config", folder / "uk.toml")
    assert refused.status == 130 and "nothing was decided" in refused.said
    assert [command for command, _ in daemon["asked"]] == ["show"]
    monkeypatch.setattr("typer.confirm", lambda question: True)
    result = run("party", "approve", THIRD.request_id[:8], "--config", folder / "uk.toml")
    assert result.status == 0 and "Preset count" in result.out
    assert daemon["asked"][-1] == ("approve", {"id": THIRD.request_id, "operator": "grace"})
    assert "It is approved; approved uk, us, helper." in " ".join(result.out.split())
    quick = run("party", "approve", THIRD.request_id[:8], "--yes", "--config", folder / "uk.toml")
    assert "Preset count" not in quick.out
    assert daemon["asked"][-1][1]["id"] == THIRD.request_id[:8]


@pytest.mark.parametrize(("command", "done"), [("reject", "Rejected"), ("withdraw", "Withdrawn")])
def test_reject_and_withdraw_say_why(
    run: Run, folder: Path, daemon: Answers, command: str, done: str
) -> None:
    daemon[command] = {"request": summary(state="REJECTED", reason="REQUEST_DECLINED")}
    config = ("--config", folder / "uk.toml")
    result = run("party", command, "a" * 8, "--reason", " too fine ", *config)
    ((_, fields),) = daemon["asked"]
    assert fields["reason"] == "too fine" and fields["operator"]
    assert done in result.out and "REQUEST_DECLINED" in result.out
    for reason in ("", "  ", "two\nlines", "x" * 501):
        run("party", command, "a" * 8, "--reason", reason, *config).failed_with(2, "--reason")
    assert run("party", command, "a" * 8, *config).status == 2


def test_a_failure_of_the_daemon_is_the_commands(run: Run, folder: Path, daemon: Answers) -> None:
    daemon["approve"] = RequestStateError("the request is RELEASED and stays so")
    result = run("party", "approve", "a" * 8, "--yes", "--config", folder / "uk.toml")
    result.failed_with(13, "stays so", "query status")


def test_what_needs_a_daemon_says_so(run: Run, folder: Path) -> None:
    for arguments in (("show", "a" * 8), ("approve", "a" * 8, "--yes"), ("recover",)):
        result = run("party", *arguments, "--config", folder / "uk.toml")
        result.failed_with(6, "this party is not running")


def test_recover_tells_what_was_taken_over(run: Run, folder: Path, daemon: Answers) -> None:
    adopted = {"request": SECOND.request_id, "analyst": "ada", "micro_epsilon": 500_000, "peer": "us"}
    daemon["recover"] = {"adopted": [adopted], "peers": ["us"], "missing": ["helper"]}
    result = run("party", "recover", "--config", folder / "uk.toml")
    fits(result.out)
    assert "One debit was missing" in result.out and "0.5" in result.out
    assert "Not reached: helper" in result.out
    daemon["recover"] = {"adopted": [], "peers": ["us", "helper"], "missing": []}
    said = run("party", "recover", "--config", folder / "uk.toml").out
    assert "No debit was missing" in said and "Not reached" not in said
    for words in (result.out, said):
        flat = " ".join(words.split())
        assert "handed in after the backup are not in this party's list: have them asked again" in flat
        assert "served at no cost" in flat
