"""Parties as processes: a study with faults played through, and that nothing of it is ever left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mpc_engine.documents import load
from mpc_engine.errors import DataError, DocumentError
from mpc_engine.harness.checks import judge
from mpc_engine.harness.children import Ends, LostError, Nursery
from mpc_engine.harness.fleet import RESTART_S, Fleet
from mpc_engine.harness.layout import Home, Layout
from mpc_engine.harness.play import play
from mpc_engine.harness.record import Run, Usage
from mpc_engine.identity import load_card, load_identity, utc_now
from mpc_engine.party.config import load_config
from mpc_engine.party.dossier import read_dossier
from mpc_engine.party.roster import Roster
from tests.harness.staged import NAMES, PARTIES, scenario_of
from tests.party.nursery import environment

PATIENCE_S = 60.0
"""Far more than anything here takes."""
ASK = '[[ask]]\nname = "q"\nquery = "query.toml"\n'
STUDY = """
[[ask]]
name = "q"
query = "query.toml"
times = 2
[[ask]]
name = "others"
query = "query.toml"
analyst = "somebody_else"
party = "two"
together = 3
[[fault]]
kind = "kill"
party = "helper"
at = "agreed"
for_s = 0.2
[[fault]]
kind = "slow"
party = "one"
ask = "others"
factor = 3
for_s = 0.4
[[expect]]
kind = "same"
[[expect]]
kind = "detected"
within_s = 5
[[expect]]
kind = "budget"
spent = "2"
[[expect]]
kind = "cost"
ask = "others"
rounds = 20
rss_mib = 2000
"""


def left(folder: Path) -> list[str]:
    """Return the files in a folder, and the processes that have it as their TMPDIR."""
    found = [str(path) for path in folder.iterdir()]
    for path in Path("/proc").glob("[0-9]*"):
        try:
            inside, status = (path / "environ").read_bytes(), (path / "stat").read_text()
        except OSError:
            continue
        if f"TMPDIR={folder}\0".encode() in inside and status.rpartition(")")[2].split()[0] != "Z":
            found.append(path.name)
    return found


@pytest.fixture
def emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for whatever is temporary, in which nothing is left in the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    ends = time.monotonic() + PATIENCE_S
    while (found := left(folder)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not found


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """A study with two faults, played once."""
    with tempfile.TemporaryDirectory() as folder, play(scenario_of(Path(folder), STUDY)) as played:
        yield played


def test_all_is_as_expected(run: Run) -> None:
    failed = [each for each in judge(run) if not each.holds]
    assert not failed, failed
    assert {asked.receipt is not None for asked in run.asked} == {True}


def test_what_is_known_of_the_faults(run: Run) -> None:
    kill, slow = run.faults
    assert kill.began_s is not None and kill.ended_s is not None and slow.began_s is not None
    assert run.asked[0].began_s < kill.began_s < kill.ended_s < run.asked[0].ended_s
    assert 0.2 <= kill.ended_s - kill.began_s < PATIENCE_S
    assert slow.began_s >= run.asked[1].ended_s
    assert kill.spent_before == dict.fromkeys(NAMES, 0)
    assert kill.spent_after == dict.fromkeys(NAMES, 2_000_000)


def test_what_is_known_of_the_parties(run: Run) -> None:
    assert [(each.number, each.silo) for each in run.parties.values()] == [(1, True), (2, True), (3, False)]
    for party in run.parties.values():
        assert party.verified and party.serves and party.spent == 2_000_000
        assert party.usage.cpu_s > 0 and party.usage.rss_mib > 50 and party.usage.sent_bytes > 1_000
        times = [noted.at_s for noted in party.journal]
        assert times == sorted(times) and times[0] >= 0 and times[-1] < run.took_s
        assert "session.released" in {noted.event for noted in party.journal}
    states: list[str] = [row.state for row in run.parties["one"].sessions]
    assert states.count("ABORTED") == 1 and states.count("RELEASED") == 4


def test_what_the_release_was_made_from(run: Run) -> None:
    (pooled,) = run.pooled(run.asked[0])
    assert pooled[:2].tolist() == [80, 60]
    meters = run.further["meters"][run.asked[-1].ticket]
    assert set(meters) == set(NAMES) and all(each["cpu_s"] > 0 for each in meters.values())


@pytest.mark.usefixtures("emptied")
def test_records_that_do_not_fit(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ASK)
    (tmp_path / "rows.csv").write_text("sex\nx\n")
    with pytest.raises(DataError):
        play(scenario)


@pytest.mark.usefixtures("emptied")
def test_a_party_that_cannot_start(tmp_path: Path) -> None:
    broken = PARTIES.replace('name = "helper"\n', 'name = "helper"\ncodebook = "query.toml"\n')
    with pytest.raises(LostError, match=r"helper does not start.*status 2"):
        play(scenario_of(tmp_path, ASK, broken))


def test_an_interrupt_ends_all(tmp_path: Path, emptied: Path) -> None:
    scenario = scenario_of(tmp_path, ASK)
    program = (
        "import sys\nfrom mpc_engine.harness.play import play\n"
        "from mpc_engine.scenario.document import load_scenario\n"
        "play(load_scenario(sys.argv[1]), show=lambda line: print(line, flush=True))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, scenario.origin],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("waiting"):
                assert left(emptied)
                os.kill(process.pid, signal.SIGINT)
                break
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert "KeyboardInterrupt" in errors


@pytest.mark.usefixtures("emptied")
def test_faults_of_networks_are_refused_before_anything_starts(tmp_path: Path) -> None:
    fault = '[[fault]]\nkind = "partition"\nparty = "two"\nfor_s = 1\n'
    with pytest.raises(DocumentError, match=r"fault\[0\].*partition.*processes"):
        play(scenario_of(tmp_path, ASK + fault), "processes")


# --- supervision ------------------------------------------------------------------------------------


class FakeNursery(Nursery):
    """Forks nothing; a process ends when `ends` has its number, which is told once."""

    def __init__(self) -> None:
        self.forked, self.ends, self.begun = 0, set[int](), list[float]()

    async def fork(self, home: Home, namespace: str = "") -> int:
        self.forked += 1
        self.begun.append(time.monotonic())
        return 10_000_000 + self.forked  # no process has such a number

    async def poll(self, pid: int) -> Ends | None:
        if pid not in self.ends:
            return None
        self.ends.remove(pid)
        return Ends(3, 0.5, 900.0)


def test_a_party_that_has_ended_is_started_again_but_not_too_often(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ASK)
    home = Home(scenario.party[0], 1, tmp_path, "")

    async def supervise() -> None:
        nursery = FakeNursery()
        fleet = Fleet(nursery, {"one": home}, lambda party: "")
        await fleet.start("one")
        assert await fleet.ended("one") == "" and not await fleet.restart("one")
        nursery.ends.add(10_000_001)
        assert "status 3" in await fleet.ended("one")
        fleet.signal("one", signal.SIGKILL)  # goes to nobody
        assert await fleet.ended("one")  # still, though it was told once
        assert not await fleet.restart("one")
        assert fleet.usage("one", (1, 2)) == Usage(0.5, 900.0, 1, 2)

        async def serves(name: str) -> bool:
            if nursery.forked == 2:
                nursery.ends.add(10_000_002)
            return nursery.forked == 3

        await fleet.revive("one", serves)
        assert nursery.begun[2] - nursery.begun[1] >= RESTART_S

    asyncio.run(supervise())


# --- folders ----------------------------------------------------------------------------------------


def test_a_layout_is_what_parties_can_start_with(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    scenario = scenario_of(tmp_path / "study", ASK + 'analyst = "a_b"\n')
    made = Layout(scenario, tmp_path / "made", validity={"two": timedelta(minutes=5)})
    for home in made.homes.values():
        config, roster = load_config(home.config)
        config.check_service()
        assert [member.name for member in config.directory(roster).members] == list(NAMES)
        assert (config.service.analysts is not None) == (home.name == "one")
    identity = load_identity(made.homes["two"].folder / "identity")
    assert abs(identity.certificate.not_after - utc_now() - timedelta(minutes=5)) < timedelta(minutes=1)


def test_analysts_are_enrolled_with_what_the_policies_grant(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    text = ASK + '[policy.budget]\nepsilon = "9"\nper_analyst = "1.5"\n'
    made = Layout(scenario_of(tmp_path / "study", text), tmp_path / "made")
    analysts = read_dossier(made.homes["two"].config).situation.analysts
    assert {each.terms.budget for each in analysts.values()} == {"1.5"}


def test_a_party_is_given_new_keys(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    made = Layout(scenario_of(tmp_path / "study", ASK), tmp_path / "made")
    card = made.homes["two"].folder / "identity" / "card.json"
    old = load_card(card)
    roster = load(tmp_path / "made" / "roster.json", Roster)
    before = load_config(made.homes["one"].config)[0].directory(roster)
    made.renew("two")
    after = load_config(made.homes["one"].config)[0].directory(roster)
    assert load_card(card).fingerprint != old.fingerprint
    assert after.digest == before.digest  # the roster is the same
    assert len(after.cards[1]) == 2


def test_an_overridden_codebook_is_the_partys_own(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    parties = PARTIES.replace('name = "two"\n', 'name = "two"\ncodebook = "other.toml"\n')
    scenario = scenario_of(tmp_path / "study", ASK, parties)
    other = (tmp_path / "study" / "codebook.toml").read_text().replace('version = "1"', 'version = "2"')
    (tmp_path / "study" / "other.toml").write_text(other)
    made = Layout(scenario, tmp_path / "made")
    made.register(lambda line: None)
    codebooks = {name: load_config(home.config)[0].codebook for name, home in made.homes.items()}
    assert {name: Path(each).name for name, each in codebooks.items()} == {
        "one": "codebook.toml",
        "two": "other.toml",
        "helper": "codebook.toml",
    }
    texts = [(folder / "registration.json").read_text() for folder in made.registered.values()]
    digests = {text.partition('codebook_digest": "')[2][:64] for text in texts}
    assert len(digests) == 2
