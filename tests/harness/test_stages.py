"""What a stage must not hide: faults that fail or never come, its own failures, what it measured itself."""

from __future__ import annotations

import asyncio
import queue
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.errors import BudgetError, EngineError, PeerError, PolicyError, StoppedError
from mpc_engine.harness import children, fleet, wires
from mpc_engine.harness.audit import plan_of
from mpc_engine.harness.blocks import Table, Text
from mpc_engine.harness.chapters import cost as costs
from mpc_engine.harness.chapters.cost import cost
from mpc_engine.harness.chapters.robustness import robustness
from mpc_engine.harness.checks import judge
from mpc_engine.harness.checks.basic import REASONS
from mpc_engine.harness.children import Ends, LostError, Nursery
from mpc_engine.harness.fleet import Fleet
from mpc_engine.harness.network import UnavailableError, _busiest
from mpc_engine.harness.prediction import slowest
from mpc_engine.harness.processes import ANALYSTS
from mpc_engine.harness.stage import Ended
from mpc_engine.harness.wire import Wire
from mpc_engine.harness.wires import Wires
from mpc_engine.scenario.document import Network
from tests.harness.staged import NAMES, FakeStage, record, row, scenario_of
from tests.harness.test_memory_weather import latency, weather, within
from tests.harness.test_relay import segment

ASK = '[[ask]]\nname = "q"\nquery = "query.toml"\n'
KILL = '[[fault]]\nkind = "kill"\nparty = "two"\nafter_s = 0.5\n'


def failed(run: Any) -> list[str]:
    """Return the claims that do not hold."""
    return [f"{each.claim} {each.found}" for each in judge(run) if not each.holds]


# --- faults that never come -----------------------------------------------------------------------------


def test_every_fault_must_come(tmp_path: Path) -> None:
    """Nothing is shown by a scenario of faults in which none came; no other expectation needs to say so."""
    run = FakeStage(scenario_of(tmp_path, ASK + KILL + KILL.replace("0.5", "5"))).run()
    run.parties = {name: record(name, [row("t")]) for name in NAMES}
    assert failed(run) == ["Every fault comes. Never came: fault 1, `kill` at two."]
    run.faults[1].began_s = 0.7
    assert failed(run) == []
    run.faults.clear()
    assert not [each for each in judge(run) if "fault comes" in each.claim]


def test_a_fault_that_comes_after_a_question_nobody_took_is_missed(tmp_path: Path) -> None:
    run = FakeStage(scenario_of(tmp_path, ASK + KILL), {"q": [BudgetError("it is spent")]}).run()
    assert run.faults[0].began_s is None and any("fault 0" in each for each in failed(run))


# --- failures of the harness ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "state"),
    [
        (PolicyError("too much"), "REJECTED"),
        (BudgetError("it is spent"), "REJECTED"),
        (PeerError("it cannot be reached"), "UNKNOWN"),
        (StoppedError("it is being stopped"), "UNKNOWN"),
    ],
)
def test_only_a_partys_answer_is_a_refusal(tmp_path: Path, failure: EngineError, state: str) -> None:
    (asked,) = FakeStage(scenario_of(tmp_path, ASK), {"q": [failure]}).run().asked
    assert (asked.state, asked.reason, asked.detail) == (state, failure.reason, str(failure))


@pytest.mark.parametrize("failure", [LostError("it has ended by itself"), EngineError("it fell over")])
def test_what_fails_in_the_harness_ends_the_play(tmp_path: Path, failure: EngineError) -> None:
    """It was taken for a policy's refusal, and an expectation of one held."""
    with pytest.raises(type(failure), match=str(failure)):
        FakeStage(scenario_of(tmp_path, ASK), {"q": [failure]}).run()


def test_reasons_are_those_of_the_engine_alone() -> None:
    """Which modules happen to be imported does not widen what a party may say."""
    assert (
        not REASONS & {LostError.reason, UnavailableError.reason, "INTERNAL"}
        and BudgetError.reason in REASONS
    )


def test_of_questions_at_once_the_first_failure_is_raised(tmp_path: Path) -> None:
    class Late(FakeStage):
        async def wait(self, ask: object, request: str, wait_s: float) -> Ended:
            raise LostError("no answer")

    stage = Late(scenario_of(tmp_path, ASK + "together = 3\n"))
    with pytest.raises(LostError, match="no answer"):
        stage.run()
    assert stage.told[-1] == "exit"


# --- answers and orders ---------------------------------------------------------------------------------


def test_a_late_answer_of_the_relay_answers_no_other_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wires, "PATIENCE_S", 0.01)
    relay = Wires({}, seed=1)
    relay._process = mock.Mock()
    with pytest.raises(EngineError, match="did not answer"):
        relay.heal()
    relay._answers.put({"number": 1, "at": 1.0})  # to that
    relay._answers.put({"number": 2, "wires": [{"from": "a", "to": "b", "bytes": 5}]})
    assert relay.traffic() == {("a", "b"): {"bytes": 5}}
    relay._answers.put({"error": "it has ended"})
    with pytest.raises(EngineError, match="it has ended"):
        relay.heal()
    with pytest.raises(queue.Empty):
        relay._answers.get_nowait()


def test_a_late_answer_of_the_nursery_answers_no_other_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_ANSWER_S", 0.01)

    async def main() -> None:
        lines = asyncio.StreamReader()
        nursery: Any = Nursery()
        nursery._process = SimpleNamespace(stdin=mock.Mock(drain=mock.AsyncMock()), stdout=lines)
        with pytest.raises(LostError, match="no answer"):
            await nursery.poll(5)
        lines.feed_data(b'{"number": 1, "status": null}\n')
        lines.feed_data(b'{"number": 2, "status": 3, "cpu_s": 1.5, "peak_mib": 9.0}\n')
        assert await nursery.poll(5) == Ends(3, 1.5, 9.0)

    asyncio.run(main())


