"""Whether a release errs as its noise tables say, shows cells as often, and errs as a trusted curator would.

Only p-values decide, each exact but for the comparison of two samples and for intervals that depend on each
other. With several tests of one matter the least p-value counts, times their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final

import numpy as np
from scipy import special, stats

from mpc_engine.dp.accounting import publication_probability
from mpc_engine.dp.calibrate import MOST_COMPARED_BITS, curator_noise, total_variation
from mpc_engine.dp.noise_table import NoiseTable
from mpc_engine.harness.alternatives import ideal_variance, noiseless, per_unit
from mpc_engine.harness.answers import Integers, Line, Question, Sums
from mpc_engine.harness.noise_law import Law, Scores, law_of, two_sided
from mpc_engine.harness.numerals import short
from mpc_engine.release.opened import Floats

_FINE: Final = 4.0
"""Scores to a standard deviation."""
_WIDE: Final = 0.01
"""Chance of no error at all below which such errors are too rare to be counted."""
_NOTHING: Final = 1e-15
"""Chance of being cut off below which noise is taken as uncut."""
_SURE: Final = 1e-9
"""Chance of being hidden below which a guard's errors are taken as those of the whole noise table."""
_WITHHELD: Final = "withheld at "
COMPARED: Final = 20_000
"""Errors of a release that are compared with a curator's at most, and of a curator at least."""


@dataclass(frozen=True)
class Shown:
    """What a release shows, tally by tally, NaN where suppressed, with the true sums behind it.

    ``sites`` are those of each site, for tests of what one of them might have done.
    """

    question: Question
    pooled: Sums
    values: Sequence[Floats] = field(repr=False)
    sites: Mapping[str, Sums] = field(default_factory=dict, repr=False)

    @property
    def bare(self) -> Shown:
        """What would be shown of the same sums without any noise."""
        return replace(self, values=noiseless(self.question, self.pooled))

    def withheld(self, at: int, site: str) -> Integers:
        """Return how many records of the shown values a site would withhold that masks its counts below k."""
        line, own = self.question.lines[at], self.sites[site].records[at][~np.isnan(self.values[at])]
        few = (own < self.question.guarantee.threshold) & line.counts
        return np.where(few, own, 0)

    def errors(self, at: int) -> Integers:
        """Return the errors of the shown values of a tally."""
        values = self.values[at]
        seen = ~np.isnan(values)
        return values[seen].astype(np.int64) - self.pooled.records[at][seen]


@dataclass
class Tests:
    """p-values by name of the test; ``values`` were tested. ``impossible`` says what can never be."""

    values: int = 0
    p: dict[str, float] = field(default_factory=dict)
    impossible: str = ""
    measured: float = math.nan
    expected: float = math.nan

    @property
    def least(self) -> float:
        """The least p-value, corrected for the number of tests; 0 where something impossible was seen."""
        if self.impossible:
            return 0.0
        return min(1.0, min(self.p.values(), default=1.0) * len(self.p))

    @property
    def words(self) -> str:
        """The p-values in words."""
        if self.impossible:
            return self.impossible
        sites = {name: value for name, value in self.p.items() if name.startswith(_WITHHELD)}
        named = {name: value for name, value in self.p.items() if name not in sites}
        words = [f"{name} p = {short(value, '.2g')}" for name, value in named.items()]
        if sites:
            least = min(sites, key=lambda name: sites[name])
            words.append(f"{least} p = {short(sites[least], '.2g')}, the least of {len(sites)}")
        return ", ".join(words)


class _Sum:
    """A sum of scores under way: its parts by kind, and what was found."""

    def __init__(self) -> None:
        self.parts: dict[Any, tuple[Integers, Floats, int]] = {}
        self.found = 0

    def add(self, kind: Any, values: Integers, chances: Floats, times: int) -> None:
        before = self.parts.get(kind, (values, chances, 0))[2]
        self.parts[kind] = (values, chances, before + times)

    @property
    def p(self) -> float:
        return two_sided([Scores(*each) for each in self.parts.values()], self.found)


