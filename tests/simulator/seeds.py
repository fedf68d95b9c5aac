"""Runs many seeds, over several processes, and tells of one that fails what is needed to see it again."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.simulator.operations import Op, shrink
from tests.simulator.world import BrokenError, World

Build = Callable[[int, Sequence[Op] | None], World]
"""Returns the world of a seed, with the seed's operations or others; a function of a module."""


def failure(build: Build, seed: int, ops: Sequence[Op] | None = None) -> str | None:
    """Return what is broken in a run, or None."""
    try:
        build(seed, ops).run()
    except BrokenError as error:
        return str(error)
    return None


def explain(build: Build, seed: int, words: str) -> str:
    """Return a report on a seed that fails: what is broken, and the fewest operations with which it is."""
    world = build(seed, None)
    least = shrink(
        world.recipe.draw(seed) if world.ops is None else world.ops,
        lambda ops: failure(build, seed, ops) is not None,
    )
    again = failure(build, seed, least)
    steps = "\n".join(f"    {list(op)}  # {op}" for op in least)
    return f"SEED={seed}: {words}\n  at the least ({again}):\n{steps}"


def first_failure(build: Build, seeds: Sequence[int]) -> str | None:
    """Run seeds one after another and return the report on the first that fails."""
    for seed in seeds:
        words = failure(build, seed)
        if words is not None:
            return explain(build, seed, words)
    return None


def run_seeds(build: Build, seeds: Sequence[int], workers: int = 2) -> str | None:
    """Run seeds shared out over processes; return the reports of those that found a failure, or None."""
    shares = [seeds[start::workers] for start in range(workers)]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(first_failure, [build] * workers, shares))
    reports = [report for report in found if report is not None]
    return "\n".join(reports) or None
