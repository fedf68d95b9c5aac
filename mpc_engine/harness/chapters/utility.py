"""The chapter on utility: what each answer is worth, beside the truth and beside the alternatives."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from mpc_engine.errors import EngineError
from mpc_engine.harness.answers import (
    COUNTS,
    KEYS,
    labels_of,
    opened_of,
    question_of,
    releases_of,
    sums_of,
    variables_of,
)
from mpc_engine.harness.blocks import Block, Cell, Table, Text
from mpc_engine.harness.chapters.answered import Answered
from mpc_engine.harness.chapters.cells import left, noise, published
from mpc_engine.harness.record import Run
from mpc_engine.harness.report.blocks import NOT_REACHED
from mpc_engine.harness.report.charts import points
from mpc_engine.statistics.tidy import ALL

MOST_ROWS: Final = 30
"""Rows of statistics that are shown one by one."""
MOST_DRAWN: Final = 16
MOST_CELLS: Final = 20_000
"""Cells of a release up to which its statistics are made anew from every alternative."""
YEARS: Final = (1.0, 3.0, 5.0, 10.0)
FEW_YEARS: Final = (1.0, 5.0)
_NEAR: Final = 1.96
_FAR: Final = 3.0
"""How many times further away than the release's interval a point may lie to be drawn."""


def utility(run: Run) -> list[Block]:
    """Return the chapter: for each question its statistics, what is left of its table, intervals and noise.

    Nothing is returned where nothing was released.
    """
    blocks: list[Block] = []
    for ask in run.scenario.asks:
        try:
            asked = tuple(releases_of(run, ask.name))
        except LookupError:
            continue
        question = question_of(run, asked[0])
        answered = Answered(run, asked, question, sums_of(run, asked[0], question))
        blocks += _chapter(answered)
    return blocks


def _chapter(answered: Answered) -> list[Block]:
    question, privacy = answered.question, answered.question.query.privacy
    releases = "1 release" if len(answered.asked) == 1 else f"{len(answered.asked)} releases"
    blocks: list[Block] = [
        Text(
            f"{answered.asked[0].ask.name}: {question.query.question()}. {len(answered.sums)} sites, ε = "
            f"{privacy.epsilon}, rule {privacy.rule}, k = {question.guarantee.threshold}; {releases}."
        )
    ]
    if sum(line.tally.grid.cells for line in question.lines) <= MOST_CELLS:
        blocks += _statistics(answered)
        blocks += _intervals(answered)
    else:
        blocks.append(Text("A table of this size is judged by its cells alone.", "note"))
    try:
        blocks += left(answered)
        blocks += noise(answered)
    except EngineError as error:
        blocks.append(Text(f"No comparison of noise: {error}.", "note"))
    blocks += published(answered)
    return blocks


# --- statistics -------------------------------------------------------------------------------------


