"""Releases without the parties: true sums, noise from the plan's own tables, and its rule for small cells.

What a session publishes is the sums plus joint noise, less the groups that its rule hides. Here one
generator with a seed draws that noise, so thousands of releases take seconds. Only benchmarks and tests do
so; the coins are those of the exact table, each rounded to the nearest double.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc_engine.codebook import Codebook
from mpc_engine.dp.accounting import Guarantee, Rule, guarantee_for
from mpc_engine.dp.noise_table import NoiseTable
from mpc_engine.errors import DocumentError
from mpc_engine.release.groups import Groups, parts_of
from mpc_engine.release.opened import Opened, arrange
from mpc_engine.statistics.query import Query

Integers = NDArray[np.int64]


def draw(table: NoiseTable, count: int, rng: np.random.Generator) -> Integers:
    """Return ``count`` independent draws of the table's noise: one coin for each bit, as the parties do."""
    magnitude = np.ones(count, np.int64)
    for bit, coin in enumerate(table.magnitude):
        magnitude += (rng.random(count) < float(coin.probability)).astype(np.int64) << bit
    nonzero = rng.random(count) < float(table.nonzero.probability)
    return np.where(nonzero, np.where(rng.random(count) < 0.5, -magnitude, magnitude), 0)


def promised(query: Query, codebook: Codebook) -> tuple[tuple[Groups, ...], Guarantee]:
    """Return what the query lays out, and the guarantee that its parties would agree on, with its tables.

    Raises DocumentError where the query does not fit the codebook or its noise would be out of bounds.
    """
    groups, asked = query.layout(codebook).groups, query.privacy
    guarantee = guarantee_for(
        asked.epsilon_exact,
        parts_of(groups),
        Rule(asked.rule),
        asked.threshold,
        asked.max_records_per_patient,
        asked.delta_exact,
    )
    return groups, guarantee


def shown(guarantee: Guarantee, number: int, patients: Integers, noisy: Integers) -> NDArray[np.bool_]:
    """Return which groups the rule shows; ``number`` is the guard's place among the allotments.

    ``patients`` are the true counts and ``noisy`` those with noise, one record for each patient.
    """
    least = guarantee.allotments[number].least_shown
    enough = patients >= guarantee.threshold
    if least is None:
        return enough
    return (noisy >= least) & (enough if guarantee.rule is Rule.STRICT else True)


def release(
    groups: Sequence[Groups], guarantee: Guarantee, sums: Sequence[Any], rng: np.random.Generator
) -> Opened:
    """Return what a session with these true sums, one row for each tally, would have opened.

    Raises DocumentError if the cap is not 1: then records alone do not tell how many patients there are.
    """
    if guarantee.cap != 1:
        raise DocumentError("simulated releases count one record for each patient")
    pattern, values, number = [], [], 0
    for kind in groups:
        for tally in kind.tallies:
            true = np.asarray(sums[number], np.int64).reshape(-1)
            noisy = true + draw(guarantee.allotments[number].table, tally.grid.cells, rng)
            if tally is kind.guard:
                pattern.append(shown(guarantee, number, true, noisy))
            values.append(noisy.astype(np.float64))
            number += 1
    variances = [float(each.table.variance) for each in guarantee.allotments]
    return arrange(groups, pattern, values, variances, guarantee.threshold)
