"""What errors to expect of a query before anything is spent, and what to change where noise would dominate.

A forecast lays out a cohort that holds nobody's records: made up by :meth:`Query.typical`, or the cells of
a release of dummy data. It takes the noise that the plan would add and computes the query's statistics as
after a session; their standard errors then are what a cohort like that would have. Nothing here is secret and
nothing is random.

Both parts of a standard error are stated as half-widths of a 95 % interval, 1.96 standard errors, for the
median stratum.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose, prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mpc_engine.codebook import Codebook, IntegerVariable
from mpc_engine.dp.accounting import Guarantee, Rule, expected_false_cells, guarantee_for
from mpc_engine.errors import DocumentError
from mpc_engine.estimators.intervals import normal_quantile
from mpc_engine.release.groups import Groups, parts_of
from mpc_engine.release.opened import Opened, OpenedTally, arrange
from mpc_engine.statistics.crosstab import Crosstab
from mpc_engine.statistics.followup import SUMMARY_YEARS
from mpc_engine.statistics.mean import Mean
from mpc_engine.statistics.query import Query
from mpc_engine.statistics.tidy import ALL, STATISTICS

MOST_CELLS: Final = 1_000_000
"""Most cells of a release that is forecast; its table of statistics would be too large beyond."""
MAIN_YEAR: Final = 5.0
"""The time whose error is named first, where a curve has it."""
BOUND_FACTOR: Final = 2.0
"""A sampling error that is only a bound, for want of squares, is often so many times too large."""

_Z = normal_quantile(0.95)
_SIZES = (80, 1_000, 200, 30)
_COUNTS = (20, 1_000, 100, 5)


@dataclass(frozen=True)
class Expected:
    """The expected error of one statistic, in its own unit.

    Attributes:
        statistic, time, standard, note: as in the tidy table; ``time`` in years, None where it has none.
        by: the variables within whose categories it is; empty for all strata together.
        strata: the number of strata that it stands for.
        value: its value in the cohort.
        noise, sampling: half-widths of 95 % intervals from either source alone.
        bound: whether ``sampling`` is only an upper bound.
        flag: ``ok``, or ``t`` where the result would mark it as beyond the reliable range.
    """

    statistic: str
    time: float | None
    standard: str
    note: str
    by: tuple[str, ...]
    strata: int
    value: float
    noise: float
    sampling: float
    bound: bool
    flag: str

    @property
    def share(self) -> float:
        """Noise relative to sampling; above 1 where noise is the larger part."""
        sampling = self.sampling / (BOUND_FACTOR if self.bound else 1.0)
        return self.noise / sampling if sampling > 0 else np.inf

    def as_fields(self) -> dict[str, object]:
        """Return all of it as plain fields."""
        return {**vars(self), "by": list(self.by)}


@dataclass(frozen=True)
class Forecast:
    """Expected errors in a cohort of ``cases``, in ``strata`` with ``per_stratum`` cases each, by the median.

    ``rows`` are the query's headlines, at the times of the summary.
    """

    cases: int
    strata: int
    per_stratum: float
    rows: tuple[Expected, ...]

    @property
    def main(self) -> Expected | None:
        """The first headline within strata, at five years or the nearest time; None if not available."""
        if not self.rows:
            return None
        first = [row for row in self.rows if row.statistic == self.rows[0].statistic]
        finest = max(len(row.by) for row in first)
        return min(
            (row for row in first if len(row.by) == finest), key=lambda row: abs((row.time or 0) - MAIN_YEAR)
        )

    @property
    def break_even(self) -> float | None:
        """Cases in a stratum from which noise is the smaller part: its share falls with their square root."""
        return None if self.main is None else self.per_stratum * self.main.share**2

    def as_fields(self) -> dict[str, object]:
        """Return all of it as plain fields."""
        return {
            "cases": self.cases,
            "strata": self.strata,
            "cases_per_stratum": self.per_stratum,
            "noise_equals_sampling_at_cases_per_stratum": self.break_even,
            "statistics": [row.as_fields() for row in self.rows],
        }


@dataclass(frozen=True)
class Advice:
    """What to change: why, the lines of the query's document that do it, and the forecast after that."""

    reason: str
    lines: tuple[str, ...] = ()
    forecast: Forecast | None = None

    def as_fields(self) -> dict[str, object]:
        """Return all of it as plain fields."""
        after = None if self.forecast is None else self.forecast.as_fields()
        return {"reason": self.reason, "lines": list(self.lines), "forecast": after}


