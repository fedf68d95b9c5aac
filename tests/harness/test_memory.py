"""Scenarios in one process: whole parties on virtual time, and the faults that befall them."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc_engine.errors import DocumentError, EngineError
from mpc_engine.harness import memory
from mpc_engine.harness.memory import MemoryStage
from mpc_engine.harness.play import play
from mpc_engine.harness.record import Run, Seen
from mpc_engine.party import failpoints
from mpc_engine.party.session import Session
from mpc_engine.protocols import coins, dealing, signs
from mpc_engine.runtime.link import Section
from mpc_engine.runtime.memory import MemoryLink
from mpc_engine.scenario.document import Scenario, load_scenario
from mpc_engine.silo.register import register

WILMS = Path(__file__).parents[2] / "scenarios" / "wilms"
QUERY = WILMS / "stage_by_histology.toml"
PATCHED = (
    lambda: failpoints.hook,
    lambda: MemoryLink.arrive,
    lambda: MemoryLink.bind_session,
    lambda: Session.compute,
    lambda: Session.publish,
    lambda: dealing.outgoing,
    lambda: vars(signs)["random_bits"],
    lambda: vars(coins)["random_bits"],
)
"""All that is replaced while a stage lives."""


@pytest.fixture(autouse=True, scope="module")
def registered_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have each mapping's records registered once: what comes of it is copied from then on."""
    kept: dict[Path, Path] = {}

    def register_once(mapping: Path, state: Path) -> None:
        if mapping not in kept:
            kept[mapping] = tmp_path_factory.mktemp("registered")
            register(mapping, kept[mapping])
        shutil.copytree(kept[mapping], state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "register", register_once)
        yield


def scenario(folder: Path, *tables: str, policy: str = "", ask: str = "", top: str = "") -> Scenario:
    """Return a scenario of the Wilms study: one question `q`, with further tables such as faults."""
    text = f"""
        codebook = "{WILMS / "codebook.toml"}"
        runs_in = ["memory"]
        {top}
        [policy]
        greatest_epsilon = "1"
        least_threshold = 5
        {policy}
        [[party]]
        name = "uk"
        mapping = "{WILMS / "uk.mapping.toml"}"
        [[party]]
        name = "us"
        mapping = "{WILMS / "us.mapping.toml"}"
        [[party]]
        name = "helper"
        [[ask]]
        name = "q"
        query = "{QUERY}"
        {ask}
    """
    path = folder / "scenario.toml"
    path.write_text("\n".join((text, *tables)))
    return load_scenario(path)


def fault(kind: str, party: str, **fields: Any) -> str:
    """Return a fault as a table."""
    lines = [f"{name} = {value!r}" for name, value in fields.items()]
    return "\n".join(("[[fault]]", f'kind = "{kind}"', f'party = "{party}"', *lines))


def played(folder: Path, *tables: str, seed: int = 1, **more: str) -> Run:
    """Play a scenario in memory; everybody must serve in the end, with a ledger in order."""
    run = play(scenario(folder, *tables, **more), "memory", seed=seed)
    for party in run.parties.values():
        assert party.serves and party.verified, party
    return run


def only(run: Run) -> Any:
    """Return the one request of a run."""
    (asked,) = run.asked
    return asked


def schedule(run: Run) -> list[tuple[str, float, str]]:
    """Return what happened at which party and time."""
    return [
        (party.name, noted.at_s, noted.event) for party in run.parties.values() for noted in party.journal
    ]


def test_a_release_in_no_time_and_everything_as_it_was(tmp_path: Path) -> None:
    before = [each() for each in PATCHED]
    run = played(tmp_path)
    assert [each() for each in PATCHED] == before
    asked = only(run)
    assert asked.state == "RELEASED" and 0 < asked.ended_s < 1
    assert asked.release["query"]["preset"] == "crosstab" and len(asked.receipt["signatures"]) == 3
    for party in run.parties.values():
        assert party.spent == 1_000_000 and [row.state for row in party.sessions] == ["RELEASED"]
        assert party.usage.sent_bytes > 0 and not party.seen
    sent = sum(party.usage.sent_bytes for party in run.parties.values())
    assert sent == sum(party.usage.received_bytes for party in run.parties.values())
    (meter,) = run.further["meters"].values()
    assert set(meter) == {"uk", "us", "helper"} and meter["uk"]["control_rounds"] == 5
    records, patients = run.pooled(asked)[0].reshape(2, 8)
    assert records.sum() == patients.sum() == 4_028  # children in the data set
    run.close()


def test_a_seed_repeats_its_schedule(tmp_path: Path) -> None:
    more = {"top": "network = { delay_ms = 20, jitter_ms = 5 }"}
    kill = fault("kill", "helper", at="agreed", for_s=7)
    runs = [played(tmp_path, kill, seed=seed, **more) for seed in (3, 3, 4)]
    assert schedule(runs[0]) == schedule(runs[1]) != schedule(runs[2])
    assert only(runs[0]).ticket != only(runs[1]).ticket  # what is secret or random to others follows no seed


