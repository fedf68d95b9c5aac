"""The fault matrix and the catalogue are covered, by tests that exist."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from mpc_engine.errors import catalogue
from tests.faults.matrix import ROWS, page
from tests.faults.reasons import REASONS
from tests.faults.row import Row
from tests.party.nursery import ROOT, environment

TESTED = {cls.reason: cls for cls in reversed(catalogue()) if cls.__module__ == "mpc_engine.errors"}


def source_of(test: str) -> str:
    """Return the source of a named test with its decorators, or of the whole file; "" if there is none."""
    path, _, name = test.partition("::")
    found = ROOT / path
    if not found.exists():
        return ""
    if found.is_dir():
        return "a folder" if list(found.glob("test_*.py")) else ""
    text = found.read_text(encoding="utf-8")
    if not name:
        return text
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            decorators = [ast.get_source_segment(text, each) or "" for each in node.decorator_list]
            return "\n".join([*decorators, ast.get_source_segment(text, node) or ""])
    return ""


def test_every_row_is_there_once_and_in_order() -> None:
    assert [row.name for row in ROWS] == [f"F{number}" for number in range(1, 37)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_tests_of_a_row_exist(row: Row) -> None:
    assert row.tests
    assert [test for test in row.tests if not source_of(test)] == []


@pytest.mark.parametrize("reason", sorted(TESTED))
def test_every_reason_has_a_test_that_provokes_it(reason: str) -> None:
    source = source_of(REASONS[reason])
    assert source, f"there is no {REASONS[reason]}"
    path = ROOT / REASONS[reason].partition("::")[0]
    whole = path.read_text(encoding="utf-8")
    name = TESTED[reason].__name__
    # A test that runs over a table of failures names them there.
    named = source if reason in source or name in source else whole
    assert f'"{reason}"' in named or name in named or f"'{reason}'" in named


def test_nothing_else_is_in_the_list() -> None:
    assert set(REASONS) == set(TESTED)


def test_a_test_that_is_not_there_is_found_missing() -> None:
    assert not source_of("tests/faults/test_matrix.py::test_nowhere") and not source_of("tests/nowhere.py")


def test_the_page_is_up_to_date() -> None:
    command = [sys.executable, "-m", "tests.faults.matrix"]
    made = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(), cwd=ROOT)
    assert made.stdout == page()
    found = Path(ROOT) / "docs" / "faults.md"
    assert found.read_text(encoding="utf-8") == page(), "renew docs/faults.md"
