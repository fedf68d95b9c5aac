"""Attackers who use only what they are entitled to see, and what they achieve against what theory allows.

Each attack is carried out on the releases of a run and then judged with the truth, which the attacker does
not have. `Attacked.p` is the chance that an engine which keeps its promise would let the attacker do so well:
the errors that are left have exactly known distributions (`mpc_engine.harness.noise_law`).

* *averaging*: m answers to one question, averaged; the error falls as 1/√m, and each answer is paid for.
* *differencing*: two questions that differ by few patients; the difference carries twice the noise variance,
  and both are paid for.
* *subtraction*: a silo takes its own counts off; the others' are left with the whole noise.
* *membership*: somebody knows all patients of a cell but one and decides by the likelihood ratio, which no
  test beats [NP33], whether the last is there; ε allows an advantage of (e^ε − 1)/(e^ε + 1) [DMNS06].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mpc_engine.dp.accounting import Rule
from mpc_engine.harness.alternatives import noiseless
from mpc_engine.harness.answers import pool, question_of, sums_of
from mpc_engine.harness.audit import Floats, Integers, best_accuracy, guesses, opened_values, plan_of
from mpc_engine.harness.noise_law import MOST_BITS, Law, Scores, law_of, tails
from mpc_engine.harness.record import Asked, Run
from mpc_engine.release.plan import Line

MICRO: Final = 1_000_000
"""Ledgers count ε in millionths."""


@dataclass(frozen=True)
class Attacked:
    """What came of an attack.

    Attributes:
        by: the attack.
        measure: what `achieved`, `theory` and `without` are in.
        achieved: by the attacker; for an error, smaller is better for him.
        theory: what he can expect at best.
        without: what he has without the attack.
        p: the chance of doing so well against an engine that keeps its promise: of so small a mean absolute
            error, or of so many right guesses, as `tested` says.
        least: the p of the same attack on releases without any noise: what it could have shown.
        values: how many values, or guesses, went into it.
        answers: distinct releases that he had, of `requests` that he made.
        owed: ε that all releases of the run cost, and `paid` the least that a silo's ledger has for all
            sessions but those that were only measured.
    """

    by: str
    measure: str
    achieved: float
    theory: float
    without: float
    p: float
    least: float
    values: int
    answers: int
    requests: int
    owed: Fraction
    paid: Fraction

    @property
    def tested(self) -> str:
        """What `p` is the chance of."""
        return "right guesses" if self.by == "membership" else "the mean absolute error"

    @property
    def paid_for(self) -> bool:
        """Whether every silo debited all that was released."""
        return self.paid >= self.owed


@dataclass(frozen=True)
class _Counts:
    """One tally of counts of one release: its law, from where on a value is shown, and what was opened.

    `bare` is what would have been opened without any noise, NaN where suppressed as in `values`.
    """

    law: Law
    starts: Integers
    values: Floats
    bare: Floats
    truth: Integers
    line: Line

    @property
    def shown(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.values)

    @property
    def errors(self) -> Floats:
        return self.values - self.truth


def averaging(run: Run, asks: Sequence[str | None]) -> Attacked:
    """Average all answers to questions that are the same but for their titles, value by value.

    Raises LookupError if there is no answer, or if they do not have the same cells.
    """
    released = list(distinct(run, asks).values())
    each = [list(counts(run, asked)) for asked in released]
    _same_cells(each)

    def combined(members: Sequence[_Counts]) -> Floats:
        return np.asarray(sum(member.errors for member in members[1:]) + members[0].errors)

    def law(starts: Sequence[int], of: Sequence[Law]) -> tuple[Integers, Floats]:
        chances = np.ones(1)
        for start, one in zip(starts, of, strict=True):
            chances = np.convolve(chances, one.given(start))
        reach = chances.size // 2
        return np.abs(np.arange(-reach, reach + 1)), chances

    found = _judge(each, combined, law)
    times = len(released)
    return Attacked(
        "averaging",
        "root mean square error of a count",
        found.error / times,
        found.whole / times,
        found.whole / sqrt(times),
        found.p,
        found.least,
        found.values,
        times,
        sum(len(run.of(ask)) for ask in asks),
        *ledger(run),
    )


def differencing(run: Run, ask: str | None, other: str | None) -> Attacked:
    """Take the answer to one question off another's, value by value; raises LookupError as `averaging`."""
    pair = [list(counts(run, run.released(name))) for name in (ask, other)]
    _same_cells(pair)

    def combined(members: Sequence[_Counts]) -> Floats:
        return members[0].errors - members[1].errors

    def law(starts: Sequence[int], of: Sequence[Law]) -> tuple[Integers, Floats]:
        chances = np.convolve(of[0].given(starts[0]), of[1].given(starts[1])[::-1])
        reach = chances.size // 2
        return np.abs(np.arange(-reach, reach + 1)), chances

    found = _judge(pair, combined, law)
    return Attacked(
        "differencing",
        "root mean square error of a difference",
        found.error,
        found.whole,
        found.whole,
        found.p,
        found.least,
        found.values,
        2,
        len(run.of(ask)) + len(run.of(other)),
        *ledger(run),
    )


