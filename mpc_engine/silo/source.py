"""Reading a silo's records through Ibis: CSV and Parquet files and database tables, as columns of text.

Nothing is loaded here. Files and DuckDB tables are scanned in place by the embedded DuckDB; the mapped
columns of any other database's table stream, batch by batch, into a private temporary Parquet file that is
scanned instead. Messages name files, columns and line numbers, never the content of a row.
"""

from __future__ import annotations

import codecs
import csv
import glob
import hashlib
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import ibis
import pyarrow
import pyarrow.lib
import pyarrow.parquet
from ibis.common.exceptions import IbisError, TableNotFound

from mpc_engine.documents import refuse
from mpc_engine.errors import DataError
from mpc_engine.silo.mapping import Mapping, Source
from mpc_engine.silo.registration import change_logs
from mpc_engine.silo.server import server_table
from mpc_engine.silo.store import writing

ROW: Final = "row\x1f"
"""Name of the column with the number of the row in the source; a mapping cannot name such a column."""
_BATCH_ROWS: Final = 65_536
_LINE: Final = re.compile(r"[Ll]ine:? (\d+)")
_ENCODED: Final = re.compile("unicode|utf-?(8|16)|encod", re.IGNORECASE)


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
    what = source_name(mapping.source)
    with tempfile.TemporaryDirectory(prefix="mpc-engine-") as folder:
        try:
            with engine(Path(folder)) as connection:
                yield _as_text(_table(connection, mapping, base, Path(folder)), mapping)
        except (IbisError, OSError, *database_errors()) as error:
            if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in str(error):
                raise DataError(
                    f"{what}: memory, or the disk with the folder for temporary files, is full"
                ) from None
            # The database's own message may quote a row, hence only the line's number is taken from it.
            line = _LINE.search(str(error))
            where = f", line {line[1]}" if line else ""
            words = _miswritten(mapping.source, base) if _ENCODED.search(str(error)) else ""
            words = words or f"cannot be read as {_form(mapping.source)}"
            raise DataError(f"{what}{where}: {words}") from None


def identity(mapping: Mapping, base: Path) -> dict[str, int | str] | None:
    """Return the size, time and SHA-256 of the source file; None for a table of a database server.

    The values stay on this machine. Raises :class:`~mpc_engine.errors.DataError` if the file is not there,
    or is a database with a log of changes beside it, which the digest would not cover.
    """
    path = file_path(mapping.source, base)
    if path is None:
        return None
    for log in change_logs(path) if mapping.source.file is None else ():
        if log.exists() and log.stat().st_size:
            raise DataError(
                f"{source_name(mapping.source)}: has changes that are not in its file yet ({log.name}); "
                "close the programs that write to it"
            )
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{source_name(mapping.source)}: cannot be read ({error.strerror})") from None
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


def scan(connection: Any, path: Path) -> Any:
    """Return the Parquet file ``path`` as a table, whatever its name: DuckDB takes names for patterns.

    Folders such as ``stage=2`` on the way to it are no columns either.
    """
    return connection.read_parquet(glob.escape(str(path)), hive_partitioning=False)


def store(connection: Any, rows: Any, path: Path) -> None:
    """Write the lazy table ``rows`` into the new Parquet file ``path``, readable by its owner only.

    The folder of ``path`` must be private, since DuckDB obeys the umask while it writes. Raises
    :class:`~mpc_engine.errors.DataError` if it cannot write. A function in Python that ``rows`` depends on
    must have been used on this connection.
    """
    # Not Ibis's to_parquet, which writes the path as a Python string: one with an apostrophe would fail.
    place = str(path).replace("'", "''")
    try:
        connection.raw_sql(f"COPY ({connection.compile(rows)}) TO '{place}' (FORMAT parquet)").close()
    except duckdb.IOException as error:
        full = "No space left" in str(error)
        raise DataError(
            f"{path.parent}: the snapshot cannot be written" + (" (no space left on device)" if full else "")
        ) from None
    path.chmod(0o600)


