"""Made-up records: they fit what they are made for, repeat with their seed, and are read from nobody."""

from __future__ import annotations

import json
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpc_engine.codebook import CategoryVariable, Codebook, DateVariable, IntegerVariable, load_codebook
from mpc_engine.documents import parse
from mpc_engine.errors import DocumentError
from mpc_engine.silo.dummy import dummy_records, dummy_source, record_chunks, write_records, write_source
from mpc_engine.silo.dummy.files import toml_text
from mpc_engine.silo.mapping import Mapping, load_mapping
from mpc_engine.silo.register import check, load_registration, register, snapshot_path

ROOT = Path(__file__).parents[2]
# The hospitals of rare_cells code alike; one of them stands for all.
MAPPINGS = sorted(
    path
    for path in [*ROOT.glob("scenarios/*/*.mapping.toml"), *ROOT.glob("data/codebooks/*.mapping.toml")]
    if path.name not in {f"h{number}.mapping.toml" for number in range(1, 5)}
)
CODEBOOKS = sorted([*ROOT.glob("scenarios/*/codebook.toml"), *ROOT.glob("data/codebooks/*.toml")])
CODEBOOKS = [path for path in CODEBOOKS if not path.name.endswith(".mapping.toml")]


def _name(path: Path) -> str:
    return f"{path.parent.name}-{path.name.split('.')[0]}"


def _checked(mapping: Path) -> None:
    """Registering is what every row must pass: no problem, and nothing that a person should look at."""
    document, codebook = load_mapping(mapping)
    report = check(document, codebook)
    assert report.problems == (), report.render()
    assert report.warnings == (), report.render()


@pytest.mark.parametrize("mapping", MAPPINGS, ids=_name)
def test_records_fit_every_shipped_mapping(mapping: Path, tmp_path: Path) -> None:
    made = write_source(mapping, None, tmp_path / "dummy.csv", 200, seed=7)
    _checked(made)
    assert load_mapping(made)[1].digest() == load_mapping(mapping)[1].digest()


@pytest.mark.parametrize("codebook", CODEBOOKS, ids=_name)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_records_fit_every_shipped_codebook(codebook: Path, suffix: str, tmp_path: Path) -> None:
    made = write_records(load_codebook(codebook), tmp_path / f"dummy{suffix}", 300, seed=7)
    _checked(made)


def test_registered_values_are_those_that_were_made_up(tmp_path: Path) -> None:
    codebook = load_codebook(ROOT / "data/codebooks/iccc3.toml")
    records = dummy_records(codebook, 500, seed=3)
    register(write_records(codebook, tmp_path / "dummy.csv", 500, seed=3), tmp_path / "state")
    snapshot = pyarrow.parquet.read_table(snapshot_path(load_registration(tmp_path / "state")))
    snapshot = snapshot.sort_by("_patient")
    assert snapshot["age_months"].to_pylist() == records["age_months"].to_pylist()
    labels = codebook.labels("iccc3_subgroup")
    found = [labels[-1 if place is None else place] for place in snapshot["iccc3_subgroup"].to_pylist()]
    assert found == records["iccc3_subgroup"].to_pylist()
    days = [
        None if day is None else (day - date(1970, 1, 1)).days
        for day in records["diagnosis_date"].to_pylist()
    ]
    assert snapshot["diagnosis_date"].to_pylist() == days


# --- what is plausible about them ------------------------------------------------------------------


def test_events_come_early_and_dates_agree() -> None:
    codebook = load_codebook(ROOT / "data/codebooks/iccc3.toml")
    records = dummy_records(codebook, 20_000, seed=11).to_pandas().dropna()
    dead, time = records["vital_status"] == "dead", records["follow_up_days"]
    assert 0.2 < dead.mean() < 0.7
    assert dead[time < 365].mean() > dead[time > 3650].mean() + 0.2
    years = records["diagnosis_date"].map(lambda found: found.year)
    assert (years == records["diagnosis_year"]).all()
    assert years.max() <= 2024
    groups = records["iccc3_subgroup"].str.partition("(")[0]
    known = (groups != "unclassified") & (records["iccc3_group"] != "unclassified")
    assert (groups == records["iccc3_group"])[known].all()
    assert abs((records["sex"] == "male").mean() - 0.5) < 0.05
    counts = records["iccc3_subgroup"].value_counts()
    assert counts.iloc[0] > 5 * counts.iloc[-1]  # far from uniform


