"""How patients are told apart, since the cap on records per patient is worth no more than that."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import ibis
import pandas as pd
import pytest
import studies
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.silo.mapping import load_mapping
from mpc_engine.silo.register import check
from mpc_engine.silo.report import Report
from mpc_engine.silo.texts import identifier


def _report(folder: Path, *ids: str) -> Report:
    rows = "id,sex,stage,age\n" + "".join(f'"{one}",F,1,1\n' for one in ids)
    return check(*load_mapping(studies.write(folder, rows)))


@pytest.mark.parametrize(
    "spellings",
    [
        ("é", "e\u0301"),
        ("A1", "A1\u200b", "\ufeffA1", "A\u00ad1"),
        ("A1", "A1\u00a0", " A1", "\tA1\u3000"),
        ("\uff21\uff11", "A1"),
        ("A 1", "A  1", "A\u00a0 1", "A\t1"),
    ],
)
def test_spellings_of_one_id_are_one_patient(tmp_path: Path, spellings: tuple[str, ...]) -> None:
    report = _report(tmp_path, *spellings, "other")
    assert report.max_records_per_patient == len(spellings)
    assert report.problems == () == report.warnings
    assert f"most records of one patient: {len(spellings)}" in report.render()


@pytest.mark.parametrize("pair", [("a1", "A1"), ("12", "012"), ("12", "12.0")])
def test_ids_that_are_nearly_the_same_are_a_warning(tmp_path: Path, pair: tuple[str, str]) -> None:
    report = _report(tmp_path, *pair, "120", "other")
    assert report.max_records_per_patient == 1 and report.problems == ()
    (warning,) = report.warnings
    assert "column id: 2 ids differ from others only in case, leading zeros or a trailing .0" in warning
    assert all(f'"{one}"' in warning for one in pair)
    assert "warning: column id" in report.render()


@pytest.mark.parametrize("placeholder", ["NA", "null", "000", "Unknown"])
def test_a_placeholder_that_several_rows_share_is_a_problem(tmp_path: Path, placeholder: str) -> None:
    (problem,) = _report(tmp_path, placeholder, placeholder, "A1").problems
    assert (problem.variable, problem.column, problem.code, problem.rows) == ("patient", "id", placeholder, 2)
    assert "is no patient's id" in problem.fault
    assert _report(tmp_path, placeholder, "A1").problems == ()


def test_ids_of_nothing_but_invisible_characters_belong_to_nobody(tmp_path: Path) -> None:
    assert "belong to nobody (2 rows)" in _report(tmp_path, "\u200b", "\u00a0 ", "A1").render()


def test_a_source_without_rows_is_a_warning(tmp_path: Path) -> None:
    report = _report(tmp_path)
    assert report.problems == () and report.warnings == ("the source has no rows; every count will be 0",)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), max_size=12), min_size=1, max_size=20
    )
)
def test_normalisation_ignores_form_and_spaces(ids: list[str]) -> None:
    def normal(texts: list[str]) -> list[str]:
        table = ibis.memtable(pd.DataFrame({"c": texts}, dtype="str"))
        return table.select(identifier(table, "c").name("id")).to_pyarrow()["id"].to_pylist()

    plain = normal(ids)
    for form in ("NFC", "NFD"):
        assert normal([f" {unicodedata.normalize(form, one)}\u200b\u2003" for one in ids]) == plain
    assert all(one == one.strip() and "\u200b" not in one for one in plain)
