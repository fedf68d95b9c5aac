"""Made-up records as tables, in chunks, so that memory does not grow with their number."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow

from mpc_engine.codebook import CategoryVariable, Codebook, DateVariable
from mpc_engine.documents import refuse
from mpc_engine.errors import DocumentError
from mpc_engine.silo.coding import OK, code
from mpc_engine.silo.dummy.columns import Columns
from mpc_engine.silo.dummy.numbers import Texts
from mpc_engine.silo.dummy.sheet import MISSING_SHARE, write
from mpc_engine.silo.dummy.values import Flags, Values, draw, is_personal
from mpc_engine.silo.mapping import Mapping
from mpc_engine.silo.source import ROW, engine

MARK: Final = "DUMMY"
"""What patients' ids begin with, and what the column :data:`MARK_COLUMN` holds where there are no ids."""
MARK_COLUMN: Final = "dummy"
CHUNK: Final = 1_000_000
"""Rows that are made at a time."""
MOST_ROWS: Final = 1 << 28
MOST_RECORDS: Final = 1_000
"""Most records of one patient."""
_ROUNDS: Final = 200
_FRUITLESS_ROUNDS: Final = 10
"""Rounds without a single record that fits, after which there is none."""
_FURTHER_ROUNDS: Final = 10
"""Rounds in which something is sought for patients' further records alone; then they repeat the first."""


def dummy_records(codebook: Codebook, rows: int, seed: int, records_per_patient: int = 1) -> Any:
    """Return a :class:`pyarrow.Table` of made-up records in the codebook's own labels.

    It has the patients' ids, as text with ``DUMMY-`` in front, and a column for each mapped variable: text
    for a category, 64-bit integers, dates; unknown is the codebook's label in a category and null
    elsewhere. A patient has from 1 to ``records_per_patient`` records, one after the other, and the same sex
    in all. Equal arguments give equal tables. Raises :class:`~mpc_engine.errors.DocumentError` for numbers
    out of range.
    """
    return pyarrow.concat_tables(record_chunks(codebook, rows, seed, records_per_patient))


def dummy_source(
    codebook: Codebook, mapping: Mapping, rows: int, seed: int, records_per_patient: int = 1
) -> Any:
    """Return a :class:`pyarrow.Table` of made-up records as ``mapping`` reads them: columns of text.

    Every row fits mapping and codebook. Where the mapping names no column of patients, a column ``dummy``
    says that the rows are made up. Otherwise like :func:`dummy_records`; raises
    :class:`~mpc_engine.errors.DocumentError` also if no rows can be found that fit.
    """
    return pyarrow.concat_tables(source_chunks(codebook, mapping, rows, seed, records_per_patient))


def record_chunks(
    codebook: Codebook, rows: int, seed: int, records_per_patient: int = 1, chunk: int = CHUNK
) -> Iterator[Any]:
    """Return the parts of :func:`dummy_records`, of up to ``chunk`` rows each; errors as there, at once."""
    _check_numbers(rows, seed, records_per_patient)
    return _record_chunks(codebook, rows, seed, records_per_patient, chunk)


def coded_chunks(
    codebook: Codebook, rows: int, seed: int, records_per_patient: int = 1, chunk: int = CHUNK
) -> Iterator[tuple[Values, dict[str, Values]]]:
    """Yield the records of :func:`record_chunks` as numbers, with nothing unknown.

    For each part: the number of each row's patient, from 1, and the coded values of each mapped variable.
    Errors as there.
    """
    _check_numbers(rows, seed, records_per_patient)
    for generator, patients in _pieces(rows, seed, records_per_patient, chunk):
        yield patients, _drawn(codebook, generator, patients)


def source_chunks(
    codebook: Codebook,
    mapping: Mapping,
    rows: int,
    seed: int,
    records_per_patient: int = 1,
    chunk: int = CHUNK,
) -> Iterator[Any]:
    """Return the parts of :func:`dummy_source`, of up to ``chunk`` rows each; errors as there."""
    _check_numbers(rows, seed, records_per_patient)
    mapping.serve(codebook)
    if records_per_patient > 1 and mapping.one_row_per_patient:
        raise DocumentError(
            f"{mapping.origin}: says `one_row_per_patient = true`, so --records-per-patient must be 1"
        )
    if rows > mapping.count_bound:
        raise DocumentError(
            f"{mapping.origin}: count_bound is {mapping.count_bound}, less than the {rows} rows asked for"
        )
    names = {column for _, column in mapping.columns}
    if len({name.lower() for name in names}) < len(names):
        raise DocumentError(
            f"{mapping.origin}: names two columns that differ only in upper and lower case, which no source "
            "can have"
        )
    return _source_chunks(codebook, mapping, rows, seed, records_per_patient, chunk)


