"""`python -m benchmarks.run`: the release job at several sizes, MPyC beside it, and the kernels.

Writes the jobs to `--out`, the kernels to `kernels.json` and all tables to `tables.md` beside it, and
prints everything with the targets of the project. Ends with code 1 when a run failed, whatever the figures
are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import tables
from benchmarks.baseline import VARIANTS, is_runnable
from benchmarks.kernels import KernelRow, kernels, measure, session_in_memory
from benchmarks.results import Row, median, ratios, targets, write
from benchmarks.schedule import FULL, QUICK, Extent, Measurement, interleaved, measurements
from mpc_engine.party.process import keep_memory

OUT = Path(__file__).parent / "out" / "bench.json"
KERNELS_FILE = "kernels.json"
MARKDOWN_FILE = "tables.md"
WIDTH = 120
"""Columns of what is written to a file or a pipe."""


def run_jobs(jobs: Sequence[Measurement], seed: int, console: Console) -> tuple[list[Row], list[str]]:
    """Run all jobs, interleaved, and return a row for each that ran, in order, and what failed."""
    runs = interleaved(jobs)
    found: dict[str, list[Row]] = {job.label: [] for job in jobs}
    failures: list[str] = []
    with _progress(console) as progress:
        task = progress.add_task("", total=len(runs))
        for number, job in enumerate(runs):
            progress.update(task, description=job.label)
            try:
                found[job.label].append(job.run(seed + number))
            except (RuntimeError, OSError) as error:
                failures.append(f"{job.label}, seed {seed + number}: {error}")
            progress.advance(task)
    return [median(rows) for rows in found.values() if rows], failures


def run_kernels(extent: Extent, seed: int, console: Console) -> list[KernelRow]:
    """Measure the kernels and a session in memory."""
    keep_memory()  # as every party does
    every = list(kernels(np.random.default_rng(seed)))
    rows = []
    with _progress(console) as progress:
        task = progress.add_task("", total=len(every) + 1)
        for kernel in every:
            progress.update(task, description=f"{kernel.kernel} {kernel.field}")
            rows.append(measure(kernel))
            progress.advance(task)
        progress.update(task, description="session in memory")
        rows.append(session_in_memory(3, extent.session_cells, seed, extent.session_repeats))
        progress.advance(task)
    return rows


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<44}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def report(rows: Sequence[Row], console: Console) -> None:
    """Print the jobs, how they compare with MPyC, and the targets."""
    console.print(tables.results_table(rows))
    for variant in VARIANTS:
        if not is_runnable(variant):
            console.print(f"{variant.name}: not run, gmpy2 is not installed (it is in the extra `test`)")
    console.print(tables.ratios_table(ratios(rows)))
    console.print(tables.targets_table(targets(rows)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, each once: about ten seconds")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the generated counts (%(default)s)")
    chosen = parser.parse_args(arguments)
    extent = QUICK if chosen.quick else FULL
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(tables.machine(), highlight=False)
    rows, failures = run_jobs(measurements(extent), chosen.seed, console)
    write(chosen.out, rows)
    report(rows, console)
    kernel_rows = run_kernels(extent, chosen.seed, console)
    write(chosen.out.with_name(KERNELS_FILE), kernel_rows)
    console.print(tables.kernels_table(kernel_rows))
    written = tables.results_table(rows), tables.ratios_table(ratios(rows)), tables.kernels_table(kernel_rows)
    text = "\n".join([f"{tables.machine()}\n", *map(tables.markdown, written)])
    chosen.out.with_name(MARKDOWN_FILE).write_text(text, encoding="utf-8")
    for failure in failures:
        console.print(f"failed: {failure}", style="red", markup=False)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
