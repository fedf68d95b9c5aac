"""What a report says to people who read no p-values, and that each number says what it counts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpc_engine.harness.blocks import Cell, Figure, Table
from mpc_engine.harness.chapters.utility import _limits, _number
from mpc_engine.harness.checks import privacy
from mpc_engine.harness.numerals import in_runs, in_symbols, short
from mpc_engine.harness.record import Happened
from mpc_engine.harness.report import charts
from mpc_engine.harness.report.blocks import block_html, prose
from mpc_engine.harness.report.document import blank, facts_of
from mpc_engine.harness.report.html import render
from mpc_engine.scenario.expectations import Attack, Detected, Outcome
from mpc_engine.scenario.faults import Fault
from tests.harness.privacy_runs import drawn, made_up
from tests.harness.test_attacks import counts
from tests.world import TABLE


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (1.0, "in nearly every run"),
        (0.588, "in 59 of 100 runs"),
        (0.01, "in 1 of 100 runs"),
        (0.0042, "in 1 of 240 runs"),
        (1e-6, "in 1 of 1,000,000 runs"),
        (9e-7, "in fewer than 1 in a million runs"),
        (0.0, "in fewer than 1 in a million runs"),
    ],
)
def test_chance_in_runs(p: float, said: str) -> None:
    assert in_runs(p) == said


def test_there_is_one_notation_for_powers() -> None:
    assert [short(each) for each in (1e-6, 1.64e-6, 0.588, 3e9)] == ["10^-6", "1.64·10^-6", "0.588", "3·10^9"]
    shown = prose("10^-6 + 2^-93, 1.64·10^−6, 1e-06 and 1.64e-06; `2^-93`, e^epsilon, 0.5")
    assert shown == (
        "10<sup>−6</sup> + 2<sup>−93</sup>, 1.64·10<sup>−6</sup>, 10<sup>−6</sup> and 1.64·10<sup>−6</sup>; "
        "<code>2^-93</code>, e^epsilon, 0.5"
    )
    said = in_symbols("epsilon = 0.25, delta <= 0.000001 + 2^-93, times e^epsilon")
    assert said == "ε = 0.25, δ ≤ 10^-6 + 2^-93, times e^ε"


def test_an_attack_that_is_below_theory_by_chance_is_no_contradiction(tmp_path: Path) -> None:
    """ "No less than 1.358" was found "1.195", and held; both silos' rows were the same."""
    run = made_up(tmp_path, [counts(300, 20)], drawn(TABLE, 23))
    said = {
        party: privacy.attack(run, Attack(kind="attack", by="subtraction", party=party))
        for party in ("one", "two")
    }
    for party, (first, second) in said.items():
        assert f"{party} does no better than theory allows" in first.claim
        assert re.search(r"is not below [\d.]+ by more than chance explains \(p ≥ 10\^-6\)\.$", first.claim)
        assert re.search(
            r"^[\d.]+ over 300 values; chance gives so little or less in .* runs? \(p = ", first.found
        )
        assert f"by {party} could" in second.claim and "fewer than 1 in a million runs" in second.found
    assert {each.claim for each in said["one"]}.isdisjoint(each.claim for each in said["two"])
    guessed = privacy.attack(run, Attack(kind="attack", by="membership"))[0]
    assert "is not above" in guessed.claim and "so much or more" in guessed.found


def test_what_is_not_reached_says_so() -> None:
    assert _number(np.inf) == "not reached" and _number(np.nan) is None and _number(2) == 2.0
    assert _limits(1.2162, np.inf) == "1.216 – not reached" and _limits(np.nan, 2.0) is None
    rows: list[list[Cell]] = [["a", 11.0], ["b", "[c]"], ["c", "not reached"], ["d", None]]
    text = block_html(Table("t", ["what", "release"], rows), "t")
    assert text.count('class="number"') == 5  # a word for what is not there leaves its column one of numbers


def test_the_name_of_a_level_is_above_the_points() -> None:
    drawn_at = charts.points("p", ["a", "b"], {"release": [0.0, 0.0]}, level=(0.0, "truth"))
    assert isinstance(drawn_at, Figure)
    # In SVG heights grow downwards: the text ends above the frame, within which all markers are.
    found = re.search(r'y="([\d.]+)"[^>]*>truth<', drawn_at.svg)
    frame = re.search(
        r'id="patch_2">\s*<path d="M [\d.]+ ([\d.]+) \nL [\d.]+ [\d.]+ \nL [\d.]+ ([\d.]+)', drawn_at.svg
    )
    assert found and frame and float(found[1]) <= float(frame[2]) < float(frame[1])


def test_refusals_and_faults_are_counted_as_they_were_expected(tmp_path: Path) -> None:
    run = made_up(tmp_path, [counts(30, 20), counts(30, 20, seed=2)], drawn(TABLE, 23))
    second = run.asked[1]
    run.asked[1] = replace(second, state="RETURNED", reason="BUDGET_EXCEEDED", release=None)
    wanted = [Outcome(kind="outcome", ask="q1", state="RETURNED", reason="BUDGET_EXCEEDED")]
    faults = (Fault(kind="kill", party="two"), Fault(kind="freeze", party="one", for_s=2))
    for expect, awaited in ((wanted, 0), ([*wanted, Detected(kind="detected", within_s=9)], 1)):
        run.scenario = run.scenario.model_copy(update={"expect": tuple(expect), "fault": faults})
        run.faults = [Happened(fault, began_s=1.0) for fault in faults]
        run.faults[0].noticed_s = 2.0
        facts = facts_of(run)
        assert (facts["released"], facts["questions"], facts["refused"]) == (1, 2, 1)
        assert (facts["awaited"], facts["detected"], facts["faults"]) == (awaited, awaited, 2)
        page = render([replace(blank("a", "A", "", "memory", 1), facts=facts, took_s=9.8)])
        assert "questions ended with a release, and 1 was refused as expected" in page
        assert ("that others were to notice" in page) == bool(awaited)
        assert "playing took 9.8 s altogether, judging and writing this report not counted" in page
    run.scenario = run.scenario.model_copy(update={"expect": ()})
    assert facts_of(run)["refused"] == 0