def test_a_small_share_is_unknown_where_that_is_allowed() -> None:
    codebook = load_codebook(ROOT / "data/codebooks/iccc3.toml")
    records = dummy_records(codebook, 20_000, seed=12)
    for name, variable in codebook.mapped.items():
        column = records[name]
        said = (
            pc.equal(column, variable.unknown) if isinstance(variable, CategoryVariable) else column.is_null()
        )
        share = pc.mean(said).as_py()
        assert (0.02 < share < 0.05) if variable.unknown else share == 0, name


def test_an_outcome_of_two_events_is_consistent() -> None:
    mapping, codebook = load_mapping(ROOT / "scenarios/breast/nl.mapping.toml")
    rows = dummy_source(codebook, mapping, 5_000, seed=5).to_pandas()
    numbers = rows[["rtime", "dtime", "recur", "death"]].astype(int)
    assert (numbers["rtime"] <= numbers["dtime"]).all()
    some = (numbers["recur"] == 1) | (numbers["death"] == 1)
    assert (numbers["rtime"] < numbers["dtime"])[numbers["recur"] == 1].any()
    assert (numbers["rtime"] == numbers["dtime"])[~some].all()
    assert 0.2 < some.mean() < 0.9


def test_a_patient_has_one_sex_and_one_birth(tmp_path: Path) -> None:
    path = ROOT / "data/codebooks/icdo3.mapping.toml"
    made = write_source(path, None, tmp_path / "dummy.parquet", 300, seed=9, records_per_patient=4)
    _checked(made)
    assert check(*load_mapping(made)).max_records_per_patient in (3, 4)
    rows = pyarrow.parquet.read_table(tmp_path / "dummy.parquet").to_pandas()
    sizes = rows.groupby("patient_id").size()
    assert sizes.max() <= 4
    assert sizes.min() == 1
    one = rows.groupby("patient_id")[["sex", "date_of_birth"]].nunique()
    assert (one["sex"] == 1).all()
    assert (one["date_of_birth"] == 1).all()
    assert rows["patient_id"].str.startswith("DUMMY-").all()


# --- the seed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_same_seed_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    path = ROOT / "data/codebooks/icdo3.mapping.toml"
    files = []
    for name, seed in (("one", 4), ("two", 4), ("three", 5)):
        out = tmp_path / name / f"dummy{suffix}"
        out.parent.mkdir()
        made = write_source(path, None, out, 100, seed)
        files.append((out.read_bytes(), made.read_bytes()))
    assert files[0] == files[1]
    assert files[0][0] != files[2][0]


def test_chunks_bound_the_memory_and_part_no_numbers() -> None:
    codebook = load_codebook(ROOT / "scenarios/wilms/codebook.toml")
    chunks = list(record_chunks(codebook, 250, 1, records_per_patient=3, chunk=100))
    assert [chunk.num_rows for chunk in chunks] == [100, 100, 50]
    ids = [set(chunk["patient_id"].to_pylist()) for chunk in chunks]
    assert not ids[0] & ids[1] | ids[1] & ids[2]
    assert chunks[0].schema == chunks[2].schema


# --- codings that no shipped mapping has -----------------------------------------------------------

