"""The course of a session: every change from every state."""

from __future__ import annotations

import pytest

from mpc_engine.errors import (
    DocumentError,
    EngineError,
    EquivocationError,
    QuestionBusyError,
    RequestStateError,
    StaleSessionError,
    UnknownRequestError,
    UnknownSessionError,
)
from mpc_engine.ledger.charge import NOTHING, Charge, Scope
from mpc_engine.ledger.rows import SESSION_STATES
from tests.ledger.books import (
    DATASET,
    ONE,
    OTHER_HASH,
    REQUEST,
    SCOPES,
    STEPS,
    TICKET,
    WAY,
    adopt,
    brought_to,
    memory,
    reopened,
    reserve,
    submit,
)

ALLOWED = {
    "COMPUTING": {"RESERVED"},
    "COMMITTED": {"COMPUTING"},
    "PATTERN": {"COMMITTED"},
    "OPENED": {"PATTERN"},
    "SIGNED": {"OPENED"},
    "RELEASED": {"SIGNED"},
    "ABORTED": {"RESERVED", "COMPUTING"},
    "LOST": {"COMMITTED", "PATTERN", "OPENED"},
    "ADOPTED": {"RESERVED", "COMPUTING", "ABORTED"},
}
IGNORED = {
    "PATTERN": {"PATTERN", "OPENED", "SIGNED", "RELEASED"},
    "OPENED": {"OPENED", "SIGNED", "RELEASED"},
    "SIGNED": {"SIGNED", "RELEASED"},
    "RELEASED": {"RELEASED"},
    "ADOPTED": {"COMMITTED", "PATTERN", "OPENED", "SIGNED", "RELEASED", "LOST", "ADOPTED"},
}
SPENT = {"COMMITTED", "PATTERN", "OPENED", "SIGNED", "RELEASED", "LOST", "ADOPTED"}


@pytest.mark.parametrize("state", SESSION_STATES)
@pytest.mark.parametrize("change", ["RESERVED", *ALLOWED])
def test_every_change_from_every_state(state: str, change: str) -> None:
    ledger = brought_to(state)
    before = ledger.session(TICKET), ledger.head(), ledger.spent(DATASET), ledger.held(DATASET)
    if state in ALLOWED.get(change, ()):
        with ledger.transaction() as tx:
            STEPS[change](tx)
        row = ledger.session(TICKET)
        assert row is not None and row.state == change
        assert ledger.spent(DATASET) == (ONE if change in SPENT else NOTHING)
        assert ledger.held(DATASET) == (ONE if change == "COMPUTING" else NOTHING)
    else:
        with ledger.transaction() as tx:
            if state in IGNORED.get(change, ()):
                STEPS[change](tx)
            else:
                with pytest.raises(StaleSessionError):
                    STEPS[change](tx)
        assert (ledger.session(TICKET), ledger.head(), ledger.spent(DATASET), ledger.held(DATASET)) == before
    assert reopened(ledger).session(TICKET) == ledger.session(TICKET)


@pytest.mark.parametrize("change", [change for change in ALLOWED if change != "ADOPTED"])
def test_an_unknown_ticket(change: str) -> None:
    ledger = brought_to("NONE")
    with pytest.raises(UnknownSessionError), ledger.transaction() as tx:
        STEPS[change](tx)


@pytest.mark.parametrize("state", SESSION_STATES)
def test_who_has_stored_the_release(state: str) -> None:
    ledger = brought_to(state)
    if state in WAY[2:]:
        with ledger.transaction() as tx:
            assert tx.stored(TICKET, "no") == {"no"}
            assert tx.stored(TICKET, "dk") == {"no", "dk"}
            head = ledger.head()
            assert tx.stored(TICKET, "no") == {"no", "dk"}
            assert ledger.head() == head
        row = reopened(ledger).session(TICKET)
        assert row is not None and row.stored_by == {"no", "dk"}
    else:
        with pytest.raises(StaleSessionError), ledger.transaction() as tx:
            tx.stored(TICKET, "no")


