"""What rates are made of, cases and person-years by stratum and age group; and strata put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc_engine.estimators.standards import AgeGroups
from mpc_engine.release.opened import Floats
from mpc_engine.statistics.tidy import Words


@dataclass(frozen=True)
class Figures:
    """Cases and person-years by stratum and age group, and which ages these are.

    Ages that the query's filters leave out are not there; ``taken`` are the places of the others. ``noise``
    is the noise variance of the cases of one age, (strata …, 1).
    """

    cases: Floats
    population: Floats
    groups: AgeGroups
    taken: slice
    noise: Floats

    @property
    def total(self) -> Floats:
        """Return the cases of all ages, by stratum."""
        return np.asarray(self.cases.sum(axis=-1))

    @property
    def total_noise(self) -> Floats:
        """Return the noise variance of `total`."""
        return np.asarray(self.noise[..., 0] * len(self.groups))

    @property
    def ages(self) -> str:
        """Return which ages there are, such as ``ages 0-14`` or ``ages 65 and above``."""
        first, last = self.groups.edges[0], self.groups.edges[-1]
        return f"ages {first} and above" if self.groups.open_ended else f"ages {first}-{last - 1}"

    def together(self, axes: tuple[int, ...]) -> tuple[Figures, NDArray[Any]]:
        """Return the shown strata summed over ``axes``, cases and people alike, and notes that say so.

        Strata without people, as of an unknown category, are left out. Cases are NaN where none is shown.
        """
        peopled = self.population.sum(axis=-1) > 0
        shown = peopled & ~np.isnan(self.cases).any(axis=-1)
        number, of = shown.sum(axis=axes), peopled.sum(axis=axes)

        def summed(values: Floats) -> Floats:
            return np.asarray(np.where(shown[..., None], values, 0.0).sum(axis=axes))

        told = (number > 0) | (of == 0)
        cases = np.where(told[..., None], summed(self.cases), np.nan)
        words = [
            "all strata together" if few == every else f"{few} shown of {every} strata together"
            for few, every in zip(number.reshape(-1).tolist(), of.reshape(-1).tolist(), strict=True)
        ]
        notes = np.array(words, object).reshape(number.shape)
        return Figures(cases, summed(self.population), self.groups, self.taken, summed(self.noise)), notes

    def expected_from_all(self, axes: tuple[int, ...]) -> Floats:
        """Return the number expected in each stratum at the rates of all shown ones over ``axes``."""
        shown = ~np.isnan(self.cases) & (self.population > 0)
        people = np.where(shown, self.population, 0.0).sum(axis=axes, keepdims=True)
        cases = np.where(shown, self.cases, 0.0).sum(axis=axes, keepdims=True)
        rates = np.maximum(cases, 0.0) / np.where(people > 0, people, 1.0)
        return np.asarray((rates * self.population).sum(axis=-1))


def before(notes: Words, note: str) -> Words:
    """Return ``note`` with each of ``notes`` before it."""
    if isinstance(notes, str):
        return f"{notes}; {note}" if notes else note
    whole = np.asarray(notes, object)
    return np.array([f"{each}; {note}" for each in whole.reshape(-1)], object).reshape(whole.shape)
