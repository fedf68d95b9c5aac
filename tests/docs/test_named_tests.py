"""Tests that the pages name exist, and the pages name a test for everything that they must."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMED = re.compile(r"`((?:tests|scenarios)/[\w./-]+?)(?:::(\w+)(?:\[[^\]`]*\])?)?`")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
ROW = re.compile(r"^\| (F[0-9]+) \|(.*)\|$", re.M)
ACTOR = re.compile(r"^### (T[0-9]+) ", re.M)


@cache
def functions(path: Path) -> frozenset[str]:
    """The functions and classes that a module of tests defines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def named(text: str) -> list[tuple[str, str]]:
    """Every file, folder or test that a text names, as path and name ("" if it names a file only)."""
    return NAMED.findall(text)


def missing(path: str, name: str) -> bool:
    """Whether there is no such file, folder or test."""
    found = ROOT / path
    if not name:
        return not found.exists()
    return not found.is_file() or name not in functions(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [f"{path}::{name}" for path, name in named(text) if missing(path, name)] == []


def test_what_is_missing_is_found() -> None:
    ((path, name),) = named("see `tests/docs/test_named_tests.py::test_what_is_missing_is_found[some case]`")
    assert not missing(path, name)
    assert (
        missing(path, name + "_not") and missing("tests/docs/nowhere.py", "") and missing("tests/docs", name)
    )


def test_every_fault_has_its_row_and_its_tests() -> None:
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = ROW.findall(text)
    assert [row for row, _ in rows] == [f"F{number}" for number in range(1, 37)]
    assert [row for row, rest in rows if not any(name for _, name in named(rest))] == []


def test_every_actor_has_a_section_with_a_test() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    _, *parts = ACTOR.split(text)
    assert parts[::2] == [f"T{number}" for number in range(1, 15)]
    without = [actor for actor, part in zip(parts[::2], parts[1::2], strict=True) if not named(part)]
    assert without == ["T14"]  # there is no web page


def test_what_is_not_protected_is_said() -> None:
    for page, words in (
        ("README.md", ("t + 1 parties together", "deviate on purpose", "Subtraction", "Availability")),
        (
            "docs/security.md",
            ("t + 1 parties that collude", "deviates on purpose", "subtracts", "Availability"),
        ),
        (
            "docs/threat-model.md",
            ("t + 1 parties together learn everything", "Active deviation", "False inputs", "Subtraction"),
        ),
    ):
        text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        assert [each for each in words if each not in text] == [], page


@pytest.mark.parametrize(
    "page",
    [*PAGES, ROOT / "parties" / "README.md", ROOT / "parties" / "container" / "README.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    broken = []
    for target, anchor in LINK.findall(text):
        if "://" in target or target.startswith("mailto:"):
            continue
        found = page if not target else (page.parent / target).resolve()
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(f"{target}#{anchor}")
    assert broken == []


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as the usual viewers make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    heads = re.findall(r"^#+ (.+)$", text, re.M)
    kept = (re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", head).lower()) for head in heads)
    return frozenset(head.strip().replace(" ", "-") for head in kept)
