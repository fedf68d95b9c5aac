"""The picture of `benchmarks.rare_cells`: which cells each way shows, and how far its table is off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mpc_engine.result.style import FAINT, INK, PALETTE, RULE, STYLE

FURTHEST = 480.0
"""Where the axis of errors ends; a longer bar is cut, and its length written beside it."""


class Compared(Protocol):
    """What is drawn of one way."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def shown(self) -> tuple[float, ...]:
        """Cells shown in each class."""

    @property
    def error(self) -> float:
        """Absolute error of the shown cells."""

    @property
    def lost(self) -> float:
        """Patients in hidden cells."""


def draw_utility(
    ways: Sequence[Compared],
    true: NDArray[np.int64],
    classes: Sequence[tuple[str, int, int]],
    path: Path,
) -> None:
    """Write the picture to ``path``: a line for each way, panels for classes of cells and for errors."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8.6, 2.9), layout="constrained")
        panels = figure.subplots(1, len(classes) + 1, sharey=True, width_ratios=(*[0.8] * len(classes), 2.5))
        rows = np.arange(len(ways))[::-1]
        for position, (axes, (name, least, most)) in enumerate(zip(panels, classes, strict=False)):
            size = int(((least <= true) & (true <= most)).sum())
            _draw_class(axes, rows, [way.shown[position] for way in ways], size)
            axes.set_title(name, loc="left", fontsize=8.5)
            axes.set_xlabel(f"of {size}")
        _draw_errors(panels[-1], rows, ways)
        panels[0].set_yticks(rows, [way.name for way in ways])
        panels[0].annotate(
            "cells shown, by true count:",
            (0, 1),
            (-8, 7),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            weight="bold",
        )
        figure.savefig(path, dpi=200, metadata={"Software": None})


def _draw_class(axes: Axes, rows: NDArray[np.intp], shown: Sequence[float], size: int) -> None:
    axes.barh(rows, [size] * len(rows), 0.62, color="white", edgecolor=RULE, linewidth=0.8)
    axes.barh(rows, shown, 0.62, color=PALETTE[0])
    for row, value in zip(rows, shown, strict=True):
        inside = value > size / 2
        axes.annotate(
            f"{value:.1f}".removesuffix(".0"),
            (value, row),
            (-3 if inside else 3, 0),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="center",
            fontsize=8,
            color="white" if inside else INK,
        )
    axes.set_xlim(0, size)
    axes.set_xticks([0, size])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _draw_errors(axes: Axes, rows: NDArray[np.intp], ways: Sequence[Compared]) -> None:
    error = np.array([way.error for way in ways])
    lost = np.array([way.lost for way in ways])
    axes.barh(rows, np.minimum(error, FURTHEST), 0.62, color=PALETTE[1], label="error of the numbers shown")
    axes.barh(
        rows,
        np.minimum(error + lost, FURTHEST) - np.minimum(error, FURTHEST),
        0.62,
        left=np.minimum(error, FURTHEST),
        color="white",
        edgecolor=FAINT,
        hatch="////",
        linewidth=0.6,
        label="patients in hidden cells",
    )
    for row, total in zip(rows, error + lost, strict=True):
        cut = total > FURTHEST
        axes.annotate(
            f"{total:,.0f} ▸" if cut else f"{total:,.0f}",
            (min(total, FURTHEST), row),
            (-4 if cut else 4, 0),
            textcoords="offset points",
            ha="right" if cut else "left",
            va="center",
            fontsize=8,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5} if cut else None,
        )
    axes.set_xlim(0, FURTHEST)
    axes.set_title("absolute error of the table", loc="left", fontsize=8.5)
    axes.set_xlabel("patients; a hidden cell is taken as 0")
    axes.legend(loc="center right", bbox_to_anchor=(1.02, 0.54), fontsize=7.5)
    axes.tick_params(axis="y", length=0)
