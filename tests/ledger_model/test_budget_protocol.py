"""The budget protocol, searched exhaustively, and the wrong protocols that the same search must catch.

Bounds of the search for the right protocol: three parties at degree 1, two tickets one after another for one
request, pattern and values as two openings; crashes, losses, repetitions and delays without bound. With a
sequencer that lies one ticket is enough, for its tickets do not touch one another. Not in the model: a disk
that comes back older than it was (the exchange of ledger heads sees to that), and records, rounds and
amounts of ε, of which every ticket is taken to cost one.
"""

from __future__ import annotations

import pytest

from tests.ledger_model.explorer import explore
from tests.ledger_model.invariants import Fault, Invariants
from tests.ledger_model.protocol import Model, Phase, Rules, State, Step

SPENT_TOO_LITTLE = (Fault.UNDER_COUNT, Fault.NOT_EVEN_HELD)

WRONG: dict[str, tuple[Rules, tuple[Fault, ...]]] = {
    "debit after opening": (
        Rules(debit="release", written_ahead=False, open_after="all reserved"),
        SPENT_TOO_LITTLE,
    ),
    "debit just before the own opening, refund at the deadline": (
        Rules(open_after="all reserved", refund=True, written_ahead=False, compare_openings=False),
        (*SPENT_TOO_LITTLE, Fault.TWO_RELEASES),
    ),
    "opening once all have reserved": (Rules(open_after="all reserved"), SPENT_TOO_LITTLE),
    "commit without the output share": (
        Rules(written_ahead=False, compare_openings=False),
        (Fault.TWO_RELEASES, Fault.UNDEBITED_DRAW),
    ),
    "a session run again after a crash": (
        Rules(rerun=True, compare_openings=False),
        (Fault.TWO_RELEASES, Fault.UNDEBITED_DRAW),
    ),
    "pattern opened before the commit": (Rules(pattern_before_commit=True), SPENT_TOO_LITTLE),
    "opening on a quorum of commits": (Rules(open_after="a quorum of commits"), SPENT_TOO_LITTLE),
    "shares destroyed on the own release": (Rules(shred="own release"), (Fault.STUCK,)),
    "refund after the commit": (Rules(refund=True), SPENT_TOO_LITTLE),
    "denial without a tombstone": (Rules(tombstone=False), (Fault.STUCK,)),
}


@pytest.mark.parametrize("tickets", [1, 2])
def test_the_protocol_keeps_every_promise_whoever_colludes(tickets: int) -> None:
    found = explore(Model(Rules(), tickets=tickets))
    print(found.report(f"the protocol, {tickets} tickets"))
    assert found.complete
    assert not found.traces, found.report("the protocol")
    assert found.states == {1: 310, 2: 35845}[tickets]  # a change of the model shows


@pytest.mark.parametrize(("liar", "tickets"), [(1, 1), (2, 1), (3, 1)])
def test_no_lie_of_one_party_makes_the_others_spend_too_little(liar: int, tickets: int) -> None:
    found = explore(Model(Rules(), tickets=tickets, liar=liar))
    print(found.report(f"party {liar} lies"))
    assert found.complete
    assert not found.traces, found.report(f"party {liar} lies")


@pytest.mark.parametrize("name", WRONG)
def test_wrong_protocols_are_caught(name: str) -> None:
    rules, expected = WRONG[name]
    found = explore(Model(rules, tickets=1), expected)
    print(found.report(name))
    assert found.traces.keys() == set(expected)


@pytest.mark.parametrize("name", WRONG)
def test_a_trace_leads_to_its_fault_and_nothing_shorter_does(name: str) -> None:
    rules, expected = WRONG[name]
    found = explore(Model(rules, tickets=1), expected)
    model = Model(rules, tickets=1)
    for fault, steps in found.traces.items():
        *before, last = model.replay(steps)
        assert fault in _faults(model, last)
        assert not any(fault in _faults(model, state) for state in before)


@pytest.mark.parametrize(
    "rules", [Rules(written_ahead=False), Rules(rerun=True)], ids=["not written ahead", "run again"]
)
def test_comparing_what_was_opened_is_a_second_line_of_defence(rules: Rules) -> None:
    found = explore(Model(rules, tickets=1))
    print(found.report("with equal openings demanded"))
    assert found.complete
    assert Fault.TWO_RELEASES not in found.traces


def test_every_phase_is_reached() -> None:
    model = Model(Rules(), tickets=1)
    seen, waiting = {model.start}, [model.start]
    while waiting:
        for _, after in model.successors(waiting.pop()):
            if after not in seen:
                seen.add(after)
                waiting.append(after)
    assert {part.phase for state in seen for part in state.parts} == set(Phase)


def _good_run() -> list[Step]:
    everyone = (1, 2, 3)
    steps = [Step("begin", 1, 1), Step("reserve", 2, 1), Step("reserve", 3, 1)]
    for action in ("join", "compute", "commit", "send commit", "open pattern", "learn pattern"):
        steps += [Step(action, party, 1) for party in everyone]
    for action in ("open values", "store", "release"):
        steps += [Step(action, party, 1) for party in everyone]
    return steps


def test_a_good_run_is_accepted_with_crashes_and_repetitions() -> None:
    model, steps = Model(Rules()), _good_run()
    for place in range(steps.index(Step("commit", 3, 1)) + 1, len(steps) + 1):
        crashed = [*steps[:place], Step("crash", 2, 1), *steps[place:]]
        *_, last = model.replay(crashed)
        assert [model.part(last, party, 1).phase for party in (1, 2, 3)] == [Phase.RELEASED] * 3
    again = Step("send commit", 1, 1)
    *_, last = model.replay([*steps[:-1], again, steps[-1]])
    assert model.part(last, 3, 1).phase is Phase.RELEASED


def test_a_run_that_leaves_the_protocol_is_refused() -> None:
    model, steps = Model(Rules()), _good_run()
    early = [step for step in steps if step != Step("send commit", 3, 1)]
    with pytest.raises(ValueError, match="party 1, ticket 1: open pattern"):
        list(model.replay(early))
    killed = steps[: steps.index(Step("commit", 2, 1))]
    with pytest.raises(ValueError, match="party 2, ticket 1: commit"):
        list(model.replay([*killed, Step("crash", 2, 1), Step("commit", 2, 1)]))
    with pytest.raises(ValueError, match="ticket 2: begin"):
        list(model.replay([*steps, Step("begin", 1, 2)]))


def _faults(model: Model, state: State) -> frozenset[Fault]:
    return Invariants(model).faults(state)
