"""Checks that once could not fail, and sentences of the report that once said more than a run had shown."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from mpc_engine.dp.noise_table import NoiseTable
from mpc_engine.harness.alternatives import guessed, kept
from mpc_engine.harness.answers import Question, question_of, sums_of
from mpc_engine.harness.audit import audit
from mpc_engine.harness.blocks import Table, Text
from mpc_engine.harness.chapters.cost import _sizes
from mpc_engine.harness.chapters.privacy import privacy as privacy_chapter
from mpc_engine.harness.chapters.robustness import robustness
from mpc_engine.harness.chapters.utility import utility as utility_chapter
from mpc_engine.harness.checks import judge, privacy, utility
from mpc_engine.harness.coalition import Finding
from mpc_engine.harness.record import Run
from mpc_engine.harness.report.document import write_report
from mpc_engine.harness.report.html import render
from mpc_engine.ledger.charge import Charge
from mpc_engine.scenario.document import load_scenario
from mpc_engine.scenario.expectations import Attack, Coverage, Curator, Keeps, Pooled, Published
from mpc_engine.statistics.presets import parse_query
from tests.harness import played, references
from tests.harness.played import ROOT
from tests.harness.privacy_runs import drawn, made_up, plan_of_first
from tests.harness.staged import NAMES, record, row
from tests.harness.test_attacks import counts, none
from tests.harness.test_checks_basic import played as staged
from tests.harness.test_checks_basic import verdict
from tests.harness.test_report import entry
from tests.world import TABLE

RIGHT = drawn(TABLE, 3)


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return played.play(ROOT / "scenarios/ultra_rare.toml", tmp_path_factory.mktemp("rare"))


@pytest.fixture(scope="module")
def wilms(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("wilms")
    return played.play(ROOT / "scenarios/wilms.toml", folder, ["stage_by_histology", "mean_age"])


def table(blocks: Any, words: str) -> Table:
    (found,) = [block for block in blocks if isinstance(block, Table) and words in block.caption]
    return found


# --- checks that passed whatever came -----------------------------------------------------------------


@pytest.mark.parametrize("bare", [Published(kind="published"), Keeps(kind="keeps")])
def test_an_expectation_without_a_bound_does_not_hold(rare: Run, bare: Published | Keeps) -> None:
    """It yielded no verdict at all, and so nothing that could fail."""
    scenario = rare.scenario.model_copy(update={"expect": (bare,)})
    found = [
        each for each in judge(replace(rare, scenario=scenario, _sums=rare._sums)) if each.kind == bare.kind
    ]
    assert [each.holds for each in found] == [False]
    assert "sets no bound" in found[0].found


@pytest.mark.parametrize("place", [0, 3, -1])
def test_a_number_where_there_should_be_none_is_found_wherever_it_is(
    wilms: Run, tmp_path: Path, place: int
) -> None:
    """A NaN was forgotten again as soon as the next row came, and every greater difference with it."""
    rows = (references.REFERENCES / "nwtco/table_stage_by_histology.csv").read_text()
    file = tmp_path / "reference.csv"
    file.write_text(rows)
    true = utility.true_table(wilms, wilms.asked[0])
    counted = true.index[true["statistic"] == "count"]
    broken = true.copy()
    broken.loc[counted[0], "value"] += 500
    broken.loc[counted[place], "value"] = np.nan
    with mock.patch.object(utility, "true_table", lambda *_: broken):
        (found,) = utility.pooled(wilms, Pooled(kind="pooled", file=str(file)))
    assert not found.holds and "inf" in found.found


def test_an_attack_that_could_not_have_shown_a_fault_does_not_hold(tmp_path: Path) -> None:
    """Of 35 coins at ε = 1 all may be guessed with p = 0.731^35 > 10^-6: no engine could fail."""
    bare = made_up(tmp_path, [counts(35, 20)], none)
    expectation = Attack(kind="attack", by="membership", ask="q0")
    assert not all(each.holds for each in privacy.attack(bare, expectation))
    many = made_up(tmp_path, [counts(300, 20)], RIGHT)
    assert all(each.holds for each in privacy.attack(many, expectation))


def test_a_family_without_a_test_does_not_hold(tmp_path: Path) -> None:
    """`Every product was opened under a sharing of zero` held where no product had been looked at."""
    run = made_up(tmp_path, [counts(300, 20)], RIGHT)
    found = [Finding("uniformity", 9, 0.4, "x"), Finding("discriminant", 0, 1.0, "")]
    listened = SimpleNamespace(who="each", findings=found, unread=0)
    with mock.patch.object(privacy, "coalition", lambda *_: listened):
        read, uniform, products = privacy.attack(run, Attack(kind="attack", by="coalition"))
    assert read.holds and uniform.holds and not products.holds


def test_nothing_is_said_of_the_same_question_where_none_was_repeated(tmp_path: Path) -> None:
    run = made_up(tmp_path, [counts(300, 20)], RIGHT)
    found = privacy.attack(run, Attack(kind="attack", by="averaging", ask="q0"))
    assert not [each for each in found if "very same question" in each.claim]


def test_a_release_must_have_been_paid_for_with_its_epsilon(tmp_path: Path) -> None:
    """All parties that debit nothing agree with each other, which used to be enough."""
    run = staged(tmp_path)
    release = {"parameters": {"epsilon": "0.5"}}
    run.asked[:] = [replace(asked, release=release) for asked in run.asked]
    assert verdict(run, "universal outcome").holds
    run.parties = {name: record(name, [row(charge=Charge(0))]) for name in NAMES}
    found = verdict(run, "universal outcome")
    assert not found.holds and "debited less" in found.found


def test_a_curator_needs_a_noise_table_that_can_be_compared(rare: Run) -> None:
    """Where no table is short enough nothing was summed, and the claim held all the same."""
    run = replace(rare, _sums=rare._sums)
    expectation = Curator(kind="curator", ask="relapse_free_survival")
    with mock.patch("mpc_engine.harness.noise_tests.greatest_variation", lambda *_: None):
        alike, _ = utility.curator(run, expectation)
    assert not alike.holds


def test_the_factor_of_local_noise_is_that_of_the_releases_own_table(rare: Run) -> None:
    """Draws of OpenDP were compared with draws of OpenDP: the engine was not in it."""
    run = replace(rare, _sums=rare._sums)
    expectation = Curator(kind="curator", ask="relapse_free_survival")
    assert utility.curator(run, expectation)[1].holds
    run = replace(rare, _sums=rare._sums)
    with mock.patch.object(NoiseTable, "variance", Fraction(40)):
        assert not utility.curator(run, expectation)[1].holds


# --- statistics -----------------------------------------------------------------------------------------


def test_events_are_fixed_before_anything_is_seen(tmp_path: Path) -> None:
    """The number of events, by which levels are divided, followed the values: one outlier, another bound."""
    line = plan_of_first(made_up(tmp_path, [counts(50)], RIGHT)).lines[0]
    truth = np.repeat([5, 6], 2_000)
    values = truth + np.random.default_rng(8).integers(-3, 4, truth.size).astype(np.float64)
    far, further = values.copy(), values.copy()
    far[0], further[0] = 60, 600
    found = [audit(each, truth, line, coins=False).events for each in (far, further)]
    assert found[0] == found[1] and found[0].epsilon > 0


def test_intervals_of_one_curve_do_not_count_as_independent() -> None:
    """Where all intervals stand or fall together, one curve in twenty misses with all of them.

    By the binomial law that was 0.05^40: a right engine would have failed once in twenty runs.
    """
    together = [(0, 40) if number % 20 == 0 else (40, 40) for number in range(utility.DRAWS)]
    for first, holds in (((0, 40), True), ((40, 40), True)):
        with (
            mock.patch.object(utility, "_held", mock.Mock(side_effect=[first, *together])),
            mock.patch.object(utility, "_mean_square", mock.Mock(return_value=1.0)),
            mock.patch.multiple(
                utility,
                releases_of=lambda *_: [None],
                question_of=mock.Mock(),
                sums_of=mock.Mock(),
                true_table=mock.Mock(),
                released_table=mock.Mock(),
                curators=lambda *_: [mock.Mock()] * utility.DRAWS,
            ),
        ):
            of_release, of_draws, _ = utility.coverage(
                mock.Mock(), Coverage(kind="coverage", statistic="survival")
            )
        assert of_release.holds is holds and of_draws.holds


def test_intervals_that_are_too_narrow_by_noise_alone_are_found(tmp_path: Path) -> None:
    """Draws tell what one release of few cells cannot."""
    sizes = {name: np.full(5, size, np.int64) for name, size in (("a", 40), ("b", 30), ("c", 10))}
    run, query = played.table(tmp_path, sizes)
    played.answer(run, "query", query, {name: played.rows(each) for name, each in sizes.items()}, 4)
    expectation = Coverage(kind="coverage", statistic="count")
    assert all(each.holds for each in utility.coverage(run, expectation))
    right = Question.finish

    def narrow(question: Any, opened: Any) -> Any:
        found = right(question, opened)
        return found.assign(lcl=found["value"] - 0.1, ucl=found["value"] + 0.1)

    with mock.patch.object(Question, "finish", narrow):
        assert not utility.coverage(run, expectation)[1].holds


def test_intervals_are_also_judged_by_the_noise_alone(wilms: Run) -> None:
    """Beside sampling errors noise is nothing: all intervals hold the truth, and none is found wrong."""
    blocks = [block for block in utility_chapter(wilms) if isinstance(block, Table)]
    tables = [block for block in blocks if "within noise, per cent" in block.columns]
    assert len(tables) == 2
    assert all(0 <= row[-1] <= 100 for each in tables for row in each.rows if row[-1] is not None)  # type: ignore[operator]


def test_masked_counts_may_be_guessed(rare: Run) -> None:
    """By hand: a site's 1 to 4 read as 2.5; 0 and what is shown are right."""
    asked = rare.asked[0]
    question, sums = question_of(rare, asked), sums_of(rare, asked)
    expected = sum(
        abs(sum(2.5 if 0 < n < 5 else n for n in at) - sum(at))
        for at in zip(*(own.records[0].tolist() for own in sums.values()), strict=True)
    )
    found = guessed(question, sums)
    assert found.error == pytest.approx(expected) and found.lost == 0
    assert found.total < kept(question, sums)[0].total
    left = table(utility_chapter(replace(rare, asked=rare.asked[:1], _sums=rare._sums)), "What is left")
    assert any("k / 2" in str(row[0]) for row in left.rows)
    precision = utility.keeps(replace(rare, _sums=rare._sums), Keeps(kind="keeps", precision=1))[0]
    assert f"{expected:.1f} if each count" in precision.found and "taken as 0" in precision.claim


