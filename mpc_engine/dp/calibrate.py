"""A second opinion on a noise table, by means that share nothing with its construction.

OpenDP's privacy map answers what epsilon its own discrete Laplace of the same scale has. The
hockey-stick divergence of the table is summed outcome by outcome, without the argument about carries.
So is the total variation distance to the ideal discrete Laplace distribution, and OpenDP draws the noise
that a trusted curator would add, to compare errors with. OpenDP works in floating point, so its answer
confirms and never enters a release: this module alone imports it, for the tests, for the optional check of
the command line and for the scenario harness.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc_engine.dp.noise_table import NoiseTable
from mpc_engine.dp.rationals import exponential_bounds
from mpc_engine.errors import DocumentError, IntegrityError

RELATIVE_TOLERANCE = 1e-9
MOST_SUMMED_BITS = 12
MOST_COMPARED_BITS = 16
"""Magnitude bits up to which a table is compared with the ideal outcome by outcome."""
COMPARED_WITHIN = Fraction(1, 1 << 128)
"""How far the total variation distance may be overstated."""
_FIXED_BITS = 320
_DRAWN_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class SecondOpinion:
    """What the independent checks found for one table.

    ``opendp_epsilon`` is OpenDP's epsilon for one patient (a change of M); ``divergence`` is the exact
    hockey-stick divergence at epsilon * M for a change of M in one value, or None where the table has
    more than 2^13 outcomes.
    """

    epsilon: Fraction
    opendp_epsilon: float
    divergence: Fraction | None


def hockey_stick(table: NoiseTable, shift: int) -> Fraction:
    """Return the hockey-stick divergence between X + shift and X at e^(epsilon * shift), outcome by outcome.

    It is sum over y of max(0, P(X = y - shift) - e^(epsilon * shift) P(X = y)), the least delta for which
    one value changed by ``shift`` is (epsilon * shift, delta)-private; the mirror image has the same
    value. e^(epsilon * shift) enters through its lower bound, so the result is an upper bound, exact
    where every ratio is within bounds. Time and memory grow with 2^K. Raises DocumentError for
    shift < 1 or a table of more than 12 magnitude bits.
    """
    if shift < 1 or table.K > MOST_SUMMED_BITS:
        raise DocumentError(f"the divergence is summed for changes >= 1 and K <= {MOST_SUMMED_BITS} only")
    factor = exponential_bounds(table.epsilon * shift)[0]
    span = range(-table.limit, table.limit + 1)
    outcomes = {x: table.probability(x) for x in span}
    total = Fraction(0)
    for x, p in outcomes.items():
        total += max(Fraction(0), p - factor * outcomes.get(x + shift, Fraction(0)))
    return total


def opendp_epsilon(table: NoiseTable) -> float:
    """Return OpenDP's epsilon for discrete Laplace noise of scale 1 / epsilon' under a change of M.

    Raises DocumentError if the package ``opendp`` is not installed.
    """
    dp = _opendp()
    domain, metric = dp.atom_domain(T="i32"), dp.absolute_distance(T="i32")
    measurement = dp.m.make_geometric(domain, metric, scale=float(1 / table.epsilon))
    return float(measurement.map(table.largest_change))


def curator_noise(epsilon: Fraction, draws: int) -> NDArray[np.int64]:
    """Return independent draws of OpenDP's discrete Laplace noise of epsilon per unit, int64.

    This is what a trusted curator who holds all records adds to each value; OpenDP draws it from the
    operating system's randomness, some 100,000 a second. Raises DocumentError for epsilon <= 0, a negative
    number of draws, or if the package ``opendp`` is not installed.
    """
    if epsilon <= 0 or draws < 0:
        raise DocumentError("a curator's noise needs an epsilon above 0 and a number of draws")
    dp = _opendp()
    domain, metric = dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64")
    measurement = dp.m.make_geometric(domain, metric, scale=float(1 / epsilon))
    found = np.zeros(draws, np.int64)
    for start in range(0, draws, _DRAWN_AT_ONCE):
        piece = found[start : start + _DRAWN_AT_ONCE]
        piece[:] = measurement(np.zeros(piece.size, np.int64))
    return found


def total_variation(table: NoiseTable) -> Fraction:
    """Return the total variation distance between a table and the ideal discrete Laplace of its epsilon.

    It is half the sum of |P(X = x) - Q(x)| over all integers x, Q(x) = (1 - r) / (1 + r) * r^|x| with
    r = e^-epsilon: the most by which any event's probability differs. The table's probabilities enter as
    they are; those of Q, which are irrational, in fixed point. The result is an upper bound, at most
    `COMPARED_WITHIN` too large. Time and memory grow with 2^K. Raises DocumentError for a table of more
    than 16 magnitude bits.
    """
    if table.K > MOST_COMPARED_BITS:
        raise DocumentError(f"the total variation is summed for K <= {MOST_COMPARED_BITS} only")
    one = 1 << _FIXED_BITS
    growth = exponential_bounds(table.epsilon)[0]
    r = one * growth.denominator // growth.numerator
    ideal = (one - r) * one // (one + r)
    weights = [1]  # P(G = g) over 2^(all magnitude bits), g ascending
    for coin in table.magnitude:
        no = (1 << coin.bits) - coin.numerator
        weights = [weight * no for weight in weights] + [weight * coin.numerator for weight in weights]
    bits = table.random_bits + 1
    held = table.nonzero.probability
    total = abs((one * (held.denominator - held.numerator)) // held.denominator - ideal)
    for weight in weights:
        ideal = ideal * r >> _FIXED_BITS
        total += 2 * abs((weight * table.nonzero.numerator << _FIXED_BITS >> bits) - ideal)
    beyond = (ideal * r >> _FIXED_BITS) * one // (one - r)
    return Fraction(total + 2 * beyond, 2 * one) + COMPARED_WITHIN


def _opendp() -> Any:
    try:
        import opendp.prelude as dp
    except ImportError as error:
        raise DocumentError("the second opinion needs the package opendp (0.16 or later)") from error
    dp.enable_features("contrib")
    return dp


def second_opinion(table: NoiseTable) -> SecondOpinion:
    """Return the independent findings on a table after comparing them with what the table claims.

    Raises IntegrityError if OpenDP's epsilon differs by more than one part in 10^9, or if the summed
    divergence exceeds the table's truncation delta.
    """
    epsilon = table.epsilon * table.largest_change
    found = opendp_epsilon(table)
    if abs(found - float(epsilon)) > RELATIVE_TOLERANCE * float(epsilon):
        raise IntegrityError("noise table: OpenDP's privacy map gives another epsilon for this scale")
    divergence = hockey_stick(table, table.largest_change) if table.K <= MOST_SUMMED_BITS else None
    if divergence is not None and divergence > table.truncation_delta:
        raise IntegrityError("noise table: the summed divergence exceeds the delta that the table states")
    return SecondOpinion(epsilon, found, divergence)
