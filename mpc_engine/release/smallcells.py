"""What the small-cell test looks at under each rule, and what to change where that would be too much.

The test covers a range of at most `LARGEST_RANGE` values. Under the rules with noise that range reaches as
far down as the noise does, so that a small ε makes it too wide, whatever the threshold is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Final, TypeVar

from mpc_engine.dp.accounting import Allotment, Guarantee, Rule, guarantee_for
from mpc_engine.dp.rationals import decimal_text
from mpc_engine.errors import DocumentError
from mpc_engine.protocols.threshold import LARGEST_RANGE, Range

T = TypeVar("T")

_DIGITS: Final = range(10, 100)
_POWERS: Final = range(-10, 1)
"""The ε that are tried have two digits: from 10·10⁻¹⁰ to 99, short of the largest there is."""


def ranges(guarantee: Guarantee, guard: Allotment) -> list[tuple[str, Range]]:
    """Return what is tested in every cell of a guard.

    "noisy" stands for records plus noise, "patients" for the true count. A group is suppressed if any
    of its guard's values lies in its range. The ranges start at the lowest value that can occur (for
    the noisy value under `strict`: in a group that passes the other test). Raises DocumentError for a range
    that is too wide.
    """
    k, limit = guarantee.threshold, guard.table.limit
    patients = ("patients", Range(0, k - 1))
    if guarantee.rule is Rule.EXACT:
        return [patients]
    if guarantee.rule is Rule.NOISY:
        return [("noisy", Range(-limit, k - 1))]
    if guard.least_shown is None:
        raise DocumentError("rule strict needs the least value shown")
    return [patients, ("noisy", Range(k - limit, guard.least_shown - 1))]


def check(guarantee: Guarantee) -> None:
    """Raise DocumentError where a test is too wide, saying which larger ε or smaller threshold would do."""
    if _fits(guarantee):
        return

    enough = _first(
        [
            epsilon
            for power in _POWERS
            for epsilon in (Fraction(10) ** power * digits for digits in _DIGITS)
            if epsilon > guarantee.epsilon
        ],
        lambda epsilon: _fits(_again(guarantee, epsilon, guarantee.threshold)),
    )
    lowered = _first(
        range(1, guarantee.threshold),
        lambda less: _fits(_again(guarantee, guarantee.epsilon, guarantee.threshold - less)),
    )
    ways = []
    if enough is not None:
        ways.append(f"this query needs ε = {decimal_text(enough)} or more")
    if lowered is not None:
        ways.append(f"a threshold of {guarantee.threshold - lowered} or less would do")
    said = ", or ".join(ways) or "it needs both a larger ε and a smaller threshold"
    raise DocumentError(
        f"with ε = {decimal_text(guarantee.epsilon)} and threshold {guarantee.threshold} the "
        f"small-cell test would cover more than the {LARGEST_RANGE:,} values that it can: {said}"
    )


def _fits(guarantee: Guarantee) -> bool:
    try:
        for each in guarantee.allotments:
            if each.part.guard:
                ranges(guarantee, each)
    except DocumentError:
        return False
    return True


def _again(guarantee: Guarantee, epsilon: Fraction, threshold: int) -> Guarantee:
    """Return the same parts under the same rule, with another ε or threshold."""
    parts = [each.part for each in guarantee.allotments]
    delta = guarantee.strict_delta if guarantee.rule is Rule.STRICT else None
    return guarantee_for(epsilon, parts, guarantee.rule, threshold, guarantee.cap, delta)


def _first(ascending: Sequence[T], holds: Callable[[T], bool]) -> T | None:
    """Return the first of the values for which a condition holds that, once it holds, holds for all later."""
    place = bisect_left(ascending, True, key=holds)
    return ascending[place] if place < len(ascending) else None
