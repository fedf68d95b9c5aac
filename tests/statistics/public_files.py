"""Codebooks with public files, queries from given true counts, and the exact noise of a release."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.dp.accounting import Rule, guarantee_for
from mpc_engine.release.groups import parts_of
from mpc_engine.release.opened import true_groups
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query
from tests.statistics.edge.registries import (
    PRIVACY,
    table,
)


def codebook(folder: Path, text: str, **files: tuple[str, str]) -> Codebook:
    """Return a codebook with the given variables and public files, each of a kind and a text."""
    for name, (kind, content) in files.items():
        (folder / f"{name}.csv").write_text(content, encoding="utf-8")
        stated = hashlib.sha256(content.encode()).hexdigest()
        text += f'\n[files.{name}]\npath = "{name}.csv"\nkind = "{kind}"\nsha256 = "{stated}"\n'
    (folder / "codebook.toml").write_text(f'name = "made-up"\nversion = "1"\n{text}', encoding="utf-8")
    return load_codebook(folder / "codebook.toml")


def ask(book: Codebook, cells: Any, **keys: Any) -> pd.DataFrame:
    """Return the table of true counts, laid out as (strata, ages)."""
    asked = parse_query({"preset": "incidence", "population": "people", "privacy": PRIVACY, **keys})
    cells = np.asarray(cells)
    return table(asked, book, true_groups(asked.layout(book).groups, [cells.sum(axis=-1), cells]))


def probabilities(asked: Query, book: Codebook) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Return for each tally the exact noise: its values, their chances and the stated variance."""
    made = guarantee_for(Fraction(1), parts_of(asked.layout(book).groups), Rule.NOISY, 5)
    found = []
    for each in made.allotments:
        values = np.arange(-each.table.limit, each.table.limit + 1)
        chances = np.array([float(each.table.probability(int(x))) for x in values])
        found.append((values, chances / chances.sum(), float(each.table.variance)))
    return found
