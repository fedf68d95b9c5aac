"""`mpc-engine party approve` where there is nothing to approve, and what `list` says of served requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.registry import LINES, THIRD, Answers, fits, party_folder, running, summary

ID = THIRD.request_id[:8]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A party's folder."""
    return party_folder(tmp_path)


@pytest.fixture
def daemon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    """A daemon of the party, whose operator must not be asked anything."""

    def confirm(question: str) -> bool:
        raise AssertionError(question)

    monkeypatch.setattr("typer.confirm", confirm)
    with running(folder) as answers:
        yield answers


@pytest.mark.parametrize("state", ["RELEASED", "RETURNED", "REJECTED", "WITHDRAWN"])
def test_nobody_is_asked_about_a_request_that_has_ended(
    run: Run, folder: Path, daemon: Answers, state: str
) -> None:
    daemon["show"] = {"request": summary(state=state, waits=False), "lines": LINES}
    result = run("party", "approve", ID, "--config", folder / "uk.toml")
    result.failed_with(13, f"the request is {state.lower()}", "nothing to decide any more")
    assert "Preset count" not in result.out
    assert [command for command, _ in daemon["asked"]] == ["show"]


def test_nobody_is_asked_twice(run: Run, folder: Path, daemon: Answers) -> None:
    decided = {"uk": "approved", "us": "waiting", "helper": "approved"}
    daemon["show"] = {"request": summary(decisions=decided, waits=False), "lines": LINES}
    result = run("party", "approve", ID, "--config", folder / "uk.toml")
    assert result.status == 0 and "Preset count" not in result.out
    assert f"Approved already: request {ID}. It is being reviewed" in " ".join(result.out.split())
    assert [command for command, _ in daemon["asked"]] == ["show"]
    daemon["show"] = {"request": summary(decisions=decided | {"uk": "rejected"}, waits=False), "lines": LINES}
    run("party", "approve", ID, "--config", folder / "uk.toml").failed_with(13, "uk has rejected the request")


def test_the_list_says_which_requests_cost_nothing(run: Run, folder: Path, daemon: Answers) -> None:
    served = summary(state="RELEASED", waits=False, served_from="the release of 1a2b3c4d on 2026-03-01")
    daemon["list"] = {"requests": [served]}
    result = run("party", "list", "--all", "--config", folder / "uk.toml")
    fits(result.out)
    assert f"{ID}: served from the release of 1a2b3c4d on 2026-03-01; cost: nothing." in " ".join(
        result.out.split()
    )
    (row,) = [line for line in result.out.splitlines() if ID in line and ":" not in line.split()[0]]
    assert " 0 " in row and " 1 " not in row
