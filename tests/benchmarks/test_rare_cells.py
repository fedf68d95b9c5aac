"""Rare cells: publication as theory says, in simulated releases and whole sessions, and nothing below k."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from benchmarks import rare_cells
from benchmarks.rare_cells import (
    STRICT_DELTAS,
    K,
    Rate,
    contradicted,
    counts_by_hospital,
    promise,
    rates,
    releases,
    sessions,
    ways,
)
from mpc_engine.codebook import load_codebook
from mpc_engine.dp.accounting import Rule, publication_probability
from mpc_engine.scenario.document import load_scenario
from mpc_engine.statistics.presets import load_query

ROOT = Path(__file__).resolve().parents[2]
COUNTS = counts_by_hospital()
TRUE = COUNTS.sum(axis=0)


def test_the_counts_are_those_of_the_reference() -> None:
    path = ROOT / "data" / "references" / "rare_cells" / "truth_crosstab_80.csv"
    with path.open(encoding="utf-8", newline="") as file:
        assert [int(row["n"]) for row in csv.DictReader(file)] == TRUE.tolist()
    assert COUNTS.sum(axis=1).tolist() == [2407, 1028, 393, 157, 43]
    assert ((TRUE == 0).sum(), ((TRUE > 0) & (TRUE < 5)).sum()) == (15, 12)


def test_noisy_publishes_as_often_as_theory_says() -> None:
    guarantee = promise(Rule.NOISY)
    pattern, values = releases(TRUE, guarantee, 1000, np.random.default_rng(11))
    found = rates(TRUE, pattern, guarantee)
    assert sum(rate.trials for rate in found) == pattern.size and not contradicted(found)
    assert (pattern == (values >= K)).all()
    by_count = {rate.count: rate for rate in found}
    assert by_count[4].theory == pytest.approx(0.269, abs=0.001)
    # A threshold one too high would be noticed.
    wrong = rates(TRUE, values > K, guarantee)
    assert {rate.count for rate in contradicted(wrong)} >= {4, 5, 6}


@pytest.mark.parametrize("delta", STRICT_DELTAS)
def test_strict_never_publishes_a_count_below_k(delta: str) -> None:
    guarantee = promise(Rule.STRICT, delta)
    pattern, values = releases(TRUE, guarantee, 1000, np.random.default_rng(12))
    assert not pattern[:, TRUE < K].any() and pattern[:, TRUE > 60].all()
    assert not contradicted(rates(TRUE, pattern, guarantee))
    least = guarantee.allotments[0].least_shown
    assert least is not None and values[pattern].min() >= least


@pytest.mark.parametrize("rule", [Rule.NOISY, Rule.STRICT])
def test_whole_sessions_publish_as_simulated_releases_do(rule: Rule) -> None:
    guarantee = promise(rule, STRICT_DELTAS[0] if rule is Rule.STRICT else None)
    pattern, values = sessions(COUNTS, rule, 10, seed=100)
    assert not contradicted(rates(TRUE, pattern, guarantee))
    assert pattern[:, TRUE > 60].all() and not pattern.all()
    assert rule is Rule.NOISY or not pattern[:, TRUE < K].any()
    error = np.where(pattern, values - TRUE, 0)
    assert 0 < np.abs(error).max() <= guarantee.allotments[0].table.limit
    assert len(np.unique(error[:, TRUE > 60], axis=0)) == 10  # every session has noise of its own


def test_a_rate_that_chance_explains_is_no_contradiction() -> None:
    fine = Rate(4, 3, 3000, 800, 0.269)
    low, high = fine.limits
    assert low < 800 / 3000 < high and not contradicted([fine])
    assert contradicted([fine, replace(fine, published=950)]) == [replace(fine, published=950)]
    assert contradicted([Rate(0, 1, 10, 1, 0.0)])  # what cannot happen has happened


def test_ways_are_judged_by_hand() -> None:
    counts = np.array([[4, 9, 0, 30], [4, 2, 1, 0]])
    found = {way.name: way for way in ways(counts, 50, np.random.default_rng(1))}
    masked = found["masked at each hospital, rest summed"]
    assert (masked.shown, masked.error, masked.lost) == ((0, 0, 1, 1), 2.0, 9.0)
    whole = found["masked at each hospital, whole cells only"]
    assert (whole.shown, whole.error, whole.lost) == ((0, 0, 0, 1), 0.0, 20.0)
    exact = found["pooled, exact numbers"]
    assert (exact.shown, exact.error, exact.lost, exact.total) == ((0, 0, 2, 1), 0.0, 1.0, 1.0)
    assert found["strict, δ = 1e-9"].shown[:2] == (0, 0)


def test_the_command_writes_tables_and_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, picture = tmp_path / "out" / "rare.json", tmp_path / "images" / "rare.png"
    arguments = ["--runs", "40", "--sessions", "2", "--out", str(out), "--picture", str(picture)]
    assert rare_cells.main(arguments) == 0
    fields = json.loads(out.read_text(encoding="utf-8"))
    assert fields["runs"] == 40 and len(fields["ways"]) == 6
    assert matplotlib.image.imread(picture).shape[0] > 300
    assert "| strict, δ = 1e-6 | 2 |" in capsys.readouterr().out
    monkeypatch.setattr(rare_cells, "SUSPICIOUS", 2 * len(np.unique(TRUE)))  # everything is suspect
    assert rare_cells.main(arguments) == 1


@pytest.mark.parametrize("name", ["cells", "relapses"])
def test_the_scenario_asks_for_the_80_cells(name: str) -> None:
    scenario = load_scenario(ROOT / "scenarios" / "rare_cells.toml")
    assert [party.name for party in scenario.ordered if party.computing] == ["h0", "h1", "h2"]
    query = load_query(ROOT / "scenarios" / "rare_cells" / f"{name}.toml")
    layout = query.layout(load_codebook(scenario.path(scenario.codebook)))
    assert [group.guard.grid.cells for group in layout.groups] == [80]
    assert len(layout.where) == (name == "relapses")


def test_the_documented_figures_hold() -> None:
    page = (ROOT / "docs" / "rare_cells.md").read_text(encoding="utf-8")
    guarantee = promise(Rule.NOISY)
    rows = re.findall(r"^\| (\d+) \| (\d+) \| [0-9,]+ \| [0-9.]+ \| [0-9.–]+ \| ([0-9.]+) \|$", page, re.M)
    assert len(rows) == 12
    for count, cells, theory in rows:
        assert int(cells) == (int(count) == TRUE).sum()
        assert theory == f"{100 * float(publication_probability(guarantee, int(count))):.2f}"
    for delta in STRICT_DELTAS:
        least = promise(Rule.STRICT, delta).allotments[0].least_shown
        assert f"| {delta} | {least} | 1,000 | 0 |" in page
    for way in ways(COUNTS, 1, np.random.default_rng(1))[:3]:
        figures = f"{way.error:.1f} | {way.lost:.1f} | {way.total:.1f}"
        assert re.search(rf"^\| {way.name} \| no \|.*\| {figures} \|$", page, re.M)
    assert f"--seed {rare_cells.SEED}" in page and "images/rare_cells.png" in page
