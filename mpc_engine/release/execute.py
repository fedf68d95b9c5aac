"""Executing a plan: blocks through the protocols up to the commit point, and what follows it.

`compute` does everything that needs no publication: prepare noise, share sums, test guards up to, not
including, the last opening. What it returns is all that a party needs in order to publish later, and
nothing that depends on data unmasked has left the party by then. `publish_pattern` and `publish_values`
open the rest: which groups are shown, then the guards and members of those groups and of no others. The
commit between the two belongs to the party.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mpc_engine.errors import DataError, IntegrityError
from mpc_engine.field.mersenne import COUNTS, Vector
from mpc_engine.protocols.dealing import share_sum
from mpc_engine.protocols.noise import NoiseFactors, finish_noise, prepare_noise
from mpc_engine.protocols.threshold import prepare_range_test
from mpc_engine.release.declassify import declassify_pattern, declassify_values
from mpc_engine.release.plan import BLOCK_CELLS, PATIENTS, RECORDS, Block, Line, Plan
from mpc_engine.runtime.context import Context, Protocol, gather, run
from mpc_engine.runtime.cost import Meter
from mpc_engine.runtime.link import Link, Section
from mpc_engine.sharing.keys import SessionKeys
from mpc_engine.sharing.shared import Shared

CELLS_IN_FLIGHT = 2 * BLOCK_CELLS
"""Most cells under way at a time: one large block computes while another's messages travel, and small
blocks travel together."""

R = TypeVar("R")
A = TypeVar("A", np.bool_, np.int64)
Progress = Callable[[Section, int, int], None]
"""Called with a section, the blocks that have finished it and the number of blocks."""


@dataclass(frozen=True)
class Outputs:
    """What one party keeps for one block between commit and publication; None at an input-only silo.

    `values` are degree-t shares of the noisy values and, for a guard, `product` additive shares,
    zero-shared, of the last product of the small-cell test; both canonical and of shape (1, cells):
    exactly what is sent.
    """

    values: Vector | None = field(repr=False)
    product: Vector | None = field(repr=False)


@dataclass(frozen=True)
class Computed:
    """The outcome of `compute`: outputs per block, and the hash of the masked coins in plan order."""

    outputs: list[Outputs]
    openings_hash: bytes


Pattern = tuple[NDArray[np.bool_], ...]
"""For each kind of groups of a plan, in order, which of the groups are shown."""


@dataclass(frozen=True)
class Published:
    """The outcome of `publish_values`: which groups are shown, and each line's noisy values (0 where not)."""

    pattern: Pattern = field(repr=False)
    values: tuple[NDArray[np.int64], ...] = field(repr=False)


