"""Sources whose names, paths, types and states could be misread; what is counted is always what is there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import studies

from mpc_engine.errors import DataError, DocumentError
from mpc_engine.silo.mapping import load_mapping
from mpc_engine.silo.register import check, load_registration, register
from mpc_engine.silo.registration import newer

GOOD = "id,sex,stage,age\np1,F,1,4\np2,M,2,70\np3,M,,\n"
FRAME = pd.DataFrame(
    {"id": ["p1", "p2", "p3"], "sex": ["F", "M", "M"], "stage": ["1", "2", None], "age": ["4", "70", None]}
)


def _counts(path: Path, state: Path, by: str = "stage") -> list[int]:
    register(path, state)
    return studies.counts(path, state, by)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("folder", ["stage=2/id=7", "s[1]*?", 'O\'Brien "Zoë"', "_patient=1/_rank=5"])
def test_the_name_of_a_folder_is_only_a_name(tmp_path: Path, folder: str, suffix: str) -> None:
    place = tmp_path / folder
    place.mkdir(parents=True)
    path = studies.write(place, GOOD, studies.MAPPING.replace("rows.csv", f"rows.{suffix}"))
    FRAME.to_parquet(place / "rows.parquet")
    assert _counts(path, place / "state") == [1, 1, 0, 1]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_name_of_a_file_is_no_pattern(tmp_path: Path, suffix: str) -> None:
    for name in ("rows[1]*", "rows1", "rows1x"):
        FRAME.iloc[: 2 if name == "rows[1]*" else 1].to_csv(tmp_path / f"{name}.csv", index=False)
        FRAME.iloc[: 2 if name == "rows[1]*" else 1].to_parquet(tmp_path / f"{name}.parquet")
    path = studies.write(tmp_path, "", studies.MAPPING.replace("rows.csv", f"rows[1]*.{suffix}"))
    assert _counts(path, tmp_path / "state") == [1, 1, 0, 0]


@pytest.mark.parametrize("patient", ['patient = "id"', "one_row_per_patient = true"])
def test_constants_and_what_is_not_collected(tmp_path: Path, patient: str) -> None:
    documents = f"""
        codebook = "codebook.toml"
        {patient}
        source = {{ file = "rows.csv" }}
        [variables]
        sex = {{ constant = "male" }}
        stage = {{ not_collected = true }}
        age = {{ not_collected = true }}
    """
    path = studies.write(tmp_path, GOOD, documents)
    assert check(*load_mapping(path)).problems == ()
    assert _counts(path, tmp_path / "state", "stage") == [0, 0, 0, 3]
    assert _counts(path, tmp_path / "state", "sex") == [0, 3]


@pytest.mark.parametrize("name", ["_row", "self", "x\"'; drop table t; --\n"])
def test_columns_and_variables_may_have_any_name(tmp_path: Path, name: str) -> None:
    table = FRAME.rename(columns={"stage": name}).to_csv(index=False)
    quoted = '"' + name.replace('"', '\\"').replace("\n", "\\n") + '"'
    mapping = studies.MAPPING.replace('column = "stage"', f"column = {quoted}")
    assert _counts(studies.write(tmp_path, table, mapping), tmp_path / "state") == [1, 1, 0, 1]


@pytest.mark.parametrize("name", ["self", "records"])
def test_variables_may_have_the_name_of_an_argument(tmp_path: Path, name: str) -> None:
    renamed = [
        text.replace("variables.stage]", f"variables.{name}]") for text in (studies.MAPPING, studies.CODEBOOK)
    ]
    assert _counts(studies.write(tmp_path, GOOD, *renamed), tmp_path / "state", name) == [1, 1, 0, 1]


def _sqlite(folder: Path, types: str, rows: list[tuple[object, ...]]) -> Path:
    with closing(sqlite3.connect(folder / "registry.sqlite")) as database:
        database.execute(f"create table tumours ({types})")
        database.executemany("insert into tumours values (?, ?, ?, ?)", rows)
        database.commit()
    return studies.write(
        folder,
        "",
        studies.MAPPING.replace('file = "rows.csv"', 'database = "registry.sqlite"\ntable = "tumours"'),
    )


def test_sqlite_values_are_read_as_they_are_stored(tmp_path: Path) -> None:
    rows = [("A1", "F", 1, 5.7), (7, "M", 2.0, 6.999), (8, "M", 3, "old"), (9, "F", None, 70.0)]
    path = _sqlite(tmp_path, "id integer, sex text, stage integer, age integer", rows)
    problems = check(*load_mapping(path)).problems
    assert {problem.code: problem.rows for problem in problems} == {"5.7": 1, "6.999": 1, "old": 1}
    path.write_text(
        path.read_text().replace('column = "age"', 'column = "age"\nmissing = ["old"]\nrounding = "down"')
    )
    assert _counts(path, tmp_path / "state") == [1, 1, 1, 1]
    assert _counts(path, tmp_path / "state", "age_group") == [2, 0, 1, 1]


def test_sqlite_timestamps_are_dates(tmp_path: Path) -> None:
    rows = [("a", "F", "1", "1985-07-03 00:00:00"), ("b", "M", "2", "1970-01-01")]
    path = _sqlite(tmp_path, "id text, sex text, stage text, age timestamp", rows)
    path.write_text(path.read_text().replace('column = "age"', 'year_of = { column = "age" }'))
    path.with_name("codebook.toml").write_text(studies.CODEBOOK.replace("upper = 99", "upper = 3000"))
    assert _counts(path, tmp_path / "state", "age_group") == [0, 0, 2, 0]


def test_a_sqlite_database_without_the_table_or_the_column(tmp_path: Path) -> None:
    path = _sqlite(tmp_path, "id, sex, grade, age", [])
    with pytest.raises(Exception, match="there is no column 'stage'"):
        register(path, tmp_path / "state")
    path.write_text(path.read_text().replace('"tumours"', '"patients"'))
    with pytest.raises(DataError, match="table patients of the database: cannot be read"):
        register(path, tmp_path / "state")


def test_a_sqlite_file_may_have_any_name(tmp_path: Path) -> None:
    path = _sqlite(tmp_path, "id integer, sex text, stage integer, age integer", [(1, "F", 1, 5)])
    for name, address in (("r.db", "r.db"), ("r.dat", "sqlite://r.dat"), ("r", "r")):
        (tmp_path / name).write_bytes((tmp_path / "registry.sqlite").read_bytes())
        path.write_text(path.read_text().replace('"registry.sqlite"', f'"{address}"'))
        assert sum(_counts(path, tmp_path / f"state of {name}")) == 1
        path.write_text(path.read_text().replace(f'"{address}"', '"registry.sqlite"'))


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_a_database_with_unwritten_changes_is_refused(tmp_path: Path, kind: str) -> None:
    mapping = studies.MAPPING.replace('file = "rows.csv"', f'database = "registry.{kind}"\ntable = "tumours"')
    path, file = studies.write(tmp_path, "", mapping), str(tmp_path / f"registry.{kind}")
    first = "create table tumours as select 'p1' id, 'F' sex, '1' stage, '4' age"
    more = "insert into tumours values ('p2', 'M', '2', '70')"
    with closing(duckdb.connect(file) if kind == "duckdb" else sqlite3.connect(file)) as database:
        database.execute(first)
        if kind == "sqlite":
            database.commit()
    register(path, tmp_path / "state")
    load_registration(tmp_path / "state")
    with closing(duckdb.connect(file) if kind == "duckdb" else sqlite3.connect(file)) as database:
        if kind == "sqlite":
            database.execute("pragma journal_mode = wal")
        database.execute(more)
        database.commit() if kind == "sqlite" else None
        assert [each.words for each in newer(load_registration(tmp_path / "state"))] == [
            f"registry.{kind} has changed since"
        ]
        with pytest.raises(DataError, match="has changes that are not in its file yet"):
            register(path, tmp_path / "state")
    assert _counts(path, tmp_path / "state") == [1, 1, 0, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e300])
def test_numbers_that_are_none_are_reported_with_their_column(tmp_path: Path, value: float) -> None:
    # pandas would write NaN as null.
    columns = {name: pa.array(FRAME[name].fillna("").tolist()) for name in ("id", "sex", "stage")}
    pq.write_table(pa.table(columns | {"age": pa.array([4.0, 70.0, value])}), tmp_path / "rows.parquet")
    path = studies.write(tmp_path, "", studies.MAPPING.replace("rows.csv", "rows.parquet"))
    (problem,) = check(*load_mapping(path)).problems
    assert (problem.column, problem.rows) == ("age", 1)


def test_parquet_columns_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    FRAME.assign(Stage="3").to_parquet(tmp_path / "rows.parquet")
    path = studies.write(tmp_path, "", studies.MAPPING.replace("rows.csv", "rows.parquet"))
    with pytest.raises(DataError, match="two columns have the same name"):
        register(path, tmp_path / "state")


# --- a CSV file that is not written as the mapping says -------------------------------------------------


def test_the_columns_that_are_not_there_are_named_once(tmp_path: Path) -> None:
    path = studies.write(tmp_path, "id,Sex,STAGE\n")
    with pytest.raises(DocumentError) as error:
        check(*load_mapping(path))
    said = str(error.value)
    wanted = "no columns 'sex' (variables.sex.column), 'stage' (variables.stage.column), 'age' (variables.age"
    assert wanted in said and said.count("it has: 'id', 'Sex', 'STAGE'") == 1 and "delimiter" not in said


@pytest.mark.parametrize(("mark", "shown"), [(";", '";"'), ("\t", r'"\t"'), ("|", '"|"')])
def test_another_delimiter_is_guessed(tmp_path: Path, mark: str, shown: str) -> None:
    path = studies.write(tmp_path, "id,sex,stage,age\np1,F,1,4\n".replace(",", mark))
    with pytest.raises(DocumentError) as error:
        check(*load_mapping(path))
    assert str(error.value).endswith(f"Is `delimiter` {shown} (under [source])?")
    path.write_text(path.read_text().replace("[source]", f"[source]\ndelimiter = {shown}"))
    assert check(*load_mapping(path)).rows == 1


@pytest.mark.parametrize("before", [0, 5000])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_guessed(tmp_path: Path, encoding: str, before: int) -> None:
    path = studies.write(tmp_path, "")
    rows = "id,sex,stage,age\n" + "p0,F,1,4\n" * before + "Müller,F,1,4\n"
    (tmp_path / "rows.csv").write_bytes(rows.encode(encoding))
    with pytest.raises(DataError, match=f'is not written in utf-8. Is `encoding` "{encoding}"') as error:
        check(*load_mapping(path))
    assert "ller" not in str(error.value)
    path.write_text(path.read_text().replace("[source]", f'[source]\nencoding = "{encoding}"'))
    assert check(*load_mapping(path)).rows == before + 1
