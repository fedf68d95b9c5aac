"""How waits and sessions end, on both adapters of the port."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mpc_engine.errors import DeadlineError, EngineError, PeerAbortedError, PeerError
from mpc_engine.runtime.link import MessageKey, Section
from tests.transport.parties import KEY, AnyLink, opened

pytestmark = pytest.mark.parametrize("kind", ["memory", "grpc"])


def test_a_wait_ends_at_its_deadline(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 3, round_timeout_s=0.1) as (one, *_):
            with pytest.raises(DeadlineError, match=r"party 2.*within 0\.1 s.*values, round 3, block 8"):
                await one.receive(2, MessageKey(8, Section.VALUES, 3), 10)

    asyncio.run(run())


def test_an_abort_ends_every_wait_everywhere_and_says_why(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 3) as (one, two, three):
            waits = [
                asyncio.create_task(one.receive(2, KEY, 1)),
                asyncio.create_task(one.receive(3, KEY, 1)),
                asyncio.create_task(three.receive(1, KEY, 1)),
            ]
            await asyncio.sleep(0)
            await two.abort("POLICY_DENIED", "epsilon 3 is more than 1")
            for wait in waits:
                with pytest.raises(
                    PeerAbortedError, match=r"party 2.*POLICY_DENIED: epsilon 3 is more than 1"
                ):
                    await wait
            with pytest.raises(PeerAbortedError, match="party 2"):
                await one.receive(3, MessageKey(0, Section.INPUT, 0), 1)
            with pytest.raises(PeerAbortedError, match="party 2"):
                await three.send(1, KEY, [b"x"])
            with pytest.raises(EngineError):
                await two.send(1, KEY, [b"x"])
            await two.abort("INTERNAL", "once more does nothing")

    asyncio.run(run())


async def _exchange(link: AnyLink, size: int, rounds: int) -> None:
    for number in range(rounds):
        key = MessageKey(0, Section.TEST, number)
        for peer in link.peers:
            await link.send(peer, key, [bytes(size)])
        for peer in link.peers:
            await link.receive(peer, key, size)


def test_an_orderly_end_is_no_loss(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 3) as links:

            async def take_part(link: AnyLink) -> None:
                await _exchange(link, 300_000, 3)
                await link.close()

            await asyncio.gather(*map(take_part, links))
            with pytest.raises(PeerError, match="closed"):
                await links[0].receive(2, KEY, 1)

    asyncio.run(run())


def test_close_delivers_what_was_sent(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 2) as (one, two):
            contents = [bytes([n]) * 2_000_000 for n in range(6)]

            async def send_and_close(link: AnyLink, contents: Sequence[bytes]) -> None:
                for number, content in enumerate(contents):
                    await link.send(2, MessageKey(number, Section.VALUES, 0), [content])
                await link.close()

            sender = asyncio.create_task(send_and_close(one, contents))
            for number, content in enumerate(contents):
                assert await two.receive(1, MessageKey(number, Section.VALUES, 0), 2_000_000) == content
            with pytest.raises(PeerError, match=r"party 1.* ended the session before this message"):
                await two.receive(1, KEY, 1)
            await two.close()
            await sender

    asyncio.run(run())


def test_close_waits_no_longer_than_the_deadline(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 2, round_timeout_s=0.2) as (one, _two):
            async with asyncio.timeout(20):
                await one.close()

    asyncio.run(run())


def test_one_party_may_end_while_the_others_go_on(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 3) as (one, two, three):
            ending = asyncio.create_task(three.close())
            for number in range(20):
                key = MessageKey(number, Section.TEST, 0)
                await one.send(2, key, [b"still here"])
                assert await two.receive(1, key, 10) == b"still here"
            assert not ending.done()
            await asyncio.gather(one.close(), two.close())
            await ending

    asyncio.run(run())


def test_traffic_is_counted_by_peer_and_section(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 3) as (one, *_):
            await one.send(2, MessageKey(0, Section.INPUT, 0), [bytes(10), bytes(5)])
            await one.send(2, MessageKey(1, Section.INPUT, 0), [bytes(1)])
            await one.send(3, MessageKey(0, Section.VALUES, 0), [bytes(1_500_000)])
            assert [tuple(row) for row in one.stats] == [
                (2, Section.INPUT, 2, 16),
                (3, Section.VALUES, 1, 1_500_000),
            ]
            assert one.stats.messages() == 3
            assert one.stats.payload_bytes(section=Section.INPUT) == 16
            assert one.stats.payload_bytes(peer=3) == 1_500_000

    asyncio.run(run())


def test_a_cancelled_wait_or_send_leaves_the_session_usable(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 2) as (one, two):
            wait = asyncio.create_task(two.receive(1, KEY, 1))
            sends = [
                asyncio.create_task(one.send(2, MessageKey(n, Section.TEST, 0), [bytes(3_000_000)]))
                for n in range(8)
            ]
            await asyncio.sleep(0)
            wait.cancel()
            for send in sends:
                send.cancel()
            await asyncio.gather(wait, *sends, return_exceptions=True)
            await one.send(2, KEY, [b"x"])
            await one.send(2, MessageKey(0, Section.CONTROL, 1), [b"y"])
            assert await two.receive(1, MessageKey(0, Section.CONTROL, 1), 1) == b"y"

    asyncio.run(run())


@pytest.mark.parametrize("before", [True, False])
def test_finish_says_when_a_peer_ended_the_session_instead(kind: str, before: bool) -> None:
    async def run() -> None:
        async with opened(kind, 2) as (one, two):
            if before:
                await two.abort("INTEGRITY_ABORT", "the patterns differ")
                with pytest.raises(PeerAbortedError):
                    await one.receive(2, KEY, 1)
                finishing = asyncio.create_task(one.finish())
            else:
                finishing = asyncio.create_task(one.finish())
                await asyncio.sleep(0)
                await two.abort("INTEGRITY_ABORT", "the patterns differ")
            with pytest.raises(PeerAbortedError, match="the patterns differ"):
                await finishing
            await one.close()

    asyncio.run(run())


def test_a_control_message_may_be_given_more_time(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 2, round_timeout_s=0.05) as (one, two):
            wait = asyncio.create_task(two.receive_control(1, KEY, 9, timeout_s=5))
            with pytest.raises(DeadlineError):
                await two.receive(1, MessageKey(0, Section.INPUT, 0), 1)
            await one.send(2, KEY, [b"late"])
            assert await wait == b"late"

    asyncio.run(run())


def test_no_input_only_party_ends_well_when_another_found_a_fault(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 5, computing=3, round_timeout_s=5) as links:
            waits = [asyncio.create_task(link.finish()) for link in links if link.me != 4]
            await asyncio.sleep(0)
            await links[3].abort("INTEGRITY_ABORT", "a wrong share")
            for outcome in await asyncio.gather(*waits, return_exceptions=True):
                assert isinstance(outcome, PeerAbortedError)
                assert "a wrong share" in str(outcome)

    asyncio.run(run())


def test_finish_tells_who_never_said_goodbye(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 3, round_timeout_s=0.2) as (one, two, _):
            outcomes = await asyncio.gather(one.finish(), two.finish(), return_exceptions=True)
            assert any(isinstance(each, DeadlineError) and "party 3" in str(each) for each in outcomes)
            assert all(isinstance(each, PeerError) for each in outcomes)

    asyncio.run(run())