def subtraction(run: Run, ask: str | None, party: str) -> Attacked:
    """Take a silo's own counts off the release; the error is that of what is left as the others' counts.

    Raises LookupError if nothing was released or `party` is no silo.
    """
    asked = run.released(ask)
    sums = sums_of(run, asked)
    if party not in sums:
        raise LookupError(f"{party} holds no records")
    own = sums.pop(party).records
    others = pool(sums).records if sums else tuple(np.zeros_like(each) for each in own)
    lines = plan_of(run, asked).lines
    taken = {id(line.tally): (mine, rest) for line, mine, rest in zip(lines, own, others, strict=True)}
    each = list(counts(run, asked, lines))

    def combined(members: Sequence[_Counts]) -> Floats:
        mine, rest = taken[id(members[0].line.tally)]
        remainder = members[0].values - mine
        return np.asarray(remainder - rest)

    def law(starts: Sequence[int], of: Sequence[Law]) -> tuple[Integers, Floats]:
        return np.abs(of[0].support), of[0].given(starts[0])

    found = _judge([each], combined, law)
    return Attacked(
        "subtraction",
        "root mean square error of the others' count",
        found.error,
        found.whole,
        found.whole,
        found.p,
        found.least,
        found.values,
        1,
        len(run.of(ask)),
        *ledger(run),
    )


def membership(run: Run, ask: str | None, seed: int) -> Attacked:
    """Decide for one patient of each cell, whose presence an attacker's coin says, whether he is there.

    The attacker knows all other patients of the cell: n of the true count n where the coin says that the
    patient is not there, n − 1 where he is. Only the first tally, and cells that hold somebody. Raises
    LookupError if nothing was released, or nothing is held.
    """
    asked = run.released(ask)
    first = next(counts(run, asked), None)
    if first is None or not (first.truth > 0).any():
        raise LookupError("no cell holds a patient")
    held = first.truth > 0
    truth = first.truth[held]
    coins = np.random.default_rng([seed, truth.size])  # noqa: TID251 – an attacker's own coins
    there = coins.integers(0, 2, truth.size).astype(np.bool_)
    right, without_noise = (
        int((guesses(values[held], truth - there) == there).sum()) for values in (first.values, first.bare)
    )
    epsilon = float(first.line.allotment.table.epsilon)
    tried = truth.size
    best = stats.binom(tried, best_accuracy(epsilon))
    return Attacked(
        "membership",
        "advantage over guessing",
        2 * right / tried - 1,
        advantage(epsilon),
        0.0,
        float(best.sf(right - 1)),
        float(best.sf(without_noise - 1)),
        tried,
        1,
        len(run.of(ask)),
        *ledger(run),
    )


def advantage(epsilon: float) -> float:
    """Return the greatest advantage that ε-differential privacy allows: (e^ε − 1)/(e^ε + 1)."""
    return 2 * best_accuracy(epsilon) - 1


# --- what attacks are made of -----------------------------------------------------------------------


