"""Layouts: the tidy table as people expect to read it – life tables, summaries, crosstabs, lists.

Every layout is text as it is printed, with [c] and the like where something is hidden. Standard errors of
sampling and of the noise stand apart. Nothing is computed here but the place of each number on the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd

from mpc_engine.errors import DocumentError
from mpc_engine.result.numerals import intervals, marked, marks, scaled, whole, with_interval
from mpc_engine.result.vocabulary import methods, words
from mpc_engine.statistics.followup import SUMMARY_YEARS
from mpc_engine.statistics.query import Picture
from mpc_engine.statistics.tidy import ALL

COUNTS: Final = ("count", "total")
"""Statistics of a crosstab: cells, and totals with noise of their own."""
PERCENTAGES: Final = ("percent", "row_percent", "column_percent")
CONDITIONAL: Final = "conditional_survival"
"""How statistics begin that are curves given survival to some year."""
DETAIL: Final = ("age_specific_rate", "cases", "population")
"""What rates are made of: many rows, which come last."""
MOST_TOGETHER: Final = 12
"""Rows of a statistic that shares a page with others."""
SIZES: Final = ("patients", "number")
"""Sizes of strata: other statistics show them as n."""
CURVES: Final = ("survival", "net_survival")
"""Statistics that make a curve, by preference."""
LIFE_TABLE: Final = (
    ("at_risk", "Alive at start"),
    ("entered", "Entered"),
    ("events", "Events"),
    ("censored", "Lost"),
    ("adjusted_at_risk", "Adjusted alive"),
    ("interval_survival", "Interval %"),
    ("survival", "Cumul. %"),
    ("expected_interval_survival", "Expected interval %"),
    ("expected_survival", "Expected cumul. %"),
    ("relative_interval_survival", "Relative interval %"),
    ("net_survival", "Net %"),
)
"""Columns of a life table, where there are such statistics."""
PEOPLE: Final = ("at_risk", "entered", "events", "censored", "adjusted_at_risk")
"""Columns of a life table that count people."""
BELOW: Final = "<0: the noise made this number negative; survival is computed with it as it is"
TOTAL: Final = "Total"
Frame: TypeAlias = pd.DataFrame
"""A table of texts, for who names its type without pandas."""


@dataclass(frozen=True)
class Page:
    """One table to print: text in ``frame``, whose first ``keys`` columns say what a row is about.

    ``narrow``, with ``narrow_keys``, is the same in fewer columns and more rows, for where the page is too
    wide; None if there is no such form. ``notes`` has a text for each row of ``frame``, empty where there
    are none; ``foot`` is printed beneath.
    """

    title: str
    frame: pd.DataFrame
    keys: int
    narrow: pd.DataFrame | None = None
    narrow_keys: int = 0
    notes: tuple[str, ...] = ()
    foot: tuple[str, ...] = ()


def pages(
    table: pd.DataFrame,
    variables: Sequence[str],
    headlines: Sequence[str],
    picture: Picture,
    name: str | None = None,
    by: Sequence[str] | None = None,
) -> list[Page]:
    """Return everything there is to print, or the pages of one layout.

    ``by`` are the variables that make strata, all of them if it is None; what is by further ones, such as
    age within strata, comes last. Raises DocumentError for a layout that the statistics do not make.
    """
    match name:
        case "life-table":
            return life_table(table, variables, headlines)
        case "summary":
            return [summary(table, variables, headlines)]
        case "crosstab":
            return [crosstab(table, variables, each) for each in _counted(table)]
        case "estimates":
            return [estimates(table, variables)]
        case None:
            return _natural(table, variables, headlines, picture, by)
        case _:
            raise DocumentError(f"{name} is no layout; layouts: life-table, summary, crosstab, estimates")


def _natural(
    table: pd.DataFrame,
    variables: Sequence[str],
    headlines: Sequence[str],
    picture: Picture,
    by: Sequence[str] | None,
) -> list[Page]:
    """Return the pages in the order of what was asked: headlines, what else was, and cases in detail last.

    A statistic of many rows has a page of its own: none is pushed off the end of another's.
    """
    present = table["statistic"].astype(str)
    timed = table["time"].notna()
    detailed = pd.Series(False, index=table.index)
    for name in variables:
        if by is not None and name not in by:
            detailed |= table[name].astype(str) != ALL
    if picture == "curve" and timed.any():
        curves = [name for name in headlines if (timed & (present == name)).any()] or [*CURVES[:1]]
        curves += [name for name in present[timed].unique() if name.startswith(CONDITIONAL)]
        shown = [summary(table[~detailed], variables, [name]) for name in curves]
        last = [
            summary(table[detailed], variables, [name])
            for name in curves
            if (detailed & timed & (present == name)).any()
        ]
        rest = table[~timed & ~present.isin(SIZES)]
    elif present.isin(COUNTS).any():
        shown, last = [crosstab(table, variables, each) for each in _counted(table)], []
        rest = table[~present.isin((*COUNTS, *PERCENTAGES))]
    else:
        asked = [name for name in headlines if (present == name).any()]
        shown = [estimates(table[present == name], variables) for name in asked]
        hidden = present.isin((*asked, *SIZES)) | present.str.startswith("funnel_")
        detail = ~hidden & present.isin(DETAIL)
        last = [
            estimates(table[detail & (present == name) & where], variables)
            for name in present[detail].unique()
            for where in (~detailed, detailed)
            if (detail & (present == name) & where).any()
        ]
        rest = table[~hidden & ~detail]
    return [*shown, *_further(rest, variables, bool(shown)), *last]


def _further(rest: pd.DataFrame, variables: Sequence[str], more: bool) -> list[Page]:
    """Return pages of estimates: one for all statistics of few rows, and one each for the others."""
    if rest.empty:
        return []
    names = rest["statistic"].astype(str)
    sizes = names.value_counts()
    few = names.isin(sizes[sizes <= MOST_TOGETHER].index)
    found = [estimates(rest[names == name], variables) for name in names[~few].unique()]
    if few.any():
        found.append(estimates(rest[few], variables, "Further statistics" if more else "Statistics"))
    return found


def joined(found: Sequence[Page]) -> pd.DataFrame:
    """Return the rows of several pages of the same columns in one frame; the title says whose they are."""
    if len(found) == 1:
        return found[0].frame
    return pd.concat([page.frame.assign(stratum=page.title) for page in found], ignore_index=True)[
        ["stratum", *found[0].frame.columns]
    ]


def curve_statistic(table: pd.DataFrame, headlines: Sequence[str]) -> str:
    """Return the statistic that makes the curve. Raises DocumentError when there is none."""
    timed = set(table.loc[table["time"].notna(), "statistic"].astype(str))
    for name in (*headlines, *CURVES):
        if name in timed:
            return name
    raise DocumentError("this release has no survival; ask for the layout crosstab or estimates")


def strata(table: pd.DataFrame, variables: Sequence[str]) -> pd.Series:
    """Return what each row is about in words: its categories, and the standard population if it has one."""
    columns = [table[name].astype(str).where(table[name].astype(str) != ALL, "") for name in variables]
    columns.append(table["standard"].astype(str))
    words = pd.Series([""] * len(table), index=table.index, dtype=object)
    for column in columns:
        gap = ((words != "") & (column != "")).map({True: " · ", False: ""})
        words = words + gap + column
    return words.where(words != "", "all")


def life_table(table: pd.DataFrame, variables: Sequence[str], headlines: Sequence[str]) -> list[Page]:
    """Return a life table for every stratum. Raises DocumentError for a release without survival."""
    curve = curve_statistic(table, headlines)
    heads = dict(LIFE_TABLE)
    names = table["statistic"].astype(str)
    rows = table[table["time"].notna() & names.isin(heads)]
    how = _by(methods(rows[rows["statistic"].astype(str) == curve]), ": {}")
    return [
        _one_life_table(f"{stratum}{how}", each, heads, curve)
        for stratum, each in rows.groupby(strata(rows, variables), sort=False)
    ]


def _one_life_table(title: str, rows: pd.DataFrame, heads: dict[str, str], curve: str) -> Page:
    names = rows["statistic"].astype(str)
    times = np.sort(rows["time"].unique())
    starts = [0.0, *times[:-1]]
    frame = pd.DataFrame({"Years": [f"{a:.4g}–{b:.4g}" for a, b in zip(starts, times, strict=True)]})

    def column(chosen: pd.DataFrame, texts: pd.Series) -> list[str]:
        values = dict(zip(chosen["time"], texts, strict=True))
        return [values.get(time, "") for time in times]

    floored = False
    for name, head in heads.items():
        chosen = rows[names == name]
        if chosen.empty:
            continue
        texts = marked(chosen)
        if name in PEOPLE:
            below = (chosen["value"] < 0) & ~chosen["display"].str.startswith("[")
            floored |= bool(below.any())
            texts = texts.mask(below, "<0" + marks(chosen))
        frame[head] = column(chosen, texts)
        if name == curve:
            frame["SE sampling"] = column(chosen, scaled(chosen, "se_sampling"))
            frame["SE noise"] = column(chosen, scaled(chosen, "se_noise"))
            frame["95 % CI"] = column(chosen, intervals(chosen))
    left_out = [head for name, head in heads.items() if name.endswith("survival") and name != curve]
    foot = (BELOW,) if floored else ()
    return Page(title, frame, 1, frame.drop(columns=left_out, errors="ignore"), 1, foot=foot)


def summary(
    table: pd.DataFrame,
    variables: Sequence[str],
    headlines: Sequence[str],
    errors: bool = False,
) -> Page:
    """Return one line per stratum: number, then the curve after 1, 3, 5 and 10 years where it has them.

    Where the grid has none of these times its last one stands in. Raises DocumentError for a release
    without survival.
    """
    curve = curve_statistic(table, headlines)
    names = table["statistic"].astype(str)
    chosen = table[(names == curve) & table["time"].notna()]
    times = chosen["time"].unique()
    years = [year for year in SUMMARY_YEARS if np.isclose(times, year).any()] or [times.max()]
    keys = _keys(chosen, variables)
    frame = chosen[keys].drop_duplicates().astype(str).reset_index(drop=True)
    index = pd.MultiIndex.from_frame(frame) if keys else None

    def aligned(rows: pd.DataFrame, texts: pd.Series) -> list[str]:
        if index is None:
            return [str(texts.iloc[0]) if len(texts) else ""]
        held = dict(zip(rows[keys].astype(str).itertuples(index=False, name=None), texts, strict=True))
        return [str(held.get(key, "")) for key in index]

    if index is None:
        frame = pd.DataFrame(index=range(1))
    frame["n"] = _sizes(table, chosen, curve, aligned)
    long, notes = [], []
    for year in years:
        rows = chosen[np.isclose(chosen["time"], year)]
        head = f"{year:g} year{'' if year == 1 else 's'}"
        texts = aligned(rows, with_interval(rows))
        notes.append(aligned(rows, rows["note"].astype(str)))
        long.append(frame[[*keys, "n"]].assign(years=f"{year:g}", value=texts, note=notes[-1]))
        frame[head] = texts
        if errors:
            frame[f"{head}: SE sampling"] = aligned(rows, scaled(rows, "se_sampling"))
            frame[f"{head}: SE noise"] = aligned(rows, scaled(rows, "se_noise"))
    narrow = pd.concat(long).sort_index(kind="stable").reset_index(drop=True)
    if (narrow["note"] == "").all():
        narrow = narrow.drop(columns="note")
    said = tuple(_at_times(each, years) for each in zip(*notes, strict=True))
    title = f"{words(curve)} in % (95 % CI{_by(methods(chosen), '; {}')})"
    return Page(title, frame, len(keys), narrow, len(keys) + 2, said)


def _sizes(table: pd.DataFrame, chosen: pd.DataFrame, curve: str, aligned: Any) -> list[str]:
    """Return the numbers of a summary: of patients, or of those at risk where the curve begins."""
    names, begin = table["statistic"].astype(str), chosen["time"].min()
    first, begun = chosen[chosen["time"] == begin], table[(names == "at_risk") & (table["time"] == begin)]
    starting = aligned(begun, begun["display"].astype(str).str.partition(".")[0])
    if curve.startswith(CONDITIONAL):
        return list(starting)
    patients = table[names == "patients"]
    guarded, entered = aligned(patients, marked(patients)), aligned(first, first["n_shown"].map(whole))
    return [a or b or c for a, b, c in zip(guarded, entered, starting, strict=True)]


def _at_times(notes: Sequence[str], years: Sequence[float]) -> str:
    """Return the notes of one row of a summary: what holds at some times only is said with these."""
    pieces: dict[str, list[str]] = {}
    for year, note in zip(years, notes, strict=True):
        for piece in note.split("; ") if note else ():
            pieces.setdefault(piece, []).append(f"{year:g}")
    together: dict[tuple[str, ...], list[str]] = {}
    for piece, at in pieces.items():
        together.setdefault(tuple(at), []).append(piece)
    return "; ".join(
        "; ".join(found) if len(at) == len(notes) else f"at {', '.join(at)} years {'; '.join(found)}"
        for at, found in together.items()
    )


def _by(method: str, form: str) -> str:
    return form.format(method) if method else ""


def crosstab(table: pd.DataFrame, variables: Sequence[str], statistic: str = "count") -> Page:
    """Return counts or percentages by all variables but the last in rows and the last one in columns.

    Raises DocumentError where the release has no such statistic.
    """
    names = table["statistic"].astype(str)
    wanted = COUNTS if statistic == "count" else (statistic,)
    rows = table[names.isin(wanted)]
    if rows.empty:
        others = [each for each in ("count", *PERCENTAGES) if (names == each).any()]
        held = (
            f"it has: {', '.join(others)}" if others else f"it has the layouts {', '.join(_fitting(table))}"
        )
        raise DocumentError(f"this release has no {statistic} to cross-tabulate; {held}")
    title, head_of_value = ("", "n") if statistic == "count" else (words(statistic), "%")
    labels = {name: rows[name].astype(str).replace(ALL, TOTAL) for name in variables}
    texts = marked(rows)
    if len(variables) < 2:
        frame = pd.DataFrame({**labels, head_of_value: texts}).reset_index(drop=True)
        return Page(title, frame, len(labels))
    *keys, last = variables
    long = pd.DataFrame({**labels, head_of_value: texts}).reset_index(drop=True)
    heads = [f"{last} {head}" if head != TOTAL else head for head in long[last].unique()]
    columns = dict(zip(long[last].unique(), heads, strict=True))
    wide: dict[tuple[str, ...], dict[str, str]] = {}
    for *key, head, text in long.itertuples(index=False, name=None):
        wide.setdefault(tuple(key), {})[columns[head]] = text
    frame = pd.DataFrame(
        [[*key, *(cells.get(head, "") for head in heads)] for key, cells in wide.items()],
        columns=[*keys, *heads],
    )
    return Page(title, frame, len(keys), long, len(variables))


def estimates(table: pd.DataFrame, variables: Sequence[str], title: str = "") -> Page:
    """Return one line per row: what it is about, the value with its interval, both standard errors."""
    table = table.reset_index(drop=True)
    keys = _keys(table, variables)
    frame = table[keys].astype(str).reset_index(drop=True)
    several = table["statistic"].nunique() > 1
    frame.insert(0, "statistic", table["statistic"].astype(str).map(words))
    frame["years"] = table["time"].map(lambda x: "" if np.isnan(x) else f"{x:.4g}")
    own = table["n_shown"] == table["value"]  # a number of its own size
    frame["n"] = table["n_shown"].map(whole).where(~own, "")
    frame["value"] = marked(table)
    frame["95 % CI"] = intervals(table)
    frame["SE sampling"], frame["SE noise"] = scaled(table, "se_sampling", 1), scaled(table, "se_noise", 1)
    frame["note"] = table["note"].astype(str)
    optional = ("years", "n", "95 % CI", "SE sampling", "SE noise", "note")
    kept = [name for name in frame if name not in optional or (frame[name] != "").any()]
    if not several:
        interval = "95 % CI" in kept
        how = "; ".join([*(["95 % CI"] if interval else []), *filter(None, [methods(table)])])
        title = str(frame["statistic"].iloc[0]) if len(frame) else title
        title = f"{title} ({how})" if how and title else title
        kept.remove("statistic")
    short = ("SE sampling", "SE noise", "note")
    narrow = frame[[name for name in kept if name not in short]]
    count = len(keys) + several
    return Page(title, frame[kept], count, narrow, count)


def _keys(table: pd.DataFrame, variables: Sequence[str]) -> list[str]:
    """Return the variables that tell rows apart, and the standard population where there is one."""
    names = [name for name in variables if (table[name].astype(str) != ALL).any()]
    return [*names, "standard"] if (table["standard"].astype(str) != "").any() else names


def _fitting(table: pd.DataFrame) -> list[str]:
    """Return the layouts other than a crosstab that a table makes."""
    curves = table["time"].notna() & table["statistic"].isin(CURVES)
    return [*(("life-table", "summary") if curves.any() else ()), "estimates"]


def _counted(table: pd.DataFrame) -> list[str]:
    present = set(table["statistic"].astype(str))
    return ["count", *(name for name in PERCENTAGES if name in present)]
