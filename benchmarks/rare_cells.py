"""`python -m benchmarks.rare_cells`: a table of rare cells under the rules `noisy` and `strict`.

Five hospitals, 80 cells by age, stage, histology and trial, of which 15 are empty and 12 hold one to four
patients. Compared with theory is how often cells are published, in simulated releases and in whole sessions;
compared with masking at each hospital first is what an analyst is left with. Prints tables in Markdown, those
of `docs/rare_cells.md`, and writes them to `--out` and the picture to `--picture`. Ends with code 1 when
publication rates contradict theory, or when `strict` has published a count below k.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.rare_cells_picture import draw_utility
from benchmarks.simulated import Integers, draw, shown
from mpc_engine.dp.accounting import Guarantee, Part, Rule, guarantee_for, publication_probability
from tests.world import release

ROOT = Path(__file__).resolve().parent.parent
OUT = Path(__file__).parent / "out" / "rare_cells.json"
PICTURE = ROOT / "docs" / "images" / "rare_cells.png"
SEED = 20240502
K = 5
AXES = {
    "age_band": ("<1", "1-4", "5-9", "10-14", "15-19"),
    "stage": ("1", "2", "3", "4"),
    "histol": ("FH", "UH"),
    "study": ("3", "4"),
}
CLASSES = (("0", 0, 0), ("1–4", 1, 4), ("5–20", 5, 20), ("> 20", 21, 10**9))
"""Cells by their true count: name, least and most."""
STRICT_DELTAS = ("1e-6", "1e-9")
SUSPICIOUS = 0.001
"""A rate contradicts theory if chance alone would do that less often, over all rates that are compared."""

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


def counts_by_hospital() -> Integers:
    """Return the true counts, shape (5, 80), cells in the order of `AXES`."""
    counts = np.zeros((5, *(len(labels) for labels in AXES.values())), np.int64)
    for hospital in range(5):
        path = ROOT / "data" / "rare_cells" / f"silo_H{hospital}.csv"
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                counts[(hospital, *(labels.index(row[name]) for name, labels in AXES.items()))] += 1
    return counts.reshape(5, -1)


def promise(rule: Rule, delta: str | None = None, epsilon: str = "1") -> Guarantee:
    """Return the guarantee of the crosstab: one part, all of ε."""
    return guarantee_for(
        Fraction(epsilon), [Part("cells")], rule, K, delta=None if delta is None else Fraction(delta)
    )


def releases(
    true: Integers, guarantee: Guarantee, runs: int, rng: np.random.Generator
) -> tuple[Mask, Integers]:
    """Return which cells are shown and all noisy values of so many simulated releases, both (runs, cells)."""
    noise = draw(guarantee.allotments[0].table, runs * true.size, rng).reshape(runs, true.size)
    return shown(guarantee, 0, np.broadcast_to(true, noise.shape), true + noise), true + noise


def sessions(counts: Integers, rule: Rule, runs: int, seed: int) -> tuple[Mask, Integers]:
    """Return the same of whole sessions in memory: three hospitals compute, two only bring their counts.

    Everything is as between machines but for the transport; δ of `strict` is 10⁻⁶. Values are 0 where
    suppressed.
    """
    patterns, values = [], []
    for run in range(runs):
        with contextlib.redirect_stdout(io.StringIO()):  # the seed, which follows from ours
            outcome = release(list(counts), computing=3, seed=seed + run, rule=rule, threshold=K)
        found = outcome.releases[0]
        patterns.append(found.published.pattern[0])
        values.append(np.where(patterns[-1], found.published.values[0], 0))
    return np.stack(patterns), np.stack(values)


@dataclass(frozen=True)
class Rate:
    """How often cells of one true count were published, and how often they should be."""

    count: int
    cells: int
    trials: int
    published: int
    theory: float

    @property
    def p_value(self) -> float:
        """The exact binomial probability of so unlikely a number, or one less likely still."""
        return float(stats.binomtest(self.published, self.trials, self.theory).pvalue)

    @property
    def limits(self) -> tuple[float, float]:
        """Clopper–Pearson 95 % limits of the rate."""
        found = stats.binomtest(self.published, self.trials).proportion_ci(0.95, "exact")
        return float(found.low), float(found.high)


def rates(true: Integers, pattern: Mask, guarantee: Guarantee) -> list[Rate]:
    """Return the rates by true count, ascending."""
    return [
        Rate(
            int(count),
            int((true == count).sum()),
            int(pattern[:, true == count].size),
            int(pattern[:, true == count].sum()),
            float(publication_probability(guarantee, int(count))),
        )
        for count in np.unique(true)
    ]


def contradicted(found: Sequence[Rate]) -> list[Rate]:
    """Return the rates that chance cannot explain, all of them together being given `SUSPICIOUS`."""
    return [rate for rate in found if rate.p_value < SUSPICIOUS / len(found)]


@dataclass(frozen=True)
class Way:
    """What one way of disclosure control leaves: means over the runs.

    ``shown`` are cells shown in each of `CLASSES`; ``error`` the absolute error of the numbers shown, summed,
    in patients, and ``lost`` the patients in cells that are not shown. ``below`` is how many true counts of
    1–4 are shown.
    """

    name: str
    private: str
    shown: tuple[float, ...]
    error: float
    lost: float

    @property
    def total(self) -> float:
        """The absolute error of the whole table, a hidden cell being taken as 0."""
        return self.error + self.lost


def judge(name: str, private: str, true: Integers, pattern: Mask, values: Floats | Integers) -> Way:
    """Return what is left where ``pattern`` (runs, cells) shows ``values``."""
    each = tuple(
        float(pattern[:, (least <= true) & (true <= most)].sum(axis=1).mean()) for _, least, most in CLASSES
    )
    error = float(np.where(pattern, np.abs(values - true), 0).sum(axis=1).mean())
    lost = float(np.where(pattern, 0, true).sum(axis=1).mean())
    return Way(name, private, each, error, lost)


def ways(counts: Integers, runs: int, rng: np.random.Generator) -> list[Way]:
    """Return masking at each hospital, exact suppression of the pool, and the engine's two rules.

    Hospitals that mask withhold their counts of 1–4. The analyst then adds up what there is, which is too
    little, or keeps only the cells in which nobody withheld anything, empty ones aside.
    """
    true = counts.sum(axis=0)
    masked = np.where(counts >= K, counts, 0).sum(axis=0)[None]
    whole = ((counts >= K) | (counts == 0)).all(axis=0)[None] & (masked > 0)
    found = [
        judge("masked at each hospital, rest summed", "no", true, masked > 0, masked),
        judge("masked at each hospital, whole cells only", "no", true, whole, masked),
        judge("pooled, exact numbers", "no", true, (true >= K)[None], true[None]),
        judge("noisy", "ε = 1", true, *releases(true, promise(Rule.NOISY), runs, rng)),
    ]
    for delta in STRICT_DELTAS:
        held = releases(true, promise(Rule.STRICT, delta), runs, rng)
        found.append(judge(f"strict, δ = {delta}", f"ε = 1, δ = {delta}", true, *held))
    return found


def rate_table(found: Sequence[Rate], most: int = 12) -> Iterator[str]:
    """Yield the rates up to the true count ``most``; the greater ones are put together."""
    yield "| true count | cells | releases of a cell | published % | 95 % limits | theory % |"
    yield "|---:|---:|---:|---:|---:|---:|"
    for rate in [each for each in found if each.count <= most]:
        low, high = rate.limits
        yield (
            f"| {rate.count} | {rate.cells} | {rate.trials:,} | {100 * rate.published / rate.trials:.2f} | "
            f"{100 * low:.2f}–{100 * high:.2f} | {100 * rate.theory:.2f} |"
        )
    rest = [each for each in found if each.count > most]
    trials, published = sum(each.trials for each in rest), sum(each.published for each in rest)
    theory = sum(each.trials * each.theory for each in rest) / trials
    yield (
        f"| above {most} | {sum(each.cells for each in rest)} | {trials:,} | "
        f"{100 * published / trials:.2f} | | {100 * theory:.2f} |"
    )


def strict_table(true: Integers, runs: int, rng: np.random.Generator) -> tuple[list[str], int]:
    """Return the table of `strict` by δ, and how many true counts below k were published."""
    lines = [
        "| δ | shown from τ | releases | true counts below 5 published | "
        f"cells shown, of {int((true >= K).sum())} with 5 or more | "
        "least true count shown in half of the releases |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    wrong = 0
    for delta in STRICT_DELTAS:
        guarantee = promise(Rule.STRICT, delta)
        pattern, _ = releases(true, guarantee, runs, rng)
        below = int(pattern[:, true < K].sum())
        wrong += below
        often = min(
            int(count) for count in true if publication_probability(guarantee, int(count)) >= Fraction(1, 2)
        )
        lines.append(
            f"| {delta} | {guarantee.allotments[0].least_shown} | {runs:,} | {below} | "
            f"{pattern.sum(axis=1).mean():.1f} | {often} |"
        )
    return lines, wrong


def utility_table(found: Sequence[Way], true: Integers) -> Iterator[str]:
    """Yield the comparison of the ways."""
    sizes = [int(((least <= true) & (true <= most)).sum()) for _, least, most in CLASSES]
    names = " | ".join(f"{name} ({size})" for (name, *_), size in zip(CLASSES, sizes, strict=True))
    yield (
        f"| | differential privacy | {names} | error of shown cells | patients in hidden cells | "
        "total absolute error |"
    )
    yield "|---|---|" + "---:|" * (len(CLASSES) + 3)
    for way in found:
        cells = " | ".join(f"{each:.1f}" for each in way.shown)
        yield f"| {way.name} | {way.private} | {cells} | {way.error:.1f} | {way.lost:.1f} | {way.total:.1f} |"


def session_table(counts: Integers, runs: int, seed: int) -> tuple[list[str], bool]:
    """Return how whole sessions compare with theory, and whether they contradict it."""
    true = counts.sum(axis=0)
    lines = [
        "| rule | sessions | cells shown | expected | standard deviation | true counts below 5 published | "
        "expected | smallest p by true count |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    wrong = False
    for rule, delta in ((Rule.NOISY, None), (Rule.STRICT, STRICT_DELTAS[0])):
        guarantee = promise(rule, delta)
        pattern, values = sessions(counts, rule, runs, seed)
        seed += runs
        found = rates(true, pattern, guarantee)
        chances = np.array([float(publication_probability(guarantee, int(count))) for count in true])
        limit = guarantee.allotments[0].table.limit
        wrong |= bool(contradicted(found)) or bool(
            (np.abs(np.where(pattern, values - true, 0)) > limit).any()
        )
        below = int(pattern[:, true < K].sum())
        wrong |= rule is Rule.STRICT and below > 0
        deviation = float(np.sqrt(runs * (chances * (1 - chances)).sum()))
        name = rule.value if delta is None else f"{rule.value}, δ = {delta}"
        lines.append(
            f"| {name} | {runs} | {int(pattern.sum())} | {runs * chances.sum():.1f} | {deviation:.1f} | "
            f"{below} | {runs * chances[true < K].sum():.1f} | {min(each.p_value for each in found):.2f} |"
        )
    return lines, wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rare_cells", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(options.seed)
    counts = counts_by_hospital()
    true = counts.sum(axis=0)
    guarantee = promise(Rule.NOISY)
    published = rates(true, releases(true, guarantee, options.runs, rng)[0], guarantee)
    strict, wrong = strict_table(true, options.runs, rng)
    compared = ways(counts, options.runs, rng)
    held, broken = session_table(counts, options.sessions, options.seed)
    tables = "\n".join(
        [
            "### Publication under noisy\n",
            *rate_table(published),
            "\n### Strict\n",
            *strict,
            "\n### Utility\n",
            *utility_table(compared, true),
            "\n### Whole sessions\n",
            *held,
        ]
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    fields = {
        "runs": options.runs,
        "sessions": options.sessions,
        "seed": options.seed,
        "rates": [vars(rate) for rate in published],
        "ways": [vars(way) | {"total": way.total} for way in compared],
    }
    options.out.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(tables + "\n", encoding="utf-8")
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    draw_utility(compared, true, [(name, least, most) for name, least, most in CLASSES], options.picture)
    print(tables)
    for rate in contradicted(published):
        print(f"true count {rate.count}: published {rate.published} of {rate.trials}", file=sys.stderr)
    return int(bool(contradicted(published)) or wrong > 0 or broken)


if __name__ == "__main__":
    sys.exit(main())
