"""Opening values that a uniform mask hides. What is published goes through `release.declassify` instead.

At degree t every party sends its share to every other, and each checks that all n shares lie on one
polynomial of degree t. At degree 2t there is no redundancy to check, and the polynomial itself would
tell about its factors, so each party sends λ_i·z_i plus its part of a fresh sharing of zero: the parts
are uniform subject to their sum, which is what is opened.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc_engine.field.mersenne import MersenneField, Vector
from mpc_engine.protocols.dealing import Field
from mpc_engine.runtime.context import Array, Context
from mpc_engine.runtime.cost import Cost
from mpc_engine.sharing.shamir import opening_weights, reconstruct_bits, reconstruct_counts
from mpc_engine.sharing.shared import Shared, SharedBits


async def exchange_all(ctx: Context, field: Field, mine: Array, rows: int) -> dict[int, memoryview]:
    """Send one encoded vector to every other computing party and receive theirs; one round."""
    size = field.wire_bytes(rows, ctx.cells)
    return await ctx.exchange({j: [mine] for j in ctx.others}, dict.fromkeys(ctx.others, size))


async def open_masked_bits(ctx: Context, x: SharedBits) -> NDArray[np.uint64]:
    """Open bits that are masked by uniform bits; degree t, one round.

    Returns packed bits, shape (rows, words). Raises IntegrityError when the shares do not lie on a
    polynomial of degree t or a value is not a bit.
    """
    field, rows = x.field, x.planes.shape[1]
    replies = await exchange_all(ctx, field, field.encode(x.planes), rows)
    shares = [x.planes if j == ctx.me else field.decode(replies[j], rows, ctx.cells) for j in ctx.parties]
    return reconstruct_bits(field, shares, ctx.degree)


async def open_masked(ctx: Context, x: Shared) -> Vector:
    """Open values that are masked by uniform elements; degree t, one round.

    Returns canonical values, shape (rows, cells). Raises IntegrityError when the shares do not lie on a
    polynomial of degree t.
    """
    field, (rows, cells) = x.field, x.values.shape
    replies = await exchange_all(ctx, field, field.encode(x.values), rows)
    shares = [x.values if j == ctx.me else field.decode(replies[j], rows, cells) for j in ctx.parties]
    return reconstruct_counts(field, shares, ctx.degree)


def zero_shared(ctx: Context, field: MersenneField, local: Vector) -> Vector:
    """Turn this party's degree-2t share into an additive share under a fresh sharing of zero.

    The parties' results add up to the secret and are otherwise uniform. Local; shape (rows, cells).
    """
    rows, cells = local.shape
    coefficients, vectors = [opening_weights(field, ctx.parties)[ctx.me - 1]], [local]
    for other in ctx.others:
        key, name = ctx.pair_stream(min(ctx.me, other), max(ctx.me, other))
        vectors.append(key.elements(name, field, (rows, cells)))
        coefficients.append(1 if ctx.me < other else field.p - 1)
    return field.combine(coefficients, vectors)


async def open_masked_product(ctx: Context, field: MersenneField, local: Vector) -> Vector:
    """Open values known as degree-2t shares, which must be masked or public by construction; one round.

    Returns canonical values, shape (rows, cells).
    """
    rows, cells = local.shape
    mine = zero_shared(ctx, field, local)
    replies = await exchange_all(ctx, field, field.encode(mine), rows)
    return field.canonical(field.add(mine, *(field.decode(replies[j], rows, cells) for j in ctx.others)))


def cost_of_opening(field: Field, computing: int, rows: int, cells: int) -> Cost:
    """Return the cost of opening `rows` × `cells` entries, at either degree."""
    return Cost(1, computing * (computing - 1) * field.wire_bytes(rows, cells))
