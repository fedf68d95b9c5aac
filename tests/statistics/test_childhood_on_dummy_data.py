"""The childhood preset on made-up records in ICD-O-3 codes: from two silos' files to the statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mpc_engine.codebook import load_codebook
from mpc_engine.release.opened import true_groups
from mpc_engine.silo.dummy import write_source
from mpc_engine.silo.icdo3 import GROUPS
from mpc_engine.silo.register import load_registration, register
from mpc_engine.silo.tabulate import tabulate
from mpc_engine.statistics.presets import parse_query
from tests.silo.test_icdo3 import reference

CODEBOOKS = Path(__file__).parents[2] / "data" / "codebooks"
ROWS = 400


@pytest.fixture(scope="module")
def silos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the folders of two registered silos; their files are ``records.csv`` beside."""
    folders = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"silo{seed}")
        mapping = write_source(
            CODEBOOKS / "icdo3.mapping.toml", None, folder / "records.csv", ROWS, seed, records_per_patient=1
        )
        register(mapping, folder / "state")
        folders.append(folder)
    return folders


def test_survival_by_iccc3_group_and_age_from_icdo3_codes(silos: list[Path]) -> None:
    book = load_codebook(CODEBOOKS / "iccc3.toml")
    query = parse_query({"preset": "childhood_survival", "privacy": {"epsilon": "1"}})
    layout = query.layout(book)
    sums = [tabulate(query, book, load_registration(folder / "state")).take() for folder in silos]
    patients, outcomes = (sum(each[line][0] for each in sums) for line in (0, 1))
    groups = patients.reshape(layout.groups[0].guard.grid.shape).sum(axis=1)
    assert groups[:-1].all() and outcomes.sum() == patients.sum() <= 2 * ROWS

    table = pd.DataFrame(query.finish(book, true_groups(layout.groups, [patients, outcomes])).columns())
    found = table[(table.statistic == "survival") & table.time.isin([1, 5, 10])]
    labels = book.labels("iccc3_group")
    assert labels[:-1] == GROUPS
    whole = found[(found.iccc3_group == "(all)") & (found.age_group == "(all)")]
    assert list(whole.time) == [1, 5, 10] and whole.value.is_monotonic_decreasing
    assert set(found.iccc3_group) == {*labels, "(all)"}


def test_groups_are_those_of_the_codes_in_the_file(silos: list[Path]) -> None:
    book = load_codebook(CODEBOOKS / "iccc3.toml")
    query = parse_query({"preset": "crosstab", "by": ["iccc3_group"], "privacy": {"epsilon": "1"}})
    for folder in silos:
        (counts,) = tabulate(query, book, load_registration(folder / "state")).take()
        rows = pd.read_csv(folder / "records.csv", dtype=str, keep_default_na=False)
        codes = zip(rows.topography, rows.morphology, rows.behaviour, strict=True)
        # A subgroup such as VI(a) names its group before the bracket.
        read = [(reference(*each) or "unclassified").split("(")[0] for each in codes]
        expected = [read.count(label) for label in book.labels("iccc3_group")]
        np.testing.assert_array_equal(counts[0], expected)
