"""Pictures of results: the page around a drawing, and which drawing it is.

A figure is made from published numbers only and never through pyplot, so nothing is shared between figures.
It reads on paper: title, parameters and filters above, the notation of what is hidden beneath, legends
beside the data. Colours are those of Okabe and Ito, which the colour-blind can tell apart.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mpc_engine.errors import DocumentError
from mpc_engine.result import charts, curves, funnels, histograms, trends
from mpc_engine.result.explanation import meanings, parameters_line
from mpc_engine.result.style import FAINT, INK, RESOLUTION, STYLE, Drawing
from mpc_engine.result.vocabulary import axis_title
from mpc_engine.statistics.histogram import Histogram
from mpc_engine.statistics.incidence import INTERNAL
from mpc_engine.statistics.query import Picture
from mpc_engine.statistics.tidy import ALL
from mpc_engine.statistics.wording import conditions

if TYPE_CHECKING:
    from mpc_engine.result.result import Result

LONGEST_LABEL: Final = 24
"""Letters of a label in a picture."""
_LINE: Final = 0.165
"""Height of a line of small type, in inches."""
_LETTER: Final = 0.066
"""Mean width of a small letter, in inches."""


def draw(result: Result, picture: Picture | None = None) -> Figure:
    """Return the figure of a result. Raises DocumentError where its statistics do not make that picture."""
    drawing = _drawing(result, picture)
    with matplotlib.rc_context(STYLE):
        return _page(result, drawing)


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    held = io.BytesIO()
    _write(figure, held, "png")
    return held.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file of the kind that its suffix says."""
    held = io.BytesIO()
    _write(figure, held, path.suffix.lower().removeprefix("."))
    path.write_bytes(held.getvalue())


def _write(figure: Figure, file: io.BytesIO, kind: str) -> None:
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # A label may be in a script that the font has not; it is whole in the tables.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(file, format=kind, dpi=RESOLUTION)


def _drawing(result: Result, picture: Picture | None) -> Drawing:
    variables, query = result.variables, result.query
    codebook, by = result.codebook, getattr(result.query, "by", ())
    names = set(result.table["statistic"].astype(str))
    kind: Picture = picture or ("funnel" if funnels.LIMITS[0] in names else query.picture)
    if picture is None and kind == "heat" and len(variables) < 2:
        kind = "bars"
    titles = partial(axis_title, codebook)
    table = _table(result, variables[:-1] if kind == "heat" else by)
    match kind:
        case "curve":
            varied = [name for name in by if (table[name].astype(str) != ALL).any()]
            return curves.plan(table, variables, query.headlines, [*map(titles, varied)])
        case "bars":
            if isinstance(query, Histogram):
                return histograms.histogram(table, variables, query.all_edges, codebook)
            return charts.bars(table, variables, titles)
        case "heat":
            return charts.heat(table, variables, titles)
        case "funnel":
            external = getattr(query, "ratio", None) not in (None, INTERNAL)
            return funnels.funnel(table, variables, external)
        case "points":
            # In the words of the codebook labels are longer than their places along an axis.
            ordered = trends.along(result.table, by, query.headlines, codebook)
            if ordered is not None:
                return trends.trend(table, by, query.headlines, ordered, codebook)
            return charts.points(table, variables, query.headlines)
    raise DocumentError(f"{kind} is no kind of picture")


def _table(result: Result, together: Sequence[str]) -> pd.DataFrame:
    """Return the table with described categories; with bare ones where several of them side by side, of the
    variables ``together``, would be longer than a label."""
    if len(together) < 2:
        return result.readable
    lengths = [result.readable[name].astype(str).str.len().max() for name in together]
    return result.readable if sum(lengths) + 3 * (len(lengths) - 1) <= LONGEST_LABEL else result.table


def _page(result: Result, drawing: Drawing) -> Figure:
    """Return a figure with a head and a foot around the drawing."""
    wide = int((drawing.width - 0.4) / _LETTER)
    title = textwrap.wrap(result.title, int(wide * 0.68))
    where = result.query.where
    only = f"only {conditions(result.codebook, where)}" if where else ""
    under = [
        line
        for text in (parameters_line(result.release), only)
        if text
        for line in textwrap.wrap(text, wide, max_lines=3)
    ]
    legend = [f"[{flag}] {text}" for flag, text in meanings(drawing.flags).items()]
    notes = [*drawing.notes, *legend, "every number carries joint noise, and intervals include it"]
    foot = _filled(notes, wide)
    above = 0.16 + 0.24 * len(title) + _LINE * len(under)
    below = 0.14 + _LINE * len(foot)
    height = above + drawing.height + below
    figure = Figure(figsize=(drawing.width, height), layout="constrained")
    FigureCanvasAgg(figure)
    parts: Any = figure.subfigures(3, 1, height_ratios=[above, drawing.height, below])
    head, body, end = parts
    left = 0.15 / drawing.width
    head.text(left, 1 - 0.1 / above, "\n".join(title), va="top", size=12, weight="bold", color=INK)
    head.text(left, 0.02, "\n".join(under), va="bottom", size=8.5, color=FAINT, linespacing=1.3)
    end.text(left, 1.0 - 0.04 / below, "\n".join(foot), va="top", size=8, color=FAINT, linespacing=1.3)
    drawing.paint(body)
    return figure


def _filled(notes: Sequence[str], wide: int) -> list[str]:
    """Return notes in lines, as many beside each other as there is room for."""
    lines: list[str] = []
    for note in notes:
        for piece in textwrap.wrap(note, wide):
            if lines and len(lines[-1]) + 3 + len(piece) <= wide:
                lines[-1] += f" · {piece}"
            else:
                lines.append(piece)
    return lines
