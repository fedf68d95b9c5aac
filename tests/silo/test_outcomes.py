"""Outcomes from several columns: which event came first, and when, against a plain reading of each row."""

from __future__ import annotations

import tomllib
from datetime import date, timedelta
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import ibis
import pandas as pd
import pytest
import studies
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.errors import DocumentError
from mpc_engine.silo.coding import code
from mpc_engine.silo.mapping import Mapping, load_mapping
from mpc_engine.silo.register import check, register, snapshot_path

CODEBOOK = """
name = "made-up"
version = "1"
[variables.event]
kind = "category"
categories = ["free", "relapse", "death"]
unknown = "unknown"
[variables.days]
kind = "integer"
unit = "days"
lower = 0
upper = 5000
[variables.months]
kind = "integer"
unit = "months"
lower = 0
upper = 200
[variables.ended]
kind = "date"
lower = 1990-01-01
upper = 2020-12-31
"""

NUMBERS = """
codebook = "codebook.toml"
one_row_per_patient = true
source = { file = "rows.csv" }
[outcomes.first]
unit = "days"
[[outcomes.first.events]]
label = "relapse"
status = { column = "r", yes = ["1", "J"], no = ["0", "", "N"], missing = ["9"] }
at = { column = "rt" }
[[outcomes.first.events]]
label = "death"
status = { column = "d", yes = ["D"], no = ["A"] }
at = { column = "dt", missing = ["-9"] }
[outcomes.first.otherwise]
label = "free"
at = { column = "lt" }
[variables]
event = { outcome = "first" }
days = { outcome = "first" }
months = { column = "m" }
ended = { date = { column = "e" } }
"""

DATES = """
codebook = "codebook.toml"
one_row_per_patient = true
source = { file = "rows.csv" }
[outcomes.first]
start = { column = "s" }
events = [
  { label = "relapse", at = { column = "rt", missing = ["00/00/0000"], formats = ["%d/%m/%Y"] } },
  { label = "death", status = { column = "d", yes = ["D"], no = ["A"] }, at = { column = "dt" } },
]
otherwise = { label = "free", at = { column = "lt", formats = ["%Y%m%d"] } }
[variables]
event = { outcome = "first" }
days = { outcome = "first" }
months = { outcome = "first" }
ended = { outcome = "first" }
"""


def _coded(mapping: str, names: tuple[str, ...], rows: list[dict[str, str]]) -> list[tuple[object, ...]]:
    book = parse(tomllib.loads(CODEBOOK), Codebook)
    mapped = parse(tomllib.loads(mapping), Mapping)
    mapped.serve(book)
    table = ibis.memtable(pd.DataFrame(rows, dtype="str"))
    ones = [
        code(table, name, mapped.variables[name], book.mapped[name], mapped.outcomes["first"])
        for name in names
    ]
    columns = {f"v{i}": one.value for i, one in enumerate(ones)}
    columns |= {f"s{i}": one.state for i, one in enumerate(ones)}
    found = table.select(**columns).to_pyarrow().to_pylist()
    return [
        tuple(row[f"v{i}"] if row[f"s{i}"] == 0 else f"state {row[f's{i}']}" for i in range(len(ones)))
        for row in found
    ]


# --- what is expected, row by row ------------------------------------------------------------------


def _first(events: list[tuple[str, str | None, str | int | None]]) -> tuple[str, Any] | str | None:
    """Return label and time of the first event; "missing" or "bad"; None if none happened.

    Events are (label, "yes" | "no" | "missing" | "bad", a time or "missing" or "bad").
    """
    happened = [(label, time) for label, status, time in events if status == "yes"]
    words = [status for _, status, _ in events] + [time for _, time in happened]
    for fault in ("bad", "missing"):
        if fault in words:
            return fault
    # min() returns the first of equals, as the mapping does.
    return min(happened, key=lambda event: event[1]) if happened else None  # type: ignore[arg-type, return-value]


def _number(raw: str, missing: tuple[str, ...]) -> Any:
    if raw.strip() in ("", *missing):
        return "missing"
    try:
        return int(raw)
    except ValueError:
        return "bad"


STATES = {"missing": "state 1", "bad": "state 2"}
CATEGORIES = {"free": 0, "relapse": 1, "death": 2}
TIMES = ("0", "7", " 5000", "5001", "-1", "", "-9", "x")


