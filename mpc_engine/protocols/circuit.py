"""The cheapest circuit that compares a uniform number with a public constant, within a given depth.

A coin of probability c/2^b is [U < c] for b uniform bits U. Instead of U's bits the circuit takes
*literals*: literal i says whether bit i of U equals bit i of c, and is just as uniform. Two facts about
a block of neighbouring bits are built from those of its high part H and low part L:

    eq = eq_H·eq_L            (the block of U equals that of c)
    lt = lt_H + eq_H·lt_L     (the block of U is less than that of c)

with exceptions that save products: lt = 0 where the block of c is all zeros, and lt = 1 + eq where it
is all ones. The search below finds the fewest products for each block and depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Terms = frozenset[int]
"""A sum of wires. Wire 0 is the constant 1; literals follow, then products in order of their level."""

_ONE = 0
_IMPOSSIBLE = 1 << 30


@dataclass(frozen=True)
class Level:
    """Products that one round computes: row k is (sum of left wires)·(sum of right wires).

    Index arrays have shape (terms, products); unused places name the zero wire.
    """

    left: NDArray[np.intp]
    right: NDArray[np.intp]

    @property
    def products(self) -> int:
        """Number of products."""
        return int(self.left.shape[1])


@dataclass(frozen=True)
class Circuit:
    """All coins of a noise table at once.

    Wires: 0 is the constant 1, 1..`literals` the literals, then the products level by level; the
    zero wire comes last. `outputs` sums wires per coin, shape (terms, coins).
    """

    literals: int
    levels: tuple[Level, ...]
    outputs: NDArray[np.intp]

    @property
    def products(self) -> int:
        """Number of products over all levels."""
        return sum(level.products for level in self.levels)

    @property
    def wires(self) -> int:
        """Number of wires, constants included."""
        return 2 + self.literals + self.products


class _Search:
    """Fewest products for the facts `lt`, or `lt` and `eq`, about blocks of one constant."""

    def __init__(self, bits: str) -> None:
        self.bits = bits
        self.lt = cache(self._lt)
        self.both = cache(self._both)

    def zeros(self, i: int, j: int) -> bool:
        return "1" not in self.bits[i:j]

    def ones(self, i: int, j: int) -> bool:
        return "0" not in self.bits[i:j]

    def eq(self, i: int, j: int, depth: int) -> int:
        return j - i - 1 if (j - i - 1).bit_length() <= depth else _IMPOSSIBLE

    def _lt(self, i: int, j: int, depth: int) -> tuple[int, int]:
        """Return (products, best split) for lt alone; split 0 where nothing is to be computed."""
        if j - i == 1 or self.zeros(i, j):
            return 0, 0
        if self.ones(i, j):
            return self.eq(i, j, depth), 0
        best = (_IMPOSSIBLE, 0)
        for m in range(i + 1, j) if depth else ():
            if self.zeros(m, j):
                cost = self.lt(i, m, depth)[0]
            else:
                cost = self.high(i, m, depth - 1) + self.lt(m, j, depth - 1)[0] + 1
            best = min(best, (cost, m))
        return best

    def _both(self, i: int, j: int, depth: int) -> tuple[int, int]:
        """Return (products, best split) for lt and eq together."""
        if j - i == 1 or self.zeros(i, j) or self.ones(i, j):
            return self.eq(i, j, depth), 0
        best = (_IMPOSSIBLE, 0)
        for m in range(i + 1, j) if depth else ():
            high = self.high(i, m, depth - 1)
            if self.zeros(m, j) or self.ones(m, j):
                cost = high + self.eq(m, j, depth - 1) + 1
            else:
                cost = high + self.both(m, j, depth - 1)[0] + 2
            best = min(best, (cost, m))
        return best

    def high(self, i: int, j: int, depth: int) -> int:
        return self.both(i, j, depth)[0]


class _Builder:
    """Collects products with the level at which their operands are ready."""

    def __init__(self) -> None:
        self.operands: list[tuple[int, Terms, Terms]] = []  # level, left, right
        self.literals = 0

    def product(self, left: Terms, right: Terms) -> Terms:
        level = 1 + max((self.level(wire) for wire in left | right), default=0)
        self.operands.append((level, left, right))
        return frozenset([-len(self.operands)])  # products are numbered −1, −2, … until all are known

    def level(self, wire: int) -> int:
        return self.operands[-wire - 1][0] if wire < 0 else 0

    def coin(self, bits: str, depth: int) -> Terms:
        search = _Search(bits)
        wires = [frozenset([self.literals + 1 + k]) for k in range(len(bits))]
        self.literals += len(bits)

        def eq(i: int, j: int) -> Terms:
            if j - i == 1:
                return wires[i]
            m = i + (1 << ((j - i - 1).bit_length() - 1))
            return self.product(eq(i, m), eq(m, j))

        def lt(i: int, j: int, depth: int) -> Terms:
            if search.zeros(i, j):
                return frozenset()
            if search.ones(i, j):
                return eq(i, j) ^ {_ONE}
            m = search.lt(i, j, depth)[1]
            if search.zeros(m, j):
                return lt(i, m, depth)
            lt_high, eq_high = both(i, m, depth - 1)
            return lt_high ^ self.product(eq_high, lt(m, j, depth - 1))

        def both(i: int, j: int, depth: int) -> tuple[Terms, Terms]:
            if search.zeros(i, j):
                return frozenset(), eq(i, j)
            if search.ones(i, j):
                same = eq(i, j)
                return same ^ {_ONE}, same
            m = search.both(i, j, depth)[1]
            lt_high, eq_high = both(i, m, depth - 1)
            if search.zeros(m, j):
                return lt_high, self.product(eq_high, eq(m, j))
            if search.ones(m, j):
                same = self.product(eq_high, eq(m, j))
                return lt_high ^ eq_high ^ same, same
            lt_low, eq_low = both(m, j, depth - 1)
            return lt_high ^ self.product(eq_high, lt_low), self.product(eq_high, eq_low)

        return lt(0, len(bits), depth)

    def finish(self, outputs: Sequence[Terms]) -> Circuit:
        order = sorted(range(len(self.operands)), key=lambda k: self.operands[k][0])
        place = {-(k + 1): 1 + self.literals + position for position, k in enumerate(order)}
        zero = 1 + self.literals + len(order)

        def table(sums: Sequence[Terms]) -> NDArray[np.intp]:
            rows = [sorted(place.get(wire, wire) for wire in terms) for terms in sums]
            height = max(1, *map(len, rows))
            return np.array([row + [zero] * (height - len(row)) for row in rows], np.intp).T.copy()

        levels = []
        for level in range(1, 1 + max((operand[0] for operand in self.operands), default=0)):
            chosen = [self.operands[k] for k in order if self.operands[k][0] == level]
            levels.append(
                Level(table([left for _, left, _ in chosen]), table([right for *_, right in chosen]))
            )
        return Circuit(self.literals, tuple(levels), table(outputs))


@cache
def comparison_circuit(constants: tuple[tuple[int, int], ...]) -> Circuit:
    """Return the circuit for coins of probability c/2^b, given as pairs (c, b) with 0 < c < 2^b.

    Its depth is the least that the longest coin allows; shorter coins use the same depth to save
    products. Literals of the coins come one after the other, most significant first.
    """
    coins = [format(c, f"0{b}b").rstrip("0") for c, b in constants]
    depth = max((len(bits) - 1).bit_length() for bits in coins)
    builder = _Builder()
    return builder.finish([builder.coin(bits, depth) for bits in coins])
