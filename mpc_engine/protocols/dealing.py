"""Dealing: a party shares values it knows, with t recipients' shares taken from pairwise streams.

A computing dealer sends t elements per value and an input-only dealer t + 1, in one round. The t
stream shares are uniform and independent of the value, and with it they fix the polynomial, so the
sharing is uniform among those of the value: any t shares tell nothing about it. Source: [Shamir79];
the compression is the usual one of replacing sent shares by agreed pseudorandom ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mpc_engine.field.binary import BinaryField
from mpc_engine.field.mersenne import MersenneField, Vector
from mpc_engine.runtime.context import Array, Context, Replies
from mpc_engine.runtime.cost import Cost
from mpc_engine.sharing.shamir import dealing, degree_for
from mpc_engine.sharing.shared import Shared

Elements = NDArray[np.uint64]
Field = MersenneField | BinaryField


def outgoing(
    ctx: Context, field: Field, value: Elements, scale: int = 1
) -> tuple[Elements | None, dict[int, list[Array]]]:
    """Deal scale·value: return this party's own share (None if input-only) and what to send to whom."""
    how = dealing(field, ctx.computing, ctx.me)
    rows, cells = value.shape[-2], ctx.cells
    streams = []
    for recipient in how.streamed:
        key, name = ctx.pair_stream(ctx.me, recipient)
        streams.append(key.uniform(name, field, rows, cells))
    weight, *weights = how.first_weights
    first = field.combine([field.scalars.multiply(weight, scale), *weights], [value, *streams])
    sends: dict[int, list[Array]] = {
        party: [field.encode(field.combine(weights, [first, *streams]))]
        for party, weights in how.rest.items()
    }
    if how.first == ctx.me:
        return first, sends
    sends[how.first] = [field.encode(first)]
    return None, sends


def expected(ctx: Context, field: Field, dealers: Sequence[int], rows: int) -> dict[int, int]:
    """Return the bytes this computing party receives from each dealer; none from those it streams with."""
    size = field.wire_bytes(rows, ctx.cells)
    return {
        dealer: size
        for dealer in dealers
        if dealer != ctx.me and ctx.me in dealing(field, ctx.computing, dealer).computed
    }


def incoming(ctx: Context, field: Field, dealer: int, rows: int, replies: Replies) -> Elements:
    """Return this computing party's share of what another party dealt."""
    if dealer in replies:
        return field.decode(replies[dealer], rows, ctx.cells)
    key, name = ctx.pair_stream(dealer, ctx.me)
    return key.uniform(name, field, rows, ctx.cells)


async def deal(
    ctx: Context, field: MersenneField, dealers: Sequence[int], rows: int, mine: Vector | None
) -> list[Shared]:
    """Share each dealer's values; one round.

    Args:
        dealers: who deals, each at most once.
        rows: rows that every dealer deals.
        mine: this party's values, shape (rows, cells), if it is a dealer.

    Returns:
        The shares of every dealer's values, in the order of `dealers`; nothing at an input-only party.
    """
    own: Elements | None = None
    sends: dict[int, list[Array]] = {}
    if mine is not None:
        own, sends = outgoing(ctx, field, mine)
    if ctx.me > ctx.computing:
        await ctx.exchange(sends, {})
        return []
    replies = await ctx.exchange(sends, expected(ctx, field, dealers, rows))
    shares = []
    for dealer in dealers:
        if dealer == ctx.me:
            if own is None:
                raise ValueError("a dealer brings values")
            shares.append(Shared(field, own))
        else:
            shares.append(Shared(field, incoming(ctx, field, dealer, rows, replies)))
    return shares


def cost_of_dealing(field: Field, computing: int, dealers: Sequence[int], rows: int, cells: int) -> Cost:
    """Return the cost of dealing `rows` × `cells` values by each dealer."""
    t = degree_for(computing)
    elements = sum(t if dealer <= computing else t + 1 for dealer in dealers)
    return Cost(1, elements * field.wire_bytes(rows, cells))


async def share_sum(
    ctx: Context, field: MersenneField, silos: Sequence[int], rows: int, mine: Vector | None
) -> Shared | None:
    """Share every silo's values and return the shares of their sum, shape (rows, cells); one round.

    Args:
        field: in which to add.
        silos: who brings values.
        rows: rows that every silo brings.
        mine: a silo's values, shape (rows, cells), as elements of the field: `field.vector` of signed
            integers. The silos' public bounds on absolute values must add up to less than p/2, so
            that the sum cannot wrap round; the plan checks them.

    Returns None at an input-only party. Cost: `cost_of_dealing`.
    """
    shares = await deal(ctx, field, silos, rows, mine)
    if not shares:
        return None
    total = shares[0]
    for share in shares[1:]:
        total = total + share
    return total
