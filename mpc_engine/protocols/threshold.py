"""The small-cell test: is a shared value in a public range? Nothing but the answer is opened.

A value v lies in low..high exactly if P(v) = Π (v − z) over that range is zero in F_p. The test opens
r·P(v) for a shared uniform r: zero when v is in the range, and uniform among the non-zero elements
otherwise (r = 0, probability 1/p, suppresses a cell that could have been shown; it never shows one that
must be hidden). Roots are paired about the middle of the range, which makes P a polynomial in one square
of half the degree; that polynomial is evaluated in factors from few shared powers, in the manner of
[PS73], because a linear combination of shared powers is free and an inner product costs one resharing.

Several tests on several values may be joined: the product of their polynomials is zero if any value is
in its range, and only that is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from mpc_engine.errors import DocumentError
from mpc_engine.field.mersenne import COUNTS, Vector, pieces
from mpc_engine.protocols.multiplication import cost_of_multiplication, reshare
from mpc_engine.protocols.opening import zero_shared
from mpc_engine.runtime.context import Context, gather
from mpc_engine.runtime.cost import Cost
from mpc_engine.sharing.prss import random_elements
from mpc_engine.sharing.shared import Shared

LARGEST_RANGE = 2048
"""Most values a range may hold; wider tests need another protocol and are refused by the plan."""


@dataclass(frozen=True)
class Range:
    """Test whether a value is in low..high (inclusive). Raises DocumentError when empty or too wide."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 <= self.high - self.low < LARGEST_RANGE:
            raise DocumentError(
                f"the small-cell test would cover {self.high - self.low + 1} values; "
                f"at most {LARGEST_RANGE} are supported"
            )

    @property
    def pairs(self) -> int:
        """Number of root pairs; an odd range is widened by one value below, which v never reaches."""
        return (self.high - self.low + 2) // 2

    @property
    def centre(self) -> int:
        """Sum of the outermost roots: 2v − centre is ±1, ±3, … at the roots."""
        return self.high - 2 * self.pairs + 1 + self.high


@dataclass(frozen=True)
class Evaluation:
    """How a polynomial in y with known roots is evaluated.

    `powers`: y, …, y^powers are shared; `giants`: so are y^(2·powers), …, y^(giants·powers); the
    polynomial is a product of `factors`, each of degree up to (giants + 1)·powers, linear in the
    powers if giants = 0 and else an inner product.
    """

    powers: int
    giants: int
    factors: int

    @property
    def degree(self) -> int:
        """Largest degree of a factor."""
        return (self.giants + 1) * self.powers

    @property
    def products(self) -> int:
        """Resharings per cell, without the last product, which is opened."""
        shared = self.powers + max(0, self.giants - 1)
        return shared + (self.factors if self.giants else 0) + self.factors - 1

    @property
    def rounds(self) -> int:
        """Rounds, the opening of the last product included."""
        depth = 1 + _log2(self.powers) + _log2(max(1, self.giants)) + (1 if self.giants else 0)
        return depth + _log2(self.factors + 1)


def _log2(x: int) -> int:
    return (x - 1).bit_length()