def patient_column(codebook: Codebook) -> str:
    """Return the name of the column of patients' ids in :func:`dummy_records`; no variable has it."""
    name = "patient_id"
    while name in codebook.variables:
        name += "_"
    return name


def _check_numbers(rows: int, seed: int, records_per_patient: int) -> None:
    if not 1 <= rows <= MOST_ROWS:
        raise DocumentError(f"--rows is {rows}; it must be from 1 to {MOST_ROWS}")
    if seed < 0:
        raise DocumentError(f"--seed is {seed}; it must not be negative")
    if not 1 <= records_per_patient <= MOST_RECORDS:
        raise DocumentError(
            f"--records-per-patient is {records_per_patient}; it must be from 1 to {MOST_RECORDS}"
        )


def _pieces(rows: int, seed: int, most: int, chunk: int) -> Iterator[tuple[np.random.Generator, Values]]:
    """Yield, for each chunk, its generator and the number of each row's patient, from 1."""
    before = 0
    for index, start in enumerate(range(0, rows, chunk)):
        generator = np.random.default_rng([seed, index])
        size = min(chunk, rows - start)
        records = np.ones(size, dtype=np.int64) if most == 1 else _capped(generator, size, most)
        patients = before + 1 + np.repeat(np.arange(size), records)[:size]
        before = int(patients[-1])
        yield generator, patients


def _capped(generator: np.random.Generator, size: int, most: int) -> Values:
    return np.minimum(generator.geometric(0.6, size), most)


def _first_records(patients: Values) -> Values:
    """Return, for each row, the row of its patient's first record."""
    return np.searchsorted(patients, patients)


def _ids(patients: Values) -> Any:
    return pyarrow.array(np.char.add(f"{MARK}-", np.char.zfill(patients.astype(str), 6)))


def _record_chunks(codebook: Codebook, rows: int, seed: int, most: int, chunk: int) -> Iterator[Any]:
    for generator, patients in _pieces(rows, seed, most, chunk):
        columns = {patient_column(codebook): _ids(patients)}
        for name, values in _drawn(codebook, generator, patients).items():
            unknown = generator.random(values.size) < MISSING_SHARE
            columns[name] = _labelled(codebook, name, values, unknown)
        yield pyarrow.table(columns)


def _drawn(codebook: Codebook, generator: np.random.Generator, patients: Values) -> dict[str, Values]:
    """Return values of every mapped variable in the codebook's order, personal ones alike in a patient."""
    first = _first_records(patients)
    values = draw(codebook, patients.size, generator)
    return {name: values[name][first] if is_personal(name) else values[name] for name in codebook.mapped}


def _labelled(codebook: Codebook, name: str, values: Values, unknown: Flags) -> Any:
    variable = codebook.mapped[name]
    if isinstance(variable, CategoryVariable):
        labels = pyarrow.array(codebook.labels(name))
        if variable.unknown is not None:
            values = np.where(unknown, len(labels) - 1, values)
        return labels.take(pyarrow.array(values))
    mask = unknown if variable.missing_is_unknown else None
    if isinstance(variable, DateVariable):
        return pyarrow.array(values.astype(np.int32), mask=mask).cast(pyarrow.date32())
    return pyarrow.array(values, mask=mask)


def _source_chunks(
    codebook: Codebook, mapping: Mapping, rows: int, seed: int, most: int, chunk: int
) -> Iterator[Any]:
    columns = Columns(mapping, codebook)
    order = list(dict.fromkeys(column for _, column in mapping.columns))
    personal = _personal(mapping, order)
    with tempfile.TemporaryDirectory(prefix="mpc-engine-") as scratch, engine(Path(scratch)) as connection:
        reader = _Reader(columns, connection)
        for generator, patients in _pieces(rows, seed, most, chunk):
            ids = {} if mapping.patient is None else {mapping.patient: _ids(patients)}
            texts = _fitting(columns, reader, generator, patients, personal)
            found = {name: ids.get(name, texts.get(name)) for name in order}
            if mapping.patient is None:
                name = MARK_COLUMN
                while name in {column.lower() for column in order}:
                    name += "_"
                found[name] = np.full(patients.size, MARK, dtype=object)
            yield pyarrow.table({name: pyarrow.array(text, pyarrow.string()) for name, text in found.items()})


