"""Patients of the reference data and made-up ones, cut into the counts that a release opens for survival."""

from __future__ import annotations

import csv
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc_engine.estimators.lifetable import CellNoise, IntervalCounts

DATA = Path(__file__).resolve().parents[2] / "data"
MONTH, QUARTER = 30.4375, 91.3125

Array = npt.NDArray[Any]


def read(path: str) -> list[dict[str, str]]:
    with (DATA / path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def wilms() -> dict[str, Array]:
    """The Wilms patients: days ``t``, relapse ``e``, ``histol`` FH/UH, ``stage`` 1–4, ``study`` 3/4."""
    rows: list[tuple[int, bool, str, str, str]] = []
    for row in read("wilms/silo_uk_like.csv"):
        end = datetime.strptime(row["EVENT_OR_LASTSEEN_DATE"], "%d/%m/%Y").date()
        days = (end - date.fromisoformat(row["DIAGNOSIS_DATE"])).days
        histology = "FH" if row["MORPH_ICD10_O2"] == "8960/3 NOS" else "UH"
        stage = str(["I", "II", "III", "IV"].index(row["STAGE_BEST"]) + 1)
        rows.append((days, row["EVENT"] == "R", histology, stage, "3"))
    for row in read("wilms/silo_us_like.csv"):
        histology = "FH" if row["histology_code"] == "1" else "UH"
        rows.append((int(row["fu_days"]), row["relapse"] == "1", histology, row["stage_num"], "4"))
    columns = ("t", "e", "histol", "stage", "study")
    return {name: np.array([row[i] for row in rows]) for i, name in enumerate(columns)}


def breast() -> dict[str, Array]:
    rows = read("references/breast/truth_harmonised_pooled.csv")
    people: dict[str, Array] = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return people | {"t": people["t"].astype(int), "e": people["e"] == "1"}


def counts(
    t: Array, e: Array, groups: Array | None = None, width: float = 1.0, intervals: int | None = None
) -> IntervalCounts:
    """Count people into intervals of ``width``; with ``groups`` one row per group in sorted order."""
    cell = np.maximum(np.ceil(t / width).astype(int), 1) - 1
    size = int(cell.max()) + 1 if intervals is None else intervals
    labels = np.zeros(len(t), dtype=int) if groups is None else np.unique(groups, return_inverse=True)[1]
    number = 1 if groups is None else int(labels.max()) + 1
    events, censored, beyond = np.zeros((number, size)), np.zeros((number, size)), np.zeros(number)
    inside = cell < size
    np.add.at(events, (labels[inside & e], cell[inside & e]), 1)
    np.add.at(censored, (labels[inside & ~e], cell[inside & ~e]), 1)
    np.add.at(beyond, labels[~inside], 1)
    if groups is None:
        return IntervalCounts(events[0], censored[0], beyond[0])
    return IntervalCounts(events, censored, beyond)


def laplace_variance(epsilon: float) -> float:
    q = float(np.exp(-epsilon))
    return 2 * q / (1 - q) ** 2


def noised(
    exact: IntervalCounts, generator: np.random.Generator, members: float = 0.75, guard: float = 0.25
) -> IntervalCounts:
    """Add discrete Laplace noise to every cell and to a guard; ``members`` and ``guard`` are their ε."""

    def draw(epsilon: float, shape: tuple[int, ...]) -> Array:
        p = 1 - np.exp(-epsilon)
        return generator.geometric(p, shape) - generator.geometric(p, shape)

    total = exact.events.sum(-1) + exact.censored.sum(-1) + exact.beyond
    return IntervalCounts(
        exact.events + draw(members, exact.events.shape),
        exact.censored + draw(members, exact.censored.shape),
        exact.beyond + draw(members, exact.beyond.shape),
        guard=total + draw(guard, total.shape),
        noise=CellNoise(laplace_variance(members), 0.0, laplace_variance(guard)),
    )


def simulated(
    generator: np.random.Generator, repeats: int, people: int, survival: float, intervals: int = 5
) -> IntervalCounts:
    """Cohorts with Weibull survival (``survival`` after 5 years), censored at 3 to 12 years, in years."""
    rate = (-np.log(survival)) ** (1 / 0.7) / 5
    event = generator.weibull(0.7, (repeats, people)) / rate
    end = generator.uniform(3, 12, (repeats, people))
    label = np.repeat(np.arange(repeats), people)
    return counts(np.minimum(event, end).ravel(), (event <= end).ravel(), label, 1.0, intervals)
