"""Random bits shared twice: in GF(2^d), and as signs in F_p. They carry coins from one field to the other.

The GF(2^d) side is pseudorandom sharing: bit = Σ_A r_A over all sets A of t + 1 parties. The F_p side is
the product of the signs (−1)^{r_A}. Every set but one, the *last set*, contains one of t *dealers*; each
dealer knows the parts r_A of the sets entrusted to it and deals one sign for all of them. The members
of the last set know its sign themselves, so it needs no dealing: party j's degree-t share of it is
f_A(j)·(−1)^{r_A}. A sign is therefore t dealt factors times the last factor, and any public linear
combination of signs is one inner product, hence one resharing, for a whole table row.

Compared with a dealing by each of t + 1 parties this saves a dealer, the GF(2^d) dealings and all but
one of the products. Roles rotate with the block, so that parties send alike.

Privacy: t parties miss the key of one set, so the sign they cannot compute is uniform to them.
Semi-honest: a dealer that deals the wrong sign goes unnoticed here; one that deals something that is
not a sign is caught by `checks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from mpc_engine.field.binary import unpack
from mpc_engine.field.mersenne import MersenneField, Vector
from mpc_engine.protocols.checks import check_signs, cost_of_sign_check
from mpc_engine.protocols.dealing import cost_of_dealing, deal
from mpc_engine.protocols.multiplication import cost_of_multiplication, multiply, reshare
from mpc_engine.runtime.context import Context, gather
from mpc_engine.runtime.cost import Cost
from mpc_engine.sharing.prss import random_bits, set_weight
from mpc_engine.sharing.shamir import degree_for
from mpc_engine.sharing.shared import Shared, SharedBits

PackedBits = NDArray[np.uint64]


@dataclass(frozen=True)
class Roles:
    """Who deals in a block, and which set needs no dealing."""

    dealers: tuple[int, ...]
    last_set: tuple[int, ...]

    def dealer_of(self, members: tuple[int, ...]) -> int | None:
        """Return the dealer that a set is entrusted to; None for the last set."""
        return next((dealer for dealer in self.dealers if dealer in members), None)


def roles(computing: int, chunk: int) -> Roles:
    """Return the roles in a block: t dealers, starting at a party that moves with the block."""
    t = degree_for(computing)
    dealers = tuple((chunk + k) % computing + 1 for k in range(t))
    return Roles(dealers, tuple(j for j in range(1, computing + 1) if j not in dealers))


@dataclass(frozen=True)
class SignedBits:
    """Random bits with the signs of chosen parities of them.

    Attributes:
        bits: the bits in GF(2^d), shape (d, rows, words).
        dealt: products of the dealt factors, degree t, shape (parities, cells).
        last: this party's bits of the last factor, packed (parities, words); None outside the last set.
        last_weight: f_A(me) for the last set A; 0 outside it.
    """

    bits: SharedBits
    dealt: Shared
    last: PackedBits | None = field(repr=False)
    last_weight: int


def _parities(parts: PackedBits, parities: Sequence[Sequence[int]]) -> PackedBits:
    return np.stack([np.bitwise_xor.reduce(parts[list(rows)], axis=0) for rows in parities])


async def signed_bits(
    ctx: Context, field: MersenneField, rows: int, parities: Sequence[Sequence[int]]
) -> SignedBits:
    """Make `rows` random bits per cell, and in F_p the sign of the parity of each listed group of rows.

    Rounds: 1 + max(⌈log2 t⌉, 2), the check of the dealt signs included.
    Raises IntegrityError when something dealt is not a sign.
    """
    who = roles(ctx.computing, ctx.chunk)
    shares, parts = random_bits(ctx.keys, ctx.computing, ctx.stream("bits"), ctx.binary, rows, ctx.words)
    mine: Vector | None = None
    if ctx.me in who.dealers:
        entrusted = [part for members, part in parts.items() if who.dealer_of(members) == ctx.me]
        bits = _parities(reduce(np.bitwise_xor, entrusted), parities)
        mine = np.where(unpack(bits, ctx.cells), np.uint64(field.p - 1), np.uint64(1))
    dealt = await deal(ctx.step("deal"), field, who.dealers, len(parities), mine)
    product, _ = await gather(
        _product(ctx.step("product"), dealt),
        check_signs(ctx.step("check"), dealt),
    )
    if ctx.me in who.last_set:
        last = _parities(parts[who.last_set], parities)
        weight = set_weight(field, ctx.computing, who.last_set, ctx.me)
        return SignedBits(SharedBits(ctx.binary, shares), product, last, weight)
    return SignedBits(SharedBits(ctx.binary, shares), product, None, 0)


async def _product(ctx: Context, factors: Sequence[Shared]) -> Shared:
    """Return the product of shared vectors by a tree of multiplications."""
    level = list(factors)
    field = level[0].field
    depth = 0
    while len(level) > 1:
        half = len(level) // 2
        # One multiplication for all pairs of a level: their rows are laid one after the other.
        left = np.concatenate([x.values for x in level[:half]])
        right = np.concatenate([x.values for x in level[half : 2 * half]])
        step = ctx.step(str(depth))
        both = await multiply(step, Shared(field, left), Shared(field, right))
        rows = level[0].values.shape[0]
        done = [Shared(field, both.values[k * rows : (k + 1) * rows]) for k in range(half)]
        level = done + level[2 * half :]
        depth += 1
    return level[0]


@dataclass(frozen=True)
class SignSum:
    """A public linear combination: constant + Σ weight·(−1)^flip·sign, over rows of parities.

    `flips` are public packed bits, shape (rows, words), or None where nothing is flipped.
    """

    rows: tuple[int, ...]
    weights: tuple[int, ...]
    flips: tuple[PackedBits | None, ...]
    constant: int


async def sum_signs(ctx: Context, signs: SignedBits, sums: Sequence[SignSum]) -> Shared:
    """Return the shares of linear combinations of signs, shape (sums, cells); one resharing, one round."""
    local = np.stack([_local_sum(ctx, signs, one) for one in sums])
    return await reshare(ctx, signs.dealt.field, local)


def _local_sum(ctx: Context, signs: SignedBits, one: SignSum) -> Vector:
    """Return this party's degree-2t share of a linear combination of signs."""
    field = signs.dealt.field
    if signs.last is None:
        return np.full(ctx.cells, one.constant % field.p, np.uint64)
    dealt, last = [], []
    for row, weight, flip in zip(one.rows, one.weights, one.flips, strict=True):
        factor = field.scalars.multiply(weight % field.p, signs.last_weight)
        bits = signs.last[row] if flip is None else signs.last[row] ^ flip
        dealt.append(signs.dealt.values[row])
        last.append(_signed(field, factor, unpack(bits, ctx.cells)))
    return field.combine([1], [field.inner(dealt, last)], one.constant)


def _signed(field: MersenneField, factor: int, bits: NDArray[np.uint8]) -> Vector:
    """Return ±factor, − where the bit is 1; p − x is x with all bits flipped, for x in 0..p."""
    mask = bits.astype(np.uint64)
    mask *= np.uint64(field.p)
    mask ^= np.uint64(factor)
    return mask


def cost_of_signed_bits(field: MersenneField, computing: int, parities: int, cells: int) -> Cost:
    """Return the cost of `signed_bits`; the bits in GF(2^d) cost nothing."""
    t = degree_for(computing)
    product = Cost()
    factors = t
    while factors > 1:
        half = factors // 2
        product = product.then(cost_of_multiplication(field, computing, half * parities, cells))
        factors -= half
    deal_cost = cost_of_dealing(field, computing, range(1, t + 1), parities, cells)
    return deal_cost.then(product.beside(cost_of_sign_check(field, computing)))


def cost_of_sign_sums(field: MersenneField, computing: int, sums: int, cells: int) -> Cost:
    """Return the cost of `sum_signs`."""
    return cost_of_multiplication(field, computing, sums, cells)
