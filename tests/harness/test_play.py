"""Playing: the order of questions and faults, on a stage without parties."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.errors import BudgetError, DocumentError, EngineError
from mpc_engine.harness import play as playing
from mpc_engine.harness.play import play, titled
from mpc_engine.harness.stage import BUDGET, Ended, budgeted
from mpc_engine.statistics.presets import load_query
from tests.harness.staged import PARTIES, FakeStage, scenario_of

ASKS = """
[[ask]]
name = "first"
query = "query.toml"
[[ask]]
name = "second"
query = "query.toml"
after_s = 7
"""


def test_questions_come_one_after_the_other(tmp_path: Path) -> None:
    stage = FakeStage(scenario_of(tmp_path, ASKS))
    run = stage.run()
    assert stage.told == ["enter", "submit first 0 at 0", "submit second 0 at 8", "mend", "exit"]
    assert [(asked.name, asked.began_s, asked.ended_s) for asked in run.asked] == [
        ("first", 0, 1),
        ("second", 8, 9),
    ]


def test_the_same_again_and_others_at_once(tmp_path: Path) -> None:
    repeated = ASKS.replace("after_s = 7", "together = 3").replace('"first"\n', '"first"\ntimes = 2\n')
    stage = FakeStage(scenario_of(tmp_path, repeated))
    run = stage.run()
    assert [asked.began_s for asked in run.asked] == [0, 1, 2, 2, 2]
    again, others = (
        [query.digest() for query in stage.queries[:2]],
        {query.digest() for query in stage.queries[2:]},
    )
    assert again[0] == again[1]
    assert len(others) == 3 and again[0] not in others
    assert [asked.name for asked in run.asked][-1] == "second #3"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        # Whatever a party does not survive comes once the question has been taken, the rest before it.
        ('kind = "kill"', ["submit first 0 at 0", "strike kill at 0", "submit second 0 at 8"]),
        ('kind = "tamper"', ["strike tamper at 0", "submit first 0 at 0", "submit second 0 at 8"]),
        ('kind = "kill"\nat = "agreed"', ["arm kill", "submit first 0 at 0", "submit second 0 at 8"]),
        (
            'kind = "freeze"\nafter_s = 3\nfor_s = 1',
            ["submit first 0 at 0", "strike freeze at 3", "submit second 0 at 8"],
        ),
        (
            'kind = "stop"\nask = "second"\nafter_s = 0.5',
            ["submit first 0 at 0", "submit second 0 at 8", "strike stop at 8.5"],
        ),
        # The last question has been answered by then.
        ('kind = "stop"\nask = "second"\nafter_s = 2', ["submit first 0 at 0", "submit second 0 at 8"]),
        ('kind = "expire"\nafter_s = 9', ["arm expire", "submit first 0 at 0", "submit second 0 at 8"]),
    ],
)
def test_faults_come_at_their_time(tmp_path: Path, fault: str, told: list[str]) -> None:
    stage = FakeStage(scenario_of(tmp_path, f'{ASKS}[[fault]]\nparty = "two"\n{fault}\n'))
    run = stage.run()
    assert stage.told == ["enter", *told, "mend", "exit"]
    assert (run.faults[0].began_s is not None) == any("strike" in each for each in told)


def test_a_refused_question_is_an_end_of_its_own(tmp_path: Path) -> None:
    fault = '[[fault]]\nkind = "kill"\nparty = "two"\n'
    stage = FakeStage(scenario_of(tmp_path, ASKS + fault), {"first": [BudgetError("it is spent")]})
    run = stage.run()
    assert [(each.state, each.reason) for each in run.asked] == [
        ("REJECTED", BudgetError.reason),
        ("RELEASED", ""),
    ]
    assert run.asked[0].request == ""
    assert run.asked[0].detail == "it is spent"


def test_a_stage_that_falls_over_is_left(tmp_path: Path) -> None:
    stage = FakeStage(scenario_of(tmp_path, ASKS), broken="submit")
    with pytest.raises(RuntimeError):
        stage.run()
    assert stage.told[-1] == "exit"


def test_time_runs_out(tmp_path: Path) -> None:
    text = ASKS.replace("after_s = 7", "wait_s = 5")
    stage = FakeStage(scenario_of(tmp_path, text), {"second": [Ended("APPROVED")]}, takes_s=100)
    run = stage.run()
    assert (run.asked[1].state, run.asked[1].ended_s - run.asked[1].began_s) == ("APPROVED", 5)


def test_nothing_is_left_of_a_play_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    class Failing(FakeStage):
        async def __aenter__(self) -> Self:
            (seen[0] / "state").mkdir()
            raise EngineError("the parties cannot be made ready")

    def stage(name: str, scenario: object, seed: int, folder: Path, show: object) -> FakeStage:
        seen.append(folder)
        return Failing(scenario_of(tmp_path, ASKS))

    monkeypatch.setattr(playing, "_stage", stage)
    with pytest.raises(EngineError, match="made ready"):
        play(scenario_of(tmp_path, ASKS), "memory")
    assert not seen[0].exists()


def test_a_run_keeps_its_folder_until_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Path, int]] = []

    def stage(name: str, scenario: object, seed: int, folder: Path, show: object) -> FakeStage:
        seen.append((folder, seed))
        return FakeStage(scenario_of(tmp_path, ASKS))

    monkeypatch.setattr(playing, "_stage", stage)
    with play(scenario_of(tmp_path, ASKS), "memory", seed=5) as run:
        ((folder, seed),) = seen
        assert folder.exists() and (seed, run.seed) == (5, 5)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('by = ["sex"]', 'by = ["stage"]', "stage"),
        ('column = "sex"', 'colum = "sex"', "colum"),
    ],
)
def test_documents_that_nobody_could_use(tmp_path: Path, old: str, new: str, words: str) -> None:
    scenario = scenario_of(tmp_path, ASKS)
    for name in ("query.toml", "mapping.toml"):
        (tmp_path / name).write_text((tmp_path / name).read_text().replace(old, new))
    before = set(Path(tempfile.gettempdir()).glob("mpc-scenario-*"))
    with pytest.raises(DocumentError, match=words):
        play(scenario, "processes")
    assert set(Path(tempfile.gettempdir()).glob("mpc-scenario-*")) <= before


def test_a_budget_where_none_is_stated(tmp_path: Path) -> None:
    own = """[party.policy]
