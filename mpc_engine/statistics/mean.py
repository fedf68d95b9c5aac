"""``mean``: the mean of an integer variable within categories of others, and its spread if asked for.

Each stratum is a group. Its guard is the number of records with a known value; its members are the sum of
the values and, with ``variance``, of their squares. Values are clipped to the codebook's bounds, or to
narrower ones of the query, and taken from the middle of the bounds: then one record changes the sum by at
most half the range, and the squares by at most the square of that. All of it is whole numbers in the
codebook's unit.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np

from mpc_engine.codebook import MAX_VALUE, Codebook, IntegerVariable, Name
from mpc_engine.documents import Field, broken, model_validator
from mpc_engine.estimators.intervals import normal_quantile
from mpc_engine.estimators.means import moments
from mpc_engine.release.grid import Grid
from mpc_engine.release.groups import Groups, Tally
from mpc_engine.release.opened import Floats, Opened
from mpc_engine.statistics.cells import add_counts
from mpc_engine.statistics.layout import Amount, Kind, Layout, Recipe, Selection
from mpc_engine.statistics.query import Picture, Query, outside, variable_axes
from mpc_engine.statistics.tidy import NOT_AVAILABLE, OK, UNRELIABLE, Style, Tidy, grid_labels
from mpc_engine.statistics.where import Problems, known

N_WEIGHT, SUM_WEIGHT, SQUARES_WEIGHT = 1, 2, 1
"""Shares of ε: a quarter for the number, a half for the sum and a quarter for the squares, if asked for.
The best split depends on how far the mean lies from the middle of the bounds; this one is within 2 % of the
best standard error up to a quarter of the range from it."""

LARGEST_REACH = 0.25
"""Half-width of the noise's interval, in ranges of the values, above which a mean is marked unreliable."""
TOO_FEW = "too few for the noise"
"""Noted where a standard deviation is not available because its noise is larger."""

Limit = Annotated[int, Field(ge=-MAX_VALUE, le=MAX_VALUE)]


