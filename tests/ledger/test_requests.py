"""Requests, what is decided about them, and asking twice."""

from __future__ import annotations

import pytest

from mpc_engine.errors import EngineError, IdempotencyError, RequestStateError, UnknownRequestError
from mpc_engine.ledger.rows import OPEN_REQUEST, REQUEST_STATES
from tests.ledger.books import REQUEST, Clock, brought_to, memory, reopened, submit

FINAL = [state for state in REQUEST_STATES if state not in OPEN_REQUEST]


def test_the_same_request_again_is_the_same_row() -> None:
    ledger = memory()
    with ledger.transaction() as tx:
        first = submit(tx)
    head = ledger.head()
    with ledger.transaction() as tx:
        assert submit(tx) == first
        tx.settle(REQUEST, "APPROVED")
        assert submit(tx).state == "APPROVED"
    assert ledger.requests() == [ledger.request(REQUEST)]
    assert ledger.head().seq == head.seq + 1
    assert (first.state, first.analyst, first.received, first.ticket) == (
        "SUBMITTED",
        "sha256:ada",
        "2026-03-01T12:00:00Z",
        None,
    )


def test_another_question_under_the_same_key_is_refused_and_changes_nothing() -> None:
    ledger = brought_to("NONE")
    before = ledger.image()
    with pytest.raises(IdempotencyError), ledger.transaction() as tx:
        submit(tx, digest="another")
    assert ledger.image() == before


def test_an_id_that_does_not_follow_from_analyst_and_key_is_a_bug() -> None:
    ledger = brought_to("NONE")
    with pytest.raises(EngineError, match="does not follow"), ledger.transaction() as tx:
        submit(tx, "another id")
    with pytest.raises(EngineError, match="does not follow"), ledger.transaction() as tx:
        submit(tx, key="another key")


def test_a_partys_first_decision_stands() -> None:
    ledger = brought_to("NONE")
    with ledger.transaction() as tx:
        tx.decide(REQUEST, "se", "approved", by="Ingrid")
        tx.decide(REQUEST, "no", "rejected", "REQUEST_DECLINED", "not in the protocol")
        head = ledger.head()
        tx.decide(REQUEST, "se", "approved", "again", by="somebody else")
        assert ledger.head() == head
        with pytest.raises(RequestStateError, match="decided already: approved"):
            tx.decide(REQUEST, "se", "rejected")
        with pytest.raises(UnknownRequestError):
            tx.decide("nothing", "se", "approved")
    said = reopened(ledger).decisions(REQUEST)
    assert list(said) == ["se", "no"]
    assert (said["se"].by, said["se"].reason, said["no"].detail) == ("Ingrid", "", "not in the protocol")
    assert ledger.decisions("nothing") == {}


@pytest.mark.parametrize("before", REQUEST_STATES)
@pytest.mark.parametrize("after", REQUEST_STATES)
def test_open_states_change_and_final_ones_do_not(before: str, after: str) -> None:
    ledger = brought_to("NONE")
    with ledger.transaction() as tx:
        tx.settle(REQUEST, before, "FIRST")  # type: ignore[arg-type]
    head = ledger.head()
    with ledger.transaction() as tx:
        if before in FINAL and after != before:
            with pytest.raises(RequestStateError, match=f"is {before}"):
                tx.settle(REQUEST, after, "SECOND")  # type: ignore[arg-type]
        else:
            tx.settle(REQUEST, after, "SECOND")  # type: ignore[arg-type]
    row = ledger.request(REQUEST)
    assert row is not None and row.state == (before if before in FINAL else after)
    assert (ledger.head() == head) == (before in FINAL or before == after)
    reopened(ledger)


def test_settling_an_unknown_request() -> None:
    with pytest.raises(UnknownRequestError), memory().transaction() as tx:
        tx.settle("nothing", "APPROVED")


def test_a_request_answered_by_an_earlier_release_names_its_ticket() -> None:
    ledger = brought_to("RELEASED")
    with ledger.transaction() as tx:
        submit(tx, "second", key="another")
        tx.settle("second", "RELEASED", ticket="0" * 31 + "1")
    row = reopened(ledger).request("second")
    assert row is not None and row.ticket == "0" * 31 + "1"


def test_requests_are_listed_in_order_and_by_state_and_analyst() -> None:
    ledger = memory()
    with ledger.transaction() as tx:
        for name in "cab":
            submit(tx, name, key=name)
        tx.settle("a", "APPROVED")
    assert [row.id for row in ledger.requests()] == ["c", "a", "b"]
    assert [row.id for row in ledger.requests(states=["SUBMITTED"])] == ["c", "b"]
    assert [row.id for row in ledger.requests(states=("SUBMITTED", "APPROVED"), analyst="sha256:ada")] == [
        *"cab"
    ]
    assert ledger.requests(analyst="sha256:eve") == ledger.requests(states=[]) == []
    assert ledger.request("d") is None


def test_a_clock_that_goes_back_does_not_take_the_ledger_with_it() -> None:
    ledger = memory()
    clock = ledger._clock
    assert isinstance(clock, Clock)
    clock.move(minutes=10)
    with ledger.transaction() as tx:
        submit(tx)
    clock.move(days=-40)
    with ledger.transaction() as tx:
        tx.settle(REQUEST, "APPROVED")
    clock.move(days=41)
    with ledger.transaction() as tx:
        tx.settle(REQUEST, "WITHDRAWN")
    times = [entry.time_utc for entry in reopened(ledger).entries()]
    assert times == ["2026-03-01T12:00:00Z", *2 * ["2026-03-01T12:10:00Z"], "2026-03-02T12:10:00Z"]
