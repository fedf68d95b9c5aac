"""Bars, heat maps, and points with intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import SubFigure
from matplotlib.image import AxesImage

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.intervals import normal_quantile
from mpc_engine.result.curves import Floats
from mpc_engine.result.layouts import COUNTS, strata
from mpc_engine.result.numerals import scales
from mpc_engine.result.style import FAINT, INK, PALETTE, Drawing, hatched, said, shorter, thinned, unseen
from mpc_engine.result.vocabulary import methods, words
from mpc_engine.statistics.tidy import ALL, SUPPRESSED, UNRELIABLE

Titles = Callable[[str], str]
"""What gives the title of a variable's axis."""
MOST_PANELS: Final = 24
MOST_POINTS: Final = 60
MOST_DOWN, MOST_ACROSS = 40, 16
"""Rows and columns of a heat map up to which numbers are printed in its cells."""
COLUMNS: Final = 3
BLUES: Final = LinearSegmentedColormap.from_list("blues", ["#F4F8FB", "#9CC4DF", "#0072B2", "#003B5C"])
Z: Final = normal_quantile(0.95)


def _rows(table: pd.DataFrame, statistics: Sequence[str], what: str) -> pd.DataFrame:
    rows = table[table["statistic"].astype(str).isin(statistics) & table["time"].isna()]
    if rows.empty:
        raise DocumentError(f"this release has no {what} to draw")
    return rows


def _hidden(rows: pd.DataFrame) -> np.ndarray:
    return rows["value"].isna().to_numpy()


# --- bars -------------------------------------------------------------------------------------------


