"""How far net survival from a histogram is from relsurv: `python -m benchmarks.net_survival_distance`.

Exact counts of the Slovenian colorectal patients in `data/`, tabulated by interval of follow-up, age group,
sex and period of diagnosis, go through `mpc_engine.estimators.net_survival`. Printed is the estimate less
relsurv's from individual records, times 100,000 (so 100 is 0.1 percentage points), at 1, 3 and 5 years: for
all patients, and where it is largest among the four stages. No noise is involved: this is what binning costs.
`--form hazard` prints the same for the other form.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from mpc_engine.estimators.lifetable import IntervalCounts, Method
from mpc_engine.estimators.net_survival import (
    Estimator,
    Form,
    expected_paths,
    mid_age_days,
    mid_period,
    net_survival,
)
from mpc_engine.estimators.net_survival_records import FollowUp, net_survival_of_records
from mpc_engine.estimators.population_tables import YEAR_DAYS, FloatArray, PopulationTable

DATA = Path(__file__).resolve().parent.parent / "data"

GRIDS = {"monthly": 12, "quarterly": 4, "annual": 1}
"""Intervals per year of follow-up."""

AGE_GROUPS: dict[str, tuple[int, ...]] = {
    "5-year": (0, *range(15, 90, 5)),
    "10-year": (0, *range(15, 90, 10)),
    "ICSS": (0, 15, 45, 55, 65, 75),
}
"""Lower limits in years; the last group is open-ended."""

LAST_AGE = 90.0
"""Where the open-ended age group is taken to end for its representative age."""

PERIODS = {"1 year": 1, "5 years": 5, "whole": 100}

YEARS = (1, 3, 5)

STAGES = {"L": "1", "R": "2", "D": "3", "X": "99"}
"""The codes of silo C and those of relsurv's result, which the other silos' are mapped to as well."""


@dataclass(frozen=True)
class Cohort:
    """The patients of the three silos with their stage as relsurv codes it and their year of diagnosis."""

    patients: FollowUp
    stage: npt.NDArray[np.str_]
    year: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Distance:
    """Estimate less relsurv at `YEARS`, for all and for each stage."""

    grid: str
    age_groups: str
    period: str
    estimator: Estimator
    form: Form
    overall: FloatArray
    by_stage: FloatArray
    """(stages, years)"""


def population() -> PopulationTable:
    """Return the life table of Slovenia."""
    return PopulationTable.from_csv((DATA / "population" / "slovenia_life_table.csv").read_text("utf-8"))


def cohort() -> Cohort:
    """Return the patients of the three silos, each read in its own coding."""
    rows = [*_silo_a(), *_silo_b(), *_silo_c()]
    sex, age, date, exit_days, died, stage = zip(*rows, strict=True)
    diagnosis = np.array(date, dtype="datetime64[D]")
    patients = FollowUp(
        np.array(sex), np.array(age, dtype=np.float64), diagnosis, np.array(exit_days), np.array(died)
    )
    return Cohort(patients, np.array(stage), diagnosis.astype("datetime64[Y]").astype(np.int64) + 1970)


Row = tuple[int, float, np.datetime64, int, bool, str]


def _rows(name: str) -> list[dict[str, str]]:
    with (DATA / "colorectal" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _silo_a() -> Iterator[Row]:
    for row in _rows("silo_A.csv"):
        stage = {"unknown": "99"}.get(row["stage"], row["stage"])
        sex = "MF".index(row["sex"])
        date = np.datetime64(row["diag_date"])
        yield sex, float(row["age_days"]), date, int(row["fu_days"]), row["dead"] == "1", stage


def _silo_b() -> Iterator[Row]:
    stages = {"1": "1", "2": "2", "7": "3", "9": "99"}
    for row in _rows("silo_B.csv"):
        birth, date, last = (_day(row[name]) for name in ("BIRTH_DATE", "DIAG_DATE", "LAST_DATE"))
        age, follow_up = int((date - birth).astype(int)), int((last - date).astype(int))
        stage = stages[row["SEER_SUMMARY_STAGE"]]
        yield int(row["SEX"]) - 1, float(age), date, follow_up, row["VITAL"] == "D", stage


def _silo_c() -> Iterator[Row]:
    for row in _rows("silo_C.csv"):
        sex = ("male", "female").index(row["gender"])
        age = float(row["age_yrs"]) * YEAR_DAYS
        date = np.datetime64("1960-01-01") + np.timedelta64(int(row["dx_days_since_1960"]), "D")
        stage = STAGES[row["stage_local"]]
        yield sex, age, date, int(row["surv_days"]), row["status"] == "1", stage


def _day(text: str) -> np.datetime64:
    day, month, year = text.split("/")
    return np.datetime64(f"{year}-{month}-{day}")


def tabulate(
    people: Cohort, edges: FloatArray, ages: tuple[int, ...], period_years: int
) -> tuple[IntervalCounts, npt.NDArray[np.int64], FloatArray, npt.NDArray[np.datetime64]]:
    """Return counts (stages, G, J) and, by cell g, the sex, age and date of diagnosis that represent it."""
    first, last = int(people.year.min()), int(people.year.max())
    starts = range(first, last + 1, period_years)
    groups = [*itertools.pairwise(ages), (ages[-1], None)]
    cells = list(itertools.product(range(2), groups, starts))
    sex = np.array([cell[0] for cell in cells])
    age = np.array([mid_age_days(low, high, LAST_AGE) for _, (low, high), _ in cells])
    date = np.array([mid_period(start, min(start + period_years - 1, last)) for _, _, start in cells])
    patients = people.patients
    group = np.searchsorted(np.array(ages) * YEAR_DAYS, patients.age_days, side="right") - 1
    period = (people.year - first) // period_years
    cell_of = (patients.sex * len(groups) + group) * len(starts) + period
    stage = np.searchsorted(sorted(STAGES.values()), people.stage)
    interval = np.searchsorted(edges[1:], patients.exit_days)
    intervals = len(edges) - 1
    shape = (len(STAGES), len(cells), intervals + 1)
    events, censored = np.zeros(shape), np.zeros(shape)
    for counts, chosen in ((events, patients.died), (censored, ~patients.died)):
        np.add.at(counts, (stage[chosen], cell_of[chosen], interval[chosen]), 1)
    beyond = events[..., -1] + censored[..., -1]
    return IntervalCounts(events[..., :-1], censored[..., :-1], beyond), sex, age, date


def relsurv() -> tuple[dict[Estimator, FloatArray], FloatArray]:
    """Return relsurv's results at `YEARS`: for all by estimator, and Pohar Perme by stage (stages, years)."""
    folder = DATA / "references" / "netsurv"
    overall: dict[Estimator, FloatArray] = {}
    with (folder / "relsurv_fixed_times.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["dataset"], row["stratum"]) == ("colrec", "all")]
    names: dict[Estimator, str] = {"pohar-perme": "pohar-perme", "ederer-2": "ederer2"}
    for estimator, name in names.items():
        found = {row["time_days"]: float(row["net_surv"]) for row in rows if row["method"] == name}
        overall[estimator] = np.array([found[f"{year * YEAR_DAYS:.3f}"] for year in YEARS])
    with (folder / "relsurv_by_stage.csv").open(encoding="utf-8", newline="") as file:
        staged = list(csv.DictReader(file))
    values = []
    for stage in sorted(STAGES.values()):
        other = [row for row in staged if f"stage{stage}=1" in row["stratum"]]
        if not other:  # the reference stage: all indicators are 0
            other = [row for row in staged if "=1" not in row["stratum"]]
        values.append([float(row["net"]) for row in other])
    return overall, np.array(values)


def distances(method: Method = "actuarial") -> Iterator[Distance]:
    """Yield the distance from relsurv for every grid, grouping, estimator and form."""
    people, table = cohort(), population()
    overall, staged = relsurv()
    staged_ederer = np.array(
        [
            net_survival_of_records(
                table,
                people.patients.where(people.stage == stage),
                np.array(YEARS) * YEAR_DAYS,
                estimator="ederer-2",
                form="relsurv",
            ).survival
            for stage in sorted(STAGES.values())
        ]
    )
    truth: dict[Estimator, FloatArray] = {"pohar-perme": staged, "ederer-2": staged_ederer}
    for (grid, per_year), (ages, lower), (period, years) in itertools.product(
        GRIDS.items(), AGE_GROUPS.items(), PERIODS.items()
    ):
        edges = np.array([step * YEAR_DAYS / per_year for step in range(YEARS[-1] * per_year + 1)])
        counts, sex, age, date = tabulate(people, edges, lower, years)
        paths = expected_paths(table, sex, age, date, edges)
        pooled = IntervalCounts(counts.events.sum(0), counts.censored.sum(0), counts.beyond.sum(0))
        at = np.array(YEARS) * per_year - 1
        estimators: tuple[Estimator, ...] = ("pohar-perme", "ederer-2")
        forms: tuple[Form, ...] = ("product", "hazard")
        for estimator, form in itertools.product(estimators, forms):
            results = [
                net_survival(part, paths, estimator=estimator, form=form, method=method).net[..., at]
                for part in (pooled, counts)
            ]
            yield Distance(
                grid,
                ages,
                period,
                estimator,
                form,
                results[0] - overall[estimator],
                results[1] - truth[estimator],
            )


def markdown(form: Form) -> Iterator[str]:
    """Yield the lines of the table for one form."""
    yield "| grid | age groups | period | Pohar Perme | worst stage | Ederer II | worst stage |"
    yield "|---|---|---|---|---|---|---|"
    rows = [row for row in distances() if row.form == form]
    for (grid, ages, period), found in itertools.groupby(
        rows, lambda row: (row.grid, row.age_groups, row.period)
    ):
        columns = [grid, ages, period]
        for row in found:
            worst = np.take_along_axis(row.by_stage, np.abs(row.by_stage).argmax(axis=0)[None], axis=0)[0]
            columns += [", ".join(f"{value * 1e5:+.0f}" for value in part) for part in (row.overall, worst)]
        yield f"| {' | '.join(columns)} |"


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.net_survival_distance", description=__doc__)
    parser.add_argument("--form", choices=get_args(Form), default="product")
    for line in markdown(parser.parse_args().form):
        print(line)


if __name__ == "__main__":
    main()
