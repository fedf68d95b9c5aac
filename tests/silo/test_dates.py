"""Dates as variables: how they are read, also without a day, and how they are coded."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path

import ibis
import pandas as pd
import pytest
import studies
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.codebook import DateVariable, day
from mpc_engine.documents import parse
from mpc_engine.errors import DocumentError
from mpc_engine.silo.coding import code
from mpc_engine.silo.mapping import VariableMapping, load_mapping
from mpc_engine.silo.register import check

WHOLE = parse({"kind": "date", "lower": "1900-01-01", "upper": "2100-12-31"}, DateVariable)


def _coded(mapping: str, texts: list[str], variable: DateVariable = WHOLE) -> list[object]:
    table = ibis.memtable(pd.DataFrame({"c": texts}, dtype="str"))
    one = code(table, "d", parse(tomllib.loads(mapping), VariableMapping), variable)
    found = table.select(value=one.value, state=one.state).to_pyarrow().to_pylist()
    return [row["value"] if row["state"] == 0 else f"state {row['state']}" for row in found]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.dates(date(1890, 1, 1), date(2110, 12, 31)), min_size=1, max_size=40))
def test_a_date_is_its_day(values: list[date]) -> None:
    texts = [f"{value.day}.{value.month}.{value.year}" for value in values]
    expected = [
        (value - date(1970, 1, 1)).days if 1900 <= value.year <= 2100 else "state 3" for value in values
    ]
    assert _coded('date = { column = "c", formats = ["%d.%m.%Y"] }', texts) == expected
    since = [str((value - date(1960, 1, 1)).days) for value in values]
    assert _coded('date = { column = "c", days_since = 1960-01-01 }', since) == expected


def test_bounds_and_what_is_missing() -> None:
    variable = parse(
        {"kind": "date", "lower": "1970-01-02", "upper": "1970-01-31", "unknown": "unknown"}, DateVariable
    )
    texts = ["1970-01-01", "1970-01-02", "1970-01-31", "1970-02-01", "", "9999-99-99", "x"]
    mapping = 'date = { column = "c", missing = ["9999-99-99"] }'
    assert _coded(mapping, texts, variable) == ["state 3", 1, 30, "state 3", None, None, "state 2"]
    assert _coded("not_collected = true", ["x"], variable) == [None]


def test_a_date_known_only_to_the_month_or_year() -> None:
    mapping = """
        [date]
        column = "c"
        formats = ["%Y-%m-%d", "%Y-%m", "%b %Y", "%Y"]
        assumed_day = 15
        assumed_month = 7
    """
    texts = ["2001-02-03", "2001-02", "FEB 2001", "2001", "2001-13", "01"]
    days = ["2001-02-03", "2001-02-15", "2001-02-15", "2001-07-15"]
    assert _coded(mapping, texts) == [*(day(text) for text in days), "state 2", "state 2"]


MAPPING = studies.MAPPING + '[variables.seen]\ndate = { column = "seen" }\n'
CODEBOOK = studies.CODEBOOK + '[variables.seen]\nkind = "date"\nlower = "2000-01-01"\nupper = 2010-12-31\n'


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (
            'date = { column = "seen", formats = ["%Y-%m"] }',
            r"formats\[0\]: must name .*`assumed_day`",
        ),
        ('date = { column = "seen", formats = ["%Y"], assumed_day = 1 }', r"date\.formats\[0\]: must name"),
        (
            'date = { column = "seen", assumed_day = 15 }',
            r"date\.assumed_day: is given, but no format",
        ),
        (
            'date = { column = "seen", formats = ["%Y-%m"], assumed_day = 29 }',
            r"_day: must be at most 28",
        ),
        (
            'date = { column = "seen", days_since = "x" }',
            r"date\.days_since: must be a date such as",
        ),
        ('column = "seen"', r"variables\.seen: is a date; it needs `date`, or `outcome`"),
        ("not_collected = true", r"variables\.seen\.not_collected: needs an `unknown` label"),
    ],
)
def test_what_is_refused(tmp_path: Path, now: str, message: str) -> None:
    mapping = MAPPING.replace('date = { column = "seen" }', now)
    with pytest.raises(DocumentError, match=message):
        load_mapping(studies.write(tmp_path, "", mapping, CODEBOOK))


def test_a_report_names_the_bounds(tmp_path: Path) -> None:
    rows = "id,sex,stage,age,seen\np1,F,1,4,1999-12-31\np2,M,2,70,soon\np3,M,1,1,2005-05-05\n"
    text = check(*load_mapping(studies.write(tmp_path, rows, MAPPING, CODEBOOK))).render()
    assert '"1999-12-31" is outside the codebook\'s bounds 2000-01-01 to 2010-12-31 (1 row)' in text
    assert '"soon" cannot be read as a date in the formats of the mapping (1 row)' in text


# --- two dates, of which one is at fault ----------------------------------------------------------------

FROM = """
[variables.age]
from_dates = { start = { column = "born" }, end = { column = "seen", formats = ["%m/%d/%Y"] } }
"""
TWO = studies.MAPPING.replace('[variables.age]\ncolumn = "age"\n', FROM)


def _faults(folder: Path, pairs: list[tuple[str, str]], codebook: str = studies.CODEBOOK) -> list[str]:
    lines = [f"p{row},F,1,{born},{seen}" for row, (born, seen) in enumerate(pairs)]
    path = studies.write(folder, "\n".join(["id,sex,stage,born,seen", *lines, ""]), TWO, codebook)
    return [problem.render() for problem in check(*load_mapping(path)).problems]


def test_of_two_dates_the_one_at_fault_is_named(tmp_path: Path) -> None:
    head = "age: column born … seen:"
    pairs = [("1979-10-04", "26/12/1994"), ("79-10-04", "12/26/1994"), ("2030-01-01", "03/24/1999")]
    assert sorted(_faults(tmp_path, [*pairs, ("1799-01-01", "03/24/1999"), ("", "03/24/1999")])) == [
        f'{head} "1799-01-01 … 03/24/1999" is outside the codebook\'s bounds 0 to 99 years (1 row)',
        f'{head} "2030-01-01 … 03/24/1999" ends before it starts (1 row)',
        f'{head} "born = 79-10-04" cannot be read as a date in the formats of the mapping (1 row)',
        f'{head} "seen = 26/12/1994" cannot be read as a date in the formats of the mapping (1 row)',
    ]
    strict = studies.CODEBOOK.replace('upper = 99\nunknown = "unknown"', "upper = 99")
    (missing,) = _faults(tmp_path, [("1979-10-04", "")], strict)
    assert missing.startswith(f'{head} "seen = " is missing')


def test_day_and_month_the_other_way_round(tmp_path: Path) -> None:
    pairs = [("1979-10-04", f"{day:02}/03/1994") for day in range(1, 29)]
    *shown, last = _faults(tmp_path, [*pairs, ("1979-10-04", "")])
    assert len(shown) == 5 and all("seen = " in each for each in shown)
    assert "16 of 28 dates of seen cannot be read: are day and month the other way round? (11 rows)" in last
    *_, last = _faults(tmp_path, [(f"once{row}", "03/24/1999") for row in range(9)])
    assert last.endswith("9 of 9 dates of born cannot be read (4 rows)")


def test_only_a_time_ends_before_it_starts_and_not_a_date_before_1970(tmp_path: Path) -> None:
    outcome = """
[outcomes.death]
start = { column = "born" }
otherwise = { label = "alive", at = { column = "seen" } }
[[outcomes.death.events]]
label = "dead"
at = { column = "died" }
"""
    mapping = MAPPING.replace('column = "age"\n', 'outcome = "death"\n', 1)
    mapping = mapping.replace('date = { column = "seen" }', 'outcome = "death"') + outcome
    rows = "id,sex,stage,born,seen,died\np1,F,1,1969-01-01,1968-01-01,\n"
    problems = check(*load_mapping(studies.write(tmp_path, rows, mapping, CODEBOOK))).problems
    assert {problem.variable: problem.fault for problem in problems} == {
        "age": "ends before it starts",
        "seen": "is outside the codebook's bounds 2000-01-01 to 2010-12-31",
    }