@cache
def evaluation(pairs: int) -> Evaluation:
    """Return the evaluation with the fewest products, and among those the fewest rounds."""
    candidates = []
    for powers in range(1, 65):
        for giants in range(65):
            one = Evaluation(powers, giants, -(-pairs // ((giants + 1) * powers)))
            candidates.append(((one.products, one.rounds, powers), one))
            if one.factors == 1:
                break
    return min(candidates, key=lambda candidate: candidate[0])[1]


@cache
def _factor_coefficients(pairs: int) -> tuple[tuple[int, ...], ...]:
    """Return the factors' coefficients mod p, lowest first, each over a run of the roots 1², 3², 5², …"""
    how = evaluation(pairs)
    roots = [(2 * i + 1) ** 2 for i in range(pairs)]
    factors = []
    for start in range(0, pairs, how.degree):
        coefficients = [1]
        for root in roots[start : start + how.degree]:
            shifted = [0, *coefficients]
            coefficients = [a - root * b for a, b in zip(shifted, [*coefficients, 0], strict=True)]
        factors.append(tuple(c % COUNTS.p for c in coefficients))
    return tuple(factors)


async def _multiply_rows(ctx: Context, pairs: Sequence[tuple[Vector, Vector]]) -> list[Vector]:
    """Multiply several pairs of shared vectors, shape (cells,), in one resharing and one round."""
    local = np.empty((len(pairs), ctx.cells), np.uint64)
    for row, (x, y) in enumerate(pairs):
        local[row] = COUNTS.multiply(x, y)
    return list((await reshare(ctx, COUNTS, local)).values)


async def _powers(ctx: Context, y_root: Vector, how: Evaluation) -> dict[int, Vector]:
    """Return y^e for the exponents that an evaluation shares, where y = y_root²."""
    (y,) = await _multiply_rows(ctx.step("square"), [(y_root, y_root)])
    known = {1: y}
    top = 1
    while top < how.powers:
        wanted = range(top + 1, min(2 * top, how.powers) + 1)
        done = await _multiply_rows(ctx.step(f"power{top}"), [(known[top], known[e - top]) for e in wanted])
        known.update(zip(wanted, done, strict=True))
        top = wanted[-1]
    k = how.powers
    top = 1
    while top < how.giants:
        wanted = range(top + 1, min(2 * top, how.giants) + 1)
        pairs = [(known[k * top], known[k * (i - top)]) for i in wanted]
        done = await _multiply_rows(ctx.step(f"giant{top}"), pairs)
        known.update(zip((k * i for i in wanted), done, strict=True))
        top = wanted[-1]
    return known


async def _factors(ctx: Context, v: Shared, test: Range) -> list[Vector]:
    """Return shared factors whose product is zero exactly if v, shape (1, cells), is in the range."""
    how, coefficients = evaluation(test.pairs), _factor_coefficients(test.pairs)
    known = await _powers(ctx.step("powers"), v.affine(2, -test.centre).values[0], how)
    local = np.empty((len(coefficients), ctx.cells), np.uint64)
    for piece in pieces(ctx.cells):  # the powers of a piece stay in cache while all factors use them
        near = {exponent: power[piece] for exponent, power in known.items()}
        for row, factor in enumerate(coefficients):
            local[row, piece] = _local_factor(near, factor, how)
    if not how.giants:
        return list(local)
    return list((await reshare(ctx.step("factors"), COUNTS, local)).values)


def _local_factor(known: dict[int, Vector], factor: Sequence[int], how: Evaluation) -> Vector:
    """Return this party's share of Σ factor_e·y^e: of degree t without giants, else of degree 2t."""
    k = how.powers

    def linear(part: Sequence[int]) -> Vector:
        """Return Σ part_e·y^e for e = 0..k."""
        if len(part) == 1:
            return np.full(known[1].shape, part[0], np.uint64)
        return COUNTS.combine(part[1:], [known[e] for e in range(1, len(part))], constant=part[0])

    # The factor as Σ_i y^(k·i)·a_i(y) with a_i of degree below k, the last one of degree up to k.
    cuts = [factor[k * i : k * (i + 1)] for i in range(how.giants)] + [factor[k * how.giants :]]
    low, *high = [linear(cut) for cut in cuts if cut]
    if not high:
        return low
    return COUNTS.add(low, COUNTS.inner([known[k * i] for i in range(1, len(high) + 1)], high))


async def prepare_range_test(ctx: Context, tests: Sequence[tuple[Shared, Range]]) -> Vector:
    """Return this party's additive share of r·Π P(v), under a fresh sharing of zero; shape (1, cells).

    The sum of all parties' shares is zero exactly if some value is in its range, except that it is also
    zero with probability 1/p when none is. Nothing is opened: that is the release's to do.
    Rounds: one less than the largest `Evaluation.rounds` for one test.
    """
    mask = random_elements(ctx.keys, ctx.computing, ctx.stream("mask"), COUNTS, (ctx.cells,))
    found = await gather(
        *(_factors(ctx.step(f"test{i}"), value, test) for i, (value, test) in enumerate(tests))
    )
    items = [mask, *(factor for factors in found for factor in factors)]
    depth = 0
    while len(items) > 2:
        half = len(items) // 2
        pairs = list(zip(items[:half], items[half : 2 * half], strict=True))
        items = await _multiply_rows(ctx.step(f"product{depth}"), pairs) + items[2 * half :]
        depth += 1
    return zero_shared(ctx.step("last"), COUNTS, COUNTS.multiply(items[0], items[1])[None])


def cost_of_range_test(computing: int, tests: Sequence[Range], cells: int) -> Cost:
    """Return the cost of `prepare_range_test`."""

    def rows(count: int) -> Cost:
        return cost_of_multiplication(COUNTS, computing, count, cells)

    cost = Cost()
    items = 1
    for test in tests:
        how = evaluation(test.pairs)
        one = rows(1)
        for last in (how.powers, how.giants):
            top = 1
            while top < last:
                one = one.then(rows(min(2 * top, last) - top))
                top = min(2 * top, last)
        if how.giants:
            one = one.then(rows(how.factors))
        cost = cost.beside(one)
        items += how.factors
    while items > 2:
        cost = cost.then(rows(items // 2))
        items -= items // 2
    return cost
