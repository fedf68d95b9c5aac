"""What a release is: its document, its files and progress on the way; and the catalogue of failures."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import grpc
import pytest
from rich.console import Console

from mpc_engine.cli import requests, serve, terminal
from mpc_engine.cli.catalogue import document, failures
from mpc_engine.errors import EngineError, SnapshotMismatchError, catalogue
from mpc_engine.party.messages import Phase
from mpc_engine.party.readiness import Missing
from tests.party.machines import Command, engine
from tests.party.nursery import ROOT, environment

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
        *("format", "query", "parameters", "parties", "digests", "session", "openings", "promise", "groups"),
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
    ((group, tallies),) = (each.values() for each in fields["groups"])
    (tally,) = tallies
    assert (group, list(tally)) == ("cells", ["name", "grid", "weight", "step", "signed", "values"])
    assert [(axis["variable"], len(axis["categories"])) for axis in tally["grid"]] == [
        ("stage", 4),
        ("histology", 2),
    ]
    assert len(tally["values"]) == 8 and {type(value) for value in tally["values"]} <= {int, type(None)}
    (part,) = parameters["split"]
    assert (part["part"], part["epsilon"], part["noise_standard_deviation"]) == ("cells", "1", "1.3576")


def test_the_files_agree(demo: tuple[Command, Path]) -> None:
    _, folder = demo
    fields = json.loads((folder / "release.json").read_text())
    rows = list(csv.DictReader((folder / "cells.csv").open()))
    values = fields["groups"][0]["tallies"][0]["values"]
    assert [row["value"] for row in rows] == ["" if value is None else str(value) for value in values]
    assert [row["flag"] for row in rows] == ["c" if value is None else "ok" for value in values]
    assert list(rows[0]) == ["group", "tally", "stage", "histology", "value", "flag"]
    assert [(row["stage"], row["histology"]) for row in rows] == [
        (stage, histology) for stage in ("I", "II", "III", "IV") for histology in ("FH", "UH")
    ]
    assert json.loads((folder / "openings.json").read_text()) == fields["openings"]
    statistics = list(csv.DictReader((folder / "table.csv").open()))
    assert [row["display"] for row in statistics] == [
        "[c]" if value is None else f"{value:,}" for value in values
    ]
    assert json.loads((folder / "result.json").read_text())["parameters"]["k"] == 5
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "explanation.txt").read_text().startswith("Wilms tumours by stage and histology\n")
    assert {path.name for path in folder.iterdir()} == {
        *("release.json", "cells.csv", "openings.json", "receipt.json"),
        *("table.csv", "result.json", "plot.png", "explanation.txt"),
    }


# --- progress -----------------------------------------------------------------------------------------


def test_progress_elsewhere_than_on_a_terminal_follows_the_slowest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = io.StringIO()
    monkeypatch.setattr(terminal, "err", Console(file=text, width=80, highlight=False))
    with terminal.PartyProgress(["a", "b"]) as progress:
        for name, phase in (("a", "connect"), ("b", "count"), ("b", "connect"), ("a", "agree")):
            progress.phase(name, phase)
        progress.phase("b", "agree")
    assert text.getvalue().splitlines() == [
        "… counting its registered records",
        "… connecting with the other parties",
        "… comparing plans",
    ]


def test_phases_are_shown_in_the_order_in_which_they_come() -> None:
    order = ["count", "connect", "agree", "reserve", "compute", "commit", "open", "sign"]
    assert [phase for phase in terminal.PHASES if phase in order] == order
    assert list(get_args(Phase)) == ["queued", *order]
    assert [phase for phase in requests.PHASES if phase in order] == order
    assert set(requests.PHASES) >= set(get_args(Phase))


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
        again = "yes" if cls.retryable else "no"
        row = f"| `{cls.reason}` | `{cls.grpc_code}` | {cls.exit_status} | {again} | {cls.budget} |"
        assert row in document()
        assert cls.grpc_code in grpc.StatusCode.__members__


def test_records_that_changed_are_said_to_be_tried_again_as_they_are() -> None:
    assert SnapshotMismatchError.retryable and "by itself" in SnapshotMismatchError.next_step
    assert "it is tried again by itself" in _row_of(ROOT / "docs/operate.md", "MISMATCH_SNAPSHOT")


def test_every_reason_for_not_being_ready_is_in_words() -> None:
    assert set(serve.MISSING) == set(get_args(Missing))
    watching = (ROOT / "docs/operate.md").read_text().partition("## Watching")[2].partition("## ")[0]
    for reason in get_args(Missing):
        assert f"| `{reason}` |" in watching, reason


def _row_of(path: Path, reason: str) -> str:
    """Return the row of a table that begins with a reason."""
    (row,) = [line for line in path.read_text().splitlines() if line.startswith(f"| `{reason}`")]
    return row
