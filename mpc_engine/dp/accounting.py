"""What a release promises to one patient, how its epsilon is split, and how likely a cell is to be shown.

The privacy unit throughout is one patient's records at one silo, added or removed. A patient contributes
at most ``cap`` records to a release. Every *part* of the release is a vector of sums of which one record
changes a single entry, by at most ``step``; so a patient changes the part by at most cap * step in total
(L1), whatever way the records spread. The part has a weight, its allotment of epsilon is exactly
proportional to it, and its noise table is made for epsilon_part / (cap * step) per unit and
M = cap * step. Parts compose: epsilons and deltas add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cache

from mpc_engine.dp.noise_table import TRUNCATION_LIMIT, NoiseTable, generate
from mpc_engine.dp.rationals import ceil_log2, decimal_text, exponential_bounds
from mpc_engine.errors import DocumentError, IntegrityError

NOT_PRIVATE = "statistical disclosure control, not differential privacy"


class Rule(StrEnum):
    """Which groups are shown; c is the number of distinct patients, v the number of records plus noise."""

    NOISY = "noisy"
    """Shown if v >= k."""
    STRICT = "strict"
    """Shown if c >= k and v >= tau."""
    EXACT = "exact"
    """Shown if c >= k: no differential privacy, since which cells are shown follows the data exactly."""


@dataclass(frozen=True)
class Part:
    """One vector of sums in a release.

    ``weight`` is its published share of epsilon, relative to the other parts'; ``step`` the most by which
    one record changes it; ``guard`` whether its noisy values decide what is shown.
    """

    name: str
    weight: int = 1
    step: int = 1
    guard: bool = True


@dataclass(frozen=True)
class Allotment:
    """What one part of a release is given.

    ``epsilon`` is its share for one patient, ``table`` its noise. Under ``strict`` a guard has its share
    of delta, ``strict_delta``, and shows values from ``least_shown`` = tau on; under ``noisy`` a guard's
    ``least_shown`` is k. Elsewhere it is None: noise may take a value below k.
    """

    part: Part
    epsilon: Fraction
    table: NoiseTable
    strict_delta: Fraction
    least_shown: int | None

    def as_fields(self) -> dict[str, object]:
        """Return the allotment as plain JSON fields."""
        return {
            "part": self.part.name,
            "weight": self.part.weight,
            "epsilon": decimal_text(self.epsilon),
            "largest_change_per_record": self.part.step,
            "guard": self.part.guard,
            "strict_delta": decimal_text(self.strict_delta),
            "least_shown": self.least_shown,
            "noise_largest": self.table.limit,
            "noise_table": self.table.digest(),
        }


@dataclass(frozen=True)
class Guarantee:
    """What one release promises.

    ``epsilon`` is that of one patient's records at one silo, over everything released; under ``exact`` it
    describes the noise only, and ``truncation_delta`` likewise. ``allotments`` are in the order of the
    parts, and their epsilons add up to ``epsilon`` exactly.
    """

    rule: Rule
    threshold: int
    cap: int
    epsilon: Fraction
    allotments: tuple[Allotment, ...]

    def __post_init__(self) -> None:
        if sum(each.epsilon for each in self.allotments) != self.epsilon:
            raise IntegrityError("the parts of a release spend another epsilon than the whole")

    @property
    def differentially_private(self) -> bool:
        """Whether epsilon and delta bound what the release says about one patient."""
        return self.rule is not Rule.EXACT

    @property
    def truncation_delta(self) -> Fraction:
        """What the finite range of the noise adds to delta, over all parts; at most 2^-64."""
        return sum((each.table.truncation_delta for each in self.allotments), Fraction(0))

    @property
    def strict_delta(self) -> Fraction:
        """The delta that the rule ``strict`` spends, over all guards; 0 under the other rules."""
        return sum((each.strict_delta for each in self.allotments), Fraction(0))

    @property
    def delta(self) -> Fraction | None:
        """The whole release's delta, exact; None under ``exact``."""
        return self.truncation_delta + self.strict_delta if self.differentially_private else None

    @property
    def unit(self) -> str:
        """The privacy unit in words."""
        records = "1 record" if self.cap == 1 else f"up to {self.cap} records"
        return (
            f"one patient at one silo ({records}); a patient present at s silos: s times epsilon, and delta "
            "times 1 + e^epsilon + ... + e^((s-1) epsilon)"
        )

    def at_silos(self, silos: int) -> tuple[Fraction, Fraction | None]:
        """Return (epsilon, delta) for a patient with records at so many silos; delta None under ``exact``.

        Silos do not compare identities, so such a patient counts once at each: group privacy gives
        s * epsilon and delta * (1 + e^epsilon + ... + e^((s-1) epsilon)), here bounded from above.
        Raises DocumentError for fewer than one silo.
        """
        if silos < 1:
            raise DocumentError("a patient has records at one silo at least")
        if self.delta is None:
            return silos * self.epsilon, None
        growth = exponential_bounds(self.epsilon)[1]
        return silos * self.epsilon, self.delta * sum((growth**i for i in range(silos)), Fraction(0))

    def statement(self) -> str:
        """Return the guarantee as one sentence, delta rounded up."""
        epsilon = decimal_text(self.epsilon)
        if len(self.allotments) > 1:
            epsilon += f" ({', '.join(f'{a.part.name} {decimal_text(a.epsilon)}' for a in self.allotments)})"
        if self.delta is None:
            return f"rule exact, k = {self.threshold}: {NOT_PRIVATE}; noise with epsilon = {epsilon}"
        delta = f"2^{ceil_log2(self.delta)}"
        if self.strict_delta:
            delta = f"{decimal_text(self.strict_delta)} + 2^{ceil_log2(self.truncation_delta)}"
        shown = ""
        if self.rule is Rule.STRICT:
            least = [str(a.least_shown) for a in self.allotments if a.part.guard]
            shown = f", shown from {' / '.join(least)}"
        return (
            f"rule {self.rule.value}, k = {self.threshold}{shown}: differential privacy with "
            f"epsilon = {epsilon}, delta <= {delta}, for {self.unit}"
        )

    def as_fields(self) -> dict[str, object]:
        """Return the guarantee as plain JSON fields; fractions are exact decimals (or quotients) as text.

        ``truncation_delta_log2`` is the least integer b with truncation delta <= 2^b.
        """
        return {
            "rule": self.rule.value,
            "differentially_private": self.differentially_private,
            "k": self.threshold,
            "cap": self.cap,
            "epsilon": decimal_text(self.epsilon),
            "split": [each.as_fields() for each in self.allotments],
            "strict_delta": decimal_text(self.strict_delta),
            "truncation_delta_log2": ceil_log2(self.truncation_delta),
            "unit": self.unit,
            "statement": self.statement(),
        }


