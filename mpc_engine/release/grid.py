"""The grid of cells that a release fills: named axes with ordered categories, row-major.

A grid comes from the codebook and the query alone, never from data, so that which cells exist
tells nothing about any record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod


@dataclass(frozen=True)
class Axis:
    """One variable of a grid and its categories in codebook order, unknown last where declared."""

    variable: str
    categories: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """All combinations of the axes' categories; the last axis varies fastest. No axes: one cell."""

    axes: tuple[Axis, ...]

    @property
    def cells(self) -> int:
        """Number of cells."""
        return prod(len(axis.categories) for axis in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of categories of each axis."""
        return tuple(len(axis.categories) for axis in self.axes)

    def labels(self) -> Iterator[dict[str, str]]:
        """Yield each cell's category by variable, in the order of the cells."""
        names = [axis.variable for axis in self.axes]
        for combination in product(*(axis.categories for axis in self.axes)):
            yield dict(zip(names, combination, strict=True))

    def as_fields(self) -> list[dict[str, object]]:
        """Return the grid as plain fields, for digests and for the release document."""
        return [{"variable": a.variable, "categories": list(a.categories)} for a in self.axes]
