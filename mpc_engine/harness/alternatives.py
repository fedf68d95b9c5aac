"""What an analyst would have without the engine, from the same records and at the same ε.

*Alone*: each site analyses its own records. *Masked*: each site withholds its counts of 1 to k - 1 before the
rest is added up, as federated tools do. *Curator*: somebody trusted holds all records and adds noise drawn by
OpenDP. *Local*: each site adds noise of the same ε to its own sums before they are added up. The last two
show what the engine's rule would show.

`alternatives` draws each once; `kept` gives what is left of the table in expectation over the noise, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mpc_engine.dp.accounting import Rule
from mpc_engine.dp.calibrate import curator_noise
from mpc_engine.harness.answers import Integers, Line, Mask, Question, Sums, pool
from mpc_engine.harness.noise_law import Law, laplace, law_of
from mpc_engine.release.opened import Floats, Opened

_UNEVEN = 1e-6
"""Variance of what was masked: not 0, for members no longer add up to their guards, which is then spread."""

Kind = Literal["truth", "release", "curator", "local", "masked", "alone"]


@dataclass(frozen=True)
class Alternative:
    """Sums as they would be shown, and how this came about; ``private`` at which ε, "" for not at all."""

    kind: Kind
    name: str
    private: str
    opened: Opened


def ideal_variance(epsilon: float) -> float:
    """Return the variance of discrete Laplace noise of ε per unit: 2 r / (1 - r)^2 with r = e^-ε."""
    return 2 * math.exp(-epsilon) / math.expm1(-epsilon) ** 2


def per_unit(line: Line) -> float:
    """Return the ε of a tally for a change by one."""
    return float(line.allotment.table.epsilon)


def truth(question: Question, sums: Mapping[str, Sums]) -> Alternative:
    """Return the pooled records as they are."""
    return Alternative("truth", "pooled records", "", question.true(pool(sums).records))


def alone(question: Question, sums: Mapping[str, Sums]) -> list[Alternative]:
    """Return each site's own records as they are."""
    return [
        Alternative("alone", f"{name} alone", "", question.true(each.records)) for name, each in sums.items()
    ]


def masked(question: Question, sums: Mapping[str, Sums]) -> Alternative:
    """Return the sum of what sites would give away: no count of 1 to k - 1, and no sum of so few records.

    Everything that a site counts is held to it, members of groups too, for nothing here carries noise.
    """
    rows, pattern = masked_rows(question, sums)
    opened = question.open(pattern, rows, [_UNEVEN] * len(rows))
    return Alternative("masked", "masked", "", opened)


def masked_rows(question: Question, sums: Mapping[str, Sums]) -> tuple[list[Integers], list[Mask]]:
    """Return the sums that are left of each tally, and which groups of each kind anything is left of."""
    k = question.guarantee.threshold
    rows = [np.zeros(line.tally.grid.cells, np.int64) for line in question.lines]
    for each in sums.values():
        for row, line, own in zip(rows, question.lines, each.records, strict=True):
            few = np.repeat(each.patients[line.group] < k, line.per_group)
            row += np.where((own < k) if line.counts else few, 0, own)
    pattern = [row > 0 for row, line in zip(rows, question.lines, strict=True) if line.guard]
    return rows, pattern


def curator(question: Question, sums: Mapping[str, Sums]) -> Alternative:
    """Return what a trusted curator would publish: the pool with OpenDP's noise, held to the rule."""
    pooled = pool(sums)
    values = [
        row + curator_noise(line.allotment.table.epsilon, row.size)
        for row, line in zip(pooled.records, question.lines, strict=True)
    ]
    variances = [ideal_variance(per_unit(line)) for line in question.lines]
    opened = question.open(shown(question, pooled, values), values, variances)
    return Alternative("curator", "curator", _epsilon(question), opened)


def local(question: Question, sums: Mapping[str, Sums]) -> Alternative:
    """Return the sum of what sites would publish with noise of their own, each of the same ε."""
    pooled = pool(sums)
    values = [
        row + sum((curator_noise(line.allotment.table.epsilon, row.size) for _ in sums), np.int64(0))
        for row, line in zip(pooled.records, question.lines, strict=True)
    ]
    variances = [len(sums) * ideal_variance(per_unit(line)) for line in question.lines]
    opened = question.open(shown(question, pooled, values), values, variances)
    return Alternative("local", "local noise", _epsilon(question), opened)


def shown(question: Question, pooled: Sums, noisy: Sequence[Integers]) -> list[Mask]:
    """Return which groups of each kind the rule shows, given the true sums and those with noise."""
    found = []
    for line, values in zip(question.lines, noisy, strict=True):
        if line.guard:
            enough = pooled.patients[line.group] >= question.guarantee.threshold
            least = line.allotment.least_shown
            large = np.ones(values.size, np.bool_) if least is None else values >= least
            found.append(large if question.guarantee.rule is Rule.NOISY else large & enough)
    return found


def noiseless(question: Question, pooled: Sums) -> list[Floats]:
    """Return the true sums tally by tally, NaN where the rule would hide them if there were no noise."""
    pattern = shown(question, pooled, pooled.records)
    return [
        np.where(question.visible(line, pattern), row.astype(np.float64), np.nan)
        for line, row in zip(question.lines, pooled.records, strict=True)
    ]


def _epsilon(question: Question) -> str:
    return f"ε = {question.query.privacy.epsilon}"


@dataclass(frozen=True)
class Kept:
    """What is left of all counted cells of a release, in expectation over the noise.

    Attributes:
        name, private: as in `Alternative`.
        empty, few, enough: guards shown of those that hold nobody, 1 to k - 1 and at least k patients.
        whole: those of them of which nothing was left out, members included.
        error: absolute error of the shown cells, members too.
        lost: records in hidden cells.
    """

    name: str
    private: str
    empty: float
    few: float
    enough: float
    whole: float
    error: float
    lost: float

    @property
    def total(self) -> float:
        """The absolute error of the whole table, a hidden cell being taken as 0."""
        return self.error + self.lost


