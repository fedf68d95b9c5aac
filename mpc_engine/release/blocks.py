"""Running every block of a plan through a protocol: in order, and as many at a time as there is room for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from mpc_engine.release.plan import BLOCK_CELLS, Block, Plan
from mpc_engine.runtime.context import Protocol, run
from mpc_engine.runtime.cost import Meter
from mpc_engine.runtime.link import Link, Section

CELLS_IN_FLIGHT = 2 * BLOCK_CELLS
"""Most cells under way at a time: one large block computes while another's messages travel, and small
blocks travel together."""

R = TypeVar("R")
Progress = Callable[[Section, int, int], None]
"""Called with a section, the blocks that have finished it and the number of blocks."""


class BlockRunner:
    """Runs protocols for the blocks of one plan at one party; `meter` counts what they cost."""

    def __init__(
        self,
        plan: Plan,
        me: int,
        link: Link,
        progress: Progress | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.plan, self.me, self.link = plan, me, link
        self.meter = Meter() if meter is None else meter
        self._progress = progress
        self._finished: dict[Section, int] = {}

    async def run(self, protocol: Protocol[R], block: Block, section: Section) -> R:
        """Run a protocol for a block and count it as done."""
        result = await run(protocol, self.link, block.number, section, self.meter)
        self._finished[section] = self._finished.get(section, 0) + 1
        if self._progress is not None:
            self._progress(section, self._finished[section], len(self.plan.blocks))
        return result

    async def each_block(self, work: Callable[[Block], Awaitable[R]]) -> list[R]:
        """Do something for every block, as many at a time as there is room for; return results in order.

        Blocks start strictly in order, so the first unfinished one is under way at every party.
        """
        room = _Room(CELLS_IN_FLIGHT)
        results: dict[int, R] = {}

        async def one(block: Block) -> None:
            async with room.taken(block.cells):
                results[block.number] = await work(block)

        try:
            async with asyncio.TaskGroup() as tasks:
                for block in self.plan.blocks:
                    tasks.create_task(one(block))
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        return [results[block.number] for block in self.plan.blocks]


class _Room:
    """Room for a number of cells, given in the order of asking; what is larger has the room to itself."""

    def __init__(self, cells: int) -> None:
        self._most, self._used = cells, 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def taken(self, cells: int) -> AsyncIterator[None]:
        """Wait for room for so many cells, and give it back at the end."""
        async with self._turn:  # first come, first served
            while self._used and self._used + cells > self._most:
                self._freed.clear()
                await self._freed.wait()
            self._used += cells
        try:
            yield
        finally:
            self._used -= cells
            self._freed.set()


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first failure of a group: the others are its consequences."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