def test_a_party_killed_after_its_commit_goes_on(tmp_path: Path) -> None:
    run = played(tmp_path, fault("kill", "us", at="after_commit", for_s=20))
    (happened,) = run.faults
    assert happened.began_s is not None and happened.ended_s == pytest.approx(happened.began_s + 20)
    assert happened.spent_before["us"] == 1_000_000 == happened.spent_after["us"]
    assert only(run).state == "RELEASED" and only(run).ended_s > 20
    assert [row.state for row in run.parties["us"].sessions] == ["RELEASED"]
    starts = [noted for noted in run.parties["us"].journal if noted.event == "party.started"]
    assert [noted.at_s for noted in starts] == [0, pytest.approx(happened.ended_s)]


def test_a_party_is_away_for_hours_before_it_has_stored_the_release(tmp_path: Path) -> None:
    run = played(tmp_path, fault("kill", "us", at="before_opened", for_s=21_600), ask="wait_s = 200_000")
    asked = only(run)
    assert asked.state == "RELEASED" and 21_600 < asked.ended_s < 21_800
    assert all(party.spent == 1_000_000 for party in run.parties.values())


@pytest.mark.parametrize(("at", "ends"), [("counted", "ABORTED"), ("after_pattern", "RELEASED")])
def test_a_partition_heals(tmp_path: Path, at: str, ends: str) -> None:
    """Before the commit the session is given up and made again, after it it is completed."""
    run = played(tmp_path, fault("partition", "us", at=at, for_s=120))
    (happened,) = run.faults
    assert only(run).state == "RELEASED" and 120 < only(run).ended_s < 200
    assert happened.noticed_s == pytest.approx(25, abs=1) and happened.ended_s == pytest.approx(120, abs=1)
    for party in run.parties.values():
        assert party.spent == 1_000_000 and party.sessions[0].state == ends


def test_a_short_partition_goes_unnoticed(tmp_path: Path) -> None:
    run = played(tmp_path, fault("partition", "us", at="counted", for_s=12, against=["uk"]))
    assert only(run).state == "RELEASED" and 12 < only(run).ended_s < 13
    assert run.faults[0].noticed_s is None


def test_who_tampers_with_values_is_found_out(tmp_path: Path) -> None:
    run = played(tmp_path, fault("tamper", "us"))
    assert (only(run).state, only(run).reason) == ("RETURNED", "PUBLICATION_ABORT")
    assert only(run).release is None and run.faults[0].reason == "INTEGRITY_ABORT"
    for name in ("uk", "helper"):
        (row,) = run.parties[name].sessions
        assert (row.state, row.reason) == ("LOST", "INTEGRITY_ABORT")
    assert all(party.spent == 1_000_000 for party in run.parties.values())


def test_who_tampers_for_a_moment_delays(tmp_path: Path) -> None:
    run = played(tmp_path, fault("tamper", "helper", for_s=1))
    assert only(run).state == "RELEASED" and only(run).ended_s > 1
    assert run.faults[0].ended_s == pytest.approx(1)


@pytest.mark.parametrize(
    ("table", "least_s", "most_s"),
    [
        (fault("freeze", "helper", at="agreed", for_s=15), 15, 16),
        (fault("freeze", "uk", at="agreed", for_s=40), 40, 60),
        (fault("reset", "helper", against=["uk"], bytes=2_000), 1, 30),
        (fault("slow", "helper", for_s=100, factor=50), 0.05, 1),
        (fault("stop", "us", at="counted", for_s=100), 100, 130),
        (fault("stop", "us", at="before_opened", for_s=100), 0, 40),
        (fault("kill", "uk", after_s=0, for_s=30), 30, 60),
        (fault("kill", "helper", at="reserved", for_s=30), 30, 60),
    ],
)
def test_faults_end_and_the_question_is_answered(
    tmp_path: Path, table: str, least_s: float, most_s: float
) -> None:
    run = played(tmp_path, table)
    (happened,) = run.faults
    assert happened.began_s is not None
    assert only(run).state == "RELEASED" and least_s <= only(run).ended_s <= most_s, only(run).ended_s
    assert all(party.spent == 1_000_000 for party in run.parties.values())


def test_what_does_not_end_by_itself_is_mended(tmp_path: Path) -> None:
    """A party that stays down leaves the question unanswered; it serves again in the end all the same."""
    for kind in ("kill", "freeze"):
        run = played(tmp_path, fault(kind, "helper", after_s=0, at="begin"), ask="wait_s = 300")
        assert only(run).state != "RELEASED" and only(run).ended_s == pytest.approx(300, abs=2)
        assert run.faults[0].ended_s is None


