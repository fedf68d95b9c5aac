"""Lines between parties: how they come up, what they carry, how they break and are made again."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import grpc
import grpc.aio
import pytest

from mpc_engine.errors import DocumentError, EngineError, StoppedError
from mpc_engine.runtime.switchboard import MAX_LINE_BYTES
from mpc_engine.transport.line import QUEUE_BYTES, Heartbeat, Kind, frame
from mpc_engine.transport.options import LINE_METHOD, PROTOCOL_VERSION, VERSION_KEY
from tests.transport.parties import (
    Ear,
    all_up,
    board,
    boards,
    free_port,
    identity,
    link,
    raw_channel,
    roster,
)

VERSION = ((VERSION_KEY, PROTOCOL_VERSION),)


async def _status(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> grpc.StatusCode:
    """Return how a call ends; what is sent before that must be read first."""
    async with asyncio.timeout(20):
        while isinstance(await call.read(), bytes):
            pass
        return await call.code()


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_lines_come_up_in_any_order_of_starting(order: tuple[int, ...]) -> None:
    async def run() -> None:
        book = {n: f"127.0.0.1:{free_port()}" for n in (1, 2, 3)}
        started = {n: board(n, roster(3, book), listen=book[n]) for n in (1, 2, 3)}
        ears = {n: Ear() for n in started}
        try:
            for n in order:
                await started[n].start(ears[n])
                await asyncio.sleep(0.02)
            await all_up(list(started.values()), list(ears.values()))
            for n, each in started.items():
                for peer in each.peers:
                    assert each.say(peer, f"{n}>{peer}".encode())
            for n, ear in ears.items():
                await ear.until(lambda ear=ear: len(ear.messages) == 2)  # type: ignore[misc]
                assert sorted(ear.messages) == [
                    (peer, f"{peer}>{n}".encode()) for peer in (1, 2, 3) if peer != n
                ]
        finally:
            await asyncio.gather(*(each.stop(0.5) for each in started.values()))

    asyncio.run(run())


def test_messages_keep_their_order_and_their_bytes() -> None:
    async def run() -> None:
        rng = random.Random(4)
        sent = [rng.randbytes(rng.choice([0, 1, 50, 3000, MAX_LINE_BYTES])) for _ in range(60)]
        async with boards(2) as (started, ears):
            await all_up(started, ears)
            for message in sent:
                while not started[1].say(1, message):
                    await asyncio.sleep(0)
            await ears[0].until(lambda: len(ears[0].messages) == len(sent))
            assert [message for _, message in ears[0].messages] == sent
            stats = started[0].stats()[2]
            assert stats.line_bytes_in >= sum(map(len, sent))
            assert started[1].stats()[1].line_bytes_out >= sum(map(len, sent))

    asyncio.run(run())


def test_nothing_is_said_without_a_line_and_nothing_too_long() -> None:
    async def run() -> None:
        one = board(1, roster(2))
        assert not one.say(2, b"x")
        await one.start(Ear())
        assert not one.say(2, b"x")
        assert not one.connected(2)
        await one.stop(0)
        async with boards(2) as (started, ears):
            await all_up(started, ears)
            with pytest.raises(EngineError, match="too long"):
                started[0].say(2, bytes(MAX_LINE_BYTES + 1))

    asyncio.run(run())


def test_the_queue_for_a_peer_that_does_not_read_is_bounded() -> None:
    async def run() -> None:
        one, ear = board(1, roster(2)), Ear()
        await one.start(ear)
        try:
            async with raw_channel(one.port, identity("p2")) as channel:
                channel.stream_stream(LINE_METHOD)(metadata=VERSION)
                await ear.until(lambda: one.connected(2))
                taken = 0
                async with asyncio.timeout(20):
                    for _ in range(4000):
                        taken += one.say(2, bytes(1 << 16))
                        await asyncio.sleep(0)
                # What waits here, and what gRPC and the kernel hold.
                assert 40 <= taken <= (QUEUE_BYTES + (16 << 20)) >> 16
                assert not one.say(2, bytes(1 << 16))
                small = sum(one.say(2, b"") for _ in range(20_000))
                assert small < 20_000
        finally:
            await one.stop(0)

    asyncio.run(run())


def test_a_line_survives_the_restart_of_a_peer_on_either_side() -> None:
    async def run(restarted: int) -> None:
        book = {n: f"127.0.0.1:{free_port()}" for n in (1, 2)}
        parties = {n: board(n, roster(2, book), listen=book[n]) for n in (1, 2)}
        ears = {n: Ear() for n in parties}
        other = 3 - restarted
        for n, each in parties.items():
            await each.start(ears[n])
        try:
            await all_up(list(parties.values()), list(ears.values()))
            await parties[restarted].stop(0.2)
            await ears[other].until(lambda: ears[other].count("down", restarted) == 1)
            assert not parties[other].say(restarted, b"lost")
            assert "shutting down" in parties[other].stats()[restarted].last_error
            parties[restarted] = board(restarted, roster(2, book), listen=book[restarted])
            ears[restarted] = Ear()
            await parties[restarted].start(ears[restarted])
            await all_up(list(parties.values()), list(ears.values()))
            assert parties[other].say(restarted, b"again")
            await ears[restarted].until(lambda: ears[restarted].messages == [(other, b"again")])
            assert [kind for kind, *_ in ears[other].events] == ["up", "down", "up"]
        finally:
            await asyncio.gather(*(each.stop(0.5) for each in parties.values()))

    asyncio.run(run(1))
    asyncio.run(run(2))


def test_a_newer_line_takes_the_place_of_one_that_broke_unseen() -> None:
    async def run() -> None:
        one, ear = board(1, roster(2)), Ear()
        await one.start(ear)
        try:
            async with (
                raw_channel(one.port, identity("p2")) as old,
                raw_channel(one.port, identity("p2")) as new,
            ):
                first = old.stream_stream(LINE_METHOD)(metadata=VERSION)
                await ear.until(lambda: ear.count("up", 2) == 1)
                second = new.stream_stream(LINE_METHOD)(metadata=VERSION)
                await ear.until(lambda: ear.count("up", 2) == 2)
                assert [kind for kind, *_ in ear.events] == ["up", "down", "up"]
                assert await _status(first) is grpc.StatusCode.OK
                await second.write(frame(Kind.MESSAGE, b"here"))
                await ear.until(lambda: ear.messages == [(2, b"here")])
                assert one.connected(2)
        finally:
            await one.stop(0)

    asyncio.run(run())


def test_a_peer_that_is_silent_is_lost_and_one_that_beats_is_not() -> None:
    async def run() -> None:
        one = board(1, roster(2), heartbeat=Heartbeat(0.02, 0.2))
        ear = Ear()
        await one.start(ear)
        try:
            async with raw_channel(one.port, identity("p2")) as channel:
                call = channel.stream_stream(LINE_METHOD)(metadata=VERSION)
                await ear.until(lambda: ear.count("down", 2) == 1, 5)
                assert "nothing was heard" in one.stats()[2].last_error
                assert await _status(call) is grpc.StatusCode.OK
        finally:
            await one.stop(0)
        async with boards(2, heartbeat=Heartbeat(0.02, 0.2)) as (started, ears):
            await all_up(started, ears)
            await asyncio.sleep(0.5)
            assert ears[0].count("down", 2) == 0

    asyncio.run(run())


def test_heartbeats_measure_round_trip_and_clocks() -> None:
    late = timedelta(minutes=7)

    async def run() -> None:
        one, ear_one = board(1, roster(2)), Ear()
        await one.start(ear_one)
        book = roster(2, {1: f"127.0.0.1:{one.port}"})
        two, ear_two = board(2, book, clock=lambda: datetime.now(UTC) - late), Ear()
        await two.start(ear_two)
        try:
            async with asyncio.timeout(20):
                while one.stats()[2].rtt_s is None or two.stats()[1].rtt_s is None:
                    await asyncio.sleep(0.005)
            for each, peer, skew in ((one, 2, -late), (two, 1, late)):
                stats = each.stats()[peer]
                assert stats.connected
                assert stats.rtt_s is not None and 0 < stats.rtt_s < 1
                assert stats.clock_skew_s is not None
                assert abs(stats.clock_skew_s - skew.total_seconds()) < 1
        finally:
            await asyncio.gather(one.stop(0.5), two.stop(0.5))

    asyncio.run(run())


@pytest.mark.parametrize(
    "spoilt",
    [
        b"",
        b"short",
        b"XPL\x01\x00\x00\x00\x00",
        b"MPL\x02\x00\x00\x00\x00",
        b"MPL\x01\x09\x00\x00\x00",
        b"MPL\x01\x00\x00\x01\x00",
        frame(Kind.MESSAGE, bytes(MAX_LINE_BYTES + 1)),
        frame(Kind.PING, b"1234567"),
        frame(Kind.PONG, bytes(15)),
        frame(Kind.BYE, bytes(5000)),
    ],
)
def test_a_spoilt_frame_ends_the_line(spoilt: bytes) -> None:
    async def run() -> None:
        one, ear = board(1, roster(2)), Ear()
        await one.start(ear)
        try:
            async with raw_channel(one.port, identity("p2")) as channel:
                call = channel.stream_stream(LINE_METHOD)(metadata=VERSION)
                await call.write(spoilt)
                await ear.until(lambda: ear.count("down", 2) == 1)
                assert "unknown format" in one.stats()[2].last_error
        finally:
            await one.stop(0)

    asyncio.run(run())


def test_words_of_a_bye_cannot_steer_a_terminal() -> None:
    async def run() -> None:
        one, ear = board(1, roster(2)), Ear()
        await one.start(ear)
        try:
            async with raw_channel(one.port, identity("p2")) as channel:
                call = channel.stream_stream(LINE_METHOD)(metadata=VERSION)
                await call.write(frame(Kind.BYE, b"\x1b[2Jgone\xff"))
                await ear.until(lambda: ear.count("down", 2) == 1)
                assert one.stats()[2].last_error == " [2Jgone�"
        finally:
            await one.stop(0)

    asyncio.run(run())


def test_a_party_that_accepts_nobody_dials_everybody() -> None:
    async def run() -> None:
        book = {n: f"127.0.0.1:{free_port()}" for n in (2, 3)}
        ends = roster(3, book)
        ends[0] = replace(ends[0], address="", accepts=False)
        started = [
            board(1, ends, listen=None),
            board(2, ends, listen=book[2]),
            board(3, ends, listen=book[3]),
        ]
        ears = [Ear() for _ in started]
        try:
            for each, ear in zip(started, ears, strict=True):
                await each.start(ear)
            await all_up(started, ears)
            assert started[0].port is None
            contexts = [link(each) for each in started]
            await asyncio.gather(*(context.__aenter__() for context in contexts))
            await asyncio.gather(*(context.__aexit__(None, None, None) for context in contexts))
        finally:
            await asyncio.gather(*(each.stop(0.5) for each in started))

    asyncio.run(run())


def test_input_only_parties_have_no_line_with_each_other() -> None:
    async def run() -> None:
        async with boards(5, 3) as (started, ears):
            await all_up(started, ears)
            assert [each.peers for each in started[3:]] == [(1, 2, 3), (1, 2, 3)]
            assert not started[3].say(5, b"x")

    asyncio.run(run())


def test_a_second_server_on_the_port_is_refused() -> None:
    async def run() -> None:
        one = board(1, roster(2))
        await one.start(Ear())
        other = board(1, roster(2), listen=f"127.0.0.1:{one.port}")
        try:
            with pytest.raises(DocumentError, match=f"cannot listen on 127.0.0.1:{one.port}"):
                await other.start(Ear())
        finally:
            await asyncio.gather(one.stop(0), other.stop(0))
        again = board(1, roster(2), listen=f"127.0.0.1:{one.port}")
        await again.start(Ear())  # the address is free again
        await again.stop(0)

    asyncio.run(run())


def test_who_is_dialled_must_listen() -> None:
    with pytest.raises(DocumentError, match="needs an address"):
        board(1, roster(2), listen=None)


def test_nothing_opens_before_the_start_or_after_the_stop() -> None:
    async def run() -> None:
        one = board(1, roster(2))
        with pytest.raises(StoppedError):
            async with link(one):
                pass
        await one.start(Ear())
        with pytest.raises(EngineError, match="once"):
            await one.start(Ear())
        await one.stop(0)
        await one.stop(0)
        with pytest.raises(StoppedError):
            async with link(one):
                pass

    asyncio.run(run())


def test_a_listener_that_raises_does_not_harm_the_line(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Ear):
        def heard(self, peer: int, message: bytes) -> None:
            super().heard(peer, message)
            raise ValueError("cell 17 of patient 4")

    async def run() -> None:
        one, ear = board(1, roster(2)), Broken()
        await one.start(ear)
        two = board(2, roster(2, {1: f"127.0.0.1:{one.port}"}), listen=None)
        await two.start(Ear())
        await ear.until(lambda: one.connected(2))
        async with asyncio.timeout(20):
            while not two.connected(1):
                await asyncio.sleep(0.005)
        assert two.say(1, b"a") and two.say(1, b"b")
        await ear.until(lambda: ear.messages == [(2, b"a"), (2, b"b")])
        assert [kind for kind, *_ in ear.events] == ["up"]
        assert "ValueError" in caplog.text and "patient" not in caplog.text
        await asyncio.gather(one.stop(0.2), two.stop(0.2))

    asyncio.run(run())
