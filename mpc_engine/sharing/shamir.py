"""Shamir's sharing of degree t among n = 2t + 1 computing parties: public constants and local steps.

Party i holds f(i), the secret is f(0). In GF(2^d) the point of party i is the element whose bit
pattern is i. Everything here is public algebra or one party's own computation; sending is done by
the protocols. Sources: [Shamir79] for the sharing, [GRR98] for multiplication by resharing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from mpc_engine.errors import IntegrityError, TooFewPartiesError
from mpc_engine.field.algebra import ScalarField
from mpc_engine.field.binary import BinaryField, Planes
from mpc_engine.field.mersenne import MersenneField, Vector

SUPPORTED = (3, 5, 7, 9)
"""Numbers of computing parties that the engine accepts."""


class HasScalars(Protocol):
    """A vector field with its scalar algebra."""

    @property
    def scalars(self) -> ScalarField:
        """Scalar algebra of the field."""


def degree_for(parties: int) -> int:
    """Return t = (n − 1)/2 for n computing parties.

    Raises TooFewPartiesError for n < 3 and for numbers that are not supported.
    """
    if parties < 3:
        raise TooFewPartiesError(
            f"{parties} computing parties cannot keep a secret: with fewer than three, any one of them "
            "would hold the other's numbers. Two registries need a helper as the third party"
        )
    if parties not in SUPPORTED:
        raise TooFewPartiesError(
            f"{parties} computing parties are not supported; use 3, 5, 7 or 9 and let further silos "
            "take part as input-only parties"
        )
    return (parties - 1) // 2


@dataclass(frozen=True)
class Dealing:
    """How one dealer shares one value with t recipients' shares taken from pairwise streams.

    The polynomial of degree t is fixed by the secret and by t stream values, the shares of the
    `streamed` parties. The `first` computed party (the dealer itself, if it computes) gets
    `first_weights` · (secret, stream values); each party in `rest` gets its weights · (first
    party's share, stream values), which are small numbers.
    """

    streamed: tuple[int, ...]
    first: int
    first_weights: tuple[int, ...]
    rest: dict[int, tuple[int, ...]]

    @property
    def computed(self) -> tuple[int, ...]:
        """The parties whose shares do not come from streams."""
        return (self.first, *self.rest)


def dealing(field: HasScalars, parties: int, dealer: int) -> Dealing:
    """Return how `dealer` shares a value: the t parties after it, cyclically, get stream shares.

    A computing dealer keeps its own share and sends t elements; an input-only dealer (a number above
    `parties`) sends t + 1.
    """
    return _dealing(field.scalars, parties, dealer)


@cache
def _dealing(scalars: ScalarField, parties: int, dealer: int) -> Dealing:
    t = degree_for(parties)
    streamed = tuple((dealer + k) % parties + 1 for k in range(t))
    others = [j for j in range(1, parties + 1) if j not in streamed]
    first = dealer if dealer in others else others[0]
    others.remove(first)
    return Dealing(
        streamed,
        first,
        tuple(scalars.interpolation_weights([0, *streamed], at=first)),
        {j: tuple(scalars.interpolation_weights([first, *streamed], at=j)) for j in others},
    )


@cache
def _at_zero(scalars: ScalarField, points: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(scalars.interpolation_weights(points, at=0))


def opening_weights(field: HasScalars, points: Iterable[int]) -> tuple[int, ...]:
    """Return λ with f(0) = Σ λ_j·f(points_j) for polynomials of degree below the number of points."""
    return _at_zero(field.scalars, tuple(points))


@cache
def _checks(scalars: ScalarField, parties: int, degree: int) -> tuple[tuple[int, ...], ...]:
    base = tuple(range(1, degree + 2))
    return tuple(tuple(scalars.interpolation_weights(base, at=j)) for j in range(degree + 2, parties + 1))


def reconstruct_counts(field: MersenneField, shares: Sequence[Vector], degree: int) -> Vector:
    """Return the secrets from *all* n shares, in the order of the parties, canonical.

    Raises IntegrityError when the shares do not lie on polynomials of `degree`, which one wrong share
    cannot hide: n shares of a degree-t polynomial are a code of distance n − t.
    """
    base = shares[: degree + 1]
    for weights, share in zip(_checks(field.scalars, len(shares), degree), shares[degree + 1 :], strict=True):
        if (field.encode(field.combine(weights, base)) != field.encode(share)).any():
            raise _degree_fault(degree)
    return field.canonical(field.combine(opening_weights(field, range(1, degree + 2)), base))


def reconstruct_bits(field: BinaryField, shares: Sequence[Planes], degree: int) -> Planes:
    """Return the secrets in GF(2) from *all* n shares as one plane of bits, shape (rows, words).

    Raises IntegrityError when the shares do not lie on polynomials of `degree`, or when a secret is
    not a bit.
    """
    base = shares[: degree + 1]
    for weights, share in zip(_checks(field.scalars, len(shares), degree), shares[degree + 1 :], strict=True):
        if (field.combine(weights, base) != share).any():
            raise _degree_fault(degree)
    planes = field.combine(opening_weights(field, range(1, degree + 2)), base)
    if planes[1:].any():
        raise IntegrityError("an opening that must be a bit is not one: some party's share is wrong")
    first: Planes = planes[0]
    return first


def _degree_fault(degree: int) -> IntegrityError:
    return IntegrityError(
        f"the shares of an opening do not lie on a polynomial of degree {degree}: some party's share is wrong"
    )
