"""Small made-up studies for the tests of the silo."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

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
