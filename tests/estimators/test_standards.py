"""Standard populations: the packaged table against an independent copy, and the merging of groups."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.standards import (
    TITLES,
    AgeGroups,
    StandardPopulation,
    parse_age_groups,
    standard_population,
)

COPY = Path(__file__).parents[2] / "data" / "population" / "standard_populations.csv"
SCHEMES = {
    "segi_1960": "segi1960_18",
    "who_2000": "who2000_18",
    "esp_1976": "esp1976_18",
    "esp_2013": "esp2013_21",
    "us_2000": "us2000_19",
}


@pytest.mark.parametrize("name", sorted(TITLES))
def test_weights_are_the_published_ones(name: str) -> None:
    copy = pd.read_csv(COPY).query("scheme == @SCHEMES[@name]")
    standard = standard_population(name)
    assert standard.groups.labels == tuple(copy.age)
    assert standard.weights == tuple(copy.weight)


def test_the_table_is_part_of_the_package() -> None:
    file = resources.files("mpc_engine.estimators") / "standard_populations.csv"
    assert file.read_text(encoding="utf-8").startswith("standard,age_from,age_to,weight\n")


def test_merging_adds_weights() -> None:
    copy = pd.read_csv(COPY).query("scheme == 'esp2013_18'")
    merged = standard_population("esp_2013").collapse(parse_age_groups(list(copy.age)))
    assert merged.weights == tuple(copy.weight)
    children = standard_population("us_2000").collapse(AgeGroups((0, 5, 15), open_ended=False))
    assert children.weights == (13818 + 55317, 72533 + 73032)
    whole = standard_population("who_2000").collapse(AgeGroups((0,), open_ended=True))
    assert whole.weights == (1_000_000,)


def test_groups_that_cut_through_are_refused() -> None:
    for groups in (
        AgeGroups((0, 1, 5), open_ended=False),
        AgeGroups((0, 90), open_ended=True),
        AgeGroups((0, 7), open_ended=False),
        AgeGroups((0, 85, 90), open_ended=False),
    ):
        with pytest.raises(DocumentError, match="cuts through"):
            standard_population("segi_1960").collapse(groups)
    closed = StandardPopulation("own", "own", AgeGroups((0, 5, 15), open_ended=False), (2, 1))
    with pytest.raises(DocumentError, match="ends below"):
        closed.collapse(AgeGroups((0, 5), open_ended=True))


def test_labels_are_read_and_written() -> None:
    groups = parse_age_groups(["<1", "1–4", "5", "6-9", "10+"])
    assert groups == AgeGroups((0, 1, 5, 6, 10), open_ended=True)
    assert groups.labels == ("<1", "1-4", "5", "6-9", "10+")
    assert list(groups.widths) == [1, 4, 1, 4, np.inf]


@pytest.mark.parametrize(
    "labels", [[], ["0-4", "6-9"], ["0-4", "4-9"], ["5+", "0-4"], ["old"], ["4-0"], ["0-4", "<9"]]
)
def test_bad_labels_are_refused(labels: list[str]) -> None:
    with pytest.raises(DocumentError):
        parse_age_groups(labels)


def test_bad_weights_are_refused() -> None:
    groups = AgeGroups((0, 5, 15), open_ended=False)
    for weights in ((1.0,), (1.0, -1.0), (0.0, 0.0), (1.0, np.nan)):
        with pytest.raises(DocumentError):
            StandardPopulation("own", "own", groups, weights)
    with pytest.raises(DocumentError, match="segi_1960"):
        standard_population("mars_2100")
