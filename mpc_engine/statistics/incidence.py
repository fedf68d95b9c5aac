"""``incidence``: crude, age-specific and age-standardised rates, cumulative rates and standardised ratios.

Each stratum of ``by`` is a group: its guard is the number of its cases, its members are the cases by age.
Were each age its own guard, small ages would be missing and every standardised rate too low; as it is, a
stratum is shown with all its ages or not at all. Populations and standards are public, so all rates are
computed after opening and cost nothing further. They are made of the members alone: the guard would take
noise off them, but a stratum is shown because its guard came out large, and so would its rates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np

from mpc_engine.codebook import Codebook, Name
from mpc_engine.documents import Field, broken, model_validator
from mpc_engine.errors import DocumentError
from mpc_engine.estimators.intervals import PoissonMethod, count_estimate
from mpc_engine.estimators.rates import (
    StandardisedMethod,
    crude_rate,
    cumulative_rate,
    cumulative_risk,
    directly_standardised_rate,
    rate,
)
from mpc_engine.estimators.ratios import (
    ALARM_LEVEL,
    WARNING_LEVEL,
    funnel_limits,
    funnel_significance,
    standardised_ratio,
)
from mpc_engine.release.grid import Axis, Grid
from mpc_engine.release.groups import Groups, Tally
from mpc_engine.release.opened import Floats, Opened, OpenedTally
from mpc_engine.statistics.cells import RATE_INTERVAL, add_counts
from mpc_engine.statistics.figures import Figures, before
from mpc_engine.statistics.layout import Kind, Recipe, Selection
from mpc_engine.statistics.populations import (
    admitted_ages,
    age_groups,
    columns,
    merged_groups,
    read_table,
)
from mpc_engine.statistics.query import Picture, Query, outside, variable_axes, variable_axis
from mpc_engine.statistics.tidy import (
    NOT_APPLICABLE,
    OK,
    SUPPRESSED,
    Labels,
    Style,
    Tidy,
    Words,
    grid_labels,
)
from mpc_engine.statistics.where import Problems

CASES_WEIGHT, AGES_WEIGHT = 1, 3
"""Shares of ε: a quarter for the guard, three quarters for the cases by age."""

INTERNAL = "internal"
"""The reference of a ratio that is made of all shown strata together."""

OWN = "own"
"""What the user's own weights are called among the standards."""

OwnWeight = Annotated[int, Field(ge=0, le=1_000_000_000)]


OWN_TOTAL = "with noise of its own; rates are made of the cases by age"
"""Noted with the number of cases of a stratum, which differs by its noise from the sum of its ages."""


