"""Registering a silo's data: every row is checked, then the coded rows are frozen as a snapshot.

A session reads nothing but the snapshot, so it cannot fail because of a row, nor because source or mapping
have changed since, and what it counts is what was checked. The snapshot holds the codebook's variables as
numbers and a running number for the patient – no identifiers or source codes, and dates only where the
codebook asks for them – in a Parquet file that only its owner may read. Its id is random: a digest of
records is never given to anyone, since small data sets can be guessed from one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import ibis

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.errors import DataError
from mpc_engine.silo.coding import Coded, code, tumour_key
from mpc_engine.silo.dates import epoch_days, parse_date
from mpc_engine.silo.iarc import REPEAT, iarc_primary
from mpc_engine.silo.mapping import Mapping, load_mapping
from mpc_engine.silo.registration import FILE, Registration, load_registration, sha256, snapshot_path
from mpc_engine.silo.report import Report, find_problems
from mpc_engine.silo.source import ROW, file_path, identity, opened, source_name, store
from mpc_engine.silo.store import create, draft, writing
from mpc_engine.silo.texts import identifier, number, text

__all__ = [
    "PATIENT",
    "PRIMARY",
    "RANK",
    "Registration",
    "check",
    "load_registration",
    "register",
    "snapshot_path",
]

PATIENT: Final = "_patient"
"""Column of the snapshot: a number for each patient. No variable's name starts with an underscore."""
RANK: Final = "_rank"
"""Column of the snapshot: the place of a record among its patient's, from 0; the cap keeps the lowest."""
PRIMARY: Final = "_primary"
"""Column of the snapshot where the mapping names ICD-O-3 columns: 1 for the record that stands for a primary
cancer by the rules of IARC and IACR [IARC04], 0 for a further one of the same cancer."""


@dataclass(frozen=True)
class _Rows:
    """Coded rows, still lazy: the source's table, one entry per variable, patient, order and IARC's key."""

    table: Any
    coded: tuple[Coded, ...]
    patient: Any
    order: tuple[Any, ...]
    key: Any | None


def check(mapping: Mapping, codebook: Codebook, base: Path | None = None) -> Report:
    """Check every row of the mapping's source against mapping and codebook; streams, keeps nothing.

    ``base`` is the folder to which the mapping's paths are relative; that of its file by default. The
    report is for this machine only. Raises :class:`~mpc_engine.errors.DataError` if the source cannot be
    read and :class:`~mpc_engine.errors.DocumentError` if mapping and codebook do not fit.
    """
    mapping.serve(codebook)
    with opened(mapping, base or Path(mapping.origin).parent) as table:
        return _report(_code(table, mapping, codebook), mapping, codebook)


