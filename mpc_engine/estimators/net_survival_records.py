"""Net survival from individual records, in the clear: the reference that a release is compared with.

A release never sums these weights on shares: a patient's 1/S* has no bound that the data do not set, so
neither would the noise. What a release can give is in `mpc_engine.estimators.net_survival`.

With N the deaths, Y those at risk, λ* the population's hazard and w = 1/S* (Pohar Perme [PSE12]) or 1
(Ederer II [EH59]), all summed over patients in steps of a day: d = ΣwΔN/ΣwY, e = ΣwYΔΛ*/ΣwY. Three forms:

- ``product``: Π(1 − d)·exp(Σe), the Kaplan–Meier of deaths over the exponential of a continuous hazard;
- ``hazard``: exp(−Σ(d − e));
- ``relsurv``: Π(1 − d + e) over the distinct times at which a patient's follow-up ends, where e is summed
  over the days since the time before. It repeats what the R package relsurv computes, whose
  Pohar Perme replaces the e of each day by its mean since that time before. Use it to compare with relsurv.

The three agree as steps and the share dying in one step go to zero. In small strata they do not: in 393
patients of unknown stage `product` and `relsurv` differ by 0.0003.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from mpc_engine.errors import DataError, DocumentError
from mpc_engine.estimators.population_tables import (
    FloatArray,
    IntArray,
    PopulationTable,
    chunks,
    days_since_1970,
    follow_up_edges,
    step_grid,
)

Estimator = Literal["pohar-perme", "ederer-2"]
RecordForm = Literal["product", "hazard", "relsurv"]


@dataclass(frozen=True)
class FollowUp:
    """Patients, one per row of equally long arrays.

    ``sex`` is the index in the population table, ``age_days`` the age at diagnosis, ``diagnosis`` a date
    (datetime64) or days since 1970-01-01, ``exit_days`` the whole days from diagnosis to death or the end of
    follow-up, ``died`` whether it was death. Somebody who leaves on the day of diagnosis counts as leaving
    on the next. Raises DataError if lengths differ or follow-up is negative or not in whole days.
    """

    sex: IntArray
    age_days: FloatArray
    diagnosis: FloatArray
    exit_days: FloatArray
    died: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        columns = {
            "sex": np.asarray(self.sex, dtype=np.int64),
            "age_days": np.asarray(self.age_days, dtype=np.float64),
            "diagnosis": days_since_1970(self.diagnosis),
            "exit_days": np.asarray(self.exit_days, dtype=np.float64),
            "died": np.asarray(self.died, dtype=np.bool_),
        }
        if len({column.shape for column in columns.values()}) != 1 or columns["sex"].ndim != 1:
            raise DataError("follow-up: every column needs one value per patient")
        exits = np.asarray(columns["exit_days"], dtype=np.float64)
        if not np.isfinite(exits).all() or (exits < 0).any() or (exits != np.floor(exits)).any():
            raise DataError("follow-up: its length is a whole number of days, 0 or more")
        columns["exit_days"] = np.maximum(exits, 1.0)
        for name, column in columns.items():
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.sex)

    def where(self, chosen: npt.NDArray[np.bool_]) -> FollowUp:
        """Return the patients for whom ``chosen`` holds."""
        return FollowUp(
            self.sex[chosen],
            self.age_days[chosen],
            self.diagnosis[chosen],
            self.exit_days[chosen],
            self.died[chosen],
        )


@dataclass(frozen=True)
class RecordCurve:
    """Net survival at ``times`` (days); all arrays have their length.

    ``sigma`` is the standard error of ln S (so that of S is S·sigma) and ``at_risk`` how many are followed
    up to that time or beyond. Values are nan where nobody is followed up to the time, except 0 after
    everybody died.
    """

    times: FloatArray
    survival: FloatArray
    sigma: FloatArray
    at_risk: IntArray


def net_survival_of_records(
    table: PopulationTable,
    patients: FollowUp,
    times: npt.ArrayLike,
    *,
    estimator: Estimator = "pohar-perme",
    form: RecordForm = "product",
) -> RecordCurve:
    """Return the net survival of ``patients`` at ``times``, days since diagnosis, ascending above 0.

    The variance of ln S is Σ(Σw²ΔN)/(ΣwY)². Raises DocumentError for times that do not ascend, an unknown
    estimator or form, or a sex or age that the table cannot have. [PSE12], [EH59]
    """
    if estimator not in get_args(Estimator) or form not in get_args(RecordForm):
        raise DocumentError("net survival: the estimator or its form is not known")
    marks = follow_up_edges(times)
    if marks[0] == 0:
        raise DocumentError("net survival: times begin above 0")
    grid = step_grid(marks)
    ends = grid[1:]
    sums = _sums(table, patients, grid, weighted=estimator == "pohar-perme")
    with np.errstate(invalid="ignore", divide="ignore"):
        died = np.where(sums.deaths > 0, np.minimum(sums.deaths / sums.at_risk_end, 1.0), 0.0)
        variance = np.where(sums.deaths > 0, sums.squares / sums.at_risk_end**2, 0.0)
        expected = sums.expected()
        if form == "relsurv":
            stops = np.isin(ends, np.union1d(patients.exit_days, marks))
            excess = died - _relsurv_expected(sums, stops, running=estimator == "pohar-perme")
            log = np.log(np.maximum(1.0 - excess, 0.0))
        elif form == "product":
            log = np.log(np.maximum(1.0 - died, 0.0)) + expected
        else:
            log = expected - died
        curve = np.asarray(np.exp(np.cumsum(log)), dtype=np.float64)
    sigma = np.sqrt(np.cumsum(variance))
    # Sums of weights in two orders differ in the last place; two deaths in a million patients are further.
    all_dead = np.maximum.accumulate(died > 1 - 1e-9)
    unknown = (sums.followed == 0) & ~(all_dead & (form != "hazard"))
    curve = np.asarray(np.where(unknown, np.nan, np.where(sums.followed == 0, 0.0, curve)), dtype=np.float64)
    sigma = np.asarray(np.where(curve > 0, sigma, np.nan), dtype=np.float64)
    columns = np.searchsorted(ends, marks)
    return RecordCurve(marks, curve[columns], sigma[columns], sums.followed[columns].astype(np.int64))


@dataclass(frozen=True)
class _Sums:
    """Sums over patients by step; ``start`` and ``end`` say where in the step weights are taken.

    ``width`` is the length of the step in days and ``hazard_start``, ``hazard_end`` are sums of λ* per day.
    """

    width: FloatArray
    followed: FloatArray
    deaths: FloatArray
    squares: FloatArray
    at_risk_start: FloatArray
    at_risk_end: FloatArray
    hazard_start: FloatArray
    hazard_end: FloatArray

    def expected(self, block: IntArray | None = None) -> FloatArray:
        """Return e of each step: its width times the mean hazard, weighted at its start and at its end.

        With ``block``, the number of the block that each step is in, means run from the start of the block.
        """
        rate = np.zeros(len(self.width))
        for hazard, risk in ((self.hazard_start, self.at_risk_start), (self.hazard_end, self.at_risk_end)):
            if block is not None:
                hazard, risk = _running(hazard, block), _running(risk, block)
            rate += hazard / risk / 2
        return np.where(self.followed > 0, rate * self.width, 0.0)


def _sums(table: PopulationTable, patients: FollowUp, grid: FloatArray, *, weighted: bool) -> _Sums:
    ends, widths = grid[1:], np.diff(grid)
    totals = np.zeros((7, len(ends)))
    for rows in chunks(len(patients), len(ends)):
        exits = patients.exit_days[rows]
        rates = table.step_hazards(
            patients.sex[rows], patients.age_days[rows], patients.diagnosis[rows], grid[:-1]
        )
        followed = exits[:, None] >= ends
        if weighted:
            cumulative = np.cumsum(rates * widths, axis=1)
            before, after = np.exp(cumulative - rates * widths), np.exp(cumulative)
        else:
            before = after = np.ones_like(rates)
        dying = np.flatnonzero(patients.died[rows] & (exits <= ends[-1]))
        step_of_death = np.searchsorted(ends, exits[dying])
        weight = after[dying, step_of_death]
        before, after = before * followed, after * followed
        totals[0] += followed.sum(axis=0)
        np.add.at(totals[1], step_of_death, weight)
        np.add.at(totals[2], step_of_death, weight**2)
        totals[3] += before.sum(axis=0)
        totals[4] += after.sum(axis=0)
        totals[5] += (before * rates).sum(axis=0)
        totals[6] += (after * rates).sum(axis=0)
    return _Sums(widths, *totals)


def _relsurv_expected(sums: _Sums, stops: npt.NDArray[np.bool_], running: bool) -> FloatArray:
    """Return e at the steps that end at a stop, summed since the stop before; with running means if asked."""
    block = np.concatenate([[0], np.cumsum(stops)[:-1]])
    total = np.cumsum(sums.expected(block if running else None))
    result = np.zeros(len(stops))
    result[stops] = np.diff(total[stops], prepend=0.0)
    return result


def _running(values: FloatArray, block: IntArray) -> FloatArray:
    """Return running sums of ``values`` that start anew with each block."""
    total = np.cumsum(values)
    first = np.searchsorted(block, block)
    return np.asarray(total - total[first] + values[first], dtype=np.float64)
