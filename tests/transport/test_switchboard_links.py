"""Links over standing connections: side by side, early and late, refused, broken, and ended by a stop."""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import suppress

import grpc
import grpc.aio
import pytest

from mpc_engine.errors import (
    DataError,
    DeadlineError,
    EngineError,
    PeerAbortedError,
    PeerError,
    StoppedError,
)
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.transport.arrivals import MOST_WAITING
from mpc_engine.transport.grpc_switchboard import GrpcSwitchboard, connect
from mpc_engine.transport.options import LINE_METHOD, SESSION_METHOD
from tests.transport.parties import (
    KEY,
    NAME,
    Ear,
    all_up,
    board,
    boards,
    free_port,
    identity,
    link,
    raw_channel,
    roster,
    session_metadata,
)

OTHER = MessageKey(0, Section.INPUT, 0)


async def _exchange(each: GrpcSwitchboard, name: bytes, **limits: float) -> list[bytes]:
    """Open a link, send each peer the link's name with both numbers, and return what came."""
    async with link(each, name, **limits) as opened:  # type: ignore[arg-type]
        for peer in opened.peers:
            await opened.send(peer, KEY, [name, bytes([each.me, peer])])
        return [bytes(await opened.receive(peer, KEY, 34)) for peer in opened.peers]


def test_many_links_side_by_side_do_not_mix() -> None:
    async def run() -> None:
        names = [bytes([n]) * 32 for n in range(20)]
        async with boards(3) as (started, _):
            tasks = [asyncio.create_task(_exchange(each, name)) for name in names for each in started]
            got = await asyncio.gather(*tasks)
            want = [[n + bytes([peer, e.me]) for peer in e.peers] for n in names for e in started]
            assert got == want
            assert started[0].stats()[2].link_bytes_in > 20 * 34

    asyncio.run(run())


@pytest.mark.parametrize("late", [1, 2, 3])
def test_a_party_may_open_late_and_end_late(late: int) -> None:
    async def run() -> None:
        async with boards(3) as (started, ears):
            await all_up(started, ears)
            early = [asyncio.create_task(_exchange(each, NAME)) for each in started if each.me != late]
            await asyncio.sleep(0.1)
            assert not any(task.done() for task in early)
            await _exchange(started[late - 1], NAME)
            await asyncio.gather(*early)

    asyncio.run(run())


def test_a_name_may_be_used_again_at_once_but_not_twice_at_a_time() -> None:
    async def run() -> None:
        async with boards(3) as (started, _):

            async def many(each: GrpcSwitchboard) -> None:
                for _ in range(10):
                    await _exchange(each, NAME)

            await asyncio.gather(*map(many, started))
            contexts = [link(each) for each in started]
            await asyncio.gather(*(context.__aenter__() for context in contexts))
            with pytest.raises(EngineError, match="only one link at a time"):
                async with link(started[0]):
                    pass
            await asyncio.gather(*(context.__aexit__(None, None, None) for context in contexts))
            with pytest.raises(EngineError, match="32 bytes"):
                async with link(started[0], b"short"):
                    pass

    asyncio.run(run())


def test_who_does_not_open_is_named() -> None:
    async def run() -> None:
        async with boards(3) as (started, ears):
            await all_up(started, ears)
            outcomes = await asyncio.gather(
                *(_exchange(each, NAME, connect_timeout_s=0.3) for each in started[::2]),
                return_exceptions=True,
            )
            assert all(isinstance(each, PeerError) for each in outcomes)
            text = " ".join(map(str, outcomes))
            assert "party 2 (p2) has not opened the session" in text
            # Nothing waits any more: the next attempt, with everybody, succeeds.
            await asyncio.gather(*(_exchange(each, NAME) for each in started))

    asyncio.run(run())


def test_a_stream_waits_no_longer_than_the_patience_and_is_dialled_again() -> None:
    async def run() -> None:
        async with boards(2, patience_s=0.1) as (started, ears):
            await all_up(started, ears)
            dialler = asyncio.create_task(_exchange(started[1], NAME))
            async with asyncio.timeout(20):
                while not started[0].refusals.get("UNKNOWN_OR_FINISHED_SESSION"):
                    await asyncio.sleep(0.02)
            await asyncio.gather(_exchange(started[0], NAME), dialler)

    asyncio.run(run())


