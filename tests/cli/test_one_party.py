"""Commands that need no other party: what they print, and what they say about bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.party.nursery import ROOT


def change(path: Path, old: str, new: str) -> None:
    """Replace a text that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# --- plan and noise-table -----------------------------------------------------------------------------


def test_plan_names_what_is_opened_and_spent(run: Run, study: Path) -> None:
    result = run("plan", study / "query.toml")
    assert result.status == 0
    for words in ("6 cells: stage (3) × sex (2)", "together", "17", "epsilon = 1", "five control rounds"):
        assert words in result.out
    assert max(map(len, result.out.splitlines())) <= 80
    assert all(line == line.rstrip() for line in result.out.splitlines())


def test_plan_as_json_agrees_with_the_text(run: Run, study: Path) -> None:
    fields = json.loads(run("plan", study / "query.toml", "--json").out)
    assert (fields["cells"], fields["rounds"], fields["rounds_online"]) == (6, 17, 9)
    assert f"{fields['payload_bytes']:,}" in run("plan", study / "query.toml").out
    assert [opening["section"] for opening in fields["openings"]][-2:] == ["PATTERN", "VALUES"]


def test_plan_of_a_strict_query_prints_delta(run: Run, study: Path) -> None:
    change(study / "query.toml", 'rule = "noisy"', 'rule = "strict"\ndelta = "1e-6"')
    assert "delta <= 0.000001 + 2^-93" in " ".join(run("plan", study / "query.toml").out.split())


def test_plan_with_two_parties_is_refused(run: Run, study: Path) -> None:
    run("plan", study / "query.toml", "--parties", 2).failed_with(2, "2 computing parties", "Bring a helper")


def test_noise_table_prints_verified_bounds(run: Run) -> None:
    result = run("noise-table", "--epsilon", "1")
    assert result.status == 0
    for words in ("551 / 2^10", "0.461914062", "≤ e^ε, verified in exact rational arithmetic", "≤ 2^-93"):
        assert words in result.out
    fields = json.loads(run("noise-table", "--epsilon", "1", "--json").out)
    assert fields["digest"] in result.out


@pytest.mark.parametrize("epsilon", ["0", "-1", "one", "", "nan"])
def test_noise_table_refuses_other_epsilons(run: Run, epsilon: str) -> None:
    run("noise-table", f"--epsilon={epsilon}").failed_with(2, "Invalid value: epsilon")


# --- queries, codebooks and configurations that break a rule ------------------------------------------

HISTOGRAM = 'preset = "histogram"\nvariable = "age_months"\nbins = [[0, 12], [{}, 60]]\n[privacy]\n' + (
    'epsilon = "1"\nrule = "noisy"\nthreshold = 5\nmax_records_per_patient = 1\n'
)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('epsilon = "1"', 'epsilon = "0"', "privacy.epsilon: must be greater than 0"),
        ('epsilon = "1"', 'epsilon = "-1"', "privacy.epsilon: "),
        ('epsilon = "1"', "epsilon = 1.0", 'privacy.epsilon: must be text in quotes, such as "1"'),
        (
            '"stage", "sex"',
            '"stage", "race"',
            "by[1]: the codebook has no variable 'race'; it has: stage, sex",
        ),
        (
            'by = ["stage", "sex"]',
            'by = ["stage"]\nwhere = [{ variable = "sex", in = ["x"] }]',
            "where[0].in[0]",
        ),
        ("threshold = 5", "threshold = 0", "privacy.threshold"),
        ("threshold = 5", "treshold = 5", "treshold: is not a key known here; known keys:"),
        (
            'preset = "crosstab"',
            'preset = "average"',
            "preset: is not known; presets: ",
        ),
    ],
)
def test_queries_that_break_a_rule(run: Run, study: Path, old: str, new: str, words: str) -> None:
    change(study / "query.toml", old, new)
    result = run("plan", study / "query.toml")
    result.failed_with(2, "query.toml: ", words)
    assert result.out == ""


@pytest.mark.parametrize(
    ("start", "words"),
    [(6, "overlap; bins are half-open"), (24, "leave a gap"), (240, "[240, 60) is empty")],
)
def test_bins_that_do_not_fit(run: Run, tmp_path: Path, start: int, words: str) -> None:
    (tmp_path / "query.toml").write_text(HISTOGRAM.format(start))
    codebook = ROOT / "scenarios/wilms/codebook.toml"
    run("plan", tmp_path / "query.toml", "--codebook", codebook).failed_with(2, "bins[1]", words)


def test_bounds_that_do_not_fit(run: Run, tmp_path: Path) -> None:
    query = HISTOGRAM.format(12) + '[[where]]\nvariable = "age_months"\nbetween = [0, 400]\n'
    (tmp_path / "query.toml").write_text(query)
    codebook = ROOT / "scenarios/wilms/codebook.toml"
    result = run("plan", tmp_path / "query.toml", "--codebook", codebook)
    result.failed_with(2, "where[0].between[1]: is 400, but age_months runs from 0 to 239")
    text = codebook.read_text()
    (tmp_path / "codebook.toml").write_text(text.replace("upper = 239", "upper = -1"))
    result = run("plan", tmp_path / "query.toml")
    result.failed_with(2, "variables.age_months.lower: is 0, above `upper` = -1")


@pytest.mark.parametrize("missing", ["query.toml", "codebook.toml"])
def test_files_that_are_not_there(run: Run, study: Path, missing: str) -> None:
    (study / missing).unlink()
    run("plan", study / "query.toml").failed_with(2, f"{missing}: there is no such file")


