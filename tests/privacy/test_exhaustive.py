"""Exact privacy on a tiny field: the distribution of what t parties see, over all randomness there is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from mpc_engine.field.mersenne import Vector
from mpc_engine.protocols import opening, threshold
from mpc_engine.protocols.dealing import deal
from mpc_engine.protocols.multiplication import multiply
from mpc_engine.protocols.opening import open_masked_product
from mpc_engine.protocols.threshold import Range, prepare_range_test
from mpc_engine.release import declassify
from mpc_engine.release.declassify import declassify_pattern
from mpc_engine.runtime.context import Context
from mpc_engine.sharing.shamir import opening_weights
from mpc_engine.sharing.shared import Shared
from tests.privacy.enumeration import TinyField, view

F5, F7 = TinyField(5), TinyField(7)
ALONE = pytest.mark.parametrize("party", [1, 2, 3])


def distinguishable(
    inputs: Sequence[Any], views: Callable[[Any], np.ndarray], output: Callable[[Any], Hashable]
) -> list[tuple[Any, Any]]:
    """Return the pairs of inputs of equal output whose views differ in distribution."""
    classes = defaultdict(list)
    for each in inputs:
        classes[output(each)].append((each, views(each)))
    return [
        (one, other)
        for same in classes.values()
        for (one, a), (other, b) in combinations(same, 2)
        if a.shape != b.shape or (a != b).any()
    ]


def nothing(inputs: Any) -> Hashable:
    return None


@pytest.mark.parametrize("field", [F5, F7], ids=["5", "7"])
@pytest.mark.parametrize("dealer", [1, 2, 3, 4])
def test_dealing(dealer: int, field: TinyField) -> None:
    """To every party but the dealer, whether its share is sent or streamed; two values at once."""
    for party in {1, 2, 3} - {dealer}:

        def views(secrets: tuple[int, int], seen_by: int = party) -> np.ndarray:
            async def protocol(ctx: Context, _: Any) -> Any:
                mine = np.repeat(np.array(secrets, np.uint64)[:, None], ctx.cells, axis=1)
                dealt = await deal(ctx, field, [dealer], 2, mine if ctx.me == dealer else None)
                return dealt[0].values if dealt else None

            return view(protocol, [], field, [seen_by], parties=4)

        assert distinguishable(list(product(range(field.p), repeat=2)), views, nothing) == []


@ALONE
def test_resharing(party: int) -> None:
    """A product tells nothing, neither about its factors nor about itself; its new share included."""

    def views(secrets: tuple[int, int]) -> np.ndarray:
        async def protocol(ctx: Context, inputs: list[Shared]) -> Any:
            return (await multiply(ctx, *inputs)).values

        return view(protocol, secrets, F5, [party])

    assert distinguishable(list(product(range(5), repeat=2)), views, nothing) == []


@pytest.mark.parametrize("coalition", [(1, 2), (2, 4), (3, 5)], ids=str)
def test_resharing_among_five(coalition: tuple[int, int]) -> None:
    """Two parties together, all randomness that they do not know, for a few settings of what they do."""

    def views(secrets: tuple[int, int]) -> np.ndarray:
        async def protocol(ctx: Context, inputs: list[Shared]) -> Any:
            return (await multiply(ctx, *inputs)).values

        return view(protocol, secrets, F7, coalition, n=5, settings=1)

    assert distinguishable([(0, 0), (1, 3), (6, 2)], views, nothing) == []


def views_of_opening(party: int) -> Callable[[tuple[int, int]], np.ndarray]:
    async def protocol(ctx: Context, inputs: list[Shared]) -> Any:
        return await open_masked_product(ctx, F5, F5.multiply(inputs[0].values, inputs[1].values))

    return lambda secrets: view(protocol, secrets, F5, [party])


def value(secrets: tuple[int, int]) -> Hashable:
    return secrets[0] * secrets[1] % 5


@ALONE
def test_opening_at_degree_2t(party: int) -> None:
    """A product that is opened tells its value and nothing else about the factors."""
    assert distinguishable(list(product(range(5), repeat=2)), views_of_opening(party), value) == []


@ALONE
def test_opening_at_degree_2t_without_a_sharing_of_zero_leaks(
    monkeypatch: pytest.MonkeyPatch, party: int
) -> None:
    """The negative control: local products sent as they are tell factors of equal products apart."""

    def unmasked(ctx: Context, field: TinyField, local: Vector) -> Vector:
        return field.combine([opening_weights(field, ctx.parties)[ctx.me - 1]], [local])

    monkeypatch.setattr(opening, "zero_shared", unmasked)
    pairs = list(product(range(5), repeat=2))
    leaking = distinguishable(pairs, views_of_opening(party), value)
    comparable = sum(value(a) == value(b) for a, b in combinations(pairs, 2))
    # Only swapped factors look alike: their local products are distributed alike.
    assert len(leaking) > comparable // 2
    assert ((1, 2), (3, 4)) in leaking and ((0, 0), (0, 1)) in leaking


@pytest.fixture
def tiny_counts(monkeypatch: pytest.MonkeyPatch) -> Any:
    threshold._factor_coefficients.cache_clear()
    monkeypatch.setattr(threshold, "COUNTS", F5)
    monkeypatch.setattr(declassify, "COUNTS", F5)
    yield
    threshold._factor_coefficients.cache_clear()


async def suppressed(ctx: Context, inputs: list[Shared], test: Range) -> Any:
    """The whole test as in a release, with the pattern opened at the end."""
    product_share = await prepare_range_test(ctx, [(inputs[0], test)])
    return await declassify_pattern(ctx.me, 3, 3, ctx.cells, product_share)


@ALONE
@pytest.mark.parametrize("test", [Range(0, 1), Range(1, 2)], ids=str)
def test_zero_test(tiny_counts: None, party: int, test: Range) -> None:
    """It tells whether the value is in the range and nothing else; mask and shares are part of the view."""

    def views(secret: int) -> np.ndarray:
        return view(lambda ctx, inputs: suppressed(ctx, inputs, test), [secret], F5, [party], settings=200)

    def within(secret: int) -> Hashable:
        return test.low <= secret <= test.high

    assert distinguishable(range(5), views, within) == []
    assert distinguishable([test.low, test.high + 1], views, nothing)  # the answer itself does differ


KNOWN = 6
"""Elements that one party knows in the zero test below: its own masks, zero sharings and dealings."""
PART = 5**3
"""Settings of them walked at a time; with the 5^4 outcomes of what it does not know, 78,125 cells."""


@ALONE
def test_zero_test_over_all_randomness_there_is(tiny_counts: None, party: int) -> None:
    """Every setting of what the party knows, every outcome of what it does not: 5^10 cells a value."""

    def within(secret: int) -> Hashable:
        return secret <= 1

    for start in range(0, 5**KNOWN, PART):

        def views(secret: int, part: range = range(start, start + PART)) -> np.ndarray:
            return view(
                lambda ctx, inputs: suppressed(ctx, inputs, Range(0, 1)),
                [secret],
                F5,
                [party],
                settings=part,
                given=KNOWN,
            )

        assert distinguishable(range(5), views, within) == []


@ALONE
def test_zero_test_without_its_mask_leaks(
    tiny_counts: None, monkeypatch: pytest.MonkeyPatch, party: int
) -> None:
    monkeypatch.setattr(
        threshold, "random_elements", lambda keys, n, name, field, shape: np.ones(shape, np.uint64)
    )

    def views(secret: int) -> np.ndarray:
        return view(
            lambda ctx, inputs: suppressed(ctx, inputs, Range(0, 1)), [secret], F5, [party], settings=50
        )

    assert distinguishable([2, 3, 4], views, nothing)
    assert distinguishable([0, 1], views, nothing) == []
