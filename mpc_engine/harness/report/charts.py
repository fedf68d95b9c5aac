"""Pictures of a report: bars, points with intervals, and lines, in the look of published results."""

from __future__ import annotations

import io
import logging
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mpc_engine.harness.blocks import Figure
from mpc_engine.harness.numerals import short
from mpc_engine.result.style import FAINT, INK, MARKERS, PALETTE, STYLE, said, shorter, thinned

Interval = tuple[float, float]
"""Lower and upper limit."""
WIDTH: Final = 7.0
"""Inches: what A4 has between its margins."""
_TALLEST: Final = 9.0
"""Inches: what is left of A4's height beside a caption."""
_MOST_WRITTEN: Final = 16
"""Bars up to which each has its number."""
_LABEL: Final = 34
_UPRIGHT: Final = 40
_DASHES: Final[tuple[Any, ...]] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
_RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PROLOGUE: Final = re.compile(r"^.*?(?=<svg\b)|<metadata>.*?</metadata>\s*|<!--.*?-->\s*", re.S)


def bars(
    caption: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    *,
    axis: str = "",
    intervals: Mapping[str, Sequence[Interval | None]] | None = None,
    log: bool = False,
    level: tuple[float, str] | None = None,
    alt: str = "",
) -> Figure:
    """Return bars side by side: for each label one of each series, by name; None leaves its place empty.

    They stand if the labels are short and lie otherwise. `axis` names the numbers and their unit,
    `intervals` are limits drawn over the bars, and `level` is a line across at a number, with its name.
    Raises ValueError if a series is not as long as the labels.
    """
    _same_length(labels, series)
    lying = sum(map(len, labels)) + 2 * len(labels) * len(series) > 92
    count = max(1, len(series))
    thick = 0.8 / count
    places = np.arange(len(labels), dtype=float)
    height = min(_TALLEST, max(1.5, 0.75 + len(labels) * (0.2 + 0.15 * count))) if lying else 2.9

    def paint(axes: Axes) -> None:
        written = len(labels) * count <= _MOST_WRITTEN
        for index, (name, values) in enumerate(series.items()):
            at = places + (index - (count - 1) / 2) * thick
            known = _floats(values)
            draw = axes.barh if lying else axes.bar
            draw(at, np.nan_to_num(known), thick * 0.92, color=_colour(index), label=name, log=log)
            limits = (intervals or {}).get(name)
            if limits is not None:
                _whiskers(axes, at, known, limits, lying)
            if written and limits is None:
                _write_numbers(axes, at, known, lying)
        if written and not log:
            axes.margins(x=0.12 if lying else None, y=None if lying else 0.12)
        if lying:
            axes.set_yticks(places, [_two_lines(label) for label in labels])
            axes.set_ylim(len(labels) - 0.4, -0.6)
            axes.set_xlabel(axis)
            axes.grid(axis="x")
        else:
            axes.set_xticks(places, [textwrap.fill(label, 16) for label in labels])
            axes.set_ylabel(textwrap.fill(axis, _UPRIGHT))
            axes.grid(axis="y")
        if log:
            _decades(axes, lower=lying)
        _across(axes, level, upright=lying)
        axes.tick_params(axis="y" if lying else "x", length=0)

    return _figure(caption, height, paint, alt or _told(labels, series, axis), len(series) > 1)


def points(
    caption: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    *,
    axis: str = "",
    intervals: Mapping[str, Sequence[Interval | None]] | None = None,
    log: bool = False,
    level: tuple[float, str] | None = None,
    alt: str = "",
) -> Figure:
    """Return points with intervals, a row for each label; arguments and errors as those of `bars`."""
    _same_length(labels, series)
    count = max(1, len(series))
    gap = min(0.26, 0.7 / count)
    places = np.arange(len(labels), dtype=float)

    def paint(axes: Axes) -> None:
        for index, (name, values) in enumerate(series.items()):
            at = places + (index - (count - 1) / 2) * gap
            known = _floats(values)
            limits = (intervals or {}).get(name)
            if limits is not None:
                _whiskers(axes, at, known, limits, True, _colour(index))
            axes.plot(
                known,
                at,
                MARKERS[index % len(MARKERS)],
                color="white",
                markeredgecolor=_colour(index),
                markersize=5.5,
                markeredgewidth=1.4,
                label=name,
            )
        if log:
            axes.set_xscale("log")
            _decades(axes, lower=True)
        axes.set_yticks(places, [_two_lines(label) for label in labels])
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlabel(axis)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        _across(axes, level, upright=True)

    height = min(_TALLEST, max(1.5, 0.8 + len(labels) * (0.14 + 0.065 * count)))
    return _figure(caption, height, paint, alt or _told(labels, series, axis), len(series) > 1)


