"""Timelines: where a session's time goes, against trips counted by hand and against virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.harness.play import play
from mpc_engine.harness.record import Noted, Run
from mpc_engine.harness.timeline import PHASES, Timeline, timelines, timelines_of, trips_of, waves
from mpc_engine.party.proposal import propose
from mpc_engine.release.blocks import CELLS_IN_FLIGHT
from mpc_engine.scenario.document import Scenario, load_scenario

ROOT = Path(__file__).parents[2]
TICKET = "ab" * 16
DELAY_S = 0.04


@contextmanager
def played(**changes: Any) -> Iterator[Run]:
    """Play the first question of the Wilms study in memory, where computing takes no time."""
    wilms = load_scenario(ROOT / "scenarios/wilms.toml")
    fields = {"ask": wilms.ask[:1], "expect": (), **changes}
    run = play(wilms.model_copy(update=fields), "memory")
    try:
        yield run
    finally:
        run.close()


def noted(**marks: float) -> list[Noted]:
    """Return a journal of one session in which a party passed these events, phases and sections."""
    events = {
        "reserved": "session.reserved",
        "committed": "session.committed",
        "released": "session.released",
    }
    sections = ("prepare", "input", "test", "pattern", "values")
    found = []
    for mark, at_s in marks.items():
        if mark in events:
            found.append(Noted(at_s, events[mark], {"ticket": TICKET}))
        elif mark in sections:
            found.append(Noted(at_s, "session.section", {"ticket": TICKET, "section": mark}))
        else:
            found.append(Noted(at_s, "session.phase", {"ticket": TICKET, "phase": mark}))
    return found


def test_with_delays_only_a_session_takes_its_trips_and_each_phase_its_own() -> None:
    """In virtual time nothing but messages takes time: 17 rounds of the protocols, and three of control."""
    with played() as calm:
        network = calm.scenario.network.model_copy(update={"delay_ms": 1e3 * DELAY_S})
    with played(network=network) as run:
        (asked,) = run.asked
        session = timelines_of(run)[asked.ticket]
        plan = propose(asked.query, run.codebook, run.members).plan()
        assert plan.rounds == 17 and trips_of(plan) == 20
        assert session.complete
        assert session.seconds == pytest.approx(20 * DELAY_S, rel=0.03)
        by_hand = (1, 8, 1, 6, 0, 1, 1, 2)
        assert [phase.trips(plan) for phase in PHASES] == list(by_hand)
        took = session.phases()
        for phase, trips in zip(PHASES, by_hand, strict=True):
            assert took[phase.name] == pytest.approx(trips * DELAY_S, abs=0.004), phase.name


def test_the_clock_runs_from_the_last_agree_to_the_last_value() -> None:
    journals = {
        "a": noted(reserved=0.5, agree=1.0, compute=1.2, prepare=1.5, values=2.0),
        "b": noted(reserved=0.7, agree=1.1, compute=1.3, prepare=1.6, values=1.9),
    }
    found = timelines(journals, ["a", "b"])[TICKET]
    assert found.seconds == pytest.approx(0.9)
    assert found.phases() == pytest.approx({"agreement": 0.2, "preparing noise": 0.3, "opening values": 0.4})


def test_of_blocks_the_last_counts_and_of_all_else_the_first() -> None:
    again = [*noted(agree=1, prepare=2, values=3), *noted(agree=5, prepare=6, values=7)]
    found = timelines({"a": again}, ["a"])[TICKET]
    assert found.marks["a"] == {"agree": 1, "prepared": 6, "values": 7}


def test_a_session_that_ended_early_has_no_time() -> None:
    journals = {"a": noted(agree=1.0, compute=1.2), "b": noted(agree=1.0)}
    found = timelines(journals, ["a", "b"])[TICKET]
    assert not found.complete and not Timeline(TICKET, {}).complete
    with pytest.raises(LookupError, match="not every party noted `values`"):
        _ = found.seconds
    assert found.phases() == pytest.approx({"agreement": 0.2})


def test_sessions_come_in_the_order_of_their_beginning() -> None:
    late = [Noted(9.0, "session.reserved", {"ticket": "00" * 16})]
    assert list(timelines({"a": [*late, *noted(reserved=1.0)]}, ["a"])) == [TICKET, "00" * 16]


@given(st.integers(1, 10**7))
def test_a_table_makes_its_rounds_as_often_as_it_has_room_for(cells: int) -> None:
    assert (waves(cells) - 1) * CELLS_IN_FLIGHT < cells <= waves(cells) * CELLS_IN_FLIGHT


@given(st.dictionaries(st.sampled_from(["compute", "prepare", "input", "test", "pattern"]), st.floats(0, 9)))
def test_phases_fill_the_time_without_gap_or_overlap(marks: dict[str, float]) -> None:
    found = timelines({"a": noted(agree=0.0, **marks, values=10.0)}, ["a"])[TICKET]
    took = found.phases()
    assert all(seconds >= 0 for seconds in took.values())
    assert sum(took.values()) == pytest.approx(found.seconds)


def test_documents_of_the_timed_scenarios_are_whole() -> None:
    for name, stage in (("uk_us_link", "network"), ("partition", "network"), ("slow_party", "processes")):
        scenario: Scenario = load_scenario(ROOT / f"scenarios/{name}.toml")
        assert scenario.about and scenario.runs_in[0] == stage
