"""Numbers as tables print them: scaled, with intervals, and with the marks of flags that do not hide them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mpc_engine.statistics.tidy import TRUNCATED, UNRELIABLE


@dataclass(frozen=True)
class Scale:
    """How a statistic's numbers are printed: a factor (100 for per cent) and decimals."""

    factor: float
    decimals: int

    def texts(self, values: pd.Series, more: int = 0) -> pd.Series:
        """Return numbers as text, missing ones empty, with so many ``more`` decimals."""
        return (values * self.factor).map(
            lambda x: "" if np.isnan(x) else "NR" if np.isinf(x) else f"{x:,.{self.decimals + more}f}"
        )


def scales(table: pd.DataFrame) -> dict[str, Scale]:
    """Return how each statistic is printed, from what its rows display."""
    display = table["display"].astype(str)
    number = pd.to_numeric(display.str.replace(",", ""), errors="coerce")
    ratio = (number / table["value"]).where((number != 0) & (table["value"] != 0))
    decimals = display.str.partition(".")[2].str.len().where(number.notna())
    names = table["statistic"].astype(str)
    by_ratio, by_decimals = ratio.groupby(names).median(), decimals.groupby(names).max()
    found = {}
    for name in names.unique():
        typical = by_ratio[name]
        per_cent = (
            typical > 10 if not np.isnan(typical) else name.endswith("survival") and "median" not in name
        )
        digits = by_decimals[name]
        if np.isnan(digits) and name.startswith("median_"):
            digits = by_decimals[by_decimals.index.str.startswith("median_")].max()
        found[str(name)] = Scale(100.0 if per_cent else 1.0, 1 if np.isnan(digits) else int(digits))
    return found


def marked(table: pd.DataFrame) -> pd.Series:
    """Return what is displayed, with the mark of a flag that does not hide it: 57.7 [t]."""
    return table["display"].astype(str) + marks(table)


def scaled(table: pd.DataFrame, column: str, more: int = 0) -> pd.Series:
    """Return a column of numbers as text, each row in the scale of its statistic."""
    parts = [
        found.texts(rows[column], more)
        for name, found in scales(table).items()
        if len(rows := table[table["statistic"].astype(str) == name])
    ]
    return pd.concat(parts).reindex(table.index) if parts else pd.Series([], dtype=object)


def intervals(table: pd.DataFrame) -> pd.Series:
    lower, upper = scaled(table, "lcl"), scaled(table, "ucl")
    both = (lower + "–" + upper).where((lower != "") & (upper != ""), "")
    return both.replace("NR–NR", "NR")


def with_interval(table: pd.DataFrame) -> pd.Series:
    limits = intervals(table)
    return table["display"].astype(str) + (" (" + limits + ")").where(limits != "", "") + marks(table)


def marks(table: pd.DataFrame) -> pd.Series:
    flags = table["flag"].astype(str)
    return (
        pd.Series("", index=table.index)
        .mask(flags == TRUNCATED, f" [{TRUNCATED}]")
        .mask(flags == UNRELIABLE, f" [{UNRELIABLE}]")
    )


def whole(value: float) -> str:
    return "" if np.isnan(value) else f"{max(round(value), 0):,}"
