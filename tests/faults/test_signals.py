"""F10 and F33: a party is stopped in good order, or stands still, at each phase of a session."""

from __future__ import annotations

import os
import signal
import time

import pytest

from mpc_engine.party.failpoints import FAILPOINTS
from mpc_engine.scenario.trial import NAMES
from tests.faults.parties import CHARGE, Parties
from tests.party.services import until

BEFORE = FAILPOINTS[: FAILPOINTS.index("before_commit")]
NOTICED_S = 27.0
"""Keep-alive after 15 s of silence, ten more for the answer, and two for a busy machine."""


@pytest.mark.parametrize(("place", "name"), [(place, NAMES[i % 3]) for i, place in enumerate(FAILPOINTS)])
def test_a_party_is_stopped_in_good_order(parties: Parties, place: str, name: str) -> None:
    parties.trap(name, place, how="term")
    with parties.client() as client:
        request = parties.ask_new(client)
    assert parties.ended(name) == 0
    assert parties.log(name)[-1]["event"] == "party.stopped"
    ledger = parties.ledger(name)
    (row, *_) = ledger.sessions_of(request.id)
    ledger.close()
    if place in BEFORE:
        assert (row.state, row.reason) == ("ABORTED", "SHUTTING_DOWN")
    else:
        assert row.state in ("COMMITTED", "PATTERN", "OPENED", "SIGNED", "RELEASED")
    parties.start(name)
    parties.wait_ready()
    with parties.client() as client:
        parties.end_of(client.request(request.id))
    parties.quiet()
    assert parties.spent(request.id) == dict.fromkeys(NAMES, CHARGE)
    assert all(set(states[:-1]) <= {"ABORTED"} for states in parties.states(request.id).values())


def test_a_frozen_party_is_noticed_in_time(parties: Parties) -> None:
    os.kill(parties.pid("helper"), signal.SIGSTOP)
    since = time.monotonic()
    until(lambda: "PEER_UNAVAILABLE" in parties.status("north")["missing"], "north to notice")
    took = time.monotonic() - since
    print(f"noticed after {took:.1f} s")
    assert took < NOTICED_S
    with parties.client() as client:
        request = parties.ask_new(client)
        assert "helper to decide" in request.status().waiting_for
        os.kill(parties.pid("helper"), signal.SIGKILL)
        parties.ended("helper")
        parties.start("helper")
        parties.wait_ready()
        parties.end_of(request)
    assert parties.spent(request.id) == dict.fromkeys(NAMES, CHARGE)