class Mean(Query):
    """Mean of ``variable`` by strata; ``clip`` narrows its bounds, ``variance`` adds the spread."""

    picture: ClassVar[Picture] = "points"
    headlines: ClassVar[tuple[str, ...]] = ("mean",)

    preset: Literal["mean"]
    variable: Name
    by: Annotated[tuple[Name, ...], Field(max_length=12)] = ()
    clip: tuple[Limit, Limit] | None = None
    variance: bool = True

    @model_validator(mode="after")
    def _clip_ascends(self) -> Mean:
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise broken("clip", f"must ascend; {self.clip[0]} is not below {self.clip[1]}")
        return self

    def kinds(self, codebook: Codebook, problems: Problems) -> list[Kind]:
        """Return the strata: the number of known values, their sum, and their squares if asked for."""
        axes = variable_axes(self.by, "by", codebook, problems)
        bounds = self._bounds(codebook, problems)
        if bounds is None:
            return []
        low, high = bounds
        centre = (low + high) // 2
        step = max(high - centre, centre - low, 1)
        grid, rules = Grid(tuple(axis for axis, _ in axes)), tuple(rule for _, rule in axes)
        members = [Tally("sum", grid, SUM_WEIGHT, step, signed=True)]
        recipes = [Recipe(rules), Recipe(rules, Amount(self.variable, low, high, centre))]
        if self.variance:
            members.append(Tally("squares", grid, SQUARES_WEIGHT, step * step))
            recipes.append(Recipe(rules, Amount(self.variable, low, high, centre, squared=True)))
        groups = Groups("strata", Tally("number", grid, N_WEIGHT), tuple(members))
        return [Kind(groups, tuple(recipes))]

    def selections(self, codebook: Codebook, problems: Problems) -> tuple[Selection, ...]:
        """Return the filters, and that the value is known."""
        filters = super().selections(codebook, problems)
        bounds = codebook.bounds(self.variable) if self.variable in codebook.variables else None
        return filters if bounds is None else (*filters, Selection(self.variable, (bounds,)))

    def _bounds(self, codebook: Codebook, problems: Problems) -> tuple[int, int] | None:
        """Return the bounds to which values are clipped; a fault if there are none."""
        if not known(self.variable, "variable", codebook, problems):
            return None
        variable = codebook.variables[self.variable]
        if not isinstance(variable, IntegerVariable):
            problems.append(("variable", f"{self.variable!r} is not an integer variable; it has no mean"))
            return None
        low, high = self.clip or (variable.lower, variable.upper)
        if low < variable.lower or high > variable.upper:
            problems.append(
                (
                    "clip",
                    f"reaches beyond {self.variable}, which runs from {variable.lower} to {variable.upper}",
                )
            )
        if low >= high:
            problems.append(("variable", f"{self.variable} has a single value, {low}, by the codebook"))
        return low, high

    def finish(self, codebook: Codebook, opened: Opened) -> Tidy:
        """Return the number of values and the mean of each stratum, and standard deviations if asked for."""
        axes = variable_axes(self.by, "by", codebook, [])
        allowed = self.possible(codebook, axes)
        tidy = Tidy(self.preset, self.by, outside([axis for axis, _ in axes], allowed))
        strata = opened.groups["strata"]
        variable = codebook.variables[self.variable]
        bounds = self._bounds(codebook, [])
        if bounds is None or not isinstance(variable, IntegerVariable):
            return tidy
        low, high = bounds
        n, total, squares = strata.guard, strata.members["sum"], strata.members.get("squares")
        found = moments(
            n.values,
            total.values,
            bounds=(low, high),
            squares=None if squares is None else squares.values,
            centre=(low + high) // 2,
            n_variance=n.variance,
            total_variance=total.variance,
            squares_variance=0.0 if squares is None else squares.variance,
        )
        labels = grid_labels(n.grid.axes)
        add_counts(tidy, n, "number")
        mean = found.mean
        value, reach = np.nan_to_num(mean.value), normal_quantile(0.95) * np.nan_to_num(mean.se_noise)
        beyond = (value < low) | (value > high)
        doubtful = (mean.flag == OK) & (beyond | (reach > LARGEST_REACH * (high - low)))
        tidy.add(
            "mean",
            mean.value,
            labels=labels,
            style=Style(2),
            n=n.values,
            lower=mean.lower,
            upper=mean.upper,
            se_sampling=mean.se_sampling,
            se_noise=mean.se_noise,
            method=found.methods,
            flag=np.where(doubtful, UNRELIABLE, mean.flag),
            note=variable.unit,
        )
        if squares is not None:
            drowned = found.bound & (mean.flag == OK)
            tidy.add(
                "standard_deviation",
                found.sd,
                labels=labels,
                style=Style(2),
                n=n.values,
                se_noise=_halved(found.variance_se_noise, found.sd),
                flag=np.where(drowned, NOT_AVAILABLE, mean.flag),
                note=np.where(drowned, TOO_FEW, variable.unit),
            )
        return tidy

    def typical(self, codebook: Codebook, layout: Layout, cases: int) -> list[Floats]:
        """Return an even cohort whose values lie at a quarter of the range, spread over half of it."""
        low, high = self._bounds(codebook, []) or (0, 0)
        cells = layout.groups[0].guard.grid.cells
        n = cases / cells
        middle, spread = -(high - low) / 4, (high - low) / 6
        rows = [np.full(cells, n), np.full(cells, round(n * middle))]
        if self.variance:
            rows.append(np.full(cells, round(n * (middle**2 + spread**2))))
        return rows

    def question(self) -> str:
        """Return what is asked in plain words."""
        within = f" by {' and '.join(self.by)}" if self.by else ""
        return f"what the mean of {self.variable} is{within}"


def _halved(variance_se: Floats, sd: Floats) -> Floats:
    """Return the standard error of a standard deviation from that of its square; NaN where it is 0."""
    return np.asarray(variance_se / (2 * np.where(sd > 0, sd, np.nan)), dtype=np.float64)
