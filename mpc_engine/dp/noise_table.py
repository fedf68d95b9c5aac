"""The noise that a release adds, as a finite table of integers whose privacy is verified exactly.

The noise is X = sign * nonzero * (1 + G). The sign is a fair coin, ``nonzero`` is one biased coin, and
the K bits of G are K independent biased coins, so the parties can draw X jointly from K + 1 public
constants and nobody ever knows it. With coins of odds e^(-epsilon * 2^i) for bit i, G would be
geometric and X discrete Laplace up to truncation.

The constants here are dyadic, c / 2^bits, and chosen so that the resulting distribution is *itself*
epsilon-differentially private; being close to discrete Laplace is not part of the argument:

- G = 0..01..1 (i ones) and the next value 0..10..0 differ in a carry of length i, so
  P(G = g+1) / P(G = g) = odds_i / (odds_0 * ... * odds_(i-1)), where i is the number of trailing ones
  of g. The 2^K - 1 neighbouring ratios of G therefore take only K different values.
- P(X = 1) / P(X = 0) = nonzero / 2 * P(G = 0) / (1 - nonzero) is the one remaining ratio; the table is
  symmetric.

Each coin is the smallest dyadic number of its size whose ratio is at least e^-epsilon. Rounding up
keeps the ratio from falling too fast; ``NoiseTable.verify`` then checks all K + 1 ratios, exactly, to
lie in [e^-epsilon, 1], which also bounds them by e^epsilon from above. Checking K + 1 numbers checks all
2^(K+1) neighbours.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import rfc8785

from mpc_engine.dp.rationals import GREATEST_EPSILON, ceil_log2, exponential_bounds, floor_log2
from mpc_engine.errors import DocumentError, IntegrityError

TRUNCATION_LIMIT = Fraction(1, 1 << 64)
LEAST_MANTISSA_BITS = 2
MOST_MANTISSA_BITS = 64
MOST_MAGNITUDE_BITS = 48
ALGORITHM = "two-sided dyadic table 1"


@dataclass(frozen=True)
class Coin:
    """A biased coin with P(1) = numerator / 2^bits, in lowest terms: 0 < numerator < 2^bits, odd.

    It is drawn as U < numerator for U of ``bits`` uniform bits. Raises IntegrityError when constructed
    with an even numerator or a probability outside (0, 1); ``Coin.reduced`` strips trailing zeros.
    """

    numerator: int
    bits: int

    def __post_init__(self) -> None:
        if self.numerator % 2 == 0 or not 0 < self.numerator < 1 << self.bits:
            raise IntegrityError("noise table: a coin is not an odd numerator below its power of two")

    @classmethod
    def reduced(cls, numerator: int, bits: int) -> Coin:
        """Return the coin of probability numerator / 2^bits in lowest terms."""
        zeros = (numerator & -numerator).bit_length() - 1
        return cls(numerator >> max(0, zeros), bits - max(0, zeros))

    @property
    def probability(self) -> Fraction:
        """P(1), exact."""
        return Fraction(self.numerator, 1 << self.bits)

    @property
    def odds(self) -> Fraction:
        """P(1) / P(0), exact."""
        return Fraction(self.numerator, (1 << self.bits) - self.numerator)


@dataclass(frozen=True)
class NoiseTable:
    """The public constants of the noise on one value, and exact facts about them.

    ``epsilon`` is the epsilon per unit of the value, ``largest_change`` (M) the most by which one
    patient can change the value, ``mantissa_bits`` the precision of the coins, ``magnitude`` the
    coins of the bits of G, least significant first, ``nonzero`` the coin of X != 0. X takes the integers
    from -limit to limit. Construction does not verify; ``generate`` and ``verify`` do.
    """

    epsilon: Fraction
    largest_change: int
    mantissa_bits: int
    magnitude: tuple[Coin, ...]
    nonzero: Coin

    @property
    def K(self) -> int:  # noqa: N802 - the field's name for it
        """Number of bits of G."""
        return len(self.magnitude)

    @property
    def limit(self) -> int:
        """T = 2^K, the largest value of X."""
        return 1 << self.K

    @property
    def random_bits(self) -> int:
        """Uniform bits that one draw of X takes from the coins, without the sign."""
        return self.nonzero.bits + sum(coin.bits for coin in self.magnitude)

    @property
    def widest_coin(self) -> int:
        """Bits of the coin with the longest constant; see ``generate`` for how large it can be."""
        return max(coin.bits for coin in (*self.magnitude, self.nonzero))

    def probability(self, x: int) -> Fraction:
        """Return P(X = x), exact; 0 beyond the limit."""
        if x == 0:
            return 1 - self.nonzero.probability
        if abs(x) > self.limit:
            return Fraction(0)
        result = self.nonzero.probability / 2
        for i, coin in enumerate(self.magnitude):
            result *= coin.probability if (abs(x) - 1) >> i & 1 else 1 - coin.probability
        return result

    def tail(self, x: int) -> Fraction:
        """Return P(X >= x), exact, in O(K) operations."""
        if x <= 0:
            return 1 - self.tail(1 - x)  # symmetry: P(X >= x) = 1 - P(X >= 1 - x)
        return self.nonzero.probability / 2 * self._magnitude_tail(x - 1)

    def _magnitude_tail(self, g: int) -> Fraction:
        """Return P(G >= g) for g >= 0: G first exceeds g at a bit where g has a 0, or equals g."""
        if g >> self.K:
            return Fraction(0)
        above, equal_so_far = Fraction(0), Fraction(1)
        for i in reversed(range(self.K)):
            p = self.magnitude[i].probability
            if g >> i & 1:
                equal_so_far *= p
            else:
                above += equal_so_far * p
                equal_so_far *= 1 - p
        return above + equal_so_far

    @cached_property
    def ratios(self) -> tuple[Fraction, ...]:
        """The K + 1 values that P(X = x+1) / P(X = x), x >= 0, takes.

        First P(1) / P(0); then, for i = 0..K-1, the ratio at every x = 1 + g where g ends in exactly i
        ones. For x < 0 the ratios are the inverses.
        """
        zero = Fraction(1)  # P(G = 0)
        lower_bits = Fraction(1)  # product of the odds of the bits below i
        found: list[Fraction] = []
        for coin in self.magnitude:
            found.append(coin.odds / lower_bits)
            lower_bits *= coin.odds
            zero *= 1 - coin.probability
        return (self.nonzero.odds / 2 * zero, *found)

    def max_ratio(self) -> Fraction:
        """Return the largest of P(X = x+1) / P(X = x) and its inverse over -T <= x < T, exact.

        A verified table has max_ratio() <= e^epsilon.
        """
        return max(max(ratio, 1 / ratio) for ratio in self.ratios)

    @cached_property
    def truncation_delta(self) -> Fraction:
        """P(X > T - M), exact: what the finite range adds to delta, for one patient, in a whole release.

        Let a patient change value j by d_j >= 0 with d_1 + d_2 + ... <= M. With and without the patient
        value j is c_j + d_j + X and c_j + X. Outcomes that both can produce differ in probability by at
        most e^(epsilon * d_j); those that only one can produce have probability
        f(d_j) = P(X > T - d_j). Outside these sets the whole vector's probabilities differ by at most
        e^(epsilon * M), so the release is (epsilon * M, f(d_1) + f(d_2) + ...)-differentially private.
        f(d) - f(d-1) = P(X = T - d + 1) does not decrease in d while d <= T, as probabilities fall
        with |x| (which ``verify`` checks); f is convex with f(0) = 0, so the sum is at most f(M): all
        the cells that one patient can touch cost together no more than one cell changed by M. The same
        holds for changes of mixed sign, by symmetry, and does not depend on the number of cells.
        """
        return self.tail(self.limit - self.largest_change + 1)

    @property
    def variance(self) -> Fraction:
        """Var X, exact. E X = 0, and E (1+G)^2 follows from mean and variance of independent bits."""
        mean, spread = Fraction(0), Fraction(0)
        for i, coin in enumerate(self.magnitude):
            p = coin.probability
            mean += p * (1 << i)
            spread += p * (1 - p) * (1 << 2 * i)
        return self.nonzero.probability * ((1 + mean) ** 2 + spread)

    def verify(self, truncation_limit: Fraction = TRUNCATION_LIMIT) -> None:
        """Check in exact arithmetic that this table keeps what it claims.

        1. Every ratio of neighbouring probabilities lies in [e^-epsilon, 1], hence in
           [e^-epsilon, e^epsilon]; e^epsilon enters through a rational lower bound, so the check errs
           towards refusal. 2. The values that one patient can reach beyond the range have together
           probability at most ``truncation_limit``; T > M. Raises IntegrityError naming the ratio.
        """
        lower = exponential_bounds(self.epsilon)[0]
        for position, ratio in enumerate(self.ratios):
            where = "P(1)/P(0)" if position == 0 else f"the carry into magnitude bit {position - 1}"
            if ratio * lower < 1:
                raise IntegrityError(f"noise table: probabilities fall faster than e^-epsilon at {where}")
            if ratio > 1:
                raise IntegrityError(f"noise table: probabilities rise with distance from 0 at {where}")
        if self.largest_change >= self.limit or self.truncation_delta > truncation_limit:
            raise IntegrityError("noise table: the range is too short for the largest change of one patient")

    def as_fields(self) -> dict[str, object]:
        """Return the table as plain JSON fields: epsilon as a fraction, numerators in hexadecimal."""
        return {
            "algorithm": ALGORITHM,
            "epsilon_per_unit": str(self.epsilon),
            "largest_change": self.largest_change,
            "mantissa_bits": self.mantissa_bits,
            "limit": str(self.limit),
            "magnitude": [{"numerator": f"{c.numerator:x}", "bits": c.bits} for c in self.magnitude],
            "nonzero": {"numerator": f"{self.nonzero.numerator:x}", "bits": self.nonzero.bits},
        }

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON (RFC 8785) of ``as_fields``, in hexadecimal."""
        return hashlib.sha256(rfc8785.dumps(self.as_fields())).hexdigest()  # type: ignore[arg-type]