def bars(table: pd.DataFrame, variables: Sequence[str], titles: Titles) -> Drawing:
    """Return bars of counts with intervals: one panel for each stratum of all variables but the first."""
    rows = _rows(table, COUNTS[:1], "counts")
    panels = dict(list(rows.groupby(strata(rows, variables[1:]), sort=False)))
    drawn = dict(list(panels.items())[:MOST_PANELS])
    notes = () if len(drawn) == len(panels) else (f"the first {len(drawn)} of {len(panels)} panels",)
    columns = min(len(drawn), COLUMNS if len(drawn) > 2 else len(drawn))
    lines = -(-len(drawn) // columns)
    single = columns == 1
    bins = len(next(iter(drawn.values())))
    width = 7.2 if not single or bins > 4 else 5.4

    def paint(body: SubFigure) -> None:
        grid = body.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        flat = [axes for line in grid for axes in line]
        top = float(np.nanmax([1.0, *rows["ucl"].dropna()]))
        for axes, (name, each) in zip(flat, drawn.items(), strict=False):
            _bars(axes, each, variables, top, 40 if single else 12)
            if len(drawn) > 1:
                axes.set_title(shorter(str(name), 34), loc="left")
        for axes in flat[len(drawn) :]:
            axes.set_visible(False)
        for line in grid:
            line[0].set_ylabel("Records")
        for axes in flat[max(0, len(drawn) - columns) : len(drawn)]:
            axes.set_xlabel(titles(variables[0]) if variables else "")
            axes.tick_params(labelbottom=True)

    height = lines * (3.6 if single else 2.2) + 0.3
    return Drawing(width, height, paint, notes, unseen(pd.concat(drawn.values())))


def _bars(axes: Axes, rows: pd.DataFrame, variables: Sequence[str], top: float, most: int) -> None:
    places = np.arange(len(rows))
    hidden = _hidden(rows)
    height = np.clip(rows["value"].to_numpy(), 0, None)
    shown = ~hidden
    axes.bar(places[shown], height[shown], width=0.82, color=PALETTE[0], alpha=0.85)
    lower, upper = (rows[name].to_numpy()[shown] for name in ("lcl", "ucl"))
    reach = np.clip([height[shown] - lower, upper - height[shown]], 0, None)
    cap = 2.5 if len(rows) <= 40 else 0.0
    axes.errorbar(
        places[shown], height[shown], yerr=reach, fmt="none", ecolor=INK, elinewidth=0.9, capsize=cap
    )
    hatched(axes, [(x - 0.41, 0.0) for x in places[hidden]], 0.82, top * 0.045)
    if len(rows) <= most:
        for x, text in zip(places[hidden], rows["display"][hidden], strict=True):
            axes.text(x, top * 0.06, text, ha="center", va="bottom", size=7.5, color=FAINT)
    if (rows["flag"].astype(str) == SUPPRESSED).all() and len(rows) > 1:
        said(axes, f"[{SUPPRESSED}]  every cell is suppressed")
    axes.tick_params(labelleft=bool(shown.any()))
    labels = list(rows[variables[0]].astype(str)) if variables else [""]
    ticks = thinned(len(rows), most)
    longest = max(len(labels[i]) for i in ticks)
    leaning = longest * len(ticks) > (70 if most > 12 else 22)
    axes.set_xticks(list(ticks), [shorter(labels[i], 18) for i in ticks])
    axes.tick_params(axis="x", labelrotation=60 if leaning else 0, labelsize=8)
    axes.set_ylim(0, top * 1.06)
    room = 0.7 if len(rows) > 2 else 1.6
    axes.set_xlim(-room, len(rows) - 1 + room)
    axes.grid(axis="y")


# --- heat maps --------------------------------------------------------------------------------------


def heat(table: pd.DataFrame, variables: Sequence[str], titles: Titles) -> Drawing:
    """Return a heat map of counts, the last variable across; totals, where released, stand uncoloured.

    Raises DocumentError for fewer than two variables.
    """
    rows = _rows(table, COUNTS, "counts")
    if len(variables) < 2:
        raise DocumentError("a heat map needs two variables; ask for the picture bars")
    down = strata(rows, variables[:-1]).where(_inside(rows, variables[:-1]), "Total")
    across = rows[variables[-1]].astype(str).replace(ALL, "Total")
    heads, sides = list(dict.fromkeys(across)), list(dict.fromkeys(down))
    shape = (len(sides), len(heads))
    place = (down.map({s: i for i, s in enumerate(sides)}), across.map({h: i for i, h in enumerate(heads)}))
    values, texts = np.full(shape, np.nan), np.full(shape, "", object)
    values[place] = rows["value"]
    texts[place] = rows["display"].astype(str)
    inner = np.zeros(shape, bool)
    inner[place] = (rows["statistic"].astype(str) == COUNTS[0]).to_numpy()
    numbers = len(sides) <= MOST_DOWN and len(heads) <= MOST_ACROSS
    wide = float(np.clip(1.6 + len(heads) * (0.62 if numbers else 0.12), 5.4, 11.0))
    high = float(np.clip(0.9 + len(sides) * (0.34 if numbers else 0.05), 2.0, 12.0))

    def paint(body: SubFigure) -> None:
        axes = body.subplots()
        image = _heat(axes, values, texts, inner, numbers)
        if not numbers:
            body.colorbar(image, ax=axes, label="Records", shrink=0.6)
        most_down, most_across = int(high / 0.2), int(wide / 0.55)
        ticks = thinned(len(heads), most_across)
        names = [shorter(heads[i], 16) for i in ticks]
        leaning = sum(map(len, names)) * 0.08 > wide - 1.6
        axes.set_xticks(list(ticks), names, rotation=55 if leaning else 0, ha="left" if leaning else "center")
        ticks = thinned(len(sides), most_down)
        axes.set_yticks(list(ticks), [shorter(sides[i], 30) for i in ticks])
        axes.set_xlabel(titles(variables[-1]))
        axes.xaxis.set_label_position("top")
        axes.set_ylabel("\n".join(textwrap.fill(titles(name), int(high * 13)) for name in variables[:-1]))

    notes = ("totals have noise of their own",) if not inner.all() else ()
    return Drawing(wide, high, paint, notes, unseen(rows))


def _inside(rows: pd.DataFrame, variables: Sequence[str]) -> pd.Series:
    inside = pd.Series(False, index=rows.index)
    for name in variables:
        inside |= rows[name].astype(str) != ALL
    return inside


def _heat(axes: Axes, values: Floats, texts: np.ndarray, inner: np.ndarray, numbers: bool) -> AxesImage:
    coloured = np.where(inner, np.clip(values, 0, None), np.nan)
    known = coloured[~np.isnan(coloured)]
    top = float(known.max(initial=1.0))
    image = axes.imshow(coloured, cmap=BLUES, vmin=0, vmax=top, aspect="auto", interpolation="nearest")
    hidden = [(x - 0.5, y - 0.5) for y, x in np.argwhere(np.isnan(values) & (texts != ""))]
    hatched(axes, hidden, 1.0, 1.0)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if not numbers:
        return image
    axes.set_xticks(np.arange(1, values.shape[1]) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, values.shape[0]) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for y, x in np.ndindex(values.shape):
        dark = inner[y, x] and values[y, x] > 0.55 * top
        weight = "normal" if inner[y, x] else "bold"
        held = {"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none"}
        axes.text(
            x,
            y,
            str(texts[y, x]),
            ha="center",
            va="center",
            size=8,
            weight=weight,
            color="white" if dark else INK,
            bbox=held if np.isnan(values[y, x]) and texts[y, x] else None,
        )
    return image


# --- points -------------------------------------------------------------------------------------------


def points(table: pd.DataFrame, variables: Sequence[str], headlines: Sequence[str]) -> Drawing:
    """Return one point for each stratum with its interval; the thick part is that of sampling alone."""
    names = [*headlines, *table.loc[table["lcl"].notna(), "statistic"].astype(str).unique()]
    present = set(table.loc[table["time"].isna(), "statistic"].astype(str))
    statistic = next((name for name in names if name in present), None)
    if statistic is None:
        raise DocumentError("this release has no statistic with an interval to draw")
    rows = _rows(table, (statistic,), statistic)
    drawn = rows.iloc[:MOST_POINTS]
    scale = scales(drawn)[statistic]
    note = str(drawn["note"].iloc[0])
    standards = drawn["standard"].astype(str).unique()
    if len(standards) == 1 and standards[0]:
        note = f"{standards[0]}, {note}" if note else str(standards[0])
        drawn = drawn.assign(standard="")
    labels = list(
        strata(drawn, variables).where(
            drawn["flag"].astype(str) != UNRELIABLE, strata(drawn, variables) + f" [{UNRELIABLE}]"
        )
    )
    flags = unseen(drawn) | frozenset(drawn["flag"].astype(str)) & {UNRELIABLE}
    notes = [*filter(None, [methods(drawn)]), "thick: sampling alone; thin: 95 % interval with the noise"]
    if len(drawn) < len(rows):
        notes.append(f"the first {len(drawn)} of {len(rows)} strata")

    def paint(body: SubFigure) -> None:
        axes = body.subplots()
        places = np.arange(len(drawn))
        value, lower, upper, error = (
            drawn[name].to_numpy() * scale.factor for name in ("value", "lcl", "ucl", "se_sampling")
        )
        shown = np.isfinite(value)
        reach = np.clip([value - lower, upper - value], 0, None)[:, shown]
        reach = np.nan_to_num(reach, nan=0.0, posinf=0.0)
        axes.errorbar(
            value[shown], places[shown], xerr=reach, fmt="none", ecolor=PALETTE[0], elinewidth=1.0, capsize=3
        )
        inner = np.minimum(Z * np.nan_to_num(error[shown]), reach)
        axes.errorbar(value[shown], places[shown], xerr=inner, fmt="none", ecolor=PALETTE[0], elinewidth=3.2)
        axes.plot(value[shown], places[shown], "o", color="white", markeredgecolor=PALETTE[0], markersize=6)
        for place, display in zip(places[~shown], drawn["display"][~shown], strict=True):
            axes.text(
                0.01, place, display, transform=axes.get_yaxis_transform(), va="center", size=8, color=FAINT
            )
        axes.set_yticks(places, [shorter(label, 34) for label in labels])
        axes.set_ylim(len(drawn) - 0.4, -0.6)
        axes.set_xlabel(f"{words(statistic)}{f', {note}' if note and len(note) < 60 else ''}")
        axes.grid(axis="x")
        if not shown.any():
            axes.set_xticks([])

    return Drawing(7.2, max(1.5, 0.7 + 0.27 * len(drawn)), paint, tuple(notes), flags)
