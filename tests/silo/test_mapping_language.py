"""What the mapping language can say: codings met in real registries, and what it refuses."""

from __future__ import annotations

import math
import tomllib
from datetime import date
from fractions import Fraction
from pathlib import Path

import ibis
import pandas as pd
import pytest
import studies
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.errors import DocumentError
from mpc_engine.silo.coding import code
from mpc_engine.silo.mapping import Mapping, VariableMapping, load_mapping
from mpc_engine.silo.texts import number

CODEBOOK = parse(tomllib.loads(studies.CODEBOOK), Codebook)


def _coded(
    variable: str, mapping: str, rows: dict[str, list[str | None]], unit: str = "years"
) -> list[object]:
    table = ibis.memtable(pd.DataFrame(rows, dtype="str"))
    kind = CODEBOOK.mapped[variable]
    if variable == "age":
        kind = kind.model_copy(update={"unit": unit, "upper": 40_000})
    one = code(table, variable, parse(tomllib.loads(mapping), VariableMapping), kind)
    found = table.select(value=one.value, state=one.state).to_pyarrow().to_pylist()
    return [row["value"] if row["state"] == 0 else f"state {row['state']}" for row in found]


DATES = 'from_dates = {{ start = {{ column = "b", {} }}, end = {{ column = "d", {} }} }}'
DMY = 'formats = ["%d/%m/%Y", "%Y-%m-%d"]'


@pytest.mark.parametrize(
    ("variable", "unit", "mapping", "rows", "expected"),
    [
        (
            "sex",
            "",
            'column = "c"\ncodes = {1="male",2="female"}',
            {"c": ["1", " 2 ", "3"]},
            [1, 0, "state 2"],
        ),
        ("sex", "", 'constant = "male"', {"c": ["x"]}, [1]),
        ("stage", "", "not_collected = true", {"c": ["x"]}, [None]),
        (
            "stage",
            "",
            'column = "c"\nmissing = ["9"]\ncodes = {L="I",R="II",D="III",X="unknown"}',
            {"c": ["L", "D", "X", "9", "", None, "l"]},
            [0, 2, None, None, None, None, "state 2"],
        ),
        (
            "stage",
            "",
            'column = "c"\ncuts = [21, 51]\nlabels = ["I", "II", "III"]',
            {"c": ["20", "20.9", "21", "50", "51", "x"]},
            [0, 0, 1, 1, 2, "state 2"],
        ),
        ("age", "years", 'column = "c"', {"c": ["7", "7.0", "7.5", "1e1"]}, [7, 7, "state 2", "state 2"]),
        (
            "age",
            "months",
            'column="c"\nunit="years"\nrounding="nearest"',
            {"c": ["1.6667", "0.3333", "3.25"]},
            [20, 4, 39],
        ),
        (
            "age",
            "years",
            'column="c"\nunit="days"\nrounding="down"',
            {"c": ["23004", "3652.5", "3652"]},
            [62, 10, 9],
        ),
        (
            "age",
            "years",
            'column="c"\nunit="years"\nrounding="down"',
            {"c": ["83.276522", "14.999999"]},
            [83, 14],
        ),
        (
            "age",
            "years",
            'column="c"\nunit="years"\nrounding="nearest"\ndecimal_comma=true',
            {"c": ["7,5", "7,4", "-0,5", "7"]},
            [8, 7, 0, 7],
        ),
        # With decimal commas a point parts thousands, or the column is not what the mapping says.
        (
            "age",
            "",
            'column="c"\ndecimal_comma=true',
            {"c": ["1.000", "1.000,0", "7,0"]},
            ["state 2"] * 2 + [7],
        ),
        (
            "age",
            "",
            'column="c"',
            {"c": ["5.0000001", "5.0000000", "5.000000000000000000001"]},
            ["state 2", 5, "state 2"],
        ),
        (
            "age",
            "",
            'column="c"\nrounding="down"',
            {"c": ["5.9999999", "5.9999999999999999999999", "-0.0000001", "0.0000000"]},
            [5, 5, "state 3", 0],
        ),
        (
            "age",
            "years",
            DATES.format(DMY, DMY),
            {
                "b": ["02/05/1928", "02/05/1928", "2000-02-29", "31/02/1990", ""],
                "d": ["01/05/1994", "02/05/1994", "2001-02-28", "01/01/1999", "1/1/99"],
            },
            [65, 66, 0, "state 2", None],
        ),
        ("age", "months", DATES.format(DMY, DMY), {"b": ["31/01/2000"], "d": ["29/02/2000"]}, [0]),
        (
            "age",
            "days",
            DATES.format(DMY, 'days_since = "1960-01-01"'),
            {"b": ["01/01/1960"], "d": ["366"]},
            [366],
        ),
        ("age", "years", DATES.format(DMY, DMY), {"b": ["02/01/2000"], "d": ["01/01/2000"]}, ["state 3"]),
        (
            "age",
            "year",
            'year_of = { column = "c", days_since = 1960-01-01 }',
            {"c": ["12997", "x"]},
            [1995, "state 2"],
        ),
        ("age", "year", 'year_of = { column = "c", formats = ["%d%b%Y"] }', {"c": ["03JUL1985"]}, [1985]),
        (
            "age",
            "year",
            'year_of = { column = "c", formats = ["%d/%m/%Y"] }',
            {"c": ["01/02/70", "1/2/1970", "01/02/0070", "01/02/19701"]},
            ["state 2", 1970, 70, "state 2"],
        ),
        (
            "age",
            "year",
            'year_of = { column = "c", formats = ["%Y%m%d", "%Y%j"] }',
            {"c": ["20101223", "2010123", "201012"]},
            [2010, 2010, "state 2"],
        ),
        ("age", "mm", 'column = "c"', {"c": ["99999999999999999999", "41000"]}, ["state 2", "state 3"]),
    ],
)
def test_codings(
    variable: str, unit: str, mapping: str, rows: dict[str, list[str | None]], expected: list[object]
) -> None:
    assert _coded(variable, mapping, rows, unit) == expected


