"""Attacks do what theory says on right noise, and are convicted where an engine gives more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mpc_engine.harness.attacks import advantage, averaging, differencing, membership, subtraction
from mpc_engine.harness.checks import privacy
from mpc_engine.scenario.expectations import P_LEAST, Attack
from tests.harness.privacy_runs import Noise, drawn, made_up
from tests.world import TABLE

RIGHT = drawn(TABLE, 11)
SIGMA = float(TABLE.variance) ** 0.5


def none(number: int, cells: int) -> np.ndarray:
    return np.zeros(cells, np.int64)


def same(noise: Noise) -> Noise:
    """The noise of the first question in every one."""
    return lambda number, cells: noise(0, cells)


def counts(cells: int = 300, low: int = 0, high: int = 40, seed: int = 1) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.integers(low, high, cells) for name in ("one", "two")}


@pytest.mark.parametrize("answers", [1, 2, 7])
def test_averaging_errs_as_theory_says(tmp_path: Path, answers: int) -> None:
    held = counts(4_000, 20)
    run = made_up(tmp_path, [held] * answers, RIGHT)
    found = averaging(run, [f"q{i}" for i in range(answers)])
    assert found.achieved == pytest.approx(SIGMA / answers**0.5, rel=0.06)
    assert found.theory == pytest.approx(SIGMA / answers**0.5, rel=1e-9)
    assert 1e-3 < found.p < 1 - 1e-3
    assert (found.answers, found.values, found.owed) == (answers, 4_000, answers)
    assert found.paid_for


def test_averaging_allows_for_what_is_shown_only_because_of_its_noise(tmp_path: Path) -> None:
    """Most cells hold too few: those seen in all answers err upwards, and the p-value knows it."""
    run = made_up(tmp_path, [counts(6_000, 0, 3)] * 2, RIGHT)
    found = averaging(run, ["q0", "q1"])
    assert found.achieved > found.theory
    assert 1e-3 < found.p < 1 - 1e-3


def test_averaging_that_gives_too_much_is_convicted(tmp_path: Path) -> None:
    held = counts(40, 20)
    assert averaging(made_up(tmp_path, [held] * 3, none), ["q0", "q1", "q2"]).p < P_LEAST
    unpaid = averaging(made_up(tmp_path, [held] * 3, RIGHT, spent=10**6), ["q0", "q1", "q2"])
    assert not unpaid.paid_for
    assert (unpaid.owed, unpaid.paid) == (3, 1)


def test_the_difference_has_twice_the_variance(tmp_path: Path) -> None:
    asked = [counts(4_000, 4), counts(4_000, 4, seed=2)]
    found = differencing(made_up(tmp_path, asked, RIGHT), "q0", "q1")
    assert found.theory == pytest.approx(SIGMA * 2**0.5)
    assert found.achieved == pytest.approx(found.theory, rel=0.06)
    assert 1e-3 < found.p < 1 - 1e-3
    assert found.owed == found.paid == 2


def test_a_difference_with_less_noise_is_convicted(tmp_path: Path) -> None:
    asked = [counts(40, 20), counts(40, 20, seed=2)]
    assert differencing(made_up(tmp_path, asked, same(RIGHT)), "q0", "q1").p < P_LEAST
    weak = differencing(made_up(tmp_path, [counts(400, 20)] * 2, lambda n, c: RIGHT(n, c) // 2), "q0", "q1")
    assert weak.p < P_LEAST


@pytest.mark.parametrize("party", ["one", "two"])
def test_the_whole_noise_is_left_to_who_subtracts(tmp_path: Path, party: str) -> None:
    run = made_up(tmp_path, [counts(4_000, 10)], RIGHT)
    found = subtraction(run, "q0", party)
    assert found.achieved == pytest.approx(SIGMA, rel=0.06)
    assert 1e-3 < found.p < 1 - 1e-3


def test_a_party_that_knows_half_of_the_noise_is_convicted(tmp_path: Path) -> None:
    """Noise halved, as it would be left to who takes off the part of it that is its own."""

    def halves(number: int, cells: int) -> np.ndarray:
        return np.sign(RIGHT(number, cells))

    assert subtraction(made_up(tmp_path, [counts(400, 10)], halves), "q0", "one").p < P_LEAST


def test_who_holds_nothing_subtracts_nothing(tmp_path: Path) -> None:
    run = made_up(tmp_path, [counts()], RIGHT)
    with pytest.raises(LookupError):
        subtraction(run, "q0", "helper")


def test_membership_attains_its_bound_and_no_more(tmp_path: Path) -> None:
    found = membership(made_up(tmp_path, [counts(20_000, 20)], RIGHT), "q0", 5)
    assert found.theory == advantage(1.0) == pytest.approx(0.4621, abs=1e-4)
    assert found.achieved == pytest.approx(found.theory, abs=0.03)
    assert found.p > 1e-3


def test_membership_finds_less_where_cells_are_hidden(tmp_path: Path) -> None:
    found = membership(made_up(tmp_path, [counts(20_000, 0, 2)], RIGHT), "q0", 5)
    assert found.achieved < 0.2
    assert found.p > 0.5


@pytest.mark.parametrize("noise", [none, lambda n, c: RIGHT(n, c) // 2])
def test_membership_that_sees_too_much_is_convicted(tmp_path: Path, noise: Noise) -> None:
    assert membership(made_up(tmp_path, [counts(2_000, 20)], noise), "q0", 5).p < P_LEAST


def test_p_values_of_right_noise_are_no_smaller_than_they_should_be(tmp_path: Path) -> None:
    """Over many runs each attack's p-value is spread evenly, or lies higher."""
    found: dict[str, list[float]] = {"average": [], "difference": [], "subtract": [], "member": []}
    for seed in range(120):
        run = made_up(tmp_path, [counts(60), counts(60, seed=3)], drawn(TABLE, 100 + seed))
        found["average"].append(averaging(run, ["q0"]).p)
        found["difference"].append(differencing(run, "q0", "q1").p)
        found["subtract"].append(subtraction(run, "q1", "two").p)
        found["member"].append(membership(run, "q0", seed).p)
    for values in found.values():
        assert stats.kstest(values, "uniform", alternative="greater").pvalue > 1e-4


