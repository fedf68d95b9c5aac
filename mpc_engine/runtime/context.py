"""What a protocol sees: who it is, its named step, its randomness, and rounds.

A protocol is a coroutine over whole vectors. It does no I/O: `await ctx.exchange(...)` hands one
round's outgoing arrays to whoever runs it and is resumed with what came in. Because of that the same
code runs in one process, in many, and under a test that corrupts messages; and sub-protocols that
run side by side (`gather`) share their rounds exactly: one message per peer and round.

Sizes are public: both ends know from the agreed plan how many bytes travel in each round.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from numpy.typing import NDArray

from mpc_engine.field.binary import BinaryField, smallest_field, words_for
from mpc_engine.runtime.cost import Meter
from mpc_engine.runtime.link import Link, MessageKey, Section
from mpc_engine.sharing.keys import SessionKeys
from mpc_engine.sharing.shamir import degree_for
from mpc_engine.sharing.streams import StreamKey

T = TypeVar("T")
Array = NDArray[Any]
Replies = dict[int, memoryview]


class Exchange:
    """One round: arrays to send, by peer, and how many bytes to expect, by peer. Awaited once."""

    __slots__ = ("expects", "sends")

    def __init__(self, sends: Mapping[int, list[Array]], expects: Mapping[int, int]) -> None:
        self.sends = sends
        self.expects = expects

    def __await__(self) -> Generator[Exchange, Replies, Replies]:
        return (yield self)


Protocol = Coroutine[Exchange, Replies, T]
"""A protocol that yields rounds and returns a T."""


async def gather(*protocols: Protocol[Any]) -> list[Any]:
    """Run protocols side by side; the k-th rounds of all of them travel together. Returns all results."""
    results: list[Any] = [None] * len(protocols)
    waiting: dict[int, Exchange] = {}

    def advance(index: int, replies: Replies | None) -> None:
        waiting.pop(index, None)
        try:
            waiting[index] = protocols[index].send(replies)  # type: ignore[arg-type]
        except StopIteration as finished:
            results[index] = finished.value

    try:
        for index in range(len(protocols)):
            advance(index, None)
        while waiting:
            order = sorted(waiting)
            sends: dict[int, list[Array]] = {}
            expects: dict[int, int] = {}
            for index in order:
                for peer, parts in waiting[index].sends.items():
                    sends.setdefault(peer, []).extend(parts)
                for peer, size in waiting[index].expects.items():
                    expects[peer] = expects.get(peer, 0) + size
            replies = await Exchange(sends, expects)
            taken = dict.fromkeys(expects, 0)
            for index in order:
                mine: Replies = {}
                for peer, size in waiting[index].expects.items():
                    mine[peer] = replies[peer][taken[peer] : taken[peer] + size]
                    taken[peer] += size
                advance(index, mine)
    finally:
        for protocol in protocols:
            protocol.close()
    return results


@dataclass(frozen=True)
class Context:
    """One party's view of one block of cells, at one named step.

    Attributes:
        me: this party's number; computing parties are 1..`computing`, input-only silos follow.
        computing: number n of computing parties.
        keys: this party's session keys.
        chunk: number of the block of cells.
        cells: cells in the block.
        path: names of the steps down to this one; part of every stream's name.
    """

    me: int
    computing: int
    keys: SessionKeys
    chunk: int
    cells: int
    path: str = ""

    @property
    def degree(self) -> int:
        """The degree t of every sharing."""
        return degree_for(self.computing)

    @property
    def parties(self) -> range:
        """Numbers of the computing parties."""
        return range(1, self.computing + 1)

    @property
    def others(self) -> list[int]:
        """Numbers of the computing parties other than this one."""
        return [j for j in self.parties if j != self.me]

    @property
    def binary(self) -> BinaryField:
        """The field of coins."""
        return smallest_field(self.computing)

    @property
    def words(self) -> int:
        """Words that hold one bit for each cell."""
        return words_for(self.cells)

    def step(self, name: str) -> Context:
        """Return the context of a sub-step; no two steps of one context may bear the same name."""
        return replace(self, path=f"{self.path}/{name}")

    def sized(self, cells: int) -> Context:
        """Return the same step for vectors of another width, such as the few sums of a check."""
        return replace(self, cells=cells)

    def stream(self, purpose: str) -> str:
        """Return the name of this step's stream for a purpose; each is drawn once."""
        return f"{self.chunk}{self.path}:{purpose}"

    def pair_stream(self, dealer: int, recipient: int) -> tuple[StreamKey, str]:
        """Return the key shared by two parties (one of them this one), and this step's stream name
        for what `dealer` deals to `recipient`."""
        other = recipient if dealer == self.me else dealer
        return self.keys.pair(other), self.stream(f"{dealer}>{recipient}")

    def exchange(self, sends: Mapping[int, list[Array]], expects: Mapping[int, int]) -> Exchange:
        """Return one round, to be awaited; empty arrays and sizes are left out."""
        return Exchange(
            {peer: parts for peer, parts in sends.items() if any(part.size for part in parts)},
            {peer: size for peer, size in expects.items() if size},
        )


async def run(
    protocol: Protocol[T],
    link: Link,
    chunk: int,
    section: Section,
    meter: Meter,
) -> T:
    """Run a protocol over a link, one message per peer and round, and return its result.

    Raises what the protocol and the link raise.
    """
    replies: Replies | None = None
    round_number = 0
    try:
        while True:
            try:
                exchange = protocol.send(replies)  # type: ignore[arg-type]
            except StopIteration as finished:
                result: T = finished.value
                return result
            key = MessageKey(chunk, section, round_number)
            sent = 0
            for peer, parts in exchange.sends.items():
                views: Sequence[memoryview] = [part.reshape(-1).data.cast("B") for part in parts]
                sent += sum(len(view) for view in views)
                await link.send(peer, key, views)
            meter.count(section, round_number, sent)
            replies = {peer: await link.receive(peer, key, size) for peer, size in exchange.expects.items()}
            round_number += 1
    finally:
        protocol.close()