def _table(connection: Any, mapping: Mapping, base: Path, scratch: Path) -> Any:
    source = mapping.source
    path = file_path(source, base)
    if path is not None and not path.is_file():
        raise DataError(f"{source_name(source)}: there is no such file (looked for {path})")
    if source.file is not None and path is not None:
        if source.is_parquet:
            _refuse_repeats(pyarrow.parquet.read_schema(path).names, source)
            return scan(connection, path)
        # Detection is off: it may take the first rows for a preface or those with "#" for comments.
        return connection.read_csv(
            glob.escape(str(path)),
            hive_partitioning=False,
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
    if path is not None and not _is_sqlite(path):
        connection.attach(str(path), name="registry", read_only=True)
        return connection.table(source.table, database=("registry", "main"))
    staged = scratch / "rows.parquet"
    if path is not None:
        _stage_sqlite(path, mapping, staged)
    else:
        with server_table(_database(source), str(source.table), source_name(source)) as rows:
            named = rows.select(*_named(mapping, rows.columns))
            batches = named.to_pyarrow_batches(chunk_size=_BATCH_ROWS)
            _stage(batches, batches.schema, staged)
    return scan(connection, staged)


_SQLITE: Final = b"SQLite format 3\0"
"""What such a file begins with, whatever its name."""


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _header(source: Source, path: Path) -> list[str]:
    """Return the names of a CSV file's columns, from its first row."""
    encoding = "utf-8-sig" if source.encoding == "utf-8" else source.encoding
    try:
        with path.open(encoding=encoding, newline="") as file:
            names = next(csv.reader(file, delimiter=source.delimiter), [])
    except UnicodeError:
        raise DataError(f"{source_name(source)}: {_miswritten(source, path.parent)}") from None
    except csv.Error:
        raise DataError(f"{source_name(source)}, line 1: cannot be read as {_form(source)}") from None
    if not names:
        raise DataError(f"{source_name(source)}: the first row, which names the columns, is missing")
    _refuse_repeats(names, source)
    return names


def _refuse_repeats(names: list[str], source: Source) -> None:
    """Refuse columns that the databases, which do not tell upper from lower case, cannot tell apart."""
    if len({name.lower() for name in names}) != len(names):
        raise DataError(
            f"{source_name(source)}: two columns have the same name; upper and lower case are not told apart"
        )


def _stage(batches: Iterable[Any], schema: Any, staged: Path) -> None:
    with writing(staged), pyarrow.parquet.ParquetWriter(staged, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _stage_sqlite(path: Path, mapping: Mapping, staged: Path) -> None:
    """Stream the mapped columns of a SQLite table, as text, into the Parquet file ``staged``.

    A column's declared type says nothing about what it holds: whole numbers may stand beside others and
    beside text. Reading by the type would cut 5.7 down to 5, hence every value is taken as it is stored.
    """
    table = _sqlite_name(str(mapping.source.table))
    # Only for reading, and without creating anything if there is no such file.
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        kinds = {name: kind for _, name, kind, *_ in database.execute(f"PRAGMA table_xinfo({table})")}
        if not kinds:
            raise TableNotFound(str(mapping.source.table))
        names = _named(mapping, kinds)
        columns = ", ".join(_sqlite_text(_sqlite_name(name), kinds[name]) for name in names)
        rows = database.execute(f"SELECT {columns} FROM {table}")
        schema = pyarrow.schema([(name, pyarrow.string()) for name in names])
        some = iter(lambda: rows.fetchmany(_BATCH_ROWS), [])
        batches = (
            pyarrow.RecordBatch.from_arrays(
                [pyarrow.array(values, pyarrow.string()) for values in zip(*batch, strict=True)],
                schema=schema,
            )
            for batch in some
        )
        _stage(batches, schema, staged)


def _sqlite_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sqlite_text(column: str, kind: str) -> str:
    """Return the SQL for what :func:`_text_of` returns elsewhere."""
    text = f"CAST({column} AS TEXT)"
    if kind.upper().startswith(("TIMESTAMP", "DATETIME")):
        # SQLite has no such type: it is text, the date first.
        text = f"CASE typeof({column}) WHEN 'text' THEN substr({column}, 1, 10) ELSE {text} END"
    whole = f"typeof({column}) = 'real' AND {column} = CAST({column} AS INTEGER)"
    whole += f" AND abs({column}) < {2**53}"
    return f"CASE WHEN {whole} THEN CAST(CAST({column} AS INTEGER) AS TEXT) ELSE {text} END"


def _named(mapping: Mapping, present: Iterable[str]) -> list[str]:
    """Return the columns that the mapping names; raises DocumentError if one is not among ``present``."""
    present = list(present)
    absent: dict[str, list[str]] = {}
    for path, column in mapping.columns:
        if column not in present:
            absent.setdefault(column, []).append(path)
    if absent:
        raise refuse(mapping.origin, [_absent(absent, present, mapping.source)])
    # If nothing is collected, any one column will do: the rows still count.
    return list(dict.fromkeys(column for _, column in mapping.columns)) or present[:1]


def _absent(absent: dict[str, list[str]], present: list[str], source: Source) -> tuple[str, str]:
    """Return the place and the message on columns that are not there, with the keys that name them."""
    if len(absent) == 1:
        ((column, paths),) = absent.items()
        where, words = ", ".join(paths), f"there is no column {column!r}"
    else:
        listed = ", ".join(f"{column!r} ({', '.join(paths)})" for column, paths in absent.items())
        where, words = "", f"there are no columns {listed}"
    words += f" in {source_name(source)}; it has: {', '.join(map(repr, present))}"
    if source.file is not None and not source.is_parquet and len(present) == 1:
        others = [mark for mark in _DELIMITERS if mark in present[0] and mark != source.delimiter]
        if others:
            words += f". Is `delimiter` {_toml(max(others, key=present[0].count))} (under [source])?"
    return where, words


_DELIMITERS: Final = (";", "\t", "|", ",")


def _toml(mark: str) -> str:
    return '"\\t"' if mark == "\t" else f'"{mark}"'


def _as_text(table: Any, mapping: Mapping) -> Any:
    kinds = table.schema()
    columns = [_text_of(table[name], kinds[name]).name(name) for name in _named(mapping, kinds.names)]
    return table.select(*columns, ibis.row_number().name(ROW))


def _text_of(column: Any, kind: Any) -> Any:
    """Return a typed column as the text that a person would write in a mapping."""
    if kind.is_string():
        return column
    if kind.is_floating():
        # A column of codes with gaps often comes as floats: 1.0 is the code 1.
        whole = (column % 1 == 0) & (column.abs() < 2**53)  # false for infinities and NaN
        return ibis.ifelse(whole, column.try_cast("int64").cast("string"), column.cast("string"))
    if kind.is_timestamp():
        return column.date().cast("string")
    return column.cast("string")


def _database(source: Source) -> str:
    if source.database_env is None:
        return str(source.database)
    try:
        return os.environ[source.database_env]
    except KeyError:
        raise DataError(f"the environment variable {source.database_env} is not set") from None


def source_name(source: Source) -> str:
    """Return what messages call the source; never a connection's address, which may hold a password."""
    if source.file is not None:
        return source.file
    return f"table {source.table} of the database"


def _miswritten(source: Source, base: Path) -> str:
    """Say that a CSV file has not the encoding of the mapping, and which it may have; "" for others."""
    if source.file is None or source.is_parquet:
        return ""
    with (base / source.file).open("rb") as file:
        marked = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    likely = "utf-16" if marked else "latin-1" if source.encoding == "utf-8" else "utf-8"
    return f'is not written in {source.encoding}. Is `encoding` "{likely}" (under [source])?'


def _form(source: Source) -> str:
    if source.file is None:
        return "a database table"
    return "Parquet" if source.is_parquet else f"CSV with {source.delimiter!r} between columns"


def database_errors() -> tuple[type[Exception], ...]:
    """Return what reading raises beside Ibis's own errors and those of the operating system."""
    return (duckdb.Error, sqlite3.Error, pyarrow.lib.ArrowException, TableNotFound)
