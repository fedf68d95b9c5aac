"""A ledger that was put back to an older state is noticed, and can be brought back in line."""

from __future__ import annotations

import asyncio

from mpc_engine.errors import LedgerRollbackError
from tests.party.household import Household, crosstab


def test_a_restored_backup_is_refused_until_it_has_recovered() -> None:
    async def scenario() -> None:
        async with Household() as house:
            first = await house.until((await house.submit(key="one")).id)
            assert first.ticket is not None
            await house.settled(first.ticket)
            backup = house.ledgers[2].image()
            second = await house.until((await house.submit(crosstab(by=("stage",)), key="two")).id)
            assert second.ticket is not None
            await house.settled(second.ticket)
            await house.kill(2)
            party = await house.revive(2, backup)
            assert house.spent(2) == 10**6  # the backup knows of the first release only
            refused = await house.until((await house.submit(crosstab("0.5"), key="three")).id, "RETURNED")
            assert refused.reason == LedgerRollbackError.reason
            assert [house.spent(number) for number in (1, 2, 3)] == [2 * 10**6, 10**6, 2 * 10**6]

            answer = await party.operator.handle("recover", {})
            assert [each["micro_epsilon"] for each in answer["adopted"]] == [10**6]
            assert sorted(answer["peers"]) == ["party1", "party3"] and answer["missing"] == []
            assert [house.spent(number) for number in (1, 2, 3)] == [2 * 10**6] * 3
            assert house.ledgers[2].release(second.ticket) is not None

            fourth = await house.until((await house.submit(crosstab("0.5"), key="four")).id)
            assert fourth.ticket is not None
            await house.settled(fourth.ticket)
            assert [house.spent(number) for number in (1, 2, 3)] == [2_500_000] * 3
            again = await house.until((await house.submit(crosstab(by=("stage",)), key="five")).id)
            assert again.ticket == second.ticket
            for ledger in house.ledgers.values():
                ledger.verify()

    asyncio.run(scenario())