def test_party_run_names_the_file_that_is_missing(run: Run, study: Path) -> None:
    arguments = ("party", "run", "--query", study / "query.toml", "--config")
    run(*arguments, study / "nosuch.toml").failed_with(2, "nosuch.toml: there is no such file")
    config = (ROOT / "parties/helper.toml").read_text()
    (study / "party.toml").write_text(config)
    run(*arguments, study / "party.toml").failed_with(2, "roster.toml: there is no such file")
    (study / "party.toml").write_text(config.replace('greatest_epsilon = "1"', 'greatest_epsilon = "0"'))
    run(*arguments, study / "party.toml").failed_with(2, "policy.greatest_epsilon: ", "greater than 0")


def test_party_run_keeps_the_release_that_is_there(run: Run, study: Path) -> None:
    (study / "released").mkdir()
    (study / "released/release.json").write_text("{}")
    arguments = ("party", "run", "--config", study / "nosuch.toml", "--query", study / "query.toml", "--out")
    again = run(*arguments, study / "released")
    again.failed_with(2, "released: holds another release", "--overwrite replaces them")
    run(*arguments, study / "released", "--overwrite").failed_with(2, "nosuch.toml: there is no such file")


def test_a_folder_that_cannot_be_made(run: Run, study: Path) -> None:
    (study / "taken").write_text("a file")
    result = run("simulate", ROOT / "scenarios/wilms.toml", "--out", study / "taken")
    result.failed_with(2, "taken: cannot be made")


def test_a_command_line_that_cannot_be_understood(run: Run) -> None:
    run("plan").failed_with(2, "Missing argument 'QUERY'")
    run("party", "run").failed_with(2, "Missing option '--config'")


# --- data check and data register ---------------------------------------------------------------------


def test_an_unknown_code_until_it_is_mapped(run: Run, study: Path) -> None:
    mapping, state = study / "mapping.toml", study / "data"
    with (study / "rows.csv").open("a") as rows:
        rows.write("4,f\n4,m\n")
    check = run("data", "check", "--mapping", mapping)
    check.failed_with(3, "cannot be registered")
    assert 'stage: column stage: "4"' in check.out
    assert "(2 rows)" in check.out
    assert "add under [variables.stage.codes]:" in check.out
    line = next(line.strip() for line in check.out.splitlines() if line.strip().startswith('"4" = '))
    register = ("data", "register", "--mapping", mapping, "--state", state)
    run(*register).failed_with(3, 'stage: column stage: "4"')
    assert not list(state.glob("*"))
    label = line.split('"')[3].split(" | ")[0]
    change(mapping, 'codes = { 1 = "I",', f'codes = {{ "4" = "{label}", 1 = "I",')
    assert run("data", "check", "--mapping", mapping).status == 0
    registered = run(*register)
    assert registered.status == 0
    assert registered.out.startswith("registered as snapshot ")
    assert (state / "registration.json").exists()


def test_registering_says_how_many_rows_and_refuses_none(run: Run, study: Path) -> None:
    rows, state = study / "rows.csv", study / "data"
    register = ("data", "register", "--mapping", study / "mapping.toml", "--state", state)
    head, *lines = rows.read_text().splitlines(keepends=True)
    first = run(*register)
    assert first.out.splitlines()[1] == f"{len(lines)} rows registered" and first.err == ""
    rows.write_text(head + "".join(lines * 8))
    more = run(*register)
    assert more.out.splitlines()[1] == f"{8 * len(lines):,} rows registered, {len(lines)} before"
    assert more.err == ""
    rows.write_text(head + "".join(lines * 6))
    fewer = run(*register)
    assert fewer.status == 0
    assert f"note: there were {8 * len(lines):,} rows before and are {6 * len(lines):,} now" in fewer.said
    kept = (state / "registration.json").read_text()
    rows.write_text(head)
    run(*register).failed_with(3, "rows.csv: has no rows", "--allow-empty")
    assert (state / "registration.json").read_text() == kept
    assert "0 rows registered" in run(*register, "--allow-empty").out


def test_more_rows_than_the_public_bound(run: Run, study: Path) -> None:
    change(study / "mapping.toml", "one_row_per_patient", "count_bound = 100\none_row_per_patient")
    result = run("data", "check", "--mapping", study / "mapping.toml")
    result.failed_with(3)
    assert "more rows than the public bound of 100" in result.out


def test_data_commands_say_what_they_need(run: Run, study: Path) -> None:
    run("data", "check").failed_with(2, "name either --config or --mapping")
    mapping = study / "mapping.toml"
    run("data", "register", "--mapping", mapping).failed_with(2, "--state together with --mapping")
    run("data", "check", "--config", ROOT / "parties/helper.toml").failed_with(2, "a helper has none")
    (study / "rows.csv").unlink()
    run("data", "check", "--mapping", mapping).failed_with(3, "rows.csv")


# --- help and failures --------------------------------------------------------------------------------


def test_help_fits_a_terminal(run: Run) -> None:
    commands = (
        (),
        ("simulate",),
        ("plan",),
        ("noise-table",),
        ("result",),
        ("party",),
        ("party", "run"),
        ("data",),
    )
    for command in commands:
        result = run(*command, "--help")
        assert result.status == 0
        assert max(map(len, result.out.splitlines())) <= 80
        assert result.out.startswith(" ".join(["Usage: mpc-engine", *command]))
        assert "..." not in result.out.replace("[ARGS]...", "")


def test_an_unforeseen_failure_quotes_nothing(run: Run, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("patient 4711")

    monkeypatch.setattr("mpc_engine.cli.plan.load_query", broken)
    result = run("plan", study / "query.toml")
    result.failed_with(70, "unexpected KeyError at mpc_engine/cli/plan.py, line ", "report this as a bug")
    assert "4711" not in result.err