class Incidence(Query):
    """Rates by the strata of ``by``; ``age`` is the variable of age groups, ``population`` a public file.

    ``tumour`` names variables, of ``by`` or of filters, that tell tumours apart and not people, such as the
    site: for their categories the denominator is the whole population. ``standards`` are names of shipped
    standard populations; ``weights`` the user's own, whole numbers, one for each known age group. Age groups
    finer than a standard's are added up for it, and ages that the filters leave out have no weight.
    ``rate_interval`` and ``standard_interval`` name the intervals. ``cumulative_to`` ends the cumulative rate
    and risk below that age. ``least_events`` hides standardised rates of fewer cases (10 is the rule in
    England). ``ratio`` asks for standardised incidence ratios with funnel limits, against a public file of
    rates per person-year or, as ``internal``, against all shown strata together.
    """

    picture: ClassVar[Picture] = "points"
    headlines: ClassVar[tuple[str, ...]] = ("standardised_rate", "crude_rate")

    preset: Literal["incidence"]
    by: Annotated[tuple[Name, ...], Field(max_length=8)] = ()
    age: Name
    population: Name
    tumour: Annotated[tuple[Name, ...], Field(max_length=32)] = ()
    standards: Annotated[tuple[str, ...], Field(max_length=10)] = ("who_2000",)
    weights: Annotated[tuple[OwnWeight, ...] | None, Field(max_length=200)] = None
    per: Annotated[int, Field(ge=1, le=100_000_000)] = 100_000
    rate_interval: PoissonMethod = "byar-exact"
    standard_interval: StandardisedMethod = "dobson-byar"
    cumulative_to: Annotated[int, Field(ge=1, le=120)] | None = None
    least_events: Annotated[int, Field(ge=0, le=1_000)] = 0
    ratio: Name | None = None

    @model_validator(mode="after")
    def _keys_fit(self) -> Incidence:
        if self.age in self.by:
            raise broken("by", f"holds {self.age!r}; cases are laid out by age in any case")
        if self.age in self.tumour:
            raise broken("tumour", f"holds {self.age!r}, which tells people apart")
        if not self.standards and self.weights is None:
            raise broken("standards", "needs at least one standard population, or `weights` of your own")
        if len(set(self.standards)) != len(self.standards):
            raise broken("standards", "names a standard population twice")
        if self.ratio == INTERNAL and set(self.by) <= set(self.tumour):
            raise broken("ratio", "needs a variable in `by` that tells people apart, to compare these")
        return self

    def kinds(self, codebook: Codebook, problems: Problems) -> list[Kind]:
        """Return the strata: the cases, and the cases by age."""
        axes = variable_axes((*self.by, self.age), "by", codebook, problems)
        if problems:
            return []
        self._check(codebook, problems)
        strata, ages = axes[:-1], axes[-1]
        guard = Grid(tuple(axis for axis, _ in strata))
        rules = tuple(rule for _, rule in strata)
        members = (Tally("cases by age", Grid((*guard.axes, ages[0])), AGES_WEIGHT),)
        groups = Groups("strata", Tally("cases", guard, CASES_WEIGHT), members)
        return [Kind(groups, (Recipe(rules), Recipe((*rules, ages[1]))))]

    def _check(self, codebook: Codebook, problems: Problems) -> None:
        """Find out before anything is spent whether ages, standards, population and reference fit."""
        for index, name in enumerate(self.tumour):
            if name not in codebook.variables:
                problems.append((f"tumour[{index}]", f"the codebook has no variable {name!r}"))
        for key, file, kind in (
            ("population", self.population, "population"),
            ("ratio", self.ratio, "rates"),
        ):
            if file is not None and file != INTERNAL:
                held = codebook.files.get(file)
                if held is None or held.kind != kind:
                    problems.append((key, f"{file!r} is not a file of kind {kind} in the codebook"))
        where = self.selections(codebook, problems)
        if problems:
            return
        axes = [axis for axis, _ in variable_axes((*self.by, self.age), "by", codebook, problems)]
        try:
            groups, taken = admitted_ages(codebook, self.age, where)
        except DocumentError as error:
            problems.append(("age", str(error)))
            return
        for index, name in enumerate(self.standards):
            try:
                merged_groups(groups, name)
            except DocumentError as error:
                problems.append((f"standards[{index}]", str(error)))
        self._check_weights(len(age_groups(codebook, self.age)), taken, problems)
        if self.cumulative_to is not None and self.cumulative_to not in groups.edges[1:]:
            problems.append(("cumulative_to", "is no limit between the age groups that the filters leave"))
        for key, read in (("population", self._population), ("ratio", self._expected)):
            try:
                read(codebook, axes, where)
            except DocumentError as error:
                problems.append((key, str(error)))
                return

    def _check_weights(self, ages: int, taken: slice, problems: Problems) -> None:
        if self.weights is None:
            return
        if len(self.weights) != ages:
            problems.append(("weights", f"has {len(self.weights)} weights for {ages} age groups"))
        elif not any(self.weights[taken]):
            problems.append(("weights", "gives no weight to any age group that the filters leave"))

    def _population(self, codebook: Codebook, axes: list[Axis], where: tuple[Selection, ...]) -> Floats:
        return read_table(codebook, self.population, "population", axes, where, self.tumour)

    def _expected(self, codebook: Codebook, axes: list[Axis], where: tuple[Selection, ...]) -> Floats | None:
        """Return the number expected at the rates of a public file, by stratum; None where there is no file.

        The rates may be by fewer variables than the strata, or by further ones that the population has.
        """
        if self.ratio is None or self.ratio == INTERNAL:
            return None
        problems: Problems = []
        names = columns(codebook, self.ratio, "rate")
        if not {self.age, codebook.base(self.age)} & set(names):
            raise DocumentError(f"file {self.ratio}: has no column for {self.age!r}")
        by = [axis.variable for axis in axes]
        extra = [
            axis
            for name in names
            if name not in by
            for axis, _ in variable_axis(name, "ratio", codebook, problems)
        ]
        people = read_table(codebook, self.population, "population", axes, where, self.tumour, extra)
        held = [axis for axis in (*axes, *extra) if axis.variable in names]
        of_rates = [each for each in where if each.variable in {codebook.base(name) for name in names}]
        rates = read_table(codebook, self.ratio, "rate", held, of_rates)
        shape = [len(axis.categories) if axis in held else 1 for axis in (*axes, *extra)]
        summed = (len(axes) - 1, *range(len(axes), len(axes) + len(extra)))
        return np.asarray((people * rates.reshape(shape)).sum(axis=summed))

    def finish(self, codebook: Codebook, opened: Opened) -> Tidy:
        """Return cases and rates of every stratum; cases of unknown age are counted and in no rate."""
        strata = opened.groups["strata"]
        cases = strata.members["cases by age"]
        where, axes = self.selections(codebook, []), list(cases.grid.axes)
        allowed = self.possible(codebook, variable_axes((*self.by, self.age), "by", codebook, []))
        tidy = Tidy(self.preset, (*self.by, self.age), outside(axes, allowed))
        add_counts(tidy, strata.guard, "cases", OWN_TOTAL if strata.guard.variance > 0 else "")
        add_counts(tidy, cases, "cases")
        groups, taken = admitted_ages(codebook, self.age, where)
        population = self._population(codebook, axes, where)
        noise = np.full((*cases.values.shape[:-1], 1), cases.variance)
        figures = Figures(cases.values[..., taken], population[..., taken], groups, taken, noise)
        self._add_by_age(tidy, cases, population, len(age_groups(codebook, self.age)))
        self._add_rates(tidy, codebook, figures, grid_labels(axes[:-1]))
        if self._people:
            self._add_all(tidy, codebook, figures, axes[:-1])
        if self.ratio is not None:
            expected = self._expected(codebook, axes, where)
            note = f"against the rates of {self.ratio}"
            if expected is None:
                expected, note = figures.expected_from_all(self._people), "against all shown strata together"
            self._add_ratios(tidy, figures, expected, grid_labels(axes[:-1]), note)
        return tidy

    def _add_by_age(self, tidy: Tidy, cases: OpenedTally, population: Floats, known: int) -> None:
        """Add the rate of every known age group; one that the filters leave out has no population."""
        labels = grid_labels(cases.grid.axes)
        labels[self.age] = labels[self.age][..., :known]
        found = rate(
            cases.values[..., :known],
            population[..., :known],
            multiplier=self.per,
            method=self.rate_interval,
            noise_variance=cases.variance,
        )
        tidy.add_estimate(
            "age_specific_rate",
            found,
            labels=labels,
            style=Style(1, floor=True, relative=True),
            n=cases.values[..., :known],
            note=self._per,
        )

    @property
    def _per(self) -> str:
        return f"per {self.per:,} person-years"

    @property
    def _people(self) -> tuple[int, ...]:
        """The axes of the strata that tell people apart: only over these may populations be summed."""
        return tuple(place for place, name in enumerate(self.by) if name not in self.tumour)

    def _add_all(self, tidy: Tidy, codebook: Codebook, figures: Figures, axes: list[Axis]) -> None:
        """Add cases and rates of all shown strata together, for each kind of tumour."""
        together, notes = figures.together(self._people)
        labels = grid_labels([axis for axis in axes if axis.variable in self.tumour])
        unknown = [name for name in self.by if name not in self.tumour and codebook.unknown(name) is not None]
        said: Words = notes
        if unknown:
            said = before(notes, f"without cases of unknown {' or '.join(unknown)}")
        total = together.total
        found = count_estimate(total, noise_variance=together.total_noise)
        peopled = np.isnan(total) | (together.population.sum(axis=-1) > 0)
        tidy.add_estimate(
            "cases",
            replace(found, flag=np.where(peopled, found.flag, NOT_APPLICABLE)),
            labels=labels,
            n=total,
            note=before(said, f"sum of the cases by age; {RATE_INTERVAL}"),
        )
        self._add_rates(tidy, codebook, together, labels, said)

    def _add_rates(
        self, tidy: Tidy, codebook: Codebook, figures: Figures, labels: Labels, notes: Words = ""
    ) -> None:
        """Add person-years and rates of strata; ``notes`` go before those of every row."""
        style, total = Style(1, floor=True, relative=True), figures.total
        tidy.add(
            "population",
            figures.population.sum(axis=-1),
            labels=labels,
            flag=np.where(figures.population.sum(axis=-1) > 0, OK, NOT_APPLICABLE),
            note=before(notes, f"person-years, {figures.ages}; public"),
        )
        cap = self.privacy.max_records_per_patient
        whose = f"at most {cap} record{'s' if cap > 1 else ''} of a person"
        if codebook.unknown(self.age) is not None:
            whose += "; without cases of unknown age"
        note = before(notes, f"{self._per}; {figures.ages}; {whose}")
        crude = crude_rate(
            figures.cases,
            figures.population,
            multiplier=self.per,
            method=self.rate_interval,
            noise_variance=figures.noise,
        )
        tidy.add_estimate("crude_rate", crude, labels=labels, style=style, n=total, note=note)
        rule = f"; not shown for fewer than {self.least_events} cases" if self.least_events else ""
        note = before(notes, f"{self._per}; {figures.ages}, weights of these ages; {whose}{rule}")
        for name, (starts, weights) in self._weights(figures).items():
            sizes = np.diff([*starts, len(figures.groups)])
            standardised = directly_standardised_rate(
                np.add.reduceat(figures.cases, starts, axis=-1),
                np.add.reduceat(figures.population, starts, axis=-1),
                weights,
                method=self.standard_interval,
                multiplier=self.per,
                least_events=self.least_events,
                noise_variance=figures.noise * sizes,
            )
            tidy.add_estimate(
                "standardised_rate",
                standardised,
                labels=labels,
                style=style,
                n=total,
                standard=name,
                note=note,
            )
        if self.cumulative_to is not None:
            cumulative = cumulative_rate(
                figures.cases,
                figures.population,
                figures.groups,
                to_age=self.cumulative_to,
                noise_variance=figures.noise,
            )
            upto = f"per cent, ages {figures.groups.edges[0]} to {self.cumulative_to - 1}"
            last = figures.groups.edges.index(self.cumulative_to)
            counted = figures.cases[..., :last].sum(axis=-1)
            for statistic, found in (
                ("cumulative_rate", cumulative),
                ("cumulative_risk", cumulative_risk(cumulative)),
            ):
                tidy.add_estimate(
                    statistic,
                    found,
                    labels=labels,
                    style=Style(3, floor=True, relative=True),
                    n=counted,
                    note=before(notes, upto),
                )

    def _weights(self, figures: Figures) -> dict[str, tuple[list[int], tuple[float, ...]]]:
        """Return for each standard where its age groups begin among those of the query, and their weights."""
        found = {name: merged_groups(figures.groups, name) for name in self.standards}
        if self.weights is not None:
            own = tuple(float(weight) for weight in self.weights[figures.taken])
            found[OWN] = ([*range(len(own))], own)
        return found

    def _add_ratios(self, tidy: Tidy, figures: Figures, expected: Floats, labels: Labels, note: str) -> None:
        """Add SIR = observed / expected, the expected number, funnel limits and where the ratio lies."""
        observed, noise = figures.total, figures.total_noise
        found = standardised_ratio(observed, expected, method=self.rate_interval, noise_variance=noise)
        some = np.asarray(expected > 0)
        mean = np.where(some, expected, 1.0)
        place = np.where(some, funnel_significance(observed, mean, noise_variance=noise), "")
        notes = [f"{words}; {note}" if words else note for words in place.reshape(-1).tolist()]
        tidy.add_estimate(
            "sir",
            found,
            labels=labels,
            style=Style(2, floor=True, relative=True),
            n=observed,
            note=np.array(notes, object).reshape(place.shape).tolist(),
        )
        hidden = np.isnan(observed)
        flag = np.where(hidden, SUPPRESSED, np.where(some, OK, NOT_APPLICABLE))
        tidy.add("expected_cases", expected, labels=labels, style=Style(1), flag=flag, note=note)
        for level, name in ((WARNING_LEVEL, "95"), (ALARM_LEVEL, "998")):
            limits = funnel_limits(mean, level=level, noise_variance=noise)
            for side, values in (("lower", limits.lower), ("upper", limits.upper)):
                tidy.add(
                    f"funnel_{side}_{name}",
                    values / mean,
                    labels=labels,
                    style=Style(2),
                    n=expected,
                    flag=flag,
                    note=note,
                )

    def question(self) -> str:
        """Return what is asked in plain words."""
        within = f" by {' and '.join(self.by)}" if self.by else ""
        return f"how high incidence is{within}, by age and standardised for age"
