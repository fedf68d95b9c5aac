"""F3, F16 and F34 at a process: killed in the middle of computing, a wrong share, and counting that fails."""

from __future__ import annotations

import signal

import pytest

from mpc_engine.scenario.trial import NAMES
from tests.faults.parties import CHARGE, Parties
from tests.party.services import until


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
    """The snapshot is counted, and its operator learns that it is older than the file."""
    rows = parties.home("south") / "rows.csv"
    before = rows.read_bytes()
    rows.write_bytes(before + before.splitlines(keepends=True)[-1])
    try:
        told = parties.status("south")
        assert told["ready"] and told["records"]["newer"] == ["rows.csv has changed since"]
        with parties.client() as client:
            request = parties.ask_new(client)
            parties.end_of(request)
        until(lambda: parties.logged("south", "records.older"), "the log to tell")
    finally:
        rows.write_bytes(before)
    assert parties.status("south")["records"]["newer"] == []
    parties.quiet()
    assert parties.spent(request.id) == dict.fromkeys(NAMES, CHARGE)
    (line,) = parties.logged("south", "records.older")
    assert line["document"] == "source" and line["level"] == "warning"


@pytest.mark.parametrize("how", ["missing", "altered"])
def test_a_snapshot_that_is_not_whole_is_told_before_anybody_asks(parties: Parties, how: str) -> None:
    (snapshot,) = (parties.home("north") / "data").glob("snapshot-*.parquet")
    content = snapshot.read_bytes()
    snapshot.unlink()
    if how == "altered":
        snapshot.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        told = parties.status("north")
        assert told["missing"] == ["DATA"] and "missing or was altered" in told["records"]["fault"]
        until(lambda: not parties.serves("north", "mpc.Peer"), "the probe to tell")
        assert parties.serves("north", "mpc.Analyst")
        assert "mpc_engine_ready 0.0" in parties.metrics("north")
    finally:
        snapshot.write_bytes(content)
    until(lambda: parties.serves("north", "mpc.Peer"), "north to be ready again")
    with parties.client() as client:
        parties.end_of(parties.ask_new(client))


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
