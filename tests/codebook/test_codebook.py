"""What a codebook says beyond categories and numbers: dates, reserved names and public files."""

from __future__ import annotations

import hashlib
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.codebook import EPOCH, RESERVED, Codebook, day, load_codebook
from mpc_engine.documents import parse
from mpc_engine.errors import DocumentError

SEX = {"kind": "category", "categories": ["female", "male"]}
DATE = {"kind": "date", "lower": "1970-01-01", "upper": "2025-12-31", "unknown": "unknown"}
TABLE = "age,hazard\n0,0.1\n"


def _book(**variables: Any) -> dict[str, Any]:
    return {"name": "made-up", "version": "1", "variables": {"sex": SEX} | variables}


def _parse(**variables: Any) -> Codebook:
    return parse(_book(**variables), Codebook)


@given(st.dates())
def test_a_day_is_coded_as_days_since_the_epoch(value: date) -> None:
    assert day(value.isoformat()) == day(value) == (value - date(1970, 1, 1)).days
    assert date.fromordinal(EPOCH.toordinal() + day(value)) == value


@pytest.mark.parametrize(
    "text", ["", "2000-02-30", "2020-W01-1", "20200101", "2000-1-01", "2000-01-01T00", "200\u0660-01-01"]
)
def test_what_is_no_day(text: str) -> None:
    with pytest.raises(ValueError, match="must be a date such as 1960-01-01"):
        day(text)


def test_a_date_is_for_filters_only() -> None:
    book = _parse(diagnosis=DATE)
    assert not book.countable("diagnosis") and book.countable("sex")
    for ask in (book.labels, book.size):
        with pytest.raises(DocumentError, match=r"variables\.diagnosis: is a date, which has no categories"):
            ask("diagnosis")
    assert book.bounds("diagnosis") == (0, day("2025-12-31")) and book.bounds("sex") is None
    assert book.coded("diagnosis", "1970-01-31") == 30
    assert book.unknown("diagnosis") == "unknown" and list(book.mapped) == ["sex", "diagnosis"]
    for bad in ("1969-12-31", "2026-01-01", "31/12/2025", 30):
        assert book.coded("diagnosis", bad) is None
    numbers = _parse(age={"kind": "integer", "unit": "years", "lower": 0, "upper": 99})
    assert [numbers.coded("age", value) for value in (0, 99, 100, -1, "5", "1970-01-01")] == [
        0,
        99,
        *[None] * 4,
    ]
    assert numbers.coded("sex", 0) is None


def test_dates_written_as_text_or_as_toml_dates_are_the_same() -> None:
    native = DATE | {"lower": date(1970, 1, 1), "upper": date(2025, 12, 31)}
    assert _parse(diagnosis=DATE).digest() == _parse(diagnosis=native).digest()
    assert _parse(diagnosis=DATE).digest() != _parse(diagnosis=DATE | {"upper": "2025-12-30"}).digest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lower": "2026-01-01"}, r"variables\.diagnosis\.lower: is 2026-01-01, after `upper` = 2025-12-31"),
        ({"lower": "1/1/1970"}, r"variables\.diagnosis\.lower: must be a date such as 1960-01-01"),
        ({"lower": 0}, r"variables\.diagnosis\.lower: must be a date such as 1960-01-01"),
        ({"lower": datetime(1970, 1, 1)}, r"variables\.diagnosis\.lower: must be a date"),
        ({"unit": "days"}, r"variables\.diagnosis\.unit: is not a key known here"),
        ({"unknown": "1900-01-01"}, r"variables\.diagnosis\.unknown: is the label of the unknown category"),
        ({"missing": "unknown", "unknown": None}, r"variables\.diagnosis\.missing"),
    ],
)
def test_what_a_date_may_not_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        _parse(diagnosis=DATE | change)


