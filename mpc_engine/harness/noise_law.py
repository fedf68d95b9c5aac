"""How errors ought to be distributed, exactly: noise given that a value is shown, and sums of scores.

A release's errors are independent, but not alike: where a guard holds c records and is shown from v on, its
noise is the table's given X >= v - c. What is tested is therefore a sum of whole-number scores, one of each
error. Its distribution is the convolution of all of theirs, computed by the discrete Fourier transform: exact
for any number of values but for some 10^-10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mpc_engine.dp.noise_table import NoiseTable
from mpc_engine.errors import EngineError
from mpc_engine.release.opened import Floats

MOST_BITS: Final = 22
"""Magnitude bits up to which a table is written out."""
_WIDTHS: Final = 16.0
"""Standard deviations on either side within which sums are told apart; beyond lies less than 10^-10."""


@dataclass(frozen=True)
class Law:
    """A distribution of whole numbers: ``chances`` of -limit, …, limit, which add up to 1."""

    chances: Floats

    @property
    def limit(self) -> int:
        """The largest value."""
        return self.chances.size // 2

    @property
    def support(self) -> NDArray[np.int64]:
        """All values, ascending."""
        return np.arange(-self.limit, self.limit + 1)

    @property
    def deviation(self) -> float:
        """The standard deviation; the mean is 0."""
        return float(np.sqrt(self.chances @ self.support.astype(np.float64) ** 2))

    @property
    def mean_size(self) -> float:
        """The mean of the absolute value."""
        return float(self.chances @ np.abs(self.support))

    def from_on(self, least: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return from which positions of the support values are ``least`` or more; its size if none is."""
        return np.clip(least + self.limit, 0, self.chances.size)

    def at_least(self, least: NDArray[np.int64]) -> Floats:
        """Return P(X >= least)."""
        return _tails(self.chances)[self.from_on(least)]

    def size_at_least(self, least: NDArray[np.int64]) -> Floats:
        """Return E |X|, counted as 0 where X < least."""
        return _tails(self.chances * np.abs(self.support))[self.from_on(least)]

    def given(self, start: int) -> Floats:
        """Return the chances given that the value is at the position ``start`` of the support or beyond."""
        held = np.where(np.arange(self.chances.size) >= start, self.chances, 0.0)
        whole = held.sum()
        return np.asarray(held / whole) if whole > 0 else held

    def times(self, count: int) -> Law:
        """Return the distribution of the sum of so many independent values."""
        found = self.chances
        for _ in range(count - 1):
            found = np.convolve(found, self.chances)
        return Law(found)


def _tails(weights: Floats) -> Floats:
    """Return the sums of the weights from each position on, and 0 beyond the last."""
    return np.append(np.cumsum(weights[::-1])[::-1], 0.0)


def law_of(table: NoiseTable) -> Law:
    """Return a noise table's distribution. Raises EngineError for one of more than 22 magnitude bits."""
    if table.K > MOST_BITS:
        raise EngineError(f"noise of more than {MOST_BITS} bits is not written out")
    magnitude = np.ones(1)
    for coin in table.magnitude:
        p = float(coin.probability)
        magnitude = np.concatenate([magnitude * (1 - p), magnitude * p])
    half = magnitude * (float(table.nonzero.probability) / 2)
    return Law(np.concatenate([half[::-1], [1 - float(table.nonzero.probability)], half]))


def laplace(epsilon: float) -> Law:
    """Return the ideal discrete Laplace distribution of ε per unit, cut where less than 10^-18 is left."""
    limit = max(1, int(np.ceil(42 / epsilon)))
    if limit > 1 << MOST_BITS:
        raise EngineError(f"noise of more than {MOST_BITS} bits is not written out")
    chances = np.exp(-epsilon * np.abs(np.arange(-limit, limit + 1)))
    return Law(chances / chances.sum())


@dataclass(frozen=True)
class Scores:
    """So many independent scores of one distribution: score ``values`` with ``chances``, ``times`` over."""

    values: NDArray[np.int64]
    chances: Floats
    times: int


def tails(scores: Sequence[Scores], found: int) -> tuple[float, float]:
    """Return P(S <= found) and P(S >= found) of the sum S of all scores."""
    middles, pieces, variance = [], [], 0.0
    for each in scores:
        mean = float(each.chances @ each.values)
        middles.append(round(mean))
        pieces.append((each.values - round(mean), each.chances, each.times))
        variance += each.times * float(each.chances @ (each.values - mean) ** 2)
    centre = sum(middle * each.times for middle, each in zip(middles, scores, strict=True))
    mean = sum(times * float(chances @ values) for values, chances, times in pieces)
    widest = max((int(np.abs(values).max(initial=0)) for values, _, _ in pieces), default=0)
    whole = sum(times * int(np.abs(values).max(initial=0)) for values, _, times in pieces)
    reach = int(min(whole, abs(mean) + _WIDTHS * variance**0.5 + 8 * widest)) + 1
    at = found - centre
    if at < -reach:
        return 0.0, 1.0
    if at > reach:
        return 1.0, 0.0
    size = 1 << (2 * reach).bit_length()
    transform = np.ones(size // 2 + 1, np.complex128)
    for values, chances, times in pieces:
        transform *= np.fft.rfft(np.bincount(values % size, chances, size)) ** times
    sums = np.clip(np.roll(np.fft.irfft(transform, size), reach), 0.0, None)  # position 0 holds -reach
    return float(min(1.0, sums[: at + reach + 1].sum())), float(min(1.0, sums[at + reach :].sum()))


def two_sided(scores: Sequence[Scores], found: int) -> float:
    """Return the p-value of a sum of scores: twice the chance of one as far out on its side, at most 1."""
    below, above = tails(scores, found)
    return min(1.0, 2 * min(below, above))