def test_an_expired_certificate_matters_once_a_connection_breaks(tmp_path: Path) -> None:
    second = f'[[ask]]\nname = "later"\nquery = "{QUERY}"\nafter_s = 100\nchange = {{ title = "b" }}\n'
    expire = fault("expire", "us", after_s=50)
    run = played(tmp_path, second, expire)
    assert [asked.state for asked in run.asked] == ["RELEASED", "RELEASED"]
    run = played(tmp_path, second, expire, fault("reset", "us", after_s=60))
    assert [asked.state for asked in run.asked] == ["RELEASED", "PARTIALLY_REVIEWED"]
    assert run.faults[0].began_s == 50


def test_questions_again_at_once_and_by_several(tmp_path: Path) -> None:
    other = (
        f'[[ask]]\nname = "other"\nquery = "{QUERY}"\nanalyst = "bob"\nparty = "us"\ntogether = 3\n'
        f'[[ask]]\nname = "dear"\nquery = "{QUERY}"\nchange = {{ privacy = {{ epsilon = "2" }} }}\n'
    )
    run = played(tmp_path, other, ask="times = 2", policy='budget = { epsilon = "3" }')
    states = Counter((asked.ask.name, asked.state, asked.reason) for asked in run.asked)
    assert states == {
        ("q", "RELEASED", ""): 2,
        ("other", "RELEASED", ""): 2,
        ("other", "RETURNED", "BUDGET_EXCEEDED"): 1,
        ("dear", "REJECTED", "POLICY_DENIED"): 1,
    }
    assert run.asked[0].release == run.asked[1].release
    assert all(run.parties[name].spent == 3_000_000 for name in ("uk", "us"))


def test_an_analysts_own_budget_is_the_policys(tmp_path: Path) -> None:
    again = f'[[ask]]\nname = "again"\nquery = "{QUERY}"\nchange = {{ title = "b" }}\n'
    run = played(tmp_path, again, policy='budget = { per_analyst = "1.5" }')
    assert [asked.reason for asked in run.asked] == ["", "BUDGET_EXCEEDED"]


def test_views_are_what_was_sent_received_and_dealt(tmp_path: Path) -> None:
    run = played(tmp_path, '[[expect]]\nkind = "attack"\nby = "coalition"\n')
    seen = {party.number: party.seen for party in run.parties.values()}
    (row,) = run.parties["uk"].sessions

    def moved(what: str) -> Counter[tuple[int, int, Any, bytes]]:
        found: Counter[tuple[int, int, Any, bytes]] = Counter()
        for party, views in seen.items():
            for each in views:
                ends = (party, each.peer) if what == "sent" else (each.peer, party)
                found[*ends, each.key, each.content] += each.what == what
        return +found

    assert moved("sent") == moved("received")
    everything = [each for views in seen.values() for each in views]
    assert {each.session.hex() for each in everything} == {row.session_id}
    sections = {each.key.section for each in everything if each.what == "received"}
    assert sections == {Section.PREPARE, Section.INPUT, Section.TEST, Section.PATTERN, Section.VALUES}
    for number, name in ((1, "uk"), (2, "us")):
        (counts,) = _drawn(seen[number], Section.INPUT)
        (own,) = run.sums(only(run))[name]
        dealt = np.frombuffer(counts.content, "<u4")
        assert dealt.size == 8 and np.array_equal(dealt, own[:8])
    assert not _drawn(seen[3], Section.INPUT)
    assert all(_drawn(views, Section.PREPARE) for views in seen.values())


def _drawn(views: tuple[Seen, ...], section: Section) -> list[Seen]:
    return [each for each in views if each.what == "drawn" and each.key.section is section]


def test_a_failure_on_the_way_leaves_nothing_behind(tmp_path: Path) -> None:
    before = [each() for each in PATCHED]
    made = MemoryStage(scenario(tmp_path), 1, _folder(tmp_path), lambda line: None)

    async def main() -> None:
        async with made:
            assert failpoints.hook is not before[0]
            raise KeyboardInterrupt

    with asyncio.Runner(loop_factory=made.new_loop) as runner, pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert [each() for each in PATCHED] == before
    assert not any(made.seats.runs(number) for number in (1, 2, 3))


def test_a_stage_wants_its_own_loop_and_documents_that_fit(tmp_path: Path) -> None:
    stage = MemoryStage(scenario(tmp_path), 1, _folder(tmp_path), lambda line: None)
    with pytest.raises(EngineError, match="virtual time"):
        asyncio.run(stage.__aenter__())
    with pytest.raises(DocumentError):
        played(tmp_path, top='title = "t"\n', ask='party = "helper"\nchange = { by = ["nothing"] }')


def _folder(base: Path) -> Path:
    folder = base / "stage"
    folder.mkdir()
    return folder
