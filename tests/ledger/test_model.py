"""Random histories with crashes, against a model of a few lines of plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from mpc_engine.errors import (
    BudgetError,
    EngineError,
    EquivocationError,
    QuestionBusyError,
    StaleSessionError,
)
from mpc_engine.ledger.charge import Charge, Limit, Scope
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.transaction import Transaction
from tests.ledger.books import SCOPES, memory, reopened, submit

LIMITS = [Limit(SCOPES[0], 10, 9), Limit(SCOPES[1], 7, None)]
REQUESTS = 4


class Histories(RuleBasedStateMachine):
    tickets: Bundle[str] = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.ledger: Ledger = memory()
        self.state: dict[str, str] = {}
        self.question: dict[str, str] = {}
        self.cost: dict[str, tuple[int, int]] = {}
        self.most_spent = 0
        self.count = 0
        self.seen = self.ledger.head()

    @initialize()
    def requests(self) -> None:
        with self.ledger.transaction() as tx:
            for number in range(REQUESTS):
                submit(tx, f"r{number}", key=f"k{number}")

    # --- the model's sums, from states alone ------------------------------------------------------

    def total(self, states: set[str], part: int) -> int:
        return sum(self.cost[ticket][part] for ticket, state in self.state.items() if state in states)

    def attempt(self, change: Callable[[Transaction], Any], expected: type[EngineError] | None) -> None:
        try:
            with self.ledger.transaction() as tx:
                change(tx)
        except EngineError as error:
            assert expected is not None and type(error) is expected, error
        else:
            assert expected is None

    # --- rules ------------------------------------------------------------------------------------

    @rule(
        target=tickets,
        request=st.integers(0, REQUESTS - 1),
        question=st.sampled_from("abcdef"),
        epsilon=st.integers(0, 4),
        delta=st.integers(0, 4),
    )
    def reserve(self, request: int, question: str, epsilon: int, delta: int) -> str:
        self.count += 1
        ticket = f"t{self.count}"
        taken = [self.total({*HELD, *SPENT}, part) for part in (0, 1)]
        busy = any(
            self.question[other] == question and state not in ("ABORTED", "LOST", "ADOPTED")
            for other, state in self.state.items()
        )
        expected: type[EngineError] | None = None
        if taken[0] + epsilon > 7 or taken[1] + delta > 9:
            expected = BudgetError
        elif busy:
            expected = QuestionBusyError
        self.attempt(
            lambda tx: tx.reserve(
                ticket,
                request=f"r{request}",
                question=question,
                charge=Charge(epsilon, delta),
                scopes=SCOPES,
                limits=LIMITS,
            ),
            expected,
        )
        if expected is None:
            self.state[ticket], self.question[ticket] = "RESERVED", question
            self.cost[ticket] = (epsilon, delta)
        return ticket

    @rule(
        ticket=tickets,
        target_state=st.sampled_from(["COMPUTING", "COMMITTED", "PATTERN", "OPENED", "SIGNED", "RELEASED"]),
    )
    def forward(self, ticket: str, target_state: str) -> None:
        if ticket not in self.state:
            return
        order = ["RESERVED", "COMPUTING", "COMMITTED", "PATTERN", "OPENED", "SIGNED", "RELEASED"]
        state = self.state[ticket]
        here, there = order.index(state) if state in order else 99, order.index(target_state)
        ahead = here == there - 1
        again = state in order and here >= there >= 3
        change: dict[str, Callable[[Transaction], Any]] = {
            "COMPUTING": lambda tx: tx.computing(ticket, f"s{ticket}"),
            "COMMITTED": lambda tx: tx.commit(ticket, b"facts", b"cipher text"),
            "PATTERN": lambda tx: tx.pattern(ticket, b"p" * 32),
            "OPENED": lambda tx: tx.opened(ticket, b"release", f"digest of {ticket}"),
            "SIGNED": lambda tx: tx.signed(ticket, b"receipt"),
            "RELEASED": lambda tx: tx.released(ticket),
        }
        self.attempt(change[target_state], None if ahead or again else StaleSessionError)
        if ahead:
            self.state[ticket] = target_state

    @rule(ticket=tickets)
    def run(self, ticket: str) -> None:
        """Bring a session to its commit, which single steps seldom do."""
        if self.state.get(ticket) == "RESERVED":
            self.forward(ticket, "COMPUTING")
            self.forward(ticket, "COMMITTED")

    @rule(ticket=tickets)
    def abort(self, ticket: str) -> None:
        if ticket in self.state:
            allowed = self.state[ticket] in HELD
            self.attempt(lambda tx: tx.abort(ticket, "ROUND_TIMEOUT"), None if allowed else StaleSessionError)
            if allowed:
                self.state[ticket] = "ABORTED"

    @rule(ticket=tickets)
    def lose(self, ticket: str) -> None:
        if ticket in self.state:
            allowed = self.state[ticket] in ("COMMITTED", "PATTERN", "OPENED")
            self.attempt(lambda tx: tx.lose(ticket, "GONE", b"words"), None if allowed else StaleSessionError)
            if allowed:
                self.state[ticket] = "LOST"

    @rule(ticket=tickets)
    def adopt(self, ticket: str) -> None:
        """A peer saw the debit, whatever became of it here; it may go over the limit."""
        cost = self.cost.setdefault(ticket, (1, 1))
        self.question.setdefault(ticket, "z")
        self.attempt(
            lambda tx: tx.adopt(
                ticket,
                request="r0",
                question=self.question[ticket],
                charge=Charge(*cost),
                scopes=SCOPES,
                peer="no",
                analyst_name="ada",
                project="colon",
            ),
            None,
        )
        if self.state.get(ticket, "ABORTED") in ("ABORTED", *HELD):
            self.state[ticket] = "ADOPTED"

    @rule(ticket=tickets)
    def second_release(self, ticket: str) -> None:
        if self.state.get(ticket) in ("OPENED", "SIGNED", "RELEASED"):
            self.attempt(lambda tx: tx.opened(ticket, b"another", "another"), EquivocationError)

    @rule()
    def crash(self) -> None:
        head = self.ledger.head()
        self.ledger = reopened(self.ledger)
        assert self.ledger.head() == head

    # --- invariants --------------------------------------------------------------------------------

    @invariant()
    def sums_agree_and_stay_within_the_limits(self) -> None:
        for scope in SCOPES:
            assert self.ledger.spent(scope) == Charge(self.total(SPENT, 0), self.total(SPENT, 1))
            assert self.ledger.held(scope) == Charge(self.total(HELD, 0), self.total(HELD, 1))
        adopted = self.total({"ADOPTED"}, 0), self.total({"ADOPTED"}, 1)
        all_of_it = self.ledger.spent(SCOPES[0]) + self.ledger.held(SCOPES[0])
        assert all_of_it.micro_epsilon - adopted[0] <= 7
        assert all_of_it.delta - adopted[1] <= 9
        assert self.ledger.spent(Scope("dataset", "another")) == Charge(0, 0)

    @invariant()
    def spent_never_decreases(self) -> None:
        spent = self.ledger.spent(SCOPES[0]).micro_epsilon
        assert spent >= self.most_spent
        self.most_spent = spent

    @invariant()
    def states_agree(self) -> None:
        assert {row.ticket: row.state for row in self.ledger.sessions()} == self.state

    @invariant()
    def the_chain_verifies_and_only_grows(self) -> None:
        head = self.ledger.verify()
        assert head.seq >= self.seen.seq
        assert self.ledger.bodies(0, self.seen.seq) == self.ledger.bodies(0, head.seq)[: self.seen.seq]
        self.seen = head


HELD = {"RESERVED", "COMPUTING"}
SPENT = {"COMMITTED", "PATTERN", "OPENED", "SIGNED", "RELEASED", "LOST", "ADOPTED"}

Histories.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestHistories = Histories.TestCase
