"""What a scenario names is looked at before anything is started, and blamed by the scenario's own key."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpc_engine.errors import DocumentError
from mpc_engine.harness import programme
from tests.harness.staged import scenario_of
from tests.harness.test_scenario_cli import command

ASK = '[[ask]]\nname = "first"\nquery = "query.toml"\n'
SECOND = '[[ask]]\nname = "second"\nquery = "{query}"\nchange = {change}\n'
TRUTH = '[[expect]]\nkind = "truth"\nwhere = {where}\nerrors = 9\n'


def refused(folder: Path, text: str) -> str:
    scenario_of(folder, text)
    with pytest.raises(DocumentError) as caught:
        programme.find([folder / "scenario.toml"])
    return str(caught.value).replace(f"{folder}/", "")


def test_what_fits_is_found(tmp_path: Path) -> None:
    where = '{ statistic = "count", sex = "male" }'
    scenario_of(tmp_path, ASK + TRUTH.format(where=where))
    assert [each.name for each in programme.find([tmp_path / "scenario.toml"])] == ["scenario"]


@pytest.mark.parametrize(
    ("query", "change", "said"),
    [
        ("query.toml", '{ titel = "x" }', "ask[1].change: titel: is not a key known here; known keys: "),
        ("query.toml", '{ by = ["stage"] }', "ask[1].change: by"),
        ("query.toml", '{ privacy = { epsilon = "a lot" } }', "ask[1].change: privacy.epsilon: "),
        ("nowhere.toml", "{}", "ask[1].query: nowhere.toml: there is no such file"),
    ],
)
def test_a_question_is_blamed_by_the_scenarios_key(
    tmp_path: Path, query: str, change: str, said: str
) -> None:
    assert refused(tmp_path, ASK + SECOND.format(query=query, change=change)).startswith(
        f"scenario.toml: {said}"
    )


def test_a_query_that_is_wrong_by_itself_is_blamed_itself(tmp_path: Path) -> None:
    scenario_of(tmp_path, text := ASK + SECOND.format(query="wrong.toml", change='{ title = "b" }'))
    wrong = (tmp_path / "query.toml").read_text() + "\nlimit = 3\n"
    (tmp_path / "wrong.toml").write_text(wrong)
    assert refused(tmp_path, text).startswith("wrong.toml: ")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ('{ statistic = "cuont", sex = "male" }', "no row has statistic = 'cuont'; there is count"),
        ('{ statistic = "count", sex = "man" }', "no row has sex = 'man'; there is female, male"),
        ('{ statistic = "count", age = "9" }', "the table has no column 'age'; it has "),
        (
            '{ statistic = "count" }',
            "statistic = count picks 2 rows of the table of statistics, not one; say ",
        ),
    ],
)
def test_a_row_that_there_is_not_is_told_with_those_there_are(tmp_path: Path, where: str, said: str) -> None:
    assert f"scenario.toml: expect[0].where: {said}" in refused(tmp_path, ASK + TRUTH.format(where=where))


def test_other_files_and_statistics(tmp_path: Path) -> None:
    coverage = '[[expect]]\nkind = "coverage"\nstatistic = "rate"\n'
    assert refused(tmp_path, ASK + coverage).startswith("scenario.toml: expect[0].statistic: no row has")
    pooled = '[[expect]]\nkind = "pooled"\nfile = "true.csv"\n'
    assert refused(tmp_path, ASK + pooled).startswith("scenario.toml: expect[0].file: true.csv: there is no")
    own = '[[party]]\nname = "x"\ncomputing = false\nmapping = "x.toml"\n'
    assert refused(tmp_path, own + ASK).startswith("scenario.toml: party[3].mapping: x.toml: there is no")


def test_the_command_refuses_it_before_it_plays(tmp_path: Path) -> None:
    scenario_of(tmp_path, ASK + TRUTH.format(where='{ statistic = "cuont" }'))
    done = command("run", "scenario.toml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 2 and "expect[0].where: no row has statistic = 'cuont'" in " ".join(
        done.stderr.replace("│", " ").split()
    )
    assert not (tmp_path / "out").exists()


def test_a_codebook_of_a_partys_own(tmp_path: Path) -> None:
    own = '[[party]]\nname = "x"\ncomputing = false\nmapping = "mapping.toml"\ncodebook = "old.toml"\n'
    assert refused(tmp_path, own + ASK).startswith("scenario.toml: party[3].codebook: old.toml: there is no")
