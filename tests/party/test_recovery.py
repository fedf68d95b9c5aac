"""A ledger that was put back to an older state is noticed, and can be brought back in line."""

from __future__ import annotations

import asyncio
from unittest import mock

import pytest

from mpc_engine.errors import LedgerRollbackError, LedgerWriteError
from mpc_engine.party.lines import Opinion
from mpc_engine.party.recovery import BEHIND, Recovery, is_behind
from mpc_engine.party.situation import Deadlines
from mpc_engine.party.witnessing import rolled_back
from tests.party.household import Household, crosstab, with_policy

QUICK = Deadlines(connect_s=20, round_s=10, session_s=60, pause_s=0.05)


def behind(house: Household) -> list[int]:
    """Return the parties that know that their ledgers are older than what peers have seen."""
    return [number for number, party in sorted(house.parties.items()) if party.recovery.behind]


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
            # The party whose ledger it is knows so, also after another start; the others are well.
            await house.until(refused.id, "RETURNED", 2)
            assert behind(house) == [2]
            assert (2, "ledger.behind", {}) in house.journal
            again = await house.until((await house.submit(crosstab("0.25"), key="again")).id, "RETURNED")
            assert again.reason == LedgerRollbackError.reason
            await house.kill(2)
            party = await house.revive(2, house.ledgers[2].image())
            assert behind(house) == [2] and is_behind(house.ledgers[2])
            assert [entry.kind for entry in house.ledgers[2].entries()].count(BEHIND) == 1
            async with asyncio.timeout(60):
                while not all(peer["up"] for peer in (await party.operator.handle("status", {}))["peers"]):
                    await asyncio.sleep(0.01)
            assert [house.spent(number) for number in (1, 2, 3)] == [2 * 10**6, 10**6, 2 * 10**6]

            answer = await party.operator.handle("recover", {})
            assert [each["micro_epsilon"] for each in answer["adopted"]] == [10**6]
            assert sorted(answer["peers"]) == ["party1", "party3"] and answer["missing"] == []
            assert [house.spent(number) for number in (1, 2, 3)] == [2 * 10**6] * 3
            assert house.ledgers[2].release(second.ticket) is not None
            assert behind(house) == [] and not is_behind(house.ledgers[2])

            fourth = await house.until((await house.submit(crosstab("0.5"), key="four")).id)
            assert fourth.ticket is not None
            await house.settled(fourth.ticket)
            assert [house.spent(number) for number in (1, 2, 3)] == [2_500_000] * 3
            again = await house.until((await house.submit(crosstab(by=("stage",)), key="five")).id)
            assert again.ticket == second.ticket
            for ledger in house.ledgers.values():
                ledger.verify()

    asyncio.run(scenario())


async def connected(house: Household) -> None:
    """Wait until all know what the others publish."""
    async with asyncio.timeout(60):
        while any(party.notices.known() is None for party in house.parties.values()):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("restored", [1, 2])
def test_a_question_answered_after_the_backup_shows_that_the_ledger_is_behind(restored: int) -> None:
    """No session on it goes as far as the ledgers' chains: a peer has the release, and this party has not."""

    async def scenario() -> None:
        async with Household(deadlines=QUICK) as house:
            zero = await house.until((await house.submit(crosstab("2"), key="zero")).id)
            await house.settled(zero.ticket or "")
            backup = house.ledgers[restored].image()
            first = await house.until((await house.submit(key="one")).id)
            await house.settled(first.ticket or "")
            await house.kill(restored)
            party = await house.revive(restored, backup)
            await connected(house)
            again = await house.submit(key="again", number=restored)
            ended = await house.until(again.id, "RETURNED", restored)
            assert ended.reason == LedgerRollbackError.reason
            assert behind(house) == [restored]
            answer = await party.operator.handle("recover", {})
            assert len(answer["adopted"]) == 1 and behind(house) == []
            served = await house.until((await house.submit(key="after", number=restored)).id, number=restored)
            assert served.ticket == first.ticket
            assert {house.spent(number) for number in house.parties} == {3 * 10**6}

    asyncio.run(scenario())


