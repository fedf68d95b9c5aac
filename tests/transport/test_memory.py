"""What only the memory network offers: a transcript, interceptors, and killing a party."""

from __future__ import annotations

import asyncio

import pytest

from mpc_engine.errors import EngineError, PeerError, ProtocolOrderError
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.runtime.memory import MemoryNetwork
from tests.transport.parties import KEY


def test_the_transcript_lists_what_was_delivered() -> None:
    async def run() -> None:
        network = MemoryNetwork(3, record_payloads=True)
        await network.link(1).send(3, KEY, [b"ab", b"c"])
        await network.link(2).send(1, KEY, [b""])
        assert [tuple(line) for line in network.transcript] == [(1, 3, KEY, 3, b"abc"), (2, 1, KEY, 0, b"")]

    asyncio.run(run())


def test_payloads_are_kept_only_on_request() -> None:
    async def run() -> None:
        network = MemoryNetwork(2)
        await network.link(1).send(2, KEY, [b"abc"])
        assert network.transcript[0].payload is None

    asyncio.run(run())


def test_an_interceptor_changes_what_arrives() -> None:
    def spoil(sender: int, receiver: int, key: MessageKey, content: bytearray) -> None:
        if (sender, receiver) == (1, 2):
            content[0] ^= 1
        if (sender, receiver) == (1, 3):
            content.clear()

    async def run() -> None:
        network = MemoryNetwork(3, intercept=spoil)
        for peer in (2, 3):
            await network.link(1).send(peer, KEY, [b"abc"])
        assert await network.link(2).receive(1, KEY, 3) == b"`bc"
        with pytest.raises(ProtocolOrderError):
            await network.link(3).receive(1, KEY, 3)

    asyncio.run(run())


def test_a_killed_party_is_lost_to_all_at_once() -> None:
    async def run() -> None:
        network = MemoryNetwork(3, round_timeout_s=30)
        one, two, three = network.links()
        waits = [asyncio.create_task(one.receive(2, KEY, 1)), asyncio.create_task(two.receive(1, KEY, 1))]
        await asyncio.sleep(0)
        network.kill(3)
        for wait in waits:
            with pytest.raises(PeerError, match="party 3 was lost"):
                await wait
        with pytest.raises(PeerError, match="party 3 was lost"):
            await one.send(2, MessageKey(0, Section.INPUT, 0), [b"x"])
        with pytest.raises(PeerError, match="killed"):
            await three.send(1, KEY, [b"x"])

    asyncio.run(run())


def test_computing_parties_must_be_among_the_parties() -> None:
    with pytest.raises(EngineError):
        MemoryNetwork(3, 4)
