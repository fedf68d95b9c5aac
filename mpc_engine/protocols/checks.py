"""Always-on fault detection: batch checks that dealt values are what they must be.

They find faults and simple deviations. They are no security against an active party: a dealer knows its
own error and can cancel it in its own part of a degree-2t opening.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from mpc_engine.errors import IntegrityError
from mpc_engine.field.mersenne import MersenneField, pieces
from mpc_engine.protocols.opening import cost_of_opening, open_masked, open_masked_product
from mpc_engine.runtime.context import Context, gather
from mpc_engine.runtime.cost import Cost
from mpc_engine.sharing.prss import random_elements
from mpc_engine.sharing.shared import Shared
from mpc_engine.sharing.streams import KEY_BYTES, StreamKey

REPETITIONS = 2
"""Independent checks; each misses a fault with probability about 2/p, so together below 2^−59 over counts."""

_SEED_BYTES = 32


async def public_coins(ctx: Context) -> StreamKey:
    """Toss public coins that no party could know before this round; returns a stream key for them.

    One round. Every party contributes 32 bytes; the key is a hash of all of them. A party that speaks
    last could choose its bytes by the others', which matters only against an active party.
    """
    mine = np.frombuffer(os.urandom(_SEED_BYTES), np.uint8)
    replies = await ctx.exchange({j: [mine] for j in ctx.others}, dict.fromkeys(ctx.others, _SEED_BYTES))
    seeds = [bytes(mine) if j == ctx.me else bytes(replies[j]) for j in ctx.parties]
    key = sha256(b"mpc-engine/public-coins/1\0" + ctx.stream("coins").encode() + b"\0" + b"".join(seeds))
    return StreamKey(key.digest()[:KEY_BYTES], "public coins")


async def check_signs(ctx: Context, dealt: Sequence[Shared]) -> None:
    """Check, after dealing, that every value is +1 or −1 and dealt at degree t; two rounds, a few bytes.

    Opens, for public random ρ, Σ ρ_row·ρ_cell·(σ² − 1), which is 0 for signs whatever they are, under a
    fresh sharing of zero; and, for its degree only, Σ ρ_row·ρ_cell·σ masked by a uniform shared value,
    since a share that arrived negated would not show in the squares. All values lie in one field, and so
    do the weights. Raises IntegrityError.
    """
    field = dealt[0].field
    public = await public_coins(ctx.step("toss"))
    rows = [row for shares in dealt for row in shares.values]
    squared = np.zeros((1, REPETITIONS), np.uint64)
    plain = random_elements(ctx.keys, ctx.computing, ctx.stream("mask"), field, (1, REPETITIONS))
    for repetition in range(REPETITIONS):
        by_row = [int(x) for x in public.elements(f"rows{repetition}", field, (len(rows),))]
        by_cell = public.elements(f"cells{repetition}", field, (ctx.cells,))
        for piece in pieces(ctx.cells):
            # Σ_row ρ_row·(σ² − 1) and Σ_row ρ_row·σ, then their sums over cells weighted by ρ_cell.
            signs = [row[piece] for row in rows]
            squares = [field.multiply(sign, sign) for sign in signs]
            folded = field.combine(by_row, squares, constant=-sum(by_row))
            linear = field.combine(by_row, signs)
            for sums, weighted in ((squared, folded), (plain, linear)):
                total = field.total(field.multiply(weighted, by_cell[piece]))
                sums[0, repetition] = (int(sums[0, repetition]) + total) % field.p
    opened, _ = await gather(
        open_masked_product(ctx.step("squares").sized(REPETITIONS), field, squared),
        open_masked(ctx.step("degree").sized(REPETITIONS), Shared(field, plain)),
    )
    if opened.any():
        raise IntegrityError("a value dealt as a random sign is not a sign: some party's dealing is wrong")


def cost_of_sign_check(field: MersenneField, computing: int) -> Cost:
    """Return the cost of `check_signs`; it does not depend on the number of values."""
    toss = Cost(1, computing * (computing - 1) * _SEED_BYTES)
    opening = cost_of_opening(field, computing, 1, REPETITIONS)
    return toss.then(opening.beside(opening))
