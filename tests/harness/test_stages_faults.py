"""Faults that fail are told, and those that come are noted as what they are, on every stage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from mpc_engine.errors import PeerError
from mpc_engine.harness import actor, processes
from mpc_engine.harness.befalling import Befalling
from mpc_engine.harness.ledgers import Told
from mpc_engine.harness.network import NetworkStage
from mpc_engine.harness.processes import ProcessStage
from mpc_engine.harness.record import Happened
from mpc_engine.harness.wire import Wire
from mpc_engine.scenario.faults import Fault
from tests.harness.staged import NAMES
from tests.harness.test_relay import segment

# --- faults that fail -----------------------------------------------------------------------------------


def process_stage(folder: Path, made: type[ProcessStage] = ProcessStage) -> Any:
    """Return a stage of processes without any: ready at 0, parties are folders."""
    homes = {}
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        homes[name] = SimpleNamespace(name=name, folder=folder / name)
    stage: Any = object.__new__(made)
    stage._tasks, stage._failures, stage._laid, stage._down, stage._renewed = set(), [], [], set(), set()
    stage._ready, stage.scenario = 0.0, SimpleNamespace(fault=[])
    stage.layout = SimpleNamespace(homes=homes, renew=lambda name: None)
    stage.fleet = mock.Mock(end=mock.AsyncMock(), revive=mock.AsyncMock(), restart=mock.AsyncMock())
    stage.status = mock.AsyncMock(return_value={"ready": True, "sessions": 0})
    return stage


def broken(*_: object) -> None:
    raise OSError("no room")


def test_a_renewal_that_fails_is_told(tmp_path: Path) -> None:
    stage = process_stage(tmp_path)
    stage.layout.renew = broken
    happened = Happened(Fault(kind="expire", party="two", for_s=0.001))

    async def main() -> None:
        stage.arm(happened.fault, happened)
        await asyncio.wait(set(stage._tasks))
        await stage.mend()

    with (
        mock.patch.object(processes, "read_ledger", lambda home: Told()),
        pytest.raises(OSError, match="room"),
    ):
        asyncio.run(main())
    assert happened.began_s is not None and happened.ended_s is None


@pytest.mark.parametrize("kind", ["kill", "slow", "tamper"])
def test_a_fault_that_failed_has_not_come(tmp_path: Path, kind: Any) -> None:
    """It counted as come before anything had been done."""
    stage = process_stage(tmp_path)
    happened = Happened(Fault(kind=kind, party="two", for_s=1))
    with mock.patch.object(processes, "read_ledger", broken), pytest.raises(OSError, match="room"):
        asyncio.run(stage.strike(happened.fault, happened))
    assert happened.began_s is None and not stage._down


def test_a_trap_that_nobody_has_looked_at_yet_has_come(tmp_path: Path) -> None:
    """The last question may end before that, and a fault must not be missed for it."""
    stage = process_stage(tmp_path)
    kill = Happened(Fault(kind="kill", party="two", at="agreed"))
    freeze = Happened(Fault(kind="freeze", party="one", at="agreed"))

    async def main() -> None:
        for happened in (kill, freeze):
            stage.arm(happened.fault, happened)
        actor.put(tmp_path / "two" / actor.SPRUNG, {"at": 3.5})
        await stage.mend()

    with mock.patch.object(processes, "read_ledger", lambda home: Told(spent=7)):
        asyncio.run(main())
    assert (kill.began_s, kill.spent_before) == (3.5, dict.fromkeys(NAMES, 7))
    assert freeze.began_s is None and stage._down == {"two"}


def befallen(strike: Callable[[Befalling], Any], **parts: Any) -> Befalling:
    """Return the faults of a stage in memory after something was done with them."""
    exchange = mock.Mock(refused=set(), peers=lambda number: [1, 2])
    faults = Befalling(NAMES, exchange, parts.get("weather", mock.Mock()), lambda: 5.0)
    faults.seats = parts.get("seats", mock.Mock(spent=lambda number: 7, start=mock.AsyncMock()))

    async def main() -> None:
        strike(faults)
        for _ in range(5):
            await asyncio.sleep(0)
        await faults.mend()

    try:
        asyncio.run(main())
    except OSError as error:
        assert faults._failures == [error]
    return faults


def test_in_one_process_a_fault_that_fails_is_told_too() -> None:
    seats = mock.Mock(spent=lambda number: 7, start=mock.AsyncMock(), kill=broken)
    at_place = Happened(Fault(kind="kill", party="two", at="agreed"))

    def reach(faults: Befalling) -> None:
        faults.arm(at_place)
        faults.reached(2, "agreed")  # the party's own code goes on

    assert befallen(reach, seats=seats)._failures and at_place.began_s is None
    ending = Happened(Fault(kind="slow", party="two", for_s=1e-9))
    wind = mock.Mock(slow=lambda *_: broken)
    assert befallen(lambda faults: faults.strike(ending), weather=wind)._failures
    assert (ending.began_s, ending.spent_before, ending.ended_s) == (5.0, dict.fromkeys(NAMES, 7), None)


def test_who_is_killed_while_starting_is_no_failure() -> None:
    seats = mock.Mock(spent=lambda number: 7, start=mock.AsyncMock(side_effect=PeerError("lost")))
    kill = Happened(Fault(kind="kill", party="two", for_s=1e-9))
    assert not befallen(lambda faults: faults.strike(kill), seats=seats)._failures


# --- resets ---------------------------------------------------------------------------------------------


def test_a_reset_is_its_own_faults_and_the_first_counts(tmp_path: Path) -> None:
    stage = process_stage(tmp_path, NetworkStage)
    stage._resets, stage._wires = {}, mock.Mock(reset=mock.Mock(side_effect=[11, 12]))
    one = Happened(Fault(kind="reset", party="one", against=("two", "helper"), bytes=10))
    two = Happened(Fault(kind="reset", party="one", bytes=10**6))

    async def main() -> None:
        for happened in (one, two):
            await stage.strike(happened.fault, happened)
        # Both in one go: nothing may be left to a task that runs later.
        stage._came({"order": 11, "party": "one", "against": "two", "at": 1.0})
        stage._came({"order": 11, "party": "one", "against": "helper", "at": 2.0})
        assert (one.began_s, one.ended_s) == (1.0, 1.0)
        await asyncio.gather(*stage._tasks)

    with mock.patch.object(processes, "read_ledger", lambda home: Told(spent=7)):
        asyncio.run(main())
    assert one.spent_before == dict.fromkeys(NAMES, 7)
    assert two.began_s is None and two.ended_s is None


def test_a_reset_that_has_not_come_when_all_is_mended_never_comes() -> None:
    wire, struck = Wire([1]), mock.Mock(return_value=[])
    wire.arm(3, struck)
    wire.heal()
    wire.take(segment(b"content"), 0.0)
    assert len(wire.due(0.0)) == 1 and not struck.called
