"""``crosstab``: records by every combination of the categories of one or more variables.

Each cell is its own guard. Totals are further groups with their own share of ε and their own noise: one
row of totals for each variable, and the grand total. They are never exact and never sums of the cells.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mpc_engine.codebook import Codebook, Name
from mpc_engine.documents import Field, broken, model_validator
from mpc_engine.estimators.frequencies import (
    MOST_DEGREES_OF_FREEDOM,
    Base,
    independence_test,
    percentages,
)
from mpc_engine.release.grid import Axis
from mpc_engine.release.opened import Opened, OpenedTally
from mpc_engine.statistics.cells import add_counts
from mpc_engine.statistics.layout import AxisRule, Kind
from mpc_engine.statistics.query import Picture, Query, counted, open_cells, outside, variable_axes
from mpc_engine.statistics.tidy import OK, UNRELIABLE, Style, Tidy, grid_labels
from mpc_engine.statistics.where import Problems

CELLS_WEIGHT, MARGIN_WEIGHT, TOTAL_WEIGHT = 12, 3, 2
"""Shares of ε of the cells, of each margin, and of the grand total: 0.6, 0.15, 0.15 and 0.1 with two."""


class Crosstab(Query):
    """Counts in the full grid of ``by``; a filter never removes a row or column of the grid.

    ``totals`` adds the total of every category of each variable and the grand total; ``percentages`` those
    of the total or, with two variables, of rows and columns too; ``test`` a χ² test of independence of two
    variables.
    """

    picture: ClassVar[Picture] = "heat"
    headlines: ClassVar[tuple[str, ...]] = ("count", "total")

    preset: Literal["crosstab"]
    by: Annotated[tuple[Name, ...], Field(min_length=1, max_length=12)]
    totals: bool = False
    percentages: bool = False
    test: Literal["chi-squared"] | None = None

    @model_validator(mode="after")
    def _test_fits(self) -> Crosstab:
        if self.test is not None and len(self.by) != 2:
            raise broken("test", "asks for independence of two variables; name two in `by`")
        if self.totals and self.privacy.rule == "exact":
            raise broken(
                "totals",
                'are refused with rule = "exact": there is no complementary suppression, so a suppressed '
                "cell could be computed from its row; use noisy or strict",
            )
        return self

    def kinds(self, codebook: Codebook, problems: Problems) -> list[Kind]:
        """Return the cells and, where asked for, one kind of groups for each margin and the total."""
        axes = variable_axes(self.by, "by", codebook, problems)
        if self.test is not None and len(axes) == 2:
            rows, columns = (len(axis.categories) for axis, _ in axes)
            if (rows - 1) * (columns - 1) > MOST_DEGREES_OF_FREEDOM:
                problems.append(
                    (
                        "test",
                        f"{rows} × {columns} categories are too many for a test with noise; it is limited to "
                        f"{MOST_DEGREES_OF_FREEDOM} degrees of freedom",
                    )
                )
        kinds = [counted("cells", axes, CELLS_WEIGHT)]
        if self.totals and not problems:
            kinds += self._margins(axes)
        return kinds

    def _margins(self, axes: list[tuple[Axis, AxisRule]]) -> list[Kind]:
        each = axes if len(axes) > 1 else []
        margins = [counted(_margin(axis.variable), [(axis, rule)], MARGIN_WEIGHT) for axis, rule in each]
        return [*margins, counted("total", [], TOTAL_WEIGHT)]

    def finish(self, codebook: Codebook, opened: Opened) -> Tidy:
        """Return counts and totals with intervals, percentages and the test, as asked for."""
        cells = opened.groups["cells"].guard
        axes = cells.grid.axes
        allowed = self.possible(codebook, variable_axes(self.by, "by", codebook, []))
        tidy = Tidy(self.preset, self.by, outside(axes, allowed))
        add_counts(tidy, cells)
        for name, groups in opened.groups.items():
            if name != "cells":
                add_counts(tidy, groups.guard, "total")
        if self.percentages:
            self._add_percentages(tidy, cells, opened, open_cells(axes, allowed))
        if self.test is not None:
            _add_test(tidy, cells.values[np.ix_(*(allowed[axis.variable] for axis in axes))], cells.variance)
        return tidy

    def _add_percentages(
        self, tidy: Tidy, cells: OpenedTally, opened: Opened, allowed: NDArray[np.bool_]
    ) -> None:
        """Add per cent of the total and, with two variables, of each row and column.

        A base is the noisy total, together with the sum of its cells where all of them are shown; without
        totals it is the sum of the shown cells. What the filters leave out is 0 and without noise.
        """
        bases: list[tuple[str, Base, str]] = [("percent", "total", "total")]
        if len(self.by) == 2:
            bases += [("row_percent", "row", self.by[0]), ("column_percent", "column", self.by[1])]
        shape = cells.values.shape if len(self.by) == 2 else (-1, 1)
        table = np.where(allowed, cells.values, 0.0).reshape(shape)
        noise = np.where(allowed, cells.variance, 0.0).reshape(shape)
        for statistic, base, name in bases:
            margin = opened.groups.get(name if base == "total" else _margin(name))
            found = percentages(
                table,
                of=base,
                noise_variance=noise,
                totals=None if margin is None else margin.guard.values,
                totals_variance=0.0 if margin is None else margin.guard.variance,
            )
            above = (found.flag == OK) & (np.nan_to_num(found.value) > 100)
            tidy.add_estimate(
                statistic,
                replace(found, flag=np.where(above, UNRELIABLE, found.flag)),
                labels=grid_labels(cells.grid.axes),
                shape=cells.values.shape,
                style=Style(1, relative=True),
                note=_base_note(table, base, margin is not None).reshape(cells.values.shape),
            )

    def question(self) -> str:
        """Return what is asked in plain words."""
        return f"how many records there are by {' and '.join(self.by)}"


def _margin(variable: str) -> str:
    return f"{variable} totals"


def _base_note(table: NDArray[np.float64], base: Base, totals: bool) -> NDArray[Any]:
    """Return for each cell what its percentage is of."""
    axis = {"row": 1, "column": 0, "total": None}[base]
    complete = ~np.isnan(table).any(axis=axis, keepdims=True)
    if totals:
        words = ("of the total and the sum of all cells, weighted by their noise", "of the total with noise")
    else:
        words = ("of the sum of all cells", "of the sum of shown cells only")
    return np.array(np.broadcast_to(np.where(complete, *words), table.shape), object)


def _add_test(tidy: Tidy, values: NDArray[np.float64], variance: float) -> None:
    """Add χ², its degrees of freedom and p, of the cells that the filters allow.

    They are suppressed together as soon as a cell is.
    """
    test = independence_test(values, noise_variance=variance)
    note = "" if test.flag == "ok" else "a test needs every cell and positive totals"
    for statistic, value, style in (
        ("chi_squared", test.statistic, Style(2)),
        ("degrees_of_freedom", test.degrees_of_freedom, Style(1)),
        ("p_value", test.p_value, Style(3, least=0.001)),
    ):
        tidy.add(statistic, value, style=style, method=test.method, flag=test.flag, note=note)