def test_each_site_alone_is_in_the_report(rare: Run) -> None:
    """Of five hospitals only the largest was there."""
    blocks = utility_chapter(replace(rare, asked=rare.asked[:1], _sums=rare._sums))
    alone = table(blocks, "Each site alone")
    assert [row[1] for row in alone.rows] == [22, 15, 11, 8, 4]
    assert [row[5] for row in alone.rows] == [38, 45, 49, 52, 56]
    assert alone.rows[4][3:5] == [0, 0]


# --- what the report says -------------------------------------------------------------------------------


def test_what_was_left_out_is_in_the_verdict() -> None:
    text = render([entry("a"), entry("b", skipped="no namespaces", verdicts=(), chapters={})])
    assert "1 scenario could not be played here" in text.split("How to read")[0]


def test_the_registries_are_those_of_the_largest_study() -> None:
    many = entry("many", facts={"parties": 9, "silos": 2})
    other = entry("other", facts={"parties": 5, "silos": 5})
    text = render([many, other])
    assert "<dt>parties in the largest study</dt><dd>9</dd>" in text
    assert "<dt>of them registries</dt><dd>2</dd>" in text


def test_whoever_holds_a_report_is_told_that_it_holds_true_counts(tmp_path: Path) -> None:
    text = render([entry()])
    assert "true counts" in text.split('class="verdict')[0]
    write_report(tmp_path, [entry()], text)
    assert "true counts" in json.loads((tmp_path / "report.json").read_text())["notice"]