def strata_of(query: Query, codebook: Codebook) -> int:
    """Return in how many strata the query gives its statistics; for counts, the number of cells."""
    return prod(codebook.size(name) for name in getattr(query, "by", ()))


def unit_of(query: Query) -> str:
    """Return what cases are stated for: a cell where counts are asked for, and else a stratum."""
    return "cell" if query.headlines[:1] == ("count",) else "stratum"


def usual_sizes(query: Query, cells: int) -> tuple[int, ...]:
    """Return sizes of strata to forecast where none is stated, ascending; fewer for very many cells."""
    sizes = _COUNTS if unit_of(query) == "cell" else _SIZES
    return tuple(sorted(sizes[: max(1, min(len(sizes), 500_000 // max(cells, 1)))]))


def forecast(query: Query, codebook: Codebook, guarantee: Guarantee, cases: int) -> Forecast:
    """Return the expected errors in a made-up cohort of so many cases, spread evenly over the cells.

    Raises DocumentError if the query does not fit the codebook or has more than :data:`MOST_CELLS` cells.
    """
    layout = query.layout(codebook)
    _refuse_many(layout.groups)
    pattern = [np.ones(each.guard.grid.cells, np.bool_) for each in layout.groups]
    sums = query.typical(codebook, layout, cases)
    opened = arrange(layout.groups, pattern, sums, _variances(guarantee), guarantee.threshold)
    strata = strata_of(query, codebook)
    return Forecast(cases, strata, cases / strata, _expected(query, codebook, opened))


def forecast_cells(query: Query, codebook: Codebook, guarantee: Guarantee, cells: Opened) -> Forecast:
    """Return the expected errors in a cohort given by opened cells, as of a release of dummy data.

    What is suppressed there stays so; the noise that the cells carry counts as part of the cohort. Raises
    DocumentError if they are not the cells of this query, or as `forecast`.
    """
    groups = query.layout(codebook).groups
    _refuse_many(groups)
    pattern, values = [], []
    for each in groups:
        found = cells.groups.get(each.name)
        tallies = [] if found is None else [found.guard, *found.members.values()]
        if [tally.grid for tally in tallies] != [tally.grid for tally in each.tallies]:
            raise DocumentError(f"these cells are of another query or codebook: {each.name} differ")
        pattern.append(~np.isnan(tallies[0].values).reshape(-1))
        values += [tally.values.reshape(-1) for tally in tallies]
    opened = arrange(groups, pattern, values, _variances(guarantee), guarantee.threshold)
    first: OpenedTally = opened.groups[groups[0].name].guard
    held = np.maximum(first.values[~np.isnan(first.values)], 0.0)
    cases, strata = float(held.sum()), strata_of(query, codebook)
    middle = float(np.median(held)) if held.size and strata == first.grid.cells else cases / strata
    return Forecast(round(cases), strata, middle, _expected(query, codebook, opened))


def advice(query: Query, codebook: Codebook, guarantee: Guarantee, cases: int) -> list[Advice]:
    """Return what to change in a query of so many cases; nothing where noise is the smaller part.

    Its grid is made coarser until noise is at most as large as sampling, or there is no coarser one. What
    has no grid gets what would help instead. Raises DocumentError as `forecast`.
    """
    now = forecast(query, codebook, guarantee, cases)
    main = now.main
    if main is None or main.share <= 1:
        return []
    enough = f"{np.ceil(now.break_even or 0):,.0f} cases"
    if isinstance(query, Mean):
        return [_narrower(query, codebook, main, enough)]
    best = _coarser(query, codebook, guarantee, cases, main.share)
    if best is None:
        wider = "fewer or wider categories" if getattr(query, "by", ()) else "a wider filter"
        if getattr(query, "edges", None) or getattr(query, "bins", None):
            wider = "fewer and wider bins, fewer strata"
        return [
            Advice(
                f"Noise outweighs sampling; from about {enough} in a {unit_of(query)} on it is the smaller "
                f"part: ask for {wider}, or for a larger ε."
            )
        ]
    coarse, after = best
    still = after.main is not None and after.main.share > 1
    reason = "Noise outweighs sampling; a coarser grid has less of it."
    if still:
        reason = (
            "Noise outweighs sampling even on the coarsest grid; fewer strata or a larger ε would help more."
        )
    return [Advice(reason, changed_lines(query, coarse), after)]


def false_groups(guarantee: Guarantee, groups: Sequence[Groups]) -> list[Advice]:
    """Return what to change where, with every group empty, more than one would be expected to be shown.

    Only the rule ``noisy`` shows pure noise.
    """
    if guarantee.rule is not Rule.NOISY:
        return []
    found, index = [], 0
    needed, worst = guarantee.threshold, ""
    for each in groups:
        cells, table = each.guard.grid.cells, guarantee.allotments[index].table
        false = expected_false_cells(guarantee, cells, index)
        if false > 1:
            low, high = guarantee.threshold, table.limit + 1  # P(X ≥ limit + 1) is 0
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if cells * table.tail(middle) <= 1 else (middle, high)
            if high > needed:
                needed = high
                most = int(cells / false)
                worst = (
                    f"With all {cells:,} {each.name} empty, about {round(false):,} would be shown, of noise "
                    f"alone. k = {high} keeps this at 1, and so do at most {most:,} of them at "
                    f"k = {guarantee.threshold}: fewer variables or categories."
                )
        index += len(each.tallies)
    if worst:
        found.append(Advice(worst, ("[privacy]", f"threshold = {needed}")))
    return found


def noisier_totals(query: Query, guarantee: Guarantee, groups: Sequence[Groups]) -> list[Advice]:
    """Return what to change where totals with noise of their own are noisier than sums of the cells."""
    if not isinstance(query, Crosstab) or not query.totals:
        return []
    cells, of_cells = groups[0].guard.grid.cells, float(guarantee.allotments[0].table.variance)
    worse = []
    for each, allotment in zip(groups[1:], guarantee.allotments[1:], strict=True):
        summed, own = cells // each.guard.grid.cells, float(allotment.table.variance)
        if own > summed * of_cells:
            worse.append(
                f"{each.name} {own**0.5:.1f}, sums of {summed:,} cells {(summed * of_cells) ** 0.5:.1f}"
            )
    if not worse:
        return []
    reason = (
        f"Totals would be noisier than sums of the cells (standard deviations: {'; '.join(worse)}). Without "
        "`totals` the cells have the whole ε; totals are worth it where many cells will be suppressed."
    )
    return [Advice(reason, ("totals = false",))]


def changed_lines(before: Query, after: Query) -> tuple[str, ...]:
    """Return the lines of TOML for the top-level keys in which one query differs from another."""
    old, new = (each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in (before, after))
    lines: list[str] = []
    for key, value in new.items():
        if value == old.get(key):
            continue
        if isinstance(value, Mapping):
            lines += [f"[{key}]", *(f"{name} = {json.dumps(each)}" for name, each in value.items())]
        else:
            lines.insert(0, f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return tuple(lines)


def _refuse_many(groups: Sequence[Groups]) -> None:
    cells = sum(tally.grid.cells for each in groups for tally in each.tallies)
    if cells > MOST_CELLS:
        raise DocumentError(f"{cells:,} cells are too many for a forecast, which takes up to {MOST_CELLS:,}")


def _variances(guarantee: Guarantee) -> list[float]:
    return [float(each.table.variance) for each in guarantee.allotments]


def _coarser(
    query: Query, codebook: Codebook, guarantee: Guarantee, cases: int, share: float
) -> tuple[Query, Forecast] | None:
    """Return the first coarser query whose noise is the smaller part, else the one with the least share."""
    best: tuple[Query, Forecast] | None = None
    coarse = query.coarser()
    while coarse is not None and share > 1:
        try:
            groups = coarse.layout(codebook).groups
        except DocumentError:  # another key of the query needs the finer grid
            break
        privacy = query.privacy
        made = guarantee_for(
            privacy.epsilon_exact,
            parts_of(groups),
            guarantee.rule,
            guarantee.threshold,
            guarantee.cap,
            privacy.delta_exact,
        )
        after = forecast(coarse, codebook, made, cases)
        if after.main is not None and after.main.share < share:
            best, share = (coarse, after), after.main.share
        coarse = coarse.coarser()
    return best


def _narrower(query: Mean, codebook: Codebook, main: Expected, enough: str) -> Advice:
    """Return advice for a mean, whose noise is proportional to the width of the bounds."""
    variable = codebook.variables[query.variable]
    unit = variable.unit if isinstance(variable, IntegerVariable) else ""
    low, high = query.clip or codebook.bounds(query.variable) or (0, 1)
    width = max(1, int((high - low) / main.share))
    strata = f", or at least {enough} in each stratum" if query.by else f", or at least {enough}"
    return Advice(
        f"Noise outweighs sampling. It is proportional to the width of the bounds, now {high - low} {unit}: "
        f"bounds at most {width} {unit} apart would bring it down to sampling{strata}. Values beyond are "
        "taken as the bound, so choose it from public knowledge, never from the data; for example:",
        (f"clip = [{low}, {low + width}]",),
    )


def _expected(query: Query, codebook: Codebook, opened: Opened) -> tuple[Expected, ...]:
    """Return the headlines of a query's table, each kind by its median stratum; no details within strata."""
    columns = query.finish(codebook, opened).columns()
    variables = [name for name in columns if name != "preset" and name not in STATISTICS]
    asked = {*getattr(query, "by", ()), getattr(query, "variable", "")}
    details = [columns[name] != ALL for name in variables if name not in asked]
    whole = ~np.logical_or.reduce(details) if details else np.ones(len(columns["value"]), np.bool_)
    rows: list[Expected] = []
    for statistic in query.headlines:
        known = np.isfinite(columns["se_noise"]) & whole
        chosen = np.flatnonzero((columns["statistic"] == statistic) & known)
        chosen = chosen[_summary(columns["time"][chosen])]
        # One column for each thing that tells kinds of rows apart; what is all strata together sorts last.
        within = [columns[name][chosen] == ALL for name in variables]
        standards = np.unique(columns["standard"][chosen].astype(str), return_inverse=True)[1]
        keys = np.column_stack([*within, standards, np.nan_to_num(columns["time"][chosen], nan=-1.0)])
        found, kind = np.unique(keys, axis=0, return_inverse=True)
        for number, key in enumerate(found):
            by = tuple(name for name, together in zip(variables, key, strict=False) if not together)
            rows.append(_median(statistic, by, chosen[kind.reshape(-1) == number], columns))
    return tuple(rows)


def _summary(times: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows are at the summary's times; at the last time where there are none of these."""
    present = set(times[np.isfinite(times)].tolist())
    wanted = {time for time in present if any(isclose(time, year, rel_tol=1e-9) for year in SUMMARY_YEARS)}
    wanted = wanted or ({max(present)} if present else set())
    return np.asarray(np.isnan(times) | np.isin(times, list(wanted)), np.bool_)


def _median(
    statistic: str, by: tuple[str, ...], members: NDArray[np.intp], columns: Mapping[str, NDArray[Any]]
) -> Expected:
    """Return the row with the median noise, the lower one of two."""
    row = members[np.argsort(columns["se_noise"][members], kind="stable")[(len(members) - 1) // 2]]
    time = float(columns["time"][row])
    return Expected(
        statistic,
        None if np.isnan(time) else time,
        str(columns["standard"][row]),
        str(columns["note"][row]),
        by,
        len(members),
        float(columns["value"][row]),
        _Z * float(columns["se_noise"][row]),
        _Z * float(columns["se_sampling"][row]),
        "bound" in str(columns["ci_method"][row]),
        str(columns["flag"][row]),
    )
