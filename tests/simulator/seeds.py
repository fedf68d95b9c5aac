"""Runs many seeds, and tells of one that fails what is needed to see it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from tests.simulator.operations import Op, shrink
from tests.simulator.world import BrokenError, World

Build = Callable[[int, Sequence[Op] | None], World]
"""Returns the world of a seed, with the seed's operations or others."""


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
    steps = "\n".join(f"    {json.dumps(list(op))}  # {op}" for op in least)
    return f"SEED={seed}: {words}\n  at the least ({again}):\n{steps}"


def first_failure(build: Build, seeds: Sequence[int]) -> str | None:
    """Run seeds one after another and return the report on the first that fails."""
    for seed in seeds:
        words = failure(build, seed)
        if words is not None:
            return explain(build, seed, words)
    return None
