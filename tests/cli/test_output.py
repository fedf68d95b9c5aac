"""What a release looks like: document, table and progress; and the catalogue of failures."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mpc_engine.cli import terminal
from mpc_engine.cli.catalogue import document, failures
from mpc_engine.dp import Rule
from mpc_engine.errors import EngineError, catalogue
from tests.party.machines import ROOT, Command, engine, environment
from tests.world import release

DIGEST = re.compile(r"[0-9a-f]{64}")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Command, Path]:
    """The demo as `make demo` runs it, but as JSON."""
    folder = tmp_path_factory.mktemp("demo")
    scenario = str(ROOT / "scenarios/wilms.toml")
    command = engine(folder, "simulate", scenario, "--json", "--out", "wilms")
    assert command.process.returncode == 0, command.err
    return command, folder / "wilms"


def test_json_is_all_there_is_on_standard_output(demo: tuple[Command, Path]) -> None:
    command, folder = demo
    assert json.loads(command.out) == json.loads((folder / "release.json").read_text())
    said, phases = command.err.splitlines(), [f"… {words}" for words in terminal.PHASES.values()]
    assert said == [phase for phase in phases if phase in said]  # nothing else, and in this order
    assert said[-1] == "… done"


def test_the_release_document_is_whole(demo: tuple[Command, Path]) -> None:
    fields = json.loads(demo[0].out)
    assert list(fields) == [
        *("format", "query", "parameters", "parties", "digests", "session", "openings", "promise", "cells"),
    ]
    assert fields["query"]["by"] == ["stage", "histology"]
    parameters = fields["parameters"]
    assert (parameters["rule"], parameters["k"], parameters["epsilon"]) == ("noisy", 5, "1")
    assert parameters["unit"].startswith("one patient at one silo")
    assert parameters["truncation_delta_log2"] == -93
    assert [(party["name"], party["role"]) for party in fields["parties"]] == [
        ("uk", "silo and computing party"),
        ("us", "silo and computing party"),
        ("helper", "helper"),
    ]
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", party["fingerprint"]) for party in fields["parties"])
    assert {"query", "codebook", "roster", "privacy", "plan"} <= set(fields["digests"])
    assert all(DIGEST.fullmatch(digest) for digest in fields["digests"].values())
    assert len(fields["cells"]) == 8
    for cell in fields["cells"]:
        assert list(cell) == ["stage", "histology", "value", "flag"]
        assert (type(cell["value"]) is int) == (cell["flag"] == "ok")
        assert cell["flag"] in ("ok", "c")


def test_the_files_agree(demo: tuple[Command, Path]) -> None:
    _, folder = demo
    fields = json.loads((folder / "release.json").read_text())
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert [{**row, "value": int(row["value"]) if row["value"] else None} for row in rows] == fields["cells"]
    assert json.loads((folder / "openings.json").read_text()) == fields["openings"]
    assert {path.name for path in folder.iterdir()} == {"release.json", "table.csv", "openings.json"}


# --- the table on a terminal --------------------------------------------------------------------------


def shown(fields: dict, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a release as a terminal of a width shows it."""
    text = io.StringIO()
    monkeypatch.setattr(terminal, "out", Console(file=text, width=width, highlight=False))
    terminal.show_release(fields, None)
    return text.getvalue()


@pytest.fixture
def wide() -> dict:
    """A release of 3 × 12 cells with long labels; the last row is suppressed."""
    counts = np.repeat([1_000, 50, 0], 12)
    fields = release([counts, counts, None], rule=Rule.STRICT).releases[0].as_fields()
    labels = [(row, f"[category {column}]") for row in "abc" for column in range(12)]
    fields["query"] = {"preset": "crosstab", "title": "A [bold]wide[/bold] table"}
    fields["cells"] = [
        {"row": row, "column": column, "value": cell["value"], "flag": cell["flag"]}
        for (row, column), cell in zip(labels, fields["cells"], strict=True)
    ]
    return fields


