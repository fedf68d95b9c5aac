"""Budgets: what is held and spent of each scope, and what is refused."""

from __future__ import annotations

import pytest

from mpc_engine.errors import BudgetError
from mpc_engine.ledger.charge import NOTHING, Charge, Limit, Scope
from mpc_engine.ledger.rows import BudgetRow
from tests.ledger.books import (
    ANALYST,
    DATASET,
    ONE,
    PROJECT,
    SCOPES,
    TICKET,
    adopt,
    brought_to,
    memory,
    reopened,
    reserve,
    submit,
)

TEN = Limit(DATASET, 10_000_000, None)


def test_fifty_sessions_against_a_budget_for_ten() -> None:
    """Ten hold at a time; what is aborted goes to others, and in the end ten are spent."""
    ledger = memory()
    with ledger.transaction() as tx:
        for number in range(50):
            submit(tx, f"r{number}", key=f"k{number}")
    waiting, attempt, refused = list(range(50)), 0, 0
    while waiting and attempt < 200:
        number = waiting.pop(0)
        attempt += 1
        ticket = f"t{attempt}"
        try:
            with ledger.transaction() as tx:
                reserve(tx, ticket, f"r{number}", f"q{number}", limits=[TEN])
        except BudgetError:
            refused += 1
            if ledger.held(DATASET) != NOTHING:
                waiting.append(number)
                done = ledger.sessions("RESERVED", "COMPUTING")[0].ticket
                with ledger.transaction() as tx:
                    # Every third session fails before its commit.
                    if attempt % 3 == 0:
                        tx.abort(done, "PEER_UNAVAILABLE")
                    else:
                        tx.computing(done, f"s{done}")
                        tx.commit(done, b"", None)
        total = ledger.spent(DATASET) + ledger.held(DATASET)
        assert total.micro_epsilon <= 10_000_000
    assert len(ledger.sessions("COMMITTED")) == 10
    assert ledger.sessions("RESERVED") == []
    assert refused > 40 and ledger.spent(DATASET) == Charge(10_000_000, 10 * ONE.delta)
    reopened(ledger)


def test_a_budget_may_be_spent_to_its_last_unit_and_not_one_further() -> None:
    ledger = brought_to("NONE")
    limit = Limit(DATASET, 3, 5)
    with ledger.transaction() as tx:
        reserve(tx, "t1", question="q1", charge=Charge(2, 2), limits=[limit])
        for charge in (Charge(2, 0), Charge(0, 4)):
            with pytest.raises(BudgetError):
                reserve(tx, "t2", question="q2", charge=charge, limits=[limit])
        reserve(tx, "t2", question="q2", charge=Charge(1, 3), limits=[limit])
    assert ledger.budgets([limit]) == [BudgetRow(DATASET, NOTHING, Charge(3, 5), limit)]


def test_delta_is_counted_beyond_the_integers_of_the_database() -> None:
    ledger = brought_to("NONE")
    with ledger.transaction() as tx:
        for number in range(3):
            reserve(tx, f"t{number}", question=f"q{number}", charge=Charge(1, 2**99 + 1))
    assert ledger.held(DATASET) == Charge(3, 3 * 2**99 + 3)
    assert reopened(ledger).held(ANALYST) == Charge(3, 3 * 2**99 + 3)


def test_budgets_are_asked_in_one_order_and_the_first_that_lacks_is_named() -> None:
    ledger = brought_to("NONE")
    empty = [Limit(scope, 0, None) for scope in SCOPES]
    for limits, named in (
        (empty, 'analyst "ada"'),
        (empty[:2], 'project "colon"'),
        (empty[:1], 'data set "nordic"'),
    ):
        with pytest.raises(BudgetError, match=named), ledger.transaction() as tx:
            reserve(tx, limits=limits)
    with ledger.transaction() as tx:
        reserve(
            tx,
            limits=[Limit(Scope("project", "other"), 0, 0), *(Limit(scope, None, None) for scope in SCOPES)],
        )
    assert list(ledger.charges(TICKET)) == [ANALYST, PROJECT, DATASET]


def test_scopes_have_budgets_of_their_own() -> None:
    ledger = brought_to("COMMITTED")
    other = Scope("project", "other")
    with ledger.transaction() as tx:
        reserve(tx, "t2", question="q2", scopes=[other, DATASET, DATASET])
    assert (ledger.spent(DATASET), ledger.held(DATASET)) == (ONE, ONE)
    assert (ledger.spent(PROJECT), ledger.held(PROJECT)) == (ONE, NOTHING)
    assert (ledger.spent(other), ledger.held(other)) == (NOTHING, ONE)
    assert [line.ticket for line in ledger.spendings(DATASET)] == [TICKET, "t2"]
    assert [(line.ticket, line.state) for line in ledger.spendings(other)] == [("t2", "held")]
    assert [line.ticket for line in ledger.spendings()] == [TICKET, "t2"]


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("RESERVED", "held"),
        ("COMPUTING", "held"),
        ("COMMITTED", "spent, not released"),
        ("PATTERN", "spent, not released"),
        ("OPENED", "spent"),
        ("SIGNED", "spent"),
        ("RELEASED", "spent"),
        ("LOST", "spent, not released"),
        ("ADOPTED", "adopted"),
        ("ABORTED", "released"),
    ],
)
def test_what_people_are_shown(state: str, shown: str) -> None:
    (line,) = brought_to(state).spendings()
    assert (line.state, line.charge, line.analyst_name, line.project) == (shown, ONE, "ada", "colon")


def test_what_remains_is_never_negative() -> None:
    ledger = brought_to("NONE")
    with ledger.transaction() as tx:
        adopt(tx, Charge(5, 5))
    low, none = Limit(DATASET, 3, 9), Limit(DATASET, None, None)
    first, second = ledger.budgets([low, none])
    assert (first.remaining_micro_epsilon, first.remaining_delta) == (0, 4)
    assert (second.remaining_micro_epsilon, second.remaining_delta) == (None, None)
    with pytest.raises(BudgetError), ledger.transaction() as tx:
        reserve(tx, "t2", question="q2", charge=Charge(0, 1), limits=[low])
