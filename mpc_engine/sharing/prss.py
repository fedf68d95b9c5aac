"""Pseudorandom secret sharing [CDI05]: shared random values without communication.

For every set A of t + 1 computing parties that hold a common key, r_A is drawn from that key's stream;
party j's share is Σ_{A∋j} r_A·f_A(j), where f_A has degree t, f_A(0) = 1 and f_A(i) = 0 for i outside A.
The secret is Σ_A r_A. Any t parties miss the key of exactly one set, the one none of them is in, so
the secret is uniform to them. With r_A in GF(2) the secret is a bit, shared in GF(2^d).
"""

from __future__ import annotations

from functools import cache

from mpc_engine.field.algebra import ScalarField
from mpc_engine.field.binary import BinaryField, Planes
from mpc_engine.field.mersenne import MersenneField, Vector
from mpc_engine.sharing.keys import SessionKeys


@cache
def _share_weight(scalars: ScalarField, parties: int, members: tuple[int, ...], at: int) -> int:
    outside = [j for j in range(1, parties + 1) if j not in members]
    return scalars.interpolation_weights([0, *outside], at=at)[0]


def set_weight(field: MersenneField | BinaryField, parties: int, members: tuple[int, ...], at: int) -> int:
    """Return f_A(at) for the set A = `members`."""
    return _share_weight(field.scalars, parties, members, at)


def random_elements(
    keys: SessionKeys, parties: int, name: str, field: MersenneField, shape: tuple[int, ...]
) -> Vector:
    """Return this party's degree-t shares of uniform field elements that nobody knows."""
    weights, parts = [], []
    for members, key in keys.sets():
        weights.append(set_weight(field, parties, members, keys.me))
        parts.append(key.elements(name, field, shape))
    return field.combine(weights, parts)


def random_bits(
    keys: SessionKeys, parties: int, name: str, field: BinaryField, rows: int, words: int
) -> tuple[Planes, dict[tuple[int, ...], Planes]]:
    """Return this party's degree-t shares of uniform bits that nobody knows, and its parts r_A.

    Shares have shape (d, rows, words); each part, by set, is packed bits of shape (rows, words).
    """
    parts = {members: key.bits(name, rows, words) for members, key in keys.sets()}
    weights = [set_weight(field, parties, members, keys.me) for members in parts]
    return field.combine(weights, [part[None] for part in parts.values()]), parts