@pytest.mark.parametrize("width", [80, 120, 400])
def test_tables_are_legible_at_any_width(wide: dict, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(wide, width, monkeypatch)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0] == "A [bold]wide[/bold] table"
    assert text.count("[c]") == 12 + 1  # twelve cells and the legend
    assert "12 of 36 cells suppressed, marked [c]" in " ".join(text.split())
    for column in range(12):
        assert f"[category {column}]" in text
    crosstab = "column [category 0]" in text
    assert crosstab == (width == 400)  # where it does not fit, one line for each cell
    assert "…" not in text


def test_strict_prints_its_delta_and_exact_what_it_is_not(
    monkeypatch: pytest.MonkeyPatch, wide: dict
) -> None:
    assert "delta <= 0.000001 + 2^-93" in " ".join(shown(wide, 80, monkeypatch).split())
    counts = np.array([3, 50])
    fields = release([counts, counts, None], rule=Rule.EXACT).releases[0].as_fields()
    fields["query"] = {"preset": "crosstab"}
    words = "statistical disclosure control, not differential privacy"
    assert words in " ".join(shown(fields, 80, monkeypatch).split())
    assert words in json.dumps(fields)


def test_filters_are_shown(monkeypatch: pytest.MonkeyPatch, wide: dict) -> None:
    wide["query"]["where"] = [
        {"variable": "sex", "in": ["female", "unknown"], "between": None},
        {"variable": "age", "in": None, "between": [0, 14]},
    ]
    lines = shown(wide, 80, monkeypatch).splitlines()
    assert lines[1:3] == ["only sex female or unknown", "only age from 0 to 14"]


def test_a_long_table_says_where_the_rest_is(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.full(100, 1_000)
    fields = release([counts, counts, None]).releases[0].as_fields()
    fields["query"] = {"preset": "crosstab"}
    assert "The first 60 of 100 rows; --out DIR writes all of them to table.csv." in shown(
        fields, 80, monkeypatch
    )


def test_progress_elsewhere_than_on_a_terminal_follows_the_slowest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = io.StringIO()
    monkeypatch.setattr(terminal, "err", Console(file=text, width=80, highlight=False))
    with terminal.PartyProgress(["a", "b"]) as progress:
        for name, phase in (("a", "connect"), ("b", "tabulate"), ("b", "connect"), ("a", "agree")):
            progress.phase(name, phase)
        progress.phase("b", "agree")
    assert text.getvalue().splitlines() == [
        "… counting its registered records",
        "… connecting with the other parties",
        "… comparing plans",
    ]


def test_progress_on_a_terminal_shows_every_party(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    console = Console(file=text, width=80, force_terminal=True, highlight=False)
    monkeypatch.setattr(terminal, "err", console)
    with terminal.PartyProgress(["uk", "us"]) as progress:
        progress.phase("uk", "connect")
        progress.progress("us", "TEST", 1, 4)
    assert "connecting with the other parties" in text.getvalue()
    assert "small-cell test: 1 of 4 blocks" in text.getvalue()


# --- the catalogue ------------------------------------------------------------------------------------


def test_the_catalogue_document_is_up_to_date() -> None:
    # In a process of its own: tests may define failures too.
    made = subprocess.run(
        [sys.executable, "-m", "mpc_engine.cli.catalogue"], capture_output=True, env=environment(), check=True
    )
    assert (ROOT / "docs/errors.md").read_text() == made.stdout.decode(), "renew docs/errors.md"


def test_every_failure_tells_what_to_do() -> None:
    classes = [cls for cls in failures() if cls.__module__.startswith("mpc_engine.")]
    assert set(classes) >= {cls for cls in catalogue() if cls.__module__.startswith("mpc_engine.")}
    reasons = [cls.reason for cls in classes]
    assert len(set(reasons)) == len(reasons)
    for cls in classes:
        assert cls.exit_status not in (0, 1)
        assert issubclass(cls, EngineError) and cls.next_step.endswith(".")
        assert f"| `{cls.reason}` | {cls.exit_status} |" in document()
