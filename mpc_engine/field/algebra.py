"""Scalar field algebra: interpolation weights, computed once per session on MPyC's finite fields.

This module is the only door to `mpyc`. Field elements cross it as plain integers: residues in 0..p−1
for a prime field, bit patterns of polynomials for GF(2^d). Importing `mpyc` reads the command line of
the host program and would configure its logging and event loop, so it is shown a command line of ours
and a root logger that already has a handler.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

_argv, sys.argv = sys.argv, ["mpc-engine", "--no-log", "--no-uvloop"]
_silent = logging.NullHandler()
logging.root.addHandler(_silent)
try:
    from mpyc import finfields, gfpx
finally:
    sys.argv = _argv
    logging.root.removeHandler(_silent)


class ScalarField:
    """Exact scalar arithmetic in one field, for weights and coefficients only.

    Args:
        order: p for a prime field, or 2^d when `modulus` is given.
        modulus: bit pattern of the irreducible polynomial that defines GF(2^d).
    """

    def __init__(self, order: int, modulus: int | None = None) -> None:
        self.order = order
        self._field: Any = finfields.GF(order if modulus is None else gfpx.GFpX(2)(modulus))

    def element(self, value: int) -> Any:
        """Return `value` as an element; integers are reduced mod p, bit patterns taken as they are."""
        return self._field(value)

    def integer(self, element: Any) -> int:
        """Return the canonical integer of an element."""
        return int(element) % self.order

    def multiply(self, a: int, b: int) -> int:
        """Return a·b."""
        return self.integer(self.element(a) * self.element(b))

    def inverse(self, a: int) -> int:
        """Return 1/a. Raises ZeroDivisionError for a = 0."""
        return self.integer(self.element(1) / self.element(a))

    def interpolation_weights(self, points: Sequence[int], at: int) -> list[int]:
        """Return w with f(at) = Σ w_j·f(points_j) for every polynomial f of degree < len(points).

        Raises ValueError when two points coincide in the field.
        """
        nodes = [self.element(point) for point in points]
        if len({self.integer(node) for node in nodes}) != len(nodes):
            raise ValueError("interpolation points must be distinct in the field")
        target = self.element(at)
        weights = []
        for j, node in enumerate(nodes):
            weight = self.element(1)
            for i, other in enumerate(nodes):
                if i != j:
                    weight = weight * (target - other) / (node - other)
            weights.append(self.integer(weight))
        return weights


IRREDUCIBLE = {2: 0b111, 3: 0b1011, 4: 0b10011}
"""Defining polynomials of GF(4), GF(8) and GF(16), as bit patterns."""


@cache
def prime_scalars(p: int) -> ScalarField:
    """Return scalar arithmetic mod the prime p."""
    return ScalarField(p)


@cache
def binary_scalars(d: int) -> ScalarField:
    """Return scalar arithmetic in GF(2^d), d in {2, 3, 4}."""
    return ScalarField(1 << d, IRREDUCIBLE[d])
