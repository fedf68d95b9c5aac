"""Population life tables: the mortality of the general population by sex, age and calendar year.

A table gives a hazard per day that is constant within one year of age and within one table year. Ages are
counted in years of 365.241 days, as relsurv does [PS06]; calendar years begin on 1 January. A date in a year
that the table leaves out is read in the last table year before it. Outside the table the nearest value holds:
the last age for those who are older, the first and the last year for what lies before and after. That is
common practice but it is an assumption, so `PopulationTable.outside` counts where it was made.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mpc_engine.errors import DocumentError

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

YEAR_DAYS = 365.241
"""Days in a year of age or of follow-up."""

_CHUNK_CELLS = 1 << 20
"""How many (person, step) pairs are held at a time: 8 MiB an array."""


@dataclass(frozen=True)
class Outside:
    """How many persons leave the table somewhere between diagnosis and the end of follow-up, and how.

    ``below_age`` and ``above_age`` are younger than the first and older than the last age of the table,
    ``before`` and ``after`` reach outside its calendar years. The last table year holds for one year. One
    person may count in several.
    """

    below_age: int
    above_age: int
    before: int
    after: int

    @property
    def any(self) -> bool:
        """Whether anybody left the table."""
        return bool(self.below_age or self.above_age or self.before or self.after)


@dataclass(frozen=True)
class PopulationTable:
    """Hazard of death per day, shape (sexes, ages, years).

    ``sexes`` are the table's own names, in the order of the first axis; ages are ``first_age``,
    ``first_age`` + 1, … in completed years; ``years`` are calendar years, ascending, gaps allowed. Raises
    DocumentError if shapes do not fit, years do not ascend, or a hazard is negative or not finite.
    """

    sexes: tuple[str, ...]
    first_age: int
    years: tuple[int, ...]
    hazard: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "hazard", np.array(self.hazard, dtype=np.float64))
        shape = self.hazard.shape
        if len(shape) != 3 or shape[0] != len(self.sexes) or shape[2] != len(self.years) or not all(shape):
            raise DocumentError("population table: hazards are needed by sex, age and year")
        if len(set(self.sexes)) != len(self.sexes) or self.first_age < 0:
            raise DocumentError("population table: a sex is named twice or the first age is negative")
        if any(a >= b for a, b in itertools.pairwise(self.years)):
            raise DocumentError("population table: the calendar years must ascend")
        if self.years[0] < 1 or self.years[-1] >= 9999:
            raise DocumentError("population table: a calendar year is not possible")
        if not np.isfinite(self.hazard).all() or (self.hazard < 0).any():
            raise DocumentError("population table: a hazard is negative or not a finite number")
        self.hazard.setflags(write=False)

    @classmethod
    def from_csv(cls, text: str) -> PopulationTable:
        """Return the table in ``text``: comma-separated, with a header line.

        Columns: ``sex``, ``age`` (completed years), ``year`` and either ``hazard_per_day`` or
        ``annual_probability``, the chance q of dying within the year of age, which becomes the hazard
        −ln(1 − q)/365.241 per day. Other columns are ignored. Sexes keep the order in which they first occur.
        Raises DocumentError, naming the line, for a missing column, what is no number, an impossible value,
        a line given twice, and a sex without some age and year.
        """
        reader = csv.DictReader(io.StringIO(text))
        names = set(reader.fieldnames or ())
        measures = [name for name in ("hazard_per_day", "annual_probability") if name in names]
        if not {"sex", "age", "year"} <= names or len(measures) != 1:
            raise DocumentError(
                "population table: the columns sex, age, year and either hazard_per_day or "
                "annual_probability are needed"
            )
        cells: dict[tuple[str, int, int], float] = {}
        for row in reader:
            where = f"population table, line {reader.line_num}"
            try:
                key = (str(row["sex"]).strip(), int(row["age"]), int(row["year"]))
                value = float(row[measures[0]])
            except (TypeError, ValueError):
                raise DocumentError(f"{where}: a number is missing or cannot be read") from None
            upper = math.inf if measures[0] == "hazard_per_day" else 1.0
            if not (0 <= value < upper):
                raise DocumentError(f"{where}: the {measures[0]} is not possible")
            if key in cells:
                raise DocumentError(f"{where}: this sex, age and year were given before")
            cells[key] = value if upper == math.inf else -math.log1p(-value) / YEAR_DAYS
        return cls._from_cells(cells)

    @classmethod
    def _from_cells(cls, cells: dict[tuple[str, int, int], float]) -> PopulationTable:
        if not cells:
            raise DocumentError("population table: there are no lines below the header")
        sexes = tuple(dict.fromkeys(sex for sex, _, _ in cells))
        years = tuple(sorted({year for _, _, year in cells}))
        ages = sorted({age for _, age, _ in cells})
        if ages[-1] - ages[0] + 1 != len(ages) or len(cells) != len(sexes) * len(ages) * len(years):
            raise DocumentError("population table: every sex needs every single year of age in every year")
        values = [cells[sex, age, year] for sex in sexes for age in ages for year in years]
        hazard = np.array(values).reshape(len(sexes), len(ages), len(years))
        return cls(sexes, ages[0], years, hazard)

    @property
    def last_age(self) -> int:
        """The last age in completed years; its hazard holds for everybody older."""
        return self.first_age + int(self.hazard.shape[1]) - 1

    def sex_index(self, sex: str) -> int:
        """Return the position of ``sex`` among the table's sexes. Raises DocumentError if it has none."""
        try:
            return self.sexes.index(sex)
        except ValueError:
            raise DocumentError(f"population table: it has no sex `{sex}`") from None

    def daily_hazard(self, sex: npt.ArrayLike, age_days: npt.ArrayLike, date: npt.ArrayLike) -> FloatArray:
        """Return the hazard per day of persons of index ``sex`` who are ``age_days`` old on ``date``.

        ``date`` is datetime64 or days since 1970-01-01, fractions allowed. The arguments broadcast. Raises
        DocumentError for an unknown sex, a negative age or what is not finite.
        """
        sexes, age, day = _persons(sex, age_days, date, len(self.sexes))
        return self._look_up(sexes, age, day)

    def _look_up(self, sexes: IntArray, age: FloatArray, day: FloatArray) -> FloatArray:
        ages = np.floor(age / YEAR_DAYS).astype(np.int64) - self.first_age
        columns = np.searchsorted(self._year_starts(), day, side="right") - 1
        _, n_ages, n_years = self.hazard.shape
        found = self.hazard[sexes, np.clip(ages, 0, n_ages - 1), np.clip(columns, 0, n_years - 1)]
        return np.asarray(found, dtype=np.float64)

    def step_hazards(
        self, sex: npt.ArrayLike, age_days: npt.ArrayLike, diagnosis: npt.ArrayLike, starts: FloatArray
    ) -> FloatArray:
        """Return hazards per day, shape (persons, steps): each person's at diagnosis + ``starts`` days.

        The first three are one-dimensional or single. A step's hazard is that at its start, so with steps of
        a day a birthday may count up to a day late. Errors as `daily_hazard`.
        """
        sexes, age, day = _in_rows(sex, age_days, diagnosis, len(self.sexes))
        return self._look_up(sexes[:, None], age[:, None] + starts, day[:, None] + starts)

    def cumulative_hazard(
        self, sex: npt.ArrayLike, age_days: npt.ArrayLike, diagnosis: npt.ArrayLike, edges: npt.ArrayLike
    ) -> FloatArray:
        """Return the expected cumulative hazard from diagnosis to each of ``edges``, (persons, len(edges)).

        ``edges`` are days since diagnosis, ascending from 0 or above. The hazard is summed over steps of at
        most a day. The expected survival is exp of minus the result. Raises DocumentError for edges that do
        not ascend, else as `daily_hazard`.
        """
        marks = follow_up_edges(edges)
        grid = step_grid(marks)
        sexes, age, day = _in_rows(sex, age_days, diagnosis, len(self.sexes))
        result = np.zeros((len(age), len(marks)))
        columns = np.searchsorted(grid, marks)
        for rows in chunks(len(age), len(grid)):
            steps = self.step_hazards(sexes[rows], age[rows], day[rows], grid[:-1]) * np.diff(grid)
            total = np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1)
            result[rows] = total[:, columns]
        return result

    def outside(
        self, age_days: npt.ArrayLike, diagnosis: npt.ArrayLike, follow_up_days: npt.ArrayLike
    ) -> Outside:
        """Return how many persons are followed where the table has to be extended.

        Errors as `daily_hazard`.
        """
        _, age, day = _persons(0, age_days, diagnosis, len(self.sexes))
        follow_up = np.asarray(follow_up_days, dtype=np.float64)
        starts = self._year_starts()
        end = np.datetime64(f"{self.years[-1] + 1:04d}-01-01", "D").astype(np.int64)
        return Outside(
            below_age=int(np.count_nonzero(np.floor(age / YEAR_DAYS) + 0 * follow_up < self.first_age)),
            above_age=int(np.count_nonzero(np.floor((age + follow_up) / YEAR_DAYS) > self.last_age)),
            before=int(np.count_nonzero(day + 0 * follow_up < starts[0])),
            after=int(np.count_nonzero(day + follow_up > end)),
        )

    def _year_starts(self) -> IntArray:
        days = np.array([f"{year:04d}-01-01" for year in self.years], dtype="datetime64[D]")
        return days.astype(np.int64)


