"""What the process of a party looks after: readiness, expiry, counts of registered records, metrics."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.errors import DataError
from mpc_engine.identity import throwaway_identity
from mpc_engine.party import counting
from mpc_engine.party.counting import MOST_AT_ONCE, RegisteredCounter
from mpc_engine.party.metrics import Metrics, ObservedLedger
from mpc_engine.party.readiness import ALONE, LEAST_FREE_BYTES, Condition, ExpiryWatch
from mpc_engine.silo import registration
from mpc_engine.silo.dummy import write_records
from mpc_engine.silo.register import register
from mpc_engine.statistics.presets import parse_query
from tests.party.machines import CODEBOOK

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WELL = Condition(
    stopping=False,
    ledger_broken=False,
    behind=False,
    free_bytes=LEAST_FREE_BYTES,
    not_after=NOW + timedelta(seconds=1),
    silo=True,
    snapshot="ab" * 16,
    peers_up=True,
)


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({}, ()),
        ({"stopping": True}, ("SHUTTING_DOWN",)),
        ({"ledger_broken": True}, ("LEDGER_BROKEN",)),
        ({"behind": True}, ("LEDGER_ROLLBACK",)),
        ({"free_bytes": LEAST_FREE_BYTES - 1}, ("DISK_FULL",)),
        ({"not_after": NOW}, ("CERT_EXPIRED",)),
        ({"snapshot": ""}, ("DATA",)),
        ({"snapshot": "", "silo": False}, ()),
        ({"peers_up": False, "snapshot": ""}, ("DATA", "PEER_UNAVAILABLE")),
    ],
)
def test_a_party_is_ready_if_nothing_is_missing(changed: dict[str, Any], missing: tuple[str, ...]) -> None:
    assert replace(WELL, **changed).missing(NOW) == missing
    assert {"DATA", "LEDGER_ROLLBACK", "PEER_UNAVAILABLE"} == ALONE


def test_expiry_is_noted_at_each_threshold_and_then_daily() -> None:
    noted: list[dict[str, Any]] = []
    watch = ExpiryWatch(lambda event, /, **fields: noted.append({"event": event, **fields}))
    card = throwaway_identity("uk", address="uk.example:1", clock=lambda: NOW).card
    end = card.pinned.not_after
    for left in (61, 60, 59.5, 59, 58, 30, 7, 0.5, 0, -0.5, -1):
        watch.look((card,), end - timedelta(days=left))
    assert {each["party"] for each in noted} == {"uk"}
    found = [(each["within"], each["days"]) for each in noted]
    assert found == [(60, 60), (60, 59), (60, 58), (30, 30), (7, 7), (7, 0), (0, 0), (0, 0)]


# --- counting -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registration of 30 records."""
    folder = tmp_path_factory.mktemp("silo")
    (folder / "codebook.toml").write_text(CODEBOOK)
    mapping = write_records(load_codebook(folder / "codebook.toml"), folder / "rows.csv", 30, 1)
    register(mapping, folder / "data")
    return folder / "data"


QUERY = parse_query(
    {
        "preset": "crosstab",
        "by": ["sex"],
        "privacy": {"epsilon": "1", "rule": "noisy", "threshold": 5, "max_records_per_patient": 1},
    }
)


