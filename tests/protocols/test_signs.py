"""Random bits with their signs in F_p, their linear combinations, and the check of what was dealt."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from mpc_engine.errors import IntegrityError
from mpc_engine.field.binary import pack
from mpc_engine.field.mersenne import COUNTS, WIDE, MersenneField
from mpc_engine.protocols import signs as module
from mpc_engine.protocols.checks import check_signs, cost_of_sign_check, public_coins
from mpc_engine.protocols.signs import (
    SignSum,
    cost_of_sign_sums,
    cost_of_signed_bits,
    roles,
    signed_bits,
    sum_signs,
)
from mpc_engine.runtime.context import Context
from mpc_engine.sharing.shamir import SUPPORTED, degree_for
from tests.world import World, reveal, reveal_bits, share_vector

PARTIES = pytest.mark.parametrize("n", SUPPORTED)
FIELDS = pytest.mark.parametrize("field", [COUNTS, WIDE], ids=str)
PARITIES = [(0,), (1,), (0, 2), (0, 1, 2)]


@PARTIES
@pytest.mark.parametrize("cells", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("chunk", [0, 1, 10])
@FIELDS
def test_signs_are_those_of_the_bits(n: int, cells: int, chunk: int, field: MersenneField) -> None:
    """Sums of one sign each, so that each sign is seen, flipped or not, and a sum of several."""
    flip = pack(np.random.default_rng(cells).integers(0, 2, (1, cells), dtype=np.uint8))[0]
    singles = [SignSum((row,), (1,), (None if row % 2 else flip,), 0) for row in range(4)]
    several = SignSum((0, 2, 3), (5, -7, field.p // 3), (None, flip, flip), -11)

    async def protocol(ctx: Context) -> Any:
        made = await signed_bits(ctx.step("signs"), field, 3, PARITIES)
        return made.bits, await sum_signs(ctx.step("sum"), made, [*singles, several])

    world = World(n, seed=n)
    results = world.run(protocol, cells, chunk)
    bits = reveal_bits([bits for bits, _ in results], cells).astype(np.int64)
    flips = (flip[np.arange(cells) // 64] >> (np.arange(cells) % 64).astype(np.uint64) & np.uint64(1)).astype(
        np.int64
    )
    parity = np.stack([np.bitwise_xor.reduce(bits[list(rows)], axis=0) for rows in PARITIES])
    plain = 1 - 2 * parity
    flipped = plain * (1 - 2 * flips)
    expected = [plain[row] if row % 2 else flipped[row] for row in range(4)]
    total = 5 * plain[0].astype(object) - 7 * flipped[2] + field.p // 3 * flipped[3].astype(object) - 11
    revealed = reveal([sums for _, sums in results])
    np.testing.assert_array_equal(revealed[:4], expected)
    np.testing.assert_array_equal(revealed[4] % field.p, total % field.p)
    cost = cost_of_signed_bits(field, n, 4, cells).then(cost_of_sign_sums(field, n, 5, cells))
    assert world.spent() == (cost.rounds, cost.sent_bytes)


@PARTIES
def test_every_set_is_entrusted_to_one_of_its_members_or_is_the_last(n: int) -> None:
    t = degree_for(n)
    for chunk in range(2 * n):
        who = roles(n, chunk)
        assert len(set(who.dealers)) == t and set(who.dealers) | set(who.last_set) == set(range(1, n + 1))
        for members in combinations(range(1, n + 1), t + 1):
            dealer = who.dealer_of(members)
            assert (dealer is None) == (members == who.last_set)
            assert dealer is None or dealer in members
    load = [dealer for chunk in range(n) for dealer in roles(n, chunk).dealers]
    assert {load.count(j) for j in range(1, n + 1)} == {t}


@PARTIES
@FIELDS
def test_honest_signs_pass_the_check_at_its_price(n: int, field: MersenneField) -> None:
    rng = np.random.default_rng(n)
    dealt = [share_vector(field, 1 - 2 * rng.integers(0, 2, (3, 65)), n, rng) for _ in range(degree_for(n))]
    world = World(n, seed=n)
    world.run(lambda ctx: check_signs(ctx, [d[ctx.me - 1] for d in dealt]), 65)
    cost = cost_of_sign_check(field, n)
    assert world.spent() == (cost.rounds, cost.sent_bytes)


@PARTIES
@pytest.mark.parametrize(
    ("field", "dealt_instead"),
    [
        *((COUNTS, wrong) for wrong in (0, 2, 7, -2, COUNTS.p // 2)),
        *((WIDE, wrong) for wrong in (0, WIDE.p // 2, COUNTS.p - 1)),
    ],
)
def test_a_dealt_value_that_is_no_sign_is_noticed(
    monkeypatch: pytest.MonkeyPatch, n: int, field: MersenneField, dealt_instead: int
) -> None:
    """By each dealer in turn, which follows the protocol with what it dealt in any other respect.

    Among the values is the −1 of the other field.
    """
    true_deal = module.deal
    for dealer in roles(n, 0).dealers:

        async def deal(ctx: Any, within: Any, dealers: Any, rows: int, mine: Any, who: int = dealer) -> Any:
            if ctx.me == who:
                mine = mine.copy()
                mine[rows - 1, -1] = dealt_instead % field.p
            return await true_deal(ctx, within, dealers, rows, mine)

        monkeypatch.setattr(module, "deal", deal)
        with pytest.raises(IntegrityError, match="not a sign"):
            World(n, seed=n).run(lambda ctx: signed_bits(ctx, field, 3, PARITIES), 65)


@FIELDS
def test_two_faults_do_not_cancel(field: MersenneField) -> None:
    """Values whose squares are 1 + a and 1 − a: only random weights tell their sum from that of signs."""
    p = field.p
    one = next(x for x in range(2, 100) if pow(2 - x * x, (p - 1) // 2, p) == 1)
    other = pow(2 - one * one, (p + 1) // 4, p)
    assert (one * one + other * other) % p == 2
    for places in ([(0, 3), (0, 4)], [(0, 3), (1, 3)], [(0, 3), (1, 64)]):
        values = np.ones((2, 65), np.int64)
        values[places[0]], values[places[1]] = one, other
        dealt = share_vector(field, values, 3, np.random.default_rng(1))
        with pytest.raises(IntegrityError, match="not a sign"):
            World(3, seed=1).run(lambda ctx, d=dealt: check_signs(ctx, [d[ctx.me - 1]]), 65)


@PARTIES
def test_public_coins_are_equal_at_all_and_need_every_party(n: int) -> None:
    async def draw(ctx: Context) -> bytes:
        return (await public_coins(ctx)).bits("x", 1, 2).tobytes()

    def drawn(seed: int) -> set[bytes]:
        return set(World(n, seed=seed).run(draw, 1))

    assert len(drawn(1)) == 1 and len(drawn(1) | drawn(2)) == 2

    def spoil(sender: int, receiver: int, key: Any, content: bytearray) -> None:
        if receiver == 1 and sender == n:
            content[-1] ^= 1

    assert len(set(World(n, seed=1, intercept=spoil).run(draw, 1))) == 2


@PARTIES
@FIELDS
def test_a_fault_in_the_checks_own_opening_makes_it_fail(n: int, field: MersenneField) -> None:
    rng = np.random.default_rng(n)
    dealt = share_vector(field, np.ones((1, 65), np.int64), n, rng)
    for sender in (1, n):

        def spoil(source: int, receiver: int, key: Any, content: bytearray, wrong: int = sender) -> None:
            if source == wrong and key.round == 1:
                content[0] ^= 1

        with pytest.raises(IntegrityError):
            World(n, seed=n, intercept=spoil).run(lambda ctx: check_signs(ctx, [dealt[ctx.me - 1]]), 65)
