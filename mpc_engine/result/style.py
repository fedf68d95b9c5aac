"""How pictures look: colours that the colour-blind can tell apart, sizes for paper, marks for the hidden."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import SubFigure
from matplotlib.patches import Rectangle

RESOLUTION: Final = 150
"""Dots per inch of a picture file."""
PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
"""Colours of Okabe and Ito, without yellow, which paper does not show, and with grey."""
MARKERS: Final = "osD^vPX*"
INK, FAINT, RULE, HATCH = "#1A1A1A", "#595959", "#D9D9D9", "#8C8C8C"
STYLE: Final[Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,  # a category may be called anything, with dollars too
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "figure.max_open_warning": 0,
}
"""matplotlib's parameters while a picture is made; the user's own stay as they are."""


@dataclass(frozen=True)
class Drawing:
    """A drawing of ``width`` × ``height`` inches, what paints it, lines to be printed beneath, and flags.

    ``flags`` are those that are seen in it.
    """

    width: float
    height: float
    paint: Callable[[SubFigure], None]
    notes: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()


def shorter(text: str, most: int = 24) -> str:
    """Return a label that leaves room for the data."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def hatched(axes: Axes, places: Sequence[tuple[float, float]], width: float, height: float) -> None:
    """Hatch rectangles of one size, given by their lower left corners: what is suppressed."""
    patches = [Rectangle(place, width, height) for place in places]
    held = PatchCollection(patches, facecolor="white", edgecolor=HATCH, hatch="////", linewidth=0.4)
    axes.add_collection(held, autolim=False)


def thinned(count: int, most: int) -> range:
    """Return the positions of at most so many of ``count`` labels, evenly apart."""
    return range(0, count, max(1, -(-count // most)))


def said(axes: Axes, text: str) -> None:
    """Say in the middle of empty axes why they are empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=FAINT)


def unseen(rows: pd.DataFrame) -> frozenset[str]:
    """Return the flags of rows without a value, which a drawing marks."""
    return frozenset(rows.loc[rows["value"].isna(), "flag"].astype(str))
