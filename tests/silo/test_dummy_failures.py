"""Made-up records that cannot be made: what is said, and that nothing is replaced or left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpc_engine.codebook import load_codebook
from mpc_engine.errors import DocumentError
from mpc_engine.silo.dummy import dummy_records, write_records, write_source

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 1), "--rows is 0"),
        ((1 << 40, 1), "--rows"),
        ((5, -1), "--seed is -1"),
        ((5, 1, 0), "--records-per-patient is 0"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: tuple[int, ...], words: str) -> None:
    codebook = load_codebook(ROOT / "scenarios/wilms/codebook.toml")
    with pytest.raises(DocumentError, match=words):
        dummy_records(codebook, *arguments)


def test_no_file_is_ever_replaced_and_none_is_left_behind(tmp_path: Path) -> None:
    codebook = load_codebook(ROOT / "scenarios/wilms/codebook.toml")
    real = tmp_path / "records.csv"
    real.write_text("real\n")
    with pytest.raises(DocumentError, match="never replace"):
        write_records(codebook, real, 5, 1)
    assert real.read_text() == "real\n"
    (tmp_path / "dummy.mapping.toml").write_text("# mine\n")
    with pytest.raises(DocumentError, match=r"dummy\.mapping\.toml: is there already"):
        write_records(codebook, tmp_path / "dummy.csv", 5, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dummy.mapping.toml", "records.csv"]
    with pytest.raises(DocumentError, match="cannot be written"):
        write_records(codebook, tmp_path / "nowhere" / "dummy.csv", 5, 1)
    with pytest.raises(DocumentError, match=r"a \.csv or a \.parquet file"):
        write_records(codebook, tmp_path / "dummy.xlsx", 5, 1)


def test_a_mapping_that_nothing_fits_is_named(tmp_path: Path) -> None:
    (tmp_path / "codebook.toml").write_text(
        'name = "c"\nversion = "1"\n[variables.age]\nkind = "integer"\nunit = "months"\nlower = 1\n'
        'upper = 2\n[variables.stage]\nkind = "category"\ncategories = ["I"]\n'
    )
    # No whole number of years is one or two months.
    (tmp_path / "mapping.toml").write_text(
        'codebook = "codebook.toml"\npatient = "id"\nsource = { file = "a.csv" }\n'
        '[variables.age]\ncolumn = "age"\n'
        '[variables.stage]\ncolumn = "age"\ncodes = { x = "I" }\n'
    )
    with pytest.raises(DocumentError, match="no values were found that fit"):
        write_source(tmp_path / "mapping.toml", None, tmp_path / "dummy.csv", 5, 1)
    assert not (tmp_path / "dummy.csv").exists()


def test_several_records_need_a_mapping_that_allows_them(tmp_path: Path) -> None:
    path = ROOT / "scenarios/wilms/us.mapping.toml"
    with pytest.raises(DocumentError, match="one_row_per_patient"):
        write_source(path, None, tmp_path / "dummy.csv", 5, 1, records_per_patient=2)