TERMINATING = [Fraction(1), Fraction(12), Fraction(1, 12), Fraction(4, 1461), Fraction(48, 1461)]


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.decimals(-100, 100, places=9, allow_nan=False), min_size=1, max_size=20),
    factor=st.sampled_from(TERMINATING),
)
def test_places_beyond_the_sixth_are_not_rounded_away(values: list[object], factor: Fraction) -> None:
    table = ibis.memtable(pd.DataFrame({"c": [f"{value:f}" for value in values]}))
    found = table.select(*(number(table["c"], factor, way).name(way) for way in ("down", "exact")))
    exact = [Fraction(str(value)) * factor for value in values]
    assert found.to_pyarrow().to_pydict() == {
        "down": [math.floor(value) for value in exact],
        "exact": [int(value) if value.denominator == 1 else None for value in exact],
    }


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.decimals(-(10**6), 10**6, places=6, allow_nan=False), min_size=1, max_size=20),
    factor=st.sampled_from([*TERMINATING, Fraction(1461, 4)]),
)
def test_conversion_is_exact(values: list[object], factor: Fraction) -> None:
    table = ibis.memtable(pd.DataFrame({"c": [f"{value:f}" for value in values]}))
    ways = ("nearest", "down", "exact")
    found = table.select(**{way: number(table["c"], factor, way) for way in ways}).to_pyarrow().to_pydict()
    exact = [Fraction(str(value)) * factor for value in values]
    assert found["nearest"] == [math.floor(value + Fraction(1, 2)) for value in exact]
    assert found["down"] == [math.floor(value) for value in exact]
    assert found["exact"] == [int(value) if value.denominator == 1 else None for value in exact]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.dates(date(1900, 1, 1)), st.dates(date(1900, 1, 1))), min_size=1, max_size=10))