def distinct(run: Run, asks: Sequence[str | None]) -> dict[str, Asked]:
    """Return the releases that answer some questions, each once, by the session's id. Raises LookupError."""
    found: dict[str, Asked] = {}
    for ask in asks:
        for asked in run.of(ask):
            if asked.release is not None:
                found.setdefault(str(asked.release["session"]["session_id"]), asked)
    if not found:
        raise LookupError("none of the questions was answered")
    return found


def ledger(run: Run) -> tuple[Fraction, Fraction]:
    """Return ε of all distinct releases of a run, and the least that a silo's ledger says was spent."""
    released = distinct(run, [ask.name for ask in run.scenario.asks]).values()
    owed = sum((_epsilon(asked.release) for asked in released), Fraction(0))
    return owed, min(Fraction(run.spent(name), MICRO) for name in run.silos)


def _epsilon(release: Any) -> Fraction:
    return Fraction(str(release["parameters"]["epsilon"]))


def counts(run: Run, asked: Asked, lines: Sequence[Line] | None = None) -> Iterator[_Counts]:
    """Yield the tallies of a release that count records, with the law of their noise where it is seen."""
    plan, question = plan_of(run, asked), question_of(run, asked)
    pooled = pool(sums_of(run, asked, question))
    tallies = zip(
        lines or plan.lines,
        opened_values(asked),
        noiseless(question, pooled),
        pooled.records,
        strict=True,
    )
    for line, values, bare, truth in tallies:
        table, least = line.allotment.table, line.allotment.least_shown
        if line.tally.step != 1 or line.tally.signed or table.K > MOST_BITS:
            continue
        law = law_of(table)
        starts = np.zeros(truth.size, np.int64)
        if line.guard and least is not None and plan.guarantee.rule is not Rule.EXACT:
            starts = law.from_on(least - truth)
        yield _Counts(law, starts, values, bare, truth, line)


def _same_cells(each: Sequence[Sequence[_Counts]]) -> None:
    sizes = [[one.truth.size for one in tallies] for tallies in each]
    if not sizes[0] or any(one != sizes[0] for one in sizes):
        raise LookupError("the answers do not have the same cells, or hold no counts")


@dataclass(frozen=True)
class _Found:
    """`error` is the root mean square of what there was, `whole` that of noise where nothing is hidden.

    `p` is the chance of so small a sum of absolute errors, `least` that of none on noiseless releases.
    """

    error: float
    whole: float
    p: float
    least: float
    values: int


def _judge(
    each: Sequence[Sequence[_Counts]],
    combined: Callable[[Sequence[_Counts]], Floats],
    law: Callable[[Sequence[int], Sequence[Law]], tuple[Integers, Floats]],
) -> _Found:
    """Return the error of what an attacker made of several releases' values, and the chance of one so small.

    `combined` makes the errors of one tally from those of each release; `law` gives values and chances of
    their size, from where the releases' noise starts.
    """
    scores: list[Scores] = []
    without_noise: list[Scores] = []
    sizes = []
    squares = 0.0
    for members in zip(*each, strict=True):
        seen, unhidden = (
            np.all([~np.isnan(values) for values in of], axis=0)
            for of in ([member.values for member in members], [member.bare for member in members])
        )
        errors = combined(members)[seen]
        sizes.append(errors)
        squares += errors.size * sum(member.law.deviation**2 for member in members)
        for chosen, found in ((seen, scores), (unhidden, without_noise)):
            starts = np.stack([member.starts[chosen] for member in members])
            kinds, times = np.unique(starts, axis=1, return_counts=True)
            for kind, often in zip(kinds.T.tolist(), times.tolist(), strict=True):
                found.append(Scores(*law(kind, [member.law for member in members]), often))
    whole = np.concatenate(sizes)
    if not whole.size:
        raise LookupError("no value is shown in every answer")
    p, least = tails(scores, int(np.abs(whole).sum()))[0], tails(without_noise, 0)[0]
    error, law_error = float(np.sqrt(np.mean(whole**2))), sqrt(squares / whole.size)
    return _Found(error, law_error, p, least, whole.size)
