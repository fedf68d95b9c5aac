"""`mpc-engine dummy`: made-up records, so that every query is tried on them first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpc_engine.cli.terminal import err, out
from mpc_engine.codebook import load_codebook
from mpc_engine.errors import DocumentError


def dummy(
    codebook: Annotated[Path, typer.Argument(metavar="CODEBOOK", help="The codebook.")],
    rows: Annotated[int, typer.Option(help="Number of records.")],
    seed: Annotated[int | None, typer.Option(help="Repeat the records of this seed.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where they go: a .csv or .parquet file; by default dummy.csv."
        ),
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="Use the columns and codes of the silo with this mapping.")
    ] = None,
    records_per_patient: Annotated[int, typer.Option(help="Most records of one patient.")] = 1,
) -> None:
    """Write made-up records that fit a codebook, and a mapping with which they can be registered.

    Only the codebook and the mapping are read, never any records.
    """
    # Imported here, for the other commands need not load the table libraries.
    from mpc_engine.silo.dummy import new_seed, write_records, write_source

    agreed = load_codebook(codebook)
    file = file or Path("dummy.csv")
    seed = new_seed() if seed is None else seed
    with err.status("making records up"):
        if mapping is None:
            mapped_at = write_records(agreed, file, rows, seed, records_per_patient)
        else:
            from mpc_engine.silo.mapping import load_mapping

            if load_mapping(mapping)[1].digest() != agreed.digest():
                raise DocumentError(f"{mapping}: is for another codebook than {codebook}")
            mapped_at = write_source(mapping, agreed, file, rows, seed, records_per_patient)
    out.print(
        f"{file}: {rows:,} synthetic records, seed {seed}; they are of nobody", markup=False, soft_wrap=True
    )
    out.print(f"{mapped_at}: their mapping", markup=False, soft_wrap=True)
    out.print(f"next: mpc-engine data check --mapping {mapped_at}", markup=False, soft_wrap=True)
