"""What may be sent over a gRPC stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from mpc_engine.errors import (
    EngineError,
    PeerError,
    ProtocolOrderError,
)
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.transport.frames import FRAME_BYTES, Kind, cut, ending
from tests.transport.parties import KEY, raw_peer

UNBOUND = bytes(16)


def _at(position: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda frame: frame[:position] + value + frame[position + len(value) :]


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (_at(0, b"X"), "unknown format"),
        (_at(3, b"\x02"), "unknown format"),
        (_at(24, b"\x09"), "unknown format"),
        (_at(25, b"\x07"), "unknown format"),
        (_at(30, b"\x01"), "unknown format"),
        (_at(28, b"\x03"), "in the name of party 3"),
        (_at(4, b"another session!"), "another session"),
        (_at(32, b"\xff" * 8), "length does not fit"),
        (_at(32, b"\x04"), "length does not fit"),
        (_at(40, b"\x01"), "length does not fit"),
        (_at(40, (FRAME_BYTES).to_bytes(8, "little")), "length does not fit"),
        (lambda frame: frame[:-1], "length does not fit"),
        (lambda frame: frame + b"!", "length does not fit"),
        (lambda frame: frame[:20], "less than a header"),
        (lambda frame: b"", "less than a header"),
    ],
)
def test_spoiled_frames(spoil: Callable[[bytes], bytes], text: str) -> None:
    async def run() -> None:
        async with raw_peer() as (one, call):
            wait = asyncio.create_task(one.receive(2, KEY, 5))
            await asyncio.sleep(0)
            (frame,) = cut(UNBOUND, 2, KEY, [b"hello"])
            await call.write(spoil(frame))
            with pytest.raises(ProtocolOrderError, match=text):
                await wait

    asyncio.run(run())


def test_frames_of_one_message_must_fit_together() -> None:
    async def run(order: list[int], text: str) -> None:
        frames = list(cut(UNBOUND, 2, KEY, [bytes(3 * FRAME_BYTES)]))
        async with raw_peer() as (one, call):
            for number in order:
                await call.write(frames[number])
            with pytest.raises(ProtocolOrderError, match=text):
                await one.receive(2, KEY, 3 * FRAME_BYTES)
                await one.receive(2, MessageKey(0, Section.INPUT, 0), 1)

    asyncio.run(run([0, 2], "frames do not fit together"))
    asyncio.run(run([1], "frames do not fit together"))
    asyncio.run(run([0, 0], "frames do not fit together"))
    asyncio.run(run([0, 1, 2, 0], "frames do not fit together|sent before"))


def test_a_message_after_the_goodbye() -> None:
    async def run() -> None:
        async with raw_peer() as (one, call):
            await call.write(ending(Kind.GOODBYE, 2))
            await call.write(next(iter(cut(UNBOUND, 2, KEY, [b"x"]))))
            with pytest.raises(EngineError):  # which of the two comes first is chance
                await one.receive(2, KEY, 1)
            with pytest.raises(ProtocolOrderError, match="after its goodbye"):
                async with asyncio.timeout(20):
                    while True:
                        await one.send(2, MessageKey(0, Section.INPUT, 0), [b"x"])
                        await asyncio.sleep(0)

    asyncio.run(run())


def test_an_oversized_frame_ends_the_stream_unread() -> None:
    async def run() -> None:
        async with raw_peer() as (one, call):
            await call.write(bytes(32 << 20))
            with pytest.raises(PeerError, match=r"party 2 \(p2\) was lost"):
                await one.receive(2, KEY, 5)

    asyncio.run(run())


@pytest.mark.parametrize("explanation", [b"\xff\xff", b"", b"\x0a\x02ok"])
def test_an_abort_that_explains_nothing_still_ends_the_session(explanation: bytes) -> None:
    async def run() -> None:
        async with raw_peer() as (one, call):
            await call.write(ending(Kind.ABORT, 2, explanation))
            with pytest.raises(ProtocolOrderError):
                await one.receive(2, KEY, 5)

    asyncio.run(run())