ODD_CODEBOOK = """
name = "odd"
version = "1"
[variables.diagnosed]
kind = "date"
lower = 1990-01-01
upper = 2010-12-31
[variables.age]
kind = "integer"
unit = "years"
lower = 18
upper = 100
[variables.follow_up]
kind = "integer"
unit = "months"
unknown = "?"
lower = 0
upper = 240
[variables.status]
kind = "category"
categories = ["alive", "cancer death", "other death"]
unknown = "?"
[variables.size]
kind = "category"
categories = ["small", "large"]
unknown = "?"
[variables.weight]
kind = "integer"
unit = "g"
lower = -5
upper = 5000
[variables.country]
kind = "category"
categories = ["at", "ch"]
"""
ODD_MAPPING = """
codebook = "codebook.toml"
patient = "Fall;Nr"
order_by = { column = "Meldung" }
[source]
file = "elsewhere.csv"
delimiter = ";"
encoding = "utf-16"
[variables.diagnosed]
date = { column = "Diagnose", formats = ["%d.%m.%Y", "%Y-%m-%d", "%b %Y"], assumed_day = 15 }
[variables.age.from_dates]
start = { column = "Geburt", formats = ["%Y"], assumed_day = 1, assumed_month = 7 }
end = { column = "Diagnose", formats = ["%d.%m.%Y", "%Y-%m-%d", "%b %Y"], assumed_day = 15 }
[variables.follow_up]
outcome = "death"
[variables.status]
outcome = "death"
[variables.size]
column = "Größe \\"mm\\""
cuts = [20]
labels = ["small", "large"]
decimal_comma = true
missing = ["k.A."]
[variables.weight]
column = "Gewicht"
unit = "g"
rounding = "nearest"
decimal_comma = true
[variables.country]
constant = "at"
[outcomes.death]
start = { column = "Diagnose", formats = ["%d.%m.%Y", "%Y-%m-%d", "%b %Y"], assumed_day = 15 }
otherwise = { label = "alive", at = { column = "Letzter Kontakt", days_since = 1960-01-01 } }
[[outcomes.death.events]]
label = "cancer death"
status = { column = "Tod", yes = ["1"], no = ["0", "2"], missing = ["9"] }
at = { column = "Todestag" }
[[outcomes.death.events]]
label = "other death"
status = { column = "Tod", yes = ["2"], no = ["0", "1"], missing = ["9"] }
at = { column = "Todestag" }
"""


def test_an_awkward_coding_is_met(tmp_path: Path) -> None:
    (tmp_path / "codebook.toml").write_text(ODD_CODEBOOK, encoding="utf-8")
    (tmp_path / "mapping.toml").write_text(ODD_MAPPING, encoding="utf-8")
    made = write_source(
        tmp_path / "mapping.toml", None, tmp_path / "dummy.csv", 200, 2, records_per_patient=2
    )
    _checked(made)
    text = (tmp_path / "dummy.csv").read_text(encoding="utf-16")
    assert text.startswith('"Fall;Nr";')
    assert '"Größe ""mm"""' in text.splitlines()[0]
    register(made, tmp_path / "state")
    rows = pyarrow.parquet.read_table(snapshot_path(load_registration(tmp_path / "state"))).to_pandas()
    assert set(rows["status"].dropna()) == {0, 1, 2}
    assert rows["size"].isna().any()
    assert rows["weight"].between(-5, 5000).all()
    assert rows["follow_up"].max() > 24


def test_a_constant_and_nothing_else_still_makes_rows(tmp_path: Path) -> None:
    codebook = 'name = "c"\nversion = "1"\n[variables.a]\nkind = "category"\ncategories = ["x"]\n'
    (tmp_path / "codebook.toml").write_text(codebook)
    (tmp_path / "mapping.toml").write_text(
        'codebook = "codebook.toml"\none_row_per_patient = true\nsource = { file = "a.csv" }\n'
        '[variables.a]\nconstant = "x"\n'
    )
    made = write_source(tmp_path / "mapping.toml", None, tmp_path / "dummy.csv", 3, 1)
    assert (tmp_path / "dummy.csv").read_text() == "dummy\nDUMMY\nDUMMY\nDUMMY\n"
    _checked(made)


# --- any codebook ----------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6)


UNKNOWN: list[dict[str, str]] = [
    {},
    {"unknown": "not known"},
    {"unknown": "not known", "missing": "refuse"},
]


