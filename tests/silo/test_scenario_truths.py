"""The scenarios' silo files, mapped, against truths that other software computed of the same patients."""

from __future__ import annotations

import csv
from collections import Counter
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from mpc_engine.codebook import BandVariable, CategoryVariable, DateVariable
from mpc_engine.silo.mapping import load_mapping
from mpc_engine.silo.register import register, snapshot_path

ROOT = Path(__file__).parents[2]
REFERENCES = ROOT / "data" / "references"


def _decoded(scenario: str, silo: str, state: Path) -> list[dict[str, str]]:
    """Return the silo's registered records in the order of its file, values as labels; bands derived."""
    path = ROOT / "scenarios" / scenario / f"{silo}.mapping.toml"
    codebook = load_mapping(path)[1]
    frame = pd.read_parquet(snapshot_path(register(path, state)))
    found: dict[str, list[str]] = {}
    for name, variable in codebook.variables.items():
        values = frame[codebook.base(name)].tolist()
        unknown = codebook.unknown(name) or "?"
        if isinstance(variable, CategoryVariable):
            texts = [unknown if pd.isna(value) else variable.known[int(value)] for value in values]
        elif isinstance(variable, BandVariable):
            texts = [variable.labels[variable.index(int(value))] for value in values]
        elif isinstance(variable, DateVariable):
            texts = [date.fromordinal(date(1970, 1, 1).toordinal() + value).isoformat() for value in values]
        else:
            texts = [str(int(value)) for value in values]
        found[name] = texts
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


def _reference(name: str) -> list[dict[str, str]]:
    with (REFERENCES / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


YES = {"0": "no", "1": "yes"}


def _as_harmonised(row: dict[str, str]) -> dict[str, str]:
    """Return a row of the pooled truth in the codebook's words."""
    return {
        "age": row["age"],
        "menopause": {"0": "premenopausal", "1": "postmenopausal"}[row["meno"]],
        "size": row["size"],
        "grade": row["grade"],
        "nodes": row["nodes"],
        "nodes_group": row["nodecat"],
        "progesterone": row["pgr"],
        "oestrogen": row["er"],
        "hormonal_treatment": YES[row["hormon"]],
        "relapse_or_death": YES[row["e"]],
        "follow_up_days": row["t"],
    }


@pytest.mark.parametrize(("silo", "source", "rows"), [("nl", "NL", 2982), ("de", "DE", 686)])
def test_every_breast_cancer_patient_is_harmonised(silo: str, source: str, rows: int, tmp_path: Path) -> None:
    truth = _reference("breast/truth_harmonised_pooled.csv")
    expected = [_as_harmonised(row) for row in truth if row["src"] == source]
    assert len(expected) == rows
    found = _decoded("breast", silo, tmp_path)
    assert [{name: row[name] for name in expected[0]} for row in found] == expected
    chemotherapy = {row["chemotherapy"] for row in found}
    assert chemotherapy == ({"no", "yes"} if silo == "nl" else {"unknown"})


def test_the_five_hospitals_make_the_published_crosstab(tmp_path: Path) -> None:
    sizes = (2407, 1028, 393, 157, 43)
    found: Counter[tuple[str, ...]] = Counter()
    for number, size in enumerate(sizes):
        rows = _decoded("rare_cells", f"h{number}", tmp_path / str(number))
        assert len(rows) == size
        found.update((row["age_group"], row["stage"], row["histology"], row["study"]) for row in rows)
    stages = dict(zip("1234", ("I", "II", "III", "IV"), strict=True))
    truth = _reference("rare_cells/truth_crosstab_80.csv")
    expected = {
        (row["age_band"], stages[row["stage"]], row["histol"], f"NWTS-{row['study']}"): int(row["n"])
        for row in truth
    }
    assert len(expected) == 80
    assert found == {cell: n for cell, n in expected.items() if n}


def test_two_registries_make_the_published_cases_by_year_and_age(tmp_path: Path) -> None:
    codebook = load_mapping(ROOT / "scenarios" / "incidence" / "a.mapping.toml")[1]
    found: Counter[tuple[str, str]] = Counter()
    for silo, rows in (("a", 139_125), ("b", 138_780)):
        path = ROOT / "scenarios" / "incidence" / f"{silo}.mapping.toml"
        frame = pd.read_parquet(snapshot_path(register(path, tmp_path / silo)))
        assert len(frame) == rows
        for (year, group), count in frame.groupby(["year", "age_group"]).size().items():  # type: ignore[misc]
            found[str(year), codebook.labels("age_group")[group]] += count
    truth = _reference("asr/us_uscs_counts.csv")
    ages = set(codebook.labels("age_group"))
    expected = {(row["Year"], row["Age"]): int(row["Count"]) for row in truth if row["Age"] in ages}
    assert len(expected) == 19 * 5 and found == expected


def _age_on(born: date, day: date) -> int:
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))


