"""``net_survival``: Pohar Perme or Ederer II, by strata and standardised for age, with public life tables.

Each stratum of ``by`` is a group; its members are the outcomes by age group, sex and year of diagnosis
within it. What is expected of such a cell follows from the life table for its middle, so nothing weighted
is ever summed: weights of single patients have no bound, and noise could not hide them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mpc_engine.codebook import Codebook, Name
from mpc_engine.documents import Field, broken, model_validator
from mpc_engine.errors import DocumentError
from mpc_engine.estimators.icss import STANDARDS, standardise
from mpc_engine.estimators.lifetable import CellNoise, IntervalCounts, life_table
from mpc_engine.estimators.net_survival import (
    Estimator,
    IntervalKind,
    NetSurvival,
    expected_paths,
    mid_period,
    net_survival,
)
from mpc_engine.estimators.population_tables import PopulationTable
from mpc_engine.estimators.survival import estimate
from mpc_engine.release.opened import Floats, Opened
from mpc_engine.statistics.cells import add_counts
from mpc_engine.statistics.expectation import (
    calendar_years,
    extension,
    flat,
    kept_categories,
    of_ages,
    of_categories,
    of_strata,
    representative_ages,
    standard_groups,
    typical_ages,
    typical_outcomes,
    window_paths,
)
from mpc_engine.statistics.followup import TYPICAL_SURVIVAL, Axes, FollowedUp
from mpc_engine.statistics.layout import Layout, Selection
from mpc_engine.statistics.pooled import pooled
from mpc_engine.statistics.populations import known_labels
from mpc_engine.statistics.query import Decimal, outside, variable_axes
from mpc_engine.statistics.reliability import (
    TOO_FEW,
    curve_flags,
    curve_limits,
    joined,
    marked,
    without_small,
)
from mpc_engine.statistics.tidy import (
    COUNT,
    NOT_AVAILABLE,
    OK,
    PERCENT,
    SUPPRESSED,
    TRUNCATED,
    Labels,
    Marks,
    Tidy,
    Words,
    grid_labels,
)
from mpc_engine.statistics.timegrid import DAYS
from mpc_engine.statistics.where import Problems

MOST_PERIOD_INTERVALS = 400
"""Most intervals of the period approach: each has an expected path of its own."""
CalendarYear = Annotated[int, Field(ge=1800, le=2200)]
OLDEST = 120
"""No age is so high."""


@dataclass(frozen=True)
class _Block:
    """What belongs to one block of rows: counts (strata …, ages, cells within an age, J) and the expected
    paths of the cells; the age groups, those of the standard by place, k, labels and a note."""

    counts: IntervalCounts
    paths: Floats
    ages: list[str]
    groups: list[list[int]]
    threshold: int
    labels: Labels
    note: str


class NetSurvivalQuery(FollowedUp):
    """Net survival by the strata of ``by`` against the ``life_table``, a public file of the codebook.

    ``age``, ``sex`` and ``year`` are the variables of age at diagnosis (a band, or completed years), sex and
    year of diagnosis (a band or single years); with no ``year`` the middle of ``period`` stands for all, and
    under the period approach the middle of the window, at which everybody is followed. Patients of whom one
    of these is unknown are left out. ``representative_ages`` replace the middles of the age groups.
    ``standard`` adds age-standardised net survival; the age groups must make up its own, and those outside
    it are left out there. ``by_age`` adds the curve of each age group, where it has enough patients. Groups
    of ten years and one period for all are a good choice: wider groups bias the expectation, narrower ones
    and single years multiply the noise.
    """

    headlines: ClassVar[tuple[str, ...]] = ("net_survival", "standardised_net_survival")

    preset: Literal["net_survival"]
    age: Name
    sex: Name
    year: Name | None = None
    period: tuple[CalendarYear, CalendarYear] | None = None
    life_table: Name
    representative_ages: Annotated[tuple[int | Decimal, ...] | None, Field(max_length=150)] = None
    estimator: Estimator = "pohar-perme"
    interval: IntervalKind = "log"
    standard: Literal["icss_1", "icss_2", "icss_3", "children"] | None = None
    by_age: bool = False

    @model_validator(mode="after")
    def _times_fit(self) -> NetSurvivalQuery:
        if self.approach == "period" and self.period is not None:
            raise broken("period", "does not go with the period approach, whose `window` says when")
        if self.approach != "period" and (self.year is None) == (self.period is None):
            raise broken("year", "or `period` is needed, and only one of them")
        if self.period is not None and self.period[0] > self.period[1]:
            raise broken("period", "ends before it begins")
        for index, age in enumerate(self.representative_ages or ()):
            if not 0 <= Fraction(age) < OLDEST:
                raise broken(f"representative_ages[{index}]", f"is {age}, which is no age")
        return self

    @property
    def _detail(self) -> tuple[str, ...]:
        return (self.age, self.sex, *(() if self.year is None else (self.year,)))

    def strata(self, codebook: Codebook, problems: Problems) -> tuple[Axes, Axes]:
        """Return the axes of ``by``, and age, sex and year within the strata."""
        axes = variable_axes((*self.by, *self._detail), "by", codebook, problems)
        if not problems:
            self._check(codebook, problems)
        return axes[: len(self.by)], axes[len(self.by) :]

    def _check(self, codebook: Codebook, problems: Problems) -> None:
        """Find out before anything is spent whether life table, ages and standard fit."""
        held = codebook.files.get(self.life_table)
        if held is None or held.kind != "life-table":
            problems.append(
                ("life_table", f"{self.life_table!r} is not a life table among the codebook's files")
            )
            return
        if self.approach == "period" and len(self.grid.times) > MOST_PERIOD_INTERVALS:
            problems.append(
                ("grid", f"has more than {MOST_PERIOD_INTERVALS} intervals, too many for a period")
            )
            return
        for key, find in (("", self._expected), ("standard", self._standard_groups)):
            try:
                find(codebook)
            except DocumentError as error:
                problems.append((key, str(error)))
                return

    def selections(self, codebook: Codebook, problems: Problems) -> tuple[Selection, ...]:
        """Return the filters, and that age, sex and year are known: without them nothing can be expected."""
        extra = []
        for name in self._detail:
            if name in codebook.variables and codebook.unknown(name) is not None:
                base = codebook.base(name)
                bounds = codebook.bounds(base) or (0, codebook.size(base) - 2)
                extra.append(Selection(base, (bounds,)))
        return (*super().selections(codebook, problems), *extra)

    def _expected(self, codebook: Codebook) -> tuple[Floats, str]:
        """Return the expected cumulative hazards of the cells within a stratum, (G, J + 1), and a note.

        The note says where the life table had to be extended; then its nearest values hold.
        """
        table = PopulationTable.from_csv(codebook.read(self.life_table))
        kept = self._kept(codebook)
        sexes = [table.sex_index(known_labels(codebook, self.sex)[place]) for place in kept[1]]
        ages = representative_ages(codebook, self.age, self.representative_ages)
        days = [ages[place] for place in kept[0]]
        dates = np.array(self._dates(codebook, kept), "datetime64[D]")
        age, sex, date = (each.reshape(-1) for each in np.meshgrid(days, sexes, dates, indexing="ij"))
        edges = np.array([0.0, *(float(time * DAYS[self.grid.unit]) for time in self.grid.times)])
        if self.approach != "period" or self.year is not None:
            return expected_paths(table, sex, age, date, edges), extension(table, age, date, edges[-1])
        paths = window_paths(table, sex, age, date, edges)
        begun: NDArray[np.datetime64] = np.subtract(date, np.timedelta64(round(edges[-1]), "D"))
        return paths, extension(table, age, begun, edges[-1])

    def _kept(self, codebook: Codebook) -> list[NDArray[np.intp]]:
        """Return the known categories of age, sex and year that the filters leave, at least partly."""
        return kept_categories(codebook, self._detail, super().selections(codebook, []))

    def _standard_groups(self, codebook: Codebook) -> list[list[int]]:
        """Return which of the kept age groups make up each group of the standard; [] without one."""
        if self.standard is None:
            return []
        return standard_groups(codebook, self.age, STANDARDS[self.standard], self._kept(codebook)[0])

    def _dates(self, codebook: Codebook, kept: list[NDArray[np.intp]]) -> list[np.datetime64]:
        """Return the day that stands for each period of diagnosis, or the middle of the window."""
        if self.year is not None:
            years = calendar_years(codebook, self.year)
            return [mid_period(*years[place]) for place in kept[2]]
        if self.period is not None:
            return [mid_period(*self.period)]
        opens, closes = self._days(codebook, []) or (0, 0)
        return [np.datetime64((opens + closes + 1) // 2, "D")]

    def finish(self, codebook: Codebook, opened: Opened) -> Tidy:
        """Return net survival of every stratum and of all shown ones, overall and standardised; by age too
        if asked for."""
        axes = variable_axes(self.by, "by", codebook, [])
        allowed = self.possible(codebook, axes)
        tidy = Tidy(self.preset, (*self.by, self.age), outside([axis for axis, _ in axes], allowed))
        strata = opened.groups["strata"]
        add_counts(tidy, strata.guard, "patients")
        paths, note = self._expected(codebook)
        unknown = [name for name in self._detail if codebook.unknown(name) is not None]
        note = joined(note, f"without patients of unknown {' or '.join(unknown)}" if unknown else "")
        ages = [known_labels(codebook, self.age)[place] for place in self._kept(codebook)[0]]
        groups, k = self._standard_groups(codebook), opened.threshold
        counts = self._cells(codebook, opened)
        blocks = [_Block(counts, paths, ages, groups, k, grid_labels(strata.guard.grid.axes, 1), note)]
        if self.by:
            within = [allowed[name] for name in self.by]
            together, _ = pooled(of_strata(counts, within), tuple(range(len(self.by))))
            known = strata.shown[np.ix_(*within)]
            shown, size = int(known.sum()), known.size
            whose = f"{'all' if shown == size else f'{shown} shown of {size}'} strata together"
            blocks.append(_Block(together, paths, ages, groups, k, {}, joined(whose, note)))
        parts = [self._add_whole, self._add_standardised, *([self._add_by_age] if self.by_age else [])]
        for add in parts:
            for block in blocks:
                add(tidy, block)
        return tidy

    def _cells(self, codebook: Codebook, opened: Opened) -> IntervalCounts:
        """Return the opened outcomes as (strata …, ages, cells within an age, J), of kept categories."""
        return of_categories(self.counts(opened), len(self.by), self._kept(codebook))

    def _add_whole(self, tidy: Tidy, block: _Block) -> None:
        """Add life tables and curves over all ages."""
        whole = net_survival(flat(block.counts), block.paths, estimator=self.estimator)
        flags = curve_flags(whole, block.counts, block.threshold, len(block.paths))
        self._add_life_table(tidy, whole, block.labels, flags, block.note)
        self._add_observed(tidy, flat(block.counts), block.labels, flags, block.note)
        self._add_curve(tidy, whole, block.labels, flags, block.note)

    def _add_by_age(self, tidy: Tidy, block: _Block) -> None:
        """Add a curve for each age group; without numbers where it has too few patients from the start."""
        for place, age in enumerate(block.ages):
            curve, flags = self._of_ages(block, [place])
            told = without_small(flags)
            notes = np.where(told == flags, block.note, joined(TOO_FEW, block.note))
            self._add_curve(tidy, curve, {**block.labels, self.age: age}, told, notes)

    def _add_standardised(self, tidy: Tidy, block: _Block) -> None:
        """Add curves standardised for age, if asked for."""
        if block.groups:
            curves, marks = zip(*(self._of_ages(block, group) for group in block.groups), strict=True)
            self._add_weighted(tidy, list(curves), np.stack(marks), block.labels, block.note)

    def _of_ages(self, block: _Block, ages: list[int]) -> tuple[NetSurvival, Marks]:
        """Return the curve of some age groups together, and its flags."""
        parts = block.paths.reshape(len(block.ages), -1, block.paths.shape[-1])[ages]
        paths = parts.reshape(-1, block.paths.shape[-1])
        curve = net_survival(flat(of_ages(block.counts, ages)), paths, estimator=self.estimator)
        return curve, curve_flags(curve, block.counts, block.threshold, len(paths))

    def _add_life_table(
        self, tidy: Tidy, curve: NetSurvival, labels: Labels, flags: Marks, note: str
    ) -> None:
        # Pohar Perme weighs everybody by the inverse of his expected survival; Ederer II weighs nobody.
        weighted = "weighted_" if self.estimator == "pohar-perme" else ""
        tables = (
            ("at_risk", curve.at_risk, COUNT),
            ("events", curve.events, COUNT),
            ("censored", curve.censored, COUNT),
            (f"{weighted}expected_interval_survival", curve.expected, PERCENT),
            ("relative_interval_survival", curve.relative, PERCENT),
            (f"{weighted}expected_survival", np.cumprod(curve.expected, axis=-1), PERCENT),
        )
        add = partial(tidy.add, labels=labels, time=self.years()[1:], note=note)
        for statistic, values, style in tables:
            found = np.where((flags != SUPPRESSED) & np.isnan(values), NOT_AVAILABLE, flags)
            add(statistic, values, style=style, flag=found)

    def _add_observed(
        self, tidy: Tidy, counts: IntervalCounts, labels: Labels, flags: Marks, note: str
    ) -> None:
        """Add observed survival, by the actuarial method: all that the patients died of."""

        def total(values: Floats | None, axis: int) -> Floats | None:
            return None if values is None else np.asarray(values.sum(axis=axis))

        cells = counts.beyond.shape[-1]
        table = life_table(
            IntervalCounts(
                counts.events.sum(axis=-2),
                counts.censored.sum(axis=-2),
                counts.beyond.sum(axis=-1),
                total(counts.entered, -2),
                noise=CellNoise(counts.noise.member * cells, counts.noise.entered * cells),
            ),
            "actuarial",
        )
        curve = estimate(table, "log")
        add = partial(tidy.add, labels=labels, style=PERCENT, time=self.years()[1:], note=note)
        add("interval_survival", table.interval_survival, flag=marked(flags, table.survival))
        add(
            "survival",
            curve.survival,
            n=table.at_risk,
            lower=curve.lower,
            upper=curve.upper,
            se_sampling=curve.se_sampling,
            se_noise=curve.se_noise,
            method="actuarial, log",
            flag=marked(flags, curve.survival, curve.se_sampling, curve.se_noise),
        )

    def _add_curve(self, tidy: Tidy, curve: NetSurvival, labels: Labels, flags: Marks, note: Words) -> None:
        lower, upper = curve_limits(curve, self.interval)
        tidy.add(
            "net_survival",
            curve.net,
            labels=labels,
            style=PERCENT,
            time=self.years()[1:],
            n=curve.at_risk,
            lower=lower,
            upper=upper,
            se_sampling=curve.se_sampling,
            se_noise=curve.se_noise,
            method=f"{self.estimator}, {self.interval}",
            flag=np.where((flags != SUPPRESSED) & np.isnan(curve.net), NOT_AVAILABLE, flags),
            note=note,
        )

    def _add_weighted(
        self, tidy: Tidy, by_group: list[NetSurvival], marks: Marks, labels: Labels, note: str
    ) -> None:
        """Add standardised net survival; it is as reliable as the least reliable of its age groups."""
        standard = STANDARDS[self.standard or ""]
        found = standardise(
            standard,
            np.stack([curve.net for curve in by_group]),
            np.stack([curve.se_sampling for curve in by_group]),
            np.stack([curve.se_noise for curve in by_group]),
        )
        lower, upper = curve_limits(found, self.interval)
        flags = np.where((marks == TRUNCATED).any(axis=0), TRUNCATED, OK)
        flags = np.where(np.isnan(found.survival), NOT_AVAILABLE, flags)
        tidy.add(
            "standardised_net_survival",
            found.survival,
            labels=labels,
            style=PERCENT,
            time=self.years()[1:],
            n=np.sum([curve.at_risk for curve in by_group], axis=0),
            lower=lower,
            upper=upper,
            se_sampling=found.se_sampling,
            se_noise=found.se_noise,
            method=f"{self.estimator}, {self.interval}",
            standard=standard.name,
            flag=np.where((marks == SUPPRESSED).all(axis=0), SUPPRESSED, flags),
            note=note,
        )

    def typical(self, codebook: Codebook, layout: Layout, cases: int) -> list[Floats]:
        """Return a cohort of adult cancer patients, see `typical_ages`, who die as the life table expects and
        of their cancer besides, see `typical_outcomes`: 70 % are left after five years of excess mortality.
        """
        guard, (outcomes, *entries) = layout.groups[0].guard.grid, layout.groups[0].members
        kept, (paths, _) = self._kept(codebook), self._expected(codebook)
        n, edges = cases / guard.cells, self.years()
        rows = typical_outcomes(paths, edges, TYPICAL_SURVIVAL)
        shares = typical_ages(codebook, self.age)[kept[0]]
        within = len(paths) // len(shares)
        each = np.repeat(n * shares / shares.sum() / within, within)
        sums = [np.full(guard.cells, n)]
        for tally in (outcomes, *entries):
            held = rows if tally is outcomes else np.eye(1, len(tally.grid.axes[-1].categories))
            one = np.zeros(tally.grid.shape[len(guard.axes) :])
            one[np.ix_(*kept)] = (each[:, None] * held).reshape(one[np.ix_(*kept)].shape)
            sums.append(np.tile(one.reshape(-1), guard.cells))
        return sums

    def question(self) -> str:
        """Return what is asked in plain words."""
        within = f" by {' and '.join(self.by)}" if self.by else ""
        return (
            f"how net survival develops{within}, {self.grid.describe()}, against the life table "
            f"{self.life_table} ({self.approach} approach)"
        )
