"""Real parties through every kind of trouble; SIMULATOR_SEEDS says how many seeds, 1,000 unless set."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mpc_engine.ledger.ledger import Ledger
from mpc_engine.runtime.link import MessageKey, Section
from tests.simulator import promises
from tests.simulator.cast import TEN
from tests.simulator.operations import Op, Reproduction, reproductions
from tests.simulator.registry import Image, registries, sessions
from tests.simulator.seeds import failure, first_failure
from tests.simulator.world import BrokenError, World

SEEDS = int(os.environ.get("SIMULATOR_SEEDS", "1000"))
FIRST = int(os.environ.get("SIMULATOR_FIRST_SEED", "0"))
SHARE = 25
"""Seeds of one test: few enough that all workers have something to do till the end."""
KEPT = reproductions(Path(__file__).parent / "reproductions")


def states(world: World, number: int) -> list[str]:
    return [row.state for row in sessions(world, number)]


@pytest.mark.parametrize("start", range(FIRST, FIRST + SEEDS, SHARE))
def test_seeds(start: int) -> None:
    found = first_failure(registries, range(start, min(start + SHARE, FIRST + SEEDS)))
    assert found is None, found


def test_a_seed_is_the_same_in_every_process() -> None:
    def trace(hash_seed: str) -> str:
        settings = os.environ | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", _TRACE]
        return subprocess.run(command, env=settings, check=True, capture_output=True, text=True).stdout

    assert trace("1") == trace("2") != ""


_TRACE = """
from tests.simulator.registry import registries, sessions
for seed in (4, 9, 19):
    world = registries(seed, None, lambda *happened: print(happened))
    world.run()
"""


def test_fifty_requests_against_a_budget_for_ten() -> None:
    policies = [Op(0.0, "policy", number, number=TEN) for number in (1, 2, 3)]
    burst = [Op(0.0, "submit", 1 + n % 3, number=100 + n, place=f"q{n}") for n in range(50)]
    again = [Op(0.0, "submit", 1 + n % 3, number=100 + n, place=f"again{n}") for n in range(50)]
    world = registries(1, [*policies, *burst, Op(300.0, "wait"), *again], afforded=10)
    world.run()
    for number in (1, 2, 3):
        rows = sessions(world, number)
        assert [row.state for row in rows if row.state in promises.SPENT] == ["RELEASED"] * 10
    disk = world.disks[1]
    assert isinstance(disk, Image)
    requests = Ledger.from_image(disk.ledger, party="uk").requests()
    assert len(requests) == 100
    assert {row.reason for row in requests if row.state != "RELEASED"} == {"BUDGET_EXCEEDED"}


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT.keys())
def test_what_once_failed(kept: Reproduction) -> None:
    assert failure(registries, kept.seed, kept.ops) is None, kept.why


def test_a_request_is_released_at_all_parties() -> None:
    world = registries(1, [Op(1.0, "submit", 2, number=0), Op(60.0, "wait")])
    world.run()
    assert [states(world, number) for number in (1, 2, 3)] == [["RELEASED"]] * 3


def test_an_opening_that_somebody_has_not_paid_for_is_seen() -> None:
    world = registries(1, [Op(1.0, "submit", 2), Op(60.0, "wait")])
    shares: list[tuple[MessageKey, bytes, bytes]] = []
    real = world.watch
    assert real is not None

    def watch(sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes) -> None:
        real(sender, receiver, key, session, content)
        if key.section is Section.VALUES and sender == 1:
            shares.append((key, session, content))

    world.watch = watch
    world.run()
    assert len(shares) == 2
    key, session, content = shares[0]
    with pytest.raises(BrokenError, match="two different shares"):
        _again(world, lambda: real(1, 2, key, session, content + b"x"))
    with pytest.raises(BrokenError, match="party 1 has not debited"):
        _again(world, lambda: real(1, 2, key, bytes(16), content))


def _again(world: World, look: Callable[[], None]) -> None:
    world._broken = None
    look()
    world._check(settled=False, when="a look")


def test_the_same_question_is_answered_once() -> None:
    ops = [Op(1.0, "submit", 2), Op(60.0, "submit", 3, number=3), Op(60.0, "wait")]
    world = registries(1, ops)
    world.run()
    assert states(world, 1) == ["RELEASED"]
    disk = world.disks[1]
    assert isinstance(disk, Image)
    requests = Ledger.from_image(disk.ledger, party="uk").requests()
    assert [row.state for row in requests] == ["RELEASED", "RELEASED"]


@pytest.mark.parametrize("place", ["before_commit", "after_commit", "after_pattern", "after_opened"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_party_killed_on_the_way(place: str, number: int) -> None:
    ops = [
        Op(1.0, "crash", number, number=1, place=place),
        Op(1.0, "submit", 2),
        Op(20.0, "wait"),
        Op(0.0, "restart", number),
    ]
    world = registries(number, ops)
    world.run()
    assert world.crashes == 1
    ended = [sorted(set(states(world, each))) for each in (1, 2, 3)]
    if place == "before_commit":
        assert all("ABORTED" in each or "LOST" in each for each in ended)
    else:
        assert ended == [["RELEASED"]] * 3
