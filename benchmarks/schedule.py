"""What is run, how often, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.baseline import VARIANTS, is_runnable, run_mpyc
from benchmarks.release_job import run_release
from benchmarks.results import ENGINE, Row


@dataclass(frozen=True)
class Measurement:
    """One job to run `repeats` times; `run` takes a seed; it may raise RuntimeError or OSError."""

    label: str
    repeats: int
    run: Callable[[int], Row]


@dataclass(frozen=True)
class Extent:
    """How much is measured: jobs of the engine as (n, cells, repeats), MPyC's cells and repeats, kernels."""

    engine: tuple[tuple[int, int, int], ...]
    mpyc_cells: int
    mpyc_repeats: int
    session_cells: int
    session_repeats: int


FULL = Extent(
    engine=(
        (3, 1_000, 5),
        (3, 10_000, 5),
        (3, 100_000, 5),
        (3, 1_000_000, 3),
        (5, 10_000, 5),
        (5, 100_000, 5),
        (7, 10_000, 5),
    ),
    mpyc_cells=1_000,
    mpyc_repeats=3,
    session_cells=100_000,
    session_repeats=3,
)
QUICK = Extent(
    engine=((3, 1_000, 1), (3, 10_000, 1), (5, 1_000, 1)),
    mpyc_cells=100,
    mpyc_repeats=1,
    session_cells=10_000,
    session_repeats=1,
)


def measurements(extent: Extent) -> list[Measurement]:
    """Return the jobs to run; MPyC's with gmpy2 only where that is installed."""
    ours = [
        Measurement(f"{ENGINE}, n = {n}, {cells:,} cells", repeats, partial(run_release, n, cells))
        for n, cells, repeats in extent.engine
    ]
    theirs = [
        Measurement(
            f"{variant.name}, n = 3, {extent.mpyc_cells:,} cells",
            extent.mpyc_repeats,
            partial(run_mpyc, variant, 3, extent.mpyc_cells),
        )
        for variant in VARIANTS
        if is_runnable(variant)
    ]
    return ours + theirs


def interleaved(jobs: Sequence[Measurement]) -> list[Measurement]:
    """Return the single runs, each job's spread evenly over the whole, so that all meet the same weather."""
    runs = [((i + 0.5) / job.repeats, index) for index, job in enumerate(jobs) for i in range(job.repeats)]
    return [jobs[index] for _, index in sorted(runs)]