def classes(question: Question, pooled: Sums) -> tuple[int, int, int]:
    """Return how many guards hold nobody, 1 to k - 1, and at least k patients."""
    k = question.guarantee.threshold
    held = np.concatenate(pooled.patients)
    return int((held == 0).sum()), int(((held > 0) & (held < k)).sum()), int((held >= k).sum())


def kept(question: Question, sums: Mapping[str, Sums]) -> list[Kept]:
    """Return masking at sites (the rest summed, or whole cells only), the pool, and the three kinds of noise.

    The engine's own line is the last but one: the law of its tables; `guessed` is a further way. Sums of what
    is measured, such as ages, are in none of it. Raises EngineError for noise of more than 22 bits.
    """
    pooled = pool(sums)
    k = question.guarantee.threshold
    rows, pattern = masked_rows(question, sums)
    whole = [np.ones(each.size, np.bool_) for each in pattern]
    for at, line in enumerate(question.lines):
        if line.counts:
            right = [(own.records[at] >= k) | (own.records[at] == 0) for own in sums.values()]
            whole[line.group] &= np.logical_and.reduce(right).reshape(-1, line.per_group).all(axis=1)
    full = [shows & right for shows, right in zip(pattern, whole, strict=True)]
    enough = [each >= k for each in pooled.patients]
    silos, epsilon = len(sums), _epsilon(question)
    return [
        _certain(question, pooled, "masked at each site, the rest summed", pattern, rows, whole),
        _certain(question, pooled, "masked at each site, whole cells only", full, rows, whole),
        _certain(question, pooled, "pooled, exact numbers", enough, list(pooled.records), None),
        _expected(question, pooled, "trusted curator", epsilon, lambda line: laplace(per_unit(line))),
        _expected(question, pooled, "pooled under MPC", epsilon, lambda line: law_of(line.allotment.table)),
        _expected(
            question, pooled, "noise at each site", epsilon, lambda line: laplace(per_unit(line)).times(silos)
        ),
    ]


def guessed(question: Question, sums: Mapping[str, Sums]) -> Kept:
    """Return masking at sites, each count that a site withholds being taken as k / 2, its middle.

    So an analyst may read masked tables who sees which counts are withheld. A group counts as shown if a
    site shows something of it, as in the first of `kept`.
    """
    pooled, k = pool(sums), question.guarantee.threshold
    rows, pattern = masked_rows(question, sums)
    found = _certain(question, pooled, "masked at each site, k / 2 for what is withheld", pattern, rows, None)
    error = 0.0
    for at, line in enumerate(question.lines):
        if line.counts:
            few = sum(
                ((own.records[at] > 0) & (own.records[at] < k)).astype(np.int64) for own in sums.values()
            )
            error += float(np.abs(rows[at] + few * (k / 2) - pooled.records[at]).sum())
    return replace(found, whole=0.0, error=error, lost=0.0)


def _certain(
    question: Question,
    pooled: Sums,
    name: str,
    pattern: Sequence[Mask],
    rows: Sequence[Integers],
    whole: Sequence[Mask] | None,
) -> Kept:
    """Return what is left where it is certain what is shown."""
    counted, unspoilt, error, lost = np.zeros(3), 0.0, 0.0, 0.0
    for line, true, row in zip(question.lines, pooled.records, rows, strict=True):
        visible = question.visible(line, pattern)
        if line.guard:
            patients = pooled.patients[line.group]
            counted += _by_class(question, patients, visible.astype(np.float64))
            right = visible & (patients >= question.guarantee.threshold)
            unspoilt += float((right if whole is None else right & whole[line.group]).sum())
        if line.counts:
            error += float(np.abs(row - true)[visible].sum())
            lost += float(true[~visible].sum())
    none, some, many = map(float, counted)
    return Kept(name, "", none, some, many, unspoilt, error, lost)


def _expected(question: Question, pooled: Sums, name: str, private: str, law: Callable[[Line], Law]) -> Kept:
    """Return what is left in expectation where noise of this law decides what is shown."""
    counted, error, lost = np.zeros(3), 0.0, 0.0
    chances: list[Floats] = []
    for line, true in zip(question.lines, pooled.records, strict=True):
        if not (line.guard or line.counts):
            continue
        noise = law(line)
        if line.guard:
            patients = pooled.patients[line.group]
            enough = patients >= question.guarantee.threshold
            least = line.allotment.least_shown
            bound = np.full(true.size, -noise.limit) if least is None else least - true
            allowed = np.ones(true.size) if question.guarantee.rule is Rule.NOISY else enough.astype(float)
            chance = noise.at_least(bound) * allowed
            chances.append(chance)
            counted += _by_class(question, patients, chance)
            error += float((noise.size_at_least(bound) * allowed).sum())
        else:
            chance = np.repeat(chances[line.group], line.per_group)
            error += float(chance.sum()) * noise.mean_size
        lost += float((np.clip(1 - chance, 0.0, 1.0) * true).sum())
    none, some, many = map(float, counted)
    return Kept(name, private, none, some, many, many, error, lost)


def _by_class(question: Question, patients: Integers, shown: Floats) -> NDArray[np.float64]:
    """Return how much is shown of the guards that hold nobody, 1 to k - 1, and at least k patients."""
    few = (patients > 0) & (patients < question.guarantee.threshold)
    enough = patients >= question.guarantee.threshold
    return np.array([shown[patients == 0].sum(), shown[few].sum(), shown[enough].sum()])
