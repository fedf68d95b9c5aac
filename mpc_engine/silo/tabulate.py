"""Counting: a registered snapshot becomes the silo's cells in the order of the grid.

Filters come first, then the cap: of a patient's records that match, the first
``max_records_per_patient`` in the mapping's order are counted. Capping before filtering would bound a
patient's influence just as well – at most that many records are counted either way – but would drop
matching records in favour of ones that the filter then removes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NoReturn

import ibis
import numpy as np
import numpy.typing as npt
from ibis.common.exceptions import IbisError

from mpc_engine.codebook import Codebook
from mpc_engine.errors import DataError
from mpc_engine.silo.register import PATIENT, RANK, Registration, snapshot_path
from mpc_engine.silo.source import database_errors, engine, scan
from mpc_engine.statistics.layout import AxisRule, Layout, Selection
from mpc_engine.statistics.query import Query

Counts = npt.NDArray[np.int64]


class Cells:
    """One silo's counts, in the clear and therefore never shown, compared, copied to disk or sent.

    ``records`` holds the counted records of each cell and ``patients`` the distinct patients among them,
    both int64 and row-major; they are equal where the cap is 1.
    """

    __slots__ = ("patients", "records")

    records: Counts
    patients: Counts

    def __init__(self, records: Counts, patients: Counts) -> None:
        self.records = records
        self.patients = patients

    def __repr__(self) -> str:
        return f"Cells({len(self.records)} cells, values not shown)"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("the counts of a silo are not compared")

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("the counts of a silo are not written out")

    def clear(self) -> None:
        """Overwrite the counts with zeros, once they have been shared."""
        self.records.fill(0)
        self.patients.fill(0)


def tabulate(query: Query, codebook: Codebook, registered: Registration) -> Cells:
    """Return this silo's counts for every cell of the query's grid.

    Raises :class:`~mpc_engine.errors.DocumentError` if the query does not fit the codebook, and
    :class:`~mpc_engine.errors.DataError` if the data were registered for another codebook, the snapshot
    cannot be read, or a count exceeds the registered public bound.
    """
    layout = query.layout(codebook)
    if codebook.digest() != registered.codebook_digest:
        raise DataError("the data were registered for another codebook; register again")
    records = np.zeros(layout.grid.cells, dtype=np.int64)
    patients = np.zeros(layout.grid.cells, dtype=np.int64)
    path = snapshot_path(registered)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="mpc-engine-") as scratch,
            engine(Path(scratch)) as connection,
        ):
            rows = scan(connection, path)
            counted = _counted(rows, layout, registered.max_records_per_patient).to_pyarrow()
    except (IbisError, OSError, *database_errors()):
        raise DataError(f"{path}: cannot be read; register again") from None
    cells = counted["cell"].to_numpy()
    records[cells] = counted["records"].to_numpy()
    patients[cells] = counted["patients"].to_numpy()
    if records.max(initial=0) > registered.count_bound:
        raise DataError("a count exceeds the public bound that was registered; register again")
    return Cells(records, patients)


def _counted(rows: Any, layout: Layout, most: int) -> Any:
    """Return the non-empty cells with their counts, as a lazy table."""
    for selection in layout.where:
        rows = rows.filter(_matches(rows, selection))
    cap = layout.max_records_per_patient
    if most > cap:
        rows = rows.mutate(_place=ibis.row_number().over(group_by=rows[PATIENT], order_by=rows[RANK]))
        rows = rows.filter(rows["_place"] < cap)
    cell: Any = ibis.literal(0, type="int64")
    for axis, rule in zip(layout.grid.axes, layout.axes, strict=True):
        cell = cell * len(axis.categories) + _index(rows, rule)
    placed = rows.select(cell=cell, patient=rows[PATIENT])
    one_each = most == 1 or cap == 1
    patients = placed.count() if one_each else placed.patient.nunique()
    return placed.group_by("cell").aggregate(records=placed.count(), patients=patients)


def _matches(rows: Any, selection: Selection) -> Any:
    value = rows[selection.variable]
    matches: Any = value.isnull() if selection.unknown else ibis.literal(False)
    for low, high in selection.ranges:
        matches = matches | value.between(low, high).fill_null(False)
    return matches


def _index(rows: Any, rule: AxisRule) -> Any:
    value = rows[rule.variable]
    index = _bin(value, rule.cuts) if rule.cuts else value - rule.offset
    return index if rule.unknown is None else value.isnull().ifelse(rule.unknown, index)


def _bin(value: Any, cuts: tuple[int, ...], first: int = 0) -> Any:
    """Return the number of cuts at or below ``value``, by bisection so that many bins stay cheap."""
    if not cuts:
        return ibis.literal(first, type="int64")
    middle = len(cuts) // 2
    return (value < cuts[middle]).ifelse(
        _bin(value, cuts[:middle], first), _bin(value, cuts[middle + 1 :], first + middle + 1)
    )
