"""ICD-O-3 columns in a mapping: childhood groups as categories, and which records stand for a primary."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import studies

from mpc_engine.errors import DataError, DocumentError
from mpc_engine.silo.mapping import load_mapping
from mpc_engine.silo.register import check, load_registration, register, snapshot_path

CODEBOOK = """
name = "made-up"
version = "1"
[variables.cancer]
kind = "category"
categories = ["I", "II", "III", "IV", "V", "VI"]
"""

MAPPING = """
codebook = "codebook.toml"
patient = "id"
order_by = { column = "n" }
source = { file = "rows.csv" }
[icdo3]
topography = "site"
morphology = "histology"
behaviour = "behaviour"
[variables.cancer]
iccc3 = "group"
"""

HEAD = "id,n,site,histology,behaviour\n"
KIDNEY = "C64.9,8960,3"  # nephroblastoma: VI
EYE = "C69.2,9510,3"  # retinoblastoma: V
BLOOD = "C42.1,9835,3"  # acute lymphoblastic leukaemia: I
BONE = "C40.2,9180,3"  # osteosarcoma: VIII, which this codebook does not have


def _frame(folder: Path, rows: str, mapping: str = MAPPING, codebook: str = CODEBOOK) -> pd.DataFrame:
    registration = register(studies.write(folder, HEAD + rows, mapping, codebook), folder / "state")
    assert load_registration(folder / "state") == registration
    frame = pd.read_parquet(snapshot_path(registration))
    return frame.sort_values(["_patient", "_rank"], ignore_index=True)


def test_codes_become_childhood_groups(tmp_path: Path) -> None:
    frame = _frame(tmp_path, f"a,1,{KIDNEY}\nb,1,{EYE}\nc,1, c421 ,9835/3,\n")
    assert frame["cancer"].tolist() == [5, 4, 0]


def test_subgroups_may_have_other_names_in_the_codebook(tmp_path: Path) -> None:
    codebook = CODEBOOK.replace('["I", "II", "III", "IV", "V", "VI"]', '["Wilms", "eye"]')
    codebook += 'unknown = "other"\n'
    codes = 'iccc3 = "subgroup"\ncodes = { "VI(a)" = "Wilms", V = "eye" }'
    mapping = MAPPING.replace('iccc3 = "group"', codes)
    frame = _frame(tmp_path, f"a,1,{EYE}\nb,1,{KIDNEY}\nc,1,{BONE}\nd,1,,8960,3\n", mapping, codebook)
    assert frame["cancer"].tolist()[:2] == [1, 0] and frame["cancer"][2:].isna().all()


def test_what_has_no_group_is_a_fault_or_unknown(tmp_path: Path) -> None:
    rows = f"a,1,{BONE}\nb,1,C64.9,nephro,3\nc,1,,8960,3\nd,1,{KIDNEY}\n"
    with pytest.raises(DataError) as error:
        register(studies.write(tmp_path, HEAD + rows, MAPPING, CODEBOOK), tmp_path / "state")
    text = str(error.value)
    assert 'cancer: column site, histology, behaviour: "C40.2 9180 3" is no ICD-O-3 code, or in no' in text
    assert '"C64.9 nephro 3"' in text and '" 8960 3" is missing' in text
    assert "warning: icdo3: in 2 rows topography or morphology is no code of ICD-O-3" in text
    # With an unknown category a tumour without a group has its place; a text that is no code has none.
    report = check(
        *load_mapping(studies.write(tmp_path, HEAD + rows, MAPPING, CODEBOOK + 'unknown = "other"\n'))
    )
    assert [problem.code for problem in report.problems] == ["C64.9 nephro 3"]


def test_one_record_stands_for_each_primary(tmp_path: Path) -> None:
    # a: the kidney twice, the eye once; b: the kidney, noted later, before; c: one record.
    rows = f"a,2,{KIDNEY}\na,1,{KIDNEY}\na,3,{EYE}\nb,5,{KIDNEY}\nb,4,{BLOOD}\nc,1,{EYE}\n"
    frame = _frame(tmp_path, rows)
    assert frame[["_patient", "_rank", "_primary", "cancer"]].to_numpy().tolist() == [
        [0, 0, 1, 5],
        [0, 1, 0, 5],
        [0, 2, 1, 4],
        [1, 0, 1, 0],
        [1, 1, 1, 5],
        [2, 0, 1, 4],
    ]


@pytest.mark.parametrize("once", ["", "one_row_per_patient = true\n"])
def test_a_registration_says_whether_it_knows_primaries(tmp_path: Path, once: str) -> None:
    rows = f"a,1,{KIDNEY}\nb,1,{EYE}\n"
    assert _frame(tmp_path, rows, once + MAPPING)["_primary"].tolist() == [1, 1]
    assert load_registration(tmp_path / "state").has_primaries
    columns = '[icdo3]\ntopography = "site"\nmorphology = "histology"\nbehaviour = "behaviour"\n'
    plain = MAPPING.replace(columns, "").replace('iccc3 = "group"', 'constant = "I"')
    assert "_primary" not in _frame(tmp_path, rows, once + plain)
    assert not load_registration(tmp_path / "state").has_primaries


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ("[icdo3]", "[notes]", r"notes: is not a key known here"),
        (
            'iccc3 = "group"',
            'iccc3 = "main"',
            r"cancer\.iccc3: must be one of 'group'",
        ),
        ('iccc3 = "group"', 'iccc3 = "group"\ncolumn = "c"', r"cancer: needs exactly one of"),
        ('"histology"', '"morph"', r"icdo3\.morphology: there is no column 'morph'"),
        ('topography = "site"\n', "", r"icdo3\.topography: is required"),
    ],
)
def test_what_is_refused(tmp_path: Path, was: str, now: str, message: str) -> None:
    path = studies.write(tmp_path, HEAD, MAPPING.replace(was, now), CODEBOOK)
    with pytest.raises(DocumentError, match=message):
        register(path, tmp_path / "state")


def test_a_scheme_needs_the_columns(tmp_path: Path) -> None:
    mapping = MAPPING[: MAPPING.index("[icdo3]")] + MAPPING[MAPPING.index("[variables") :]
    with pytest.raises(DocumentError, match=r"icdo3: is required for variables\.cancer"):
        load_mapping(studies.write(tmp_path, HEAD, mapping, CODEBOOK))
