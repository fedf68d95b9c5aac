"""``count``: how many patients' records satisfy the filters. One cell."""

from __future__ import annotations

from typing import Literal

from mpc_engine.codebook import Codebook
from mpc_engine.release.grid import Axis
from mpc_engine.statistics.layout import AxisRule
from mpc_engine.statistics.query import Problems, Query


class Count(Query):
    """The number of records that satisfy the filters, capped per patient."""

    preset: Literal["count"]

    def axes(self, codebook: Codebook, problems: Problems) -> list[tuple[Axis, AxisRule]]:
        """Return no axis: the grid is one cell."""
        return []
