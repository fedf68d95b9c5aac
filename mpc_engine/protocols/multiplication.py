"""Multiplication by resharing [GRR98], with compressed dealings: t elements per party, one round.

Party i's product of its own shares lies on a polynomial of degree 2t whose value at 0 is Σ λ_i z_i. It
deals λ_i·z_i afresh at degree t; the new share is the sum of the shares dealt. A whole inner product
costs one resharing. Private against t parties: every honest party's dealing is uniform given the
value it deals, and that value is the only thing it depends on.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpc_engine.field.mersenne import MersenneField, Vector
from mpc_engine.protocols.dealing import Elements, Field, cost_of_dealing, expected, incoming, outgoing
from mpc_engine.runtime.context import Context
from mpc_engine.runtime.cost import Cost
from mpc_engine.sharing.shamir import opening_weights
from mpc_engine.sharing.shared import Shared, SharedBits


async def _reshare(ctx: Context, field: Field, local: Elements) -> Elements:
    rows = local.shape[-2]
    weight = opening_weights(field, ctx.parties)[ctx.me - 1]
    own, sends = outgoing(ctx, field, local, scale=weight)
    if own is None:
        raise ValueError("only computing parties multiply")
    replies = await ctx.exchange(sends, expected(ctx, field, ctx.parties, rows))
    return field.add(own, *(incoming(ctx, field, dealer, rows, replies) for dealer in ctx.others))


async def reshare(ctx: Context, field: MersenneField, local: Vector) -> Shared:
    """Turn degree-2t shares, shape (rows, cells), into fresh degree-t shares of the same values."""
    return Shared(field, await _reshare(ctx, field, local))


async def multiply(ctx: Context, x: Shared, y: Shared) -> Shared:
    """Return the shares of x·y, entry by entry; shapes (rows, cells)."""
    return await reshare(ctx, x.field, x.field.multiply(x.values, y.values))


async def inner_product(ctx: Context, xs: Sequence[Shared], ys: Sequence[Shared]) -> Shared:
    """Return the shares of Σ_k x_k·y_k; one resharing however many terms."""
    field = xs[0].field
    return await reshare(ctx, field, field.inner([x.values for x in xs], [y.values for y in ys]))


async def multiply_bits(ctx: Context, x: SharedBits, y: SharedBits) -> SharedBits:
    """Return the shares of x·y over GF(2^d), entry by entry."""
    return SharedBits(x.field, await _reshare(ctx, x.field, x.field.multiply(x.planes, y.planes)))


def cost_of_multiplication(field: Field, computing: int, rows: int, cells: int) -> Cost:
    """Return the cost of multiplying `rows` × `cells` entries, or of as many inner products."""
    return cost_of_dealing(field, computing, range(1, computing + 1), rows, cells)
