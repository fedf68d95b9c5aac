"""What a release of counts promises to one patient, and how likely a cell is to be shown.

The privacy unit throughout is one patient's records at one silo, added or removed. A patient contributes
at most ``cap`` records to a release and every record counts in one cell, so the cells change by at most
``cap`` in total (L1). The noise table is made for epsilon' = epsilon / cap per unit and M = cap, whatever
way the records spread over the cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from mpc_engine.dp.noise_table import NoiseTable, generate
from mpc_engine.dp.rationals import ceil_log2, decimal_text, exponential_bounds
from mpc_engine.errors import DocumentError

NOT_PRIVATE = "statistical disclosure control, not differential privacy"


class Rule(StrEnum):
    """Which cells are shown; c is the number of distinct patients, v the number of records plus noise."""

    NOISY = "noisy"
    """Shown if v >= k."""
    STRICT = "strict"
    """Shown if c >= k and v >= tau."""
    EXACT = "exact"
    """Shown if c >= k: no differential privacy, since which cells are shown follows the data exactly."""


@dataclass(frozen=True)
class Guarantee:
    """What one release of count cells promises.

    ``epsilon`` is that of one patient's records at one silo, over all cells; under ``exact`` it describes
    the noise only, and ``truncation_delta`` likewise. ``strict_delta`` is the delta asked for under
    ``strict``, else 0. ``least_shown`` is the smallest noisy value a cell can be shown with: k under
    ``noisy``, tau under ``strict``, None under ``exact``, where noise may take a value below k.
    """

    rule: Rule
    threshold: int
    cap: int
    epsilon: Fraction
    truncation_delta: Fraction
    strict_delta: Fraction
    least_shown: int | None

    @property
    def differentially_private(self) -> bool:
        """Whether epsilon and delta bound what the release says about one patient."""
        return self.rule is not Rule.EXACT

    @property
    def delta(self) -> Fraction | None:
        """The whole release's delta, exact; None under ``exact``."""
        return self.truncation_delta + self.strict_delta if self.differentially_private else None

    @property
    def unit(self) -> str:
        """The privacy unit in words."""
        records = "1 record" if self.cap == 1 else f"up to {self.cap} records"
        return f"one patient at one silo ({records}); a patient present at s silos: s times epsilon"

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
        if self.delta is None:
            return f"rule exact, k = {self.threshold}: {NOT_PRIVATE}; noise with epsilon = {epsilon}"
        delta = f"2^{ceil_log2(self.delta)}"
        if self.strict_delta:
            delta = f"{decimal_text(self.strict_delta)} + 2^{ceil_log2(self.truncation_delta)}"
        shown = f", shown from {self.least_shown}" if self.rule is Rule.STRICT else ""
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
            "strict_delta": decimal_text(self.strict_delta),
            "truncation_delta_log2": ceil_log2(self.truncation_delta),
            "least_shown": self.least_shown,
            "unit": self.unit,
            "statement": self.statement(),
        }


def table_for_counts(epsilon: Fraction, cap: int = 1, mantissa_bits: int | None = None) -> NoiseTable:
    """Return the noise table of a count release: epsilon / cap per unit, largest change ``cap``.

    ``epsilon`` is what one patient spends in the whole release. Its truncation delta, at most 2^-64, is
    that of the whole release too (``NoiseTable.truncation_delta`` says why). Raises as ``generate``.
    """
    if cap < 1:
        raise DocumentError("the cap on records per patient must be at least 1")
    return generate(epsilon / cap, cap, mantissa_bits)


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

    With L = 1 this is the usual pre-thresholding, tau - k = the delta quantile of the noise. With L > 1
    counting the crossing patient's records only would leave out those of the other k - 1.

    Raises DocumentError unless 0 < delta < 1, k >= 1 and 1 <= cap <= the table's largest change.
    """
    _check_threshold(table, threshold_k, cap)
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


def guarantee_for_counts(
    table: NoiseTable, rule: Rule, threshold_k: int, cap: int = 1, delta: Fraction | None = None
) -> Guarantee:
    """Return what a release of counts with this table, rule and threshold promises.

    ``delta`` is given for ``strict`` and only there. Raises DocumentError otherwise, and for k < 1 or a
    cap that is not between 1 and the table's largest change.
    """
    _check_threshold(table, threshold_k, cap)
    if (delta is not None) != (rule is Rule.STRICT):
        raise DocumentError("rule strict needs a delta; the rules noisy and exact take none")
    least_shown: int | None = threshold_k if rule is Rule.NOISY else None
    if delta is not None:
        least_shown = strict_threshold(table, threshold_k, delta, cap)
    return Guarantee(
        rule=rule,
        threshold=threshold_k,
        cap=cap,
        epsilon=table.epsilon * cap,
        truncation_delta=table.tail(table.limit - cap + 1),
        strict_delta=Fraction(0) if delta is None else delta,
        least_shown=least_shown,
    )


def _check_threshold(table: NoiseTable, threshold_k: int, cap: int) -> None:
    if threshold_k < 1:
        raise DocumentError("the threshold k must be at least 1")
    if not 1 <= cap <= table.largest_change:
        raise DocumentError(
            f"the cap on records per patient must lie between 1 and {table.largest_change}, the largest "
            f"change for which this noise table was made"
        )


def publication_probability(
    table: NoiseTable, guarantee: Guarantee, patients: int, records: int | None = None
) -> Fraction:
    """Return the exact probability that a cell with so many patients (and records) is shown.

    ``records`` defaults to one per patient. Raises DocumentError for negative numbers or for records
    that so many patients cannot have.
    """
    held = patients if records is None else records
    if patients < 0 or not patients <= held <= patients * guarantee.cap:
        raise DocumentError("a cell holds between one record and the cap for each of its patients")
    enough = patients >= guarantee.threshold
    if guarantee.rule is Rule.EXACT:
        return Fraction(int(enough))
    if guarantee.least_shown is None or (guarantee.rule is Rule.STRICT and not enough):
        return Fraction(0)
    return table.tail(guarantee.least_shown - held)


def expected_false_cells(table: NoiseTable, guarantee: Guarantee, cells: int) -> Fraction:
    """Return the expected number of cells shown out of ``cells`` that hold nobody, exact.

    Only ``noisy`` shows pure noise. For a plan, ``cells`` is the size of the grid: the number of empty
    cells is not public, and the whole grid bounds it.
    """
    if cells < 0:
        raise DocumentError("a grid has no negative number of cells")
    return cells * publication_probability(table, guarantee, 0)
