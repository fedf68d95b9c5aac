"""What a plan expects: the errors of its statistics, and what to change where noise would dominate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Any

from mpc_engine.cli.tables import say, show
from mpc_engine.cli.terminal import out
from mpc_engine.codebook import Codebook
from mpc_engine.release.opened import Opened
from mpc_engine.release.plan import Plan
from mpc_engine.statistics.followup import FollowedUp
from mpc_engine.statistics.forecast import (
    MOST_CELLS,
    Advice,
    Expected,
    Forecast,
    advice,
    false_groups,
    forecast,
    forecast_cells,
    noisier_totals,
    strata_of,
    unit_of,
    usual_sizes,
)
from mpc_engine.statistics.query import Query


@dataclass(frozen=True)
class Outlook:
    """Forecasts by size of the cohort and what to change; ``stated`` whether somebody stated that size."""

    forecasts: tuple[Forecast, ...]
    advice: tuple[Advice, ...]
    stated: bool

    def as_fields(self) -> dict[str, Any]:
        """Return all of it as plain fields that JSON can hold: what is not finite becomes null."""
        fields: dict[str, Any] = _finite(
            {
                "forecasts": [each.as_fields() for each in self.forecasts],
                "advice": [each.as_fields() for each in self.advice],
            }
        )
        return fields


def look_ahead(
    query: Query, codebook: Codebook, plan: Plan, cases: int | None, cohort: Opened | None
) -> Outlook:
    """Return the expected errors for so many cases, for the cells of a cohort, or for a few usual sizes.

    Advice is given for the stated cohort, or for the largest usual size that needs any. Raises
    DocumentError for a cohort of other cells.
    """
    guarantee = plan.guarantee
    always = [*false_groups(guarantee, plan.groups), *noisier_totals(query, guarantee, plan.groups)]
    if plan.cells > MOST_CELLS and cases is None and cohort is None:
        return Outlook((), tuple(always), False)
    if cohort is not None:
        found = forecast_cells(query, codebook, guarantee, cohort)
        better = advice(query, codebook, guarantee, max(found.cases, 1))
        return Outlook((found,), (*better, *always), True)
    sizes = [size * strata_of(query, codebook) for size in usual_sizes(query, plan.cells)]
    all_sizes = sizes if cases is None else [cases]
    forecasts = [forecast(query, codebook, guarantee, size) for size in all_sizes]
    better = []
    for size in reversed(all_sizes):
        better = better or advice(query, codebook, guarantee, size)
    return Outlook(tuple(forecasts), (*better, *always), cases is not None)


def show_outlook(query: Query, ahead: Outlook) -> None:
    """Print the expected errors as a table and in a sentence, then what to change."""
    shown = [each for each in ahead.forecasts if each.rows]
    if not shown:
        say("No error is forecast: too many cells, or nothing that could be shown.")
    else:
        _show_errors(query, shown)
        first, main = shown[0], shown[0].main
        if ahead.stated:
            say(sentence(query, first))
        elif main is not None and first.break_even is not None and isfinite(first.break_even):
            least, where = (
                max(1, ceil(first.break_even)),
                f" in a {unit_of(query)}" if first.strata > 1 else "",
            )
            say(
                f"{_words(query, main)}: noise is the smaller part from about {least:,} cases{where} on. "
                "--cases N states what you expect."
            )
    out.print()
    for each in ahead.advice:
        _show_advice(query, each)


def sentence(query: Query, found: Forecast) -> str:
    """Return the main expected error in words; nothing if there is none."""
    if found.main is None:
        return ""
    grid = f", {query.grid.describe()}" if isinstance(query, FollowedUp) else ""
    return f"{_size(found)}{grid}: {_errors(query, found.main)}."


def _size(found: Forecast) -> str:
    spread = f" ({_number(found.per_stratum)} in each of {found.strata:,} strata)" if found.strata > 1 else ""
    return f"About {found.cases:,} cases{spread}"


def _errors(query: Query, row: Expected) -> str:
    unit, factor = _unit(row)
    noise, sampling = (_half(half * factor, unit) for half in (row.noise, row.sampling))
    most = " at most" if row.bound else ""
    return f"{_words(query, row)} {noise} {unit}".rstrip() + f" from noise, {sampling}{most} from sampling"


def _show_errors(query: Query, forecasts: list[Forecast]) -> None:
    columns = [{_key(row): row for row in found.rows} for found in forecasts]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    units = {_unit(row)[0] for column in columns for row in column.values()}
    unit = units.pop() if len(units) == 1 else ""
    common = f", {unit if unit.startswith('per ') else f'in {unit}'}" if unit else ""
    say(
        f"Expected error: ± from noise / ± from sampling, half-widths of 95 % intervals{common}", style="bold"
    )
    left: list[tuple[str, str]] = []
    sizes = [[_number(found.per_stratum)] for found in forecasts]
    for key in keys:
        row = next(column[key] for column in columns if key in column)
        unit, factor = _unit(row)
        values = [column[key].value * factor for column in columns if key in column]
        steady = max(values) - min(values) <= 0.05 * abs(values[-1])
        name = _words(query, row) if common or not unit else f"{_words(query, row)} ({unit})"
        left.append((name, _amount(values[-1]) if steady else ""))
        for size, column in zip(sizes, columns, strict=True):
            size.append(_cell(column[key], factor, unit) if key in column else "–")
    title = f"by cases in each {unit_of(query)}" if forecasts[0].strata > 1 else "by cases"
    heads = ("statistic", "assumed") if any(value for _, value in left) else ("statistic",)
    for some in _fitting(sizes, out.width - max(len(name) for name, _ in left) // 2 - len("assumed") - 4):
        rows = [
            (*each[: len(heads)], *cells)
            for each, cells in zip(left, zip(*(size[1:] for size in some), strict=True), strict=True)
        ]
        show(title, (*heads, *(size[0] for size in some)), rows, left=("statistic",))
    drawn = [row for found in forecasts for row in found.rows]
    if any(row.flag == "t" for row in drawn):
        say("t: beyond the reliable range in a cohort of that size; the result would flag it.")
    if any(row.bound for row in drawn):
        say("Without the variance the spread is unknown: the error from sampling is at most the one given.")


def _fitting(columns: list[list[str]], width: int) -> Iterator[list[list[str]]]:
    """Yield the columns in runs that are no wider than a width, at least one column in each."""
    run: list[list[str]] = []
    used = 0
    for column in columns:
        wide = max(map(len, column)) + 2
        if run and used + wide > width:
            yield run
            run, used = [], 0
        run, used = [*run, column], used + wide
    yield run


def _show_advice(query: Query, each: Advice) -> None:
    say(each.reason, style="bold")
    main = None if each.forecast is None else each.forecast.main
    if each.forecast is not None and main is not None:
        say(f"{_size(each.forecast)}: {_errors(query, main)}, with")
    for line in each.lines:
        out.print(f"    {line}", markup=False)
    out.print()


def _key(row: Expected) -> tuple[object, ...]:
    return row.statistic, row.time, row.standard, row.by


def _words(query: Query, row: Expected) -> str:
    """Return what a row is about, such as "5-year survival"."""
    name = row.statistic.replace("_", " ")
    if row.time is not None:
        name = f"{row.time:.4g}-year {name}"
    if row.statistic in ("mean", "median"):
        name += f" of {getattr(query, 'variable', '')}"
    if row.standard:
        name += f" ({row.standard})"
    if not row.by and len(getattr(query, "by", ())) > 0:
        name += ", all strata"
    return name


def _unit(row: Expected) -> tuple[str, float]:
    """Return the unit in which errors are printed and what a value is multiplied by."""
    if row.statistic.endswith("survival"):
        return "points", 100.0
    return row.note.split(", ")[0].split("; ")[0], 1.0


def _half(half: float, unit: str) -> str:
    if unit == "points" and half > 50:
        return "more than ± 50"
    return f"± {_amount(half)}"


def _cell(row: Expected, factor: float, unit: str) -> str:
    noise, sampling = row.noise * factor, row.sampling * factor
    shown = " / ".join(
        ">50" if unit == "points" and half > 50 else _amount(half) for half in (noise, sampling)
    )
    return f"{shown} t" if row.flag == "t" else shown


def _number(cases: float) -> str:
    return f"{cases:,.0f}" if cases >= 100 or cases.is_integer() else f"{cases:.1f}"


def _amount(value: float) -> str:
    if not isfinite(value):
        return "–"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 1 else f"{value:.2g}"


def _finite(fields: Any) -> Any:
    """Return plain fields with None in place of numbers that JSON does not have."""
    if isinstance(fields, dict):
        return {name: _finite(each) for name, each in fields.items()}
    if isinstance(fields, list):
        return [_finite(each) for each in fields]
    return None if isinstance(fields, float) and not isfinite(fields) else fields