@st.composite
def _variables(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = st.from_regex(r"\A[a-z][a-z0-9_]{0,8}\Z")
    for name in draw(st.lists(names, min_size=1, max_size=4, unique=True)):
        kind = draw(st.sampled_from(["category", "integer", "date"]))
        unknown = draw(st.sampled_from(UNKNOWN))
        if kind == "category":
            rest: dict[str, Any] = {"categories": draw(st.lists(TEXTS, min_size=1, max_size=5, unique=True))}
        elif kind == "integer":
            low, high = sorted(
                draw(st.tuples(st.integers(-(10**9), 10**9 - 1), st.integers(-(10**9) + 1, 10**9)))
            )
            unit = draw(st.sampled_from(["days", "months", "years", "year", "mm"]))
            rest = {"unit": unit, "lower": low, "upper": max(high, -(10**9) + 1)}
        else:
            ends = sorted(draw(st.tuples(st.dates(date(1, 1, 1)), st.dates(date(1, 1, 1)))))
            rest = {"lower": ends[0].isoformat(), "upper": ends[1].isoformat()}
        found[name] = {"kind": kind, **unknown, **rest}
    return found


def _is_free(fields: dict[str, Any]) -> bool:
    try:
        parse({"name": "any", "version": "1", "variables": fields}, Codebook)
    except DocumentError:
        return False
    return True


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fields=_variables().filter(_is_free), seed=st.integers(0, 2**64), rows=st.integers(1, 40))
def test_records_fit_any_codebook(fields: dict[str, Any], seed: int, rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codebook.json"
        path.write_text(json.dumps({"name": "any", "version": "1", "variables": fields}), encoding="utf-8")
        codebook = load_codebook(path)
        made = write_records(codebook, Path(folder) / "dummy.csv", rows, seed)
        _checked(made)
        records = dummy_records(codebook, rows, seed)
    for name, variable in codebook.mapped.items():
        values = records[name].to_pylist()
        if isinstance(variable, CategoryVariable):
            assert set(values) <= set(codebook.labels(name))
        elif isinstance(variable, IntegerVariable | DateVariable):
            assert all(variable.lower <= value <= variable.upper for value in values if value is not None)


# --- documents and units ---


def test_the_source_that_the_mapping_names_is_never_opened(tmp_path: Path) -> None:
    mapping, codebook = load_mapping(ROOT / "scenarios/wilms/us.mapping.toml")
    missing = mapping.model_copy(update={"source": mapping.source.model_copy(update={"file": "nowhere.csv"})})
    assert dummy_source(codebook, missing, 10, 1).num_rows == 10


@settings(max_examples=30, deadline=None)
@given(
    codes=st.dictionaries(TEXTS, st.just("I"), min_size=1, max_size=4),
    name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
)
def test_mappings_are_written_as_they_were(codes: dict[str, str], name: str) -> None:
    import tomllib

    fields = {
        "codebook": name,
        "one_row_per_patient": True,
        "source": {"file": "a.csv"},
        "order_by": {"column": "when", "days_since": date(1960, 1, 1)},
        "variables": {"stage": {"column": name, "codes": codes}},
    }
    assert tomllib.loads(toml_text(fields)) == fields


def test_numbers_of_other_units_are_read_back() -> None:
    codebook = parse(
        {
            "name": "units",
            "version": "1",
            "variables": {"age": {"kind": "integer", "unit": "months", "lower": 0, "upper": 239}},
        },
        Codebook,
    )
    for unit, rounding, step in (("days", "down", 1), ("years", "exact", 3), ("years", "nearest", 1)):
        fields = {
            "codebook": "c.toml",
            "one_row_per_patient": True,
            "source": {"file": "a.csv"},
            "variables": {"age": {"column": "age", "unit": unit, "rounding": rounding}},
        }
        rows = dummy_source(codebook, parse(fields, Mapping), 500, 1)
        numbers = np.array([float(text) for text in rows["age"].to_pylist()])
        months = numbers * 12 / (365.25 if unit == "days" else 1)
        months = np.floor(months + (0.5 if rounding == "nearest" else 1e-9))
        assert months.min() >= 0
        assert months.max() <= 239
        assert not (months % step).any()
        assert np.unique(months).size > 50
