"""F1 – F5: a party is killed at a named place of a session, and started again."""

from __future__ import annotations

import signal

import pytest

from mpc_engine.party.failpoints import FAILPOINTS
from mpc_engine.scenario.trial import NAMES
from tests.faults.parties import CHARGE, Parties
from tests.faults.universal import has_opened

COMMITTED = FAILPOINTS[FAILPOINTS.index("after_commit") :]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", FAILPOINTS)
def test_a_party_is_killed_at_a_named_place(parties: Parties, place: str, name: str) -> None:
    with parties.client() as client:
        parties.trap(name, place)
        request = parties.ask_new(client)
    assert parties.ended(name) == -signal.SIGKILL
    parties.start(name)
    parties.wait_ready()
    with parties.client() as client:
        status = parties.finished(client.request(request.id))
    parties.quiet()
    sessions, spent = parties.states(request.id), parties.spent(request.id)
    if place in COMMITTED:
        # What was committed is published from what was stored: one session, one debit.
        assert sessions == {each: ["RELEASED"] for each in NAMES}
    elif status.state == "RELEASED":
        # The first attempt has ended for good and cost nothing; another one was made.
        assert all(states[-1] == "RELEASED" for states in sessions.values())
        assert all(set(states[:-1]) <= {"ABORTED"} for states in sessions.values())
    else:
        # The others had committed when this one had not: they have paid, and nobody ever opens anything.
        assert place == "before_commit" and status.reason == "PUBLICATION_ABORT"
        assert sessions[name] == ["ABORTED"] and spent[name] == 0
        assert not {state for states in sessions.values() for state in states} - {"ABORTED", "LOST"}
        for each in NAMES:
            ledger = parties.ledger(each)
            assert not [row for row in ledger.sessions_of(request.id) if has_opened(row)], each
            ledger.close()
    assert set(spent.values()) <= {0, CHARGE}
    if status.state == "RELEASED":
        assert set(spent.values()) == {CHARGE}
