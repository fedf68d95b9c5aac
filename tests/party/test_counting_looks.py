"""Looks at registered records: what is read again, how they stand before the first, registering meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.errors import DataError
from mpc_engine.party import counting
from mpc_engine.party.counting import RegisteredCounter
from mpc_engine.silo import registration, tabulate
from mpc_engine.silo.dummy import write_records
from mpc_engine.silo.register import register
from tests.party.machines import CODEBOOK
from tests.party.test_readiness import NOW, QUERY, WELL


class Home:
    """A folder with a source of 30 records, its mapping and a registration, and a counter of it."""

    def __init__(self, folder: Path) -> None:
        (folder / "codebook.toml").write_text(CODEBOOK)
        self.codebook: Codebook = load_codebook(folder / "codebook.toml")
        self.source, self.data = folder / "rows.csv", folder / "data"
        self.mapping = write_records(self.codebook, self.source, 30, 1)
        self.counter = RegisteredCounter(self.data, 1 << 24)
        self.register()

    def register(self) -> None:
        register(self.mapping, self.data)

    @property
    def snapshot(self) -> Path:
        (found,) = self.data.glob("*.parquet")
        return found

    def spoil(self) -> None:
        self.snapshot.write_bytes(b"x" + self.snapshot.read_bytes()[1:])

    def look(self) -> str:
        asyncio.run(self.counter.look(self.codebook))
        return self.counter.standing.fault


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the files that are read whole, in order."""
    found: list[str] = []
    kept = registration.sha256

    def noted(path: Path) -> str:
        found.append(path.suffix)
        return kept(path)

    monkeypatch.setattr(registration, "sha256", noted)
    return found


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, happens: Callable[[], object], times: int = 1
) -> None:
    """Let something happen just before a function's first calls."""
    kept, left = getattr(module, name), [happens] * times

    def late(*arguments: Any) -> Any:
        if left:
            left.pop()()
        return kept(*arguments)

    monkeypatch.setattr(module, name, late)


# --- registering meanwhile ------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "name"), [(counting, "check_snapshot"), (tabulate, "tabulate")])
def test_records_registered_during_a_count_are_counted(
    home: Home, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    before = home.counter.snapshot()
    meanwhile(monkeypatch, module, name, home.register)
    counted = asyncio.run(home.counter.count(QUERY, home.codebook))
    assert counted.snapshot_id == home.counter.snapshot() != before
    assert counted.sums is not None and counted.sums[0][0].sum() == 30
    assert home.counter.running == 0


def test_a_count_begins_again_once_only_and_only_on_other_records(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    meanwhile(monkeypatch, counting, "check_snapshot", lambda: tried.append(1), times=9)
    home.spoil()
    with pytest.raises(DataError, match="altered"):
        asyncio.run(home.counter.count(QUERY, home.codebook))
    assert len(tried) == 1
    meanwhile(monkeypatch, counting, "check_snapshot", home.register, times=2)
    with pytest.raises(DataError, match="missing"):
        asyncio.run(home.counter.count(QUERY, home.codebook))
    assert len(tried) == 3 and home.counter.running == 0


def test_a_registration_that_goes_during_a_count_leaves_the_first_failure(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.spoil()
    meanwhile(monkeypatch, counting, "check_snapshot", (home.data / registration.FILE).unlink)
    with pytest.raises(DataError, match="altered"):
        asyncio.run(home.counter.count(QUERY, home.codebook))


def test_records_registered_during_a_look_are_looked_at(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(monkeypatch, counting, "check_use", home.register)
    assert home.look() == "" and home.counter.usable


# --- what is read again ---------------------------------------------------------------------------


def test_a_snapshot_that_stays_altered_is_read_once(home: Home, read: list[str]) -> None:
    whole = home.snapshot.read_bytes()
    home.spoil()
    for _ in range(5):
        assert "altered" in home.look()
    assert read.count(".parquet") == 1
    other = home.snapshot.with_name("other")
    other.write_bytes(whole)
    other.replace(home.snapshot)
    assert home.look() == "" and read.count(".parquet") == 2


def test_a_snapshot_that_could_not_be_read_is_tried_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(registration, "sha256", lambda path: "")  # the disk fails, the file stays as it is
        assert home.look()
    assert home.look() == ""


def test_each_file_is_read_again_only_if_it_has_changed_itself(home: Home, read: list[str]) -> None:
    home.look()
    read.clear()
    size = home.source.stat().st_size
    for moment in range(3):
        os.utime(home.source, ns=(moment, moment))
        assert home.look() == "" and not home.counter.standing.newer
    assert read == [".csv"] * 3
    read.clear()
    for more in range(3):
        with home.source.open("a") as file:
            file.write("\n")
        assert home.source.stat().st_size > size + more
        home.look()
        assert [each.document for each in home.counter.standing.newer] == ["source"]
    assert read == []
    home.mapping.write_text(home.mapping.read_text() + "\n# a note\n")
    for _ in range(3):
        home.look()
    assert read == [".toml"] and [each.document for each in home.counter.standing.newer] == ["source"]


def test_a_look_reads_again_what_is_registered_anew_or_what_a_count_failed_on(
    home: Home, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home.look()
    home.register()
    read.clear()
    assert home.look() == "" and read.count(".parquet") == 1
    home.counter.count_bound = 1
    with pytest.raises(DataError, match="bound"):
        asyncio.run(home.counter.count(QUERY, home.codebook))
    assert "bound" in home.look()
    home.counter.count_bound = 1 << 24
    read.clear()
    assert home.look() == "" and read.count(".parquet") == 1


# --- before the first look ------------------------------------------------------------------------


def test_a_silo_is_not_ready_before_its_records_were_looked_at(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "LOOK_S", 0.001)

    async def looked() -> None:
        may_read = asyncio.Event()

        async def slow(see: Callable[..., Any], *arguments: Any) -> Any:
            await may_read.wait()
            return see(*arguments)

        counter = RegisteredCounter(home.data, 1 << 24, away=slow)
        await counter.look(home.codebook)
        assert counter.usable == "" and counter.snapshot() and counter.busy
        assert replace(WELL, snapshot=counter.usable).missing(NOW) == ("DATA",)
        assert counter.standing.as_fields()["words"] == "not looked at yet"
        may_read.set()
        async with asyncio.timeout(30):
            while counter.standing.fault:
                await counter.look(home.codebook)
        assert counter.usable == counter.snapshot()

    asyncio.run(looked())


def test_a_helper_has_nothing_to_look_at(home: Home) -> None:
    helper = RegisteredCounter(None, 1 << 24)
    assert helper.standing.fault == ""
    asyncio.run(helper.look(home.codebook))
    assert helper.standing.fault == "" and not helper.busy
    assert replace(WELL, silo=False, snapshot=helper.usable).missing(NOW) == ()