def test_no_prose_is_passed_off_as_a_result() -> None:
    text = render([entry()])
    assert "Every number in this report" not in text
    assert "written before it was played" in text.split('id="scenarios"')[1]


def test_all_statements_of_privacy_are_there(tmp_path: Path) -> None:
    run = made_up(tmp_path, [counts(300, 20), counts(300, 20, seed=2)], RIGHT)
    strict: dict[str, Any] = run.asked[1].query.digest_fields()
    strict = {**strict, "privacy": {**strict["privacy"], "rule": "noisy", "epsilon": "0.5"}}
    other = parse_query(strict)
    run.asked[1] = replace(run.asked[1], query=other)
    run._sums[other.digest()] = run._sums[run.asked[0].query.digest()]
    said = [block.text for block in privacy_chapter(run) if isinstance(block, Text) and block.kind == "plain"]
    assert len(said) == 2 and said[0] != said[1]


def test_what_was_opened_is_not_said_to_be_all_that_ever_is(tmp_path: Path) -> None:
    run = made_up(tmp_path, [counts(300, 20)], RIGHT)
    assert "nothing else ever" not in table(privacy_chapter(run), "All that was opened").caption


FAULT = '[[fault]]\nkind = "kill"\nparty = "two"\n'


def test_what_was_lost_is_said(tmp_path: Path) -> None:
    run = staged(tmp_path, FAULT)
    said = next(block.text for block in robustness(run) if isinstance(block, Text))
    assert "Nothing was lost" in said
    run.parties = {name: record(name, [row(), row("t2", "LOST")]) for name in NAMES}
    said = next(block.text for block in robustness(run) if isinstance(block, Text))
    assert "1 session paid for and not answered, ε = 0.5" in said


def test_bytes_per_computing_party_are_those_of_computing_parties() -> None:
    """Bytes of silos that only bring counts were divided among those that compute."""
    scenario = load_scenario(ROOT / "scenarios/twenty_hospitals.toml")
    members = tuple(SimpleNamespace(name=party.name, computing=party.computing) for party in scenario.ordered)
    plan = SimpleNamespace(cells=10, rounds=3, sent_bytes=1, computing=9)
    meters = {
        member.name: {
            "rounds": 3,
            "control_rounds": 1,
            "cpu_s": 0.0,
            "sent_bytes": 900 if member.computing else 77,
        }
        for member in members
    }
    asked = SimpleNamespace(ticket="t", name="q")
    run: Any = SimpleNamespace(further={"meters": {"t": meters}}, members=members)
    found = _sizes(run, [asked], {"t": plan})  # type: ignore[list-item, dict-item]
    assert found.rows[0][found.columns.index("bytes sent")] == 9 * 900 + 11 * 77
    (per_cell,) = [
        cell for name, cell in zip(found.columns, found.rows[0], strict=True) if "per cell" in name
    ]
    assert per_cell == 90