def lines(
    caption: str,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    across: str = "",
    up: str = "",
    log_x: bool = False,
    log_y: bool = False,
    marks: bool = False,
    steps: bool = False,
    level: tuple[float, str] | None = None,
    alt: str = "",
) -> Figure:
    """Return lines by name, each from its places along the lower axis and its heights.

    `marks` draws the points themselves too, `steps` holds each height until the next place. Other
    arguments as those of `bars`. Raises ValueError if places and heights differ in number.
    """
    for name, (places, heights) in series.items():
        if len(places) != len(heights):
            raise ValueError(f"{name}: {len(places)} places and {len(heights)} heights")

    def paint(axes: Axes) -> None:
        for index, (name, (places, heights)) in enumerate(series.items()):
            axes.plot(
                np.asarray(places, float),
                np.asarray(heights, float),
                color=_colour(index),
                linestyle=_DASHES[index // len(PALETTE) if marks else index % len(_DASHES)],
                linewidth=1.6,
                marker=MARKERS[index % len(MARKERS)] if marks else "",
                markersize=4.5,
                drawstyle="steps-post" if steps else "default",
                label=name,
            )
        for lower, log in ((True, log_x), (False, log_y)):
            if log:
                axes.set(**{"xscale" if lower else "yscale": "log"})
                _decades(axes, lower)
        axes.set_xlabel(across)
        axes.set_ylabel(textwrap.fill(up, _UPRIGHT))
        axes.grid(axis="both")
        _across(axes, level, upright=False)

    return _figure(caption, 3.0, paint, alt or _told_lines(series, across, up), len(series) > 1)


def drawn(
    caption: str, height: float, paint: Callable[[Axes], None], alt: str, legend: bool = False
) -> Figure:
    """Return any other picture: `paint` draws it on axes of `height` inches in the same look."""
    return _figure(caption, height, paint, alt, legend)


def _figure(caption: str, height: float, paint: Callable[[Axes], None], alt: str, legend: bool) -> Figure:
    # A fixed salt: the same picture is the same text, whenever it is made.
    style = STYLE | {"svg.hashsalt": "mpc-engine"}
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(canvas)
        axes = canvas.subplots()
        paint(axes)
        if not axes.has_data():
            said(axes, "nothing to show")
        if legend:
            canvas.legend(loc="outside upper left", ncols=4, fontsize=8.5, handlelength=1.6)
        held = io.BytesIO()
        canvas.savefig(held, format="svg", metadata={"Date": None, "Creator": None})
    return Figure(caption, _PROLOGUE.sub("", held.getvalue().decode()).strip(), alt)


def _colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def _same_length(labels: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> None:
    for name, values in series.items():
        if len(values) != len(labels):
            raise ValueError(f"{name}: {len(values)} values for {len(labels)} labels")


def _floats(values: Sequence[float | None]) -> Any:
    return np.array([math.nan if value is None else float(value) for value in values])


def _whiskers(
    axes: Axes,
    at: Any,
    values: Any,
    limits: Sequence[Interval | None],
    lying: bool,
    colour: str = INK,
) -> None:
    """Draw intervals around values; one without a value is drawn too, for its place is known."""
    for place, limit in zip(at, limits, strict=True):
        if limit is not None:
            ends, here = list(limit), [place, place]
            axes.plot(*((ends, here) if lying else (here, ends)), color=colour, linewidth=1.1, zorder=3)


def _write_numbers(axes: Axes, at: Any, values: Any, lying: bool) -> None:
    for place, value in zip(at, values, strict=True):
        if math.isfinite(value):
            axes.annotate(
                _short(value),
                (value, place) if lying else (place, value),
                (3, 0) if lying else (0, 2),
                textcoords="offset points",
                ha="left" if lying else "center",
                va="center" if lying else "bottom",
                size=7.5,
                color=INK,
            )


def _across(axes: Axes, level: tuple[float, str] | None, upright: bool) -> None:
    if level is None:
        return
    value, name = level
    draw = axes.axvline if upright else axes.axhline
    draw(value, color=FAINT, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
    # Beside an upright line there are points, so that its name stands above the axes.
    axes.annotate(
        name,
        (value, 1.0) if upright else (1.0, value),
        (0, 2) if upright else (-2, 2),
        xycoords=axes.get_xaxis_transform() if upright else axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="center" if upright else "right",
        va="bottom",
        size=7.5,
        color=FAINT,
    )


def _two_lines(label: str) -> str:
    return "\n".join(textwrap.wrap(shorter(label, 2 * _LABEL), _LABEL)[:2])


def _decades(axes: Axes, lower: bool) -> None:
    """Write the numbers of a logarithmic axis plainly, for nothing in a picture is set as a formula."""
    axis = axes.xaxis if lower else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    low, high = sorted(abs(end) for end in axis.get_view_interval())
    if low > 0 and high / low < 300:
        axis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
        axis.set_minor_formatter(FuncFormatter(lambda value, _: _power(value)))
    else:
        axis.set_minor_formatter(NullFormatter())


def _power(value: float) -> str:
    if 1e-3 <= value < 1e6:
        return f"{value:,.0f}" if value >= 1 else f"{value:g}"
    exponent = round(math.log10(value)) if value > 0 else 0
    return "10" + str(exponent).translate(_RAISED)


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    factor, _, exponent = short(value).partition("10^")
    return f"{factor}10{exponent.translate(_RAISED)}" if exponent else factor


def _told(labels: Sequence[str], series: Mapping[str, Sequence[float | None]], axis: str) -> str:
    """Return what a picture shows, in words."""
    parts = []
    for name, values in series.items():
        pairs = [
            f"{labels[i]} {'none' if values[i] is None else _short(float(values[i] or 0))}"
            for i in thinned(len(labels), 12)
        ]
        parts.append(f"{name}: {', '.join(pairs)}")
    return ". ".join(([axis] if axis else []) + parts) + "."


def _told_lines(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], across: str, up: str) -> str:
    parts = [
        f"{name} goes from {_short(heights[0])} at {_short(places[0])} to {_short(heights[-1])} at "
        f"{_short(places[-1])}"
        for name, (places, heights) in series.items()
        if len(places)
    ]
    return f"{up or 'height'} over {across or 'place'}: {'; '.join(parts) or 'nothing'}."
