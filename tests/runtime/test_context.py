"""Rounds: what `exchange`, `gather` and `run` put on the wire, and names of streams."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.errors import IntegrityError, StreamReuseError
from mpc_engine.runtime.context import Context, Exchange, Protocol, gather, run
from mpc_engine.runtime.cost import Cost, Meter
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.runtime.memory import MemoryNetwork
from tests.world import World, session_keys


async def talk(ctx: Context, label: int, sizes: list[int]) -> list[tuple[int, int, list[int]]]:
    """In round k send sizes[k] copies of a byte that names sender, protocol and round; return what came."""
    heard = []
    for k, size in enumerate(sizes):
        mine = np.full(size, ctx.me * 64 + label * 8 + k, np.uint8)
        replies = await ctx.exchange({j: [mine] for j in ctx.others}, dict.fromkeys(ctx.others, size))
        heard += [(k, j, list(data)) for j, data in sorted(replies.items())]
    return heard


def expected(me: int, label: int, sizes: list[int]) -> list[tuple[int, int, list[int]]]:
    others = [j for j in (1, 2, 3) if j != me]
    return [(k, j, [j * 64 + label * 8 + k] * s) for k, s in enumerate(sizes) if s for j in others]


@given(st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=5))
@settings(deadline=None, max_examples=50)
def test_side_by_side_protocols_share_their_rounds(plans: list[list[int]]) -> None:
    """Each gets its own bytes; one message per peer and round; as many rounds as the longest has."""
    world = World(3, seed=0)

    async def together(ctx: Context) -> list[object]:
        inner = gather(*(talk(ctx, i, sizes) for i, sizes in enumerate(plans[2:], start=2)))
        outer = await gather(*(talk(ctx, i, sizes) for i, sizes in enumerate(plans[:2])), inner)
        return [*outer[:-1], *outer[-1]]

    for me, heard in enumerate(world.run(together, 1), start=1):
        assert heard == [expected(me, i, sizes) for i, sizes in enumerate(plans)]
    rounds = max(map(len, plans), default=0)
    assert world.spent() == (rounds, 6 * sum(map(sum, plans)))
    per_round = [sum(sizes[k] for sizes in plans if k < len(sizes)) for k in range(rounds)]
    links = [(s, r) for s in (1, 2, 3) for r in (1, 2, 3) if s != r]
    assert sorted((m.sender, m.receiver, m.key.round, m.size) for m in world.network.transcript) == sorted(
        (s, r, k, size) for s, r in links for k, size in enumerate(per_round) if size
    )


def test_unequal_expectations_in_one_round() -> None:
    """Two dealers, different peers and sizes: each part ends where the next begins."""

    async def one_way(ctx: Context, sender: int, receiver: int, size: int) -> bytes:
        sends = {receiver: [np.full(size, sender, np.uint8)]} if ctx.me == sender else {}
        replies = await ctx.exchange(sends, {sender: size} if ctx.me == receiver else {})
        return b"".join(bytes(x) for x in replies.values())

    async def together(ctx: Context) -> list[bytes]:
        return await gather(
            one_way(ctx, 1, 2, 3), one_way(ctx, 3, 2, 2), one_way(ctx, 1, 2, 1), one_way(ctx, 2, 1, 4)
        )

    one, two, three = World(3, seed=0).run(together, 1)
    assert one == [b"", b"", b"", b"\2" * 4]
    assert two == [b"\1" * 3, b"\3" * 2, b"\1", b""]
    assert three == [b""] * 4


def test_a_failure_in_one_closes_the_others() -> None:
    closed = []

    async def steady(ctx: Context) -> None:
        try:
            for _ in range(5):
                await ctx.exchange({}, {})
        finally:
            closed.append(ctx.me)

    async def failing(ctx: Context) -> None:
        await ctx.exchange({}, {})
        raise IntegrityError("found")

    async def together(ctx: Context) -> None:
        await gather(steady(ctx), failing(ctx), steady(ctx))

    with pytest.raises(IntegrityError, match="found"):
        World(3, seed=0).run(together, 1)
    assert closed[:2] == [1, 1]


def test_messages_carry_block_section_and_round() -> None:
    world = World(3, seed=0)
    world.run(lambda ctx: talk(ctx, 0, [1, 2]), 1, chunk=7, section=Section.TEST)
    assert {m.key for m in world.network.transcript} == {MessageKey(7, Section.TEST, k) for k in (0, 1)}
    assert world.meters[0].rounds == {Section.TEST: 2} and world.meters[0].sent_bytes == {Section.TEST: 6}


def test_run_closes_a_protocol_that_is_cancelled() -> None:
    closed = []

    async def waits() -> None:
        try:
            await Exchange({}, {2: 1})
        finally:
            closed.append(True)

    async def main() -> None:
        net = MemoryNetwork(2)
        task = asyncio.create_task(run(waits(), net.link(1), 0, Section.TEST, Meter()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert closed == [True]


def test_the_meter_takes_the_most_rounds_of_any_block() -> None:
    meter = Meter()
    for round_number, section, size in (
        (0, Section.TEST, 5),
        (1, Section.TEST, 5),
        (0, Section.TEST, 1),
        (0, Section.INPUT, 2),
    ):
        meter.count(section, round_number, size)
    assert (meter.total_rounds, meter.total_bytes) == (3, 13)


def test_costs_add_up() -> None:
    a, b = Cost(2, 10), Cost(3, 5)
    assert a.then(b) == Cost(5, 15) and a.beside(b) == Cost(3, 15) == b.beside(a)
    assert Cost().then(a) == a == Cost().beside(a)


def test_streams_are_named_by_block_path_and_purpose() -> None:
    keys = session_keys(3)[0]
    ctx = Context(1, 3, keys, 0, 64)
    names = {
        c.stream(purpose)
        for c in (ctx, ctx.step("a"), ctx.step("a").step("b"), ctx.step("b"), Context(1, 3, keys, 1, 64))
        for purpose in ("x", "y")
    }
    assert len(names) == 10
    assert ctx.sized(9).stream("x") == ctx.stream("x")
    key, name = ctx.step("s").pair_stream(1, 2)
    same, mirrored = ctx.step("s").pair_stream(2, 1)
    assert key is same and name != mirrored
    key.bits(name, 1, 1), key.bits(mirrored, 1, 1)
    with pytest.raises(StreamReuseError):
        key.bits(name, 1, 1)


def test_a_protocol_that_reuses_a_step_is_stopped() -> None:
    async def twice(ctx: Context) -> Protocol[None]:
        for _ in range(2):
            ctx.keys.pair(ctx.me % 3 + 1).bits(ctx.step("mask").stream("bits"), 1, 1)

    with pytest.raises(StreamReuseError, match="0/mask:bits"):
        World(3, seed=0).run(twice, 1)