def test_a_release_that_no_peer_gave_back_leaves_no_request_waiting() -> None:
    """Its debit was adopted, so that there is a session; it will never bring the release by itself."""

    async def scenario() -> None:
        async with Household(deadlines=QUICK) as house:
            backup = house.ledgers[2].image()
            first = await house.until((await house.submit(key="one")).id)
            await house.settled(first.ticket or "")
            await house.kill(2)
            party = await house.revive(2, backup)
            await connected(house)
            with mock.patch.object(Recovery, "_restore"):
                answer = await party.operator.handle("recover", {})
            assert len(answer["adopted"]) == 1
            again = await house.submit(key="again", number=2)
            ended = await house.until(again.id, "RETURNED", 2)
            assert ended.reason == LedgerRollbackError.reason and behind(house) == [2]
            await party.operator.handle("recover", {})
            served = await house.until((await house.submit(key="after", number=2)).id, number=2)
            assert served.ticket == first.ticket and behind(house) == []

    asyncio.run(scenario())


def test_made_up_words_of_a_peer_make_nobody_doubt_a_ledger() -> None:
    async def scenario() -> None:
        policies = {3: with_policy(approval="manual")}
        async with Household(deadlines=QUICK, policies=policies) as house:
            one = await house.submit(key="one")
            while (row := house.ledgers[3].request(one.id)) is None:
                await asyncio.sleep(0.01)
            liar = house.parties[3]
            opinion = Opinion(
                request=one.id,
                digest=row.digest,
                party="party3",
                verdict="returned",
                reason=LedgerRollbackError.reason,
                detail="the ledger of party1 has 1 entries; the ledger of party2 has 1 entries",
            )
            with liar.post.transaction() as tx:
                liar.post.post(tx, 1, opinion.signed(liar.situation().identity.signing))
            await house.until(one.id, "RETURNED", 2)
            assert behind(house) == []

    asyncio.run(scenario())


def test_a_release_of_all_shows_that_nobody_doubts_a_ledger() -> None:
    async def scenario() -> None:
        async with Household(deadlines=QUICK) as house:
            house.parties[2].recovery.found()
            first = await house.until((await house.submit(key="one")).id)
            await house.settled(first.ticket or "")
            assert behind(house) == [] and not is_behind(house.ledgers[2])

    asyncio.run(scenario())


def test_what_could_not_be_written_is_noted_the_next_time() -> None:
    async def scenario() -> None:
        async with Household(deadlines=QUICK) as house:
            recovery = house.parties[2].recovery
            full = mock.patch.object(
                house.parties[2].post, "transaction", side_effect=LedgerWriteError("full")
            )
            with full, pytest.raises(LedgerWriteError):
                recovery.found()
            assert not recovery.behind
            recovery.found()
            assert recovery.behind and is_behind(house.ledgers[2])

    asyncio.run(scenario())


def test_a_rollback_is_of_the_party_that_it_names() -> None:
    words = "party 3 ended the session: us: the ledger of us-2 has 35 entries; us has seen 41"
    assert rolled_back("LEDGER_ROLLBACK", words, "us-2")
    assert not rolled_back("LEDGER_ROLLBACK", words, "us")
    assert not rolled_back("LEDGER_ROLLBACK", words, "uk")
    assert not rolled_back("REQUEST_DECLINED", words, "us-2")  # an operator's words


def test_a_peer_that_did_not_answer_leaves_it_to_be_recovered_again() -> None:
    async def scenario() -> None:
        async with Household() as house:
            party = house.parties[2]
            party.recovery.found()
            await house.kill(3)
            answer = await party.recovery.recover(timeout_s=0.2)
            assert answer["missing"] == ["party3"] and party.recovery.behind

    asyncio.run(scenario())