def test_a_whole_session_and_what_it_leaves() -> None:
    ledger = brought_to("SIGNED")
    row = ledger.session(TICKET)
    assert row is not None and row.head_after is not None
    assert (row.request, row.question, row.session_id, row.charge) == (REQUEST, "q1", "s1", ONE)
    assert (row.facts, row.release_digest, row.analyst_name) == (b"facts", "digest", "ada")
    assert row.head_before.seq == row.head_after.seq - 2
    assert next(ledger.entries(row.head_after.seq - 1)).entry_hash == row.head_after.hash
    assert ledger.sealed(TICKET) == b"cipher text"
    assert ledger.released_for("q1") == TICKET
    with ledger.transaction() as tx:
        tx.released(TICKET)
        tx.settle(REQUEST, "RELEASED", ticket=TICKET)
    assert ledger.sealed(TICKET) is None
    assert b"cipher text" not in ledger.image()
    assert (ledger.release(TICKET), ledger.receipt(TICKET)) == (b"release", b"receipt")
    assert ledger.released_for("q2") is None
    assert [each.ticket for each in ledger.sessions("RELEASED", "OPENED")] == [TICKET]
    assert ledger.sessions("OPENED") == []
    assert ledger.sessions_of(REQUEST) == ledger.sessions() == [ledger.session(TICKET)]


def test_reserve_and_commit_return_the_heads_that_the_row_keeps() -> None:
    ledger = brought_to("NONE")
    with ledger.transaction() as tx:
        first = tx.reserve(TICKET, request=REQUEST, question="q", charge=ONE, scopes=SCOPES, limits=())
        assert first == ledger.head()
        tx.computing(TICKET, "s")
        second = tx.commit(TICKET, b"", None)
    row = ledger.session(TICKET)
    assert row is not None and (row.head_before, row.head_after) == (first, second)
    assert ledger.head() == second


def test_a_session_id_is_never_used_twice() -> None:
    ledger = brought_to("ABORTED")
    with ledger.transaction() as tx:
        reserve(tx, "t2")
        with pytest.raises(StaleSessionError, match="was run before"):
            tx.computing("t2", "s1")
        tx.computing("t2", "s2")


def test_two_patterns_or_releases_or_receipts_for_one_session_are_equivocation() -> None:
    ledger = brought_to("SIGNED")
    before = ledger.image()
    for change in (
        lambda tx: tx.pattern(TICKET, OTHER_HASH),
        lambda tx: tx.opened(TICKET, b"another", "another digest"),
        lambda tx: tx.signed(TICKET, b"another"),
    ):
        with pytest.raises(EquivocationError), ledger.transaction() as tx:
            change(tx)
    assert ledger.image() == before


def test_a_lost_session_keeps_the_debit_the_evidence_and_no_shares() -> None:
    ledger = brought_to("LOST")
    row = ledger.session(TICKET)
    assert row is not None and row.reason == "PUBLICATION_ABORT"
    assert ledger.sealed(TICKET) is None
    assert ledger.evidence(TICKET) == b"signed words"
    assert [line.state for line in ledger.spendings()] == ["spent, not released"]


@pytest.mark.parametrize(
    "state", ["RESERVED", "COMPUTING", "COMMITTED", "PATTERN", "OPENED", "SIGNED", "RELEASED"]
)
def test_a_question_has_one_session_at_a_time_and_one_release_for_ever(state: str) -> None:
    ledger = brought_to(state)
    answering = ledger.answering("q1")
    assert answering is not None and answering.ticket == TICKET
    with ledger.transaction() as tx:
        submit(tx, "other", key="another")
        with pytest.raises(QuestionBusyError, match="same question"):
            reserve(tx, "t2", "other", "q1")
        reserve(tx, "t3", "other", "q2")


