"""F2, F3 and F13 in one process: killed at each round of a session, and old messages that come again."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

import pytest

from mpc_engine.errors import QuestionBusyError
from mpc_engine.ledger.rows import HOLDING
from mpc_engine.ledger.transaction import Transaction
from mpc_engine.party.lines import Begin
from mpc_engine.party.publishing import link_name
from mpc_engine.party.situation import Deadlines
from mpc_engine.runtime.link import MessageKey, Section
from tests.faults.universal import has_opened, house_holds
from tests.party.household import Household, crosstab

FAST = Deadlines(connect_s=0.4, round_s=0.4, session_s=20, pause_s=0.02)
MILLION = 10**6


async def final(house: Household, number: int, request: str) -> bool:
    """Tell whether a party holds a request to have ended."""
    known = house.ledgers[number].request(request) is not None
    return known and (await house.status(request, number)).final


async def quick(house: Household) -> Household:
    """Let lines be made again soon, and wait until all know of each other."""
    house.exchange.reconnect_s = 0.02
    async with asyncio.timeout(60):
        while any(party.notices.known() is None for party in house.parties.values()):
            await asyncio.sleep(0.01)
    return house


@pytest.mark.parametrize("victim", [1, 2, 3])
def test_a_party_is_killed_at_each_round(victim: int) -> None:
    """At the first message of each round that reaches it: every third round, the others being its peers'."""

    async def killed_at(house: Household, turn: int) -> bool:
        """Kill the victim at the turn-th round; return whether a session has so many."""
        rounds: set[MessageKey] = set()
        killed: list[asyncio.Task[bytes]] = []
        real = house.exchange.faults.link_message

        def message(sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes) -> bytes:
            if receiver == victim and not killed:
                rounds.add(key)
                if len(rounds) == turn:
                    killed.append(asyncio.get_running_loop().create_task(house.kill(victim)))
            return real(sender, receiver, key, session, content)

        with mock.patch.object(house.exchange.faults, "link_message", message):
            status = await house.submit(crosstab("0.5", title=f"round {turn}"), f"k{turn}")
            while not killed and not await final(house, victim, status.id):
                await asyncio.sleep(0.01)
            if not killed:
                return False
            image = await killed[0]
        await house.revive(victim, image)
        async with asyncio.timeout(60):
            while not await final(house, victim, status.id):
                await asyncio.sleep(0.01)
        ended = await house.status(status.id, victim)
        rows = {n: ledger.sessions_of(status.id) for n, ledger in house.ledgers.items()}
        if ended.state == "RELEASED":
            await house.settled(ended.ticket or "")
        else:
            assert ended.reason == "PUBLICATION_ABORT"
            # Somebody had committed, and somebody had not: nothing was opened, the pattern included.
            attempts = [row for each in rows.values() for row in each]
            assert all(row.state in ("ABORTED", "LOST", *HOLDING) for row in attempts)
            assert not [row for row in attempts if has_opened(row)]
        return True

    async def scenario() -> None:
        async with Household(deadlines=FAST) as house:
            await quick(house)
            turn = victim
            while await killed_at(house, turn):
                turn += 3
            print(f"{turn - 3} rounds at party {victim}")
            assert turn > 9
            await house_holds(house)

    asyncio.run(scenario())


