"""Population life tables: reading, looking up, integrating, and what lies outside."""

from __future__ import annotations

import csv
import math
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.net_survival_distance import DATA, population
from mpc_engine.errors import DocumentError
from mpc_engine.estimators.population_tables import YEAR_DAYS, PopulationTable, days_since_1970

SMALL = """sex,age,year,hazard_per_day
male,60,2000,0.00001
male,61,2000,0.00002
male,60,2003,0.00003
male,61,2003,0.00004
female,60,2000,0.00005
female,61,2000,0.00006
female,60,2003,0.00007
female,61,2003,0.00008
"""


def test_the_slovenian_table_keeps_every_digit_of_its_file() -> None:
    table = population()
    assert (table.sexes, table.first_age, table.last_age) == (("male", "female"), 0, 103)
    with (DATA / "population/slovenia_life_table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == table.hazard.size == 2 * 104 * 45
    for row in rows[:: len(rows) // 200]:
        place = (table.sex_index(row["sex"]), int(row["age"]), table.years.index(int(row["year"])))
        assert table.hazard[place] == float(row["hazard_per_day"])


@pytest.mark.parametrize(
    ("sex", "years_old", "day", "hazard"),
    [
        (0, 60.0, "2000-01-01", 0.00001),
        (0, 60.999, "2000-06-01", 0.00001),
        (0, 61.0, "2000-06-01", 0.00002),
        (1, 60.5, "2002-12-31", 0.00005),  # a year left out: the last one before it
        (1, 60.5, "2003-01-01", 0.00007),
        (1, 99.0, "2003-05-05", 0.00008),  # older than the table
        (0, 12.0, "2003-05-05", 0.00003),  # younger
        (0, 61.5, "1950-05-05", 0.00002),  # before it
        (0, 61.5, "2050-05-05", 0.00004),  # after it
    ],
)
def test_a_hazard_is_that_of_sex_age_and_year(sex: int, years_old: float, day: str, hazard: float) -> None:
    table = PopulationTable.from_csv(SMALL)
    age = np.nextafter(years_old * YEAR_DAYS, math.inf)
    assert table.daily_hazard(sex, age, np.datetime64(day)) == hazard


def test_cumulative_hazard_walks_through_birthdays_and_new_years() -> None:
    table = PopulationTable.from_csv(SMALL)
    born_early = 61 * YEAR_DAYS - 10.5  # 61 between the 10th and the 11th day
    new_year = 20  # days from diagnosis to 2003
    diagnosis = np.datetime64("2003-01-01") - np.timedelta64(new_year, "D")
    # Days begin at 0: eleven are begun at 60 years, nine at 61 in the old table year, then the new one.
    expected = [0.0, 11 * 0.00001, 11 * 0.00001 + 9 * 0.00002, 11 * 0.00001 + 9 * 0.00002 + 5.5 * 0.00004]
    found = table.cumulative_hazard(0, born_early, diagnosis, [0, 11, 20, 25.5])
    assert found == pytest.approx(np.array([expected]), rel=1e-12)


def test_a_cumulative_hazard_does_not_depend_on_how_people_are_grouped() -> None:
    rng = np.random.default_rng(31)
    table = population()
    sex, age = rng.integers(0, 2, 900), rng.uniform(0, 110, 900) * YEAR_DAYS
    diagnosis = np.datetime64("1985-01-01") + rng.integers(0, 14000, 900)
    edges = np.arange(0, 3000, 100.5)
    together = table.cumulative_hazard(sex, age, diagnosis, edges)
    assert together.shape == (900, len(edges))
    for one in (0, 411, 899):
        alone = table.cumulative_hazard(sex[one], age[one], diagnosis[one], edges)
        np.testing.assert_allclose(together[one], alone[0], rtol=1e-13)


@given(st.floats(0, 45000), st.integers(-20000, 30000), st.floats(1, 4000), st.floats(1, 4000))
def test_a_cumulative_hazard_adds_up(age: float, day: int, first: float, second: float) -> None:
    table = PopulationTable.from_csv(SMALL)
    whole = math.floor(first)
    once = table.cumulative_hazard(1, age, day, [whole, whole + second])[0]
    later = table.cumulative_hazard(1, age + whole, day + whole, [second])[0, 0]
    assert once[1] - once[0] == pytest.approx(later, rel=1e-6, abs=1e-8 + 2 * 0.00001)
    assert 0.00005 * whole * (1 - 1e-9) <= once[0] <= 0.00008 * whole * (1 + 1e-9)


def test_probabilities_become_hazards() -> None:
    text = "age,sex,year,annual_probability,note\n0,f,2000,0.5,a\n1,f,2000,0,b\n"
    table = PopulationTable.from_csv(text)
    assert table.hazard[0, 0, 0] == pytest.approx(math.log(2) / YEAR_DAYS, rel=1e-15)
    assert table.hazard[0, 1, 0] == 0


def test_outside_counts_who_leaves_the_table_and_where() -> None:
    table = PopulationTable.from_csv(SMALL)
    age = np.array([59.9, 60.5, 60.5, 61.5, 60.1]) * YEAR_DAYS
    day = np.array(["2001-01-01", "1999-12-31", "2003-06-01", "2001-06-01", "2000-01-01"], "datetime64[D]")
    found = table.outside(age, day, [10, 10, 300, 200, 100])
    assert (found.below_age, found.above_age, found.before, found.after) == (1, 1, 1, 1)
    assert found.any
    assert not table.outside(60.5 * YEAR_DAYS, np.datetime64("2000-01-01"), 10).any
    assert table.outside(60.5 * YEAR_DAYS, np.datetime64("2000-01-01"), [10, 1000]).above_age == 1


def test_dates_are_days_since_1970() -> None:
    assert days_since_1970(np.datetime64("2000-03-01")) == (date(2000, 3, 1) - date(1970, 1, 1)).days


LINES = SMALL.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "columns"),
        ("sex,age,year\nm,1,2000\n", "columns"),
        ("sex,age,year,hazard_per_day,annual_probability\nm,1,2000,0,0\n", "columns"),
        ("sex,age,year,hazard_per_day\n", "no lines"),
        (LINES[0] + "male,60,2000\n", "line 2"),
        (LINES[0] + "male,sixty,2000,0.1\n", "line 2"),
        (LINES[0] + "male,60,2000,-0.1\n", "line 2"),
        (LINES[0] + "male,60,2000,nan\n", "line 2"),
        (LINES[0] + "male,60,2000,inf\n", "line 2"),
        ("sex,age,year,annual_probability\nm,1,2000,1\n", "line 2"),
        (SMALL + LINES[3], "line 10"),
        ("".join(LINES[:-1]), "every single year"),
        (LINES[0] + "male,60,2000,0\nmale,62,2000,0\n", "every single year"),
        (LINES[0] + "male,60,0,0\n", "calendar year"),
        (LINES[0] + "male,-1,2000,0\n", "negative"),
    ],
)
def test_a_broken_table_is_refused(text: str, says: str) -> None:
    with pytest.raises(DocumentError, match=says):
        PopulationTable.from_csv(text)


def test_impossible_arguments_are_refused() -> None:
    table = PopulationTable.from_csv(SMALL)
    today = np.datetime64("2001-01-01")
    for sex, age, day in (
        (2, 1.0, today),
        (-1, 1.0, today),
        (0.5, 1.0, today),
        (0, -1.0, today),
        (0, math.nan, today),
        (0, 1.0, np.datetime64("NaT", "D")),
        (0, 1.0, "long ago"),
        ([0, 1], [1.0, 2.0, 3.0], today),
    ):
        with pytest.raises(DocumentError):
            table.daily_hazard(sex, age, day)
    for edges in ([3, 2], [-1, 2], [math.nan], [1, 1], []):
        with pytest.raises(DocumentError):
            table.cumulative_hazard(0, 1.0, today, edges)
    with pytest.raises(DocumentError, match="no sex"):
        table.sex_index("other")
    with pytest.raises(DocumentError):
        PopulationTable(("f",), 0, (2001, 2000), np.zeros((1, 1, 2)))
    with pytest.raises(DocumentError):
        PopulationTable(("f", "f"), 0, (2000,), np.zeros((2, 1, 1)))
    with pytest.raises(DocumentError):
        PopulationTable(("f",), 0, (2000,), np.zeros((2, 1, 1)))
