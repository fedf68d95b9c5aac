"""The figures in the documents: the Python that made them still runs, and prints what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = [
    pytest.param(block, page.read_text(encoding="utf-8"), id=f"{page.relative_to(ROOT / 'docs')}-{number}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S))
    if "print(" in block  # others show what code looks like
]
KEY_FIGURES = {"protocols.md-0": ("120.8", "136.8", "92.8"), "security.md-0": ("0.80", "26.9", "73.1")}


def test_there_are_figures_to_check() -> None:
    assert {param.id for param in BLOCKS} >= set(KEY_FIGURES)


@pytest.mark.parametrize(("block", "page"), BLOCKS)
def test_the_command_of_a_figure_runs(block: str, page: str, request: pytest.FixtureRequest) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for figure in KEY_FIGURES.get(request.node.callspec.id, ()):
        assert figure in done.stdout and figure in page


def test_the_table_of_costs_is_what_its_command_prints() -> None:
    page = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "print(" in b)
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    printed = re.findall(r"^([3579]) (\w+) (\d+) (\d+) \[.*\] ([0-9.]+)$", done.stdout, re.M)
    rows = re.findall(r"^\| ([3579]) \| `(\w+)` \| (\d+) \| (\d+) \|.*\| \**([0-9.,]+)\** \|$", page, re.M)
    assert [(*row[:4], row[4].replace(",", "")) for row in rows] == printed
    assert len(rows) == 12
