"""`python -m benchmarks.tabulation`: how fast one silo counts ten million records, on one core.

Made-up childhood tumours are frozen as a snapshot with the columns that registering writes, and three
queries are tabulated as a session does: a crosstab of 101,520 cells, survival of 226,070 (47 subgroups, both
sexes, five age groups, each by month over 20 years) and means by group, sex and year. The process is bound
to one core. Registering the same records from a file is timed too where `--register` asks for it.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from rich.console import Console
from rich.table import Table

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.silo.dummy import coded_chunks, write_records
from mpc_engine.silo.icdo3 import subgroups
from mpc_engine.silo.register import PATIENT, RANK, Registration, register
from mpc_engine.silo.tabulate import tabulate
from mpc_engine.statistics.presets import parse_query

TARGET_SECONDS = 10.0
"""Most that one query may take."""
YEARS = (1976, 2029)


def codebook(origin: Path) -> Codebook:
    """Return a codebook of childhood tumours with 47 subgroups and nothing unknown."""
    fields = {
        "name": "tabulation",
        "version": "1",
        "variables": {
            "subgroup": {"kind": "category", "categories": [name for name in subgroups() if name != "V"]},
            "sex": {"kind": "category", "categories": ["female", "male"]},
            "age_months": {"kind": "integer", "unit": "months", "lower": 0, "upper": 239},
            "age_group": {
                "kind": "band",
                "of": "age_months",
                "cuts": [12, 60, 120, 180],
                "labels": ["<1", "1-4", "5-9", "10-14", "15-19"],
            },
            "diagnosis_year": {"kind": "integer", "unit": "year", "lower": YEARS[0], "upper": YEARS[1]},
            "stage": {"kind": "category", "categories": ["localised", "regional", "distant"]},
            "side": {"kind": "category", "categories": ["left", "right"]},
            "vital_status": {"kind": "category", "categories": ["alive", "dead"]},
            "follow_up_days": {"kind": "integer", "unit": "days", "lower": 0, "upper": 18262},
        },
    }
    return parse(fields, Codebook, str(origin))


QUERIES: dict[str, dict[str, Any]] = {
    "crosstab": {
        "preset": "crosstab",
        "by": ["subgroup", "sex", "age_group", "diagnosis_year", "side", "vital_status"],
    },
    "survival": {
        "preset": "survival",
        "by": ["subgroup", "sex", "age_group"],
        "time": "follow_up_days",
        "event": {"variable": "vital_status", "in": ["dead"]},
        "grid": {"unit": "months", "every": 1, "until": 240},
    },
    "mean": {
        "preset": "mean",
        "variable": "age_months",
        "variance": True,
        "by": ["subgroup", "sex", "diagnosis_year"],
    },
}


def freeze(book: Codebook, rows: int, seed: int, records: int, folder: Path) -> Registration:
    """Write a snapshot as registering does, straight from made-up coded values."""
    path = folder / "snapshot.parquet"
    schema = pyarrow.schema([(name, pyarrow.int64()) for name in (PATIENT, RANK, *book.mapped)])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for patients, values in coded_chunks(book, rows, seed, records):
            rank = np.arange(patients.size) - np.searchsorted(patients, patients)
            writer.write_table(pyarrow.table({PATIENT: patients, RANK: rank, **values}, schema))
    fields = {
        "snapshot_id": "0" * 32,
        "codebook_digest": book.digest(),
        "count_bound": 1 << 28,
        "mapping": "",
        "mapping_digest": "",
        "source": None,
        "snapshot": path.name,
        "snapshot_sha256": "",
        "rows": rows,
        "max_records_per_patient": records,
    }
    return parse(fields, Registration, str(folder / "registration.json"))


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what ``work`` returns, and the seconds it took by the clock and on the processor."""
    clock, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - clock, time.process_time() - cpu


def measured(
    rows: int, seed: int, records: int, register_too: bool
) -> Iterator[tuple[str, int, float, float]]:
    """Yield what was done, its cells, and its seconds by the clock and on the processor."""
    with tempfile.TemporaryDirectory(prefix="mpc-engine-") as name:
        folder = Path(name)
        book = codebook(folder / "codebook.json")
        registered, clock, cpu = timed(lambda: freeze(book, rows, seed, records, folder))
        yield "make up and freeze", 0, clock, cpu
        for label, fields in QUERIES.items():
            query = parse_query(fields | {"privacy": {"epsilon": "1", "max_records_per_patient": 1}})
            cells, clock, cpu = timed(partial(tabulate, query, book, registered))
            yield label, sum(tally.shape[-1] for tally in cells.take()), clock, cpu
        if register_too:
            Path(book.origin).write_text(book.model_dump_json(), encoding="utf-8")
            out = folder / "records.parquet"
            mapping, clock, cpu = timed(lambda: write_records(book, out, rows, seed, records))
            yield "write records", 0, clock, cpu
            _, clock, cpu = timed(lambda: register(mapping, folder / "state"))
            yield "register", 0, clock, cpu


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 if a query took longer than the target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tabulation", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the made-up records (%(default)s)")
    parser.add_argument("--records-per-patient", type=int, default=1, metavar="N", help="(%(default)s)")
    parser.add_argument("--register", action="store_true", help="time registering as well; takes minutes")
    chosen = parser.parse_args(arguments)
    # DuckDB makes a thread for each core of the machine all the same; here they share one.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    table = Table(title=f"{chosen.rows:,} records, one core")
    for column in ("", "cells", "seconds", "CPU seconds"):
        table.add_column(column, justify="left" if not column else "right")
    slow = False
    for label, cells, clock, cpu in measured(
        chosen.rows, chosen.seed, chosen.records_per_patient, chosen.register
    ):
        table.add_row(label, f"{cells:,}" if cells else "", f"{clock:.2f}", f"{cpu:.2f}")
        slow |= label in QUERIES and cpu > TARGET_SECONDS
    console = Console(highlight=False)
    console.print(table)
    console.print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")
    return int(slow)


if __name__ == "__main__":
    raise SystemExit(main())
