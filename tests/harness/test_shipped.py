"""Shipped scenarios that take long where they belong, played in one process as well: they hold there too."""

from __future__ import annotations

import pytest

from mpc_engine.harness.checks import judge
from mpc_engine.harness.play import play
from mpc_engine.scenario.document import load_scenario
from tests.party.nursery import ROOT


@pytest.mark.parametrize("name", ["broken_connection", "partition", "slow_party"])
def test_networks_that_break_delay_and_part(name: str) -> None:
    scenario = load_scenario(ROOT / "scenarios" / f"{name}.toml")
    assert "memory" in scenario.runs_in and scenario.fault and scenario.expect
    with play(scenario, "memory") as run:
        verdicts = judge(run)
        # Each fault comes to its own question: one that outlives it would be the next one's.
        asked = {each.ask.name: each for each in run.asked}
        for happened in run.faults:
            own = asked[happened.fault.ask or run.asked[0].ask.name]
            assert happened.began_s is not None and own.began_s <= happened.began_s <= own.ended_s, happened
    assert [f"{verdict.claim} {verdict.found}" for verdict in verdicts if not verdict.holds] == []
