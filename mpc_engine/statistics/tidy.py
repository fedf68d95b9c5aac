"""The tidy table: one row per statistic, the same columns whatever was asked.

Rows are added in blocks of equal kind, vectorised. Flags follow one notation: ``ok``; ``c`` suppressed;
``t`` beyond the reliable range of a curve; ``u`` unreliable (a large relative error); ``z`` not applicable,
as for what lies outside the query's filters; ``x`` not available. A suppressed value is missing and
flagged, never 0, and never a missing row. ``value`` is raw, with its noise; ``display`` is what a table
prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.intervals import Estimate

STATISTICS: Final = (
    "statistic",
    "time",
    "n_shown",
    "value",
    "display",
    "lcl",
    "ucl",
    "se_sampling",
    "se_noise",
    "ci_method",
    "standard",
    "flag",
    "note",
)
"""Columns after ``preset`` and the variables."""
NUMBERS: Final = ("time", "n_shown", "value", "lcl", "ucl", "se_sampling", "se_noise")
ALL: Final = "(all)"
"""The category of a variable over which a statistic is taken as a whole."""
OK: Final = "ok"
SUPPRESSED: Final = "c"
TRUNCATED: Final = "t"
UNRELIABLE: Final = "u"
NOT_APPLICABLE: Final = "z"
NOT_AVAILABLE: Final = "x"
OUTSIDE: Final = "outside the filters"
"""Note of rows about categories that the query's filters leave out: zeros that are public in any case."""

LARGEST_RELATIVE_ERROR: Final = 0.25
"""Standard error, relative to the value, above which a rate, ratio or percentage is marked unreliable."""

Marks = NDArray[Any]
"""Flags as an array."""
Words = str | Sequence[Any] | NDArray[Any]
"""One text for all rows, or an array of them."""
Labels = Mapping[str, "str | Sequence[str] | NDArray[Any]"]


@dataclass(frozen=True)
class Style:
    """How a value is printed: decimals, a factor (100 for per cent), and whether it stops at 0 from below.

    ``relative`` values, such as rates, are marked unreliable when their standard error, noise included, is
    more than a quarter of them. What is below ``least`` is printed as such, "<0.001", as p values are.
    """

    decimals: int = 0
    factor: float = 1.0
    floor: bool = False
    relative: bool = False
    least: float = 0.0

    def text(self, value: float) -> str:
        """Return the printed form of a value that is shown."""
        scaled = value * self.factor
        if self.floor:
            scaled = max(scaled, 0.0)
        if np.isinf(scaled):
            return "NR"
        if self.least > 0 and scaled < self.least:
            return f"<{self.least:.{self.decimals}f}"
        return f"{round(scaled, self.decimals) + 0.0:,.{self.decimals}f}"  # 0.0 turns -0.0 into 0


COUNT: Final = Style(floor=True)
PERCENT: Final = Style(1, 100.0)


