"""The stage of networks: a study over real TCP, with a reset, and its time measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpc_engine.harness import namespaces
from mpc_engine.harness.checks import judge
from mpc_engine.harness.network import NetworkStage, UnavailableError
from mpc_engine.harness.play import play
from mpc_engine.harness.timeline import timelines_of
from mpc_engine.scenario.document import Network, load_scenario
from mpc_engine.scenario.expectations import Trips
from mpc_engine.scenario.faults import Fault

ROOT = Path(__file__).parents[2]
networked = pytest.mark.skipif(
    bool(namespaces.relay_obstacle()), reason=namespaces.relay_obstacle() or "there can be a relay"
)


@networked
def test_a_study_over_a_network_with_a_reset_and_its_time() -> None:
    wilms = load_scenario(ROOT / "scenarios/wilms.toml")
    reset = Fault(kind="reset", party="uk", against=("us",), bytes=300)
    scenario = wilms.model_copy(
        update={
            "ask": wilms.ask[:1],
            "expect": (Trips(kind="trips", runs=1, predicted_within=0.9),),
            "network": Network(delay_ms=10),
            "fault": (reset,),
        }
    )
    run = play(scenario, "network")
    try:
        verdicts = judge(run)
        # The times of single runs on a busy machine are not judged here.
        assert all(verdict.holds for verdict in verdicts if verdict.kind != "trips"), verdicts
        (happened,) = run.faults
        assert happened.began_s is not None and happened.ended_s == happened.began_s
        assert happened.noticed_s is not None and happened.reason == "LINE_DOWN"
        session = timelines_of(run)[run.asked[0].ticket]
        assert session.complete and session.seconds > 20 * 0.01
        (found,) = run.further["trips"].values()
        assert found["delayed"]["seconds"][0] > 20 * 0.01
        assert len(found["calm"]["seconds"]) == 1
        assert len(run.measuring) == 4 and run.spent("uk") == 1_000_000
        assert run.parties["uk"].spent == 5_000_000
        assert sum(found["delayed"]["phases"].values()) == pytest.approx(found["delayed"]["seconds"][0])
        assert {(wire["from"], wire["to"]) for wire in run.further["wires"]} >= {("uk", "us"), ("us", "uk")}
        assert all(wire["payload"] > 0 for wire in run.further["wires"])
    finally:
        run.close()


def test_where_there_are_no_networks_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(namespaces, "relay_obstacle", lambda: "no relay: it is forbidden")
    with pytest.raises(UnavailableError, match="it is forbidden"):
        NetworkStage(load_scenario(ROOT / "scenarios/wilms.toml"), 1, tmp_path, print)
