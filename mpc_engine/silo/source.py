"""Reading a silo's records through Ibis: CSV and Parquet files and database tables, as columns of text.

Nothing is loaded here. Files and DuckDB tables are scanned in place by the embedded DuckDB; the rows of
any other database stream, batch by batch, into a private temporary Parquet file that is scanned instead.
Messages name files, columns and line numbers, never the content of a row.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import ibis
import pyarrow.lib
import pyarrow.parquet
from ibis.common.exceptions import IbisError, TableNotFound

from mpc_engine.documents import refuse
from mpc_engine.errors import DataError
from mpc_engine.silo.mapping import Mapping, Source

ROW: Final = "_row"
"""Name of the column with the number of the row in the source."""
_BATCH_ROWS: Final = 65_536
_LINE: Final = re.compile(r"[Ll]ine:? (\d+)")


@contextmanager
def engine(scratch: Path) -> Iterator[Any]:
    """Yield an embedded DuckDB that spills to ``scratch`` and never fetches extensions from a network."""
    connection = ibis.duckdb.connect(
        temp_directory=str(scratch),
        autoinstall_known_extensions=False,
        autoload_known_extensions=False,
    )
    try:
        yield connection
    finally:
        connection.disconnect()


@contextmanager
def opened(mapping: Mapping, base: Path) -> Iterator[Any]:
    """Yield the source's rows as a lazy Ibis table on DuckDB: the mapped columns as text, and :data:`ROW`.

    ``base`` is the folder to which the mapping's paths are relative. Raises
    :class:`~mpc_engine.errors.DataError` if the source cannot be read, also while the table is in use,
    and :class:`~mpc_engine.errors.DocumentError` if a column that the mapping names is not there.
    """
    what = _name(mapping.source)
    with tempfile.TemporaryDirectory(prefix="mpc-engine-") as folder:
        try:
            with engine(Path(folder)) as connection:
                table = _table(connection, mapping.source, base, Path(folder))
                yield _as_text(table, mapping)
        except (IbisError, OSError, *database_errors()) as error:
            # The database's own message may quote a row, hence only the line's number is taken from it.
            line = _LINE.search(str(error))
            where = f", line {line[1]}" if line else ""
            raise DataError(f"{what}{where}: cannot be read as {_form(mapping.source)}") from None


def identity(mapping: Mapping, base: Path) -> dict[str, int | str] | None:
    """Return the size, time and SHA-256 of the source file; None for a table of a database server.

    The values stay on this machine. Raises :class:`~mpc_engine.errors.DataError` if the file is not there.
    """
    path = file_path(mapping.source, base)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{_name(mapping.source)}: cannot be read ({error.strerror})") from None
    return {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "sha256": content}


def file_path(source: Source, base: Path) -> Path | None:
    """Return the file that holds the records, None where a database server does."""
    if source.file is not None:
        return base / source.file
    database = _database(source)
    if "://" not in database:
        return base / database
    scheme, _, rest = database.partition("://")
    return base / rest if scheme in {"duckdb", "sqlite"} else None


def _table(connection: Any, source: Source, base: Path, scratch: Path) -> Any:
    path = file_path(source, base)
    if path is not None and not path.is_file():
        raise DataError(f"{_name(source)}: there is no such file (looked for {path})")
    if source.file is not None and path is not None:
        if source.is_parquet:
            return connection.read_parquet(str(path))
        # Detection is off: it may take the first rows for a preface or those with "#" for comments.
        return connection.read_csv(
            str(path),
            auto_detect=False,
            columns=dict.fromkeys(_header(source, path), "VARCHAR"),
            header=True,
            delim=source.delimiter,
            quote='"',
            escape='"',
            encoding=source.encoding,
            null_padding=False,
            ignore_errors=False,
            strict_mode=True,
        )
    if path is not None and not _database(source).startswith("sqlite://") and path.suffix not in _SQLITE:
        connection.attach(str(path), name="registry", read_only=True)
        return connection.table(source.table, database=("registry", "main"))
    foreign = ibis.sqlite.connect(str(path)) if path is not None else ibis.connect(_database(source))
    try:
        return _staged(connection, foreign.table(source.table), scratch / "rows.parquet")
    finally:
        foreign.disconnect()


_SQLITE: Final = frozenset({".sqlite", ".sqlite3"})


def _header(source: Source, path: Path) -> list[str]:
    """Return the names of a CSV file's columns, from its first row."""
    encoding = "utf-8-sig" if source.encoding == "utf-8" else source.encoding
    try:
        with path.open(encoding=encoding, newline="") as file:
            names = next(csv.reader(file, delimiter=source.delimiter), [])
    except (UnicodeError, csv.Error):
        raise DataError(f"{_name(source)}, line 1: cannot be read as {_form(source)}") from None
    if not names or len(set(names)) != len(names):
        what = "has a name twice" if names else "is missing"
        raise DataError(f"{_name(source)}: the first row, which names the columns, {what}")
    return names