def follow_up_edges(edges: npt.ArrayLike) -> FloatArray:
    """Return ``edges`` as days. Raises DocumentError unless they ascend from 0 or above and are finite."""
    marks = np.atleast_1d(np.asarray(edges, dtype=np.float64))
    if marks.ndim != 1 or not len(marks) or not np.isfinite(marks).all() or marks[0] < 0:
        raise DocumentError("follow-up times are needed in days since diagnosis, 0 or more")
    if (np.diff(marks) <= 0).any():
        raise DocumentError("follow-up times must ascend")
    return marks


def step_grid(marks: FloatArray) -> FloatArray:
    """Return 0 and every whole day up to the last of ``marks``, and the marks themselves, ascending."""
    return np.asarray(np.union1d(np.arange(math.floor(marks[-1]) + 1.0), marks), dtype=np.float64)


def chunks(rows: int, columns: int) -> list[slice]:
    """Return slices that cover ``rows`` rows, each of a size that keeps arrays of ``columns`` small."""
    step = max(1, _CHUNK_CELLS // max(1, columns))
    return [slice(start, start + step) for start in range(0, rows, step)]


def days_since_1970(dates: npt.ArrayLike) -> FloatArray:
    """Return datetime64 ``dates`` (or days since 1970-01-01) as floats. Raises DocumentError for neither."""
    array = np.asarray(dates)
    if np.issubdtype(array.dtype, np.datetime64):
        if np.isnat(array).any():
            raise DocumentError("population table: a date is missing")
        return np.asarray(array.astype("datetime64[D]").astype(np.int64), dtype=np.float64)
    try:
        return np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError):
        raise DocumentError("population table: dates are needed, or days since 1970-01-01") from None


