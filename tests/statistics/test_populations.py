"""Public tables: how a file's numbers come to the strata, and what a file that does not fit is told."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.errors import DocumentError
from mpc_engine.release.grid import Axis
from mpc_engine.statistics.expectation import kept_categories
from mpc_engine.statistics.layout import Selection
from mpc_engine.statistics.populations import admitted, age_groups, columns, merged_groups, read_table

VARIABLES = """
name = "made-up"
version = "1"
[variables]
sex = { kind = "category", categories = ["F", "M"], unknown = "?" }
site = { kind = "category", categories = ["C18", "C20"] }
year = { kind = "integer", unit = "year", lower = 2000, upper = 2003 }
period = { kind = "band", of = "year", cuts = [2002], labels = ["2000-2001", "2002-2003"] }
age = { kind = "integer", unit = "years", lower = 0, upper = 89 }
ages = { kind = "band", of = "age", cuts = [15, 65], labels = ["0-14", "15-64", "65+"] }
odd = { kind = "band", of = "age", cuts = [20], labels = ["0-14", "15+"] }
days = { kind = "integer", unit = "days", lower = 0, upper = 89 }
seen = { kind = "date", lower = 2000-01-01, upper = 2003-12-31 }
"""
GROUPS = ("0-14", "15-64", "65+")
WHOLE = "sex,year,ages,population\n" + "".join(
    f"{sex},{year},{ages},{1000 * i + 10 * (year - 1999) + j}\n"
    for i, sex in enumerate("FM", start=1)
    for year in range(1999, 2005)
    for j, ages in enumerate(GROUPS)
)


def book(folder: Path, text: str) -> Codebook:
    (folder / "people.csv").write_text(text, encoding="utf-8")
    stated = hashlib.sha256(text.encode()).hexdigest()
    head = f'\n[files.people]\npath = "people.csv"\nkind = "population"\nsha256 = "{stated}"\n'
    (folder / "codebook.toml").write_text(VARIABLES + head, encoding="utf-8")
    return load_codebook(folder / "codebook.toml")


def axes(codebook: Codebook, *names: str) -> list[Axis]:
    return [Axis(name, codebook.labels(name)) for name in names]


def test_rows_are_summed_to_the_strata_and_unknown_has_nobody(tmp_path: Path) -> None:
    codebook = book(tmp_path, WHOLE)
    found = read_table(codebook, "people", "population", axes(codebook, "sex", "period", "ages"))
    assert found.shape == (3, 2, 3)
    # Years beyond the codebook's (1999 and 2004 are in the file) hold no cases and count for nobody.
    assert found[1, 0, 2] == 2012 + 2022
    assert found[0, 1, 0] == 1030 + 1040
    assert not found[2].any()
    whole = read_table(codebook, "people", "population", axes(codebook, "ages"))
    np.testing.assert_array_equal(whole, found.sum(axis=(0, 1)))
    assert columns(codebook, "people", "population") == ("sex", "year", "ages")


def test_filters_hold_for_the_population_too_and_all_of_them(tmp_path: Path) -> None:
    codebook = book(tmp_path, WHOLE)
    where = [
        Selection("year", ((2001, 2003),)),
        Selection("year", ((2000, 2001),)),
        Selection("sex", ((1, 1),)),
    ]
    found = read_table(codebook, "people", "population", axes(codebook, "year", "ages"), where)
    expected = np.zeros((4, 3))
    expected[1] = [2020, 2021, 2022]
    np.testing.assert_array_equal(found, expected)


def test_a_variable_of_the_tumour_leaves_the_population_whole(tmp_path: Path) -> None:
    codebook = book(tmp_path, WHOLE)
    laid = axes(codebook, "site", "ages")
    with pytest.raises(DocumentError, match=r"no column for 'site'.*`tumour`"):
        read_table(codebook, "people", "population", laid)
    found = read_table(codebook, "people", "population", laid, tumour=("site",))
    whole = read_table(codebook, "people", "population", axes(codebook, "ages"))
    np.testing.assert_array_equal(found, np.stack([whole, whole]))
    where = [Selection("site", ((0, 0),))]
    with pytest.raises(DocumentError, match="no column for 'site', by which the query filters"):
        read_table(codebook, "people", "population", laid[1:], where)
    np.testing.assert_array_equal(
        read_table(codebook, "people", "population", laid[1:], where, ("site",)), whole
    )


def test_a_band_of_ages_is_filled_from_single_years(tmp_path: Path) -> None:
    text = "age,population\n" + "".join(f"{age},{age + 1}\n" for age in range(100)) + "\n"
    codebook = book(tmp_path, text)
    found = read_table(codebook, "people", "population", axes(codebook, "ages"))
    np.testing.assert_array_equal(found, [sum(range(1, 16)), sum(range(16, 66)), sum(range(66, 91))])
    where = [Selection("age", ((10, 19),))]
    found = read_table(codebook, "people", "population", axes(codebook, "ages"), where)
    np.testing.assert_array_equal(found, [sum(range(11, 16)), sum(range(16, 21)), 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a column 'population'"),
        ("ages,ages,population\n", "no name twice"),
        ("ages,people\n0-14,5\n", "needs a column 'population'"),
        ("region,ages,population\nN,0-14,5\n", "no variable 'region'"),
        ("seen,ages,population\n2000-01-01,0-14,5\n", "'seen' is a date"),
        ("ages,population\n0-14,1\n15-64\n65+,3\n", "line 3: has 1 values for 2 columns"),
        ("ages,population\n0-14,1\n15-63,2\n65+,3\n", "line 3: '15-63' is no value of ages"),
        ("ages,population\n0-14,1\n15-64,many\n65+,3\n", "line 3: 'many' is not a number"),
        ("ages,population\n0-14,1\n15-64,-2\n65+,3\n", "line 3: '-2' is not a number"),
        ("ages,population\n0-14,1\n15-64,nan\n65+,3\n", "line 3: 'nan' is not a number"),
        ("ages,population\n0-14,1\n15-64,2\n", "has no row for 65\\+"),
        ("ages,population\n", "has no row for 0-14"),
        ("ages,population\n0-14,1\n15-64,2\n65+,3\n0-14,4\n", "line 5: 0-14 was given before"),
        ("sex,population\nF,1\nM,2\n", "no column for 'ages'"),
        ("age,population\n1e1,5\n", "'1e1' is no value of age"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    codebook = book(tmp_path, text)
    with pytest.raises(DocumentError, match=message):
        read_table(codebook, "people", "population", axes(codebook, "ages"))


def test_a_filter_through_a_group_is_refused(tmp_path: Path) -> None:
    codebook = book(tmp_path, WHOLE)
    where = [Selection("age", ((10, 64),))]
    with pytest.raises(DocumentError, match="cuts through a category of ages"):
        read_table(codebook, "people", "population", axes(codebook, "ages"), where)
    with pytest.raises(DocumentError, match="cuts through a category of ages"):
        admitted(codebook, "ages", where)
    assert [each.tolist() for each in kept_categories(codebook, ["ages"], where)] == [[0, 1]]
    assert admitted(codebook, "year", [Selection("year", ((2001, 2002),))]).tolist() == [
        False,
        True,
        True,
        False,
    ]
    assert admitted(codebook, "sex", where).tolist() == [True, True]


def test_age_groups_are_what_their_labels_say(tmp_path: Path) -> None:
    codebook = book(tmp_path, WHOLE)
    assert age_groups(codebook, "ages").edges == (0, 15, 65)
    assert age_groups(codebook, "age").edges == (*range(91),)
    with pytest.raises(DocumentError, match="not the age groups that its cuts"):
        age_groups(codebook, "odd")
    with pytest.raises(DocumentError, match="is in days; ages are needed in completed years"):
        age_groups(codebook, "days")
    with pytest.raises(DocumentError, match="age group 'F'"):
        age_groups(codebook, "sex")


def test_age_groups_are_merged_for_a_coarser_standard(tmp_path: Path) -> None:
    fine = VARIABLES + (
        '[variables.fine]\nkind = "band"\nof = "age"\ncuts = [1, 5, 10, 85, 87]\n'
        'labels = ["<1", "1-4", "5-9", "10-84", "85-86", "87+"]\n'
    )
    (tmp_path / "codebook.toml").write_text(fine, encoding="utf-8")
    groups = age_groups(load_codebook(tmp_path / "codebook.toml"), "fine")
    starts, weights = merged_groups(groups, "who_2000")
    assert starts == [0, 2, 3, 4]  # 0-4, 5-9, 10-84, 85+
    assert weights[0] == 88_569 and len(weights) == 4
    starts, weights = merged_groups(groups, "us_2000")
    assert starts == [0, 1, 2, 3, 4]  # this standard has <1 and 1-4 of its own
    with pytest.raises(DocumentError, match="unknown standard"):
        merged_groups(groups, "mars_2000")
