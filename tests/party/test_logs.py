"""The service's log: what the lists allow is written, and nothing else, whoever writes it."""

from __future__ import annotations

import ast
import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.errors import DocumentError
from mpc_engine.party.logs import EVENTS, Logs, is_allowed
from mpc_engine.party.process import place_of
from tests.party.nursery import ROOT, environment

CANARY = "patient-4711"
NOW = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    """A log in a file."""
    made = Logs(tmp_path / "log.jsonl", clock=lambda: NOW)
    yield made
    made.close()


def lines(path: Path) -> list[dict[str, Any]]:
    """Return what a log holds."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_are_lines_of_json_in_a_file_for_its_owner(logs: Logs, tmp_path: Path) -> None:
    logs.note("session.lost", ticket="ab" * 16, reason="PUBLICATION_ABORT")
    logs.note("line.up", peer="uk.registry")
    path = tmp_path / "log.jsonl"
    time = "2026-03-01T12:30:15.250000Z"
    assert lines(path) == [
        {
            "time": time,
            "level": "error",
            "event": "session.lost",
            "ticket": "ab" * 16,
            "reason": "PUBLICATION_ABORT",
        },
        {"time": time, "level": "info", "event": "line.up", "peer": "uk.registry"},
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and logs.dropped == 0


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("session.invented", {"ticket": "ab" * 16}),
        ("line.up", {"peer": "uk", "query": CANARY}),
        ("line.up", {"peer": f"{CANARY}/rows.csv"}),
        ("line.up", {"peer": 4711}),
        ("session.failed", {"ticket": CANARY, "kind": "ValueError"}),
        ("session.failed", {"kind": f"ValueError: {CANARY}"}),
        ("party.failed", {"where": f"/home/{CANARY} x, line 3"}),
        ("ledger.recovered", {"count": CANARY}),
        ("ledger.recovered", {"count": [4711]}),
        ("ledger.recovered", {"count": 1 << 60}),
        ("line.up", {"peer": CANARY.encode()}),
        ("line.up", {"peer": "x" * 64}),
    ],
)
def test_what_is_not_on_the_lists_is_left_out_and_counted(
    logs: Logs, tmp_path: Path, event: str, fields: dict[str, Any]
) -> None:
    logs.note(event, **fields)
    assert logs.dropped == 1
    written = (tmp_path / "log.jsonl").read_text()
    assert "4711" not in written and str(1 << 60) not in written
    assert ("left_out" in written) == (event in EVENTS)


@given(st.text(), st.sampled_from(sorted({key for _, keys in EVENTS.values() for key in keys} - {"message"})))
def test_no_text_gets_through_that_could_be_a_sentence_or_a_path(text: str, key: str) -> None:
    if is_allowed(key, text):
        assert len(text) <= 200 and text.isascii() and not re.search(r"[\s\"'\\:=<>]", text.replace(", ", ""))
    assert not is_allowed(key, f"/srv/{CANARY}.csv") and not is_allowed(key, f"{text} ist Patientin")


def test_every_event_that_the_engine_notes_is_on_the_list() -> None:
    """The calls are read from the source: names of events, and the keys that come with them."""
    noted = 0
    for path in sorted((ROOT / "mpc_engine").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if name not in ("_journal", "journal", "note") or not node.args:
                continue
            event = node.args[0]
            if isinstance(event, ast.Constant) and isinstance(event.value, str) and "." in event.value:
                noted += 1
                keys = {each.arg for each in node.keywords if each.arg is not None}
                assert keys <= set(EVENTS[event.value][1]), f"{path}: {event.value}"
    assert noted > 30


def test_texts_of_loggers_are_written_only_where_they_are_public() -> None:
    """Whoever adds a logger to a package that sees records, documents or labels must think about it here."""
    users = set()
    for path in sorted((ROOT / "mpc_engine").rglob("*.py")):
        if re.search(r"getLogger\(__name__\)", path.read_text()):
            users.add(path.relative_to(ROOT / "mpc_engine").parts[0])
    assert users == {"transport", "party"}
    allowed = re.compile(r"%[sdg]|[A-Za-z0-9 ,.:;()'-]")
    calls = 0
    for package in ("transport", "party"):
        for path in sorted((ROOT / "mpc_engine" / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id in ("logger", "_log")
                ):
                    calls += 1
                    words = node.args[0]
                    assert isinstance(words, ast.Constant) and isinstance(words.value, str), path
                    assert not allowed.sub("", words.value), words.value
                    assert node.func.attr != "exception" and not node.keywords, path
    assert calls >= 8


def test_a_log_is_opened_anew_after_it_was_moved(logs: Logs, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    logs.note("party.ready")
    path.rename(tmp_path / "old")
    logs.note("party.ready")
    logs.reopen()
    assert [line["event"] for line in lines(tmp_path / "old")] == ["party.ready"] * 2
    assert [line["event"] for line in lines(path)] == ["log.reopened"]
    path.unlink()
    path.mkdir()
    with pytest.raises(DocumentError):
        logs.reopen()
    logs.note("party.ready")  # goes on in the file that it has, although that is gone
    with pytest.raises(DocumentError):
        Logs(tmp_path / "nowhere" / "log.jsonl")


def test_a_full_disk_stops_no_session() -> None:
    logs = Logs("/dev/full")
    logs.note("party.ready")
    assert logs.dropped == 1
    logs.close()
    logs.note("party.ready")


PROGRAM = f"""
import asyncio, logging, sys, threading, warnings
from mpc_engine.party.logs import Logs
Logs("stderr").take_over()
logging.getLogger("mpc_engine.transport.line").warning("refused %s\\n{{}}", "uk")
logging.getLogger("mpc_engine.silo.source").warning("{CANARY}")
logging.getLogger("grpc._cython.cygrpc").error("{CANARY}", exc_info=ValueError("{CANARY}"))
logging.getLogger("mpc_engine.transport.line").info("%d", "{CANARY}")
warnings.warn("{CANARY}")
async def lost():
    async def fail():
        raise KeyError("{CANARY}")
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
asyncio.run(lost())
thread = threading.Thread(target=lambda: int("{CANARY}"))
thread.start()
thread.join()
class Canary:
    def __del__(self):
        raise OSError("{CANARY}")
Canary()
raise RuntimeError("{CANARY}")
"""


def test_failures_that_nobody_caught_show_kind_and_place_only() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment(), timeout=60
    )
    assert ended.returncode == 1 and ended.stdout == ""
    assert CANARY not in ended.stderr
    found = [json.loads(line) for line in ended.stderr.splitlines()]
    assert found[0]["message"] == "refused uk {}" and found[0]["level"] == "warning"
    assert {line.get("kind") for line in found} >= {
        "ValueError",
        "KeyError",
        "OSError",
        "RuntimeError",
    }
    assert all("<string>" not in line.get("where", "") for line in found)


def test_a_place_is_the_last_one_in_the_engine() -> None:
    try:
        Logs("/nowhere/at/all")
    except DocumentError as error:
        assert re.fullmatch(r"mpc_engine/party/logs\.py, line \d+", place_of(error)["where"])
    assert place_of(ValueError(CANARY)) == {}