def test_a_band_is_of_a_whole_number_not_of_a_date() -> None:
    band = {"kind": "band", "of": "diagnosis", "cuts": [1], "labels": ["a", "b"]}
    with pytest.raises(DocumentError, match="must name an integer variable"):
        _parse(diagnosis=DATE, period=band)


@pytest.mark.parametrize("name", RESERVED)
def test_columns_of_a_release_are_no_variables(name: str) -> None:
    with pytest.raises(DocumentError, match=rf"variables\.{name}: is the name of a column of every release"):
        _parse(**{name: SEX})


def test_the_reserved_names_are_those_of_the_tables() -> None:
    names = "value flag group tally preset statistic time n_shown display lcl ucl se_sampling se_noise"
    assert {*names.split(), "ci_method", "standard", "note"} <= set(RESERVED)


def _written(folder: Path, content: bytes = TABLE.encode(), sha256: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.csv").write_bytes(content)
    path = folder / "codebook.toml"
    path.write_text(
        f"""
        name = "made-up"
        version = "1"
        [variables.sex]
        kind = "category"
        categories = ["female", "male"]
        [files.rates]
        path = "table.csv"
        kind = "life-table"
        sha256 = "{sha256 or hashlib.sha256(content).hexdigest()}"
        """
    )
    return path


def test_a_public_file_is_read_from_beside_the_codebook(tmp_path: Path) -> None:
    book = load_codebook(_written(tmp_path))
    assert book.file("rates") == tmp_path / "table.csv"
    assert book.read("rates") == TABLE
    assert book.files["rates"].kind == "life-table"
    with pytest.raises(DocumentError, match=r"files\.rate: is not in the codebook; it has: rates"):
        book.read("rate")


def test_the_digest_covers_a_files_content_and_not_its_place(tmp_path: Path) -> None:
    here, there = load_codebook(_written(tmp_path)), load_codebook(_written(tmp_path / "there"))
    assert here.digest() == there.digest()
    moved = (tmp_path / "codebook.toml").read_text().replace('"table.csv"', '"moved.csv"')
    (tmp_path / "table.csv").rename(tmp_path / "moved.csv")
    (tmp_path / "codebook.toml").write_text(moved)
    assert load_codebook(tmp_path / "codebook.toml").digest() == here.digest()
    other = load_codebook(_written(tmp_path / "other", TABLE.encode() + b"1,0.2\n"))
    assert other.digest() != here.digest()
    (tmp_path / "codebook.toml").write_text(moved.replace("life-table", "population"))
    assert load_codebook(tmp_path / "codebook.toml").digest() != here.digest()


def test_without_files_the_digest_is_as_before_there_were_any() -> None:
    # Fixed, so that registrations and plans of an unchanged codebook stay valid.
    expected = "9c332eee3041b0650ec7f5e6fa67c3ee1f23151131d663f8926fc4eb9ee0eb5b"
    assert _parse().digest() == expected


def test_an_altered_or_missing_file_is_refused_with_its_hash(tmp_path: Path) -> None:
    found = hashlib.sha256(TABLE.encode()).hexdigest()
    path = _written(tmp_path, sha256="0" * 64)
    with pytest.raises(DocumentError, match=rf"files\.rates\.sha256: .*table\.csv has the SHA-256 {found}"):
        load_codebook(path)
    (tmp_path / "table.csv").unlink()
    with pytest.raises(DocumentError, match=r"files\.rates\.path: .*table\.csv cannot be read"):
        load_codebook(path)
    with pytest.raises(DocumentError, match=r"files\.rates\.path: .* is not UTF-8 text \(byte 0\)"):
        load_codebook(_written(tmp_path, b"\xff\xfe"))


def test_a_file_altered_after_the_codebook_was_read_is_refused(tmp_path: Path) -> None:
    book = load_codebook(_written(tmp_path))
    (tmp_path / "table.csv").write_text(TABLE + " ")
    with pytest.raises(DocumentError, match="has the SHA-256"):
        book.read("rates")
