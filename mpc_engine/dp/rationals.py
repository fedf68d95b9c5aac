"""Exact numbers of the privacy arithmetic: decimals as written, and e to a power between rational bounds.

Nothing here or above it in this package uses floating point: what is claimed about the noise is
claimed about integers, so the arithmetic that supports the claim has to be exact as well.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from mpc_engine.errors import DocumentError

GREATEST_EPSILON = Fraction(100)
LEAST_EPSILON = Fraction(1, 10**9)
MOST_DIGITS = 24
PRECISION_BITS = 192

_DECIMAL = re.compile(r"([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]{1,2}))?")


def _parse_decimal(text: str, name: str) -> Fraction:
    """Return the exact value of a decimal string; ``name`` is the quantity that messages speak of."""
    if not isinstance(text, str):
        raise DocumentError(f'{name} must be written as a decimal string, such as "0.5", not as a number')
    if len(text) > MOST_DIGITS + 6:
        raise DocumentError(f"{name} has more than {MOST_DIGITS} digits")
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise DocumentError(f'{name} is not a plain decimal number such as "1", "0.5" or "1e-6"')
    whole, fraction, exponent = match[1], match[2] or "", int(match[3] or 0)
    if len(whole) + len(fraction) > MOST_DIGITS:
        raise DocumentError(f"{name} has more than {MOST_DIGITS} digits")
    return Fraction(int(whole + fraction)) * Fraction(10) ** (exponent - len(fraction))


def parse_epsilon(text: str) -> Fraction:
    """Return epsilon from a decimal string, exactly.

    Accepted are at most 24 digits and an exponent of at most two digits, with a value from 10^-9 to
    100: below, noise would exceed any field; above, the noise would practically always be zero.
    Raises DocumentError for anything else, zero, negative and non-string values included.
    """
    value = _parse_decimal(text, "epsilon")
    if value <= 0:
        raise DocumentError("epsilon must be greater than 0")
    if value < LEAST_EPSILON or value > GREATEST_EPSILON:
        raise DocumentError(f"epsilon must lie between 1e-9 and {GREATEST_EPSILON}")
    return value


def parse_delta(text: str) -> Fraction:
    """Return the delta of the rule ``strict`` from a decimal string, exactly, with 0 < delta < 1.

    Raises DocumentError otherwise. That delta should be far below one over the population is advice
    that the plan prints; it is not enforced here.
    """
    value = _parse_decimal(text, "delta")
    if not 0 < value < 1:
        raise DocumentError("delta must be greater than 0 and less than 1")
    return value


def decimal_text(value: Fraction) -> str:
    """Return a non-negative value as a plain decimal where that is exact and short, else as a quotient."""
    places = 0
    while places < MOST_DIGITS and value.denominator != 1 and 10**places % value.denominator:
        places += 1
    if 10**places % value.denominator:
        return str(value)
    digits = str(value.numerator * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits


def floor_log2(value: Fraction) -> int:
    """Return the largest integer b with 2^b <= value, for value > 0."""
    numerator, denominator = value.numerator, value.denominator
    exponent = numerator.bit_length() - denominator.bit_length()
    # The bit lengths leave two candidates; one comparison of integers decides.
    if (numerator << max(0, -exponent)) < (denominator << max(0, exponent)):
        exponent -= 1
    return exponent


def ceil_log2(value: Fraction) -> int:
    """Return the least integer b with value <= 2^b, for value > 0."""
    return -floor_log2(1 / value)


@lru_cache(maxsize=256)
def exponential_bounds(x: Fraction) -> tuple[Fraction, Fraction]:
    """Return rationals (lower, upper) with lower < e^x < upper and upper - lower = 2^-191, for x > 0.

    Every term of the series of e^x is positive, so any partial sum is below e^x. With n >= 2x terms
    0 .. n-1 taken, each later term is less than half of the one before (x / (n+1) < 1/2), so the rest
    is less than twice its first term, x^n / n!. n is chosen so that 2 x^n / n! <= 2^-192. The partial
    sum is rounded down to a multiple of 2^-192, which loses less than 2^-192 and leaves it below e^x: lower
    is that multiple, and adding 2^-192 for each of the two losses gives upper. All steps use integers.
    """
    if x <= 0:
        raise DocumentError("the exponential is bounded here for positive arguments only")
    a, b = x.numerator, x.denominator
    terms, power, factorial = 0, 1, 1  # power / factorial = x^terms / terms!, over b^terms
    while terms * b < 2 * a or (2 * power << PRECISION_BITS) > factorial:
        terms += 1
        power *= a
        factorial *= terms * b
    numerator, denominator = 1, 1
    for k in range(terms - 1, 0, -1):  # Horner: 1 + x/1 (1 + x/2 (1 + ...))
        numerator, denominator = denominator * b * k + a * numerator, denominator * b * k
    scaled = (numerator << PRECISION_BITS) // denominator
    unit = Fraction(1, 1 << PRECISION_BITS)
    lower = scaled * unit
    return lower, lower + 2 * unit
