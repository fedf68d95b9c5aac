"""F3, F16 and F34 at a process: killed in the middle of computing, a wrong share, and counting that fails."""

from __future__ import annotations

import signal

import pytest

from mpc_engine.scenario.trial import NAMES
from tests.faults.parties import CHARGE, Parties


@pytest.mark.parametrize("how", ["raise", "memory"])
@pytest.mark.parametrize("name", ["north", "south"])
def test_counting_that_fails(parties: Parties, name: str, how: str) -> None:
    parties.trap(name, "count", how=how)
    with parties.client() as client:
        request = parties.ask_new(client)
        status = parties.end_of(request, "RETURNED", "LOCAL_COMPUTE_FAILED")
    assert parties.caught(name) and name in status.detail
    parties.quiet()
    assert parties.spent(request.id) == dict.fromkeys(NAMES, 0)
    (line, *_) = [each for each in parties.log(name)[::-1] if each["event"] == "session.count_failed"]
    assert line["kind"] == ("ValueError" if how == "raise" else "MemoryError")


def test_a_source_file_that_changed_after_it_was_registered(parties: Parties) -> None:
    rows = parties.home("south") / "rows.csv"
    before = rows.read_bytes()
    rows.write_bytes(before + before.splitlines(keepends=True)[-1])
    with parties.client() as client:
        request = parties.ask_new(client)
        status = parties.end_of(request, "RETURNED", "LOCAL_COMPUTE_FAILED")
        assert "rows.csv" not in status.detail
    rows.write_bytes(before)
    parties.quiet()
    assert parties.spent(request.id) == dict.fromkeys(NAMES, 0)


@pytest.mark.parametrize(("name", "message"), [("south", 3), ("helper", 9)])
def test_a_party_is_killed_in_the_middle_of_computing(parties: Parties, name: str, message: int) -> None:
    parties.trap(name, "message", nth=message)
    with parties.client() as client:
        request = parties.ask_new(client)
        assert parties.ended(name) == -signal.SIGKILL
        parties.start(name)
        parties.end_of(request)
    parties.quiet()
    states = parties.states(request.id)
    assert all(found == ["ABORTED", "RELEASED"] for found in states.values()), states
    assert parties.spent(request.id) == dict.fromkeys(NAMES, CHARGE)


def test_a_wrong_share_of_an_opening(parties: Parties) -> None:
    """The helper sends a wrong share each time: nobody else ever holds a release, and all have paid."""
    parties.trap("helper", "VALUES", how="spoil")
    with parties.client() as client:
        request = parties.ask_new(client)
        parties.end_of(request, "RETURNED", "PUBLICATION_ABORT")
    parties.disarm("helper")
    parties.quiet()
    assert parties.spent(request.id) == dict.fromkeys(NAMES, CHARGE)
    assert parties.states(request.id) == {name: ["LOST"] for name in NAMES}
    reasons = set()
    for name in ("north", "south"):
        ledger = parties.ledger(name)
        (row,) = ledger.sessions_of(request.id)
        reasons.add(row.reason)
        assert ledger.release(row.ticket) is None and row.release_digest == ""
        ledger.close()
    assert "INTEGRITY_ABORT" in reasons
