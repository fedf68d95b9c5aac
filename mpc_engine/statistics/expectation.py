"""Who stands for a cell of net survival – an age group, a sex, a period of diagnosis – in the life table.

All of it is public: codebook, query and life table alone decide. And the counts of such cells in the forms
that the estimators take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mpc_engine.codebook import BandVariable, Codebook, IntegerVariable
from mpc_engine.errors import DocumentError
from mpc_engine.estimators.icss import SurvivalStandard
from mpc_engine.estimators.lifetable import IntervalCounts
from mpc_engine.estimators.net_survival import expected_paths, mid_age_days
from mpc_engine.estimators.population_tables import YEAR_DAYS, PopulationTable
from mpc_engine.release.opened import Floats
from mpc_engine.statistics.layout import Selection
from mpc_engine.statistics.populations import age_groups, known_labels
from mpc_engine.statistics.query import possible, variable_axis

LAST_AGE, LAST_WIDTH = 90, 5
"""Where an open-ended age group is taken to end: at 90, or after five years if it begins later."""

WHOLE_LIFE = 100
"""A last age group that reaches so far holds everybody of its age and above, even if it has an end."""

TYPICAL_PEAK = 70
"""The age from which a typical cohort has no more patients per year of age."""

Places = NDArray[np.intp]


def kept_categories(codebook: Codebook, names: Sequence[str], where: Sequence[Selection]) -> list[Places]:
    """Return for each variable the known categories that the filters leave, at least partly.

    Raises DocumentError where they leave none.
    """
    axes = [each for name in names for each in variable_axis(name, "", codebook, [])]
    allowed = possible(axes, codebook, where)
    known = [len(known_labels(codebook, name)) for name in names]
    found = [np.flatnonzero(allowed[name][:count]) for name, count in zip(names, known, strict=True)]
    for name, places in zip(names, found, strict=True):
        if not len(places):
            raise DocumentError(f"the filters leave no category of {name}")
    return found


def standard_groups(
    codebook: Codebook, age: str, standard: SurvivalStandard, kept: Places
) -> list[list[int]]:
    """Return which of the kept age groups, by their place in ``kept``, make up each group of a standard.

    Groups outside the standard's ages are in none. Raises DocumentError where they do not make up its groups.
    """
    groups = age_groups(codebook, age)
    limits = {*standard.lower, *(() if standard.end is None else (standard.end,))}
    whole = standard.end is not None or groups.open_ended or groups.edges[-1] >= WHOLE_LIFE
    starts = [groups.edges[place] for place in kept]
    found = [
        [i for i, start in enumerate(starts) if low <= start and (high is None or start < high)]
        for low, high in zip(standard.lower, (*standard.lower[1:], standard.end), strict=True)
    ]
    if not whole or not all(found) or not limits <= set(groups.edges):
        few = len(groups) <= 20
        labels = ", ".join(groups.labels) if few else f"{groups.labels[0]} to {groups.labels[-1]}"
        raise DocumentError(
            f"{standard.name} has the age groups {', '.join(standard.labels)}; those of {age} ({labels}) do "
            "not make them up, or the filters leave none of one"
        )
    return found


def representative_ages(codebook: Codebook, name: str, given: Sequence[int | str] | None) -> list[float]:
    """Return the age in days that stands for each known age group: ``given`` in years, or its middle.

    Raises DocumentError unless there is one for each, and for what are no age groups.
    """
    groups = age_groups(codebook, name)
    if given is not None:
        if len(given) != len(groups):
            raise DocumentError(f"representative_ages: {len(groups)} are needed, one for each age group")
        return [float(Fraction(age)) * YEAR_DAYS for age in given]
    ends = (*groups.edges[1:], None) if groups.open_ended else groups.edges[1:]
    return [
        mid_age_days(low, high, max(LAST_AGE, low + LAST_WIDTH))
        for low, high in zip(groups.edges, ends, strict=False)
    ]


def calendar_years(codebook: Codebook, name: str) -> list[tuple[int, int]]:
    """Return the first and last calendar year of each known category. Raises DocumentError if it has none."""
    variable, base = codebook.variables[name], codebook.variables[codebook.base(name)]
    if not isinstance(base, IntegerVariable):
        raise DocumentError(
            f"year: {name!r} holds no calendar years; take an integer variable or a band of one"
        )
    if base.unit not in ("year", "years"):
        raise DocumentError(f"year: {name} is in {base.unit}; calendar years are needed")
    cuts = variable.cuts if isinstance(variable, BandVariable) else range(base.lower + 1, base.upper + 1)
    return [(start, end - 1) for start, end in zip((base.lower, *cuts), (*cuts, base.upper + 1), strict=True)]


def window_paths(
    table: PopulationTable, sex: NDArray[np.int64], age: Floats, middle: NDArray[np.datetime64], edges: Floats
) -> Floats:
    """Return expected cumulative hazards (G, J + 1) of people followed in a window of calendar time.

    Whoever is in the middle of an interval of follow-up at the ``middle`` of the window fell ill so long
    before; the hazard of each interval is that of people diagnosed then.
    """
    ago = (edges[1:] + edges[:-1]) / 2
    rises = [
        np.diff(expected_paths(table, sex, age, middle - before, edges)[:, index : index + 2])
        for index, before in enumerate(np.rint(ago).astype("timedelta64[D]"))
    ]
    start = np.zeros((len(age), 1))
    return np.concatenate([start, np.cumsum(np.hstack(rises), axis=1)], axis=1)


def extension(
    table: PopulationTable, age: Floats, diagnosis: NDArray[np.datetime64], follow_up: float
) -> str:
    """Return a note that says where those who stand for the cells leave the life table; "" if nowhere."""
    left = table.outside(age, diagnosis, follow_up)
    beyond = (
        (left.below_age, f"ages below {table.first_age}"),
        (left.above_age, f"ages above {table.last_age}"),
        (left.before, f"years before {table.years[0]}"),
        (left.after, f"years after {table.years[-1]}"),
    )
    words = [text for number, text in beyond if number]
    return f"nearest values of the life table for {' and '.join(words)}" if words else ""


def flat(counts: IntervalCounts) -> IntervalCounts:
    """Return counts with ages and the cells within them on one axis."""

    def reshaped(values: Floats, after: int) -> Floats:
        front = values.shape[: values.ndim - 2 - after]
        return values.reshape((*front, -1, *values.shape[values.ndim - after :]))

    return IntervalCounts(
        reshaped(counts.events, 1),
        reshaped(counts.censored, 1),
        reshaped(counts.beyond, 0),
        None if counts.entered is None else reshaped(counts.entered, 1),
        noise=counts.noise,
    )


def of_categories(counts: IntervalCounts, first: int, places: Sequence[Places]) -> IntervalCounts:
    """Return counts whose axes from ``first`` are age, sex and year as (…, ages, cells within an age, J).

    Only the categories at ``places`` are taken, given for each of these axes.
    """

    def shaped(values: Floats) -> Floats:
        kept = values
        for axis, each in enumerate(places, start=first):
            kept = np.take(kept, each, axis=axis)
        end = kept.shape[first + len(places) :]
        return kept.reshape((*kept.shape[: first + 1], -1, *end))

    return IntervalCounts(
        shaped(counts.events),
        shaped(counts.censored),
        shaped(counts.beyond),
        None if counts.entered is None else shaped(counts.entered),
        noise=counts.noise,
    )


def of_ages(counts: IntervalCounts, ages: list[int]) -> IntervalCounts:
    """Return the counts of some age groups."""
    return IntervalCounts(
        counts.events[..., ages, :, :],
        counts.censored[..., ages, :, :],
        counts.beyond[..., ages, :],
        None if counts.entered is None else counts.entered[..., ages, :, :],
        noise=counts.noise,
    )


def of_strata(counts: IntervalCounts, allowed: Sequence[NDArray[np.bool_]]) -> IntervalCounts:
    """Return the counts of the categories of the leading axes that are ``allowed``, a mask for each axis."""
    if not allowed:
        return counts
    places = np.ix_(*allowed)
    return replace(
        counts,
        events=counts.events[places],
        censored=counts.censored[places],
        beyond=counts.beyond[places],
        entered=None if counts.entered is None else counts.entered[places],
        guard=None if counts.guard is None else counts.guard[places],
    )


def typical_ages(codebook: Codebook, name: str) -> Floats:
    """Return how many adult cancer patients are to be expected in each known age group, up to a factor.

    Most cancers become more frequent with the third power of age, until at old age there are fewer people.
    """
    groups = age_groups(codebook, name)
    ends = [*groups.edges[1:], max(LAST_AGE, groups.edges[-1] + LAST_WIDTH)][: len(groups)]
    low, high = np.array(groups.edges[: len(groups)], np.float64), np.array(ends, np.float64)
    return np.asarray(
        (high - low) * (0.01 + np.minimum((low + high) / 2, TYPICAL_PEAK) ** 3 / TYPICAL_PEAK**3)
    )


def typical_outcomes(paths: Floats, edges: Floats, survival: float) -> Floats:
    """Return the shares of outcomes (G, 2J + 1) of patients who die as ``paths`` (G, J + 1) expects and of
    their disease besides, at a constant rate that leaves ``survival`` after five years.

    Half of those left are censored evenly before the last of ``edges``, in years.
    """
    followed = np.exp(np.log(survival) * edges / 5 - paths)
    left = followed * (1 - 0.5 * edges / edges[-1])
    gone = left[:, :-1] - left[:, 1:]
    died = gone * np.log(followed[:, :-1] / followed[:, 1:]) / np.log(left[:, :-1] / left[:, 1:])
    rows = np.zeros((len(paths), 2 * gone.shape[1] + 1))
    rows[:, 0:-1:2], rows[:, 1:-1:2], rows[:, -1] = died, gone - died, left[:, -1]
    return rows
