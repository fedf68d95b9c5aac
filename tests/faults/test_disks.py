"""F21 – F23: a full disk, a failing disk, and a kill at every sync call, at one party of a release."""

from __future__ import annotations

import signal

import pytest

from mpc_engine.errors import LedgerWriteError
from mpc_engine.ledger.chain import extend
from mpc_engine.scenario.trial import NAMES
from tests.faults.parties import CHARGE, Parties
from tests.faults.universal import SPENT, has_opened
from tests.party.services import until

SYNCS = "fsync,fdatasync"
TURNS = 6
"""So many tests share the sync calls of a release."""
FULL = """
from mpc_engine.party import serve
real = serve.free_bytes
serve.free_bytes = lambda folder: 0 if (home / "full").exists() else real(folder)
serve.LOOK_S = 0.2
"""
"""The disk counts as full while a file of this name is there."""


@pytest.mark.parametrize("place", ["begin", "before_commit", "before_opened", "after_opened"])
def test_no_space_for_what_a_session_writes(parties: Parties, place: str) -> None:
    parties.trap("south", place, how="stop")
    with parties.client() as client:
        request = parties.ask_new(client)
        parties.stopped("south")
        with parties.traced("south", "pwrite64", "error=ENOSPC") as failed:
            parties.go_on("south")
            until(failed, "south to fail to write")
            assert parties.status("south")["party"] == "south"
        status = parties.finished(request)
    parties.quiet()
    spent = parties.spent(request.id)
    if place == "before_commit" and status.state != "RELEASED":
        # The others had committed: they have paid, and nobody ever opens anything.
        assert status.reason == "PUBLICATION_ABORT" and spent["south"] == 0
    else:
        assert status.state == "RELEASED" and spent == dict.fromkeys(NAMES, CHARGE)


def test_a_party_on_a_full_disk_is_not_ready_until_there_is_space(parties: Parties) -> None:
    assert parties.stop("south") == [0]
    parties.start("south", program=FULL)
    parties.wait_ready()
    full = parties.home("south") / "full"
    full.touch()
    until(lambda: not parties.serves("south", "mpc.Peer"), "south not to be ready")
    assert parties.status("south")["missing"] == ["DISK_FULL"]
    assert parties.serves("south", "")
    full.unlink()
    until(lambda: parties.serves("south", "mpc.Peer"), "south to be ready again")


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_fails_in_the_commit_ends_the_process(parties: Parties, name: str) -> None:
    parties.trap(name, "before_commit", how="stop")
    with parties.client("south" if name == "north" else "north") as client:
        request = parties.ask_new(client)
        parties.stopped(name)
        with parties.traced(name, SYNCS, "error=EIO:when=1"):
            parties.go_on(name)
            assert parties.ended(name) == LedgerWriteError.exit_status
        rows = parties.sessions(request.id)
        assert not any(map(has_opened, rows)), "something was opened although one party has not paid"
        parties.start(name)
        parties.wait_ready()
        parties.finished(request)
    parties.quiet()


@pytest.mark.parametrize("turn", range(TURNS))
def test_a_kill_at_every_sync_call_of_a_release(parties: Parties, turn: int) -> None:
    """The calls of a whole session, from its beginning to the last message, are shared out in turns."""
    number, kills = turn + 1, 0
    while not survives(parties, "south", number):
        number, kills = number + TURNS, kills + 1
        assert number < 200
    print(f"killed at {kills} sync calls, the last before {number}")
    assert kills >= 2


def survives(parties: Parties, name: str, number: int) -> bool:
    """Kill a party at its n-th sync call; return whether a release has fewer."""
    with parties.client("south" if name == "north" else "north") as client:
        parties.trap(name, "begin", how="stop")
        request = parties.ask_new(client)
        parties.stopped(name)
        with parties.traced(name, SYNCS, f"signal=KILL:when={number}"):
            parties.go_on(name)
            process = parties.processes[name]

            def over() -> bool:
                return process.poll() is not None or done(parties, request.id)

            until(over, "a kill or the end of the session")
            killed = process.poll() is not None
        if killed:
            assert parties.ended(name) == -signal.SIGKILL
            parties.start(name)
        parties.wait_ready()
        every_commit_that_was_seen_is_there(parties, name)
        status = parties.finished(request)
    parties.quiet()
    assert status.state == "RELEASED" or status.reason == "PUBLICATION_ABORT"
    return not killed


def done(parties: Parties, request: str) -> bool:
    """Tell whether a request is released and its session over everywhere."""
    return all(states[-1:] == ["RELEASED"] for states in parties.states(request).values())


def every_commit_that_was_seen_is_there(parties: Parties, name: str) -> None:
    """Check that a party's ledger contains all that its peers have seen of it.

    It may have adopted some of it: earlier tests put back ledgers of the same parties.
    """
    ledger = parties.ledger(name)
    own, head = {row.ticket: row.state for row in ledger.sessions()}, ledger.head()
    for peer in NAMES:
        if peer != name:
            other = parties.ledger(peer)
            seen = other.witnessed(name)
            assert seen is None or extend(seen, ledger.bodies(seen.seq, head.seq)) == head
            for row in filter(has_opened, other.sessions()):
                assert own.get(row.ticket) in SPENT, (row.ticket, own.get(row.ticket))
            other.close()
    ledger.close()