def error_tests(releases: Sequence[Shown]) -> Tests:
    """Return whether the errors of published values are the noise tables', given that they are shown.

    Three sums are tested: of the errors' sizes, in standard deviations; of the errors with their signs; and
    of how many values are exact. For each site one more, made to find that it withheld its counts below k:
    the likelihood ratio |x| - |x + w| of errors x where it would have withheld w.

    Raises EngineError for noise of more than 22 bits.
    """
    found = Tests()
    sums: dict[str, _Sum] = {}
    squares = expected = 0.0
    laws: dict[NoiseTable, Law] = {}
    for release in releases:
        for at, line in enumerate(release.question.lines):
            table = line.allotment.table
            if table not in laws:
                laws[table] = law_of(table)
            law, errors = laws[table], release.errors(at)
            starts, places = _starts(release, at, law), errors + law.limit
            if ((places < starts) | (places >= law.chances.size)).any():
                found.impossible = f"{line.allotment.part.name}: an error is one that rule and noise exclude"
                return found
            starts[starts < np.searchsorted(np.cumsum(law.chances), _NOTHING)] = 0
            found.values += errors.size
            squares += float(((errors / law.deviation) ** 2).sum())
            given = {int(start): law.given(int(start)) for start in np.unique(starts)}
            for start, times in zip(*np.unique(starts, return_counts=True), strict=True):
                expected += int(times) * float(given[int(start)] @ (law.support / law.deviation) ** 2)
            for name, (kinds, scores) in _scores(release, at, law).items():
                each = sums.setdefault(name, _Sum())
                for kind, score in scores.items():
                    here = kinds == kind
                    for start, times in zip(*np.unique(starts[here], return_counts=True), strict=True):
                        each.add((table, int(start), kind), score, given[int(start)], int(times))
                    each.found += int(score[places[here]].sum())
    found.p = {name: each.p for name, each in sums.items() if each.parts}
    if found.values:
        found.measured, found.expected = (
            math.sqrt(squares / found.values),
            math.sqrt(expected / found.values),
        )
    return found


def _scores(release: Shown, at: int, law: Law) -> dict[str, tuple[Integers, dict[int, Integers]]]:
    """Return for each test of a tally the kind of each shown value, and scores over the support by kind."""
    support, scale = law.support, _FINE / law.deviation
    alike = np.zeros(release.errors(at).size, np.int64)
    scores = {
        "size": (alike, {0: np.rint(scale * np.abs(support)).astype(np.int64)}),
        "lean": (alike, {0: np.rint(scale * support).astype(np.int64)}),
    }
    if law.chances[law.limit] >= _WIDE:
        scores["exact values"] = (alike, {0: (support == 0).astype(np.int64)})
    for site in release.sites:
        withheld = release.withheld(at, site)
        most = int(withheld.max(initial=0))
        if most:
            ratios = {w: np.abs(support) - np.abs(support + w) for w in range(1, most + 1)}
            scores[f"{_WITHHELD}{site}"] = (withheld, ratios)
    return scores


def _starts(release: Shown, at: int, law: Law) -> Integers:
    """Return for each shown value where in the noise's support it may begin, given that it is shown."""
    line = release.question.lines[at]
    seen = ~np.isnan(release.values[at])
    least = line.allotment.least_shown
    if not line.guard or least is None:
        return np.zeros(int(seen.sum()), np.int64)
    return law.from_on(least - release.pooled.records[at][seen])


def publication_tests(releases: Sequence[Shown]) -> Tests:
    """Return whether groups are shown as often as theory says: those below k patients, and the others."""
    found = Tests()
    sums = {"below k": _Sum(), "k or more": _Sum()}
    outcomes = np.array([0, 1])
    expected = 0.0
    shown = 0
    for release in releases:
        guarantee = release.question.guarantee
        for at, line in enumerate(release.question.lines):
            if not line.guard:
                continue
            records, patients = release.pooled.records[at], release.pooled.patients[line.group]
            seen = ~np.isnan(release.values[at])
            pairs, kinds, times = np.unique(
                np.stack([patients, records]), axis=1, return_inverse=True, return_counts=True
            )
            visible = np.bincount(kinds.reshape(-1), seen, pairs.shape[1]).astype(int)
            for (held, rows), total, open_ in zip(pairs.T.tolist(), times.tolist(), visible, strict=True):
                chance = publication_probability(guarantee, held, rows, at)
                expected += total * float(chance)
                found.values += total
                shown += int(open_)
                if (chance == 0 and open_) or (chance == 1 and open_ < total):
                    found.impossible = f"a group of {held} patients is shown or hidden against the rule"
                each = sums["below k" if held < guarantee.threshold else "k or more"]
                each.add(chance, outcomes, np.array([1 - float(chance), float(chance)]), total)
                each.found += int(open_)
    found.p = {name: each.p for name, each in sums.items() if each.parts and not found.impossible}
    found.measured, found.expected = float(shown), expected
    return found


@dataclass(frozen=True)
class Comparison:
    """A release's errors beside a curator's and beside those of noise at each site.

    Root mean squares are relative to the ideal noise of one draw. ``variation`` is the greatest total
    variation distance, exact, of a noise table from the ideal; None where no table is short enough.
    ``exact`` is the standard deviation of noise at each site in that of the release's noise table, of all
    tables the one that is furthest from theory.
    """

    values: int
    draws: int
    silos: int
    release: float
    curator: float
    local: float
    p_alike: float
    p_local: float
    variation: Fraction | None
    exact: float

    @property
    def factor(self) -> float:
        """By how much noise at each site is larger than a curator's, in theory."""
        return math.sqrt(self.silos)


