"""The small-cell test: zero exactly in the range, for every shape of evaluation, at the declared cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from mpc_engine.errors import DocumentError
from mpc_engine.field.mersenne import COUNTS
from mpc_engine.protocols import threshold
from mpc_engine.protocols.threshold import (
    LARGEST_RANGE,
    Range,
    cost_of_range_test,
    evaluation,
    prepare_range_test,
)
from mpc_engine.runtime.context import Context
from mpc_engine.sharing.shamir import SUPPORTED
from tests.world import World, reveal_additive, share_vector

PARTIES = pytest.mark.parametrize("n", SUPPORTED)


def opened(
    n: int, values: list[np.ndarray], tests: list[Range], world: World | None = None
) -> tuple[np.ndarray, World]:
    world = world or World(n, seed=n)
    shares = [share_vector(COUNTS, v, n, np.random.default_rng(k)) for k, v in enumerate(values)]

    async def protocol(ctx: Context) -> Any:
        pairs = [(s[ctx.me - 1], test) for s, test in zip(shares, tests, strict=True)]
        return await prepare_range_test(ctx, pairs)

    return reveal_additive(COUNTS, world.run(protocol, values[0].size))[0], world


def around(test: Range, largest: int) -> np.ndarray:
    """Values of a range, those just outside, very large ones; not the value below an odd range."""
    edge = test.low - 2 if (test.high - test.low) % 2 == 0 else test.low - 1
    inside = np.unique(np.linspace(test.low, test.high, 300).astype(np.int64))
    return np.concatenate([inside, [edge, edge - 1, test.high + 1, test.high + 2, largest, -largest]])


@PARTIES
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 9, 16, 31, 69, 70, 133, 261, 600, LARGEST_RANGE])
def test_zero_exactly_in_the_range(n: int, width: int) -> None:
    test = Range(5 - width, 4)
    values = around(test, 1 << 29)
    answer, world = opened(n, [values], [test])
    np.testing.assert_array_equal(answer == 0, (values >= test.low) & (values <= test.high))
    cost = cost_of_range_test(n, [test], values.size)
    assert world.spent() == (cost.rounds, cost.sent_bytes)
    assert cost.rounds == evaluation(test.pairs).rounds - 1


@PARTIES
@pytest.mark.parametrize("cells", [1, 63, 64, 65, 1000])
def test_the_usual_range(n: int, cells: int) -> None:
    values = np.random.default_rng(cells).integers(-64, 20, cells)
    answer, world = opened(n, [values], [Range(-64, 4)])
    np.testing.assert_array_equal(answer == 0, values < 5)
    cost = cost_of_range_test(n, [Range(-64, 4)], cells)
    assert world.spent() == (cost.rounds, cost.sent_bytes) and cost.rounds == 6


@PARTIES
@pytest.mark.parametrize(
    "tests",
    [[Range(0, 4), Range(-59, 18)], [Range(0, 0), Range(0, 1)], [Range(0, 300), Range(-3, 3), Range(7, 7)]],
    ids=["strict", "short", "three"],
)
def test_joined_tests_tell_only_whether_any_holds(n: int, tests: list[Range]) -> None:
    rng = np.random.default_rng(n)
    values = [
        np.where(
            rng.random(400) < 0.6,
            test.high + rng.integers(1, 9, 400),
            rng.integers(test.low, test.high + 1, 400),
        )
        for test in tests
    ]
    answer, world = opened(n, values, tests)
    within = [(v >= test.low) & (v <= test.high) for v, test in zip(values, tests, strict=True)]
    np.testing.assert_array_equal(answer == 0, np.any(within, axis=0))
    cost = cost_of_range_test(n, tests, 400)
    assert world.spent() == (cost.rounds, cost.sent_bytes)


def test_what_is_opened_for_a_shown_cell_is_uniform_whatever_its_value() -> None:
    values = np.repeat([5, 6, 1000, 1 << 28], 1 << 14)
    answer, _ = opened(3, [values], [Range(-64, 4)])
    for part in answer.reshape(4, -1):
        assert (
            stats.chisquare(np.bincount((part * np.uint64(64) // np.uint64(COUNTS.p)).astype(int))).pvalue
            > 1e-4
        )


def test_a_mask_of_zero_suppresses_and_never_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one error the test can make, probability 1/p a cell."""
    monkeypatch.setattr(
        threshold, "random_elements", lambda keys, n, name, field, shape: np.zeros(shape, np.uint64)
    )
    answer, _ = opened(3, [np.arange(-64, 100)], [Range(-64, 4)])
    assert not answer.any()


def test_ranges_that_are_refused() -> None:
    for low, high in ((5, 4), (0, LARGEST_RANGE), (-(1 << 40), 4)):
        with pytest.raises(DocumentError, match="at most 2048"):
            Range(low, high)
    assert Range(1, LARGEST_RANGE).pairs == LARGEST_RANGE // 2


def test_evaluations_reach_their_degree_with_few_products() -> None:
    for pairs in (*range(1, 80), *range(80, LARGEST_RANGE // 2 + 1, 29)):
        how = evaluation(pairs)
        assert how.degree * how.factors >= pairs
    assert (evaluation(35).products, evaluation(35).rounds) <= (13, 7)
    assert evaluation(LARGEST_RANGE // 2).products <= 3 * (LARGEST_RANGE // 2) ** 0.5
