"""The simulator itself: it is the same for the same seed, finds what is wrong, and shortens what it found."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from mpc_engine.harness import virtual_time
from mpc_engine.harness.virtual_time import PARTY, START, Clock, DeadlockError
from tests.simulator.operations import WRITE, Op, Recipe, Reproduction, reproduction, reproductions, shrink
from tests.simulator.seeds import explain, failure, first_failure
from tests.simulator.toy import Flaw, Toy, alike, once
from tests.simulator.world import BrokenError, World


def toys(seed: int, ops: Sequence[Op] | None, flaw: Flaw = "") -> World:
    return World(seed, lambda seat: Toy(seat, flaw), (once, alike), ops=ops, settle_s=100.0)


# --- time -----------------------------------------------------------------------------------------


def test_time_jumps_and_nobody_waits() -> None:
    async def main() -> list[float]:
        loop, woken = asyncio.get_running_loop(), []

        async def sleep(hours: int) -> None:
            await asyncio.sleep(3600 * hours)
            woken.append(loop.time())

        await asyncio.gather(*(sleep(hours) for hours in (50, 1, 24 * 365, 1)))
        return woken

    assert virtual_time.run(main) == pytest.approx([3600, 3600, 50 * 3600, 24 * 365 * 3600])


def test_a_deadlock_is_an_error() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlockError):
        virtual_time.run(main)


def test_parties_interleave_as_drawn_and_each_keeps_its_order() -> None:
    async def main() -> tuple[tuple[int, int], ...]:
        done: list[tuple[int, int]] = []
        loop = asyncio.get_running_loop()
        for party in (1, 2, 3):
            context = contextvars.copy_context()
            context.run(PARTY.set, party)
            for n in range(5):
                loop.call_soon(done.append, (party, n), context=context)
        await asyncio.sleep(1)
        return tuple(done)

    seen = {seed: virtual_time.run(main, random.Random(seed).shuffle) for seed in range(20)}
    assert seen == {seed: virtual_time.run(main, random.Random(seed).shuffle) for seed in range(20)}
    assert len(set(seen.values())) > 10
    for done in seen.values():
        assert all([n for who, n in done if who == party] == [0, 1, 2, 3, 4] for party in (1, 2, 3))
    assert virtual_time.run(main) == tuple((party, n) for party in (1, 2, 3) for n in range(5))


def test_a_clock_follows_the_loop_and_can_be_set() -> None:
    async def main() -> None:
        clock = Clock(asyncio.get_running_loop(), timedelta(seconds=5))
        await asyncio.sleep(60)
        assert clock() == START + timedelta(seconds=65)
        clock.step(-600)
        assert clock() == START - timedelta(seconds=535)

    virtual_time.run(main)


# --- operations -------------------------------------------------------------------------------------


def test_a_seed_draws_the_same_operations_and_all_kinds_turn_up() -> None:
    recipe = Recipe(length=30, places=(WRITE, "after_commit"))
    assert recipe.draw(7) == recipe.draw(7) != recipe.draw(8)
    drawn = [op for seed in range(200) for op in recipe.draw(seed)]
    assert {op.kind for op in drawn} == set(recipe.weights)
    assert {op.place for op in drawn if op.kind == "crash"} == {"", WRITE, "after_commit"}
    assert all(0 < op.party < op.other <= 3 for op in drawn if op.kind in ("cut", "heal"))


def test_shrinking_keeps_what_is_needed_and_nothing_else() -> None:
    ops = [Op(0.0, "wait", number=n) for n in range(40)]
    asked = 0

    def fails(left: Sequence[Op]) -> bool:
        nonlocal asked
        asked += 1
        return {3, 17, 36} <= {op.number for op in left}

    assert [op.number for op in shrink(ops, fails)] == [3, 17, 36]
    assert asked < 100


def test_a_reproduction_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = Reproduction("an “entry” was lost", 7, tuple(Recipe().draw(7)))
    written.save(tmp_path / "lost_entry.json")
    assert reproductions(tmp_path) == {"lost_entry": written}
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(ValueError, match=r"empty\.json"):
        reproduction(tmp_path / "empty.json")


# --- worlds -----------------------------------------------------------------------------------------


def test_a_right_party_survives_many_seeds() -> None:
    assert first_failure(toys, range(100)) is None


def test_a_run_is_the_same_for_the_same_seed() -> None:
    def trace(seed: int) -> list[object]:
        seen: list[object] = []

        def watch(world: World, settled: bool) -> None:
            now = asyncio.get_running_loop().time()
            seen.append((now, world.crashes, {n: station.image() for n, station in world.stations.items()}))

        World(seed, lambda seat: Toy(seat, ""), (watch,), settle_s=100.0).run()
        return seen

    for seed in range(5):
        assert trace(seed) == trace(seed)


def test_a_listener_that_raises_is_a_failure() -> None:
    class Deaf(Toy):
        def heard(self, peer: int, message: bytes) -> None:
            raise ValueError("not that again")

    with pytest.raises(BrokenError, match="a callback failed: ValueError"):
        World(1, lambda seat: Deaf(seat, ""), ops=[Op(0.0, "submit", 1), Op(1.0, "wait")]).run()


@pytest.mark.parametrize("flaw", ["counts repeats", "tells before storing", "says once", "gives up"])
def test_a_wrong_party_is_caught_and_the_run_shortened(flaw: Flaw) -> None:
    build = functools.partial(toys, flaw=flaw)
    for seed in range(150):
        words = failure(build, seed)
        if words is not None:
            break
    else:
        pytest.fail("no seed found it")
    report = explain(build, seed, words)
    print(report)
    assert report.startswith(f"SEED={seed}: ")
    assert 1 <= report.count("\n    [") <= 6


def test_a_party_is_killed_where_its_trap_is_set() -> None:
    ops = [Op(0.0, "crash", 1, number=1, place=WRITE), Op(1.0, "submit", 1), Op(1.0, "wait")]
    seen: list[tuple[bool, bytes | None]] = []

    def watch(world: World, settled: bool) -> None:
        seen.append((1 in world.stations, world.disks.get(1)))
        if settled:
            assert all(isinstance(each, Toy) and each.entries for each in world.stations.values())

    World(1, lambda seat: Toy(seat, ""), (watch, alike), ops=ops).run()
    (before, _), (during, disk), _, (after, _) = seen
    assert before and not during and after
    assert disk is not None and b"key0" in disk


def test_what_a_person_is_refused_is_counted() -> None:
    world = World(
        1, lambda seat: Toy(seat, ""), ops=[Op(0.0, "submit", 1, number=1), Op(1.0, "differ", 1, number=1)]
    )
    world.run()
    assert world.refusals == {"IDEMPOTENCY_MISMATCH": 1}


def test_a_party_that_falls_over_is_a_failure() -> None:
    ops = [Op(0.0, "submit", 1, number=0), Op(0.0, "submit", 2, number=1)]
    with pytest.raises(BrokenError, match="ended by itself: RuntimeError"):
        toys(1, ops, "gives up").run()
