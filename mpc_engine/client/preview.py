"""A result on made-up records: how the answer will look, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mpc_engine.codebook import Codebook
from mpc_engine.release.plan import PATIENTS, RECORDS, Plan
from mpc_engine.release.publication import Published
from mpc_engine.release.table import Release
from mpc_engine.result import Result
from mpc_engine.silo.dummy import new_seed, write_records
from mpc_engine.silo.register import register
from mpc_engine.silo.tabulate import tabulate
from mpc_engine.statistics.query import Query

MARK: Final = "DUMMY DATA"
"""What the title of every preview begins with."""


class Preview(Result):
    """A result on ``rows`` made-up records of ``seed``; all else as `Result`."""

    def __init__(self, release: Mapping[str, Any], codebook: Codebook, rows: int, seed: int) -> None:
        super().__init__(release, codebook)
        self.rows, self.seed = rows, seed

    @property
    def title(self) -> str:
        """The title, marked."""
        return f"{MARK} – {super().title}"

    def explain(self) -> str:
        """Return what this is and is not, then the paragraph that the result itself would have."""
        return (
            f"{MARK}: {self.rows:,} made-up records (seed {self.seed}), which are of nobody. The sums are "
            "exact, and noise is in the intervals only; what is below the threshold is suppressed. "
            f"A real result would read: {super().explain()}"
        )


def preview(
    query: Query, codebook: Codebook, plan: Plan, rows: int, seed: int | None, records_per_patient: int = 1
) -> Preview:
    """Return the result of a query on made-up records, suppressed as the plan says but without noise.

    Raises DocumentError for numbers out of range, DataError for a query that needs what records made from
    a codebook alone do not have, as multiple primaries by the rules of IARC.
    """
    seed = new_seed() if seed is None else seed
    with TemporaryDirectory(prefix="mpc-engine-") as folder:
        file = Path(folder) / "dummy.parquet"
        mapping = write_records(codebook, file, rows, seed, records_per_patient)
        sums = tabulate(query, codebook, register(mapping, Path(folder) / "data")).take()
    published = suppressed(plan, sums)
    release = Release(plan, query.digest_fields(), published, {"id": "preview"}).as_fields()
    release["promise"] = [
        f"{MARK}: made-up records, which are of nobody; this is no release.",
        "No noise was added to the numbers; the intervals allow for the noise of a real release.",
    ]
    return Preview(release, codebook, rows, seed)


def suppressed(plan: Plan, sums: Sequence[NDArray[np.int64]]) -> Published:
    """Return exact sums as a release without noise would show them: 0 in groups that would be hidden.

    ``sums`` are, for each line of the plan, int64 of shape (rows, cells): records and, for a guard, patients.
    """
    pattern: list[NDArray[np.bool_]] = []
    values: list[NDArray[np.int64]] = []
    for line, each in zip(plan.lines, sums, strict=True):
        if line.guard:
            shown = np.ones(line.cells, np.bool_)
            for what, hidden in plan.tests(line):
                tested = each[PATIENTS if what == "patients" else RECORDS]
                shown &= (tested < hidden.low) | (tested > hidden.high)
            pattern.append(shown)
        visible = np.repeat(pattern[line.group], line.per_group)
        values.append(np.where(visible, each[RECORDS], 0))
    return Published(tuple(pattern), tuple(values))