def test_too_many_waiting_streams_are_refused_with_the_reason() -> None:
    async def run() -> None:
        async with boards(2) as (started, ears):
            await all_up(started, ears)
            names = [bytes([n]) * 32 for n in range(MOST_WAITING + 1)]
            tasks = [asyncio.create_task(_exchange(started[1], name)) for name in names]
            done, waiting = await asyncio.wait(tasks, timeout=20, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1 and len(waiting) == MOST_WAITING
            error = done.pop().exception()
            assert isinstance(error, PeerAbortedError)
            assert error.cause == "RATE_LIMITED"
            assert "party 1 (p1) refuses the session: 16 sessions wait" in str(error)
            assert started[0].refusals == {"RATE_LIMITED": 1}
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(run())


def test_a_party_that_shuts_down_says_so_to_waiting_and_running_sessions() -> None:
    async def run() -> None:
        async with boards(2) as (started, ears):
            await all_up(started, ears)
            waiting = asyncio.create_task(_exchange(started[1], b"w" * 32))

            async def hold(each: GrpcSwitchboard) -> None:
                async with link(each) as opened:
                    await opened.receive(3 - each.me, OTHER, 1)

            running = [asyncio.create_task(hold(each)) for each in started]
            await asyncio.sleep(0.1)
            async with asyncio.timeout(20):
                await started[0].stop(0.5)
            with pytest.raises(PeerAbortedError) as refused:
                await waiting
            assert refused.value.cause == "SHUTTING_DOWN"
            here, there = await asyncio.gather(*running, return_exceptions=True)
            assert isinstance(here, StoppedError)
            assert isinstance(there, PeerAbortedError) and there.cause == "SHUTTING_DOWN"

    asyncio.run(run())


def test_an_error_in_the_block_is_told_to_the_peers_and_leaves_other_links_alone() -> None:
    async def run() -> None:
        async with boards(3) as (started, _):

            async def fail(each: GrpcSwitchboard) -> None:
                async with link(each, b"f" * 32) as opened:
                    if each.me == 2:
                        raise DataError("the mapping lacks a code")
                    await opened.receive(2, OTHER, 1)

            async def go_on(each: GrpcSwitchboard) -> None:
                async with link(each, b"g" * 32) as opened:
                    for number in range(30):
                        key = MessageKey(number, Section.TEST, 0)
                        for peer in opened.peers:
                            await opened.send(peer, key, [b"still here"])
                        for peer in opened.peers:
                            await opened.receive(peer, key, 10)

            others = [asyncio.create_task(go_on(each)) for each in started]
            outcomes = await asyncio.gather(*map(fail, started), return_exceptions=True)
            assert isinstance(outcomes[1], DataError)
            for outcome in (outcomes[0], outcomes[2]):
                assert isinstance(outcome, PeerAbortedError)
                assert outcome.cause in ("DATA", "PEER_ABORTED")  # the other one may pass it on first
                assert "the mapping lacks a code" in str(outcome)
            await asyncio.gather(*others)

    asyncio.run(run())


def test_a_peer_that_dies_during_a_link_is_lost_in_it_and_the_next_link_works() -> None:
    async def run() -> None:
        book = {1: f"127.0.0.1:{free_port()}"}
        two = board(2, roster(2, book), listen=None)
        await two.start(Ear())
        one = board(1, roster(2, book), listen=book[1])
        await one.start(Ear())
        try:

            async def hold(each: GrpcSwitchboard) -> None:
                async with link(each) as opened:
                    await opened.receive(3 - each.me, OTHER, 1)

            tasks = [asyncio.create_task(hold(each)) for each in (one, two)]
            await asyncio.sleep(0.2)
            server = one._reception._server
            assert server is not None
            await server.stop(None)  # as a crash would: nobody is told
            with pytest.raises(PeerError, match="connection to party 1"):
                await asyncio.wait_for(tasks[1], 20)
            with pytest.raises(PeerError, match="connection to party 2"):
                await asyncio.wait_for(tasks[0], 20)
            await one.stop(0)
            one = board(1, roster(2, book), listen=book[1])
            await one.start(Ear())
            await asyncio.gather(*(_exchange(each, NAME) for each in (one, two)))
        finally:
            await asyncio.gather(one.stop(0.2), two.stop(0.2))

    asyncio.run(run())


def test_of_two_waiting_streams_of_one_name_the_newer_is_taken() -> None:
    async def run() -> None:
        one = board(1, roster(2))
        await one.start(Ear())
        try:
            async with raw_channel(one.port, identity("p2")) as channel:
                calls = [channel.stream_stream(SESSION_METHOD)(metadata=session_metadata()) for _ in range(2)]
                ends = [asyncio.create_task(call.code()) for call in calls]
                (older,), (newer,) = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                assert older.result() is grpc.StatusCode.ABORTED
                second = calls[ends.index(newer)]
                context = link(one)
                opened = await context.__aenter__()
                await second.initial_metadata()
                second.cancel()
                with pytest.raises(PeerError, match="was lost"):
                    await opened.receive(2, KEY, 1)
                await context.__aexit__(None, None, None)
                assert await newer is grpc.StatusCode.CANCELLED
        finally:
            await one.stop(0)

    asyncio.run(run())


@pytest.mark.parametrize("name", ["", "ab", "zz" * 32, "AB" * 32, "ab" * 33])
def test_a_stream_without_a_proper_name_is_refused(name: str) -> None:
    async def run() -> None:
        one = board(1, roster(2))
        await one.start(Ear())
        try:
            async with raw_channel(one.port, identity("p2")) as channel:
                metadata = (session_metadata()[0], ("mpc-link", name))
                call = channel.stream_stream(SESSION_METHOD)(metadata=metadata)
                assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        finally:
            await one.stop(0)

    asyncio.run(run())


def test_cancelling_a_party_tells_the_others() -> None:
    async def run() -> None:
        async with boards(2) as (started, _):

            async def hold(each: GrpcSwitchboard) -> None:
                async with link(each) as opened:
                    await opened.receive(3 - each.me, OTHER, 1)

            tasks = [asyncio.create_task(hold(each)) for each in started]
            await asyncio.sleep(0.1)
            tasks[1].cancel()
            with pytest.raises(PeerAbortedError, match="SHUTTING_DOWN"):
                await tasks[0]
            with suppress(asyncio.CancelledError):
                await tasks[1]

    asyncio.run(run())


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc")
def test_nothing_is_left_behind() -> None:
    async def once() -> None:
        async with boards(3) as (started, ears):
            await all_up(started, ears)
            await asyncio.gather(*(_exchange(each, NAME) for each in started))
            contexts = [link(each) for each in started]
            await asyncio.gather(*(context.__aenter__() for context in contexts))
            lone = asyncio.create_task(_exchange(started[2], b"l" * 32))
            await asyncio.sleep(0.02)
            await asyncio.gather(*(each.stop(0.5) for each in started))
            with pytest.raises(EngineError):
                await lone
            await asyncio.gather(*(context.__aexit__(None, None, None) for context in contexts))

    async def run() -> None:
        await once()  # what gRPC makes once and keeps
        for _ in range(10):
            await asyncio.sleep(0)
        gc.collect()
        tasks, descriptors = asyncio.all_tasks(), _descriptors()
        for _ in range(4):
            await once()
        async with asyncio.timeout(20):
            while asyncio.all_tasks() != tasks or _descriptors() > descriptors:
                gc.collect()
                await asyncio.sleep(0.02)

    asyncio.run(run())


def test_connect_ends_in_good_order_or_with_its_error_everywhere() -> None:
    async def run(error: Exception | None) -> list[BaseException | None]:
        address = f"127.0.0.1:{free_port()}"
        book = roster(2, {1: address})

        async def take_part(me: int) -> None:
            listen = address if me == 1 else None
            async with connect(me, identity(f"p{me}"), book, computing=2, listen_address=listen) as opened:
                await opened.send(3 - me, KEY, [b"hello"])
                assert await opened.receive(3 - me, KEY, 5) == b"hello"
                if error is not None:
                    if me == 1:
                        raise error
                    await opened.receive(1, OTHER, 1)

        return list(await asyncio.gather(take_part(1), take_part(2), return_exceptions=True))

    assert asyncio.run(run(None)) == [None, None]
    broken = DataError("the mapping lacks a code")
    first, second = asyncio.run(run(broken))
    assert first is broken
    assert isinstance(second, PeerAbortedError)
    assert "party 1 (p1) ended the session: DATA: the mapping lacks a code" in str(second)
    _, second = asyncio.run(run(ZeroDivisionError("cell 17 of patient 4")))
    assert "INTERNAL" in str(second)
    assert "patient" not in str(second)


def test_a_line_alone_is_no_session() -> None:
    async def run() -> None:
        one, ear = board(1, roster(2)), Ear()
        await one.start(ear)
        try:
            async with raw_channel(one.port, identity("p2")) as channel:
                channel.stream_stream(LINE_METHOD)(metadata=session_metadata()[:1])
                await ear.until(lambda: one.connected(2))
                with pytest.raises(DeadlineError, match=r"party 2 \(p2\) has not opened the session"):
                    async with link(one, connect_timeout_s=0.1):
                        pass
        finally:
            await one.stop(0)

    asyncio.run(run())
