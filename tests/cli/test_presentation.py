"""What a person sees of a release: on a terminal of any width, in files, and once more when it is stored."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mpc_engine.cli import presentation, tables, terminal
from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.errors import DocumentError, PublicationError
from mpc_engine.result import Result
from tests.cli.conftest import Run
from tests.party.nursery import environment
from tests.result.documents import BOOK, CODEBOOK, CROSSTAB, HISTOGRAM, MEAN, SURVIVAL, document

LABELS = [f"[category {column}]" for column in range(12)]
WIDE = parse(
    {
        "name": "wide",
        "version": "1",
        "variables": {
            "row": {"kind": "category", "categories": ["a", "b", "c"]},
            "column": {"kind": "category", "categories": LABELS},
        },
    },
    Codebook,
)
WIDE_QUERY = {"preset": "crosstab", "by": ["row", "column"], "title": "A [bold]wide[/bold] table"}


def shown(made: Result, width: int, monkeypatch: pytest.MonkeyPatch, layout: str | None = None) -> str:
    """Return a result as a terminal of a width shows it."""
    text = io.StringIO()
    console = Console(file=text, width=width, highlight=False)
    monkeypatch.setattr(terminal, "out", console)
    monkeypatch.setattr(tables, "out", console)
    presentation.show(made, layout)
    return text.getvalue()


def flowing(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A folder with release.json of survival and codebook.json beside it."""
    (tmp_path / "release.json").write_text(json.dumps(document(SURVIVAL, cases=200, hide=[1])))
    (tmp_path / "codebook.json").write_text(json.dumps(BOOK))
    return tmp_path


# --- on a terminal ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120, 400])
def test_tables_are_legible_at_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    release = document(WIDE_QUERY, hide=range(24, 36), codebook=WIDE)
    text = shown(Result(release, WIDE), width, monkeypatch)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)
    assert lines[0] == "A [bold]wide[/bold] table"
    assert text.count("[c]") == 12 + 2  # twelve cells, the notation and the explanation
    assert "12 of 36 cells are hidden, marked [c]" in flowing(text)
    for label in LABELS:
        assert label in text
    crosstab = "column [category 0]" in text
    assert crosstab == (width == 400)  # where it does not fit, one line for each cell
    assert "…" not in text


