"""Counting: a registered snapshot becomes the silo's sums, tally by tally, in the order of the grids.

Which tumours of a patient take part at all is decided first (`multiple_primaries`). Then come the filters,
then the cap: of a patient's records that match, the first ``max_records_per_patient`` in the mapping's
order are counted. Capping before filtering would bound a patient's influence just as well – at most that
many records are counted either way – but would drop matching records in favour of ones that the filter
then removes.
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
from mpc_engine.release.groups import Tally
from mpc_engine.silo.places import amount, at_risk, matches, place
from mpc_engine.silo.register import PATIENT, PRIMARY, RANK, Registration, snapshot_path
from mpc_engine.silo.source import database_errors, engine, scan
from mpc_engine.statistics.layout import Layout, Recipe
from mpc_engine.statistics.query import Query

Sums = npt.NDArray[np.int64]


class Cells:
    """One silo's sums, in the clear and therefore never shown, compared, copied to disk or sent.

    One array for each tally of the release, int64, row-major. That of a guard has two rows, the records of
    each cell and the distinct patients among them, which are equal where the cap is 1; others have one.
    """

    __slots__ = ("_tallies",)

    _tallies: tuple[Sums, ...]

    def __init__(self, tallies: tuple[Sums, ...]) -> None:
        self._tallies = tallies

    def __repr__(self) -> str:
        return f"Cells({len(self._tallies)} tallies, values not shown)"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("the counts of a silo are not compared")

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("the counts of a silo are not written out")

    def take(self) -> tuple[Sums, ...]:
        """Return the arrays, to be shared with the other parties; nothing is left here."""
        taken, self._tallies = self._tallies, ()
        return taken


def tabulate(query: Query, codebook: Codebook, registered: Registration) -> Cells:
    """Return this silo's sums for every tally of the query's layout.

    Raises :class:`~mpc_engine.errors.DocumentError` if the query does not fit the codebook, and
    :class:`~mpc_engine.errors.DataError` if the data were registered for another codebook or without what
    the query's multiple primaries need, the snapshot cannot be read, or a count exceeds the registered
    public bound.
    """
    layout = query.layout(codebook)
    if codebook.digest() != registered.codebook_digest:
        raise DataError("the data were registered for another codebook; register again")
    if layout.primaries == "iarc" and not registered.has_primaries:
        raise DataError(
            'the query asks for multiple_primaries = "iarc", for which the mapping has to name the ICD-O-3 '
            "columns in [icdo3]; add them and register again"
        )
    path = snapshot_path(registered)
    guards = [tally is each.guard for each in layout.groups for tally in each.tallies]
    tallies = [tally for each in layout.groups for tally in each.tallies]
    try:
        with (
            tempfile.TemporaryDirectory(prefix="mpc-engine-") as scratch,
            engine(Path(scratch)) as connection,
        ):
            rows = _taken(scan(connection, path), layout, registered.max_records_per_patient)
            one_each = 1 in (registered.max_records_per_patient, layout.max_records_per_patient)
            sums = [
                _summed(rows, tally, recipe, guard, one_each)
                for tally, recipe, guard in zip(tallies, layout.recipes, guards, strict=True)
            ]
    except (IbisError, OSError, *database_errors()):
        raise DataError(f"{path}: cannot be read; register again") from None
    for tally, each in zip(tallies, sums, strict=True):
        if np.abs(each).max(initial=0) > registered.count_bound * tally.step:
            raise DataError("a count exceeds the public bound that was registered; register again")
    return Cells(tuple(sums))


def _taken(rows: Any, layout: Layout, most: int) -> Any:
    """Return the records that count, as a lazy table."""
    if layout.primaries == "first" and most > 1:
        rows = rows.filter(rows[RANK] == rows[RANK].min().over(ibis.window(group_by=rows[PATIENT])))
    elif layout.primaries == "iarc":
        rows = rows.filter(rows[PRIMARY] == 1)
    for selection in layout.where:
        rows = rows.filter(matches(rows, selection))
    if layout.follow_up is not None:
        rows = rows.filter(at_risk(rows, layout.follow_up))
    cap = layout.max_records_per_patient
    if most > cap:
        rows = rows.mutate(_place=ibis.row_number().over(group_by=rows[PATIENT], order_by=rows[RANK]))
        rows = rows.filter(rows["_place"] < cap)
    return rows


def _summed(rows: Any, tally: Tally, recipe: Recipe, guard: bool, one_each: bool) -> Sums:
    """Return one tally, shape (2 or 1, cells)."""
    cell: Any = ibis.literal(0, type="int64")
    for axis, rule in zip(tally.grid.axes, recipe.rules, strict=True):
        cell = cell * len(axis.categories) + place(rows, rule)
    columns = {"cell": cell}
    if recipe.amount is not None:
        value = rows[recipe.amount.variable]
        rows, columns["value"] = rows.filter(value.notnull()), amount(value, recipe.amount)
    distinct = guard and not one_each
    if distinct:
        columns["patient"] = rows[PATIENT]
    placed = rows.select(**columns)
    wanted = {"records": placed.count() if recipe.amount is None else placed["value"].sum()}
    if distinct:
        wanted["patients"] = placed["patient"].nunique()
    found = placed.group_by("cell").aggregate(**wanted).to_pyarrow()
    sums = np.zeros((2 if guard else 1, tally.grid.cells), dtype=np.int64)
    cells = found["cell"].to_numpy()
    if found["cell"].null_count or cells.min(initial=0) < 0 or cells.max(initial=-1) >= tally.grid.cells:
        raise DataError("the registered data hold values that the codebook does not know; register again")
    sums[0, cells] = found["records"].to_numpy()
    if guard:
        sums[1, cells] = found["patients" if distinct else "records"].to_numpy()
    return sums
