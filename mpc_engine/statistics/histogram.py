"""``histogram``: records by bins of an integer variable, optionally within categories of others.

Bins are half-open, ``[low, high)``, and adjacent. Values beyond the outer bins are counted in categories of
their own, ``< low`` and ``≥ high``, wherever the codebook allows such values, so no record is dropped.
Each bin is its own guard. Quartiles are read from the bins, for the known values.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mpc_engine.codebook import MAX_VALUE, Codebook, IntegerVariable, Name
from mpc_engine.documents import Field, broken, model_validator
from mpc_engine.estimators.frequencies import histogram_quantiles
from mpc_engine.release.grid import Axis
from mpc_engine.release.opened import Opened, OpenedTally
from mpc_engine.statistics.cells import add_counts
from mpc_engine.statistics.layout import AxisRule, Kind
from mpc_engine.statistics.query import Query, counted, outside, variable_axes
from mpc_engine.statistics.tidy import Style, Tidy, grid_labels
from mpc_engine.statistics.where import Problems

QUARTILES = (0.25, 0.5, 0.75)

Edge = Annotated[int, Field(ge=-MAX_VALUE, le=MAX_VALUE)]


class Histogram(Query):
    """Counts of ``variable`` in the bins between ``edges``, or in ``bins`` given as pairs."""

    headlines: ClassVar[tuple[str, ...]] = ("median", "count")

    preset: Literal["histogram"]
    variable: Name
    edges: Annotated[tuple[Edge, ...] | None, Field(min_length=2, max_length=100_001)] = None
    bins: Annotated[tuple[tuple[Edge, Edge], ...] | None, Field(min_length=1, max_length=100_000)] = None
    by: Annotated[tuple[Name, ...], Field(max_length=12)] = ()

    @model_validator(mode="after")
    def _bins_are_adjacent(self) -> Histogram:
        if (self.edges is None) == (self.bins is None):
            raise broken("", "needs either `edges` or `bins`, not both and not neither")
        for index, (before, after) in enumerate(pairwise(self.edges or ()), 1):
            if after <= before:
                raise broken(f"edges[{index}]", f"is {after}, not above the edge before it, {before}")
        for index, (low, high) in enumerate(self.bins or ()):
            if low >= high:
                raise broken(f"bins[{index}]", f"[{low}, {high}) is empty; the end must be above the start")
        for index, (one, two) in enumerate(pairwise(self.bins or ()), 1):
            pair = f"[{two[0]}, {two[1]}) and the bin before it, [{one[0]}, {one[1]}),"
            if two[0] < one[0]:
                raise broken(f"bins[{index}]", f"{pair} are not in ascending order")
            if two[0] < one[1]:
                raise broken(f"bins[{index}]", f"{pair} overlap; bins are half-open")
            if two[0] > one[1]:
                raise broken(f"bins[{index}]", f"{pair} leave a gap; add a bin [{one[1]}, {two[0]})")
        return self

    @property
    def all_edges(self) -> tuple[int, ...]:
        """Return the edges in ascending order, one more than there are bins."""
        if self.edges is not None:
            return self.edges
        bins = self.bins or ()
        return (*(low for low, _ in bins), *(high for _, high in bins[-1:]))

    def kinds(self, codebook: Codebook, problems: Problems) -> list[Kind]:
        """Return the bins within each category of ``by``, each its own guard."""
        return [counted("bins", self._axes(codebook, problems))]

    def _axes(self, codebook: Codebook, problems: Problems) -> list[tuple[Axis, AxisRule]]:
        others = variable_axes(self.by, "by", codebook, problems)
        if self.variable in self.by:
            problems.append(("by", f"repeats {self.variable!r}, the variable of the histogram"))
        variable = codebook.variables.get(self.variable)
        if not isinstance(variable, IntegerVariable):
            integers = [
                name for name, kind in codebook.variables.items() if isinstance(kind, IntegerVariable)
            ]
            allowed = ", ".join(integers) or "none in this codebook"
            problems.append(
                (
                    "variable",
                    f"{self.variable!r} is not an integer variable of the codebook; allowed: {allowed}",
                )
            )
            return others
        edges = self.all_edges
        for index, (low, high) in enumerate(pairwise(edges)):
            if high <= variable.lower or low > variable.upper:
                path = f"bins[{index}]" if self.edges is None else f"edges[{index}]"
                bounds = f"{self.variable} runs from {variable.lower} to {variable.upper}"
                problems.append((path, f"the bin [{low}, {high}) can hold nothing: {bounds}"))
        return [self._bins(variable, edges), *others]

    def finish(self, codebook: Codebook, opened: Opened) -> Tidy:
        """Return the counts of the bins, and the quartiles within each category of ``by``."""
        bins = opened.groups["bins"].guard
        allowed = self.possible(codebook, self._axes(codebook, []))
        tidy = Tidy(self.preset, (self.variable, *self.by), outside(bins.grid.axes, allowed))
        add_counts(tidy, bins)
        self._add_quartiles(tidy, codebook, bins, allowed[self.variable])
        return tidy

    def _add_quartiles(
        self, tidy: Tidy, codebook: Codebook, bins: OpenedTally, allowed: NDArray[np.bool_]
    ) -> None:
        """Add the quartiles of the known values; bins that the filters leave out hold nobody."""
        variable = codebook.variables[self.variable]
        if not isinstance(variable, IntegerVariable):
            return
        edges = list(self.all_edges)
        # Nobody is where the codebook allows no value: values are spread over the rest of an outer bin.
        if variable.lower < edges[0]:
            edges.insert(0, variable.lower)
        if variable.upper >= edges[-1]:
            edges.append(variable.upper + 1)
        edges[0], edges[-1] = max(edges[0], variable.lower), min(edges[-1], variable.upper + 1)
        axes = bins.grid.axes[1:]
        inside = allowed[: len(edges) - 1]
        known = np.where(inside[:, None], bins.values[: len(edges) - 1].reshape(len(edges) - 1, -1), 0.0)
        noise = np.where(inside, bins.variance, 0.0)
        strata = grid_labels(axes)
        shape = tuple(len(axis.categories) for axis in axes)
        found = [
            histogram_quantiles(edges, counts, QUARTILES, noise_variance=noise)
            for counts in known.T  # strata, never cells
        ]

        def of_all(part: str, position: int) -> NDArray[Any]:
            return np.array([getattr(each, part)[position] for each in found]).reshape(shape)

        for position, name in enumerate(("lower_quartile", "median", "upper_quartile")):
            tidy.add(
                name,
                of_all("value", position),
                labels=strata,
                style=Style(1),
                lower=of_all("lower", position),
                upper=of_all("upper", position),
                se_sampling=of_all("se_sampling", position),
                se_noise=of_all("se_noise", position),
                method=found[0].method,
                flag=of_all("flag", position),
                note=f"{variable.unit}, interpolated within bins",
            )

    def question(self) -> str:
        """Return what is asked in plain words."""
        within = f" within {' and '.join(self.by)}" if self.by else ""
        return f"how {self.variable} is distributed{within}"

    def _bins(self, variable: IntegerVariable, edges: tuple[int, ...]) -> tuple[Axis, AxisRule]:
        labels = [f"[{low},{high})" for low, high in pairwise(edges)]
        # The rule counts the edges at or below a value: an edge is a cut only if both of its sides exist.
        cuts = list(edges[1:-1])
        if variable.lower < edges[0]:
            labels.insert(0, f"< {edges[0]}")
            cuts.insert(0, edges[0])
        if variable.upper >= edges[-1]:
            labels.append(f"≥ {edges[-1]}")
            cuts.append(edges[-1])
        unknown = None
        if variable.unknown is not None:
            unknown = len(labels)
            labels.append(variable.unknown)
        if not cuts:  # one bin holds every value there can be: put a cut where no value reaches
            cuts.append(variable.upper + 1)
        return Axis(self.variable, tuple(labels)), AxisRule(self.variable, cuts=tuple(cuts), unknown=unknown)
