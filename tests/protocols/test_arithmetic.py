"""Dealing, multiplication and openings: right values at every number of parties, at the declared cost."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from mpc_engine.errors import IntegrityError
from mpc_engine.field.binary import pack, smallest_field
from mpc_engine.field.mersenne import COUNTS, WIDE, MersenneField
from mpc_engine.protocols.dealing import cost_of_dealing, deal, share_sum
from mpc_engine.protocols.multiplication import (
    cost_of_multiplication,
    inner_product,
    multiply,
    multiply_bits,
)
from mpc_engine.protocols.opening import cost_of_opening, open_masked_bits, open_masked_product, zero_shared
from mpc_engine.runtime.context import Context, gather
from mpc_engine.runtime.cost import Cost
from mpc_engine.sharing.shamir import SUPPORTED, degree_for
from mpc_engine.sharing.shared import Shared
from tests.world import World, reveal, reveal_additive, reveal_bits, share_bits, share_vector

PARTIES = pytest.mark.parametrize("n", SUPPORTED)
CELLS = pytest.mark.parametrize("cells", [1, 63, 64, 65, 1000])
FIELDS = pytest.mark.parametrize("field", [COUNTS, WIDE], ids=str)


def generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def signed(field: MersenneField, values: np.ndarray) -> np.ndarray:
    """Integers of any size as representatives nearest zero."""
    residues = values.astype(object) % field.p
    return np.where(residues > field.p // 2, residues - field.p, residues).astype(np.int64)


@PARTIES
@CELLS
@FIELDS
def test_dealing(n: int, cells: int, field: MersenneField) -> None:
    """By the last computing party, the first, and an input-only one, side by side."""
    dealers, world = (n, 1, n + 2), World(n, n + 2, seed=n)
    values = {i: generator(n, i).integers(0, field.p, (2, cells), dtype=np.uint64) for i in dealers}

    async def protocol(ctx: Context) -> list[Shared]:
        return await deal(ctx, field, dealers, 2, values.get(ctx.me))

    results = world.run(protocol, cells)
    assert results[n:] == [[], []]
    for k, dealer in enumerate(dealers):
        np.testing.assert_array_equal(reveal([r[k] for r in results[:n]]), field.centred(values[dealer]))
    cost = cost_of_dealing(field, n, dealers, 2, cells)
    assert world.spent() == (cost.rounds, cost.sent_bytes)
    t = degree_for(n)
    assert [m.total_bytes for m in world.meters] == [
        (t * (i in dealers) + (i > n and i in dealers)) * field.wire_bytes(2, cells) for i in range(1, n + 3)
    ]


@PARTIES
@FIELDS
def test_sum_of_silos_of_which_some_compute(n: int, field: MersenneField) -> None:
    """Of signed values, with bounds that add up to all that the field has room for."""
    silos, world = [1, 2, n + 1, n + 2, n + 3], World(n, n + 3, seed=n)
    bound = field.p // 2 // len(silos)
    values = {i: generator(n, i).integers(-bound, bound + 1, (2, 65)) for i in silos}
    for i in silos:
        values[i][0, :5] = -bound, bound, 0, -1, 1
    mine = {i: field.vector(v) for i, v in values.items()}
    results = world.run(lambda ctx: share_sum(ctx, field, silos, 2, mine.get(ctx.me)), 65)
    np.testing.assert_array_equal(reveal(results[:n]), sum(values.values()))
    assert results[n:] == [None] * 3
    assert world.spent() == (1, cost_of_dealing(field, n, silos, 2, 65).sent_bytes)


@PARTIES
@CELLS
def test_two_fields_share_their_round(n: int, cells: int) -> None:
    """Bytes of wide elements follow an odd number of narrow ones in the same message."""
    values = {i: generator(n, i).integers(-(1 << 20), 1 << 20, (1, cells)) for i in (1, 2, n + 1)}

    async def protocol(ctx: Context) -> list[Shared]:
        sums = [
            share_sum(
                ctx.step(str(field)),
                field,
                list(values),
                1,
                field.vector(values[ctx.me] << shift) if ctx.me in values else None,
            )
            for field, shift in ((COUNTS, 0), (WIDE, 30))
        ]
        return await gather(*sums)

    world = World(n, n + 1, seed=n)
    results = world.run(protocol, cells)
    for k, shift in enumerate((0, 30)):
        np.testing.assert_array_equal(reveal([r[k] for r in results[:n]]), sum(values.values()) << shift)
    costs = [cost_of_dealing(field, n, list(values), 1, cells) for field in (COUNTS, WIDE)]
    assert world.spent() == (1, costs[0].beside(costs[1]).sent_bytes)


@PARTIES
@CELLS
@FIELDS
def test_products(n: int, cells: int, field: MersenneField) -> None:
    rng, world = generator(n, cells), World(n, seed=n)
    x, y = (rng.integers(-(field.p // 2), field.p // 2, (2, cells)) for _ in range(2))
    xs, ys = share_vector(field, x, n, rng), share_vector(field, y, n, rng)
    result = world.run(lambda ctx: multiply(ctx, xs[ctx.me - 1], ys[ctx.me - 1]), cells)
    np.testing.assert_array_equal(reveal(result), signed(field, x.astype(object) * y))
    cost = cost_of_multiplication(field, n, 2, cells)
    assert cost == Cost(1, n * degree_for(n) * field.wire_bytes(2, cells))
    assert world.spent() == (cost.rounds, cost.sent_bytes)


@PARTIES
@pytest.mark.parametrize("terms", [1, 2, 17])
@FIELDS
def test_inner_products_cost_one_product(n: int, terms: int, field: MersenneField) -> None:
    rng, world = generator(n, terms), World(n, seed=n)
    x, y = (rng.integers(-(field.p // 2), field.p // 2, (terms, 1, 65)) for _ in range(2))
    xs, ys = ([share_vector(field, row, n, rng) for row in z] for z in (x, y))

    async def protocol(ctx: Context) -> Shared:
        return await inner_product(ctx, *([row[ctx.me - 1] for row in z] for z in (xs, ys)))

    expected = (x.astype(object) * y).sum(axis=0)
    np.testing.assert_array_equal(reveal(world.run(protocol, 65)), signed(field, expected))
    assert world.spent() == (1, cost_of_multiplication(field, n, 1, 65).sent_bytes)


@PARTIES
@CELLS
def test_products_of_bits(n: int, cells: int) -> None:
    rng, world, field = generator(n, cells), World(n, seed=n), smallest_field(n)
    x, y = (rng.integers(0, 2, (3, cells), dtype=np.uint8) for _ in range(2))
    xs, ys = share_bits(field, x, n, rng), share_bits(field, y, n, rng)
    result = world.run(lambda ctx: multiply_bits(ctx, xs[ctx.me - 1], ys[ctx.me - 1]), cells)
    np.testing.assert_array_equal(reveal_bits(result, cells), x & y)
    cost = cost_of_multiplication(field, n, 3, cells)
    assert world.spent() == (cost.rounds, cost.sent_bytes)


@PARTIES
@CELLS
def test_opening_bits(n: int, cells: int) -> None:
    rng, world, field = generator(n, cells), World(n, seed=n), smallest_field(n)
    x = rng.integers(0, 2, (3, cells), dtype=np.uint8)
    xs = share_bits(field, x, n, rng)
    for opened in world.run(lambda ctx: open_masked_bits(ctx, xs[ctx.me - 1]), cells):
        np.testing.assert_array_equal(opened, pack(x))
    cost = cost_of_opening(field, n, 3, cells)
    assert world.spent() == (cost.rounds, cost.sent_bytes)


@PARTIES
@CELLS
@FIELDS
def test_opening_products(n: int, cells: int, field: MersenneField) -> None:
    """At degree 2t, under a fresh sharing of zero: messages are not zero even where all factors are."""
    rng, world = generator(n, cells), World(n, seed=n, record_payloads=True)
    x, y = rng.integers(0, field.p // 2, (2, 2, cells))
    x[0], y[0] = 0, 0
    zero = Shared(field, np.zeros((2, cells), np.uint64))
    xs, ys = (
        [
            zero + Shared(field, np.where(np.arange(2)[:, None], s.values, 0))
            for s in share_vector(field, z, n, rng)
        ]
        for z in (x, y)
    )

    async def protocol(ctx: Context) -> np.ndarray:
        local = field.multiply(xs[ctx.me - 1].values, ys[ctx.me - 1].values)
        return await open_masked_product(ctx, field, local)

    for opened in world.run(protocol, cells):
        np.testing.assert_array_equal(opened, x.astype(object) * y % field.p)
    cost = cost_of_opening(field, n, 2, cells)
    assert world.spent() == (cost.rounds, cost.sent_bytes)
    for sent in world.network.transcript:
        assert sent.payload is not None
        # In the first row local products are 0; messages are not.
        assert np.frombuffer(sent.payload, field.wire)[:cells].all()


@PARTIES
@FIELDS
def test_zero_sharings_cancel(n: int, field: MersenneField) -> None:
    local = [s.values for s in share_vector(field, np.arange(-30, 35), n, generator(n))]

    async def protocol(ctx: Context) -> np.ndarray:
        return zero_shared(ctx, field, local[ctx.me - 1])

    world = World(n, seed=n)
    shares = world.run(protocol, 65)
    np.testing.assert_array_equal(field.centred(reveal_additive(field, shares))[0], np.arange(-30, 35))
    assert world.spent() == (0, 0)


@PARTIES
@pytest.mark.parametrize("plane_bit", [0, 1])
def test_opened_bits_are_checked_at_every_sender(n: int, plane_bit: int) -> None:
    """One bit of one message wrong, wherever it comes from: the receiver stops."""
    field, rng = smallest_field(n), generator(n)
    xs = share_bits(field, rng.integers(0, 2, (2, 65)), n, rng)
    for sender in range(1, n + 1):

        def spoil(source: int, receiver: int, key: Any, content: bytearray, wrong: int = sender) -> None:
            if source == wrong:
                content[-1 if plane_bit else 0] ^= 1

        with pytest.raises(IntegrityError):
            World(n, seed=n, intercept=spoil).run(lambda ctx: open_masked_bits(ctx, xs[ctx.me - 1]), 65)


def test_a_share_outside_the_field_is_refused_in_a_product() -> None:
    xs = share_vector(COUNTS, np.arange(65), 3, generator(1))

    def spoil(source: int, receiver: int, key: Any, content: bytearray) -> None:
        content[:4] = b"\xff" * 4

    with pytest.raises(IntegrityError, match="outside the field"):
        World(3, seed=1, intercept=spoil).run(lambda ctx: multiply(ctx, xs[ctx.me - 1], xs[ctx.me - 1]), 65)


def test_seeds_make_runs_repeatable() -> None:
    """What the other tests rely on; and without a seed nothing repeats."""
    xs = share_vector(COUNTS, np.arange(65), 3, generator(1))

    def payloads(seed: int | None) -> list[Any]:
        world = World(3, seed=seed, record_payloads=True)
        world.run(lambda ctx: multiply(ctx, xs[ctx.me - 1], xs[ctx.me - 1]), 65)
        return [sent.payload for sent in world.network.transcript]

    assert payloads(1) == payloads(1) != payloads(2)
    assert payloads(None) != payloads(None) and os.urandom(8) != os.urandom(8)
