"""Made-up records as files: CSV or Parquet, each with a mapping that registers it as it is.

No file that is there already is touched, and what could not be finished is removed.
"""

from __future__ import annotations

import csv
import json
import os
import secrets
from collections.abc import Iterator
from collections.abc import Mapping as Fields
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import IO, Any, Final

import pyarrow
import pyarrow.parquet

from mpc_engine.codebook import CategoryVariable, Codebook, DateVariable
from mpc_engine.documents import parse
from mpc_engine.errors import DocumentError
from mpc_engine.silo.dummy.columns import writable
from mpc_engine.silo.dummy.records import CHUNK, patient_column, record_chunks, source_chunks
from mpc_engine.silo.mapping import Mapping, Source, load_mapping

_SUFFIXES: Final = (".csv", ".parquet")


def new_seed() -> int:
    """Return a random seed, short enough to be copied by hand."""
    return secrets.randbelow(10**9)


def write_records(
    codebook: Codebook, out: Path, rows: int, seed: int, records_per_patient: int = 1, chunk: int = CHUNK
) -> Path:
    """Write made-up records in the codebook's own labels to ``out``; return their mapping's path.

    The suffix, ``.csv`` or ``.parquet``, decides on the format. The mapping lies beside the records, with
    ``.mapping.toml`` in place of the suffix. Raises :class:`~mpc_engine.errors.DocumentError` for numbers out
    of range, another suffix, a file that is there already or one that cannot be written.
    """
    mapped_at = _mapping_path(out)
    fields: dict[str, Any] = {
        "codebook": _relative(Path(codebook.origin), out),
        "patient": patient_column(codebook),
        "one_row_per_patient": records_per_patient == 1,
        "count_bound": max(1 << 24, rows),
        "source": {"file": out.name},
        "variables": {name: _plain_mapping(codebook, name) for name in codebook.mapped},
    }
    parse(fields, Mapping, str(mapped_at)).serve(codebook)
    chunks = record_chunks(codebook, rows, seed, records_per_patient, chunk)
    with _new(out), _new(mapped_at):
        _write(chunks, out, Source(file=out.name), seed)
        mapped_at.write_text(_head(codebook.name, seed) + toml_text(fields), encoding="utf-8")
    return mapped_at


def write_source(
    mapping_path: Path,
    codebook: Codebook | None,
    out: Path,
    rows: int,
    seed: int,
    records_per_patient: int = 1,
    chunk: int = CHUNK,
) -> Path:
    """Write made-up records as the mapping at ``mapping_path`` reads them; return their mapping's path.

    That is a copy of the mapping which names ``out`` as the source; delimiter and encoding stay. ``codebook``
    is in place of the one that the mapping names. Otherwise like :func:`write_records`; raises
    :class:`~mpc_engine.errors.DocumentError` also if mapping and codebook do not fit, or no records do.
    """
    mapping, named = load_mapping(mapping_path)
    codebook = codebook or named
    mapped_at = _mapping_path(out)
    source = Source(file=out.name, delimiter=mapping.source.delimiter, encoding=mapping.source.encoding)
    fields = mapping.model_dump(exclude_defaults=True) | {
        "codebook": _relative(Path(codebook.origin), out),
        "source": source.model_dump(exclude_defaults=True),
    }
    # Choices of texts depend on how the file is written, not on how the silo's own is.
    written = mapping.model_copy(update={"source": source})
    chunks = source_chunks(codebook, written, rows, seed, records_per_patient, chunk)
    for path, column in () if source.is_parquet else written.columns:
        if not writable(column, source.encoding):
            raise DocumentError(
                f"{mapping.origin}: {path}: {column!r} cannot be written as {source.encoding}"
            )
    with _new(out), _new(mapped_at):
        _write(chunks, out, source, seed)
        mapped_at.write_text(_head(codebook.name, seed) + toml_text(fields), encoding="utf-8")
    return mapped_at


def toml_text(fields: Fields[str, Any]) -> str:
    """Return ``fields`` as TOML: a table for each of its tables, and inside one for each table of tables."""
    plain = {key: value for key, value in fields.items() if not isinstance(value, dict)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in fields.items():
        if not isinstance(value, dict):
            continue
        nested = {name: inner for name, inner in value.items() if isinstance(inner, dict)}
        if len(nested) < len(value):
            lines += ["", f"[{_key(key)}]", *_lines(value)]
        else:
            for name, inner in nested.items():
                lines += ["", f"[{_key(key)}.{_key(name)}]", *_lines(inner)]
    return "\n".join(lines) + "\n"


def _lines(fields: Fields[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in fields.items()]


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "").replace("-", "").isalnum() else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, str):
        # JSON's escapes are TOML's, but it leaves some characters as they are that TOML does not allow.
        plain = json.dumps(value, ensure_ascii=False)
        return "".join(char if char.isprintable() else f"\\U{ord(char):08X}" for char in plain)
    if isinstance(value, dict):
        return f"{{ {', '.join(_lines(value))} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, date):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain_mapping(codebook: Codebook, name: str) -> dict[str, Any]:
    """Return the mapping of a column that holds the codebook's own labels, numbers and dates."""
    variable = codebook.mapped[name]
    if isinstance(variable, CategoryVariable):
        return {"column": name, "codes": {label: label for label in codebook.labels(name)}}
    return {"date": {"column": name}} if isinstance(variable, DateVariable) else {"column": name}


def _head(codebook: str, seed: int) -> str:
    return f"# Mapping of made-up records for the codebook {codebook!r}, seed {seed}. They are of nobody.\n"


def _mapping_path(out: Path) -> Path:
    if out.suffix not in _SUFFIXES:
        raise DocumentError(f"{out}: made-up records go to a .csv or a .parquet file")
    return out.with_suffix(".mapping.toml")


def _relative(codebook: Path, out: Path) -> str:
    return Path(os.path.relpath(codebook.resolve(), out.resolve().parent)).as_posix()


@contextmanager
def _new(path: Path) -> Iterator[None]:
    """Claim ``path``, which must not be there, and remove it if the block does not end well."""
    try:
        with path.open("xb"):
            pass
    except FileExistsError:
        raise DocumentError(f"{path}: is there already; made-up records never replace a file") from None
    except OSError as error:
        raise DocumentError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        yield
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DocumentError(f"{path}: cannot be written ({error.strerror})") from None
        raise


def _write(chunks: Iterator[Any], out: Path, source: Source, seed: int) -> None:
    if source.is_parquet:
        first = next(chunks)
        schema = first.schema.with_metadata({"mpc-engine": f"made-up records, seed {seed}"})
        with pyarrow.parquet.ParquetWriter(out, schema) as writer:
            writer.write_table(first.cast(schema))
            for chunk in chunks:
                writer.write_table(chunk.cast(schema))
        return
    with out.open("w", encoding=source.encoding, newline="") as file:
        _write_csv(chunks, file, source.delimiter)


def _write_csv(chunks: Iterator[Any], file: IO[str], delimiter: str) -> None:
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    for index, chunk in enumerate(chunks):
        if not index:
            writer.writerow(chunk.column_names)
        writer.writerows(zip(*(column.to_pylist() for column in chunk.columns), strict=True))
