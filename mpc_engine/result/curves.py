"""Survival curves: steps with bands, dashed where too few are at risk, and numbers at risk beneath."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.transforms import offset_copy
from numpy.typing import NDArray

from mpc_engine.result.layouts import curve_statistic, strata
from mpc_engine.result.numerals import whole
from mpc_engine.result.style import FAINT, INK, MARKERS, PALETTE, Drawing, said, shorter
from mpc_engine.result.vocabulary import methods, words
from mpc_engine.statistics.followup import SUMMARY_YEARS
from mpc_engine.statistics.tidy import ALL, SUPPRESSED, TRUNCATED

MOST_CURVES: Final = 8
"""Curves in one panel; more are drawn as small multiples."""
MOST_PANELS: Final = 24
MOST_BANDS: Final = 4
"""Bands in one panel: more would hide each other, and bars at a few years stand instead."""
COLUMNS: Final = 3
LEAVING: Final = ("events", "censored")
"""Statistics of who is no longer at risk after an interval."""
_LETTER: Final = 0.075
"""Width of a letter of a number at risk with the room it needs, in inches."""
WIDEST_STEP: Final = 31 / 365.25
"""Width of the widest interval, in years, up to which a curve is drawn in steps. Where intervals are wider,
it would stay too high within them: its points are joined by straight lines, as life tables are."""
APART: Final = 2.4
"""Points between the bars of two curves at the same time."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One stratum: ``times`` from 0; survival, limits, flags and numbers at risk, as displayed, at each."""

    label: str
    panel: str
    times: Floats
    values: Floats
    lower: Floats
    upper: Floats
    flags: tuple[str, ...]
    at_risk: tuple[str, ...]

    @property
    def stepped(self) -> bool:
        """Whether the grid is so fine that the curve is drawn in steps."""
        return bool(np.diff(self.times).max() <= WIDEST_STEP)

    @property
    def shown(self) -> int:
        """How many of its points are shown, from time 0 on."""
        missing = np.isnan(self.values)
        return int(np.argmax(missing)) if missing.any() else len(self.values)

    @property
    def reliable(self) -> int:
        """How many of the shown points are reliable."""
        return next((i for i in range(self.shown) if self.flags[i] == TRUNCATED), self.shown)

    @property
    def hidden(self) -> bool:
        """Whether nothing of it is shown."""
        return bool(np.isnan(self.values[1:]).all())


