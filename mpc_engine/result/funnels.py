"""Funnels: standardised ratios against the expected number, within the limits that chance alone explains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from mpc_engine.errors import DocumentError
from mpc_engine.result.layouts import strata
from mpc_engine.result.style import FAINT, INK, PALETTE, RULE, Drawing, said, shorter
from mpc_engine.result.vocabulary import methods, words
from mpc_engine.statistics.tidy import ALL, SUPPRESSED

LIMITS: Final = ("funnel_lower_95", "funnel_upper_95", "funnel_lower_998", "funnel_upper_998")
"""Statistics that make a funnel."""
MOST_NAMED: Final = 12
"""Points outside the outer limits that are named in the picture."""
_WIDE: Final = 0.013
"""Width of a letter of a name, as a part of the axes'."""
_HIGH: Final = 0.05
"""Height of a name, as a part of the axes'."""

Named = tuple[str, float, float, tuple[int, int]]
"""A name, its point, and on which side of it the name stands: right or left, above or below."""


def funnel(table: pd.DataFrame, variables: Sequence[str], external: bool = False) -> Drawing:
    """Return ratios against the expected number with 95 % and 99.8 % limits around 1.

    1 is the ratio of the reference, which is ``external``, or else of all shown strata together. Raises
    DocumentError for a release without limits.
    """
    untimed = table[table["time"].isna()]
    names = untimed["statistic"].astype(str)
    limits, found = untimed[names.isin(LIMITS)], untimed[names == "sir"]
    if limits.empty or found.empty:
        raise DocumentError("this release has no funnel limits to draw")
    found, limits = _parts(found, variables), _parts(limits, variables)
    limits = limits.assign(stratum=strata(limits, variables))
    labels = strata(found, variables)
    # A ratio stands where its limits do, at the number expected of its stratum.
    expected = limits.dropna(subset="n_shown").drop_duplicates("stratum").set_index("stratum")["n_shown"]
    found = found.assign(
        label=labels, expected=labels.map(expected.to_dict()).astype(np.float64)
    ).sort_values("expected")
    drawn = found[found["value"].notna() & found["expected"].notna()]
    named, more = _outliers(drawn, limits)
    hidden = list(found["label"][found["flag"].astype(str) == SUPPRESSED])
    notes = [*filter(None, [methods(found) if "ci_method" in found else ""])]
    if hidden:
        rest = f" and {len(hidden) - MOST_NAMED} more" if len(hidden) > MOST_NAMED else ""
        notes.append(f"[{SUPPRESSED}]: {', '.join(map(shorter, hidden[:MOST_NAMED]))}{rest}")
    if more:
        notes.append(f"{more} more beyond the 99.8 % limits {'is' if more == 1 else 'are'} not named")
    centre = f"{'reference' if external else 'all shown strata together'}, 1.00"

    def paint(body: SubFigure) -> None:
        axes = body.subplots()
        styles = {"95": (PALETTE[0], (5, 2)), "998": (PALETTE[1], (1.5, 1.5))}
        of_limits = limits["statistic"].astype(str)
        for name in LIMITS:
            rows = limits[(of_limits == name) & limits["value"].notna()].sort_values("n_shown")
            colour, dashes = styles[name.rpartition("_")[2]]
            text = f"{'95' if name.endswith('95') else '99.8'} % limits" if "upper" in name else "_"
            axes.plot(rows["n_shown"], rows["value"], color=colour, dashes=dashes, linewidth=1.1, label=text)
        axes.axhline(1.0, color=FAINT, linewidth=1.0, label=centre)
        axes.plot(drawn["expected"], drawn["value"], "o", color=INK, markersize=4.5, label=words("sir"))
        _name(axes, named)
        axes.set_xlabel("Expected number")
        axes.set_ylabel(words("sir"))
        axes.margins(0.06)
        if not drawn.empty and drawn["expected"].min() < drawn["expected"].max() / 3:
            axes.set_xlim(left=0)
        axes.grid(color=RULE)
        if drawn.empty:
            said(axes, f"[{SUPPRESSED}]  every stratum is suppressed")
        body.legend(loc="outside right upper", fontsize=8.5)

    flags = frozenset((SUPPRESSED,)) if hidden else frozenset()
    return Drawing(7.2, 3.9, paint, tuple(notes), flags)


def _parts(rows: pd.DataFrame, variables: Sequence[str]) -> pd.DataFrame:
    """Return the rows of strata; that of all together is no point of a funnel."""
    inside = pd.Series(False, index=rows.index)
    for name in variables:
        inside |= rows[name].astype(str) != ALL
    return rows[inside] if inside.any() else rows


def _outliers(rows: pd.DataFrame, limits: pd.DataFrame) -> tuple[list[Named], int]:
    """Return the names of points beyond the outer limits, the farthest first, and how many have no room."""
    of_limits = limits["statistic"].astype(str)
    lower, upper = (
        rows["label"].map(
            dict(zip(limits["stratum"][of_limits == name], limits["value"][of_limits == name], strict=True))
        )
        for name in LIMITS[2:]
    )
    outside = rows[(rows["value"] < lower) | (rows["value"] > upper)]
    outside = outside.assign(far=(outside["value"] - 1).abs()).sort_values("far", ascending=False)
    across = max(float(rows["expected"].max() or 0), 1e-9) * 1.06 if len(rows) else 1.0
    values = pd.concat([rows["value"], limits["value"]]).dropna()
    down = max(float(values.max() - values.min()), 1e-9) * 1.12 if len(values) else 1.0
    taken: list[tuple[float, float, float, float]] = []
    named: list[Named] = []
    for label, x, y in zip(outside["label"], outside["expected"], outside["value"], strict=True):
        name = shorter(str(label), 18)
        for right, above in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
            start = x / across if right > 0 else x / across - _WIDE * len(name)
            foot = y / down if above > 0 else y / down - _HIGH
            box = (start, start + _WIDE * len(name), foot, foot + _HIGH)
            within = start >= 0 and box[1] <= 1.02
            if len(named) < MOST_NAMED and within and not any(_overlap(box, other) for other in taken):
                named.append((name, float(x), float(y), (right, above)))
                taken.append(box)
                break
    return named, len(outside) - len(named)


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def _name(axes: Axes, named: Sequence[Named]) -> None:
    for name, x, y, (right, above) in named:
        axes.annotate(
            name,
            (x, y),
            (4 * right, 4 * above),
            textcoords="offset points",
            size=7.5,
            ha="left" if right > 0 else "right",
            va="bottom" if above > 0 else "top",
        )
