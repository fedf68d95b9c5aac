"""`python -m benchmarks.coverage`: whether 95 % intervals, noise included, hold the truth so often.

Every repetition draws a cohort of known truth and the noise of the plan; the preset's own `finish` turns
what a session would have opened into statistics. Prints tables in Markdown, those of `docs/coverage.md`,
and writes them with every figure to `--out`. Ends with code 1 if a required figure lies outside 92–98 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.cohorts import CHILDHOOD, HEAVY, HIGH
from benchmarks.coverage_cases import GRIDS, SIZES, Bench, Row, everything

OUT = Path(__file__).parent / "out" / "coverage.json"
SEED = 20240501
LEAST, MOST = 0.92, 0.98


def holds(row: Row) -> bool:
    """Return whether a row that is required to be within 92–98 % is."""
    return not row.required or LEAST <= row.coverage <= MOST


def signed(value: float) -> str:
    """Return a number with its sign and three significant digits, or two decimals."""
    if np.isnan(value):
        return "–"
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:+.{decimals}f}"


def percent(value: float, decimals: int = 1) -> str:
    """Return a share in per cent."""
    return "–" if np.isnan(value) else f"{100 * value:.{decimals}f}"


def long_table(rows: Iterable[Row], others: Sequence[Row], size: str) -> Iterator[str]:
    """Yield a table with a line for each row; ``others`` are those at ε = 0.5, ``size`` names the size."""
    half = {(row.case, row.statistic, row.size): row for row in others}
    yield (
        f"| {size} | statistic | shown % | coverage % | bias | half-width | noise % | "
        "ε = 0.5: coverage % | half-width |"
    )
    yield "|---:|---|---:|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        other = half.get((row.case, row.statistic, row.size))
        mark = "" if not row.required else " ✓" if holds(row) else " ✗"
        cells = [
            f"{row.size:g}",
            f"{row.statistic} ({row.unit})",
            percent(row.shown),
            percent(row.coverage) + mark,
            signed(row.bias),
            signed(row.half_width).lstrip("+"),
            percent(row.noise_share, 0),
            "–" if other is None else percent(other.coverage),
            "–" if other is None else signed(other.half_width).lstrip("+"),
        ]
        yield f"| {' | '.join(cells)} |"


def wide_table(rows: Sequence[Row], names: Sequence[str], sizes: Sequence[int]) -> Iterator[str]:
    """Yield a table with a line for each name and for each size the coverage and, in brackets, the bias.

    A name is a row's case, or its statistic where all rows are of one case. Where less than 99 % of the
    repetitions are shown, the share is added.
    """
    yield "| | " + " | ".join(f"n = {size:,}" for size in sizes) + " |"
    yield "|---|" + "---:|" * len(sizes)
    for name in names:
        found = {row.size: row for row in rows if name in (row.case, row.statistic)}
        cells = [_short(found[size]) for size in sizes]
        yield f"| {name} | {' | '.join(cells)} |"


def _short(row: Row) -> str:
    part = "" if row.shown >= 0.99 else f"; {percent(row.shown, 0)} % shown"
    return f"{percent(row.coverage)} ({signed(row.bias)}{part})"


def markdown(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the documented tables."""
    whole = [row for row in rows if row.epsilon == "1"]
    half = [row for row in rows if row.epsilon != "1"]

    def of(section: str, case: str = "", among: Sequence[Row] = whole) -> list[Row]:
        return [row for row in among if row.section == section and row.case.startswith(case)]

    for section, size in (("counts", "expected"), ("rates", "events"), ("means", "n")):
        yield f"### {section.capitalize()}\n"
        yield from long_table(of(section), of(section, among=half), size)
        yield ""
    main = f"{CHILDHOOD.name}, annual, kaplan-meier"
    yield "### Survival: Kaplan–Meier, annual grid, log-log intervals\n"
    curve = [row for row in of("survival", main) if row.statistic.endswith("log-log")]
    yield from long_table(curve, of("survival", main, half), "n")
    yield "\n### Five-year survival: grids and methods\n"
    five = [row for row in of("survival") if row.statistic == "5-year, log-log"]
    cases = [
        f"{model.name}, {grid}, {method}"
        for model in (CHILDHOOD, HEAVY)
        for grid in GRIDS
        for method in ("kaplan-meier", "actuarial")
    ]
    cases += [f"{HIGH.name}, annual, {method}" for method in ("kaplan-meier", "actuarial")]
    yield from wide_table(five, cases, SIZES)
    yield "\n### Five-year survival: intervals\n"
    kinds = [f"5-year, {interval}" for interval in ("log-log", "log", "plain")]
    yield from wide_table(of("survival", main), kinds, SIZES)
    yield "\n### Median survival\n"
    yield from wide_table(of("median"), ["annual grid", "quarterly grid"], SIZES)
    yield "\n### Net survival: Pohar Perme, annual grid\n"
    yield from long_table(of("net survival"), (), "n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.repetitions, np.random.default_rng(options.seed), Path(folder))
        rows = list(everything(bench))
    tables = "\n".join(markdown(rows))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    fields = {"repetitions": options.repetitions, "seed": options.seed, "rows": [r.as_fields() for r in rows]}
    options.out.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(tables + "\n", encoding="utf-8")
    print(tables)
    failed = [row for row in rows if not holds(row)]
    for row in failed:
        print(
            f"outside 92–98 %: {row.statistic}, {row.case}, {row.size:g}: {percent(row.coverage)}",
            file=sys.stderr,
        )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