def _staged(connection: Any, rows: Any, path: Path) -> Any:
    """Stream ``rows`` of another database into the Parquet file ``path`` and return it as a table."""
    reader = rows.to_pyarrow_batches(chunk_size=_BATCH_ROWS)
    with pyarrow.parquet.ParquetWriter(path, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
    return connection.read_parquet(str(path))


def _as_text(table: Any, mapping: Mapping) -> Any:
    present = dict(table.schema().items())
    problems = [
        (path, f"there is no column {column!r} in {_name(mapping.source)}; it has: {', '.join(present)}")
        for path, column in _columns(mapping)
        if column not in present
    ]
    if problems:
        raise refuse(mapping.origin, problems)
    names = dict.fromkeys(column for _, column in _columns(mapping))
    columns = {name: _text_of(table[name], present[name]) for name in names}
    return table.select(**columns, **{ROW: ibis.row_number()})


def _text_of(column: Any, kind: Any) -> Any:
    """Return a typed column as the text that a person would write in a mapping."""
    if kind.is_string():
        return column
    if kind.is_floating():
        # A column of codes with gaps often comes as floats: 1.0 is the code 1.
        whole = (column == column.floor()) & (column.abs() < 2**53)
        return ibis.ifelse(whole, column.try_cast("int64").cast("string"), column.cast("string"))
    if kind.is_timestamp():
        return column.date().cast("string")
    return column.cast("string")


def _columns(mapping: Mapping) -> Iterator[tuple[str, str]]:
    """Yield every column that the mapping names, with the path of the key that names it."""
    if mapping.patient is not None:
        yield "patient", mapping.patient
    if mapping.order_by is not None:
        yield "order_by.column", mapping.order_by.column
    for name, variable in mapping.variables.items():
        path = f"variables.{name}"
        if variable.column is not None:
            yield f"{path}.column", variable.column
        if variable.from_dates is not None:
            yield f"{path}.from_dates.start.column", variable.from_dates.start.column
            yield f"{path}.from_dates.end.column", variable.from_dates.end.column
        if variable.year_of is not None:
            yield f"{path}.year_of.column", variable.year_of.column


def _database(source: Source) -> str:
    if source.database_env is None:
        return str(source.database)
    try:
        return os.environ[source.database_env]
    except KeyError:
        raise DataError(f"the environment variable {source.database_env} is not set") from None


def _name(source: Source) -> str:
    """Return what messages call the source; never a connection's address, which may hold a password."""
    if source.file is not None:
        return source.file
    return f"table {source.table} of the database"


def _form(source: Source) -> str:
    if source.file is None:
        return "a database table"
    return "Parquet" if source.is_parquet else f"CSV with {source.delimiter!r} between columns"


def database_errors() -> tuple[type[Exception], ...]:
    """Return what reading raises beside Ibis's own errors and those of the operating system."""
    return (duckdb.Error, sqlite3.Error, pyarrow.lib.ArrowException, TableNotFound)