def test_the_first_event_by_status_and_number() -> None:
    # Every combination of codes, times and last contacts, in one table.
    names = ("r", "d", "rt", "dt", "lt")
    codes = (("1", "0", "", "J", "N ", "9", "2"), ("A", "D", " D", "", "d"))
    rows = [
        dict(zip(names, values, strict=True))
        for values in product(*codes, TIMES, TIMES, ("9", "", "5001", "x"))
    ]
    expected = []
    for row in rows:
        relapse = {"1": "yes", "J": "yes", "0": "no", "N": "no", "": "no", "9": "missing"}
        death = {"D": "yes", "A": "no", "": "missing"}
        found = _first(
            [
                ("relapse", relapse.get(row["r"].strip(), "bad"), _number(row["rt"], ())),
                ("death", death.get(row["d"].strip(), "bad"), _number(row["dt"], ("-9",))),
            ]
        )
        if isinstance(found, str):
            # The category has an unknown label for what is missing; the days have none.
            expected.append((None if found == "missing" else "state 2", STATES[found]))
            continue
        label, time = found or ("free", _number(row["lt"], ()))
        days = STATES.get(time, time) if isinstance(time, str) else time
        if isinstance(days, int) and not 0 <= days <= 5000:
            days = "state 3"
        expected.append((CATEGORIES[label], days))
    assert _coded(NUMBERS, ("event", "days"), rows) == expected


def _months(start: date, end: date) -> int:
    """Return the whole months that fit between two dates, found by walking."""
    count, year, month = 0, start.year, start.month
    while True:
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        # The day of the month is reached or, in a short month, would be only in the next.
        if (year, month, start.day) > (end.year, end.month, end.day):
            return count
        count += 1


