"""Outcomes, budgets, costs, detection, and the universal outcome, on runs made up by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.harness.blocks import Table
from mpc_engine.harness.chapters.robustness import robustness
from mpc_engine.harness.checks import judge
from mpc_engine.harness.checks.basic import universal
from mpc_engine.harness.notice import first_notice
from mpc_engine.harness.record import Asked, Noted, PartyRecord, Run, Usage, Verdict
from mpc_engine.harness.stage import Ended
from mpc_engine.ledger.charge import Charge
from mpc_engine.ledger.rows import SESSION_STATES, SessionRow
from tests.harness.staged import NAMES, FakeStage, record, row, scenario_of

ASK = '[[ask]]\nname = "q"\nquery = "query.toml"\ntimes = 2\n'


def played(folder: Path, text: str = "", ends: list[Ended] | None = None) -> Run:
    """Return a run in which a question was asked twice, and answered once, by all parties."""
    run = FakeStage(scenario_of(folder, ASK + text), {"q": ends or []}).run()
    run.asked[:] = [replace(asked, request="r1", ticket="t1") for asked in run.asked]
    run.parties = {name: record(name, [row()]) for name in NAMES}
    return run


def verdict(run: Run, words: str) -> Verdict:
    """Return the one verdict whose claim has these words."""
    (found,) = [each for each in judge(run) if words in each.claim]
    return found


def test_a_run_in_which_all_went_well(tmp_path: Path) -> None:
    verdicts = judge(played(tmp_path))
    assert [each.holds for each in verdicts] == [True, True, True], verdicts
    assert robustness(played(tmp_path)) == []


# --- outcomes ---------------------------------------------------------------------------------------


def expecting(kind: str, *lines: str) -> str:
    return "\n".join(["[[expect]]", f'kind = "{kind}"', *lines, ""])


@pytest.mark.parametrize(
    ("lines", "holds"),
    [
        (['state = "RELEASED"', "count = 1"], True),
        (['state = "RELEASED"'], False),
        (['state = "REJECTED"', 'reason = "BUDGET_EXCEEDED"', "count = 1"], True),
        (['state = "REJECTED"', 'reason = "POLICY_DENIED"', "count = 1"], False),
        (['state = "REJECTED"', "count = 0"], False),
        (['state = "WITHDRAWN"', "count = 0"], True),
    ],
)
def test_how_requests_end(tmp_path: Path, lines: list[str], holds: bool) -> None:
    ends = [Ended("RELEASED", release={}), Ended("REJECTED", "BUDGET_EXCEEDED", "All is spent.")]
    run = played(tmp_path, expecting("outcome", *lines), ends)
    found = verdict(run, "The question q ends")
    assert found.holds is holds
    assert "1 × REJECTED (BUDGET_EXCEEDED)" in found.found


def test_every_question_is_expected_to_be_answered(tmp_path: Path) -> None:
    run = played(tmp_path, ends=[Ended("RELEASED", release={}), Ended("APPROVED")])
    assert not verdict(run, "ends RELEASED").holds


def test_the_same_release(tmp_path: Path) -> None:
    run = played(tmp_path, expecting("same"))
    assert verdict(run, "one release, the same").holds and verdict(run, "paid for once").holds
    run.asked[1] = replace(run.asked[1], release={"values": [1]})
    assert not verdict(run, "one release, the same").holds
    run.asked[1] = replace(run.asked[1], request="r2", release={})
    run.parties["helper"] = record("helper", [row(), row("t2", request="r2")])
    assert verdict(run, "one release, the same").holds
    assert not verdict(run, "paid for once").holds


@pytest.mark.parametrize(("spent", "holds"), [("0.5", True), ("0.500001", False), ("0.499999", False)])
def test_budgets_are_exact(tmp_path: Path, spent: str, holds: bool) -> None:
    assert verdict(played(tmp_path, expecting("budget", f'spent = "{spent}"')), "in all").holds is holds


def test_the_budget_of_one_party(tmp_path: Path) -> None:
    run = played(tmp_path, expecting("budget", 'spent = "1"', 'party = "two"'))
    run.parties["two"] = record("two", [row(), row("t2")])
    assert verdict(run, "costs two").holds


# --- faults -----------------------------------------------------------------------------------------

FAULT = '[[fault]]\nkind = "kill"\nparty = "two"\n'


def noted(at_s: float, event: str = "session.aborted", **fields: str) -> Noted:
    return Noted(at_s, event, fields)


@pytest.mark.parametrize(
    ("lines", "journal", "holds"),
    [
        (["within_s = 2"], [noted(11.5, reason="PEER_UNAVAILABLE")], True),
        (["within_s = 1"], [noted(11.5, reason="PEER_UNAVAILABLE")], False),
        (["within_s = 1"], [noted(10.2, "line.down", peer="two")], True),
        (["within_s = 1"], [noted(10.2, "line.down", peer="helper")], False),
        (["within_s = 1"], [noted(9.0, reason="PEER_UNAVAILABLE")], False),
        (["within_s = 9", 'reason = "ROUND_TIMEOUT"'], [noted(11, reason="PEER_UNAVAILABLE")], False),
        (
            ["within_s = 9", 'reason = "ROUND_TIMEOUT"'],
            [noted(11, reason="PEER_UNAVAILABLE"), noted(12, reason="ROUND_TIMEOUT")],
            True,
        ),
        (["within_s = 9"], [noted(11, "session.released")], False),
    ],
)
def test_who_notices_a_fault(tmp_path: Path, lines: list[str], journal: list[Noted], holds: bool) -> None:
    run = played(tmp_path, FAULT + expecting("detected", *lines))
    run.faults[0].began_s = 10.0
    run.parties["one"].journal = tuple(journal)
    (found,) = [each for each in judge(run) if "detected" in each.claim or "notice" in each.claim]
    assert found.holds is holds, found


def test_its_own_journal_tells_nothing_of_who_noticed(tmp_path: Path) -> None:
    run = played(tmp_path, FAULT + expecting("detected", "within_s = 9"))
    run.faults[0].began_s = 10.0
    run.parties["two"].journal = (noted(10.5, reason="SHUTTING_DOWN"),)
    assert not verdict(run, "notice").holds


def test_what_is_noted_long_after_a_fault_has_another_cause(tmp_path: Path) -> None:
    run = played(tmp_path, FAULT + expecting("detected", "within_s = 90"))
    run.faults[0].began_s = 10.0
    run.parties["one"].journal = (noted(30, reason="PEER_UNAVAILABLE"),)
    assert verdict(run, "notice").holds
    run.faults[0].ended_s = 20.0
    assert not verdict(run, "notice").holds


def test_a_fault_that_never_came(tmp_path: Path) -> None:
    run = played(tmp_path, FAULT + expecting("detected", "within_s = 9"))
    run.faults[0].began_s = None
    assert verdict(run, "notice").found == "The fault never came."


def test_the_chapter_tells_of_faults(tmp_path: Path) -> None:
    run = played(tmp_path, FAULT)
    happened = run.faults[0]
    happened.began_s, happened.ended_s = 10.0, 12.5
    happened.spent_before = {"one": 0, "two": 500_000, "helper": 500_000}
    happened.spent_after = dict.fromkeys(NAMES, 500_000)
    run.parties["one"].journal = (
        noted(10.25, "line.down", peer="two"),
        noted(11, reason="PEER_UNAVAILABLE"),
    )
    first = first_notice(run, happened)
    assert first is not None
    happened.noticed_s, happened.by, happened.reason = first.at_s, first.by, first.reason
    faults, requests, parties = [each for each in robustness(run) if isinstance(each, Table)]
    ((kind, *_, at, noticed, by, reason, ended, over, before, after),) = faults.rows
    assert (kind, at, noticed, by, reason) == ("kill two", 10.0, 0.25, "one", "LINE_DOWN")
    assert (ended, over, before, after) == (1.0, 2.5, "0 to 0.5", "0.5")
    assert len(requests.rows) == 2 and [each[0] for each in parties.rows] == list(NAMES)


# --- cost -------------------------------------------------------------------------------------------


def released(run: Run) -> Run:
    """Return a run whose releases state k, from which their plan follows."""
    release = {"parameters": {"k": 5, "epsilon": "0.5"}, "groups": []}
    run.asked[:] = [replace(asked, release=release) for asked in run.asked]
    return run


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("rounds = 17", True),
        ("rounds = 16", False),
        ("control_rounds = 6", True),
        ("control_rounds = 5", False),
        ("bytes_per_cell = 200", True),
        ("bytes_per_cell = 199", False),
        ("cpu_us_per_cell = 10_000", True),
        ("cpu_us_per_cell = 9_999", False),
        ("rss_mib = 120", True),
        ("rss_mib = 119", False),
    ],
)
def test_what_a_session_may_cost(tmp_path: Path, line: str, holds: bool) -> None:
    run = released(played(tmp_path, expecting("cost", line)))
    meter = {"rounds": 17, "control_rounds": 6, "cpu_s": 0.02}
    sent = {"one": 300, "two": 400, "helper": 500}  # of two cells
    run.further["meters"] = {"t1": {name: meter | {"sent_bytes": sent[name]} for name in NAMES}}
    run.parties["two"].usage = Usage(rss_mib=120)
    assert verdict(run, "A session of q #1").holds is holds


def test_what_was_not_measured_is_not_as_expected(tmp_path: Path) -> None:
    found = verdict(released(played(tmp_path, expecting("cost", "rounds = 17"))), "can be looked at")
    assert not found.holds and "nobody measured" in found.found


# --- always -----------------------------------------------------------------------------------------


def test_a_party_that_does_not_serve(tmp_path: Path) -> None:
    run = played(tmp_path)
    run.parties["two"].serves = False
    found = verdict(run, "serve in the end")
    assert not found.holds and "two did not" in found.found


Spoil = Callable[[Run], Any]


def _sessions(name: str, *rows: SessionRow, **changes: Any) -> Spoil:
    return lambda run: run.parties.__setitem__(name, record(name, rows, **changes))


def _asked(**changes: Any) -> Spoil:
    return lambda run: run.asked.__setitem__(0, replace(run.asked[0], **changes))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_asked(state="REJECTED", reason="INTERNAL"), "undocumented reason INTERNAL"),
        (_asked(state="RETURNED", reason=""), "without a reason"),
        (_asked(release=None), "without its release"),
        (_sessions("two", row(), verified=False), "chain of two"),
        (_sessions("two", row(), spent=499_999), "two has spent 499999"),
        (_sessions("two", row(), row("t2", question="question of t1")), "answered a question twice"),
        (_sessions("two", row(), row("t2", "COMMITTED")), "still COMMITTED at two"),
        (_sessions("two", row(), row("t2", "ABORTED", reason="INTERNAL")), "undocumented reason INTERNAL"),
        (_sessions("two", row(release_digest="d2")), "2 releases"),
        (_sessions("two"), "two had not paid"),
        (_sessions("two", row(state="ABORTED", reason="SHUTTING_DOWN")), "two had not paid"),
        (_sessions("two", row(charge=Charge(499_999))), "did not cost all parties the same"),
    ],
)
def test_each_breach_of_the_universal_outcome_is_found(tmp_path: Path, spoil: Spoil, words: str) -> None:
    run = played(tmp_path)
    assert universal(run).holds
    spoil(run)
    found = universal(run)
    assert not found.holds and words in found.found


def test_a_pattern_that_a_lost_session_saw_is_paid_for_by_all(tmp_path: Path) -> None:
    run = played(tmp_path)
    run.asked[0] = replace(run.asked[0], state="RETURNED", reason="PUBLICATION_ABORT", release=None)
    lost = record("one", [row(state="LOST", reason="INTEGRITY_ABORT", pattern_hash=b"p")])
    ended = [row(state="ABORTED", reason="PEER_UNAVAILABLE")]
    run.parties = {"one": lost, **{name: record(name, ended) for name in ("two", "helper")}}
    assert "had not paid" in universal(run).found


def test_what_the_universal_outcome_allows(tmp_path: Path) -> None:
    run = played(tmp_path)
    aborted = row("t0", "ABORTED", reason="PEER_UNAVAILABLE")
    lost = row("t2", "LOST", reason="INTEGRITY_ABORT")
    run.parties = {
        "one": record("one", [aborted, row(), lost]),
        # a session that a party never heard of, and debits that it took over from what peers witnessed
        "two": record("two", [row(state="ADOPTED"), row("t2", "ADOPTED")]),
        "helper": record("helper", [aborted, row(), lost]),
    }
    assert universal(run).holds, universal(run)


@given(st.lists(st.sampled_from(SESSION_STATES), min_size=3, max_size=3))
def test_nothing_opened_is_unpaid(states: list[str]) -> None:
    """Against the promise in other words: if anyone opened, everyone has paid; and nothing is half done."""
    paying = {"RELEASED", "LOST", "ADOPTED"}
    parties: dict[str, PartyRecord] = {
        name: record(name, [row(state=state)]) for name, state in zip(NAMES, states, strict=True)
    }
    ended = set(states) <= paying | {"ABORTED"}
    opened = "RELEASED" in states
    run = Run.__new__(Run)
    run.asked, run.parties = list[Asked](), parties
    for party in parties.values():
        party.spent = 500_000 * (party.sessions[0].state not in ("RESERVED", "COMPUTING", "ABORTED"))
    assert universal(run).holds == (ended and (not opened or set(states) <= paying))
