"""The pages on statistics: queries that can be asked, and tables that say what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.dp import Guarantee, Rule, guarantee_for
from mpc_engine.release.groups import Groups, parts_of
from mpc_engine.release.opened import Opened, arrange
from mpc_engine.statistics.layout import Layout
from mpc_engine.statistics.presets import parse_query, presets
from mpc_engine.statistics.query import Query
from mpc_engine.statistics.tidy import STATISTICS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [DOCS / "statistics.md", *sorted((DOCS / "statistics").glob("*.md"))]
QUERY = re.compile(r"```toml\n# codebook: (\S+)\n(.*?)```\n(.*?)(?=```toml|\Z)", re.S)
PART = re.compile(
    r"^\| `([^`]+)` \| ([\d,]+) \| (yes)? ?\| (\d+) \| (\d+(?:/\d+)?) \| ([\d,]+) \| ([\d.]+) \|$", re.M
)
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")


class Asked(NamedTuple):
    """A query of a page with what it is asked of, and the page's text after it."""

    query: Query
    codebook: Codebook
    layout: Layout
    guarantee: Guarantee
    after: str


def page(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def asked() -> dict[str, Asked]:
    """Every query of the pages by page and number, laid out."""
    found = {}
    for path in PAGES:
        for number, (codebook, text, after) in enumerate(QUERY.findall(page(path))):
            name = f"{path.stem}-{number}"
            query, book = parse_query(tomllib.loads(text), name), load_codebook(ROOT / codebook)
            layout, privacy = query.layout(book), query.privacy
            guarantee = guarantee_for(
                privacy.epsilon_exact,
                parts_of(layout.groups),
                Rule(privacy.rule),
                privacy.threshold,
                privacy.max_records_per_patient,
                privacy.delta_exact,
            )
            found[name] = Asked(query, book, layout, guarantee, after)
    return found


def opened(one: Asked) -> Opened:
    """A made-up cohort of the query, all of it shown."""
    pattern = [np.ones(groups.guard.grid.cells, np.bool_) for groups in one.layout.groups]
    sums = one.query.typical(one.codebook, one.layout, 5_000)
    noise = [float(each.table.variance) for each in one.guarantee.allotments]
    return arrange(one.layout.groups, pattern, sums, noise, one.guarantee.threshold)


def names(one: Asked) -> set[str]:
    return set(one.query.finish(one.codebook, opened(one)).columns()["statistic"])


def parts(groups: tuple[Groups, ...], guarantee: Guarantee) -> list[tuple[object, ...]]:
    cells = [tally.grid.cells for each in groups for tally in each.tallies]
    return [
        (
            each.part.name,
            number,
            each.part.guard,
            each.part.weight,
            each.epsilon,
            each.part.step,
            f"{float(each.table.variance) ** 0.5:.2f}",
        )
        for each, number in zip(guarantee.allotments, cells, strict=True)
    ]


def whole(text: str) -> int:
    return int(text.replace(",", ""))


def test_every_preset_has_a_query() -> None:
    assert {one.query.preset for one in asked().values()} == set(presets())
    blocks = sum(page(path).count("```toml\n") for path in PAGES)
    assert len(asked()) == blocks, "a query block begins with the line `# codebook: PATH`"


def test_the_tables_of_parts_are_what_a_plan_would_hold() -> None:
    for name, one in asked().items():
        said = [
            (part, whole(cells), bool(guard), int(weight), Fraction(epsilon), whole(step), deviation)
            for part, cells, guard, weight, epsilon, step, deviation in PART.findall(one.after)
        ]
        assert said == parts(one.layout.groups, one.guarantee), name


def test_the_dictionary_names_every_statistic_and_no_other() -> None:
    made: dict[str, set[str]] = defaultdict(set)
    for one in asked().values():
        made[one.query.preset] |= names(one)
    rows = re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|$", page(DOCS / "statistics.md"), re.M)
    said = {preset: set(re.findall(r"`(\w+)`", listed)) for preset, listed in rows}
    assert said == made


def test_every_statistic_is_on_its_presets_page() -> None:
    for name, one in asked().items():
        text = page(next(path for path in PAGES if path.stem == name.rsplit("-", 1)[0]))
        if "## Formulas" in text:
            formulas = text.split("## Formulas")[1]
            assert not {each for each in names(one) if f"`{each}`" not in formulas}, name


def test_every_column_of_the_tidy_table_is_explained() -> None:
    table = page(DOCS / "statistics.md").split("## The tidy table")[1]
    explained = {
        name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)
    }
    assert set(STATISTICS) <= explained


def test_references_links_and_tests_that_are_named_exist() -> None:
    keys = set(re.findall(r"^- \*\*\[([^\]]+)\]\*\*", page(DOCS / "references.md"), re.M))
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for path in PAGES:
        text = re.sub(r"```.*?```", "", page(path), flags=re.S)
        cited = set(re.findall(r"\[([A-Z][A-Za-z]*\d{2}|SEER\w+|ICDO3)\](?!\()", text))
        assert cited <= keys, path
        for target, anchor in LINK.findall(text):
            there = (path.parent / target).resolve() if target else path
            assert there.exists(), f"{path}: {target}"
            if anchor:
                heads = re.findall(r"^#+ (.*)$", page(there), re.M)
                slugs = {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}
                assert anchor in slugs, f"{path}: {target}#{anchor}"
        for test in re.findall(r"(?<!/)\btest_\w+\b(?!\.py)", text):
            assert f"def {test}(" in tests, f"{path}: {test}"
        for file in re.findall(r"`((?:tests|data|mpc_engine)/[\w./]+\.\w+)", text):
            assert (ROOT / file).exists(), f"{path}: {file}"


def test_the_distance_from_relsurv_is_what_the_command_prints() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.net_survival_distance"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    row = re.compile(r"^\| (?:monthly|quarterly|annual) \|.*$", re.M)
    printed, said = row.findall(done.stdout), row.findall(page(DOCS / "statistics" / "net-survival.md"))
    assert len(printed) == len(said) == 27, done.stderr
    number = re.compile(r"[+-]\d+")
    for ours, theirs in zip(said, printed, strict=True):
        assert number.sub("", ours) == number.sub("", theirs)
        pairs = zip(number.findall(ours), number.findall(theirs), strict=True)
        assert all(abs(int(one) - int(other)) <= 1 for one, other in pairs)


@pytest.mark.parametrize("name", ["statistics", "survival"])
def test_the_measured_tables_are_what_their_commands_print(name: str) -> None:
    text = page(next(path for path in PAGES if path.stem == name))
    block = next(each for each in re.findall(r"```python\n(.*?)```", text, re.S) if "print(" in each)
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    figure = re.compile(r"(?<![\w.])(?:never|\d[\d.]*(?:e-\d+)?)(?![\w.])")
    rows = [
        figure.findall(line)
        for line in text.split("```python")[0].splitlines()
        if line.strip().startswith("|")
    ]
    for line in done.stdout.splitlines():
        printed = figure.findall(
            re.sub(r"^.*?(?:noisy|strict) (?:\d+ )?(?=[\dn])|^1, (?:2, 3, )?5, 10 years ", "", line)
        )
        assert any(row[-len(printed) :] == printed for row in rows), line
