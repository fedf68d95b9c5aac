"""Lines that break before a session has a link: it ends everywhere at once, and the next one succeeds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from mpc_engine.party.situation import Deadlines
from tests.party.household import Household

PATIENT = Deadlines(connect_s=30, round_s=20, session_s=60, pause_s=0.1)


class Held:
    """Keeps a silo counting until it is let go."""

    def __init__(self, house: Household, number: int) -> None:
        self.counting, self.go = asyncio.Event(), asyncio.Event()
        counter = house.counters[number]
        count = counter.count

        async def wait_and_count(*args: Any) -> Any:
            self.counting.set()
            await self.go.wait()
            return await count(*args)

        counter.count = wait_and_count  # type: ignore[assignment, method-assign]


def run(scenario: Callable[[Household], Awaitable[None]], silos: Sequence[bool], **options: Any) -> None:
    async def within() -> None:
        async with asyncio.timeout(60), Household(silos, deadlines=PATIENT, **options) as house:
            await scenario(house)

    asyncio.run(within())


async def aborted(house: Household, numbers: Sequence[int], within_s: float = 8.0) -> list[str]:
    """Return the states of the first session at some parties once it has ended at all, or when time is up."""
    states: list[str] = []
    for _ in range(int(within_s / 0.02)):
        states = [row.state for n in numbers for row in house.ledgers[n].sessions()[:1]]
        if states == ["ABORTED"] * len(numbers):
            break
        await asyncio.sleep(0.02)
    return states


def test_a_party_that_is_not_connected_with_the_lost_one_does_not_wait_for_it() -> None:
    async def scenario(house: Household) -> None:
        held = Held(house, 5)
        await house.submit()
        await held.counting.wait()
        await asyncio.sleep(0.1)
        await house.kill(4)
        assert await aborted(house, [1, 2, 3, 5]) == ["ABORTED"] * 4
        assert not house.parties[5].runner.running

    run(scenario, (True,) * 5, computing=3)


@pytest.mark.parametrize(("cut", "counting"), [((1, 3), 2), ((2, 3), 1), ((2, 3), 3), ((1, 2), 2)])
def test_a_line_that_breaks_ends_the_session_everywhere_and_the_next_one_succeeds(
    cut: tuple[int, int], counting: int
) -> None:
    async def scenario(house: Household) -> None:
        held = Held(house, counting)
        status = await house.submit()
        await held.counting.wait()
        await asyncio.sleep(0.1)
        house.exchange.cut(*cut)
        others = [number for number in (1, 2, 3) if {number, *cut} != {*cut}] + [1]
        assert set(await aborted(house, others)) == {"ABORTED"}
        house.exchange.heal(*cut)
        held.go.set()
        await house.until(status.id)
        assert len(house.ledgers[1].sessions()) == 2

    run(scenario, (True, True, True))


def test_a_line_that_breaks_as_a_session_begins_ends_it() -> None:
    async def scenario(house: Household) -> None:
        held = Held(house, 1)
        begin = house.parties[2].runner.begin

        def begin_and_lose(message: Any) -> None:
            begin(message)
            house.parties[2].runner.begin = begin  # type: ignore[method-assign]
            house.exchange.cut(2, 3)

        house.parties[2].runner.begin = begin_and_lose  # type: ignore[assignment, method-assign]
        await house.submit()
        await held.counting.wait()
        assert await aborted(house, [1, 2]) == ["ABORTED"] * 2

    run(scenario, (True, True, True))


def test_a_line_that_breaks_late_is_no_matter_of_a_session_that_is_over() -> None:
    async def scenario(house: Household) -> None:
        status = await house.until((await house.submit()).id)
        await house.settled(status.ticket or "")
        assert not any(party.runner._unlinked for party in house.parties.values())
        house.exchange.cut(1, 2)
        house.exchange.heal(1, 2)
        await asyncio.sleep(0.1)
        assert [row.state for row in house.ledgers[1].sessions()] == ["RELEASED"]

    run(scenario, (True, True, False))