def plan(
    table: pd.DataFrame, variables: Sequence[str], headlines: Sequence[str], titles: Sequence[str] = ()
) -> Drawing:
    """Return the drawing of the curves; ``titles`` are those of the variables that tell them apart.

    Raises DocumentError for a release without survival.
    """
    statistic = curve_statistic(table, headlines)
    found = _curves(table, variables, statistic)
    panels = {name: list(each) for name, each in groupby(found, key=lambda curve: curve.panel)}
    drawn = dict(list(panels.items())[:MOST_PANELS])
    named = table["statistic"].astype(str) == statistic
    how = methods(table[named & table["time"].notna()])
    notes = [how] if how else []
    if not found[0].stepped:
        notes.append("joined by straight lines")
    if any(TRUNCATED in curve.flags[: curve.shown] for curve in found):
        notes.append("dashed: too few at risk to be reliable")
    if any(sum(not curve.hidden for curve in each) > MOST_BANDS for each in drawn.values()):
        bars = "bars: 95 % intervals at a few years"
        notes.append(bars if len(drawn) == 1 else "intervals: in the tables")
    else:
        notes.append("bands: 95 % intervals")
    if (table.loc[table["statistic"].astype(str) == "at_risk", "se_noise"] > 0).any():
        notes.append("numbers at risk carry noise of their own, so the first may differ from n in the tables")
    if len(drawn) < len(panels):
        notes.append(f"the first {len(drawn)} of {len(panels)} panels")
    hidden = any(curve.flags[1:].count(SUPPRESSED) for each in drawn.values() for curve in each)
    flags = frozenset((SUPPRESSED,)) if hidden else frozenset()
    columns = 2 if len(drawn) == 4 else min(len(drawn), COLUMNS)
    rows = -(-len(drawn) // columns)
    most = max(map(len, drawn.values()))
    table_height = 0.17 * (most + 1)
    height = rows * ((3.6 if columns == 1 else 1.9) + table_height) + 0.3

    title = " · ".join(titles[-1:] if len(panels) > 1 else titles)

    def paint(body: SubFigure) -> None:
        _paint(body, drawn, columns, statistic, table_height, title)

    return Drawing(7.2 if columns < COLUMNS else 8.2, height, paint, tuple(notes), flags)


def _curves(table: pd.DataFrame, variables: Sequence[str], statistic: str) -> list[Curve]:
    """Return the strata's curves in the order of the table; that of all together only where it is alone."""
    names = table["statistic"].astype(str)
    rows = table[table["time"].notna() & names.isin((statistic, "at_risk", *LEAVING))]
    together = pd.Series(True, index=rows.index)
    for name in variables:
        together &= rows[name].astype(str) == ALL
    rows = rows if together.all() else rows[~together]
    # Where only some strata have numbers at risk, the others are parts of them and stay in the tables.
    counted = strata(rows[rows["statistic"].astype(str) == "at_risk"], variables)
    if len(counted):
        rows = rows[strata(rows, variables).isin(counted)]
    labels, short = strata(rows, variables), strata(rows, variables[-1:])
    several = labels.nunique() > MOST_CURVES
    fits = len(variables) > 1 and short.nunique() <= MOST_CURVES
    leading = strata(rows, variables[:-1]) if fits else labels
    curves = []
    for label, each in rows.groupby(labels, sort=False):
        curve = each[each["statistic"].astype(str) == statistic].drop_duplicates("time")
        first = each.index[0]
        curves.append(
            Curve(
                str(short[first] if several and fits else label),
                str(leading[first]) if several else "",
                np.concatenate([[0.0], curve["time"]]),
                np.concatenate([[1.0], curve["value"]]) * 100,
                np.concatenate([[1.0], curve["lcl"]]) * 100,
                np.concatenate([[1.0], curve["ucl"]]) * 100,
                ("ok", *curve["flag"].astype(str)),
                _at_risk(each),
            )
        )
    return sorted(curves, key=lambda curve: list(dict.fromkeys(c.panel for c in curves)).index(curve.panel))


def _at_risk(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return how many are at risk when each interval of a stratum begins, and how many when the last ends."""
    found = {
        name: rows[rows["statistic"].astype(str) == name].drop_duplicates("time")
        for name in ("at_risk", *LEAVING)
    }
    risk = found["at_risk"]
    texts = [text.partition(".")[0] for text in risk["display"]]
    if not all(map(len, found.values())):
        return tuple(texts)
    left = float(risk["value"].iloc[-1]) - sum(float(found[name]["value"].iloc[-1]) for name in LEAVING)
    return (*texts, texts[-1] if np.isnan(left) else whole(left))


def _paint(
    body: SubFigure,
    panels: dict[str, list[Curve]],
    columns: int,
    statistic: str,
    table_height: float,
    title: str,
) -> None:
    rows = -(-len(panels) // columns)
    plot_height = 3.6 if columns == 1 else 1.9
    grid = body.add_gridspec(2 * rows, columns, height_ratios=[plot_height, table_height] * rows)
    labels = list(dict.fromkeys(curve.label for curves in panels.values() for curve in curves))
    shared = len(panels) > 1
    colours = {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(labels)}
    marks = {label: MARKERS[i % len(MARKERS)] for i, label in enumerate(labels)}
    if shared and all(len(curves) == 1 for curves in panels.values()):
        colours, marks = dict.fromkeys(labels, PALETTE[0]), dict.fromkeys(labels, "")
    highest = max(float(np.nanmax(curve.upper)) for curves in panels.values() for curve in curves)
    most = {1: 11, 2: 6}.get(columns, 5)
    crowd = max(sum(not curve.hidden for curve in curves) for curves in panels.values())
    for number, (name, curves) in enumerate(panels.items()):
        row, column = divmod(number, columns)
        axes = body.add_subplot(grid[2 * row, column])
        beneath = body.add_subplot(grid[2 * row + 1, column], sharex=axes)
        visible = [curve for curve in curves if not curve.hidden]
        for position, curve in enumerate(visible):
            colour = colours[curve.label]
            _draw(axes, curve, colour, marks[curve.label])
            if crowd <= MOST_BANDS:
                _band(axes, curve, colour)
            elif not shared:
                _bars(axes, curve, colour, position - (len(visible) - 1) / 2)
        axes.set_ylim(0, float(np.clip(highest * 1.02, 103.0, 130.0)))
        axes.grid(axis="y")
        axes.tick_params(labelleft=column == 0)
        if column == 0:
            axes.set_ylabel(f"{words(statistic)}, %")
        if shared:
            axes.set_title(shorter(name, 34), loc="left")
        if all(curve.hidden for curve in curves):
            said(axes, f"[{SUPPRESSED}]" if shared else f"[{SUPPRESSED}]  every stratum is suppressed")
        last = row == rows - 1 or number + columns >= len(panels)
        alone = shared and all(len(each) == 1 for each in panels.values())
        _numbers_at_risk(axes, beneath, curves, colours, most, named=column == 0, alone=alone, last=last)
    if len(labels) > 1 and any(len(curves) > 1 for curves in panels.values()):
        _legend(body, panels, colours, marks, title)


def _draw(axes: Axes, curve: Curve, colour: str, mark: str) -> None:
    """Draw one curve: solid while reliable, dashed beyond, nothing where it is not shown."""
    shown = curve.shown
    if shown < 2:
        return
    solid = curve.reliable
    times, values = curve.times[:shown], curve.values[:shown]
    # The curve is known at the edges of the grid only. In steps it stays until the next one, and falls there.
    style: Any = {"color": colour, "drawstyle": "steps-post" if curve.stepped else "default"}
    axes.plot(times[:solid], values[:solid], linewidth=1.6, label="solid", **style)
    if solid < shown:
        from_here = slice(solid - 1, shown)
        axes.plot(times[from_here], values[from_here], linewidth=1.3, dashes=(3, 2), label="dashed", **style)
    axes.plot(times[shown - 1], values[shown - 1], marker=mark or "o", color=colour, markersize=4)


def _band(axes: Axes, curve: Curve, colour: str) -> None:
    """Draw the interval as a band, fainter where the curve is not reliable."""
    solid = curve.reliable
    for part, alpha in ((slice(0, solid), 0.14), (slice(max(solid - 1, 0), curve.shown), 0.05)):
        times, lower, upper = curve.times[part], curve.lower[part], curve.upper[part]
        step: Any = "post" if curve.stepped else None
        axes.fill_between(times, lower, upper, step=step, color=colour, alpha=alpha, linewidth=0)


def _bars(axes: Axes, curve: Curve, colour: str, offset: float) -> None:
    """Draw the interval as bars at the years of the summary, beside those of the other curves."""
    figure: Any = axes.figure
    beside = offset_copy(axes.transData, figure, x=offset * APART, units="points")
    for year in SUMMARY_YEARS:
        place = int(np.argmin(np.abs(curve.times - year)))
        if place < curve.shown and np.isclose(curve.times[place], year):
            limits = [curve.lower[place], curve.upper[place]]
            axes.plot([year] * 2, limits, color=colour, linewidth=1.0, alpha=0.8, transform=beside)


def _numbers_at_risk(
    axes: Axes,
    beneath: Axes,
    curves: Sequence[Curve],
    colours: dict[str, str],
    most: int,
    *,
    named: bool,
    alone: bool,
    last: bool,
) -> None:
    """Print how many are at risk from each tick on; the number is that of the interval that begins there,
    and at the end of the grid that of those who are observed beyond it.

    They are ``named`` in the first column, unless each panel has one curve ``alone``.
    """
    times = curves[0].times
    ticks = _ticks(times, most)
    # Bars beside the last time and its marker are within the axes.
    axes.set_xlim(0, times[-1] * (1.015 if len(curves) <= MOST_BANDS else 1.04))
    axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    if last:
        beneath.set_xlabel("Years of follow-up")
    beneath.set_ylim(len(curves) - 0.4, -1.2)
    longest = max((len(text) for curve in curves for text in curve.at_risk), default=1)
    # Ticks of small panels may stand closer than numbers have room.
    room = times[-1] * longest * _LETTER / {11: 5.0, 6: 3.0}.get(most, 2.0)
    printed = [
        tick
        for at, tick in enumerate(ticks)
        if not any(tick - one < room for one in ticks[max(0, at - 1) : at])
    ]
    for row, curve in enumerate(curves):
        for tick in printed:
            place = int(np.argmin(np.abs(times - tick)))
            if place < len(curve.at_risk):
                text = curve.at_risk[place]
                reliable = curve.flags[min(place + 1, len(curve.flags) - 1)] != TRUNCATED
                beneath.text(
                    tick, row, text, ha="center", va="center", size=7.5, color=INK if reliable else FAINT
                )
    beneath.tick_params(axis="both", length=0, labelbottom=False, labelsize=7.5)
    # The first numbers stand around time 0: what they are of is printed left of them.
    beneath.tick_params(axis="y", pad=6 + 2.6 * longest)
    beneath.set_yticks(
        range(len(curves)), [shorter(curve.label, 22) if named and not alone else "" for curve in curves]
    )
    for name, curve in zip(beneath.get_yticklabels(), curves, strict=True):
        name.set_color(colours[curve.label])
    if named:
        beneath.text(0, -0.9, "At risk", size=7.5, color=FAINT, ha="left", va="center")
    for spine in beneath.spines.values():
        spine.set_visible(False)


def _ticks(times: Floats, most: int) -> list[float]:
    """Return times for ticks: edges of the grid, whole years where there are some, at most so many.

    Where not all years have room, those of the summary have it first.
    """
    years = [float(time) for time in times if np.isclose(time, round(float(time)))]
    chosen = years if len(years) > 2 else [float(time) for time in times]
    if len(chosen) <= most:
        return chosen
    usual = [time for time in chosen if time == 0 or np.isclose(SUMMARY_YEARS, time).any()]
    if usual[-1] >= 0.5 * chosen[-1] and len(usual) <= most and len(years) > 2:
        return usual
    return chosen[:: -(-len(chosen) // most)]


def _legend(
    body: SubFigure,
    panels: dict[str, list[Curve]],
    colours: dict[str, str],
    marks: dict[str, str],
    title: str,
) -> None:
    """Name the curves beside the data; what is suppressed is named too."""
    hidden = {
        label
        for label in colours
        if all(curve.hidden for curves in panels.values() for curve in curves if curve.label == label)
    }
    handles = [
        Line2D(
            [],
            [],
            color=colours[label],
            marker="" if label in hidden else marks[label],
            markersize=4,
            linestyle="none" if label in hidden else "-",
            label=f"{shorter(label)} [{SUPPRESSED}]" if label in hidden else shorter(label),
        )
        for label in colours
    ]
    legend = body.legend(
        handles=handles,
        title=textwrap.fill(title, 26) or None,
        loc="outside right upper",
        fontsize=8.5,
        alignment="left",
    )
    legend.get_title().set_fontsize(8)