greatest_epsilon = "1"
least_threshold = 9
[party.policy.budget]
epsilon = "2"
[[party]]
name = "helper"
"""
    text = PARTIES.replace('[[party]]\nname = "helper"\n', own)
    scenario = scenario_of(tmp_path, ASKS, text)
    one, two, _ = scenario.party
    assert budgeted(scenario, one)["budget"] == {"epsilon": BUDGET}
    assert budgeted(scenario, two)["budget"] == {"epsilon": "2"}
    assert budgeted(scenario, two)["least_threshold"] == 9


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4)), min_size=1, max_size=4))
def test_every_request_has_a_name_and_a_question_of_its_own(asks: list[tuple[bool, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        text = "".join(
            f'[[ask]]\nname = "q{number}"\nquery = "query.toml"\nchange = {{ title = "title {number}" }}\n'
            f"{'together' if together else 'times'} = {count}\n"
            for number, (together, count) in enumerate(asks)
        )
        stage = FakeStage(scenario_of(Path(folder), text))
        run = stage.run()
    assert len({asked.name for asked in run.asked}) == len(run.asked) == sum(count for _, count in asks)
    questions = sum(count if together else 1 for together, count in asks)
    assert len({query.digest() for query in stage.queries}) == questions


def test_a_long_title_stays_within_bounds(tmp_path: Path) -> None:
    scenario_of(tmp_path, ASKS)
    (tmp_path / "query.toml").write_text(f'title = "{200 * "x"}"\n' + (tmp_path / "query.toml").read_text())
    query = load_query(tmp_path / "query.toml")
    assert titled(query, 999).title.endswith("(1000)")
    assert titled(query, 0) != query


def test_a_fault_fails_loudly(tmp_path: Path) -> None:
    """A fault that the stage cannot do is no fault of the parties, and must not go unnoticed."""

    class Unable(FakeStage):
        async def strike(self, fault: object, happened: object) -> None:
            raise DocumentError("cannot be played here")

    stage = Unable(scenario_of(tmp_path, f'{ASKS}[[fault]]\nparty = "two"\nkind = "kill"\n'))
    with pytest.raises(DocumentError, match="played here"):
        stage.run()
    assert stage.told[-1] == "exit"