def split(total: Fraction, weights: Sequence[int]) -> tuple[Fraction, ...]:
    """Return ``total`` divided in proportion to whole weights, exactly.

    Raises DocumentError when there is no weight or one is not positive.
    """
    if not weights or min(weights) < 1:
        raise DocumentError("the weights that split epsilon must be whole numbers of at least 1")
    return tuple(total * weight / sum(weights) for weight in weights)


@cache
def _table(epsilon: Fraction, change: int, parts: int) -> NoiseTable:
    """Return a part's noise table; the parts of a release divide its truncation delta between them."""
    return generate(epsilon / change, change, truncation_limit=TRUNCATION_LIMIT / parts)


def table_for_counts(epsilon: Fraction, cap: int = 1, mantissa_bits: int | None = None) -> NoiseTable:
    """Return the noise table of a release of one part: epsilon / cap per unit, largest change ``cap``.

    ``epsilon`` is what one patient spends in the whole release. Its truncation delta, at most 2^-64, is
    that of the whole release too (``NoiseTable.truncation_delta`` says why). Raises as ``generate``.
    """
    if cap < 1:
        raise DocumentError("the cap on records per patient must be at least 1")
    return generate(epsilon / cap, cap, mantissa_bits)


def guarantee_for(
    epsilon: Fraction,
    parts: Sequence[Part],
    rule: Rule,
    threshold_k: int,
    cap: int = 1,
    delta: Fraction | None = None,
) -> Guarantee:
    """Return what a release of these parts promises, with its noise tables.

    epsilon is split by the parts' weights, delta (given for ``strict`` and only there) by those of the
    guards. Raises DocumentError for a delta too many or missing, k < 1, cap < 1, a step < 1, no guard, and
    where the noise would be out of bounds.
    """
    if threshold_k < 1:
        raise DocumentError("the threshold k must be at least 1")
    if cap < 1:
        raise DocumentError("the cap on records per patient must be at least 1")
    if (delta is not None) != (rule is Rule.STRICT):
        raise DocumentError("rule strict needs a delta; the rules noisy and exact take none")
    if any(part.step < 1 for part in parts):
        raise DocumentError("the most by which a record changes a part must be at least 1")
    guards = [part for part in parts if part.guard]
    if not guards:
        raise DocumentError("a release needs a guard")
    deltas = iter(split(delta or Fraction(0), [part.weight for part in guards]))
    allotments = []
    for part, share in zip(parts, split(epsilon, [part.weight for part in parts]), strict=True):
        table = _table(share, cap * part.step, len(parts))
        strict_delta = next(deltas) if part.guard else Fraction(0)
        least: int | None = None
        if part.guard and rule is Rule.STRICT:
            least = strict_threshold(table, threshold_k, strict_delta, cap)
        elif part.guard and rule is Rule.NOISY:
            least = threshold_k
        allotments.append(Allotment(part, share, table, strict_delta, least))
    return Guarantee(rule, threshold_k, cap, epsilon, tuple(allotments))


