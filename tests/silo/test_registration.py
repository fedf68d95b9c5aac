"""Checking and registering: what a person is told, and what is stored."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import duckdb
import pandas as pd
import pytest
import studies

from mpc_engine.errors import DataError, DocumentError
from mpc_engine.silo import registration
from mpc_engine.silo.mapping import load_mapping
from mpc_engine.silo.register import check, load_registration, register
from mpc_engine.silo.registration import newer
from mpc_engine.silo.report import Report

GOOD = "id,sex,stage,age\np1,F,1,4\np2,M,2,70\np3,M,,\n"


def _check(folder: Path, rows: str, mapping: str = studies.MAPPING) -> Report:
    return check(*load_mapping(studies.write(folder, rows, mapping)))


def _stages(folder: Path, state: Path) -> list[int]:
    return studies.counts(folder / "mapping.toml", state)


def test_an_unknown_code_is_reported_with_the_line_to_add(tmp_path: Path) -> None:
    path = studies.write(tmp_path, GOOD + "p4,F, 9 ,1\np5,F,9,1\np6,F,X,1\n")
    state = tmp_path / "state"
    with pytest.raises(DataError) as error:
        register(path, state)
    text = str(error.value)
    assert 'stage: column stage: "9" is not in the mapping (2 rows)' in text
    assert "add under [variables.stage.codes]:" in text
    assert '"9" = "unknown"' in text and '"X" = "unknown"' in text
    assert list(state.iterdir()) == []
    with pytest.raises(DataError, match="no data are registered here"):
        load_registration(state)

    lines = [problem.add for problem in check(*load_mapping(path)).problems]
    mapping = studies.MAPPING.replace(
        "codes = { 1 =", "[variables.stage.codes]\n" + "\n".join(lines) + "\n1 ="
    ).replace(', 2 = "II", 3 = "III" }', '\n2 = "II"\n3 = "III"')
    path.write_text(mapping, encoding="utf-8")
    register(path, state)
    assert _stages(tmp_path, state) == [1, 1, 0, 4]


def test_without_an_unknown_category_the_allowed_labels_are_shown_and_missing_is_refused(
    tmp_path: Path,
) -> None:
    report = _check(tmp_path, GOOD + "p4,U,1,1\np5,,1,1\n")
    text = report.render()
    assert '"U" = "female | male"' in text
    assert "sex: column sex: is missing, and the codebook declares no unknown category (1 row)" in text
    assert len(report.problems) == 2


def test_bad_numbers_are_reported(tmp_path: Path) -> None:
    report = _check(tmp_path, GOOD + "p4,F,1,100\np5,F,1,-1\np6,F,1,abc\np7,F,1,1.5\n")
    faults = {problem.code: problem.fault for problem in report.problems}
    assert faults["100"] == faults["-1"] == "is outside the codebook's bounds 0 to 99 years"
    assert faults["abc"] == faults["1.5"] == "is not a whole number of years"
    assert 'missing = ["abc"]' in report.render()


def test_many_codes_are_cut_short_but_counted(tmp_path: Path) -> None:
    report = _check(tmp_path, GOOD + "".join(f"p{n},F,code{n},1\n" for n in range(10, 50)))
    assert len(report.problems) == 26
    assert sum(problem.rows for problem in report.problems) == 40


def test_patients_without_id_and_repeated_patients(tmp_path: Path) -> None:
    assert "belong to nobody (1 row)" in _check(tmp_path, GOOD + ",F,1,1\n").render()
    once = "one_row_per_patient = true\n" + studies.MAPPING
    report = _check(tmp_path, GOOD + "p1,F,1,1\n", once)
    assert "patients with more than one row, yet `one_row_per_patient` is stated (2 rows)" in report.render()
    assert _check(tmp_path, GOOD, once).problems == ()


def test_one_row_per_patient_needs_no_patient_column(tmp_path: Path) -> None:
    mapping = studies.MAPPING.replace('patient = "id"', "one_row_per_patient = true")
    register(studies.write(tmp_path, GOOD, mapping), tmp_path / "state")
    assert _stages(tmp_path, tmp_path / "state") == [1, 1, 0, 1]


def test_control_characters_in_codes_do_not_reach_the_terminal(tmp_path: Path) -> None:
    assert "\x1b" not in _check(tmp_path, GOOD + "p4,F,\x1b[2J,1\n").render()


def test_what_is_stored_is_private_and_without_identifiers(tmp_path: Path) -> None:
    first = register(studies.write(tmp_path, GOOD), tmp_path / "state")
    again = register(tmp_path / "mapping.toml", tmp_path / "state")
    assert first.snapshot_id != again.snapshot_id
    files = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert files == ["registration.json", f"snapshot-{again.snapshot_id}.parquet"]
    for name in files:
        path = tmp_path / "state" / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"p1" not in path.read_bytes()
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    frame = pd.read_parquet(tmp_path / "state" / files[1])
    assert list(frame.columns) == ["_patient", "_rank", "sex", "stage", "age"]
    assert "rows" not in repr(again) and str(again) == f"Registration({again.snapshot_id})"


def test_a_failed_registration_keeps_the_one_before(tmp_path: Path) -> None:
    path = studies.write(tmp_path, GOOD)
    first = register(path, tmp_path / "state")
    studies.write(tmp_path, GOOD + "p9,F,9,1\n")
    with pytest.raises(DataError):
        register(path, tmp_path / "state")
    studies.write(tmp_path, GOOD)
    assert load_registration(tmp_path / "state") == first


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize(("name", "document"), [("rows.csv", "source"), ("mapping.toml", "mapping")])
def test_what_changed_since_makes_a_snapshot_older_and_no_worse(
    tmp_path: Path, name: str, document: str, gone: bool
) -> None:
    registered = register(studies.write(tmp_path, GOOD), tmp_path / "state")
    assert newer(registered) == ()
    path = tmp_path / name
    was, text = path.stat(), path.read_text()
    if gone:
        path.unlink()
    else:
        path.write_text(text + {"source": "p9,F,1,1\n", "mapping": "missing = ['999']\n"}[document])
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert load_registration(tmp_path / "state") == registered
    (found,) = newer(registered)
    words = "is no longer there" if gone else "has changed since"
    assert (found.document, found.words) == (document, f"{name} {words}")
    path.write_text(text)
    assert newer(registered) == ()  # a new time alone, or a note in the mapping, is no change
    (tmp_path / "mapping.toml").write_text("# a note\n" + studies.MAPPING)
    assert newer(registered) == ()


def test_a_source_is_read_only_where_its_time_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = register(studies.write(tmp_path, GOOD), tmp_path / "state")
    rows = tmp_path / "rows.csv"
    was, read = rows.stat(), []
    kept = registration.sha256
    monkeypatch.setattr(registration, "sha256", lambda path: read.append(path.name) or kept(path))
    newer(registered)
    load_registration(tmp_path / "state")
    assert "rows.csv" not in read
    os.utime(rows, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
    assert newer(registered) == () and "rows.csv" in read
    assert [each.document for each in newer(registered, 1)] == ["source"]  # too long to be read


def test_a_registration_of_an_older_version_is_still_one(tmp_path: Path) -> None:
    register(studies.write(tmp_path, GOOD), tmp_path / "state")
    path = tmp_path / "state" / "registration.json"
    fields = json.loads(path.read_text())
    for key in ("mapping_sha256", "source_file", "registered"):
        del fields[key]
    path.write_text(json.dumps(fields))
    found = load_registration(tmp_path / "state")
    assert newer(found) == () and found.words == "registered, 3 rows"


def test_a_source_without_rows_is_refused_where_nobody_says_that_it_may_be(tmp_path: Path) -> None:
    path, state = studies.write(tmp_path, GOOD), tmp_path / "state"
    first = register(path, state)
    studies.write(tmp_path, GOOD.splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"rows\.csv: has no rows.*--allow-empty"):
        register(path, state, refuse_empty=True)
    assert load_registration(state) == first
    assert register(path, state).rows == 0


def test_an_altered_snapshot_is_refused(tmp_path: Path) -> None:
    register(studies.write(tmp_path, GOOD), tmp_path / "state")
    (snapshot,) = (tmp_path / "state").glob("*.parquet")
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 1
    snapshot.write_bytes(content)
    with pytest.raises(DataError, match="missing or was altered"):
        load_registration(tmp_path / "state")


def test_an_altered_registration_is_refused(tmp_path: Path) -> None:
    register(studies.write(tmp_path, GOOD), tmp_path / "state")
    path = tmp_path / "state" / "registration.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"snapshot_id": "../x"}))
    with pytest.raises(DocumentError, match="snapshot_id"):
        load_registration(tmp_path / "state")


def test_a_missing_file_and_a_missing_column(tmp_path: Path) -> None:
    path = studies.write(tmp_path, "id,sex,STAGE,age\n")
    with pytest.raises(DocumentError, match=r"variables\.stage\.column: there is no column .stage.*STAGE"):
        register(path, tmp_path / "state")
    (tmp_path / "rows.csv").unlink()
    with pytest.raises(DataError, match=r"rows\.csv"):
        register(path, tmp_path / "state")


def test_a_malformed_row_is_named_by_its_line_without_its_content(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        _check(tmp_path, GOOD + "secret-id,F,1\n" + GOOD)
    assert "rows.csv" in str(error.value) and "line 5" in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_every_line_of_a_csv_file_is_a_row(tmp_path: Path, ending: str, encoding: str) -> None:
    rows = '#1,F,1,4\n"#2",F,2,"5"\n"Zoë\n, Ann",M,,\n# no comment,F,3,7\n'
    mapping = studies.MAPPING
    if encoding == "latin-1":
        mapping = mapping.replace('file = "rows.csv"', 'file = "rows.csv"\nencoding = "latin-1"')
    path = studies.write(tmp_path, "", mapping)
    (tmp_path / "rows.csv").write_bytes(("id,sex,stage,age\n" + rows).replace("\n", ending).encode(encoding))
    register(path, tmp_path / "state")
    assert _stages(tmp_path, tmp_path / "state") == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "the first row, which names the columns, is missing"),
        ("id,sex,sex,age\n", "two columns have the same name"),
        ("id,sex,Sex,age\n", "two columns have the same name; upper and lower case are not told apart"),
    ],
)
def test_a_csv_file_needs_a_row_of_names(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _check(tmp_path, rows)


def test_another_delimiter(tmp_path: Path) -> None:
    mapping = studies.MAPPING.replace('file = "rows.csv"', 'file = "rows.csv"\ndelimiter = ";"')
    assert _check(tmp_path, GOOD.replace(",", ";"), mapping).rows == 3
    with pytest.raises(DocumentError, match=r"there are no columns .* Is `delimiter` \",\""):
        _check(tmp_path, GOOD, mapping)


def _frame() -> pd.DataFrame:
    # Numbers with gaps: the stage arrives as floats, the age as whole numbers with nulls.
    return pd.DataFrame(
        {
            "id": [1, 2, 3],
            "sex": ["F", " M", "M "],
            "stage": [1.0, 2.0, None],
            "age": pd.array([4, 70, None], "Int64"),
        }
    )


def test_parquet_is_a_source(tmp_path: Path) -> None:
    _frame().to_parquet(tmp_path / "rows.parquet")
    register(studies.write(tmp_path, "", studies.MAPPING.replace(".csv", ".parquet")), tmp_path / "state")
    assert _stages(tmp_path, tmp_path / "state") == [1, 1, 0, 1]


@pytest.mark.parametrize("address", ["registry.duckdb", "duckdb://registry.duckdb"])
def test_a_duckdb_table_is_a_source(tmp_path: Path, address: str) -> None:
    frame = _frame()  # noqa: F841 - DuckDB finds it by name
    with duckdb.connect(str(tmp_path / "registry.duckdb")) as connection:
        connection.sql("create table tumours as select * from frame")
    mapping = studies.MAPPING.replace('file = "rows.csv"', f'database = "{address}"\ntable = "tumours"')
    register(studies.write(tmp_path, "", mapping), tmp_path / "state")
    assert _stages(tmp_path, tmp_path / "state") == [1, 1, 0, 1]
    with pytest.raises(DataError, match="table patients of the database: cannot be read"):
        register(studies.write(tmp_path, "", mapping.replace("tumours", "patients")), tmp_path / "state")


@pytest.mark.parametrize("by_environment", [False, True])
def test_a_table_of_another_database_streams_in(
    tmp_path: Path, by_environment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(tmp_path / "registry.sqlite")) as foreign:
        foreign.execute("create table tumours (id integer, sex text, stage real, age integer)")
        rows = _frame().astype(object).where(_frame().notna(), None).to_numpy().tolist()
        foreign.executemany("insert into tumours values (?, ?, ?, ?)", rows)
        foreign.commit()
    monkeypatch.setenv("REGISTRY_ADDRESS", "sqlite://registry.sqlite")
    address = 'database_env = "REGISTRY_ADDRESS"' if by_environment else 'database = "registry.sqlite"'
    mapping = studies.MAPPING.replace('file = "rows.csv"', f'{address}\ntable = "tumours"')
    register(studies.write(tmp_path, "", mapping), tmp_path / "state")
    assert _stages(tmp_path, tmp_path / "state") == [1, 1, 0, 1]
