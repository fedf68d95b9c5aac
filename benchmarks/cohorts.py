"""Made-up cohorts of known truth, drawn as the sums that silos would bring, many repetitions at once.

Follow-up is continuous. Patients are independent and alike, so that how many of them end up in each cell is
multinomial, and a repetition is a single draw with the exact chances of the cells. Nothing is binned before
the cells are: what a grid costs in accuracy shows as bias.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mpc_engine.estimators.population_tables import YEAR_DAYS, PopulationTable

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_STEPS = 400
"""Steps within an interval of follow-up over which chances are summed."""


@dataclass(frozen=True)
class FollowUpModel:
    """Deaths with Weibull times, and follow-up that ends at random between two years after diagnosis.

    ``survival`` is that at five years, ``shape`` below 1 puts deaths early; follow-up is uniform on
    ``followed``, as when patients are diagnosed evenly over a period and the study closes after it.
    """

    name: str
    survival: float
    shape: float
    followed: tuple[float, float]

    def true_survival(self, years: Floats) -> Floats:
        """Return S(t)."""
        return np.asarray(self.survival ** ((years / 5) ** self.shape))

    def still_followed(self, years: Floats) -> Floats:
        """Return the chance that follow-up, were there no deaths, is longer than ``years``."""
        low, high = self.followed
        return np.clip((high - years) / (high - low), 0.0, 1.0)

    def median(self) -> float:
        """Return the median survival time in years."""
        return float(5 * (np.log(0.5) / np.log(self.survival)) ** (1 / self.shape))

    def chances(self, edges: Floats) -> Floats:
        """Return the chance of every outcome in the order of a release: event, censored … beyond."""
        return outcome_chances(self.true_survival, self.still_followed, edges)


CHILDHOOD = FollowUpModel("childhood", 0.80, 0.7, (2.0, 22.0))
"""Diagnoses over twenty years and two years of follow-up for all: a sixth is censored before five years."""
HEAVY = FollowUpModel("heavy censoring", 0.50, 0.8, (0.0, 10.0))
"""Diagnoses over ten years until the day the study closes: half is censored before five years."""


HIGH = FollowUpModel("high survival", 0.95, 0.7, (2.0, 22.0))
"""As `CHILDHOOD`, but nearly all survive, so that noise is as large as the number of deaths."""


def outcome_chances(
    survival: Callable[[Floats], Floats], followed: Callable[[Floats], Floats], edges: Floats
) -> Floats:
    """Return the chances of (event, censored) in every interval and of being observed beyond the last edge.

    ``survival`` and ``followed`` are functions of an array of years, which may have further leading axes in
    their results; deaths and the end of follow-up are independent.
    """
    parts = []
    for low, high in itertools.pairwise(edges):
        # Evenly spaced in the square root: hazards may be infinite at diagnosis.
        times = np.linspace(np.sqrt(low), np.sqrt(high), _STEPS + 1) ** 2
        alive, seen = survival(times), followed(times)
        gone, lost = alive[..., :-1] - alive[..., 1:], seen[..., :-1] - seen[..., 1:]
        # Of the steps, both the middle of the one and the change of the other: exact up to the step's square.
        parts.append((gone * (seen[..., :-1] + seen[..., 1:]) / 2).sum(axis=-1))
        parts.append((lost * (alive[..., :-1] + alive[..., 1:]) / 2).sum(axis=-1))
    last = edges[-1:]
    parts.append((survival(last) * followed(last))[..., 0])
    return np.stack(parts, axis=-1)


@dataclass(frozen=True)
class Ages:
    """Ages at diagnosis in months: a discretised gamma on 0–239, much like those of Wilms tumours."""

    shape: float = 2.0
    scale: float = 21.0
    most: int = 239

    @cached_property
    def chances(self) -> Floats:
        """Return the chance of every completed month; what lies beyond counts as the last."""
        below = stats.gamma.cdf(np.arange(1, self.most + 2), self.shape, scale=self.scale)
        below[-1] = 1.0
        return np.asarray(np.diff(below, prepend=0.0), np.float64)

    @property
    def mean(self) -> float:
        """Return the true mean in months."""
        return float(self.chances @ np.arange(self.most + 1))

    def sums(self, n: int, centre: int, repetitions: int, rng: np.random.Generator) -> list[Integers]:
        """Return number, sum and sum of squares of age less ``centre``, each of shape (repetitions,)."""
        ages = np.arange(self.most + 1) - centre
        counts = rng.multinomial(n, self.chances, size=repetitions)
        return [counts.sum(axis=1), counts @ ages, counts @ ages**2]


@dataclass(frozen=True)
class NetModel:
    """Adults who die of the cancer or of other causes; the latter at the rates of a public life table.

    Ages are spread over ``ages`` with the given chances, evenly within a group; half of each sex; diagnosed
    evenly over ``years``. The excess hazard is that of a Weibull time with five-year net survival ``net`` by
    age group. Follow-up is uniform on ``followed`` years, whatever the age.
    """

    ages: tuple[tuple[int, int], ...] = ((30, 45), (45, 55), (55, 65), (65, 75), (75, 90))
    shares: tuple[float, ...] = (0.05, 0.10, 0.22, 0.33, 0.30)
    net: tuple[float, ...] = (0.58, 0.55, 0.52, 0.48, 0.40)
    shape: float = 0.7
    years: tuple[int, int] = (1994, 2000)
    followed: tuple[float, float] = (4.0, 11.0)

    def true_net(self, years: Floats) -> Floats:
        """Return net survival: the mean over patients of what would be theirs without other causes."""
        return np.asarray(np.array(self.shares) @ self._excess(years))

    def _excess(self, years: Floats) -> Floats:
        return np.asarray(np.array(self.net)[:, None] ** ((years / 5) ** self.shape))

    def chances(self, table: PopulationTable, edges: Floats) -> Floats:
        """Return the chances of the cells, (age group, sex, outcome), for the edges in years."""
        starts = [np.datetime64(f"{year}-07-01") for year in range(self.years[0], self.years[1] + 1)]
        fine = np.linspace(0.0, edges[-1], 20 * round(edges[-1]) + 1)
        low, high = self.followed

        def followed(years: Floats) -> Floats:
            return np.clip((high - years) / (high - low), 0.0, 1.0)

        cells = np.zeros((len(self.ages), len(table.sexes), 2 * len(edges) - 1))
        for group, (first, last) in enumerate(self.ages):
            for sex in range(len(table.sexes)):
                ages = np.repeat(np.arange(first, last) + 0.5, len(starts)) * YEAR_DAYS
                dates = np.tile(np.array(starts), last - first)
                hazards = table.cumulative_hazard(sex, ages, dates, fine[1:] * YEAR_DAYS)
                expected = np.exp(-np.concatenate([np.zeros((len(ages), 1)), hazards], axis=1))

                def survival(years: Floats, group: int = group, other: Floats = expected) -> Floats:
                    survived = np.stack([np.interp(years, fine, row) for row in other])
                    return np.asarray(survived * self._excess(years)[group])

                share = self.shares[group] / len(table.sexes)
                cells[group, sex] = share * outcome_chances(survival, followed, edges).mean(axis=0)
        return cells