def default_mantissa_bits(epsilon: Fraction) -> int:
    """Return the precision of the coins that ``generate`` takes for epsilon per unit.

    A coin of mantissa m has odds too large by a factor of at most 1 + 2^-(m-2), nearly. For a table
    whose probabilities fall, that factor must stay well below e^epsilon. From epsilon = 1 on, 12 bits
    leave a factor of 1 + 2^-10 and standard deviations within 0.05 % of the ideal. Below, precision
    grows with 1 / epsilon, m >= 12 + log2(1 / epsilon), so that the excess stays below epsilon / 1024.
    """
    return 12 if epsilon >= 1 else max(20, 12 + ceil_log2(1 / epsilon))


def _coin_at_least(p: Fraction, mantissa_bits: int) -> Coin:
    """Return the least dyadic probability >= p, 0 < p < 1, at a precision that follows p.

    Below 1/2, the numerator has ``mantissa_bits`` bits before trailing zeros are stripped. From 1/2 on,
    where the odds depend on 1 - p, the complement has ``mantissa_bits`` - 1 bits. Either way the odds
    grow by a factor of at most 1 + 2^-(mantissa_bits - 2), up to second order.
    """
    half = Fraction(1, 2)
    bits = mantissa_bits - 1 - floor_log2(p) if p < half else mantissa_bits - 2 - floor_log2(1 - p)
    numerator = -((-p.numerator << bits) // p.denominator)
    return Coin.reduced(numerator, bits)


def _tapered(mantissa_bits: int, p: Fraction) -> int:
    """Return the precision for a magnitude coin of probability p: two bits less per doubling of -log2 p.

    From p < 2^-8 on, what the rounding changes concerns only values that practically never occur, while
    every bit costs a product per cell. Privacy is not touched: the ratios are verified as they are.
    """
    rarity = -floor_log2(p) - 1
    return max(LEAST_MANTISSA_BITS, mantissa_bits - 2 * max(0, rarity.bit_length() - 3))


def generate(
    epsilon: Fraction,
    largest_change: int = 1,
    mantissa_bits: int | None = None,
    *,
    truncation_limit: Fraction = TRUNCATION_LIMIT,
) -> NoiseTable:
    """Return the verified noise table for epsilon per unit and the largest change M of one patient.

    K >= 1 is the smallest with P(X > 2^K - M) <= ``truncation_limit``; a release that draws on several
    tables divides 2^-64 between them. ``mantissa_bits`` defaults to ``default_mantissa_bits``.

    No coin is wider than ``mantissa_bits`` + b + 1.45 * epsilon * M + 4 bits, where 2^-b is the
    truncation limit: the rarest bit of G, at 2^(K-1), is about as rare as the truncation that K - 1
    bits would have had. With M = 1 at epsilon = 1 that is 51 bits (12-bit mantissa); it can exceed 64.

    Raises DocumentError for epsilon <= 0, epsilon * M above 100, M < 1, a mantissa outside 2..64 bits, a
    truncation limit outside (0, 1), an epsilon so small that K would exceed 48, or a ``mantissa_bits`` too
    short for the table to pass ``NoiseTable.verify``; with the default mantissa such a failure would be a
    fault of this module and is an IntegrityError.
    """
    if largest_change < 1:
        raise DocumentError("noise table: the largest change of one patient must be at least 1")
    if not 0 < epsilon * largest_change <= GREATEST_EPSILON:
        raise DocumentError(
            f"noise table: epsilon for one patient must be greater than 0 and at most {GREATEST_EPSILON}"
        )
    if not 0 < truncation_limit < 1:
        raise DocumentError("noise table: the truncation limit must lie between 0 and 1")
    mantissa = default_mantissa_bits(epsilon) if mantissa_bits is None else mantissa_bits
    if not LEAST_MANTISSA_BITS <= mantissa <= MOST_MANTISSA_BITS:
        raise DocumentError(
            f"noise table: mantissas have {LEAST_MANTISSA_BITS} to {MOST_MANTISSA_BITS} bits, not {mantissa}"
        )
    table = _shortest(epsilon, largest_change, mantissa, truncation_limit)
    if table is None:
        remedy = "ask for a larger epsilon or a smaller cap per patient"
        if mantissa_bits is not None:
            remedy += f", or for longer mantissas than {mantissa_bits} bits"
        raise DocumentError(
            f"noise table: epsilon per unit is so small that the noise would need more than "
            f"{MOST_MAGNITUDE_BITS} bits; {remedy}"
        )
    try:
        table.verify(truncation_limit)
    except IntegrityError as error:
        if mantissa_bits is None:
            raise
        raise DocumentError(f"mantissas of {mantissa_bits} bits are too short here: {error}") from error
    return table


def _shortest(
    epsilon: Fraction, largest_change: int, mantissa_bits: int, truncation_limit: Fraction
) -> NoiseTable | None:
    """Return the unverified table with the fewest bits of G that reach the truncation limit, if any."""
    least_ratio = 1 / exponential_bounds(epsilon)[0]  # slightly more than e^-epsilon
    magnitude: list[Coin] = []
    lower_bits, zero = Fraction(1), Fraction(1)  # product of the odds so far, P(G = 0)
    while len(magnitude) < MOST_MAGNITUDE_BITS:
        odds = least_ratio * lower_bits
        p = odds / (1 + odds)
        coin = _coin_at_least(p, _tapered(mantissa_bits, p))
        magnitude.append(coin)
        lower_bits *= coin.odds
        zero *= 1 - coin.probability
        odds = 2 * least_ratio / zero
        nonzero = _coin_at_least(odds / (1 + odds), mantissa_bits)
        table = NoiseTable(epsilon, largest_change, mantissa_bits, tuple(magnitude), nonzero)
        if largest_change < table.limit and table.truncation_delta <= truncation_limit:
            return table
    return None
