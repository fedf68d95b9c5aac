"""What a release shows of its own privacy: lower bounds on ε from the noisy values, and the exact bounds.

A statement of privacy is proved, not measured: `exact` gives the bounds of the published noise tables in
rational arithmetic. The audit measures what was really released, for a table in which many cells hold c and
many hold c + 1 patients. Two ways, because each misses faults that the other sees:

* *event sets*: cells with c and with c + 1 are compared in every event {suppressed}, {v = x}, {v ≥ x} and
  {v < x or suppressed}, in both directions. Clopper–Pearson intervals, Bonferroni over the events [CP34].
* *one run*: whether the last patient of a cell is there was a coin of its own; an attacker guesses all coins
  from the release. Under ε-differential privacy the right guesses are dominated by a binomial law with
  success e^ε/(1 + e^ε) [Steinke23], which needs no assumption about how cells depend on each other.

A bound above the stated ε convicts the release; one far below it says that the audit could see nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import exp, inf, log
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mpc_engine.dp.noise_table import NoiseTable
from mpc_engine.dp.rationals import ceil_log2
from mpc_engine.harness.record import Asked, Run
from mpc_engine.party.proposal import propose
from mpc_engine.release.plan import Line, Plan

LEVEL: Final = 1e-6
"""One minus the confidence of each bound here; of the two of an audit, at most twice that is the chance that
a right engine is convicted."""

REACH: Final = 32
"""How far from the true counts values are told apart in events."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Bound:
    """A lower bound on ε, and what it comes from: an event, or so many right guesses."""

    epsilon: float
    what: str


@dataclass(frozen=True)
class Audited:
    """An audited tally: `without` cells held `count` patients and `holding` cells one more.

    `stated` is ε for one record; `level` one minus the confidence of each of the two bounds. `one_run` is
    None where nobody tossed coins over who is there.
    """

    count: int
    without: int
    holding: int
    stated: float
    level: float
    events: Bound
    one_run: Bound | None

    @property
    def epsilon(self) -> float:
        """The greater of the bounds."""
        return max(self.events.epsilon, -inf if self.one_run is None else self.one_run.epsilon)


@dataclass(frozen=True)
class Exact:
    """What is exactly so of a noise table; logarithms and root are rounded, nothing else is.

    Attributes:
        stated: ε per unit for which the table was made.
        epsilon: log of the greatest ratio of neighbouring probabilities, at most `stated`.
        delta_log2: least b with truncation δ ≤ 2^b.
        deviation: standard deviation of the noise.
        coins: biased coins per value, and `random_bits` the uniform bits that they take.
        widest: bits of the coin with the longest constant.
        limit: largest value of the noise.
    """

    stated: Fraction
    epsilon: float
    delta_log2: int
    deviation: float
    coins: int
    random_bits: int
    widest: int
    limit: int


def plan_of(run: Run, asked: Asked) -> Plan:
    """Return the plan of a question that was answered. Raises LookupError for one that was not."""
    if asked.release is None:
        raise LookupError(f"{asked.name} was not answered")
    return propose(asked.query, run.codebook, run.members).plan(int(asked.release["parameters"]["k"]))


def opened_values(asked: Asked) -> list[Floats]:
    """Return the opened values of each tally, in the plan's order; NaN where suppressed."""
    groups = () if asked.release is None else asked.release["groups"]
    return [np.array(tally["values"], np.float64) for each in groups for tally in each["tallies"]]


def exact(table: NoiseTable) -> Exact:
    """Return the exact bounds of a noise table. Raises IntegrityError when it breaks its promise."""
    table.verify(table.truncation_delta)
    ratio = table.max_ratio()
    return Exact(
        table.epsilon,
        log(ratio.numerator) - log(ratio.denominator),
        ceil_log2(table.truncation_delta),
        float(table.variance) ** 0.5,
        table.K + 1,
        table.random_bits,
        table.widest_coin,
        table.limit,
    )


