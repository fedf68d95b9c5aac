"""`mpc-engine dummy` from the outside: what it writes and says, and how it fails."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.party.nursery import ROOT

CODEBOOK = ROOT / "data/codebooks/iccc3.toml"
MAPPING = ROOT / "data/codebooks/icdo3.mapping.toml"


def test_records_are_registered_at_once(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "dummy.parquet"
    made = run("dummy", CODEBOOK, "--rows", 50, "--out", out)
    assert made.status == 0, made.err
    assert "50 synthetic records" in made.out
    assert re.search(r"seed [0-9]+;", made.out)
    mapping = tmp_path / "dummy.mapping.toml"
    assert run("data", "check", "--mapping", mapping).status == 0
    assert run("data", "register", "--mapping", mapping, "--state", tmp_path / "state").status == 0


def test_the_printed_seed_makes_the_same_records(run: Run, tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    first = run("dummy", CODEBOOK, "--rows", 50, "--mapping", MAPPING, "--out", one)
    seed = re.search(r"seed ([0-9]+);", first.out)
    assert seed is not None
    run("dummy", CODEBOOK, "--rows", 50, "--mapping", MAPPING, "--out", two, "--seed", seed[1])
    assert one.read_bytes() == two.read_bytes()
    assert one.read_text().count("DUMMY-") == 50


def test_without_a_file_they_go_to_the_working_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("dummy", CODEBOOK, "--rows", 5, "--seed", 1).status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dummy.csv", "dummy.mapping.toml"]
    run("dummy", CODEBOOK, "--rows", 5, "--seed", 1).failed_with(2, "dummy.csv", "never replace a file")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "0"], "--rows is 0; it must be from 1"),
        (["--rows", "5", "--seed", "-1"], "--seed is -1"),
        (
            ["--rows", "5", "--out", "dummy.xlsx"],
            "dummy.xlsx: made-up records go to a .csv or a .parquet file",
        ),
        (["--rows", "5", "--out", "no/such/dummy.csv"], "cannot be written"),
        (
            ["--rows", "5", "--mapping", str(ROOT / "scenarios/wilms/us.mapping.toml")],
            "is for another codebook",
        ),
    ],
)
def test_failures_say_what_to_change(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run("dummy", CODEBOOK, *arguments).failed_with(2, words)
    assert list(tmp_path.iterdir()) == []


def test_a_codebook_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    run("dummy", tmp_path / "none.toml", "--rows", 5, "--out", tmp_path / "a.csv").failed_with(2, "none.toml")