def _in_rows(
    sex: npt.ArrayLike, age_days: npt.ArrayLike, date: npt.ArrayLike, sexes: int
) -> tuple[IntArray, FloatArray, FloatArray]:
    index, age, day = _persons(sex, age_days, date, sexes)
    if age.ndim > 1:
        raise DocumentError("population table: one sex, age and date per person are needed")
    return np.atleast_1d(index), np.atleast_1d(age), np.atleast_1d(day)


def _persons(
    sex: npt.ArrayLike, age_days: npt.ArrayLike, date: npt.ArrayLike, sexes: int
) -> tuple[IntArray, FloatArray, FloatArray]:
    index, age, day = np.asarray(sex), np.asarray(age_days, dtype=np.float64), days_since_1970(date)
    if not np.issubdtype(index.dtype, np.integer) or (index < 0).any() or (index >= sexes).any():
        raise DocumentError("population table: sex is given by its position in the table")
    if not (np.isfinite(age).all() and np.isfinite(day).all()) or (age < 0).any():
        raise DocumentError("population table: an age is negative, or an age or date is not finite")
    try:
        shape = np.broadcast_shapes(index.shape, age.shape, day.shape)
    except ValueError:
        raise DocumentError("population table: sex, age and date do not fit together") from None
    whole = np.asarray(index, dtype=np.int64)
    return np.broadcast_to(whole, shape), np.broadcast_to(age, shape), np.broadcast_to(day, shape)