class Tidy:
    """A table of statistics under construction; ``variables`` are the query's, each a column of its own.

    ``outside`` holds by variable the labels of categories that the filters leave out. Every row of one of
    them is flagged z with the note :data:`OUTSIDE`, whatever is added there.
    """

    def __init__(
        self, preset: str, variables: Sequence[str], outside: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.preset = preset
        self.variables = tuple(dict.fromkeys(variables))
        self._outside = {name: [*labels] for name, labels in (outside or {}).items() if labels}
        self._blocks: list[dict[str, NDArray[Any]]] = []

    def add(
        self,
        statistic: str,
        value: ArrayLike,
        *,
        labels: Labels | None = None,
        style: Style = COUNT,
        time: ArrayLike = np.nan,
        n: ArrayLike = np.nan,
        lower: ArrayLike = np.nan,
        upper: ArrayLike = np.nan,
        se_sampling: ArrayLike = np.nan,
        se_noise: ArrayLike = np.nan,
        method: Words = "",
        standard: str = "",
        flag: ArrayLike | None = None,
        note: Words = "",
    ) -> None:
        """Add rows; everything is broadcast to the shape of ``value`` and laid out row-major.

        ``labels`` gives the category of each variable, ``(all)`` where it is left out. Without ``flag``
        what is NaN is suppressed; with it, what is NaN and flagged ok becomes x. A flag other than ok, t and
        u hides the value and its interval.
        Raises DocumentError for a label of a variable that the table has not.
        """
        unknown = set(labels or {}) - set(self.variables)
        if unknown:
            raise DocumentError(f"the table has no variable {', '.join(sorted(unknown))}")
        values = np.asarray(value, np.float64)
        shape = values.shape

        def spread(x: Any, dtype: Any) -> NDArray[Any]:
            return np.array(np.broadcast_to(np.asarray(x, dtype), shape)).reshape(-1)

        flat = values.reshape(-1).copy()
        flags = np.where(np.isnan(flat), SUPPRESSED, OK) if flag is None else spread(flag, object)
        flags = flags.astype(object)
        flags[np.isnan(flat) & (flags == OK)] = NOT_AVAILABLE
        if style.relative:
            error = np.hypot(*(np.nan_to_num(spread(each, np.float64)) for each in (se_sampling, se_noise)))
            flags[(flags == OK) & (error > LARGEST_RELATIVE_ERROR * np.abs(flat))] = UNRELIABLE
        held = {name: spread((labels or {}).get(name, ALL), object) for name in self.variables}
        beyond = np.zeros(flat.shape, np.bool_)
        for name, left_out in self._outside.items():
            beyond |= np.isin(held[name].astype(str), left_out)
        flags[beyond] = NOT_APPLICABLE
        visible = np.isin(flags.astype(str), (OK, TRUNCATED, UNRELIABLE))
        flat[~visible] = np.nan
        numbers = {
            "time": time,
            "n_shown": n,
            "lcl": lower,
            "ucl": upper,
            "se_sampling": se_sampling,
            "se_noise": se_noise,
        }
        block = {name: spread(x, np.float64) for name, x in numbers.items()}
        for name in ("n_shown", "lcl", "ucl", "se_sampling", "se_noise"):
            block[name][~visible] = np.nan
        block["value"] = flat
        block["display"] = np.array(
            [
                (style.text(x) if not np.isnan(x) else "") if seen else f"[{mark}]"
                for x, seen, mark in zip(flat.tolist(), visible.tolist(), flags.tolist(), strict=True)
            ],
            object,
        )
        block["flag"] = flags
        for name, words in (
            ("preset", self.preset),
            ("statistic", statistic),
            ("ci_method", method),
            ("standard", standard),
            ("note", note),
        ):
            block[name] = spread(words, object)
        block["note"][beyond] = OUTSIDE
        block.update(held)
        self._blocks.append(block)

    def add_estimate(
        self,
        statistic: str,
        found: Estimate,
        *,
        shape: tuple[int, ...] | None = None,
        labels: Labels | None = None,
        style: Style = COUNT,
        time: ArrayLike = np.nan,
        n: ArrayLike = np.nan,
        standard: str = "",
        note: Words = "",
    ) -> None:
        """Add an estimate's rows, its arrays first brought to ``shape``; see `add`."""

        def shaped(x: NDArray[Any]) -> NDArray[Any]:
            return x if shape is None else x.reshape(shape)

        self.add(
            statistic,
            shaped(found.value),
            labels=labels,
            style=style,
            time=time,
            n=n,
            lower=shaped(found.lower),
            upper=shaped(found.upper),
            se_sampling=shaped(found.se_sampling),
            se_noise=shaped(found.se_noise),
            method=found.method,
            standard=standard,
            flag=shaped(found.flag),
            note=note,
        )

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return all rows by column, in the order in which they were added: text as objects, floats else."""
        names = ("preset", *self.variables, *STATISTICS)
        if not self._blocks:
            return {name: np.zeros(0, np.float64 if name in NUMBERS else object) for name in names}
        return {name: np.concatenate([block[name] for block in self._blocks]) for name in names}


def grid_labels(axes: Sequence[Any], extra: int = 0) -> dict[str, NDArray[Any]]:
    """Return each axis's categories shaped to broadcast over the axes' grid and ``extra`` axes behind it.

    ``axes`` are :class:`~mpc_engine.release.grid.Axis`; the arrays are of objects.
    """
    count = len(axes) + extra
    labels = {}
    for position, axis in enumerate(axes):
        shape = [1] * count
        shape[position] = len(axis.categories)
        labels[axis.variable] = np.array(axis.categories, object).reshape(shape)
    return labels