def headline(answered: Answered) -> pd.DataFrame:
    """Return the rows that are shown one by one: all if they are few, else the query's headline statistics.

    Of too many, those after 1, 3, 5 and 10 years, or 1 and 5; else those over all categories, or every
    so many-th.
    """
    table = answered.table
    names = answered.question.query.headlines
    if len(table) <= MOST_ROWS:
        return table
    rows = table[table["statistic"].isin(names)] if names else table
    for years in (YEARS, FEW_YEARS):
        if len(rows) > MOST_ROWS and rows["time"].isin(years).any():
            rows = rows[rows["time"].isna() | rows["time"].isin(years)]
    variables = answered.variables
    if len(rows) > MOST_ROWS and variables:
        whole = (rows[variables] == ALL).all(axis=1)
        rows = rows[whole] if whole.sum() > 3 else rows
    return rows.iloc[:: -(-len(rows) // MOST_ROWS)] if len(rows) > MOST_ROWS else rows


def _statistics(answered: Answered) -> list[Block]:
    table, chosen = answered.table, headline(answered)
    others = answered.ways[1:]
    labels = labels_of(chosen[["statistic", *answered.variables, "time", "standard"]])
    held = [way for way in others if way.kind != "release"]
    rows: list[list[Cell]] = []
    for label, row in zip(labels, chosen.to_dict("records"), strict=True):
        shown = _number(row["release value"])
        rows.append(
            [
                label,
                _number(row["value"]),
                f"[{row['release flag']}]" if shown is None else shown,
                _limits(row["release lcl"], row["release ucl"]),
                *(_number(row[f"{way.name} value"]) for way in held),
            ]
        )
    whole = len(chosen) == len(table)
    some = "" if whole else f" ({len(chosen)} of {len(table)} rows)"
    blocks: list[Block] = [
        Table(
            "Statistics beside those of the pooled records and the alternatives: a trusted curator with "
            f"OpenDP and noise of each site's own, each drawn once; masking at each site; a site alone{some}",
            ["statistic", "pooled", "release", "95 % interval", *(way.name for way in held)],
            rows,
        )
    ]
    if not whole:
        blocks.append(_summary(answered))
    blocks += _picture(answered, chosen)
    return blocks


def _summary(answered: Answered) -> Table:
    """Return how far every statistic is off: medians over its rows."""
    others = answered.ways[1:]
    rows: list[list[Cell]] = []
    for name, each in answered.table.groupby("statistic", sort=False):
        off: list[Cell] = [_median((each[f"{way.name} value"] - each["value"]).abs()) for way in others]
        rows.append(
            [
                str(name).replace("_", " "),
                len(each),
                int(each["release value"].notna().sum()),
                *off,
                _median(each["release se_noise"]),
                _median(each["release se_sampling"]),
            ]
        )
    return Table(
        "All statistics: median distance from the pooled truth, and stated standard errors, of what is shown",
        [
            "statistic",
            "rows",
            "released",
            *(way.name for way in others),
            "error of noise",
            "of sampling",
        ],
        rows,
    )


def _picture(answered: Answered, chosen: pd.DataFrame) -> list[Block]:
    """Return the distances from the truth of one headline statistic, with the release's intervals."""
    names = [name for name in answered.question.query.headlines if (chosen["statistic"] == name).any()]
    rows = chosen[chosen["statistic"] == names[0]] if names else chosen
    known = np.isfinite(rows["release value"]) & np.isfinite(rows["value"])
    hidden = int(rows["release value"].isna().sum())
    rows = rows[known].iloc[:MOST_DRAWN]
    if rows.empty:
        return []
    limits = [
        (float(low), float(high)) if np.isfinite(low) and np.isfinite(high) else None
        for low, high in zip(
            rows["release lcl"] - rows["value"], rows["release ucl"] - rows["value"], strict=True
        )
    ]
    off = (rows["release value"] - rows["value"]).abs()
    reach = _FAR * max([float(off.max()), *(max(-low, high) for low, high in filter(None, limits))])
    series: dict[str, list[float | None]] = {}
    missing = 0
    counted = bool(rows["statistic"].isin(COUNTS).any())  # of which one site holds fewer, of course
    for way in answered.ways[1:]:
        if counted and way.kind == "alone":
            continue
        away = (rows[f"{way.name} value"] - rows["value"]).to_numpy(np.float64)
        near = np.isfinite(away) & (np.abs(away) <= reach)
        missing += int((~near).sum())
        if near.any():
            series[way.name] = [float(x) if fits else None for x, fits in zip(away, near, strict=True)]
    labels = labels_of(rows[["statistic", *answered.variables, "time", "standard"]])
    left_out = "; left out are cells that the release suppresses" + f" ({hidden})" if hidden else ""
    if missing:
        left_out += (
            f"; of the cells drawn here {missing} points are left out, being suppressed in an alternative "
            "or too far off"
        )
    figure = points(
        f"Distance from the pooled truth, with the 95 % intervals of the release{left_out}",
        labels,
        series,
        axis="difference from the pooled truth",
        intervals={"release": limits},
        level=(0.0, "truth"),
    )
    return [figure]


def _number(value: Any) -> float | str | None:
    """Return a number for a table; of a time that is never reached that, and None where there is none."""
    if value == np.inf:
        return NOT_REACHED
    return float(value) if np.isfinite(value) else None


def _limits(low: Any, high: Any) -> str | None:
    """Return an interval for a table; None where there is none."""
    if np.isnan(low) or np.isnan(high):
        return None
    return " – ".join(NOT_REACHED if each == np.inf else f"{each:.4g}" for each in (low, high))


def _median(values: pd.Series) -> float | None:
    known = values[np.isfinite(values.to_numpy(np.float64))]
    return float(known.median()) if len(known) else None


# --- intervals --------------------------------------------------------------------------------------


def _intervals(answered: Answered) -> list[Block]:
    """Return how many stated intervals hold the pooled truth, by statistic, over all releases."""
    true = answered.question.finish(answered.ways[0].opened)
    keys = [*variables_of(true), *KEYS]
    named = true[[*keys, "value"]].rename(columns={"value": "truth"})
    tables = [answered.question.finish(opened_of(each)).merge(named, on=keys) for each in answered.asked]
    rows = pd.concat(tables).dropna(subset=["lcl", "ucl", "truth"])
    if rows.empty:
        return []
    rows = rows.assign(
        held=(rows["lcl"] <= rows["truth"]) & (rows["truth"] <= rows["ucl"]),
        near=(rows["value"] - rows["truth"]).abs() <= _NEAR * rows["se_noise"],
    )
    found: list[list[Cell]] = [
        [
            str(name).replace("_", " "),
            len(each),
            int(each["held"].sum()),
            100 * float(each["held"].mean()),
            100 * float(each["near"].mean()) if each["se_noise"].notna().all() else None,
        ]
        for name, each in rows.groupby("statistic", sort=False)
    ]
    return [
        Table(
            "Stated 95 % intervals that hold the pooled truth, and values that are within 1.96 stated "
            "standard errors of the noise. Intervals of rates and curves allow for sampling too, which the "
            "pooled truth does not show, so that they hold it more often; the noise alone is judged "
            "by the last column",
            ["statistic", "intervals", "hold it", "per cent", "within noise, per cent"],
            found,
            {"per cent": ".1f", "within noise, per cent": ".1f"},
        )
    ]
