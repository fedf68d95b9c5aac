"""Verdicts that held when nothing was shown, convicted right engines, or were of another matter than said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from scipy import stats

from mpc_engine.harness.answers import Question, question_of
from mpc_engine.harness.attacks import Attacked, averaging, differencing, membership, subtraction
from mpc_engine.harness.audit import event_sets
from mpc_engine.harness.blocks import Table, Text
from mpc_engine.harness.chapters.utility import utility as chapter
from mpc_engine.harness.checks import judge, privacy, timing, utility
from mpc_engine.harness.noise_tests import between, so_few, together
from mpc_engine.harness.record import Run
from mpc_engine.scenario.expectations import Attack, Coverage, Curator, Keeps, Noise, Published
from tests.harness import played
from tests.harness.played import ROOT
from tests.harness.privacy_runs import drawn, made_up
from tests.harness.test_attacks import counts, none
from tests.world import TABLE

RIGHT = drawn(TABLE, 23)
COVERAGE = Coverage(kind="coverage", statistic="count")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Sixty cells of three silos, none of them small."""
    rng = np.random.default_rng(1)
    return answered(tmp_path_factory.mktemp("cells"), {name: rng.integers(5, 60, 60) for name in "abc"})


def answered(folder: Path, sums: dict[str, np.ndarray]) -> Run:
    run, query = played.table(folder, sums)
    played.answer(run, "query", query, {name: played.rows(each) for name, each in sums.items()}, 1)
    return run


# --- held when nothing was shown ----------------------------------------------------------------------


def test_of_six_values_no_noise_at_all_would_not_be_found(tmp_path: Path) -> None:
    """An engine without noise passed `ultra_rare`: six values are exact with p = 0.02."""
    few = {"one": np.array([3, 4, 5, 6, 7, 8, 1, 0]), "two": np.array([4, 4, 4, 4, 4, 4, 0, 1])}
    bare = utility.noise(made_up(tmp_path, [few], none), Noise(kind="noise"))
    assert [each.holds for each in bare] == [True, True, False]
    assert "of 6 values" in bare[2].found
    many = [counts(60, 2)]
    right = utility.noise(made_up(tmp_path, many, RIGHT), Noise(kind="noise"))
    assert [each.holds for each in right] == [True, True, True], right
    assert not utility.noise(made_up(tmp_path, many, none), Noise(kind="noise"))[0].holds


ATTACKS: dict[str, Callable[[Run], Attacked]] = {
    "averaging": lambda run: averaging(run, ["q0", "q1"]),
    "differencing": lambda run: differencing(run, "q0", "q1"),
    "subtraction": lambda run: subtraction(run, "q0", "two"),
    "membership": lambda run: membership(run, "q0", 5),
}


@pytest.mark.parametrize("by", ATTACKS)
def test_what_an_attack_could_have_shown_is_what_it_shows_without_noise(by: str, tmp_path: Path) -> None:
    """Cells below k are hidden even then: nobody guesses what was in them, nor knows it exactly."""
    asked = [counts(35, 0, 5), counts(35, 0, 5, seed=2)]
    bare, right = (ATTACKS[by](made_up(tmp_path, asked, noise)) for noise in (none, RIGHT))
    assert bare.p == bare.least == right.least
    assert bare.p > 1e-12


def test_guesses_of_hidden_cells_show_nothing(tmp_path: Path) -> None:
    """All of 35 guesses were taken as right without noise: p = 1.7e-5, but it was 0.0016 and more."""
    run = made_up(tmp_path, [counts(35, 0, 7)], none)
    found = privacy.attack(run, Attack(kind="attack", by="membership", p_least=1e-4))
    assert [each.holds for each in found] == [True, False], found


def test_nothing_is_kept_of_nothing(tmp_path: Path) -> None:
    """No group reaches k; 0 was a thousand times 0."""
    run = answered(tmp_path, {name: np.array([1, 0, 1]) for name in "abc"})
    with pytest.raises(LookupError, match="nothing to compare"):
        utility.keeps(run, Keeps(kind="keeps", cells=1000))
    wanted = run.scenario.model_copy(update={"expect": (Keeps(kind="keeps", cells=1000),)})
    (verdict,) = [
        each for each in judge(replace(run, scenario=wanted, _sums=run._sums)) if each.kind == "keeps"
    ]
    assert not verdict.holds


@pytest.mark.parametrize("factor", [100.0, 3.0, 1 / 3])
def test_stated_errors_that_are_not_those_of_the_noise_are_found(cells: Run, factor: float) -> None:
    """Intervals a hundred times too wide held; too wide they always hold the truth."""
    assert all(each.holds for each in utility.coverage(cells, COVERAGE))
    right = Question.finish

    def stretched(question: Any, opened: Any) -> Any:
        found = right(question, opened)
        low, high, value = found["lcl"], found["ucl"], found["value"]
        return found.assign(
            lcl=value - factor * (value - low),
            ucl=value + factor * (high - value),
            se_noise=factor * found["se_noise"],
        )

    with mock.patch.object(Question, "finish", stretched):
        of_release, of_draws, of_noise = utility.coverage(replace(cells, _sums=cells._sums), COVERAGE)
    assert not of_noise.holds
    assert "at least 95%" in of_release.claim and "at least as often" in of_draws.claim


# --- numbers and p-values -----------------------------------------------------------------------------


