"""Declassification: the two openings that publish something, and the only places that do.

`declassify_pattern` tells which cells are suppressed, `declassify_values` the noisy values of the others.
Both run only after every party has committed. Computing parties send what they stored at the commit,
to all parties; input-only silos receive and reconstruct for themselves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc_engine.field.mersenne import COUNTS, MersenneField, Vector
from mpc_engine.runtime.context import Array, Exchange
from mpc_engine.sharing.shamir import degree_for, reconstruct_counts


def _publish(me: int, computing: int, parties: int, mine: Array | None, size: int) -> Exchange:
    others = [j for j in range(1, parties + 1) if j != me]
    sends = {j: [mine] for j in others} if mine is not None and size else {}
    senders = [j for j in range(1, computing + 1) if j != me] if size else []
    return Exchange(sends, dict.fromkeys(senders, size))


async def declassify_pattern(
    me: int, computing: int, parties: int, cells: int, mine: Vector | None
) -> NDArray[np.bool_]:
    """Open the product of the small-cell test; one round.

    Args:
        mine: this computing party's additive share, zero-shared, shape (1, cells); None if input-only.

    Returns:
        For each cell whether it is shown.
    """
    encoded = None if mine is None else COUNTS.encode(mine)
    replies = await _publish(me, computing, parties, encoded, COUNTS.wire_bytes(1, cells))
    parts = [] if mine is None else [mine]
    parts += [COUNTS.decode(data, 1, cells) for data in replies.values()]
    opened: Vector = COUNTS.canonical(COUNTS.add(*parts))[0]
    shown: NDArray[np.bool_] = opened != 0
    return shown


async def declassify_values(
    field: MersenneField,
    me: int,
    computing: int,
    parties: int,
    shown: NDArray[np.bool_],
    mine: Vector | None,
) -> NDArray[np.int64]:
    """Open the noisy values of the cells that are shown, and of no others; one round, none if there are none.

    Args:
        field: in which the values are shared; above p/2 means negative.
        shown: the cells to open, as the opened pattern tells.
        mine: this computing party's degree-t share of all cells, shape (1, cells); None if input-only.

    Returns:
        The shown cells' values in the order of the cells.

    Raises IntegrityError when the n shares do not lie on polynomials of degree t.
    """
    count = int(shown.sum())
    if not count:
        return np.zeros(0, np.int64)
    chosen = None if mine is None else mine[:, shown]
    encoded = None if chosen is None else field.encode(chosen)
    replies = await _publish(me, computing, parties, encoded, field.wire_bytes(1, count))
    shares: list[Vector] = []
    for j in range(1, computing + 1):
        if j == me and chosen is not None:
            shares.append(chosen)
        else:
            shares.append(field.decode(replies[j], 1, count))
    values: NDArray[np.int64] = field.centred(reconstruct_counts(field, shares, degree_for(computing)))[0]
    return values
