"""`mpc-engine plan`: what it prints before anything is spent, as text and as JSON."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc_engine.codebook import load_codebook
from mpc_engine.dp import parse_epsilon, table_for_counts
from mpc_engine.party.proposal import propose
from mpc_engine.release.plan import Member
from mpc_engine.release.publication import Published
from mpc_engine.release.table import Release
from mpc_engine.statistics.presets import load_query
from tests.cli.conftest import Run
from tests.party.nursery import ROOT

BOOK = ROOT / "scenarios/wilms/codebook.toml"
SURVIVAL = """
preset = "survival"
time = "follow_up_days"
by = ["histology"]
event = { variable = "relapse", in = ["yes"] }
grid = { every = 1, until = 10 }
privacy = { epsilon = "1" }
"""
MEAN = """
preset = "mean"
variable = "age_months"
by = ["stage"]
privacy = { epsilon = "1" }
"""
HISTOGRAM = """
preset = "histogram"
variable = "age_months"
edges = [0, 12, 60, 120]
by = ["stage"]
privacy = { epsilon = "1" }
"""
CROSSTAB = """
preset = "crosstab"
by = ["stage", "histology"]
totals = true
privacy = { epsilon = "1" }
"""
COUNT = """
preset = "count"
privacy = { epsilon = "1", max_records_per_patient = 2 }
"""
EXACT = """
preset = "count"
privacy = { epsilon = "1", rule = "exact" }
"""
STRICT = """
preset = "count"
privacy = { epsilon = "1", rule = "strict", delta = "1e-6" }
"""
ALL = {
    "survival": SURVIVAL,
    "mean": MEAN,
    "histogram": HISTOGRAM,
    "crosstab": CROSSTAB,
    "count": COUNT,
    "exact": EXACT,
    "strict": STRICT,
}


@pytest.fixture
def ask(run: Run, tmp_path: Path) -> Any:
    """Plan a query given as text, and return what was printed in one line, or the JSON."""

    def plan(text: str, *options: object) -> Any:
        (tmp_path / "query.toml").write_text(text)
        result = run("plan", tmp_path / "query.toml", "--codebook", BOOK, *options)
        assert result.status == 0, result.err
        return json.loads(result.out) if "--json" in options else " ".join(result.out.split())

    return plan


def released(folder: Path, text: str, sums: list[np.ndarray]) -> Path:
    """Write the release document of a query with these values, all shown, and return its path."""
    (folder / "query.toml").write_text(text)
    asked = load_query(folder / "query.toml")
    members = tuple(Member(f"p{i}", True, i < 3, "unknown", 1 << 20) for i in (1, 2, 3))
    plan = propose(asked, load_codebook(BOOK), members).plan()
    pattern = tuple(np.ones(groups.guard.grid.cells, np.bool_) for groups in plan.groups)
    published = Published(pattern, tuple(each.astype(np.int64) for each in sums))
    path = folder / "release.json"
    path.write_text(json.dumps(Release(plan, asked.digest_fields(), published, {}).as_fields()))
    return path


# --- the text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("width", [80, 100])
def test_every_preset_fits_the_terminal(
    run: Run, tmp_path: Path, name: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    (tmp_path / "query.toml").write_text(ALL[name])
    result = run("plan", tmp_path / "query.toml", "--codebook", BOOK)
    lines = result.out.splitlines()
    assert result.status == 0 and max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)
    assert "…" not in result.out and "nan" not in result.out and "inf" not in result.out.split()


def test_what_is_laid_out(ask: Any) -> None:
    text = ask(SURVIVAL)
    assert "strata: 2 groups: histology (2)" in text
    assert "guard: patients, 1 cell in each group" in text
    assert "outcomes, 21 cells in each group by outcome (21); 42 in all" in text
    assert "Asked: how survival develops by histology until relapse is yes, every year until 10 years" in text
    text = ask(CROSSTAB)
    for words in ("cells: 8 cells: stage (4) × histology (2)", "stage totals: 4 cells", "total: 1 cell"):
        assert words in text


def test_the_split_adds_up_exactly(ask: Any) -> None:
    assert "ε in all: 0.25 + 0.75 = 1, exactly" in ask(SURVIVAL)
    text = ask(CROSSTAB)
    assert "0.6 + 0.15 + 0.15 + 0.1 = 1, exactly" in text
    assert "one cell of each" in text
    # weight, ε, change, cap, ε per unit
    assert "0.25 + 0.5 + 0.25 = 1, exactly" in (text := ask(MEAN))
    assert "sum 2 0.5 120 1 1/240" in text and "squares 1 0.25 14,400 1 1/57600" in text
    assert "1/3 + 2/3 = 1, exactly" in (text := ask(MEAN + "variance = false\n"))
    assert "sum 2 2/3 120 1 1/180" in text and "squares" not in text
    assert "A patient with records at two silos: 2ε = 2, δ ≤ 2^-" in text


def test_the_cap_divides_epsilon(ask: Any) -> None:
    table = table_for_counts(parse_epsilon("1"), 2)
    assert f"count 1 1 1 2 0.5 {float(table.variance) ** 0.5:.2f} {table.limit}" in ask(COUNT)


def test_the_chances_are_those_of_the_guards_own_epsilon(ask: Any) -> None:
    text = ask(SURVIVAL)
    assert "guard 0 1 2 3 4 5 6 7 8 9 10" in text
    table = table_for_counts(parse_epsilon("0.25"))
    row = " ".join(f"{100 * float(table.tail(5 - n)):.1f}" for n in range(11))
    assert f"patients {row}" in text
    assert f"{2 * float(table.tail(5)):.2f} of 2 would be shown with nobody in it" in text


def test_exact_says_that_it_is_not_private(ask: Any) -> None:
    text = ask(EXACT)
    assert "count 0 0 0 0 0 100 100 100 100 100 100" in text
    assert "δ: none is promised; rule exact is not differential privacy" in text
    assert "two silos" not in text
    assert "No cell of fewer than 5 patients, counted at each silo, is shown." in text


def test_strict_shows_the_chances_around_its_limit(ask: Any) -> None:
    text, fields = ask(STRICT), ask(STRICT, "--json")
    least = fields["privacy"]["parts"][0]["least_shown"]
    (chances,) = fields["chances"]
    assert least in chances["patients"] and len(chances["patients"]) == 11
    assert chances["shown"][chances["patients"].index(least)] > 0.5
    assert "with 0.000001 asked for by rule strict" in text
    assert "No cell of fewer than 5 patients, counted at each silo, is shown." in text


# --- the expected errors ------------------------------------------------------------------------------


def test_a_stated_cohort_gets_a_sentence_and_advice(ask: Any) -> None:
    text = ask(SURVIVAL, "--cases", 80)
    assert "About 80 cases (40 in each of 2 strata), every year " in text
    assert "until 10 years: 5-year survival ± 19.6 points from noise, ± 15.0 from sampling." in text
    assert "Noise outweighs sampling; a coarser grid has less of it." in text
    assert '[grid] unit = "years" edges = [1, 3, 5, 10]' in text
    assert "outweighs" not in ask(SURVIVAL, "--cases", 1000)


def test_without_a_cohort_usual_sizes_are_shown(ask: Any) -> None:
    text = ask(SURVIVAL)
    assert (
        "half-widths of 95 % intervals, in points by cases in each stratum statistic assumed 30 80 200 1,000"
        in text
    )
    assert "5-year survival: noise is the smaller part from about 69 cases in a stratum on" in text
    assert "by cases in each cell statistic 5 20 100 1,000" in ask(CROSSTAB)
    assert "at most the one given" in ask(MEAN + "variance = false\n")
    assert "at most the one given" not in ask(MEAN, "--cases", 4000)  # enough to tell the spread


def test_the_cells_of_a_dummy_release_are_a_cohort(run: Run, ask: Any, tmp_path: Path) -> None:
    died = np.array([4, 1] * 10 + [50])
    sums = [np.array([100, 80]), np.concatenate([died, died - 1])]
    path = released(tmp_path, SURVIVAL, sums)
    for given in (path, path.parent):
        text = ask(SURVIVAL, "--cells", given)
        assert "About 180 cases (90 in each of 2 strata)" in text
    fields = ask(SURVIVAL, "--cells", path, "--json")
    (found,) = fields["forecasts"]
    main = next(row for row in found["statistics"] if row["time"] == 5 and row["by"])
    curve = np.prod([1 - 4 / (100 - 5 * j) for j in range(5)])
    assert main["value"] == pytest.approx(curve, abs=0.05)
    run("plan", tmp_path / "query.toml", "--codebook", BOOK, "--cells", path, "--cases", 5).failed_with(
        2, "give one of them"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), ("{", "not valid JSON"), ("[]", "not a release"), ("{}", "not a release")],
)
def test_cells_that_are_no_release(run: Run, tmp_path: Path, content: str | None, words: str) -> None:
    (tmp_path / "query.toml").write_text(SURVIVAL)
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    result = run("plan", tmp_path / "query.toml", "--codebook", BOOK, "--cells", path)
    result.failed_with(2, words)


def test_cells_of_another_query(run: Run, tmp_path: Path) -> None:
    path = released(tmp_path, CROSSTAB, [np.full(size, 9) for size in (8, 4, 2, 1)])
    (tmp_path / "query.toml").write_text(SURVIVAL)
    result = run("plan", tmp_path / "query.toml", "--codebook", BOOK, "--cells", path)
    result.failed_with(2, "another query or codebook")


@pytest.mark.parametrize("cases", [0, -3, "many"])
def test_cohorts_that_are_none(run: Run, tmp_path: Path, cases: object) -> None:
    (tmp_path / "query.toml").write_text(SURVIVAL)
    run("plan", tmp_path / "query.toml", "--codebook", BOOK, f"--cases={cases}").failed_with(2, "--cases")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("follow_up_days", "follow_up", "time: "),
        ('"histology"', '"laterality"', "the codebook has no variable 'laterality'"),
        ("until = 10", "until = 40", "grid: ends at"),
        ('"yes"', '"dead"', "event"),
    ],
)
def test_a_query_that_does_not_fit(run: Run, tmp_path: Path, old: str, new: str, words: str) -> None:
    (tmp_path / "query.toml").write_text(SURVIVAL.replace(old, new))
    result = run("plan", tmp_path / "query.toml", "--codebook", BOOK)
    result.failed_with(2, "query.toml: ", words)
    assert result.out == ""


# --- the JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_json_has_numbers_for_numbers(ask: Any, name: str) -> None:
    fields = ask(ALL[name], "--json", "--cases", 40)
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields
    parts = fields["privacy"]["parts"]
    assert sum(Fraction(part["epsilon_exact"]) for part in parts) == 1 == fields["privacy"]["epsilon"]
    for part in parts:
        per_unit = Fraction(part["epsilon_exact"]) / (part["cap"] * part["largest_change_per_record"])
        assert Fraction(part["epsilon_per_unit_exact"]) == per_unit
        assert type(part["noise_standard_deviation"]) is float and type(part["noise_largest"]) is int
    (found,) = fields["forecasts"]
    assert found["cases"] == 40 and found["statistics"]
    assert all(type(row["noise"]) is float and row["noise"] > 0 for row in found["statistics"])
    assert sum(chances["groups"] for chances in fields["chances"]) == sum(
        opening["values"] for opening in fields["openings"] if opening["section"] == "PATTERN"
    )
    assert fields["privacy"]["patient_at_two_silos"]["epsilon"] == 2


def test_json_advice_has_the_lines_to_change(ask: Any) -> None:
    fields = ask(SURVIVAL, "--json", "--cases", 80)
    (found,) = fields["advice"]
    assert found["lines"] == ["[grid]", 'unit = "years"', "edges = [1, 3, 5, 10]"]
    before, after = fields["forecasts"][0], found["forecast"]

    def noise(forecast: dict[str, Any]) -> float:
        return next(row["noise"] for row in forecast["statistics"] if row["time"] == 5 and row["by"])

    assert noise(after) < noise(before)