def test_the_threshold_is_that_of_the_release(tmp_path: Path) -> None:
    """Where a party asks for more than the query does, cells from 5 to 11 are hidden by right."""
    run = made_up(tmp_path, [counts(400, 0, 15)], RIGHT, agreed=12)
    asked = run.asked[0]
    assert question_of(run, asked).guarantee.threshold == 12
    assert all(each.holds for each in utility.noise(run, Noise(kind="noise")))
    (few,) = utility.published(run, Published(kind="published", most_below_threshold=400))
    assert "fewer than 12" in few.claim
    assert any("k = 12" in each.text for each in chapter(run) if isinstance(each, Text))
    times = {"seconds": [1.0], "phases": {}, "busiest_bytes": 1}
    run.further["trips"] = {asked.ask.name: {"delayed": times, "calm": times}}
    assert timing.measured(run, None).plan.guarantee.threshold == 12


def test_what_was_not_answered_has_no_question(cells: Run) -> None:
    with pytest.raises(LookupError, match="not answered"):
        question_of(cells, replace(cells.asked[0], release=None))


@pytest.mark.parametrize("intervals", [1, 2, 4, 6, 10, 40, 100, 1_000])
def test_intervals_that_are_right_fail_as_seldom_as_p_says(intervals: int) -> None:
    """By the normal law four intervals at 95 % failed at 1e-6 with a chance of 4.8e-4."""
    held = np.arange(intervals + 1)
    p = np.array([so_few(int(each), intervals, 0.95, 1.0) for each in held])
    np.testing.assert_allclose(p, stats.binom.cdf(held, intervals, 0.95), rtol=1e-9)
    for level in (0.05, 1e-3, 1e-6):
        assert stats.binom.pmf(held[p < level], intervals, 0.95).sum() <= level


@pytest.mark.parametrize(("intervals", "alike"), [(4, 1), (10, 1), (100, 1), (12, 4), (100, 10)])
def test_so_do_intervals_that_depend_on_each_other(intervals: int, alike: int) -> None:
    """Releases and draws of which so many intervals at a time stand or fall together."""
    rng, runs, level = np.random.default_rng(6), 4_000, 0.01
    right = alike * rng.binomial(intervals // alike, 0.95, (runs, utility.DRAWS + 1))
    alarms = np.zeros(2)
    for first, *others in right.tolist():
        groups = together([(each, intervals) for each in others], 0.95)
        alarms[0] += so_few(first, intervals, 0.95, groups) < level
        alarms[1] += so_few(sum(others), intervals * utility.DRAWS, 0.95, groups) < level
    assert (alarms <= stats.binom.isf(1e-4, runs, 1.5 * level)).all(), alarms


def test_no_interval_is_not_enough() -> None:
    assert so_few(0, 0, 0.95, 1.0) == 0.0
    assert together([(0, 0)] * 3, 0.95) == 1.0
    for means in ([], [1.0], [1.0, np.inf]):
        assert between(np.array(means), 0.5, 2.0) == 0.0


def test_means_are_told_from_bounds_as_seldom_as_p_says() -> None:
    rng = np.random.default_rng(7)
    squares = rng.laplace(scale=0.5**0.5, size=(3_000, utility.DRAWS)) ** 2  # of one value, variance 1
    assert sum(between(each, *utility.STATED) < 1e-3 for each in squares) <= stats.binom.isf(
        1e-4, 3_000, 1e-3
    )
    assert between(0.01 * squares[0], *utility.STATED) < 1e-6
    assert between(30 * rng.chisquare(60, utility.DRAWS) / 60, *utility.STATED) < 1e-6


def test_suppression_can_be_what_convicts() -> None:
    """The event was called {v < -27}, which no shown value is in."""
    hidden = np.r_[np.full(1_990, np.nan), np.full(10, 6.0)]
    assert event_sets(hidden, np.full(2_000, 6.0), 5, 0.0).what == "{suppressed}"
    low = np.r_[np.full(1_000, np.nan), np.full(1_000, 5.0)]
    assert event_sets(low, np.full(2_000, 9.0), 5, 0.0).what == "{v < 6 or suppressed}"


def test_report_and_verdict_are_of_the_same_draws(cells: Run) -> None:
    """Each drew OpenDP's noise anew: p was 0.726 in the one and 0.763 in the other."""
    alike, _ = utility.curator(cells, Curator(kind="curator"))
    blocks = chapter(cells)
    p = alike.found.split("p = ")[1].split(";")[0]
    (words,) = [each.text for each in blocks if isinstance(each, Text) and "Beside a trusted" in each.text]
    assert f"p = {p}. " in words
    assert utility.curators(cells, cells.asked[0], 1)[0] is utility.curators(cells, cells.asked[0], 3)[0]
    other = replace(cells, _sums=cells._sums)  # another run, with draws of its own
    assert utility.curators(other, other.asked[0], 1)[0] is not utility.curators(cells, cells.asked[0], 1)[0]
    (statistics,) = [each for each in blocks if isinstance(each, Table) and "drawn once" in each.caption]
    shown = [row[statistics.columns.index("curator")] for row in statistics.rows]
    first = question_of(cells, cells.asked[0]).finish(utility.curators(cells, cells.asked[0], 1)[0].opened)
    assert set(shown) <= set(first["value"])


def test_a_p_value_says_what_it_is_of(tmp_path: Path) -> None:
    """It stood beside a root mean square error, and was of the sum of absolute errors."""
    run = made_up(tmp_path, [counts(300, 20)], RIGHT)
    for by, words in (("subtraction", "of the mean absolute error"), ("membership", "of right guesses")):
        found = privacy.attack(run, Attack(kind="attack", by=by))[0].found  # type: ignore[arg-type]
        assert words in found


def test_the_sixty_patients_say_nothing_of_the_noise() -> None:
    """`ultra_rare` claims nothing that an engine without noise would pass."""
    text = (ROOT / "scenarios/ultra_rare.toml").read_text()
    assert 'kind = "noise"' not in text
