"""Publication of values: of the cells that are shown, in either field, checked by every receiver."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc_engine.errors import IntegrityError
from mpc_engine.field.mersenne import COUNTS, WIDE, MersenneField
from mpc_engine.release.declassify import declassify_values
from mpc_engine.runtime.context import Context, gather
from mpc_engine.sharing.shamir import SUPPORTED
from tests.world import World, share_vector

PARTIES = pytest.mark.parametrize("n", SUPPORTED)
FIELDS = pytest.mark.parametrize("field", [COUNTS, WIDE], ids=str)


def opening(n: int, field: MersenneField, values: np.ndarray, shown: np.ndarray) -> Any:
    """Return the protocol with n computing parties and one input-only silo."""
    shares = share_vector(field, values, n, np.random.default_rng(n))

    def protocol(ctx: Context) -> Any:
        mine = shares[ctx.me - 1].values if ctx.me <= n else None
        return declassify_values(field, ctx.me, n, n + 1, shown, mine)

    return protocol


def cells(field: MersenneField, size: int = 65) -> np.ndarray:
    ends = [field.p // 2, -(field.p // 2), 0, -1, 1]
    drawn = np.random.default_rng(size).integers(-(field.p // 2), field.p // 2, size)
    return np.concatenate([ends, drawn])


@PARTIES
@FIELDS
def test_everybody_gets_the_shown_values_and_nothing_else_travels(n: int, field: MersenneField) -> None:
    values = cells(field)
    for step in (1, 2, 7):
        shown = np.arange(values.size) % step == 0
        world = World(n, n + 1, seed=n)
        for opened in world.run(opening(n, field, values, shown), values.size):
            np.testing.assert_array_equal(opened, values[shown])
            assert opened.dtype == np.int64
        assert world.spent() == (1, n * n * int(shown.sum()) * field.element_bytes)


@FIELDS
def test_nothing_shown_takes_no_round(field: MersenneField) -> None:
    values, world = cells(field), World(3, 4, seed=1)
    results = world.run(opening(3, field, values, np.zeros(values.size, bool)), values.size)
    assert [r.size for r in results] == [0] * 4 and world.spent() == (0, 0)


@PARTIES
@FIELDS
def test_a_wrong_share_is_noticed_wherever_it_comes_from(n: int, field: MersenneField) -> None:
    values = cells(field)
    protocol = opening(n, field, values, np.ones(values.size, bool))
    for sender in range(1, n + 1):

        def spoil(source: int, receiver: int, key: Any, content: bytearray, wrong: int = sender) -> None:
            if source == wrong and receiver == n + 1:
                content[field.element_bytes] ^= 1

        with pytest.raises(IntegrityError, match="degree"):
            World(n, n + 1, seed=n, intercept=spoil).run(protocol, values.size)


@FIELDS
def test_a_share_outside_the_field_is_refused(field: MersenneField) -> None:
    values = cells(field)

    def spoil(source: int, receiver: int, key: Any, content: bytearray) -> None:
        content[: field.element_bytes] = field.p.to_bytes(field.element_bytes, "little")

    with pytest.raises(IntegrityError, match="outside the field"):
        World(3, 4, seed=1, intercept=spoil).run(
            opening(3, field, values, np.ones(values.size, bool)), values.size
        )


@PARTIES
def test_counts_and_sums_travel_in_one_round(n: int) -> None:
    """Different cells of each; wide elements start in the middle of a word of the message."""
    counts, sums = cells(COUNTS), cells(WIDE)
    some, others = np.arange(counts.size) % 3 == 0, np.arange(counts.size) % 2 == 0
    for chosen in (some, some[::-1] & False):
        narrow, wide = opening(n, COUNTS, counts, chosen), opening(n, WIDE, sums, others)
        world = World(n, n + 1, seed=n)
        for first, second in world.run(lambda ctx, a=narrow, b=wide: gather(a(ctx), b(ctx)), counts.size):
            np.testing.assert_array_equal(first, counts[chosen])
            np.testing.assert_array_equal(second, sums[others])
        assert world.spent()[0] == 1