def compare(releases: Sequence[Shown], silos: int) -> Comparison:
    """Return how a release's errors compare with OpenDP's, drawn at the same ε for the same values.

    Guards that the rule might hide are left out, for their errors are cut short. Alike is tested by the
    errors' sizes (Mann and Whitney) and by their distributions (Kolmogorov and Smirnov); noise at each site
    by its mean square, which is ``silos`` times one draw's.

    Raises EngineError for noise of more than 22 bits.
    """
    pieces: list[tuple[Line, Integers]] = []
    left = COMPARED
    for release in releases:
        for at, line in enumerate(release.question.lines):
            errors = _untouched(release, at)[:left]
            left -= errors.size
            pieces.append((line, errors))
    values = COMPARED - left
    repeats = -(-COMPARED // max(1, values))

    def drawn(times: int) -> Floats:
        return _joined(pieces, lambda line, size: _sum_of_draws(line, size * repeats, times))

    mine = _joined(pieces, None)
    one, many = drawn(1), drawn(silos)
    alike = 1.0
    if values:
        sizes = stats.mannwhitneyu(np.abs(mine), np.abs(one), method="asymptotic").pvalue
        alike = min(1.0, 2 * min(float(sizes), float(stats.ks_2samp(mine, one, method="asymp").pvalue)))
    squares = many**2
    off = 0.0
    if values and squares.std() > 0:
        off = float((squares.mean() - silos) / (squares.std() / math.sqrt(squares.size)))
    return Comparison(
        values,
        one.size,
        silos,
        _rms(mine),
        _rms(one),
        _rms(many),
        alike,
        float(2 * stats.norm.sf(abs(off))),
        greatest_variation(releases[0].question),
        _exact_factor(releases[0].question, silos),
    )


def _exact_factor(question: Question, silos: int) -> float:
    """Return by how much noise at each site is larger than the noise tables', where that is furthest off."""
    factors = [
        math.sqrt(silos * ideal_variance(per_unit(line)) / float(line.allotment.table.variance))
        for line in question.lines
    ]
    return max(factors, key=lambda factor: abs(factor - math.sqrt(silos)))


def _untouched(release: Shown, at: int) -> Integers:
    """Return the errors of a tally's shown values; of a guard's only those that are all but sure to be."""
    line, errors = release.question.lines[at], release.errors(at)
    if not line.guard or line.allotment.least_shown is None:
        return errors
    true = release.pooled.records[at][~np.isnan(release.values[at])]
    hidden = 1 - law_of(line.allotment.table).at_least(line.allotment.least_shown - true)
    return errors[hidden < _SURE]


def _joined(pieces: Sequence[tuple[Line, Integers]], draw: Callable[[Line, int], Integers] | None) -> Floats:
    """Return errors, or as many times the draws, in standard deviations of the ideal noise."""
    found = [
        (errors if draw is None else draw(line, errors.size)) / math.sqrt(ideal_variance(per_unit(line)))
        for line, errors in pieces
        if errors.size
    ]
    return np.concatenate(found) if found else np.zeros(0)


def _sum_of_draws(line: Line, size: int, times: int) -> Integers:
    return np.asarray(sum(curator_noise(line.allotment.table.epsilon, size) for _ in range(times)), np.int64)


def _rms(errors: Floats) -> float:
    return float(np.sqrt(np.mean(errors**2))) if errors.size else math.nan


def greatest_variation(question: Question) -> Fraction | None:
    """Return the greatest total variation distance of a question's noise tables from the ideal noise.

    Tables of more than 16 magnitude bits are left out; None where all are.
    """
    tables = {line.allotment.table for line in question.lines if line.allotment.table.K <= MOST_COMPARED_BITS}
    return max((total_variation(table) for table in tables), default=None)


def together(drawn: Sequence[tuple[int, int]], stated: float) -> float:
    """Return how many intervals stand or fall together, from how much their number varies in draws.

    `drawn` are, by draw, how many intervals hold of how many; each does with a chance of ``stated``.
    """
    right, number = np.array(drawn, np.float64).T
    if not number.any():
        return 1.0
    variance = float((right - stated * number).var(ddof=1))
    return float(np.clip(variance / (number.mean() * stated * (1 - stated)), 1.0, max(1.0, number.mean())))


def so_few(held: int, intervals: int, stated: float, alike: float) -> float:
    """Return the chance that at most so many intervals hold; 0 if there is none.

    It is the binomial law of ``intervals / alike`` independent ones, carried on between whole numbers.
    """
    if not intervals:
        return 0.0
    missed = (intervals - held) / alike
    return float(special.betainc(missed, held / alike + 1, 1 - stated)) if missed else 1.0


def between(means: Floats, least: float, most: float) -> float:
    """Return the chance of means so far out if their expectation lies between two bounds; 0 if not finite."""
    if means.size < 2 or not np.isfinite(means).all():
        return 0.0
    error = max(float(means.std(ddof=1)), 1e-9) / math.sqrt(means.size)
    away = min(means.mean() - least, most - means.mean()) / error
    return min(1.0, 2 * float(stats.t.cdf(away, means.size - 1)))