def strict_threshold(table: NoiseTable, threshold_k: int, delta: Fraction, cap: int) -> int:
    """Return tau of the rule ``strict``: a cell is shown iff c >= k and v >= tau.

    c counts distinct patients, v is records plus X, L = ``cap`` is the most records of one patient. tau is
    the smallest value >= k with P(X >= tau - k * L) <= delta / L.

    Why: take two data sets that differ in one patient, who has d_j records in cell j, d_1 + d_2 + ... <= L.
    A cell that has k patients or more in both is noisy counting, at cost (epsilon' * d_j, f(d_j)), f as in
    ``NoiseTable.truncation_delta``. A cell below k in both is never shown. A cell with k patients in the
    larger data set and k - 1 in the smaller one is shown in the larger only, and there it holds at most
    k * L records - all k patients may have L - so it is shown with probability at most
    P(X >= tau - k * L) <= delta / L. At most L cells cross, one record each at least; let eta <= delta be
    the probability, in the larger data set, that any of them is shown. For a set S of outcomes let R be the
    event that the other cells, with every crossing cell suppressed, make an outcome in S. Then
    P(S | larger) <= eta + P(R | larger), and P(S | smaller) = P(R | smaller), which is at most
    eta + (1 - eta) P(R | smaller),
    where (1 - eta) P(R | larger) <= P(S | larger), noise being independent. The bounds of the other cells
    relate P(R | larger) and P(R | smaller); both directions give (epsilon, delta + truncation delta).

    Members of a group are opened exactly when its guard is, with noise of their own: they are more cells
    of the group, shown or suppressed with it, and the argument stands with "cell" read as "group".

    With L = 1 this is the usual pre-thresholding, tau - k = the delta quantile of the noise. With L > 1
    counting the crossing patient's records only would leave out those of the other k - 1.

    Raises DocumentError unless 0 < delta < 1, k >= 1 and 1 <= cap <= the table's largest change.
    """
    if threshold_k < 1:
        raise DocumentError("the threshold k must be at least 1")
    if not 1 <= cap <= table.largest_change:
        raise DocumentError(
            f"the cap on records per patient must lie between 1 and {table.largest_change}, the largest "
            f"change for which this noise table was made"
        )
    if not 0 < delta < 1:
        raise DocumentError("delta must be greater than 0 and less than 1")
    bound = delta / cap
    # P(X >= x) falls from 1 at -T to 0 at T + 1; find the first x where it is within the bound.
    low, high = -table.limit, table.limit + 1
    while high - low > 1:
        middle = (low + high) // 2
        if table.tail(middle) <= bound:
            high = middle
        else:
            low = middle
    return max(threshold_k, threshold_k * cap + high)


def publication_probability(
    guarantee: Guarantee, patients: int, records: int | None = None, guard: int = 0
) -> Fraction:
    """Return the exact probability that a group with so many patients (and records) is shown.

    ``records`` defaults to one per patient; ``guard`` is the index of the guard's allotment. Raises
    DocumentError for negative numbers, for records that so many patients cannot have, and for a part
    that is no guard.
    """
    held = patients if records is None else records
    if patients < 0 or not patients <= held <= patients * guarantee.cap:
        raise DocumentError("a cell holds between one record and the cap for each of its patients")
    allotment = guarantee.allotments[guard]
    if not allotment.part.guard:
        raise DocumentError(f"{allotment.part.name} is no guard; it is shown when its guard is")
    enough = patients >= guarantee.threshold
    if guarantee.rule is Rule.EXACT:
        return Fraction(int(enough))
    if allotment.least_shown is None or (guarantee.rule is Rule.STRICT and not enough):
        return Fraction(0)
    return allotment.table.tail(allotment.least_shown - held)


def expected_false_cells(guarantee: Guarantee, cells: int, guard: int = 0) -> Fraction:
    """Return the expected number of groups shown out of ``cells`` that hold nobody, exact.

    Only ``noisy`` shows pure noise. For a plan, ``cells`` is the size of the grid: the number of empty
    cells is not public, and the whole grid bounds it.
    """
    if cells < 0:
        raise DocumentError("a grid has no negative number of cells")
    return cells * publication_probability(guarantee, 0, guard=guard)