def _personal(mapping: Mapping, columns: Sequence[str]) -> list[str]:
    """Return the columns that are the same in all records of a patient."""
    named = {mapped.column for name, mapped in mapping.variables.items() if is_personal(name)}
    return [column for column in columns if column in named or is_personal(column)]


def _fitting(
    columns: Columns,
    reader: _Reader,
    generator: np.random.Generator,
    patients: Values,
    personal: Sequence[str],
) -> dict[str, Texts]:
    """Return the texts of rows that all fit mapping and codebook, the patient's column apart.

    What does not fit, such as a birth before the first diagnosis that a codebook allows, is drawn again.
    A further record of a patient for which nothing fits becomes a copy of the first.
    """
    first = _first_records(patients)
    texts: dict[str, Texts] = {}
    waiting = np.arange(patients.size)
    faults: list[str] = []
    further = 0
    for rounds in range(1, _ROUNDS + 1):
        values = draw(columns.codebook, waiting.size, generator, columns.reach, columns.pairs)
        made = write(columns, values, waiting.size, generator)
        if not texts:
            texts = made
        else:
            for name, column in made.items():
                texts[name][waiting] = column
        for name in personal:
            if name in texts:
                texts[name] = texts[name][first]
        fits, faults = reader.fits(texts, waiting)
        bad = np.zeros(patients.size, dtype=np.bool_)
        bad[waiting[~fits]] = True
        # Whoever's first record changes may have another birth date than the others were drawn for.
        bad |= bad[first]
        waiting = np.flatnonzero(bad)
        if not waiting.size:
            return texts
        further += not (first[waiting] == waiting).any()
        if further == _FURTHER_ROUNDS or (rounds == _FRUITLESS_ROUNDS and waiting.size == patients.size):
            break
    if (first[waiting] == waiting).any():
        words = "no values were found that fit both the mapping and the codebook's bounds"
        raise refuse(columns.mapping.origin, [(f"variables.{name}", words) for name in faults])
    for column in texts.values():
        column[waiting] = column[first[waiting]]
    return texts


class _Reader:
    """Reads made-up rows through the mapping, as registering would."""

    def __init__(self, columns: Columns, connection: Any) -> None:
        self._columns, self._connection = columns, connection
        self._statement = ""

    def fits(self, texts: dict[str, Texts], rows: Values) -> tuple[Flags, list[str]]:
        """Return which of ``rows`` can be read whole, and the variables that cannot be in some."""
        fields = {name: pyarrow.array(text[rows], pyarrow.string()) for name, text in texts.items()}
        for _, column in self._columns.mapping.columns:
            fields.setdefault(column, pyarrow.array([""] * rows.size))
        fields[ROW] = pyarrow.array(np.arange(rows.size))
        # Not Ibis's create_table, which cannot have just any name of a column.
        self._connection.con.register("dummy", pyarrow.table(fields))
        found = self._read()
        order = np.argsort(found[ROW].to_numpy())
        fits = np.ones(rows.size, dtype=np.bool_)
        faults = []
        for name in self._columns.codebook.mapped:
            fine = found[name].to_numpy()[order] == OK
            fits &= fine
            faults += [] if fine.all() else [name]
        return fits, faults

    def _read(self) -> Any:
        """Return the states of all variables and the numbers of the rows; in whatever order."""
        if self._statement:
            return self._connection.con.sql(self._statement).to_arrow_table()
        mapping, table = self._columns.mapping, self._connection.table("dummy")
        states = {}
        for name, variable in self._columns.codebook.mapped.items():
            mapped = mapping.variables[name]
            outcome = None if mapped.outcome is None else mapping.outcomes[mapped.outcome]
            states[name] = code(table, name, mapped, variable, outcome, mapping.icdo3).state
        wanted = table.select(table[ROW], **states)
        # The first time through Ibis, which declares the functions; later its SQL is enough.
        found = wanted.to_pyarrow()
        self._statement = str(self._connection.compile(wanted))
        return found