def register(
    mapping_path: str | Path,
    state_dir: str | Path,
    warn: Callable[[str], None] = lambda warning: None,
    *,
    refuse_empty: bool = False,
) -> Registration:
    """Check all rows, freeze the coded ones in ``state_dir`` and return the new registration.

    ``warn`` is told what someone should look at although it does not stand in the way; for this machine only.
    With ``refuse_empty`` a source without rows is refused: most likely it is not the one that is meant.

    A registration made there before is replaced once the new one is complete. Raises
    :class:`~mpc_engine.errors.DataError` with the rendered report if any row does not fit, if the folder
    cannot be written or another registration into it is under way, and what :func:`check` raises.
    """
    path, state = Path(mapping_path), Path(state_dir)
    written = sha256(path)
    mapping, codebook = load_mapping(path)
    snapshot_id = os.urandom(16).hex()
    name = f"snapshot-{snapshot_id}.parquet"
    with draft(state) as folder:
        before = identity(mapping, path.parent)
        with opened(mapping, path.parent) as table:
            rows = _code(table, mapping, codebook)
            report = _report(rows, mapping, codebook)
            if report.problems:
                raise DataError(report.render())
            if refuse_empty and not report.rows:
                raise DataError(
                    f"{source_name(mapping.source)}: has no rows, so nothing is registered; if there really "
                    "are none, say so with `--allow-empty`"
                )
            for warning in report.warnings:
                warn(warning)
            store(table.get_backend(), _frozen(rows, mapping), folder / name)
        if identity(mapping, path.parent) != before:
            raise DataError(
                f"{mapping.source.file}: was changed while it was being registered; register again"
            )
        place = file_path(mapping.source, path.parent.resolve())
        registration = parse(
            {
                "snapshot_id": snapshot_id,
                "codebook_digest": codebook.digest(),
                "count_bound": mapping.count_bound,
                "mapping": str(path.resolve()),
                "mapping_digest": mapping.digest(),
                "mapping_sha256": written,
                "source": before,
                "source_file": "" if place is None else str(place),
                "snapshot": name,
                "snapshot_sha256": sha256(folder / name),
                "rows": report.rows,
                "max_records_per_patient": report.max_records_per_patient,
                "has_primaries": rows.key is not None,
                "registered": f"{datetime.now(UTC):%Y-%m-%d}",
            },
            Registration,
        )
        with writing(state):
            with create(folder / FILE) as file:
                file.write((registration.model_dump_json(indent=2) + "\n").encode())
            (folder / name).replace(state / name)
            (folder / FILE).replace(state / FILE)
            for old in state.glob("snapshot-*.parquet"):
                if old.name != name:
                    old.unlink()
    return parse(registration.model_dump(mode="json"), Registration, str(state / FILE))


def _code(table: Any, mapping: Mapping, codebook: Codebook) -> _Rows:
    coded = []
    for name, variable in codebook.mapped.items():
        mapped = mapping.variables[name]
        outcome = None if mapped.outcome is None else mapping.outcomes[mapped.outcome]
        coded.append(code(table, name, mapped, variable, outcome, mapping.icdo3))
    patient = table[ROW].cast("string") if mapping.patient is None else identifier(table, mapping.patient)
    order: tuple[Any, ...] = (table[ROW],)
    if mapping.order_by is not None:
        raw = text(table, mapping.order_by.column)
        if mapping.order_by.formats is None and mapping.order_by.days_since is None:
            key = number(raw)
        else:
            key = epoch_days(parse_date(raw, mapping.order_by)[1])
        order = (key.isnull(), key, table[ROW])
    key = None if mapping.icdo3 is None else tumour_key(table, mapping.icdo3)
    return _Rows(table, tuple(coded), patient, order, key)


def _report(rows: _Rows, mapping: Mapping, codebook: Codebook) -> Report:
    return find_problems(rows.table, rows.coded, rows.patient, mapping, codebook, rows.key)


def _frozen(rows: _Rows, mapping: Mapping) -> Any:
    """Return the coded rows to be stored, ranked within each patient."""
    values = [coded.value.cast("int64").name(coded.variable) for coded in rows.coded]
    if mapping.one_row_per_patient:
        number_of_row = rows.table[ROW].cast("int64")
        places = [number_of_row.name(PATIENT), ibis.literal(0, type="int64").name(RANK)]
        places += [] if rows.key is None else [ibis.literal(1, type="int64").name(PRIMARY)]
        return rows.table.select(*places, *values)
    # A variable's name starts with a letter, hence those of these columns are free.
    keys = [key.name(f"_order_{index}") for index, key in enumerate(rows.order)]
    key = [] if rows.key is None else [rows.key.name("_key")]
    keyed = rows.table.select(rows.patient.name("_id"), *keys, *key, *values)
    if key:
        keyed = iarc_primary(keyed, "_key", "_id", [one.get_name() for one in keys])
        values = [(keyed[REPEAT] == 0).cast("int64").name(PRIMARY), *values]
        keyed = keyed.mutate(values[0])
    within = ibis.window(group_by=keyed["_id"], order_by=[keyed[key.get_name()] for key in keys])
    return keyed.select(
        ibis.dense_rank().over(order_by=keyed["_id"]).cast("int64").name(PATIENT),
        ibis.row_number().over(within).cast("int64").name(RANK),
        *(keyed[value.get_name()] for value in values),
    )