@pytest.mark.parametrize("state", ["ABORTED", "LOST"])
def test_a_question_that_was_not_answered_may_be_asked_again(state: str) -> None:
    ledger = brought_to(state)
    assert ledger.answering("q1") is None
    with ledger.transaction() as tx:
        reserve(tx, "t2")
    request = ledger.request(REQUEST)
    assert request is not None and (request.ticket, request.question) == ("t2", "q1")


def test_reserving_needs_an_open_request_and_a_charge() -> None:
    ledger = memory()
    with pytest.raises(UnknownRequestError), ledger.transaction() as tx:
        reserve(tx)
    with ledger.transaction() as tx:
        submit(tx)
        for charge, scopes in (
            (Charge(-1), SCOPES),
            (ONE, ()),
            (Charge(10**16), SCOPES),
            (Charge(0, -1), SCOPES),
        ):
            with pytest.raises(DocumentError):
                reserve(tx, charge=charge, scopes=scopes)
        tx.settle(REQUEST, "WITHDRAWN")
        with pytest.raises(RequestStateError, match="WITHDRAWN"):
            reserve(tx)
    assert ledger.sessions() == []


def test_adopting_a_debit_of_another_size_takes_the_greater_and_all_scopes() -> None:
    ledger = brought_to("ABORTED")
    other = Scope("project", "other")
    with ledger.transaction() as tx:
        adopt(tx, Charge(2_000_000, 1), [DATASET, other])
    greater = Charge(2_000_000, ONE.delta)
    assert ledger.spent(DATASET) == greater
    assert ledger.spent(SCOPES[1]) == greater
    assert ledger.spent(other) == Charge(2_000_000, 1)
    assert [(line.state, line.charge) for line in ledger.spendings()] == [("adopted", greater)]
    reopened(ledger)


def test_a_restored_release_answers_the_question_again() -> None:
    ledger = brought_to("ADOPTED")
    assert ledger.released_for("q1") is None
    for _ in range(2):
        with ledger.transaction() as tx:
            tx.restore(TICKET, b"release", "digest", b"receipt")
    assert ledger.released_for("q1") == TICKET
    with pytest.raises(EquivocationError), ledger.transaction() as tx:
        tx.restore(TICKET, b"release", "digest", b"another")
    with pytest.raises(UnknownSessionError), ledger.transaction() as tx:
        tx.restore("t9", b"", "", b"")
    assert reopened(ledger).release(TICKET) == b"release"
    with pytest.raises(StaleSessionError), brought_to("COMMITTED").transaction() as tx:
        tx.restore(TICKET, b"release", "digest", b"receipt")


def test_a_change_that_fails_leaves_nothing_behind_even_if_the_transaction_goes_on() -> None:
    ledger = brought_to("RESERVED")
    with ledger.transaction() as tx:
        submit(tx, "other", key="another")
        with pytest.raises(RequestStateError):
            reserve(tx, "t2", "other", "q1")
        tx.note("went-on", {})
    assert ledger.charges("t2") == {}
    assert [entry.kind for entry in ledger.entries()][-2:] == ["submitted", "went-on"]
    reopened(ledger)


def test_what_raises_inside_a_transaction_takes_all_of_it_back() -> None:
    ledger = brought_to("NONE")
    before = ledger.image()
    with pytest.raises(KeyError), ledger.transaction() as tx:
        reserve(tx)
        tx.post("no", "kind", b"body")
        raise KeyError
    assert ledger.image() == before
    with ledger.transaction() as tx:
        reserve(tx)


def test_transactions_do_not_nest_and_end_with_their_block() -> None:
    ledger = brought_to("NONE")
    with ledger.transaction() as tx, pytest.raises(EngineError, match="open already"), ledger.transaction():
        pass
    with pytest.raises(EngineError, match="in transactions only"):
        reserve(tx)
    with pytest.raises(EngineError, match="in transactions only"):
        tx.acknowledge("no", 1)
    assert ledger.sessions() == []