class Execution:
    """One party's part in one release.

    Args:
        plan: the agreed plan.
        me: this party's number.
        keys: its session keys.
        link: its connections.
        sums: a silo's sums, for each line of the plan int64 of shape (rows, cells); None at a helper.
        progress: told as blocks finish sections.
    """

    def __init__(
        self,
        plan: Plan,
        me: int,
        keys: SessionKeys,
        link: Link,
        sums: Sequence[NDArray[np.int64]] | None,
        progress: Progress | None = None,
    ) -> None:
        self.plan, self.me, self.keys, self.link = plan, me, keys, link
        self.meter = Meter()
        self._sums = _checked(sums, plan, me)
        self._progress = progress
        self._finished: dict[Section, int] = {}

    async def compute(self) -> Computed:
        """Run all blocks up to the commit point. Raises EngineError; nothing is released then."""
        results = await self._each_block(self._compute_block)
        whole = sha256(b"mpc-engine/openings/1\0")
        for _, opened in results:
            whole.update(sha256(opened).digest())
        return Computed([outputs for outputs, _ in results], whole.digest())

    async def _compute_block(self, block: Block) -> tuple[Outputs, bytes]:
        plan, line = self.plan, self.plan.lines[block.line]
        ctx = Context(self.me, plan.computing, self.keys, block.number, block.cells)
        mine = None
        if self._sums is not None:
            mine = line.field.vector(self._sums[block.line][:, block.start : block.start + block.cells])
        rows = plan.input_rows(line)
        if self.me > plan.computing:
            await self._run(
                share_sum(ctx.step("input"), line.field, plan.silos, rows, mine), block, Section.INPUT
            )
            return Outputs(None, None), b""
        factors: NoiseFactors = await self._run(
            prepare_noise(ctx.step("noise"), line.field, line.allotment.table), block, Section.PREPARE
        )
        sums, noise = await self._run(
            gather(
                share_sum(ctx.step("input"), line.field, plan.silos, rows, mine),
                finish_noise(ctx.step("noise").step("finish"), factors),
            ),
            block,
            Section.INPUT,
        )
        records = Shared(sums.field, sums.values[RECORDS : RECORDS + 1])
        noisy = records + noise
        values = line.field.canonical(noisy.values)
        if not line.guard:
            return Outputs(values, None), factors.opened
        patients = Shared(sums.field, sums.values[PATIENTS:]) if rows == 2 else records
        tested = {"noisy": noisy, "patients": patients}
        product = await self._run(
            prepare_range_test(ctx.step("test"), [(tested[what], test) for what, test in plan.tests(line)]),
            block,
            Section.TEST,
        )
        return Outputs(values, COUNTS.canonical(product)), factors.opened

    async def publish_pattern(self, computed: Computed) -> Pattern:
        """Open which groups are shown. Call only after every party has committed."""

        async def one(block: Block) -> NDArray[np.bool_]:
            if not self.plan.lines[block.line].guard:
                return np.zeros(0, np.bool_)
            mine = computed.outputs[block.number].product
            return await self._run(
                declassify_pattern(self.me, self.plan.computing, len(self.plan.members), block.cells, mine),
                block,
                Section.PATTERN,
            )

        opened = self._by_line(await self._each_block(one))
        return tuple(shown for line, shown in zip(self.plan.lines, opened, strict=True) if line.guard)

    async def publish_values(self, computed: Computed, pattern: Pattern) -> Published:
        """Open the guards and members of the groups that are shown.

        Raises IntegrityError when a share is wrong, or a value is one that the plan rules out.
        """
        lines = self.plan.lines
        shown = [np.repeat(pattern[line.group], line.per_group) for line in lines]

        async def one(block: Block) -> NDArray[np.int64]:
            here = shown[block.line][block.start : block.start + block.cells]
            mine = computed.outputs[block.number].values
            return await self._run(
                declassify_values(
                    lines[block.line].field, self.me, self.plan.computing, len(self.plan.members), here, mine
                ),
                block,
                Section.VALUES,
            )

        values = []
        for line, visible, opened in zip(
            lines, shown, self._by_line(await self._each_block(one)), strict=True
        ):
            low, high = self.plan.possible(line)
            if opened.min(initial=high) < low or opened.max(initial=low) > high:
                raise IntegrityError(
                    "an opened value is one that the plan rules out: some party computed wrongly"
                )
            whole = np.zeros(line.cells, np.int64)
            whole[visible] = opened
            values.append(whole)
        return Published(pattern, tuple(values))

    def _by_line(self, results: Sequence[NDArray[A]]) -> list[NDArray[A]]:
        """Join the results of blocks, in order, to one array for each line."""
        parts: list[list[NDArray[A]]] = [[] for _ in self.plan.lines]
        for block, result in zip(self.plan.blocks, results, strict=True):
            parts[block.line].append(result)
        return [np.concatenate(each) for each in parts]

    async def _run(self, protocol: Protocol[R], block: Block, section: Section) -> R:
        result = await run(protocol, self.link, block.number, section, self.meter)
        self._finished[section] = self._finished.get(section, 0) + 1
        if self._progress is not None:
            self._progress(section, self._finished[section], len(self.plan.blocks))
        return result

    async def _each_block(self, work: Callable[[Block], Awaitable[R]]) -> list[R]:
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


def _checked(sums: Sequence[NDArray[np.int64]] | None, plan: Plan, me: int) -> list[NDArray[np.int64]] | None:
    """Return a silo's sums if they are what the plan says. Raises DataError; no message tells a sum."""
    if (sums is not None) != plan.members[me - 1].silo:
        raise DataError("a silo brings counts, and nobody else does")
    if sums is None:
        return None
    if len(sums) != len(plan.lines):
        raise DataError("the counts are not those of the plan's tallies")
    return [_checked_line(mine, line, plan, me) for mine, line in zip(sums, plan.lines, strict=True)]


def _checked_line(mine: NDArray[np.int64], line: Line, plan: Plan, me: int) -> NDArray[np.int64]:
    rows, bound = plan.input_rows(line), plan.members[me - 1].count_bound * line.tally.step
    if not np.issubdtype(mine.dtype, np.integer):
        raise DataError("counts are whole numbers")
    if mine.ndim != 2 or mine.shape[0] < rows or mine.shape[1] != line.cells:
        raise DataError("the counts do not have the shape of the plan's grid")
    used = mine[:rows]
    if used.min(initial=0) < -bound * line.tally.signed or used.max(initial=0) > bound:
        raise DataError("a count is negative or above this silo's public bound")
    if rows == 2 and (used[PATIENTS] > used[RECORDS]).any():
        raise DataError("a cell counts more patients than records")
    return used


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first failure of a group: the others are its consequences."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