@pytest.mark.parametrize("layout", ["life-table", "summary", None])
def test_survival_fits_eighty_columns(layout: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Result(document(SURVIVAL, cases=300), CODEBOOK)
    text = shown(made, 80, monkeypatch, layout)
    assert max(map(len, text.splitlines())) <= 80
    if layout == "life-table":
        for row in made.life_table().itertuples(index=False):
            assert f"{row[-1]}\n" in text, "an interval is on the line of its row"
    else:
        assert "10 years" in text


@pytest.mark.parametrize("width", [40, 56, 64, 80])
def test_numbers_are_never_broken(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    query = {**SURVIVAL, "by": ["stage", "sex"], "conditional_on": [1]}
    made = Result(document(query, cases=40_000), CODEBOOK)
    text = shown(made, width, monkeypatch)
    assert max(map(len, text.splitlines())) <= width
    table = made.table[(made.table["statistic"] == "survival") & made.table["time"].isin((1, 3, 5, 10))]
    for low, high in zip(table["lcl"] * 100, table["ucl"] * 100, strict=True):
        assert f"({low:.1f}–{high:.1f})" in text


def test_warnings_of_headlines_are_printed_beneath_their_table(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Result(document(SURVIVAL, cases=300), CODEBOOK)
    rows = (made.table["statistic"] == "survival") & (made.table["time"] == 5)
    made.table.loc[rows, "note"] = "too high: made up"
    text = flowing(shown(made, 120, monkeypatch))
    assert "(1) at 5 years too high: made up" in text.partition("Further statistics")[0]
    assert "values of survival are noted as too high: made up" in text


def test_the_package_is_a_command() -> None:
    command = [sys.executable, "-m", "mpc_engine", "--help"]
    made = subprocess.run(command, capture_output=True, env=environment(), check=True)
    assert b"mpc-engine" in made.stdout


def test_what_a_release_promises_follows_its_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = Result(
        document({**CROSSTAB, "privacy": {"rule": "strict", "delta": "1e-6"}}, cases=300), CODEBOOK
    )
    text = flowing(shown(strict, 80, monkeypatch))
    for line in strict.release["promise"]:
        assert line in text
    assert "Parties: uk (silo and computing party), us (silo and computing party), helper (helper)." in text
    exact = Result(document({**CROSSTAB, "totals": False, "privacy": {"rule": "exact"}}, cases=300), CODEBOOK)
    words = "statistical disclosure control, not differential privacy"
    assert words in flowing(shown(exact, 80, monkeypatch))


def test_a_long_table_says_where_the_rest_is(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Result(document({"preset": "crosstab", "by": ["age"]}), CODEBOOK)
    text = shown(made, 80, monkeypatch)
    assert "The first 60 of 101 rows; table.csv, which --out DIR writes, has all of them." in text


def test_notes_are_numbered_beneath(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(Result(document(SURVIVAL, hide=[1]), CODEBOOK), 80, monkeypatch)
    assert "\n(1) years, " in text and "\n(2) years, " in text
    assert "\nyears\n" in shown(Result(document(MEAN, cases=300), CODEBOOK), 80, monkeypatch)


# --- a release just made ------------------------------------------------------------------------------


def test_presentation_is_written_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = document(HISTOGRAM)
    capsys.readouterr()
    presentation.present(release, CODEBOOK, tmp_path, as_json=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("table.csv", "result.json", "plot.png", "explanation.txt"),
    }
    assert json.loads(capsys.readouterr().out) == release


@pytest.mark.parametrize("as_json", [False, True])
def test_a_release_that_cannot_be_presented_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    def broken(*_: Any) -> Result:
        raise DocumentError("something is wrong")

    monkeypatch.setattr(presentation, "read", broken)
    release = document(HISTOGRAM)
    capsys.readouterr()
    if as_json:
        presentation.present(release, CODEBOOK, None, as_json)  # nothing to present
    else:
        with pytest.raises(PublicationError, match="the release was made, but not presented: something"):
            presentation.present(release, CODEBOOK, None, as_json)
    assert json.loads(capsys.readouterr().out) == release
    with pytest.raises(PublicationError):
        presentation.present(release, CODEBOOK, tmp_path, as_json)
    assert not list(tmp_path.iterdir())


def test_a_picture_that_fails_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise DocumentError("no picture")

    monkeypatch.setattr("mpc_engine.result.pictures.draw", broken)
    with pytest.raises(PublicationError, match="no picture"):
        presentation.present(document(HISTOGRAM), CODEBOOK, tmp_path, as_json=False)
    assert not list(tmp_path.iterdir())


# --- mpc-engine result --------------------------------------------------------------------------------


def test_a_stored_release_is_shown_again(run: Run, stored: Path) -> None:
    book = ("--codebook", stored / "codebook.json")
    made = Result.load(stored, CODEBOOK)
    text = run("result", stored, *book)
    assert text.status == 0 and text.out.startswith("Survival by stage\n")
    assert flowing(made.explain()) in flowing(text.out)
    assert run("result", stored / "release.json", *book, "--csv").out == made.to_csv()
    assert json.loads(run("result", stored, *book, "--json").out) == json.loads(made.to_json())
    assert "Alive" in run("result", stored, *book, "--layout", "life-table").out
    drawn = run("result", stored, *book, "--plot", stored / "curve.svg")
    assert "curve.svg" in drawn.out and (stored / "curve.svg").read_text().startswith("<?xml")


def test_a_result_that_cannot_be_shown(run: Run, stored: Path) -> None:
    book = ("--codebook", stored / "codebook.json")
    run("result", stored / "nowhere", *book).failed_with(2, "nowhere: cannot be read")
    run("result", stored, *book, "--layout", "crosstab").failed_with(
        2, "no count to cross-tabulate; it has the layouts life-table, summary, estimates"
    )
    run("result", stored, *book, "--csv", "--json").failed_with(2, "exclude each other")
    run("result", stored, *book, "--plot", stored / "plot.doc").failed_with(2, "a picture is a")
    (stored / "codebook.json").write_text(json.dumps({**BOOK, "version": "2"}))
    run("result", stored, *book).failed_with(5, "release.json: codebook: the release was made with the one")
