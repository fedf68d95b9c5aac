"""The Wilms scenario's files against counts that other software computed of the same patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mpc_engine.silo.mapping import load_mapping
from mpc_engine.silo.register import Registration, check, load_registration, register
from mpc_engine.silo.tabulate import tabulate
from mpc_engine.statistics.presets import load_query, parse_query
from mpc_engine.statistics.query import Query

ROOT = Path(__file__).parents[2]
WILMS = ROOT / "scenarios" / "wilms"
REFERENCES = ROOT / "data" / "references" / "nwtco"
STUDIES = {"uk": 3, "us": 4}
PRIVACY = {"epsilon": "1"}


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Registration]:
    found = {}
    for silo in STUDIES:
        state = tmp_path_factory.mktemp(silo)
        register(WILMS / f"{silo}.mapping.toml", state)
        found[silo] = load_registration(state)
    return found


CODEBOOK = load_mapping(WILMS / "uk.mapping.toml")[1]


def counted(query: Query, silo: Registration) -> np.ndarray:
    """Return a silo's records and patients for a query of one tally."""
    (found,) = tabulate(query, CODEBOOK, silo).take()
    return found


def test_stage_by_histology_is_the_published_truth(registered: dict[str, Registration]) -> None:
    query = load_query(WILMS / "stage_by_histology.toml")
    reference = pd.read_csv(REFERENCES / "crosstab_stage_histol_study.csv")
    total = np.zeros(8, dtype=np.int64)
    for silo, study in STUDIES.items():
        records, patients = counted(query, registered[silo])
        expected = reference[reference["study"] == study].sort_values(["stage", "histol"])["n"]
        assert records.tolist() == expected.tolist()
        assert patients.tolist() == expected.tolist()
        total += records
    assert total.reshape(4, 2).T.tolist() == [[1446, 931, 802, 390], [126, 121, 142, 70]]


def test_age_histogram_is_the_reference(registered: dict[str, Registration]) -> None:
    query = parse_query(
        {
            "preset": "histogram",
            "variable": "age_months",
            "edges": list(range(0, 193, 12)),
            "privacy": PRIVACY,
        }
    )
    reference = pd.read_csv(REFERENCES / "hist_age_12m_study.csv")
    (axis,) = query.layout(CODEBOOK).groups[0].guard.grid.axes
    expected_labels = reference[reference["study"] == 3]["age_months"].replace("[192,Inf)", "≥ 192").tolist()
    assert list(axis.categories) == expected_labels
    for silo, study in STUDIES.items():
        records, _ = counted(query, registered[silo])
        assert records.tolist() == reference[reference["study"] == study]["n"].tolist()


def test_derived_age_bands_are_the_reference(registered: dict[str, Registration]) -> None:
    query = parse_query({"preset": "crosstab", "by": ["age_group", "stage", "histology"], "privacy": PRIVACY})
    reference = pd.read_csv(REFERENCES / "crosstab_ageband_stage_histol_study.csv")
    bands = {"<1y": "<1", "1-4y": "1-4", "5-9y": "5-9", "10-14y": "10-14", "15-19y": "15-19"}
    stages = dict(zip((1, 2, 3, 4), ("I", "II", "III", "IV"), strict=True))
    for silo, study in STUDIES.items():
        records, _ = counted(query, registered[silo])
        of_study = reference[reference["study"] == study]
        expected = {(bands[r.ageband], stages[r.stage], r.histol): r.n for r in of_study.itertuples()}
        labels = query.layout(CODEBOOK).groups[0].guard.grid.labels()
        found = {tuple(label.values()): n for label, n in zip(labels, records.tolist(), strict=True)}
        assert {cell: n for cell, n in found.items() if n} == {cell: n for cell, n in expected.items() if n}


def test_count_with_filters(registered: dict[str, Registration]) -> None:
    where = [{"variable": "age_months", "between": [0, 11]}, {"variable": "stage", "in": ["I"]}]
    query = parse_query({"preset": "count", "where": where, "privacy": PRIVACY})
    reference = pd.read_csv(REFERENCES / "crosstab_ageband_stage_histol_study.csv")
    chosen = reference[
        (reference["ageband"] == "<1y") & (reference["stage"] == 1) & (reference["study"] == 3)
    ]
    assert counted(query, registered["uk"])[0].tolist() == [chosen["n"].sum()]


def test_relapses_and_follow_up_survive_both_codings(registered: dict[str, Registration]) -> None:
    query = parse_query({"preset": "crosstab", "by": ["relapse"], "privacy": PRIVACY})
    assert counted(query, registered["uk"])[0].tolist() == [1575, 282]
    assert counted(query, registered["us"])[0].tolist() == [1882, 289]
    frame = pd.read_csv(ROOT / "data" / "wilms" / "silo_uk_like.csv")
    days = pd.to_datetime(frame["EVENT_OR_LASTSEEN_DATE"], format="%d/%m/%Y") - pd.to_datetime(
        frame["DIAGNOSIS_DATE"]
    )
    query = parse_query(
        {
            "preset": "histogram",
            "variable": "follow_up_days",
            "edges": [0, 365, 1825, 10001],
            "privacy": PRIVACY,
        }
    )
    expected = [
        int(days.dt.days.between(low, high - 1).sum()) for low, high in ((0, 365), (365, 1825), (1825, 10001))
    ]
    assert counted(query, registered["uk"])[0].tolist() == expected


def test_totals_are_the_sums_of_the_true_cells(registered: dict[str, Registration]) -> None:
    query = parse_query(
        {"preset": "crosstab", "by": ["stage", "histology"], "totals": True, "privacy": PRIVACY}
    )
    cells, stages, histologies, total = tabulate(query, CODEBOOK, registered["uk"]).take()
    table = cells[0].reshape(4, 2)
    assert stages[0].tolist() == table.sum(axis=1).tolist()
    assert histologies[0].tolist() == table.sum(axis=0).tolist()
    assert total.tolist() == [[1857], [1857]]


@pytest.mark.parametrize("silo", STUDIES)
def test_every_row_fits(silo: str) -> None:
    report = check(*load_mapping(WILMS / f"{silo}.mapping.toml"))
    assert report.problems == ()
    assert f"{report.rows} rows checked, every one fits" in report.render()
