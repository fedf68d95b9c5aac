"""What every adapter of the port must do, tried on both."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.errors import EngineError, EquivocationError, ProtocolOrderError
from mpc_engine.runtime.link import MessageKey, Section
from tests.transport.parties import KEY, opened

pytestmark = pytest.mark.parametrize("kind", ["memory", "grpc"])


def test_everybody_hears_everybody(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 3) as links:
            for link in links:
                for peer in link.peers:
                    await link.send(peer, KEY, [f"{link.me}>{peer}".encode()])
            for link in links:
                assert link.me not in link.peers
                for peer in link.peers:
                    assert bytes(await link.receive(peer, KEY, 3)) == f"{peer}>{link.me}".encode()

    asyncio.run(run())


def test_input_only_parties_are_not_connected_with_each_other(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 5, computing=3) as links:
            assert [link.peers for link in links] == [
                (2, 3, 4, 5),
                (1, 3, 4, 5),
                (1, 2, 4, 5),
                (1, 2, 3),
                (1, 2, 3),
            ]
            with pytest.raises(EngineError, match="no channel"):
                await links[3].send(5, KEY, [b"x"])
            with pytest.raises(EngineError, match="no channel"):
                await links[4].receive(4, KEY, 1)

    asyncio.run(run())


def test_a_message_may_be_asked_for_before_or_after_it_comes_and_in_any_order(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 2, round_timeout_s=5) as (one, two):
            keys = [
                MessageKey(c, s, r) for c in range(3) for s in (Section.INPUT, Section.VALUES) for r in (0, 7)
            ]
            early = [asyncio.create_task(two.receive(1, key, 4)) for key in keys[::2]]
            await asyncio.sleep(0)
            for number, key in enumerate(keys):
                await one.send(2, key, [number.to_bytes(4, "little")])
            late = [await two.receive(1, key, 4) for key in reversed(keys[1::2])]
            got = [bytes(await task) for task in early], [bytes(view) for view in reversed(late)]
            assert got[0] == [n.to_bytes(4, "little") for n in range(0, len(keys), 2)]
            assert got[1] == [n.to_bytes(4, "little") for n in range(1, len(keys), 2)]

    asyncio.run(run())


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_003])
@pytest.mark.parametrize("asked_first", [True, False])
def test_sizes_around_the_frame(kind: str, size: int, asked_first: bool) -> None:
    async def run() -> None:
        content = random.Random(size).randbytes(size)
        cuts = [0, size // 3, size // 3, size // 2, size]
        parts = [memoryview(content)[a:b] for a, b in itertools.pairwise(cuts)]
        follower = MessageKey(0, Section.CONTROL, 1)
        async with opened(kind, 2) as (one, two):
            if asked_first:
                task = asyncio.create_task(two.receive(1, KEY, size))
                await asyncio.sleep(0)
                await one.send(2, KEY, parts)
                got = await task
            else:
                await one.send(2, KEY, parts)
                await one.send(2, follower, [b"!"])
                await two.receive(1, follower, 1)
                got = await two.receive(1, KEY, size)
            assert got == content
            assert one.stats.payload_bytes(2) == size + (not asked_first)

    asyncio.run(run())


@settings(max_examples=8, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.integers(0, 3000), st.sampled_from([1, 4, 8])), min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
)
def test_parts_of_any_shape_arrive_back_to_back(kind: str, pieces: list[tuple[int, int]], seed: int) -> None:
    async def run() -> None:
        rng = random.Random(seed)
        contents = [rng.randbytes(count * width) for count, width in pieces]
        formats = {1: "B", 4: "I", 8: "Q"}
        parts = [
            memoryview(content).cast(formats[width]) if content else content
            for content, (_, width) in zip(contents, pieces, strict=True)
        ]
        async with opened(kind, 2) as (one, two):
            await one.send(2, KEY, parts)
            assert await two.receive(1, KEY, sum(map(len, contents))) == b"".join(contents)

    asyncio.run(run())


def test_the_parts_may_be_reused_once_send_returns(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 2) as (one, two):
            for size in (1000, 3_000_000):
                buffer = bytearray(b"a" * size)
                key = MessageKey(size, Section.INPUT, 0)
                await one.send(2, key, [buffer])
                buffer[:] = b"z" * size
                assert await two.receive(1, key, size) == b"a" * size

    asyncio.run(run())


def test_large_messages_sent_at_once_do_not_mix(kind: str) -> None:
    async def run() -> None:
        keys = [MessageKey(chunk, Section.TEST, 0) for chunk in range(4)]
        contents = [bytes([65 + n]) * 3_500_000 for n in range(4)]
        async with opened(kind, 2) as (one, two):
            async with asyncio.TaskGroup() as group:
                for key, content in zip(keys, contents, strict=True):
                    group.create_task(one.send(2, key, [content]))
                    group.create_task(two.send(1, key, [content[::-1]]))
                got = [group.create_task(two.receive(1, key, 3_500_000)) for key in keys]
            assert [bytes(task.result()) for task in got] == contents

    asyncio.run(run())


@pytest.mark.parametrize("asked_first", [True, False])
@pytest.mark.parametrize(
    ("sent", "asked"), [(9, 10), (11, 10), (2_000_000, 10), (10, 2_000_000), (0, 1), (1, 0)]
)
def test_another_length_than_the_plan_has(kind: str, sent: int, asked: int, asked_first: bool) -> None:
    async def run() -> None:
        async with opened(kind, 2) as (one, two):
            task = asyncio.create_task(two.receive(1, KEY, asked))
            if asked_first:
                await asyncio.sleep(0)
            await one.send(2, KEY, [bytes(sent)])
            with pytest.raises(ProtocolOrderError, match=f"{sent} bytes, the plan has {asked}"):
                await task

    asyncio.run(run())


def test_control_messages_have_a_limit(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 2) as (one, two):
            await one.send(2, KEY, [b"four"])
            assert await two.receive_control(1, KEY, 4) == b"four"
            key = MessageKey(0, Section.CONTROL, 1)
            await one.send(2, key, [b"fives"])
            with pytest.raises(ProtocolOrderError, match="5 bytes, the plan has at most 4"):
                await two.receive_control(1, key, 4)

    asyncio.run(run())


@pytest.mark.parametrize("taken_first", [True, False])
def test_a_data_message_comes_once(kind: str, taken_first: bool) -> None:
    async def run() -> None:
        async with opened(kind, 2) as (one, two):
            key = MessageKey(0, Section.INPUT, 0)
            await one.send(2, key, [b"first"])
            if taken_first:
                assert await two.receive(1, key, 5) == b"first"
                with pytest.raises(EngineError, match="asked for twice"):
                    await two.receive(1, key, 5)
            await one.send(2, key, [b"first"])
            with pytest.raises(ProtocolOrderError, match="sent before"):
                await two.receive(1, MessageKey(0, Section.CONTROL, 1), 5)

    asyncio.run(run())


@pytest.mark.parametrize("taken_first", [True, False])
def test_a_copy_of_a_control_message_is_ignored_and_another_content_is_equivocation(
    kind: str, taken_first: bool
) -> None:
    async def run() -> None:
        async with opened(kind, 2) as (one, two):
            follower = MessageKey(0, Section.CONTROL, 1)
            for content in (b"first", b""):
                key = MessageKey(len(content), Section.CONTROL, 0)
                await one.send(2, key, [content])
                if taken_first:
                    assert await two.receive_control(1, key, 5) == content
                await one.send(2, key, [content])
                await one.send(2, key, [content])
            await one.send(2, follower, [b"next"])
            assert await two.receive_control(1, follower, 5) == b"next"
            await one.send(2, MessageKey(5, Section.CONTROL, 0), [b"other"])
            with pytest.raises(EquivocationError, match="another content"):
                await two.receive(1, MessageKey(0, Section.CONTROL, 2), 5)

    asyncio.run(run())


def test_running_too_far_ahead(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 2, max_ahead_bytes=100_000) as (one, two):
            for number in range(3):
                await one.send(2, MessageKey(number, Section.INPUT, 0), [bytes(40_000)])
            with pytest.raises(ProtocolOrderError, match="100000 bytes ahead"):
                await two.receive(1, MessageKey(9, Section.INPUT, 0), 1)

    asyncio.run(run())


def test_empty_messages_count_as_running_ahead(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 2, max_ahead_bytes=10_000) as (one, two):
            for number in range(30):
                await one.send(2, MessageKey(number, Section.INPUT, 0), [])
            with pytest.raises(ProtocolOrderError, match="ahead"):
                await two.receive(1, MessageKey(99, Section.INPUT, 0), 1)

    asyncio.run(run())


def test_what_was_asked_for_does_not_count_as_running_ahead(kind: str) -> None:
    async def run() -> None:
        async with opened(kind, 2, max_ahead_bytes=100_000) as (one, two):
            for number in range(20):
                key = MessageKey(number, Section.INPUT, 0)
                await one.send(2, key, [bytes(60_000)])
                assert len(await two.receive(1, key, 60_000)) == 60_000

    asyncio.run(run())


def test_the_session_id_is_demanded_once_it_is_bound(kind: str) -> None:
    async def run() -> None:
        before, after = MessageKey(0, Section.CONTROL, 0), MessageKey(0, Section.CONTROL, 1)
        async with opened(kind, 2) as (one, two):
            await one.send(2, before, [b"x"])
            one.bind_session(b"s" * 16)
            await one.send(2, after, [b"y"])  # ahead of the other's binding
            assert await two.receive(1, before, 1) == b"x"
            two.bind_session(b"s" * 16)
            assert await two.receive(1, after, 1) == b"y"
            with pytest.raises(EngineError):
                two.bind_session(b"t" * 16)

    asyncio.run(run())


@pytest.mark.parametrize("theirs", [None, b"t" * 16])
@pytest.mark.parametrize("asked_first", [True, False])
def test_messages_of_another_session_are_refused(kind: str, theirs: bytes | None, asked_first: bool) -> None:
    async def run() -> None:
        async with opened(kind, 2) as (one, two):
            two.bind_session(b"s" * 16)
            if theirs is not None:
                one.bind_session(theirs)
            task = asyncio.create_task(two.receive(1, KEY, 1))
            if asked_first:
                await asyncio.sleep(0)
            await one.send(2, KEY, [b"x"])
            with pytest.raises(ProtocolOrderError, match="another session"):
                await task

    asyncio.run(run())