@settings(max_examples=3, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_the_first_event_by_date(seed: int) -> None:
    draw = Random(seed)
    print(f"seed {seed}")

    def day(*others: str) -> Any:
        if draw.random() < 0.1:
            return draw.choice(["", "x", *others])
        return date(1990, 1, 1) + timedelta(draw.choice([0, 31, 59, 60, 365, draw.randrange(4900)]))

    rows: list[dict[str, Any]] = [
        {"s": day(), "rt": day("00/00/0000"), "d": draw.choice("AD"), "dt": day(), "lt": day()}
        for _ in range(1500)
    ]
    forms = {"s": "%Y-%m-%d", "rt": "%d/%m/%Y", "dt": "%Y-%m-%d", "lt": "%Y%m%d"}
    texts = [
        {key: value.strftime(forms[key]) if isinstance(value, date) else value for key, value in row.items()}
        for row in rows
    ]
    words = {"": "missing", "00/00/0000": "missing", "x": "bad"}
    expected = []
    for row in rows:
        time = {key: words.get(value, value) for key, value in row.items()}  # type: ignore[arg-type]
        found = _first(
            [
                ("relapse", "no" if time["rt"] == "missing" else "yes", time["rt"]),
                ("death", "yes" if row["d"] == "D" else "no", time["dt"]),
            ]
        )
        event: object
        if isinstance(found, str):
            event, end = (None if found == "missing" else "state 2"), found
        else:
            label, end = found or ("free", time["lt"])
            event = CATEGORIES[label]
        ended = STATES[end] if isinstance(end, str) else (end - date(1970, 1, 1)).days
        faults = [word for word in (time["s"], end) if isinstance(word, str)]
        if faults:
            days: object = STATES["bad" if "bad" in faults else "missing"]
            months = days
        elif end < time["s"]:
            days = months = "state 3"
        else:
            days, months = (end - time["s"]).days, _months(time["s"], end)
        # A missing or unreadable start concerns what is counted from it, not the date itself.
        expected.append((event, days, months, ended))
    assert _coded(DATES, ("event", "days", "months", "ended"), texts) == expected


def test_ties_go_to_the_event_listed_first() -> None:
    rows = [{"r": "1", "d": "D", "rt": "5", "dt": "5", "lt": ""}]
    assert _coded(NUMBERS, ("event", "days"), rows) == [(1, 5)]
    flipped = NUMBERS.replace('"relapse"', '"x"').replace('"death"', '"relapse"').replace('"x"', '"death"')
    assert _coded(flipped, ("event", "days"), rows) == [(2, 5)]


def test_without_times_the_first_listed_event_counts() -> None:
    mapping = """
        codebook = "codebook.toml"
        one_row_per_patient = true
        source = { file = "rows.csv" }
        [outcomes.first]
        events = [
          { label = "death", status = { column = "d", yes = ["1"], no = ["0"] } },
          { label = "relapse", status = { column = "r", yes = ["1"], no = ["0"] } },
        ]
        otherwise = { label = "free" }
        [variables]
        event = { outcome = "first" }
        days = { column = "t" }
        months = { column = "m" }
        ended = { date = { column = "e" } }
    """
    rows = [{"d": d, "r": r} for d in ("0", "1", "") for r in ("0", "1", "2")]
    expected = [0, 1, "state 2", 2, 2, "state 2", None, None, "state 2"]
    assert [value for (value,) in _coded(mapping, ("event",), rows)] == expected


def test_units_are_converted_and_fractions_order_events() -> None:
    mapping = NUMBERS.replace('unit = "days"', 'unit = "years"\ndecimal_comma = true')
    mapping = mapping.replace("days = { outcome", 'days = { rounding = "down", outcome')
    rows = [
        {"r": "1", "d": "D", "rt": "2,002", "dt": "2,001", "lt": "9"},
        {"r": "0", "d": "A", "rt": "", "dt": "", "lt": "2"},
        {"r": "0", "d": "A", "rt": "", "dt": "", "lt": "2.0"},
    ]
    assert _coded(mapping, ("event", "days"), rows) == [(2, 730), (0, 730), (0, "state 2")]


def test_a_report_shows_the_text_at_fault(tmp_path: Path) -> None:
    (tmp_path / "codebook.toml").write_text(CODEBOOK)
    path = tmp_path / "mapping.toml"
    path.write_text(NUMBERS)
    head = "r,d,rt,dt,lt,m,e\n"
    (tmp_path / "rows.csv").write_text(
        head + "1,A,3,,9,1,2000-01-01\n7,A,3,,9,1,2000-01-01\n1,A,,,9,1,2000-01-01\n"
    )
    problems = check(*load_mapping(path)).problems
    assert {(one.variable, one.code, one.rows) for one in problems} == {
        ("event", "r = 7", 1),
        ("days", "r = 7", 1),
        ("days", "rt = ", 1),
    }
    text = check(*load_mapping(path)).render()
    assert 'days: column r, rt, d, dt, lt: "r = 7" is no status or time that outcomes.first can read' in text
    assert "is missing, and the codebook declares no unknown category" in text
    (tmp_path / "rows.csv").write_text(head + "1,D,3,2,9,1,2000-01-31\n0,A,,,9,1,2020-12-31\n")
    registration = register(path, tmp_path / "state")
    frame = pd.read_parquet(snapshot_path(registration))
    assert frame[["event", "days"]].to_numpy().tolist() == [[2, 2], [0, 9]]
    assert frame["ended"].tolist() == [(date(2000, 1, 31) - date(1970, 1, 1)).days, 18627]
    assert date(1970, 1, 1) + timedelta(18627) == date(2020, 12, 31)
    assert {str(frame[name].dtype) for name in ("event", "days", "months", "ended")} == {"int64"}


OTHER = """[outcomes.last]
events = [{{ label = "death"{} }}]
otherwise = {{ label = "free" }}
[variables]"""


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ('"first" }\ndays', '"last" }\ndays', r"variables\.event\.outcome: must be .*\(first\)"),
        ('label = "free"', 'label = "well"', r"outcomes\.first\.otherwise\.label: 'well' is not a category"),
        ('label = "death"', 'label = "dead"', r"outcomes\.first\.events\[1\]\.label: 'dead' is not a cat"),
        ('unit = "days"\n', "", r"outcomes\.first\.unit: is required for times that are numbers"),
        ('unit = "days"\n', 'unit = "mm"\n', r"outcomes\.first\.unit: 'mm' cannot be turned into 'days'"),
        (
            'unit = "days"\n',
            'unit = "days"\nstart = { column = "s" }\n',
            r"outcomes\.first\.start: and `unit` exclude each other",
        ),
        ('"lt"', '"lt", formats = ["%Y%m%d"]', r"first\.otherwise\.at\.formats: is for dates"),
        ('at = { column = "rt" }\n', "", r"outcomes\.first\.events\[0\]\.at: is required: all have a time"),
        ('missing = ["9"]', 'missing = ["0"]', r"events\[0\]\.status\.missing: repeats '0'"),
        ('yes = ["D"]', 'yes = [""]', r"events\[1\]\.status\.yes: holds empty text"),
        ('yes = ["D"]', 'yes = ["D "]', r"events\[1\]\.status\.yes: 'D ' has outer spaces"),
        ("ended = { date", 'ended = { outcome = "first" } #', r"variables\.ended\.outcome: .* are no dates"),
        ("ended = { date", "ended = { year_of", r"variables\.ended: is a date; it needs `date`, or"),
        ('days = { outcome = "first"', 'days = { unit = "days", outcome = "first"', r"days\.unit: is that"),
        ("months = { column", "months = { constant", r"variables\.months\.constant: is not for an integer"),
        ("event = { outcome", "event = { date = { column = 'e' } } #", r"event\.date: is not for a"),
        ("[variables]", OTHER.format(", status = { column = 'd', yes = ['1'] }"), r"last: is not used"),
        ("[variables]", OTHER.format(""), r"outcomes\.last\.events\[0\]: needs `status`, or `at`"),
        ('"first" }\ndays', '"first", missing = ["9"] }\ndays', r"event\.missing: goes with"),
    ],
)  # fmt: skip
def test_what_an_outcome_may_not_say(tmp_path: Path, was: str, now: str, message: str) -> None:
    assert was in NUMBERS
    path = studies.write(tmp_path, "", NUMBERS.replace(was, now), CODEBOOK)
    with pytest.raises(DocumentError, match=message):
        load_mapping(path)


def test_a_column_of_an_outcome_that_is_not_there_is_named_by_its_key(tmp_path: Path) -> None:
    path = studies.write(tmp_path, "r,d,rt,DT,lt,m,e\n", NUMBERS, CODEBOOK)
    with pytest.raises(DocumentError, match=r"outcomes\.first\.events\[1\]\.at\.column: there is no"):
        check(*load_mapping(path))