def test_days_between_dates(pairs: list[tuple[date, date]]) -> None:
    rows = {"b": [f"{b:%d/%m/}{b.year:04}" for b, _ in pairs], "d": [d.isoformat() for _, d in pairs]}
    days = [(d - b).days for b, d in pairs]
    expected = [n if 0 <= n <= 40_000 else "state 3" for n in days]
    assert _coded("age", DATES.format(DMY, DMY), rows, "days") == expected  # type: ignore[arg-type]


SEX = '[variables.sex]\ncolumn = "sex"\ncodes = { F = "female", M = "male" }'


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        (
            'M = "male"',
            'M = "man"',
            r"""variables\.sex\.codes\."M": 'man' is not a category.*'female', 'male'""",
        ),
        ('column = "sex"\n', "", r"variables\.sex: needs exactly one of `column`, `constant`"),
        (SEX, "", r"variables\.sex: is required"),
        (
            SEX,
            "[variables.sex]\nnot_collected = true",
            r"variables\.sex\.not_collected: needs an `unknown` label",
        ),
        (SEX, '[variables.sex]\ncolumn = "sex"', r"variables\.sex\.codes: is required"),
        ('patient = "id"\n', "", r"patient: names the patient column; without one"),
        ('patient = "id"', 'pateint = "id"', r"pateint: is not a key known here; known keys:.*patient"),
        (
            'column = "age"',
            'column = "age"\nunit = "mm"',
            r"variables\.age\.unit: 'mm' cannot be turned into 'years'",
        ),
        (
            'column = "age"',
            'column = "age"\nrounding = "up"',
            r"variables\.age\.rounding: must be one of 'exact'",
        ),
        ('column = "age"', 'column = "age"\n[variables.age_group]\ncolumn = "a"', r"age_group: is derived"),
        ('column = "age"', 'column = "age"\n[variables.size]\ncolumn = "a"', r"size: is not in the codebook"),
        (
            'column = "age"',
            'year_of = {column = "d", formats = ["%d/%m/%y"]}',
            r"year_of\.formats\[0\]: must name %Y",
        ),
        (
            'column = "age"',
            'year_of = {column = "d", formats = ["%d/%m/%Y", "%m/%d/%Y"]}',
            r"formats\[1\]: cannot be told from",
        ),
        (
            'column = "age"',
            'year_of = {column = "d", formats = ["%d%m%Y", "%Y%m%d"]}',
            r"formats\[1\]: cannot be told from '%d%m%Y'",
        ),
        (
            'column = "age"',
            'year_of = {column = "d", formats = ["%Y-%m-%d\\n"]}',
            r"formats\[0\]: must name %Y",
        ),
        ('patient = "id"', 'patient = "row\\u001f"', "patient"),
        ('file = "rows.csv"', 'file = "rows.csv"\ndatabase = "x"', r"source: needs exactly one of"),
        ('file = "rows.csv"', 'file = "rows.txt"', r"source\.format: is required"),
        ('file = "rows.csv"', 'database = "x.duckdb"', r"source\.table: names the table"),
        ('column = "stage"', 'column = "stage"\nmissing = ["1"]', r"variables\.stage\.missing: repeats '1'"),
    ],
)
def test_what_a_mapping_may_not_say(tmp_path: Path, was: str, now: str, message: str) -> None:
    assert was in studies.MAPPING
    path = studies.write(tmp_path, "", studies.MAPPING.replace(was, now))
    with pytest.raises(DocumentError, match=message) as error:
        load_mapping(path)
    assert str(path) in str(error.value)


def test_a_digest_follows_the_content_not_the_file() -> None:
    data = tomllib.loads(studies.MAPPING)
    one, two = parse(data, Mapping, "one"), parse(dict(reversed(data.items())), Mapping, "two")
    assert one.digest() == two.digest()
    assert one.digest() != one.model_copy(update={"patient": "other"}).digest()
