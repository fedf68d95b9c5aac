"""``crosstab``: records by every combination of the categories of one or more variables."""

from __future__ import annotations

from typing import Annotated, Literal

from mpc_engine.codebook import Codebook, Name
from mpc_engine.documents import Field
from mpc_engine.release.grid import Axis
from mpc_engine.statistics.layout import AxisRule
from mpc_engine.statistics.query import Problems, Query, variable_axes


class Crosstab(Query):
    """Counts in the full grid of ``by``; a filter never removes a row or column of the grid."""

    preset: Literal["crosstab"]
    by: Annotated[tuple[Name, ...], Field(min_length=1, max_length=12)]

    def axes(self, codebook: Codebook, problems: Problems) -> list[tuple[Axis, AxisRule]]:
        """Return one axis for each variable of ``by``, in that order."""
        return variable_axes(self.by, "by", codebook, problems)
