"""Trends: rates, ratios or means against a variable in order, such as the calendar year, with bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from mpc_engine.codebook import Codebook
from mpc_engine.result.layouts import strata
from mpc_engine.result.numerals import scales
from mpc_engine.result.style import (
    FAINT,
    MARKERS,
    PALETTE,
    Drawing,
    said,
    shorter,
    thinned,
    unseen,
)
from mpc_engine.result.vocabulary import axis_title, methods, ordered_places, words
from mpc_engine.statistics.tidy import ALL, NOT_APPLICABLE, SUPPRESSED

LEAST: Final = 7
"""Categories from which a variable in order makes a trend; fewer are points beneath each other."""
MOST_LINES: Final = 8
MOST_BANDS: Final = 4
"""Lines up to which intervals are drawn."""
COUNTED: Final = "rate"
"""How statistics end that cannot be below 0 and whose axis begins there."""


def along(table: pd.DataFrame, by: Sequence[str], headlines: Sequence[str], codebook: Codebook) -> str | None:
    """Return the one variable in order along which the headlines make a trend; None if there is none."""
    found = [name for name in by if len(ordered_places(codebook, name) or ()) >= LEAST]
    if len(found) != 1 or not _rows(table, by, headlines, found[0])["value"].notna().any():
        return None
    return found[0] if len(_lines(table, by, headlines, found[0])) <= MOST_LINES else None


def trend(
    table: pd.DataFrame, by: Sequence[str], headlines: Sequence[str], variable: str, codebook: Codebook
) -> Drawing:
    """Return lines of the headlines against ``variable``, one for each statistic, standard and stratum.

    ``variable`` is one that `along` returned.
    """
    rows = _rows(table, by, headlines, variable)
    lines = _lines(table, by, headlines, variable)
    labels = list(dict.fromkeys(ordered_places(codebook, variable) or ()))
    left = [label for label in labels if (rows[variable].astype(str) == label).any()]
    place = {label: number for number, label in enumerate(left)}
    factors = {name: each.factor for name, each in scales(rows).items()}
    units = list(dict.fromkeys(text.split("; ")[0] for text in rows["note"].astype(str) if text))
    unit = units[0] if len(units) == 1 and len(units[0]) < 50 else ""
    names = list(dict.fromkeys(rows["statistic"].astype(str)))
    notes = [*(f"{words(name)}: {how}" for name in names if (how := _how(rows, name)))]
    notes.append(
        "bands: 95 % intervals with the noise" if len(lines) <= MOST_BANDS else "intervals: in the tables"
    )

    def paint(body: SubFigure) -> None:
        axes = body.subplots()
        for number, (label, each) in enumerate(lines.items()):
            factor = factors[str(each["statistic"].iloc[0])]
            _line(axes, label, each, variable, place, factor, number, len(lines) <= MOST_BANDS)
        ticks = thinned(len(left), 12)
        axes.set_xticks(list(ticks), [shorter(left[tick], 12) for tick in ticks])
        axes.set_xlim(-0.4, len(left) - 0.6)
        axes.set_xlabel(axis_title(codebook, variable))
        what = words(names[0]) if len(names) == 1 else "Rate" if names[0].endswith(COUNTED) else ""
        axes.set_ylabel(f"{what}{', ' if what and unit else ''}{unit}")
        if all(name.endswith(COUNTED) for name in names):
            axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        if rows["value"].isna().all():
            said(axes, f"[{SUPPRESSED}]  every stratum is suppressed")
        if len(lines) > 1:
            body.legend(loc="outside right upper", fontsize=8.5)

    return Drawing(8.2 if len(lines) > 1 else 7.2, 3.7, paint, tuple(notes), unseen(rows))


def _how(rows: pd.DataFrame, name: str) -> str:
    return methods(rows[rows["statistic"].astype(str) == name])


def _rows(table: pd.DataFrame, by: Sequence[str], headlines: Sequence[str], variable: str) -> pd.DataFrame:
    """Return the headlines' rows of the strata of all of ``by``, over the whole of every other variable.

    What lies outside the filters, and the unknown, have no place along the axis.
    """
    kept = table["statistic"].astype(str).isin(headlines) & table["time"].isna()
    kept &= table["flag"].astype(str) != NOT_APPLICABLE
    for name in table.columns[1 : list(table.columns).index("statistic")]:
        whole = table[name].astype(str) == ALL
        kept &= ~whole if name in by else whole
    return table[kept]


def _lines(
    table: pd.DataFrame, by: Sequence[str], headlines: Sequence[str], variable: str
) -> dict[str, pd.DataFrame]:
    """Return the rows of each line by its label; with further variables, of the first statistic alone."""
    rows = _rows(table, by, headlines, variable)
    names = rows["statistic"].astype(str)
    others = [name for name in by if name != variable]
    order = {name: number for number, name in enumerate(headlines)}
    if others and len(rows):
        first = min(names.unique(), key=lambda name: order[name])
        rows = rows[(names == first) & (rows["standard"] == rows["standard"][names == first].iloc[0])]
        labels = strata(rows.assign(standard=""), others)
    else:
        text = rows["statistic"].astype(str).map(words)
        standard = rows["standard"].astype(str)
        labels = text + standard.map(lambda each: f", {each}" if each else "")
    found = {str(label): each for label, each in rows.groupby(labels, sort=False)}
    return dict(sorted(found.items(), key=lambda item: order[str(item[1]["statistic"].iloc[0])]))


def _line(
    axes: Axes,
    label: str,
    rows: pd.DataFrame,
    variable: str,
    place: dict[str, int],
    factor: float,
    number: int,
    band: bool,
) -> None:
    """Draw one line; where a value is hidden there is a gap, with its mark on the axis."""
    rows = rows[rows[variable].astype(str).isin(place)]
    where = rows[variable].astype(str).map(place).to_numpy(np.float64)
    value, lower, upper = (rows[name].to_numpy() * factor for name in ("value", "lcl", "ucl"))
    colour, mark = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
    axes.plot(where, value, color=colour, marker=mark, markersize=4, linewidth=1.4, label=shorter(label, 32))
    if band:
        axes.fill_between(where, lower, upper, color=colour, alpha=0.14, linewidth=0)
    for at, text in zip(where[np.isnan(value)], rows["display"][np.isnan(value)], strict=True):
        if number == 0:
            axes.text(
                at,
                0.02,
                text,
                transform=axes.get_xaxis_transform(),
                ha="center",
                size=7.5,
                color=FAINT,
            )