def test_a_registration_is_counted_and_noticed_when_it_changes(registered: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(registered, folder)
    codebook = load_codebook(registered.parent / "codebook.toml")
    counter = RegisteredCounter(folder, 1 << 24)
    counted = asyncio.run(counter.count(QUERY, codebook))
    assert counted.sums is not None and counted.sums[0][0].sum() == 30  # beside the guards
    assert counted.snapshot_id == counter.snapshot() and len(counter.snapshot()) == 32
    assert counter.running == 0
    file = folder / "registration.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps(fields | {"snapshot_id": "cd" * 16}))
    assert counter.snapshot() == "cd" * 16
    for broken in ("{", json.dumps(fields | {"snapshot_id": "../../etc"}), "[]"):
        file.write_text(broken)
        assert counter.snapshot() == ""
    file.unlink()
    assert counter.snapshot() == ""
    with pytest.raises(DataError):
        asyncio.run(counter.count(QUERY, codebook))


def test_a_snapshot_that_cannot_be_counted_is_noticed_before_anybody_asks(
    registered: Path, tmp_path: Path
) -> None:
    shutil.copytree(registered, tmp_path / "data")
    codebook = load_codebook(registered.parent / "codebook.toml")
    (tmp_path / "other.toml").write_text(CODEBOOK + 'description = "another"\n')
    other = load_codebook(tmp_path / "other.toml")
    counter = RegisteredCounter(tmp_path / "data", 1 << 24)

    def look(found: Codebook = codebook) -> str:
        asyncio.run(counter.look(found))
        assert bool(counter.usable) != bool(counter.standing.fault)
        return counter.standing.fault

    assert look() == "" and counter.standing.words.endswith(", 30 rows")
    assert "another codebook" in look(other)
    assert look() == ""
    counter.count_bound = 100
    assert "bound" in look()
    counter.count_bound = 1 << 24
    (snapshot,) = (tmp_path / "data").glob("*.parquet")
    content = snapshot.read_bytes()
    snapshot.write_bytes(b"x" + content[1:])
    assert "missing or was altered" in look()
    snapshot.unlink()
    assert "missing or was altered" in look() and counter.snapshot()
    snapshot.write_bytes(content)
    assert look() == "" and counter.usable == counter.snapshot()
    (tmp_path / "data" / "registration.json").unlink()
    assert "no data are registered" in look() and not counter.busy


def test_unchanged_records_are_not_read_again_until_a_count_fails(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(registered, tmp_path / "data")
    codebook = load_codebook(registered.parent / "codebook.toml")
    read: list[str] = []
    kept = registration.sha256
    monkeypatch.setattr(registration, "sha256", lambda path: read.append(path.suffix) or kept(path))
    counter = RegisteredCounter(tmp_path / "data", 1 << 24)
    for _ in range(3):
        asyncio.run(counter.look(codebook))
    assert read.count(".parquet") == 1
    (snapshot,) = (tmp_path / "data").glob("*.parquet")
    was, content = snapshot.stat(), snapshot.read_bytes()
    monkeypatch.setattr(counting, "_state", lambda path: (1,))  # a disk that alters a file behind its back
    asyncio.run(counter.look(codebook))
    snapshot.write_bytes(b"x" + content[1:])
    os.utime(snapshot, ns=(was.st_atime_ns, was.st_mtime_ns))
    asyncio.run(counter.look(codebook))
    assert not counter.standing.fault
    with pytest.raises(DataError, match="altered"):
        asyncio.run(counter.count(QUERY, codebook))
    asyncio.run(counter.look(codebook))
    assert "altered" in counter.standing.fault


def test_a_source_that_changed_is_told_and_counts_no_less(registered: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(registered.parent, home)
    (mapping,) = home.glob("*mapping*.toml")
    register(mapping, home / "data")
    codebook = load_codebook(home / "codebook.toml")
    counter = RegisteredCounter(home / "data", 1 << 24)
    rows = home / "rows.csv"
    rows.write_text(rows.read_text() + "anything\n")
    asyncio.run(counter.look(codebook))
    assert [each.words for each in counter.standing.newer] == ["rows.csv has changed since"]
    assert counter.usable and counter.standing.as_fields()["newer"] == ["rows.csv has changed since"]
    counted = asyncio.run(counter.count(QUERY, codebook))
    assert counted.sums is not None and counted.sums[0][0].sum() == 30


def test_a_bound_above_the_rosters_and_a_helper(registered: Path) -> None:
    codebook = load_codebook(registered.parent / "codebook.toml")
    with pytest.raises(DataError, match="bound"):
        asyncio.run(RegisteredCounter(registered, 100).count(QUERY, codebook))
    helper = RegisteredCounter(None, 100)
    counted = asyncio.run(helper.count(QUERY, codebook))
    assert (helper.snapshot(), counted.snapshot_id, counted.sums) == ("", "", None)


def test_only_so_many_count_at_once(registered: Path) -> None:
    codebook = load_codebook(registered.parent / "codebook.toml")
    running, most = 0, 0

    async def away(count: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return "", ()

    async def several() -> None:
        counter = RegisteredCounter(registered, 1 << 24, away=away)
        await asyncio.gather(*(counter.count(QUERY, codebook) for _ in range(10)))

    asyncio.run(several())
    assert most == MOST_AT_ONCE


# --- metrics --------------------------------------------------------------------------------------


def test_phases_are_timed_and_outcomes_counted() -> None:
    now = 0.0
    metrics = Metrics(clock=lambda: now)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"mpc_engine_{name}", labels)

    for phase, at in (("reserve", 0.0), ("compute", 2.0), ("commit", 5.0)):
        now = at
        metrics.note("session.phase", ticket="a", phase=phase)
        metrics.note("session.phase", ticket="b", phase="invented")
    now = 5.5
    metrics.note("session.released", ticket="a")
    metrics.note("session.aborted", ticket="b", reason="POLICY_DENIED")
    metrics.note("session.aborted", ticket="c", reason="POLICY_DENIED")
    assert value("session_seconds_sum", phase="reserve") == 2
    assert value("session_seconds_sum", phase="compute") == 3
    assert value("session_seconds_sum", phase="commit") == 0.5
    assert value("session_seconds_sum", phase="invented") is None
    assert value("sessions_total", outcome="released") == 1
    assert value("sessions_total", outcome="aborted") == 2
    assert value("sessions_total", outcome="lost") == 0


def test_changes_of_the_ledger_are_timed() -> None:
    metrics = Metrics()
    ledger = ObservedLedger.in_memory(party="uk")
    ledger.observe = metrics.committed
    with ledger.transaction():
        pass
    with pytest.raises(ValueError, match="not done"), ledger.transaction():
        raise ValueError("not done")
    assert metrics.registry.get_sample_value("mpc_engine_ledger_commit_seconds_count") == 1
