"""Lines and links of parties in one process, in virtual time, with every fault that can be ordered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from mpc_engine.errors import (
    DeadlineError,
    EngineError,
    PeerAbortedError,
    PeerError,
    PolicyError,
    ProtocolOrderError,
    StoppedError,
)
from mpc_engine.harness.virtual_time import run
from mpc_engine.runtime.link import Link, MessageKey, Section
from mpc_engine.runtime.memory_lines import QUEUE_BYTES, Faults
from mpc_engine.runtime.memory_switchboard import MemoryExchange, MemorySwitchboard
from mpc_engine.runtime.switchboard import MAX_LINE_BYTES, NAME_BYTES, Switchboard

KEY = MessageKey(0, Section.CONTROL, 0)
NAME = b"n" * NAME_BYTES


class Ear:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.messages: list[tuple[int, bytes]] = []

    def line_up(self, peer: int) -> None:
        self.told.append(("up", peer))

    def line_down(self, peer: int, why: str) -> None:
        self.told.append(("down", peer))
        assert why

    def heard(self, peer: int, message: bytes) -> None:
        self.messages.append((peer, message))


async def started(
    exchange: MemoryExchange, parties: int = 3
) -> tuple[dict[int, MemorySwitchboard], dict[int, Ear]]:
    """Return the switchboards and ears of all parties, with their lines up."""
    boards = {i: exchange.switchboard(i) for i in range(1, parties + 1)}
    ears = {i: Ear() for i in boards}
    for i, board in boards.items():
        await board.start(ears[i])
    await asyncio.sleep(0.001)
    return boards, ears


async def with_link(
    board: Switchboard,
    work: Callable[[Link], Awaitable[None]],
    *,
    connect_s: float = 10.0,
    round_s: float = 5.0,
) -> None:
    async with board.link(
        NAME, connect_timeout_s=connect_s, round_timeout_s=round_s, max_ahead_bytes=1 << 20
    ) as link:
        await work(link)


async def greet(link: Link) -> None:
    for peer in link.peers:
        await link.send(peer, KEY, [bytes([link.me])])
    for peer in link.peers:
        assert bytes(await link.receive(peer, KEY, 1)) == bytes([peer])


def time() -> float:
    return asyncio.get_running_loop().time()


def test_lines_come_up_and_keep_order() -> None:
    class Uneven(Faults):
        def __init__(self) -> None:
            self.next = 3.0

        def latency_s(self, sender: int, receiver: int) -> float:
            self.next -= 1.0
            return max(self.next, 0.0)

    async def main() -> None:
        boards, ears = await started(MemoryExchange(5, 3, faults=Uneven()), 5)
        assert [board.peers for board in boards.values()][3:] == [(1, 2, 3), (1, 2, 3)]
        assert sorted(ears[4].told) == [("up", 1), ("up", 2), ("up", 3)]
        assert all(boards[1].say(2, bytes([n])) for n in range(5))
        assert ears[2].messages == []
        await asyncio.sleep(5)
        assert ears[2].messages == [(1, bytes([n])) for n in range(5)]
        with pytest.raises(EngineError, match="no channel"):
            boards[4].say(5, b"x")
        with pytest.raises(EngineError, match="too long"):
            boards[1].say(2, bytes(MAX_LINE_BYTES + 1))

    run(main)


def test_a_cut_loses_what_is_under_way_and_breaks_links() -> None:
    class Slow(Faults):
        def latency_s(self, sender: int, receiver: int) -> float:
            return 1.0

    async def main() -> None:
        exchange = MemoryExchange(3, faults=Slow(), reconnect_s=2.0)
        boards, ears = await started(exchange)

        async def wait(link: Link) -> None:
            await link.receive(2 if link.me != 2 else 1, KEY, 1)

        async def fails(me: int, error: type[EngineError], words: str) -> None:
            with pytest.raises(error, match=words):
                await with_link(boards[me], wait)

        async def cut() -> None:
            await asyncio.sleep(0.5)
            assert boards[1].say(2, b"lost")
            exchange.cut(2, 1)
            assert not boards[1].connected(2)
            assert not boards[2].say(1, b"refused")
            assert boards[1].connected(3)

        await asyncio.gather(
            fails(1, PeerError, "party 2 was lost"),
            fails(2, PeerError, "party 1 was lost"),
            fails(3, PeerAbortedError, "party [12] ended"),
            cut(),
        )
        await asyncio.sleep(60)
        exchange.heal(1, 2)
        await asyncio.sleep(2.5)
        assert ears[1].told[-2:] == [("down", 2), ("up", 2)]
        assert ears[2].messages == []
        await asyncio.gather(*(with_link(board, greet) for board in boards.values()))

    run(main)


def test_a_killed_party_says_nothing_more_and_its_successor_starts_afresh() -> None:
    async def main() -> None:
        exchange = MemoryExchange(3)
        boards, ears = await started(exchange)

        async def wait(link: Link) -> None:
            await link.receive(3 if link.me != 3 else 1, KEY, 1)

        async def fails(me: int, words: str) -> None:
            with pytest.raises(PeerError, match=words):
                await with_link(boards[me], wait)

        async def kill() -> None:
            await asyncio.sleep(1)
            boards[3].say(1, b"last words")
            exchange.kill(3)

        await asyncio.gather(
            fails(1, "party 3 was lost"), fails(2, "3 was lost|1 ended"), fails(3, "killed"), kill()
        )
        assert ears[1].told[-1] == ("down", 3)
        assert ears[3].told[-1][0] == "up"
        assert not boards[3].say(1, b"from the grave")
        with pytest.raises(StoppedError):
            await with_link(boards[3], greet)
        boards[3] = exchange.restart(3)
        ears[3] = Ear()
        await boards[3].start(ears[3])
        await asyncio.gather(*(with_link(board, greet) for board in boards.values()))
        assert ears[1].told[-1] == ("up", 3)
        assert ears[1].messages == []
        with pytest.raises(EngineError, match="runs already"):
            exchange.restart(3)

    run(main)


def test_who_is_missing_is_named_at_the_deadline() -> None:
    async def main() -> None:
        exchange = MemoryExchange(3)
        boards, _ = await started(exchange)
        exchange.cut(1, 3)
        begun = time()
        with pytest.raises(DeadlineError, match=r"within 10 s: party 2 has not opened .*; party 3 is away"):
            await with_link(boards[1], greet)
        assert time() - begun == pytest.approx(10)

    run(main)


def test_a_link_waits_for_late_peers_and_for_a_cable_to_be_healed() -> None:
    async def main() -> None:
        exchange = MemoryExchange(3)
        boards, _ = await started(exchange)
        exchange.cut(2, 3)

        async def late(me: int) -> None:
            await asyncio.sleep(2 * me)
            if me == 3:
                exchange.heal(2, 3)
            await with_link(boards[me], greet)

        await asyncio.gather(*(late(me) for me in boards))
        assert 6 < time() < 9

    run(main)


def test_an_error_in_the_block_is_told_to_the_peers_and_the_name_is_free_again() -> None:
    async def main() -> None:
        boards, _ = await started(MemoryExchange(3))

        async def refuse(link: Link) -> None:
            if link.me == 2:
                raise PolicyError("too much")
            await link.receive(2, KEY, 1)

        async def attempt(me: int) -> BaseException | None:
            try:
                await with_link(boards[me], refuse)
            except EngineError as error:
                return error
            return None

        told = await asyncio.gather(*(attempt(me) for me in boards))
        assert [type(error) for error in told] == [PeerAbortedError, PolicyError, PeerAbortedError]
        assert isinstance(told[0], PeerAbortedError)
        assert told[0].cause == "POLICY_DENIED"
        await asyncio.gather(*(with_link(board, greet) for board in boards.values()))

    run(main)


def test_links_of_different_names_do_not_mix_and_a_name_is_open_once() -> None:
    async def main() -> None:
        boards, _ = await started(MemoryExchange(3))

        async def one(me: int, n: int) -> None:
            terms = {"connect_timeout_s": 5.0, "round_timeout_s": 5.0}
            async with boards[me].link(bytes([n]) * NAME_BYTES, max_ahead_bytes=1 << 20, **terms) as link:
                link.bind_session(bytes([n]) * 16)
                for peer in link.peers:
                    await link.send(peer, KEY, [bytes([n])])
                for peer in link.peers:
                    assert await link.receive(peer, KEY, 1) == bytes([n])
                with pytest.raises(EngineError, match="one link at a time"):
                    async with boards[me].link(bytes([n]) * NAME_BYTES, max_ahead_bytes=1, **terms):
                        pass

        await asyncio.gather(*(one(me, n) for n in range(1, 20) for me in boards))

    run(main)


def test_messages_of_another_session_are_refused() -> None:
    async def main() -> None:
        boards, _ = await started(MemoryExchange(2), 2)

        async def work(link: Link) -> None:
            link.bind_session(bytes([link.me]) * 16)
            await greet(link)

        async def attempt(me: int) -> EngineError | None:
            try:
                await with_link(boards[me], work)
            except EngineError as error:
                return error
            return None

        errors = await asyncio.gather(attempt(1), attempt(2))
        assert any(isinstance(error, ProtocolOrderError) for error in errors)

    run(main)


def test_a_stopped_party_tells_its_peers() -> None:
    async def main() -> None:
        exchange = MemoryExchange(3)
        boards, ears = await started(exchange)

        async def wait(link: Link) -> None:
            await link.receive(3 if link.me != 3 else 1, KEY, 1)

        async def fails(me: int, error: type[EngineError]) -> None:
            with pytest.raises(error):
                await with_link(boards[me], wait)

        async def stop() -> None:
            await asyncio.sleep(1)
            await boards[3].stop(1.0)
            await boards[3].stop(1.0)

        await asyncio.gather(
            fails(1, PeerAbortedError), fails(2, PeerAbortedError), fails(3, StoppedError), stop()
        )
        assert ears[2].told[-1] == ("down", 3)
        await exchange.restart(3).start(Ear())
        await asyncio.sleep(1)
        assert ears[2].told[-1] == ("up", 3)

    run(main)


def test_a_lossy_line_drops_repeats_and_reorders() -> None:
    class Lossy(Faults):
        def line_copies(self, sender: int, receiver: int, message: bytes) -> Sequence[float] | None:
            return {b"a": (3.0,), b"b": (1.0, 2.0), b"c": ()}.get(message)

    async def main() -> None:
        boards, ears = await started(MemoryExchange(2, faults=Lossy()), 2)
        assert all(boards[1].say(2, message) for message in (b"a", b"b", b"c", b"d"))
        await asyncio.sleep(5)
        assert [message for _, message in ears[2].messages] == [b"d", b"b", b"b", b"a"]

    run(main)


def test_a_line_takes_no_more_than_its_queue_holds() -> None:
    class Slow(Faults):
        def latency_s(self, sender: int, receiver: int) -> float:
            return 1.0

    async def main() -> None:
        boards, ears = await started(MemoryExchange(2, faults=Slow()), 2)
        taken = 0
        while boards[1].say(2, bytes(MAX_LINE_BYTES)):
            taken += 1
        assert taken == QUEUE_BYTES // (MAX_LINE_BYTES + 512)
        await asyncio.sleep(2)
        assert len(ears[2].messages) == taken
        assert boards[1].say(2, b"again")

    run(main)
