"""Small made-up studies for the tests of the silo."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mpc_engine.codebook import BandVariable, IntegerVariable
from mpc_engine.silo.mapping import load_mapping
from mpc_engine.silo.register import load_registration, snapshot_path

CODEBOOK = """
name = "made-up"
version = "1"
[variables.sex]
kind = "category"
categories = ["female", "male"]
[variables.stage]
kind = "category"
categories = ["I", "II", "III"]
unknown = "unknown"
[variables.age]
kind = "integer"
unit = "years"
lower = 0
upper = 99
unknown = "unknown"
[variables.age_group]
kind = "band"
of = "age"
cuts = [15, 65]
labels = ["0-14", "15-64", "65+"]
"""

MAPPING = """
codebook = "codebook.toml"
patient = "id"
[source]
file = "rows.csv"
[variables.sex]
column = "sex"
codes = { F = "female", M = "male" }
[variables.stage]
column = "stage"
codes = { 1 = "I", 2 = "II", 3 = "III" }
[variables.age]
column = "age"
"""


def write(folder: Path, rows: pd.DataFrame | str, mapping: str = MAPPING, codebook: str = CODEBOOK) -> Path:
    """Write a study's documents and its rows as CSV into ``folder`` and return the mapping's path."""
    (folder / "codebook.toml").write_text(codebook, encoding="utf-8")
    path = folder / "mapping.toml"
    path.write_text(mapping, encoding="utf-8")
    if isinstance(rows, str):
        (folder / "rows.csv").write_text(rows, encoding="utf-8")
    else:
        rows.to_csv(folder / "rows.csv", index=False)
    return path


def counts(mapping: Path, state: Path, by: str = "stage") -> list[int]:
    """Return how many registered records have each category of ``by``, counted in the snapshot itself."""
    codebook = load_mapping(mapping)[1]
    variable = codebook.variables[by]
    found = [0] * codebook.size(by)
    for value in pd.read_parquet(snapshot_path(load_registration(state)))[codebook.base(by)]:
        if pd.isna(value):
            found[-1] += 1
        elif isinstance(variable, BandVariable):
            found[variable.index(int(value))] += 1
        else:
            found[int(value) - (variable.lower if isinstance(variable, IntegerVariable) else 0)] += 1
    return found
