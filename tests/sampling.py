"""Noise drawn through the real protocol, and the statistical checks that it has to pass.

The checks judge any sample against an exact table, so that the same checks can be shown to fail for a
protocol with a planted bug. All use fixed seeds; a check fails at p < 10⁻⁵.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from scipy import stats

from mpc_engine.dp.noise_table import NoiseTable
from mpc_engine.field.mersenne import COUNTS, MersenneField
from mpc_engine.protocols.noise import finish_noise, prepare_noise
from mpc_engine.runtime.context import Context
from tests.world import World, reveal, seeded, session_keys

ALPHA = 1e-5
BLOCK = 1 << 16


@dataclass
class Sample:
    """Noise of one session; parties' shares of both factors and of the noise; opened bytes per block."""

    noise: np.ndarray
    shares: dict[str, list[np.ndarray]]
    opened: list[bytes]


def draw(
    table: NoiseTable,
    cells: int,
    n: int = 3,
    seed: int = 1,
    keys: Callable[[], Any] | None = None,
    chunks: Callable[[int], int] = lambda block: block,
    field: MersenneField = COUNTS,
) -> Sample:
    """Draw noise for so many cells, block after block within one session."""
    with seeded(seed):
        session = keys() if keys else session_keys(n)

    async def protocol(ctx: Context) -> Any:
        factors = await prepare_noise(ctx.step("noise"), field, table)
        noise = await finish_noise(ctx.step("finish"), factors)
        return factors, noise

    sample = Sample(np.empty(0, np.int64), {name: [] for name in "abx"}, [])
    noise: list[np.ndarray] = []
    for block, start in enumerate(range(0, cells, BLOCK)):
        world = World(n, seed=seed * 1000 + block)
        results = world.run(protocol, min(BLOCK, cells - start), chunk=chunks(block), keys=session)
        noise.append(reveal([x for _, x in results])[0])
        sample.shares["a"].append(np.stack([f.a.values[0] for f, _ in results]))
        sample.shares["b"].append(np.stack([f.b.values[0] for f, _ in results]))
        sample.shares["x"].append(np.stack([x.values[0] for _, x in results]))
        sample.opened.append(results[0][0].opened)
    sample.noise = np.concatenate(noise)
    return sample


# --- distribution -----------------------------------------------------------------------------------


def chi_square(x: np.ndarray, table: NoiseTable) -> float:
    """Return the p-value of a sample against the exact table; rare values are pooled by sign."""
    support = np.arange(-table.limit, table.limit + 1)
    expected = np.array([float(table.probability(int(v))) for v in support]) * x.size
    seen = np.bincount(x + table.limit, minlength=support.size)
    if seen.size > support.size:
        return 0.0
    common = expected >= 20
    bins = [*zip(seen[common], expected[common], strict=True)]
    for side in (support < 0, support > 0):
        rare = side & ~common
        bins.append((seen[rare].sum(), expected[rare].sum()))
    got, wanted = map(np.array, zip(*(b for b in bins if b[1] >= 1), strict=True))
    return float(stats.chisquare(got, wanted * got.sum() / wanted.sum()).pvalue)


def symmetry(x: np.ndarray, table: NoiseTable) -> float:
    """Return the p-value of as many positive as negative values."""
    positive, negative = int((x > 0).sum()), int((x < 0).sum())
    return float(stats.binomtest(positive, positive + negative).pvalue)


def variance(x: np.ndarray, table: NoiseTable) -> float:
    """Return the p-value of the table's variance; by the normal law, E X = 0."""
    true = float(table.variance)
    fourth = sum(float(table.probability(v)) * v**4 * 2 for v in range(1, table.limit + 1))
    z = (np.mean(x.astype(float) ** 2) - true) / ((fourth - true**2) / x.size) ** 0.5
    return float(2 * stats.norm.sf(abs(z)))


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return the p-value of two sequences of equal length being uncorrelated, in size and in sign."""
    worst = 1.0
    for view in (
        lambda v: v.astype(float),
        lambda v: np.abs(v.astype(float)),
        lambda v: (v == 0).astype(float),
    ):
        r = np.corrcoef(view(x), view(y))[0, 1]
        worst = min(worst, 3 * float(2 * stats.norm.sf(abs(r) * x.size**0.5)))
    return worst


def contingency(x: np.ndarray, y: np.ndarray) -> float:
    """Return the p-value of independence of two sequences of small non-negative integers."""
    table = np.bincount(x * (int(y.max()) + 1) + y, minlength=(int(x.max()) + 1) * (int(y.max()) + 1))
    return float(stats.chi2_contingency(table.reshape(-1, int(y.max()) + 1)).pvalue)


def clipped(x: np.ndarray, at: int = 3) -> np.ndarray:
    """Noise as a small non-negative integer."""
    return np.clip(x, -at, at) + at


# --- the privacy of what is published ---------------------------------------------------------------


def epsilon_lower_bound(x0: np.ndarray, x1: np.ndarray, count: int, threshold: int) -> float:
    """Return a 99 % lower bound on ε from noise at a cell with `count` and at one with `count` + 1.

    Events are a published value, a published value from some number on, and suppression; either
    data set may be the likelier one. Clopper–Pearson, Bonferroni over all events.
    """
    v0, v1 = x0 + count, x1 + count + 1
    top = int(max(v0.max(), v1.max()))
    span = top - threshold + 2

    def tally(v: np.ndarray) -> np.ndarray:
        equal = np.bincount(np.maximum(v, threshold - 1) - threshold + 1, minlength=span)
        return np.concatenate([equal, equal[::-1].cumsum()[::-1][1:]])

    a, b = tally(v0), tally(v1)
    level = 0.01 / (4 * a.size)
    bound = 0.0
    for one, many_one, other, many_other in ((a, v0.size, b, v1.size), (b, v1.size, a, v0.size)):
        low = stats.beta.ppf(level, one, many_one - one + 1)
        high = stats.beta.ppf(1 - level, other + 1, many_other - other)
        likely = (one > 0) & (high > 0)
        bound = max(
            bound, *(log(p / q) for p, q in zip(low[likely], np.minimum(high, 1)[likely], strict=True))
        )
    return bound


def failures(x: np.ndarray, table: NoiseTable, epsilon: float) -> set[str]:
    """Return the names of the checks that a sample fails."""
    half = x.size // 2
    audit = max(epsilon_lower_bound(x[:half], x[half:], count, 5) for count in (4, 5, 8))
    tests = {"chi-square": chi_square, "symmetry": symmetry, "variance": variance}
    failed = {name for name, test in tests.items() if test(x, table) < ALPHA}
    failed |= {"neighbours"} if correlation(x[:-1], x[1:]) < ALPHA else set()
    failed |= {"audit too high"} if audit > epsilon else set()
    failed |= {"audit without power"} if audit < 0.9 * epsilon else set()
    print(f"audit: ε >= {audit:.4f}")
    return failed
