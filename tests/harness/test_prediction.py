"""Predicted times against sums made by hand, and the check that compares them with measured ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.harness.blocks import Figure, Table, Text
from mpc_engine.harness.chapters.cost import cost
from mpc_engine.harness.checks.timing import trips
from mpc_engine.harness.play import play
from mpc_engine.harness.prediction import Compute, predict, predict_cells, slowest
from mpc_engine.harness.record import Run
from mpc_engine.harness.timeline import PHASES
from mpc_engine.party.proposal import propose
from mpc_engine.release.plan import Plan
from mpc_engine.scenario.document import LinkWeather, Network, Weather, load_scenario
from mpc_engine.scenario.expectations import Trips

ROOT = Path(__file__).parents[2]
ATLANTIC = Weather(delay_ms=40, rate_mbit=8)  # a byte a microsecond


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """The Wilms study's first question, played in memory."""
    wilms = load_scenario(ROOT / "scenarios/wilms.toml")
    network = Network(delay_ms=40, rate_mbit=8)
    made = play(
        wilms.model_copy(update={"ask": wilms.ask[:1], "expect": (Trips(kind="trips"),), "network": network}),
        "memory",
    )
    yield made
    made.close()


def plan_of(run: Run) -> Plan:
    """Return the plan of the question."""
    return propose(run.asked[0].query, run.codebook, run.members).plan()


def test_a_prediction_is_trips_and_transfer_and_computing(run: Run) -> None:
    plan = plan_of(run)
    found = predict(plan, ATLANTIC, 0.1)
    moved = plan.sent_bytes / 3 * 1500 / 1448 / 1e6
    assert (found.trips, found.delay_s, found.compute_s) == (20, 0.04, 0.1)
    assert found.transfer_s == pytest.approx(moved)
    assert found.seconds == pytest.approx(20 * 0.04 + moved + 0.1)
    assert predict(plan, Weather(delay_ms=40), 0).seconds == pytest.approx(0.8)


def test_more_cells_cost_bytes_and_computing_and_very_many_cost_trips(run: Run) -> None:
    plan, compute = plan_of(run), Compute(0.05, 1e-5)
    here = predict_cells(plan, plan.cells, ATLANTIC, compute)
    assert here == pytest.approx(predict(plan, ATLANTIC, compute.seconds(plan.cells)).seconds)
    still = Weather(delay_ms=40)
    assert predict_cells(plan, 131_072, still, compute) == pytest.approx(0.8 + 0.05 + 1.31072)
    assert predict_cells(plan, 131_073, still, compute) == pytest.approx(0.8 + 17 * 0.04 + 0.05 + 1.31073)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(0, 300), st.floats(0.1, 1e4))
def test_predictions_grow(run: Run, cells: int, more: int, delay_ms: float, rate: float) -> None:
    plan, compute = plan_of(run), Compute(0.05, 1e-5)
    weather = Weather(delay_ms=delay_ms, rate_mbit=rate)
    assert predict_cells(plan, cells, weather, compute) < predict_cells(plan, cells + more, weather, compute)
    slower = Weather(delay_ms=delay_ms + 1, rate_mbit=rate / 2)
    assert predict_cells(plan, cells, weather, compute) < predict_cells(plan, cells, slower, compute)


def test_computing_is_taken_apart_by_what_grows() -> None:
    phases = {phase.name: 0.1 for phase in PHASES}
    found = Compute.measured(phases, 1_000)
    assert found.fixed_s == pytest.approx(0.3) and found.seconds(2_000) == pytest.approx(0.3 + 2 * 0.5)


def test_a_round_waits_for_the_worst_pair() -> None:
    far = LinkWeather(between=("a", "b"), delay_ms=80, jitter_ms=10, rate_mbit=5)
    network = Network(delay_ms=1, loss=0.01, link=(far,))
    found = slowest(network, ["a", "b", "c"])
    assert (found.delay_ms, found.loss, found.rate_mbit) == (85, 0.01, 5)
    assert slowest(network, ["a", "c"]).rate_mbit is None


# --- the check --------------------------------------------------------------------------------------------


def measures(delayed_s: float, calm_s: float = 0.1, runs: int = 5, busiest: float = 20_000) -> dict[str, Any]:
    """Return what a stage measures, the same in each run."""
    phases = {phase.name: calm_s / len(PHASES) for phase in PHASES}
    calm = {"seconds": [calm_s] * runs, "phases": phases, "busiest_bytes": 1}
    return {
        "stage_by_histology": {
            "delayed": {"seconds": [delayed_s] * runs, "phases": phases, "busiest_bytes": busiest},
            "calm": calm,
        }
    }


@pytest.mark.parametrize(
    ("delayed_s", "kept", "predicted"),
    [
        (0.95, True, True),
        (0.955, True, True),  # 0.84 + 0.02 + 0.1 are allowed
        (0.965, False, True),
        (1.40, False, False),
        (0.70, True, False),
    ],
)
def test_trips_and_prediction_are_judged(run: Run, delayed_s: float, kept: bool, predicted: bool) -> None:
    run.further["trips"] = measures(delayed_s)
    found = trips(run, Trips(kind="trips"))
    assert [verdict.holds for verdict in found] == [kept, predicted], found
    assert f"{delayed_s * 1e3:.0f} ms" in found[0].found


def test_runs_that_were_not_completed_do_not_pass(run: Run) -> None:
    run.further["trips"] = measures(0.95, runs=4)
    assert not any(verdict.holds for verdict in trips(run, Trips(kind="trips")))
    run.further["trips"] = {}
    with pytest.raises(LookupError, match="no time of stage_by_histology"):
        trips(run, Trips(kind="trips"))


def test_the_chapter_tells_declared_and_measured_and_what_follows(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.further["trips"] = measures(0.95)
    # Nothing follows from a table of eight cells for larger ones.
    assert not any(isinstance(block, Figure) for block in cost(run))
    monkeypatch.setattr("mpc_engine.harness.chapters.cost.LEAST_CELLS", 1)
    blocks = cost(run)
    tables = {block.caption.split(":")[0]: block for block in blocks if isinstance(block, Table)}
    sizes = tables["What each session took"]
    plan = plan_of(run)
    row = dict(zip(sizes.columns, sizes.rows[0], strict=True))
    assert (row["rounds declared"], row["rounds measured"], row["cells"]) == (17, 17, plan.cells)
    assert row["bytes declared"] == plan.sent_bytes
    assert any(isinstance(block, Text) and "950 ms" in block.text for block in blocks)
    assert sum(isinstance(block, Figure) for block in blocks) == 2
    (table,) = [block for block in tables.values() if "10,000 cells" in block.columns]
    links = {str(row[0]): row for row in table.rows}
    place = list(table.columns).index("10,000 cells")
    seconds = links["UK–US, 80 ms, 100 Mbit/s"][place]
    compute = Compute.measured({phase.name: 0.1 / len(PHASES) for phase in PHASES}, plan.cells)
    by_hand = 0.8 + plan.sent_bytes / 3 / plan.cells * 10_000 * 1500 / 1448 / 12.5e6 + compute.seconds(10_000)
    assert seconds == pytest.approx(by_hand)


def test_the_chapter_is_empty_if_nothing_was_released(run: Run) -> None:
    bare = Run(run.scenario, "memory", 1, run.codebook, run.members, {})
    assert cost(bare) == []
