"""F19 and sessions that take too long, in one process: clocks that jump, and counts that hang."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest

from mpc_engine.errors import SessionTimeoutError
from mpc_engine.identity import utc_now
from mpc_engine.party import failpoints
from mpc_engine.party.situation import Deadlines
from tests.faults.universal import house_holds
from tests.party.household import Household, MadeUpCounter, crosstab


class Clock:
    """A clock that can be set."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> Any:
        return utc_now() + self.ahead


@pytest.mark.parametrize("place", ["reserved", "after_commit", "before_released"])
@pytest.mark.parametrize("jump", [timedelta(minutes=-10), timedelta(days=-40), timedelta(days=40)], ids=str)
def test_the_clock_jumps_during_a_session(place: str, jump: timedelta) -> None:
    clock = Clock()

    async def scenario() -> None:
        async with Household(clock=clock) as house:

            def hook(name: str) -> None:
                if name == place:
                    clock.ahead = jump

            with mock.patch.object(failpoints, "hook", hook):
                done = await house.until((await house.submit()).id)
            await house.settled(done.ticket or "")
            # What was spent stays spent, whatever the time.
            assert [house.spent(number) for number in house.parties] == [10**6] * 3
            for ledger in house.ledgers.values():
                times = [entry.time_utc for entry in ledger.entries()]
                assert times == sorted(times)
            clock.ahead = timedelta()
            await house_holds(house)

    asyncio.run(scenario())


def test_a_count_that_hangs_ends_the_session() -> None:
    quick = Deadlines(connect_s=1, round_s=1, session_s=0.3, pause_s=0.02)

    async def scenario() -> None:
        async with Household(deadlines=quick) as house:
            real = MadeUpCounter.count

            async def hanging(self: MadeUpCounter, *args: Any) -> Any:
                await asyncio.sleep(3600 if self is house.counters[2] else 0)
                return await real(self, *args)

            with mock.patch.object(MadeUpCounter, "count", hanging):
                ended = await house.until((await house.submit(crosstab())).id, "RETURNED")
            assert ended.reason == SessionTimeoutError.reason
            assert [house.spent(number) for number in house.parties] == [0] * 3
            await house_holds(house)

    asyncio.run(scenario())
