"""``survival``: Kaplan–Meier or actuarial, with life tables, medians, conditional survival and tests.

All of it is computed from the opened outcomes (see ``followup``) in the clear: nothing beyond the strata's
numbers of patients and outcomes is asked of the silos, however many statistics are shown.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np

from mpc_engine.codebook import Codebook, Name
from mpc_engine.documents import Field, broken, model_validator
from mpc_engine.estimators.lifetable import IntervalCounts, LifeTable, Method, life_table
from mpc_engine.estimators.logrank import log_rank
from mpc_engine.estimators.survival import (
    Interval,
    SurvivalQuantile,
    coarse,
    conditional,
    estimate,
    follow_up,
    quantile,
)
from mpc_engine.release.grid import Axis, Grid
from mpc_engine.release.opened import Floats, Opened, OpenedTally
from mpc_engine.statistics.cells import add_counts
from mpc_engine.statistics.expectation import of_strata
from mpc_engine.statistics.followup import FollowedUp
from mpc_engine.statistics.layout import Kind
from mpc_engine.statistics.pooled import pooled, within
from mpc_engine.statistics.query import outside, variable_axes
from mpc_engine.statistics.reliability import marked
from mpc_engine.statistics.tidy import (
    NOT_APPLICABLE,
    NOT_AVAILABLE,
    OK,
    PERCENT,
    SUPPRESSED,
    TRUNCATED,
    Labels,
    Marks,
    Style,
    Tidy,
    grid_labels,
)
from mpc_engine.statistics.where import Problems

Year = Annotated[int, Field(ge=1, le=100)]

COARSE = "too high: many are censored within these wide intervals; a finer grid has less of this bias"
"""Noted where the convention of Kaplan–Meier on a grid costs more than half a standard error."""
OUTWARD = "many are censored within these wide intervals; limits are edges of the grid, outward"
"""Noted with a median whose curve suffers from its grid."""
ADJUSTED = "adjusted to the number of patients"
FEW = "too few after noise"
"""Noted where a stratum is shown, and yet fewer than k are at risk at first once the noise is adjusted."""
OWN_SIZES = "the sum of their noisy sizes, too high where small strata are hidden"
"""Noted with the size of all shown strata: they are shown because their noisy sizes are not small."""


class SurvivalBase(FollowedUp):
    """Survival by the strata of ``by``, on the edges of ``grid``.

    ``method`` and ``interval`` name the estimator and its confidence interval. Without ``method`` it is
    Kaplan–Meier, but actuarial for the period approach: there people come and go throughout an interval, and
    Kaplan–Meier on a wide grid would be far too high. ``conditional_on`` asks for survival given survival to
    these years; ``compare`` for a log-rank test between the categories of one variable of ``by``, within
    those of the others if ``stratified``.
    """

    headlines: ClassVar[tuple[str, ...]] = ("survival",)

    method: Literal["kaplan-meier", "actuarial"] | None = None
    interval: Interval = "log-log"
    conditional_on: Annotated[tuple[Year, ...], Field(max_length=10)] = ()
    compare: Name | None = None
    stratified: bool = False

    @model_validator(mode="after")
    def _compare_fits(self) -> Self:
        if self.compare is not None and self.compare not in self.by:
            raise broken("compare", f"must be one of `by`, {', '.join(self.by) or 'which is empty'}")
        if self.stratified and (self.compare is None or len(self.by) < 2):
            raise broken("stratified", "needs `compare` and another variable in `by`")
        if self.compare is not None and self.approach == "period":
            raise broken("compare", "goes with the approaches complete and cohort")
        return self

    @property
    def chosen_method(self) -> Method:
        """Return the method asked for, or else the one that suits the approach."""
        return self.method or ("actuarial" if self.approach == "period" else "kaplan-meier")

    def kept_years(self) -> tuple[int, ...]:
        """Return the years that a coarser grid keeps: those of the summary and of ``conditional_on``."""
        return (*super().kept_years(), *self.conditional_on)

    def kinds(self, codebook: Codebook, problems: Problems) -> list[Kind]:
        """Return the strata with their outcomes; conditional survival must start at an edge."""
        years = self.years()
        for index, year in enumerate(self.conditional_on):
            if year in self.conditional_on[:index]:
                problems.append((f"conditional_on[{index}]", f"{year} occurs twice"))
            elif not np.isclose(years[1:-1], year).any():
                problems.append((f"conditional_on[{index}]", "is no edge of the grid before its last one"))
        return super().kinds(codebook, problems)

    def finish(self, codebook: Codebook, opened: Opened) -> Tidy:
        """Return life tables, curves and summaries of every stratum and of all shown ones together."""
        axes = variable_axes(self.by, "by", codebook, [])
        allowed = self.possible(codebook, axes)
        tidy = Tidy(self.preset, self.by, outside([axis for axis, _ in axes], allowed))
        strata = opened.groups["strata"]
        counts, labels = self.counts(opened), grid_labels(strata.guard.grid.axes)
        add_counts(tidy, strata.guard, "patients")
        self._add_curves(tidy, counts, labels, opened.threshold)
        masks = [allowed[name] for name in self.by]
        inside, guard = of_strata(counts, masks), strata.guard
        if self.by:
            together, note = pooled(inside, tuple(range(len(self.by))))
            _add_size(tidy, replace(guard, values=guard.values[np.ix_(*masks)]), note)
            self._add_curves(tidy, together, {}, opened.threshold, note)
        if self.compare is not None:
            axis = guard.grid.axes[self.by.index(self.compare)]
            kept = tuple(np.array(axis.categories, object)[allowed[self.compare]].tolist())
            self._add_test(tidy, inside, Axis(axis.variable, kept))
        return tidy

    def _add_curves(
        self, tidy: Tidy, counts: IntervalCounts, labels: Labels, threshold: int, note: str = ""
    ) -> None:
        """Add the life table, the curve, the median, follow-up and conditional survival of each stratum."""
        table = life_table(counts, self.chosen_method)
        curve = estimate(table, self.interval)
        hidden = np.isnan(np.asarray(counts.events)).any(axis=-1) | np.isnan(counts.beyond)
        reliable = table.reliable(threshold)
        first = table.at_risk[..., 0]
        few = ~hidden & (first < threshold)
        whole = np.where(hidden, SUPPRESSED, np.where(few | (~hidden & ~(first > 0)), NOT_AVAILABLE, OK))
        flags = np.where(whole[..., None] != OK, whole[..., None], np.where(reliable, OK, TRUNCATED))
        notes = np.where(few, f"{note}; {FEW}" if note else FEW, note).astype(object)
        wide_notes = notes[..., None]
        wide = {name: np.asarray(each, object)[..., None] for name, each in labels.items()}
        years = self.years()[1:]
        self._add_life_table(tidy, table, wide, flags, wide_notes)
        tidy.add(
            "survival",
            curve.survival,
            labels=wide,
            style=PERCENT,
            time=years,
            n=table.at_risk,
            lower=curve.lower,
            upper=curve.upper,
            se_sampling=curve.se_sampling,
            se_noise=curve.se_noise,
            method=f"{self.chosen_method}, {self.interval}",
            flag=marked(flags, curve.survival, curve.se_sampling, curve.se_noise),
            note=_noted(wide_notes, np.where(coarse(table), COARSE, "")),
        )
        for year in self.conditional_on:
            self._add_conditional(tidy, table, year, wide, flags, wide_notes)
        edges = self.years()
        biased = np.asarray((coarse(table) & reliable).any(axis=-1))
        median = quantile(curve, edges, shown=reliable, outward=biased)
        told = _noted(notes, np.where(biased, OUTWARD, ""))
        self._add_quantile(tidy, "median_survival", median, labels, whole, told)
        # In a period people are followed before they enter, so that how long is no property of the window.
        period = self.approach == "period"
        potential = follow_up(
            counts, edges, interval=self.interval, least_at_risk=threshold, method=self.chosen_method
        )
        none = np.where((whole != SUPPRESSED) & period, NOT_APPLICABLE, whole)
        told = _noted(notes, "not for the period approach") if period else notes
        self._add_quantile(tidy, "median_follow_up", potential, labels, none, told)

    def _add_life_table(
        self, tidy: Tidy, table: LifeTable, labels: Labels, flags: Marks, notes: Marks
    ) -> None:
        years, cells = self.years()[1:], table.reconciled
        one = np.ones(table.at_risk.shape)
        member = np.sqrt(cells.noise_covariance(one, one, one, np.zeros_like(one)))
        guarded = np.broadcast_to(cells.guard_weight > 0, cells.total.shape)[..., None]
        columns: list[tuple[str, Floats, Any, int]] = [
            ("at_risk", table.at_risk, np.sqrt(table.at_risk_noise_variance), 0),
            ("events", table.events, member, 0),
            ("censored", table.censored, member, 0),
        ]
        if cells.entered is not None:
            columns.append(("entered", table.entered, np.sqrt(cells.noise.entered), 0))
        if table.method == "actuarial":
            columns.append(("adjusted_at_risk", table.effective, np.nan, 1))
        for statistic, values, noise, decimals in columns:
            tidy.add(
                statistic,
                values,
                labels=labels,
                style=Style(decimals, floor=True),
                time=years,
                se_noise=noise,
                flag=flags,
                note=np.where((notes == "") & guarded, ADJUSTED, notes),
            )
        tidy.add(
            "interval_survival",
            table.interval_survival,
            labels=labels,
            style=PERCENT,
            time=years,
            flag=marked(flags, table.survival),
            note=notes,
        )

    def _add_conditional(
        self, tidy: Tidy, table: LifeTable, year: int, labels: Labels, flags: Marks, notes: Marks
    ) -> None:
        """Add survival given survival to ``year``, named in the statistic: one key, one row."""
        years = self.years()[1:]
        start = int(np.argmin(np.abs(years - year))) + 1
        later, columns = conditional(table, start, self.interval), slice(start, None)
        value, sampling, noise = (
            part[..., columns] for part in (later.survival, later.se_sampling, later.se_noise)
        )
        tidy.add(
            f"conditional_survival_{year}y",
            value,
            labels=labels,
            style=PERCENT,
            time=years[columns],
            lower=later.lower[..., columns],
            upper=later.upper[..., columns],
            se_sampling=sampling,
            se_noise=noise,
            method=f"{table.method}, {self.interval}",
            flag=marked(flags[..., columns], value, sampling, noise),
            note=_noted(f"given survival to {year} year{'' if year == 1 else 's'}", notes),
        )

    def _add_quantile(
        self, tidy: Tidy, statistic: str, found: SurvivalQuantile, labels: Labels, flags: Marks, notes: Marks
    ) -> None:
        tidy.add(
            statistic,
            found.time,
            labels=labels,
            style=Style(2),
            lower=found.lower,
            upper=found.upper,
            method=f"brookmeyer-crowley, {self.interval}",
            flag=np.where((flags == OK) & np.isnan(found.time), NOT_AVAILABLE, flags),
            note=_noted("years, interpolated between the edges of the grid", notes),
        )

    def _add_test(self, tidy: Tidy, counts: IntervalCounts, axis: Axis) -> None:
        """Add the log-rank test of one variable, within the others if stratified, else over them.

        A category of which nothing is shown takes no part; a suppressed stratum counts as nobody.
        """
        position = self.by.index(axis.variable)
        others = tuple(i for i in range(len(self.by)) if i != position)
        hidden = np.isnan(counts.beyond)
        kept = np.flatnonzero(~hidden.all(axis=others))
        note = "within the other strata" if self.stratified else "over all strata"
        if hidden.any():
            note += "; suppressed strata left out"
        if self.stratified and hidden[np.isin(np.indices(hidden.shape)[position], kept)].any():
            note += "; where only some of the groups are shown, those are compared"
        if len(kept) < 2:
            for statistic in ("log_rank_chi_squared", "log_rank_degrees_of_freedom", "log_rank_p"):
                tidy.add(statistic, np.nan, flag=NOT_AVAILABLE, note="fewer than two groups are shown")
            return
        test = log_rank(within(counts, position, kept, self.stratified), self.stratified)
        flag = OK if test.df > 0 else NOT_AVAILABLE
        if flag != OK:
            note += "; there is nothing to compare, such as no events"
        method = "stratified log-rank" if self.stratified else "log-rank"
        labels = {axis.variable: [axis.categories[index] for index in kept]}
        for statistic, values in (("observed", test.observed), ("expected", test.expected)):
            tidy.add(f"log_rank_{statistic}", values, labels=labels, style=Style(1), method=method, note=note)
        for statistic, value, style in (
            ("log_rank_chi_squared", test.chi_square, Style(2)),
            ("log_rank_degrees_of_freedom", test.df, Style(0)),
            ("log_rank_p", test.p, Style(3, least=0.001)),
        ):
            tidy.add(statistic, value, style=style, method=method, flag=flag, note=note)
        tidy.add(
            "log_rank_textbook_chi_squared",
            test.textbook_chi_square,
            style=Style(2),
            method=method,
            flag=flag,
            note=f"{note}; descriptive, its variance leaves the noise out",
        )

    def question(self) -> str:
        """Return what is asked in plain words."""
        within = f" by {' and '.join(self.by)}" if self.by else ""
        return (
            f"how survival develops{within} until {self.event.describe()}, {self.grid.describe()} "
            f"({self.approach} approach)"
        )


def _add_size(tidy: Tidy, guard: OpenedTally, note: str) -> None:
    """Add the size of all shown strata together; their curve is made without the guards, see `pooled`."""
    shown = ~np.isnan(guard.values)
    total = np.where(shown.any(), np.nansum(guard.values), np.nan)
    noted = note if shown.all() or guard.variance == 0 else f"{note}; {OWN_SIZES}"
    add_counts(tidy, OpenedTally(Grid(()), total, guard.variance * float(shown.sum())), "patients", noted)


def _noted(*parts: str | Marks) -> Marks:
    """Return texts joined with semicolons where there is something to join, broadcast."""
    found = np.asarray("", object)
    for part in (np.asarray(each, object) for each in parts):
        found = found + np.where((found != "") & (part != ""), "; ", "").astype(object) + part
    return found


class Survival(SurvivalBase):
    """Survival with nothing taken for granted."""

    preset: Literal["survival"]
