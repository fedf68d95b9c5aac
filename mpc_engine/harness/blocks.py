"""What a report is made of: plain blocks, which become HTML, JSON and, on paper, pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Cell = str | int | float | bool | None
Chapter = Literal["utility", "privacy", "robustness", "cost"]


@dataclass(frozen=True)
class Text:
    """A paragraph; `kind` ``note`` is smaller, ``warning`` stands out."""

    text: str
    kind: Literal["plain", "note", "warning"] = "plain"


@dataclass(frozen=True)
class Table:
    """A table; `digits` tells by column how its numbers are written (default: 4 significant digits)."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    digits: dict[str, str] = field(default_factory=dict)
    """Format specifications, such as ``.1f`` or ``,d``, by column."""


@dataclass(frozen=True)
class Figure:
    """A picture as SVG text, with what it shows for those who cannot see it."""

    caption: str
    svg: str = field(repr=False)
    alt: str = ""


Block = Text | Table | Figure
