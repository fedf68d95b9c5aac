"""Histograms: bars to scale along an integer variable, and open bins and the unknown set apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from mpc_engine.codebook import Codebook
from mpc_engine.result.charts import MOST_PANELS
from mpc_engine.result.layouts import strata
from mpc_engine.result.style import (
    FAINT,
    INK,
    PALETTE,
    Drawing,
    hatched,
    said,
    shorter,
    thinned,
    unseen,
)
from mpc_engine.result.vocabulary import axis_title
from mpc_engine.statistics.tidy import SUPPRESSED
from mpc_engine.statistics.wording import unit_of

COLUMNS: Final = 3
MOST_MARKED: Final = 40
"""Bins up to which hidden ones have their mark in letters."""


@dataclass(frozen=True)
class Bin:
    """One bar: its category, from where to where it is drawn, and whether it is one with both ends."""

    label: str
    start: float
    end: float
    closed: bool


def histogram(
    table: pd.DataFrame, variables: Sequence[str], edges: Sequence[int], codebook: Codebook
) -> Drawing:
    """Return a histogram for each stratum of all variables but the first, whose bins lie between ``edges``.

    Where bins are of one width bars show records, and else records per unit, so that areas can be compared.
    """
    rows = table[(table["statistic"].astype(str) == "count") & table["time"].isna()]
    name = variables[0]
    bins = _bins(
        list(dict.fromkeys(rows[name].astype(str))), edges, codebook.bounds(name) or (edges[0], edges[-1])
    )
    closed = {each.end - each.start for each in bins if each.closed}
    density = len(closed) > 1
    unit = unit_of(codebook, name) or "unit"
    panels = dict(list(rows.groupby(strata(rows, variables[1:]), sort=False)))
    drawn = dict(list(panels.items())[:MOST_PANELS])
    notes = [] if len(drawn) == len(panels) else [f"the first {len(drawn)} of {len(panels)} panels"]
    if any(not each.closed for each in bins):
        notes.insert(0, "light: without bounds, drawn as wide as the bin beside")
    columns = min(len(drawn), COLUMNS if len(drawn) > 2 else len(drawn))
    lines = -(-len(drawn) // columns)
    single = columns == 1

    def paint(body: SubFigure) -> None:
        grid = body.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        flat = [axes for line in grid for axes in line]
        widths = {each.label: each.end - each.start if density else 1.0 for each in bins}
        scaled = rows["ucl"] / rows[name].astype(str).map(widths).astype(np.float64)
        top = float(np.nanmax([scaled.max() if scaled.notna().any() else 1.0, 1e-9]))
        for axes, (title, each) in zip(flat, drawn.items(), strict=False):
            _bars(axes, each, name, bins, widths, top, 12 if single else 6)
            if len(drawn) > 1:
                axes.set_title(shorter(str(title), 34), loc="left")
        for axes in flat[len(drawn) :]:
            axes.set_visible(False)
        for line in grid:
            line[0].set_ylabel(f"Records per {unit.removesuffix('s')}" if density else "Records")
        for axes in flat[max(0, len(drawn) - columns) : len(drawn)]:
            axes.set_xlabel(axis_title(codebook, name))
            axes.tick_params(labelbottom=True)

    height = lines * (3.6 if single else 2.2) + 0.3
    return Drawing(7.2, height, paint, tuple(notes), unseen(pd.concat(drawn.values())))


def _bins(labels: Sequence[str], edges: Sequence[int], bounds: tuple[int, int]) -> list[Bin]:
    """Return where each category is drawn: bins between edges, open ones beside them, the unknown apart.

    An outer bin that the codebook's ``bounds`` make no wider than the one beside it is to scale.
    """
    middle = {f"[{low},{high})": (low, high) for low, high in pairwise(edges)}
    first, last = edges[1] - edges[0], edges[-1] - edges[-2]
    found, end = [], float(edges[-1])
    for label in labels:
        if label in middle:
            low, high = middle[label]
            found.append(Bin(label, float(low), float(high), True))
        elif label == f"< {edges[0]}":
            least = max(edges[0] - first, bounds[0])
            found.append(Bin(label, float(least), float(edges[0]), least == bounds[0]))
        elif label == f"≥ {edges[-1]}":
            end = float(min(edges[-1] + last, bounds[1] + 1))
            found.append(Bin(label, float(edges[-1]), end, end == bounds[1] + 1))
        else:
            found.append(Bin(label, end + last / 2, end + 1.5 * last, False))
            end += 1.5 * last
    return found


def _bars(
    axes: Axes,
    rows: pd.DataFrame,
    name: str,
    bins: Sequence[Bin],
    widths: dict[str, float],
    top: float,
    most: int,
) -> None:
    by_label = rows.assign(label=rows[name].astype(str)).set_index("label")
    held = by_label.loc[[each.label for each in bins]]
    per = np.array([widths[each.label] for each in bins])
    height, lower, upper = (held[column].to_numpy() / per for column in ("value", "lcl", "ucl"))
    height = np.where(np.isnan(height), np.nan, np.clip(height, 0, None))
    starts, ends = np.array([each.start for each in bins]), np.array([each.end for each in bins])
    closed, shown = np.array([each.closed for each in bins]), ~np.isnan(height)
    style: Any = {"align": "edge", "color": PALETTE[0], "edgecolor": "white", "linewidth": 0.6}
    for part, alpha in ((shown & closed, 0.85), (shown & ~closed, 0.4)):
        axes.bar(starts[part], height[part], width=(ends - starts)[part], alpha=alpha, **style)
    reach = np.clip([(height - lower)[shown], (upper - height)[shown]], 0, None)
    middle = (starts + ends) / 2
    cap = 2.5 if len(bins) <= MOST_MARKED else 0.0
    axes.errorbar(
        middle[shown], height[shown], yerr=reach, fmt="none", ecolor=INK, elinewidth=0.9, capsize=cap
    )
    for place in np.flatnonzero(~shown):
        hatched(axes, [(starts[place], 0.0)], float(ends[place] - starts[place]), top * 0.045)
        if len(bins) <= MOST_MARKED:
            text = str(held["display"].iloc[place])
            axes.text(middle[place], top * 0.06, text, ha="center", va="bottom", size=7.5, color=FAINT)
    if not shown.any() and len(bins) > 1:
        said(axes, f"[{SUPPRESSED}]  every bin is suppressed")
    axes.tick_params(labelleft=bool(shown.any()))
    _ticks(axes, bins, most)
    room = 0.02 * (ends.max() - starts.min())
    axes.set_xlim(starts.min() - room, ends.max() + room)
    axes.set_ylim(0, top * 1.06)
    axes.grid(axis="y")


def _ticks(axes: Axes, bins: Sequence[Bin], most: int) -> None:
    """Print the edges of bins, and in the middle of an open one, or of the unknown, what it holds."""
    edges = sorted({edge for each in bins if each.closed for edge in (each.start, each.end)})
    chosen = [edges[place] for place in thinned(len(edges), most)]
    places, texts = [], []
    for each in bins:
        if not each.closed:
            places.append((each.start + each.end) / 2)
            texts.append(f"\n{shorter(each.label, 10)}")  # a line lower than the edges beside it
    axes.set_xticks([*chosen, *places], [*(f"{edge:g}" for edge in chosen), *texts])
    for tick, text in zip(axes.get_xticklabels(), [*[""] * len(chosen), *texts], strict=True):
        if text:
            tick.set_color(FAINT)
    axes.tick_params(axis="x", labelsize=8)