def test_no_answer_is_no_attack(tmp_path: Path) -> None:
    run = made_up(tmp_path, [counts()], RIGHT)
    run.asked.clear()
    for attack in (lambda: averaging(run, ["q0"]), lambda: membership(run, "q0", 1)):
        with pytest.raises(LookupError):
            attack()


TITLES = ("one title", "another", "a third")
ASKS = "".join(f'[[ask]]\nname = "q{i}"\nquery = "query.toml"\ntimes = {1 + (i == 0)}\n' for i in range(3))


def test_the_check_of_averaging_finds_the_other_titles(tmp_path: Path) -> None:
    expectation = Attack(kind="attack", by="averaging", ask="q0")
    run = made_up(tmp_path, [counts(40, 20)] * 3, RIGHT, asks=ASKS, titles=TITLES)
    assert privacy.variants(run, "q0") == ["q1", "q2"]
    verdicts = privacy.attack(run, expectation)
    assert [verdict.holds for verdict in verdicts] == [True, True, True, True]
    assert "paid for, ε = 3" in verdicts[2].claim
    # A second release of the very same question is one too many.
    run.asked[1] = type(run.asked[1])(**{**vars(run.asked[1]), "ask": run.asked[0].ask})
    assert not privacy.attack(run, expectation)[-1].holds


def test_the_checks_of_the_others(tmp_path: Path) -> None:
    run = made_up(tmp_path, [counts(40, 20), counts(40, 20, seed=2)], RIGHT)
    bare = made_up(tmp_path, [counts(40, 20), counts(40, 20, seed=2)], none, spent=0)
    for by, more in (
        ("differencing", {"other": "q1"}),
        ("subtraction", {}),
        ("subtraction", {"party": "two"}),
    ):
        expectation = Attack(kind="attack", by=by, ask="q0", **more)  # type: ignore[arg-type]
        assert all(verdict.holds for verdict in privacy.attack(run, expectation))
        found = privacy.attack(bare, expectation)
        assert [v.holds for v in found] == ["could have shown more" in v.claim for v in found]