def test_colorectal_cancer_survives_all_three_codings(tmp_path: Path) -> None:
    found = {silo: _decoded("colorectal", silo, tmp_path / silo) for silo in "abc"}
    raw = {
        silo: pd.read_csv(ROOT / "data" / "colorectal" / f"silo_{silo.upper()}.csv", dtype=str).to_dict(
            "records"
        )
        for silo in "abc"
    }
    assert {silo: len(rows) for silo, rows in found.items()} == {"a": 2404, "b": 2093, "c": 1474}
    stages = {"7": "3", "9": "unknown", "L": "1", "R": "2", "D": "3", "X": "unknown"}
    for row, was in zip(found["a"], raw["a"], strict=True):
        assert row["diagnosis_date"] == was["diag_date"] and row["follow_up_days"] == was["fu_days"]
        assert row["diagnosis_year"] == was["diag_date"][:4]
        assert row["age"] == str(int(int(was["age_days"]) // 365.25))
        assert (row["sex"][0].upper(), row["site"], row["stage"]) == (
            was["sex"],
            was["site_icd10"],
            was["stage"],
        )
        assert row["vital_status"] == ("dead" if was["dead"] == "1" else "alive")
    for row, was in zip(found["b"], raw["b"], strict=True):
        born, ill, last = (
            date(*(int(part) for part in reversed(was[name].split("/"))))
            for name in ("BIRTH_DATE", "DIAG_DATE", "LAST_DATE")
        )
        assert (row["diagnosis_date"], row["diagnosis_year"]) == (ill.isoformat(), str(ill.year))
        assert row["follow_up_days"] == str((last - ill).days) and row["age"] == str(_age_on(born, ill))
        assert row["vital_status"] == {"D": "dead", "A": "alive"}[was["VITAL"]]
        code = was["SEER_SUMMARY_STAGE"]
        assert row["stage"] == stages.get(code, code) and was["ICDO3_SITE"] == row["site"] + "9"
    for row, was in zip(found["c"], raw["c"], strict=True):
        days = int(was["dx_days_since_1960"])
        assert row["diagnosis_date"] == date.fromordinal(date(1960, 1, 1).toordinal() + days).isoformat()
        assert row["age"] == was["age_yrs"].split(".")[0] and row["stage"] == stages[was["stage_local"]]
        assert row["vital_status"] == {"1": "dead", "2": "alive"}[was["status"]]
        assert row["sex"] == was["gender"] and row["site"] == ("C20" if was["rectum"] == "1" else "C18")
        assert row["follow_up_days"] == was["surv_days"]
    # How many of each stage were still at risk after a year, from the table of relsurv's results.
    truth = {"1": 766, "unknown": 142, "3": 373, "2": 2638}
    pooled = [row for rows in found.values() for row in rows]
    alive = Counter(row["stage"] for row in pooled if int(row["follow_up_days"]) >= 365.241)
    assert alive == truth