def audit(values: Floats, truth: Integers, line: Line, coins: bool, level: float = LEVEL) -> Audited:
    """Audit one tally.

    Args:
        values: what was opened, NaN where suppressed.
        truth: the pooled records of each cell.
        line: the tally in its plan.
        coins: whether it was an independent fair coin for each cell whether it holds c or c + 1 patients.
        level: one minus the confidence of each bound.

    Raises LookupError unless there are cells with c and with c + 1 patients for some c.
    """
    count = paired_count(truth)
    without, holding = values[truth == count], values[truth == count + 1]
    delta = float(line.allotment.table.truncation_delta)
    stated = float(line.allotment.table.epsilon)
    seen = event_sets(without, holding, count, delta, level)
    guessed = None
    if coins:
        both = np.concatenate([without, holding])
        right = guesses(both, count) == (np.arange(both.size) >= without.size)
        guessed = one_run(int(right.sum()), right.size, delta, level)
    return Audited(count, without.size, holding.size, stated, level, seen, guessed)


def paired_count(truth: Integers) -> int:
    """Return the c of which the rarer of c and c + 1 occurs most often. Raises LookupError if none does."""
    held = np.bincount(np.maximum(truth, 0), minlength=2)
    often = np.minimum(held[:-1], held[1:])
    if not often.any():
        raise LookupError("no two cells differ by one patient")
    return int(often.argmax())


def event_sets(without: Floats, holding: Floats, count: int, delta: float, level: float = LEVEL) -> Bound:
    """Return the greatest lower bound on ε over all events, both directions and sizes of sample.

    `without` are the values of cells of `count` patients, `holding` those of cells of one more. With a chance
    of at most `level` the bound exceeds the true ε. For p = P(event), at confidence 1 − `level` shared
    between all events and the two sides: ε ≥ log((p_low − δ) / p'_high).
    """
    # Fixed before anything is seen, as Bonferroni's inequality wants it; what lies beyond counts as the end.
    least, most = count - REACH, count + 1 + REACH
    seen = [np.clip(each[~np.isnan(each)], least, most).astype(np.int64) for each in (without, holding)]
    tallied = []
    for each, all_of_them in zip(seen, (without, holding), strict=True):
        equal = np.bincount(each - least, minlength=most - least + 1)
        above = equal[::-1].cumsum()[::-1]
        hidden = all_of_them.size - each.size
        below = all_of_them.size - above[1:]  # below the least there is nothing but what is suppressed
        tallied.append(np.concatenate([[hidden], equal, above, below]))
    places = range(least, most + 1)
    names = ["{suppressed}", *(f"{{v = {x}}}" for x in places), *(f"{{v ≥ {x}}}" for x in places)]
    names += [f"{{v < {x} or suppressed}}" for x in places[1:]]
    share = level / (4 * len(names))
    best = Bound(0.0, "no event")
    sizes = (without.size, holding.size)
    for one, other in ((0, 1), (1, 0)):
        hits, misses = tallied[one], sizes[one] - tallied[one]
        low = np.where(hits > 0, stats.beta.ppf(share, hits, misses + 1), 0.0)
        others, rest = tallied[other], sizes[other] - tallied[other]
        high = np.where(rest > 0, stats.beta.isf(share, others + 1, rest), 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            bounds = np.log(np.maximum(low - delta, 0.0)) - np.log(high)
        found = int(np.nanargmax(bounds))
        if bounds[found] > best.epsilon:
            best = Bound(float(bounds[found]), names[found])
    return best


def guesses(values: Floats, count: int | Integers) -> NDArray[np.bool_]:
    """Return whether the likelihood speaks for `count` + 1 patients rather than `count`, cell by cell.

    The noise is symmetric and falls with its size, so the likelier count is the nearer one; suppression, of
    low values, speaks for the smaller.
    """
    found: NDArray[np.bool_] = values >= np.asarray(count) + 1  # NaN compares as false
    return found


def one_run(right: int, tried: int, delta: float, level: float = LEVEL) -> Bound:
    """Return the lower bound on ε of `right` guesses of `tried` coins [Steinke23, theorem 5.2].

    The theorem adds at most 2·tried·δ to the binomial tail, which is taken from `level`.
    """
    what = f"{right:,} of {tried:,} coins guessed"
    level = level - 2 * tried * delta
    if not right or level <= 0:
        return Bound(0.0, what)
    low = float(stats.beta.ppf(level, right, tried - right + 1))
    return Bound(max(0.0, log(low) - log(1 - low)) if low < 1 else inf, what)


def best_accuracy(epsilon: float) -> float:
    """Return the most right guesses, as a share, that ε-differential privacy allows: e^ε / (1 + e^ε)."""
    return 1 / (1 + exp(-epsilon))
