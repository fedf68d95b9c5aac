"""What is left without the engine: by hand, by simulation, and against the figures of docs/rare_cells.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc_engine.harness.alternatives import (
    Kept,
    alone,
    classes,
    curator,
    ideal_variance,
    kept,
    local,
    masked,
    truth,
)
from mpc_engine.harness.answers import Question, Sums, pool, question_of, sums_of
from mpc_engine.harness.record import Run
from tests.harness import played
from tests.harness.played import ROOT, noise


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return played.play(ROOT / "scenarios/rare_cells.toml", tmp_path_factory.mktemp("silos"), ["cells"])


def of(run: Run) -> tuple[Question, dict[str, Sums]]:
    question = question_of(run, run.asked[0])
    return question, sums_of(run, run.asked[0], question)


def by_name(ways: list[Kept]) -> dict[str, Kept]:
    return {way.name: way for way in ways}


def test_what_is_left_is_what_the_page_on_rare_cells_says(hospitals: Run) -> None:
    question, sums = of(hospitals)
    found = by_name(kept(question, sums))
    assert classes(question, pool(sums)) == (15, 12, 53)
    summed = found["masked at each site, the rest summed"]
    assert (summed.enough, summed.whole, summed.error, summed.lost) == (51, 3, 170, 36)
    whole = found["masked at each site, whole cells only"]
    assert (whole.enough, whole.error, whole.lost) == (3, 0, 3957)
    exact = found["pooled, exact numbers"]
    assert (exact.empty, exact.few, exact.enough, exact.error, exact.lost) == (0, 0, 53, 0, 24)
    # The page has means over 1,000 simulated releases.
    mpc = found["pooled under MPC"]
    assert mpc.total == pytest.approx(71.6, abs=1.0)
    assert (mpc.empty, mpc.few, mpc.enough) == pytest.approx((0.1, 1.0, 52.1), abs=0.1)


@pytest.mark.parametrize(("name", "draws"), [("trusted curator", 1), ("noise at each site", 5)])
def test_expectations_are_means_of_many_releases(hospitals: Run, name: str, draws: int) -> None:
    question, sums = of(hospitals)
    way, true = by_name(kept(question, sums))[name], pool(sums).records[0]
    rng = np.random.default_rng(8)
    size = (draws, 4_000, true.size)
    noisy = true + noise(question.guarantee.epsilon, int(np.prod(size)), rng).reshape(size).sum(axis=0)
    shown = noisy >= 5
    error, lost = np.where(shown, np.abs(noisy - true), 0).sum(axis=1), np.where(shown, 0, true).sum(axis=1)
    enough = shown[:, true >= 5].sum(axis=1)
    for expected, each in ((way.error, error), (way.lost, lost), (way.enough, enough)):
        assert expected == pytest.approx(each.mean(), abs=6 * each.std() / len(each) ** 0.5)


def test_members_of_groups_are_counted_with_them(tmp_path: Path) -> None:
    run = played.play(ROOT / "scenarios/ultra_rare.toml", tmp_path, ["relapse_free_survival"])
    question, sums = of(run)
    found = by_name(kept(question, sums))
    # By hand from the files: the hospital with four patients withholds its guard, all withhold 1 to 4.
    withheld = sum(int(row[(row > 0) & (row < 5)].sum()) for own in sums.values() for row in own.records)
    assert found["masked at each site, the rest summed"].error == withheld == 35
    deviations = [float(line.allotment.table.variance) ** 0.5 for line in question.lines]
    mpc = found["pooled under MPC"]
    assert 0.6 * (deviations[0] + 7 * deviations[1]) < mpc.total < deviations[0] + 7 * deviations[1]


def test_each_alternative_is_drawn_as_it_says(hospitals: Run) -> None:
    question, sums = of(hospitals)
    pooled = pool(sums).records[0]
    true, *_ = question.values(truth(question, sums).opened)
    assert true.tolist() == pooled.tolist()
    own = [question.values(each.opened)[0] for each in alone(question, sums)]
    assert np.sum(own, axis=0).tolist() == pooled.tolist()
    (left,) = question.values(masked(question, sums).opened)
    by_hand = sum(np.where(each.records[0] < 5, 0, each.records[0]) for each in sums.values())
    assert np.nan_to_num(left).tolist() == by_hand.tolist()  # type: ignore[union-attr]
    for way, times in ((curator(question, sums), 1), (local(question, sums), 5)):
        (values,) = question.values(way.opened)
        assert way.private == "ε = 1" and np.nanmin(values) >= 5
        errors = (values - pooled)[pooled > 100]
        assert 0 < np.abs(errors).max() < 60
        variance = way.opened.groups["cells"].guard.variance
        assert variance == pytest.approx(times * ideal_variance(1.0))


def test_strict_shows_nobody_below_k(tmp_path: Path) -> None:
    counts = {"a": np.array([3, 60, 0]), "b": np.array([1, 4, 0]), "c": np.array([0, 0, 0])}
    run, query = played.table(tmp_path, counts, rule="strict", delta="1e-6")
    played.answer(run, "query", query, {name: played.rows(each) for name, each in counts.items()}, 1)
    question, sums = of(run)
    found = by_name(kept(question, sums))
    assert found["pooled under MPC"].few == found["pooled under MPC"].empty == 0
    assert found["pooled under MPC"].enough == pytest.approx(1)
    for _ in range(5):
        (values,) = question.values(curator(question, sums).opened)
        assert np.isnan(values).tolist() == [True, False, True]