def test_a_ticket_is_never_used_again() -> None:
    """F2: the session of an attempt that failed is refused, whoever asks for it."""

    async def scenario() -> None:
        async with Household(deadlines=FAST) as house:
            calls = []

            def fail() -> None:
                calls.append(1)
                raise ValueError("canary-record-4711 cannot be counted")

            house.counters[2].fail = fail
            first = await house.until((await house.submit()).id, "RETURNED")
            (row,) = house.ledgers[2].sessions_of(first.id)
            assert row.state == "ABORTED"
            house.counters[2].fail = lambda: None

            def begin_of(request: str) -> Begin:
                found = house.ledgers[1].request(request)
                assert found is not None
                return Begin(request=request, ticket=row.ticket, question=row.question, digest=found.digest)

            other = await house.submit(crosstab("0.5", by=("stage",)), "other")
            for begin in (begin_of(first.id), begin_of(other.id)):
                assert house.parties[1].post.say(2, begin)
                assert house.parties[1].post.say(3, begin)
            await house.until(other.id)
            declined = [fields for n, event, fields in house.journal if event == "session.declined" and n > 1]
            assert {fields["reason"] for fields in declined if fields["ticket"] == row.ticket} <= {
                "STALE_SESSION",
                "REQUEST_STATE",
                "LOCAL_COMPUTE_FAILED",
            }
            for ledger in house.ledgers.values():
                assert [each.state for each in ledger.sessions_of(first.id)] == ["ABORTED"]
            assert [house.spent(number) for number in house.parties] == [MILLION // 2] * 3
            await house_holds(house)

    asyncio.run(scenario())


def test_a_party_that_still_holds_the_last_session_is_asked_again() -> None:
    """One ends a session before another has heard that it ended: the question comes again after a while."""

    async def scenario() -> None:
        async with Household(deadlines=FAST) as house:
            reserve, refused = Transaction.reserve, []

            def reserving(tx: Transaction, *args: Any, **more: Any) -> Any:
                if tx._store is house.ledgers[2]._store and not refused:
                    refused.append(1)
                    raise QuestionBusyError("the same question is being answered or was answered")
                return reserve(tx, *args, **more)

            with mock.patch.object(Transaction, "reserve", reserving):
                await house.until((await house.submit()).id)
            assert refused
            assert {house.spent(number) for number in house.parties} == {MILLION}
            await house_holds(house)

    asyncio.run(scenario())


def test_all_messages_of_a_finished_session_come_again() -> None:
    """F13: neither the lines' messages nor the links' change anything when they are sent a second time."""

    async def scenario() -> None:
        async with Household(deadlines=FAST) as house:
            said: list[tuple[int, int, bytes]] = []
            carried: list[tuple[int, int, MessageKey, bytes, bytes]] = []
            say, message = house.exchange.say, house.exchange.faults.link_message

            def saying(sender: int, receiver: int, content: bytes) -> bool:
                said.append((sender, receiver, content))
                return say(sender, receiver, content)

            def carrying(*sent: Any) -> bytes:
                carried.append(sent)
                return message(*sent)

            with (
                mock.patch.object(house.exchange, "say", saying),
                mock.patch.object(house.exchange.faults, "link_message", carrying),
            ):
                done = await house.until((await house.submit()).id)
                await house.settled(done.ticket or "")
                await asyncio.sleep(0.2)
            before = state_of(house)
            for sender, receiver, content in said:
                say(sender, receiver, content)
            await asyncio.sleep(0.3)
            assert state_of(house) == before
            # A peer opens the finished session's links again: nobody comes, and nothing is sent to it.
            board = house.exchange._boards[3]
            for purpose in ("session", "publish"):
                with pytest.raises(Exception, match="has not opened the session"):
                    async with board.link(
                        link_name(purpose, done.ticket or ""),
                        connect_timeout_s=0.2,
                        round_timeout_s=0.2,
                        max_ahead_bytes=1 << 20,
                    ):
                        raise AssertionError("the link was opened")
            assert state_of(house) == before
            assert {Section.CONTROL, Section.VALUES} <= {sent[2].section for sent in carried}
            await replay_into_the_next(house, carried)
            await house_holds(house)

    asyncio.run(scenario())


async def replay_into_the_next(
    house: Household, carried: list[tuple[int, int, MessageKey, bytes, bytes]]
) -> None:
    """Put party 3's old messages into the place of its new ones: the session ends, and nothing is spent."""
    old = {(receiver, key): content for sender, receiver, key, _, content in carried if sender == 3}
    real = house.exchange.faults.link_message

    def message(sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes) -> bytes:
        content = real(sender, receiver, key, session, content)
        return old.get((receiver, key), content) if sender == 3 else content

    before = {number: house.spent(number) for number in house.parties}
    with mock.patch.object(house.exchange.faults, "link_message", message):
        status = await house.submit(crosstab("0.5", by=("stage",)), "with old messages")
        ended = await house.until(status.id, "RETURNED")
    assert ended.reason in (
        "STALE_SESSION",
        "INTEGRITY_ABORT",
        "PEER_ABORTED",
        "ROUND_TIMEOUT",
        "MISMATCH_QUERY",
    )
    assert {number: house.spent(number) for number in house.parties} == before


def state_of(house: Household) -> dict[int, Any]:
    """Return what the parties hold of requests, sessions and budgets."""
    return {
        number: (
            ledger.sessions(),
            [(row.id, row.state) for row in ledger.requests()],
            ledger.head(),
            house.spent(number),
        )
        for number, ledger in house.ledgers.items()
    }