# --- what was measured ----------------------------------------------------------------------------------


def measured(folder: Path) -> Any:
    """Return a run with a session that the stage made itself, to measure."""

    class Measuring(FakeStage):
        measuring = frozenset({"m"})

        async def records(self) -> Any:
            rows = [row("t"), row("t2", request="m")]
            return {name: record(name, rows) for name in NAMES}

    text = ASK + KILL + '[[expect]]\nkind = "budget"\nspent = "0.5"\n'
    return Measuring(scenario_of(folder, text)).run()


def test_measuring_is_no_part_of_what_a_scenario_costs(tmp_path: Path) -> None:
    run = measured(tmp_path)
    assert failed(run) == []
    assert run.spent("two") == 500_000 and run.parties["two"].spent == 1_000_000
    assert run.faults[0].spent_after == dict.fromkeys(NAMES, 500_000)
    *_, parties = [each for each in robustness(run) if isinstance(each, Table)]
    assert [each[2] for each in parties.rows] == ["0.5"] * 3


def test_what_was_signed_is_not_lost_whoever_waited_for_it(tmp_path: Path) -> None:
    """Sessions for measuring, and those whose analyst had gone, were said to be lost."""
    run = measured(tmp_path)
    run.parties["two"] = record("two", [row("t"), row("t2", "SIGNED", request="m"), row("t3", "LOST")])
    run.asked[:] = [replace(each, release=None) for each in run.asked]
    said = next(each.text for each in robustness(run) if isinstance(each, Text))
    assert "Lost: 1 session paid for and not answered, ε = 0.5 in all." in said


def test_the_busiest_wire_is_one_between_parties() -> None:
    before = {pair: {"bytes": 5} for pair in (("a", "b"), ("b", "a"), ("a", ANALYSTS), (ANALYSTS, "a"))}
    after = {
        ("a", "b"): {"bytes": 8},
        ("b", "a"): {"bytes": 9},
        ("a", ANALYSTS): {"bytes": 99},
        (ANALYSTS, "a"): {"bytes": 77},
    }
    assert _busiest(before, after) == 4


def test_what_gone_processes_held_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process had used 900 MiB and its successor 40, which was all that was told."""
    monkeypatch.setattr(fleet, "peak_of", lambda pid: 40.0)
    monkeypatch.setattr(fleet, "last_words", lambda home: "")
    ends = {1: Ends(0, 3.0, 900.0)}
    nursery = mock.Mock(
        fork=mock.AsyncMock(side_effect=[1, 2]),
        poll=mock.AsyncMock(side_effect=lambda pid: ends.get(pid)),
    )
    homes: Any = {"us": None}
    made = Fleet(nursery, homes, lambda name: "")

    async def main() -> None:
        await made.start("us")
        assert made.usage("us", (0, 0)).rss_mib == 40.0
        assert await made.ended("us")
        await made.start("us")
        assert made.usage("us", (0, 0)).rss_mib == 900.0

    asyncio.run(main())


@given(st.floats(1, 200), st.floats(0, 50), st.integers(0, 2**32))
def test_jitter_is_the_same_everywhere(delay: float, jitter: float, seed: int) -> None:
    """In one process it was to both sides of the delay, over a network and in predictions on top."""
    network = Network(delay_ms=delay, jitter_ms=jitter)

    def main() -> None:
        of = weather(network, seed)
        found = [latency(of) * 1e3 for _ in range(50)]
        assert delay - 1e-9 <= min(found) and max(found) <= delay + jitter + 1e-9

    within(main)
    wire = Wire([seed])
    wire.weather(delay_ms=delay, jitter_ms=jitter)
    wire.take(segment(b"x"), 0.0)
    assert delay - 1e-9 <= wire.next_due * 1e3 <= delay + jitter + 1e-9


def test_delays_are_on_average_as_predicted() -> None:
    network = Network(delay_ms=50, jitter_ms=40)
    found: list[float] = []

    def main() -> None:
        of = weather(network, 4)
        found.extend(latency(of) * 1e3 for _ in range(4_000))

    within(main)
    assert np.mean(found) == pytest.approx(slowest(network, ["a", "b"]).delay_ms, abs=1)


# --- the agreed k ---------------------------------------------------------------------------------------


def test_costs_are_those_of_the_plan_with_the_agreed_k(tmp_path: Path) -> None:
    """The parties take the largest k of all policies; declared was what the query's own k costs."""
    run = FakeStage(scenario_of(tmp_path, ASK)).run()

    def declared(k: int) -> object:
        release = {"parameters": {"k": k, "epsilon": "0.5"}, "groups": []}
        run.asked[:] = [replace(each, release=release) for each in run.asked]
        table = next(each for each in cost(run) if isinstance(each, Table))
        found = table.rows[0][table.columns.index("bytes declared")]
        assert found == plan_of(run, run.asked[0]).sent_bytes
        return found

    assert declared(100) != declared(5)


def test_a_time_without_delay_needs_no_complete_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions that were measured say what computing takes, even if none of the scenario's was noted."""
    run = FakeStage(scenario_of(tmp_path, ASK)).run()
    release = {"parameters": {"k": 5, "epsilon": "0.5"}, "groups": []}
    run.asked[:] = [replace(each, release=release) for each in run.asked]
    monkeypatch.setattr(costs, "_compute", lambda *_: mock.Mock())
    assert len(cost(run)) == 2
