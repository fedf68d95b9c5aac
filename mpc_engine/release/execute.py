"""Executing a plan: blocks through the protocols up to the commit point, and what follows it.

`compute` does everything that needs no publication: prepare noise, share counts, test cells up to, not
including, the last opening. What it returns is all that a party needs in order to publish later, and
nothing that depends on data unmasked has left the party by then. `publish_pattern` and `publish_values`
open the rest. The commit between the two belongs to the party.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mpc_engine.errors import DataError, IntegrityError
from mpc_engine.field.mersenne import Vector
from mpc_engine.protocols.dealing import share_sum
from mpc_engine.protocols.noise import NoiseFactors, finish_noise, prepare_noise
from mpc_engine.protocols.threshold import prepare_range_test
from mpc_engine.release.declassify import declassify_pattern, declassify_values
from mpc_engine.release.plan import PATIENTS, RECORDS, Block, Plan
from mpc_engine.runtime.context import Context, Protocol, gather, run
from mpc_engine.runtime.cost import Meter
from mpc_engine.runtime.link import Link, Section
from mpc_engine.sharing.keys import SessionKeys
from mpc_engine.sharing.shared import Shared

BLOCKS_IN_FLIGHT = 2
"""Blocks under way at a time: one computes while another's messages travel."""

R = TypeVar("R")
Progress = Callable[[Section, int, int], None]
"""Called with a section, the blocks that have finished it and the number of blocks."""


@dataclass(frozen=True)
class Outputs:
    """What one party keeps for one block between commit and publication; None at an input-only silo.

    `values` are degree-t shares of the noisy values and `product` additive shares, zero-shared, of the
    last product of the small-cell test; both canonical and of shape (1, cells): exactly what is sent.
    """

    values: Vector | None = field(repr=False)
    product: Vector | None = field(repr=False)


@dataclass(frozen=True)
class Computed:
    """The outcome of `compute`: outputs per block, and the hash of the masked coins in plan order."""

    outputs: list[Outputs]
    openings_hash: bytes


@dataclass(frozen=True)
class Published:
    """The outcome of `publish_values`: whether each cell is shown, and its noisy value (0 where not)."""

    shown: NDArray[np.bool_] = field(repr=False)
    values: NDArray[np.int64] = field(repr=False)


class Execution:
    """One party's part in one release.

    Args:
        plan: the agreed plan.
        me: this party's number.
        keys: its session keys.
        link: its connections.
        counts: a silo's counts, int64 of shape (rows, cells); None at a helper.
        progress: told as blocks finish sections.
    """

    def __init__(
        self,
        plan: Plan,
        me: int,
        keys: SessionKeys,
        link: Link,
        counts: NDArray[np.int64] | None,
        progress: Progress | None = None,
    ) -> None:
        self.plan, self.me, self.keys, self.link = plan, me, keys, link
        self.meter = Meter()
        self._counts = _checked(counts, plan, me)
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
        plan = self.plan
        ctx = Context(self.me, plan.computing, self.keys, block.number, block.cells)
        mine = None
        if self._counts is not None:
            piece = self._counts[:, block.start : block.start + block.cells]
            mine = np.ascontiguousarray(piece, np.uint64)
        if self.me > plan.computing:
            await self._run(
                share_sum(ctx.step("input"), plan.silos, plan.input_rows, mine), block, Section.INPUT
            )
            return Outputs(None, None), b""
        factors: NoiseFactors = await self._run(
            prepare_noise(ctx.step("noise"), plan.table), block, Section.PREPARE
        )
        counts, noise = await self._run(
            gather(
                share_sum(ctx.step("input"), plan.silos, plan.input_rows, mine),
                finish_noise(ctx.step("noise").step("finish"), factors),
            ),
            block,
            Section.INPUT,
        )
        records = Shared(counts.field, counts.values[RECORDS : RECORDS + 1])
        patients = Shared(counts.field, counts.values[PATIENTS:]) if plan.input_rows == 2 else records
        tested = {"noisy": records + noise, "patients": patients}
        product = await self._run(
            prepare_range_test(ctx.step("test"), [(tested[what], test) for what, test in plan.tests]),
            block,
            Section.TEST,
        )
        canonical = counts.field.canonical
        return Outputs(canonical(tested["noisy"].values), canonical(product)), factors.opened

    async def publish_pattern(self, computed: Computed) -> NDArray[np.bool_]:
        """Open which cells are shown. Call only after every party has committed."""

        async def one(block: Block) -> NDArray[np.bool_]:
            mine = computed.outputs[block.number].product
            return await self._run(
                declassify_pattern(self.me, self.plan.computing, len(self.plan.members), block.cells, mine),
                block,
                Section.PATTERN,
            )

        return np.concatenate(await self._each_block(one))

    async def publish_values(self, computed: Computed, shown: NDArray[np.bool_]) -> Published:
        """Open the values of the cells that are shown.

        Raises IntegrityError when a share is wrong, or a value is one that the plan rules out.
        """

        async def one(block: Block) -> NDArray[np.int64]:
            here = shown[block.start : block.start + block.cells]
            mine = computed.outputs[block.number].values
            return await self._run(
                declassify_values(self.me, self.plan.computing, len(self.plan.members), here, mine),
                block,
                Section.VALUES,
            )

        values = np.zeros(self.plan.grid.cells, np.int64)
        opened = np.concatenate(await self._each_block(one))
        low, high = self.plan.possible
        if opened.min(initial=high) < low or opened.max(initial=low) > high:
            raise IntegrityError(
                "an opened value is one that the plan rules out: some party computed wrongly"
            )
        values[shown] = opened
        return Published(shown, values)

    async def _run(self, protocol: Protocol[R], block: Block, section: Section) -> R:
        result = await run(protocol, self.link, block.number, section, self.meter)
        self._finished[section] = self._finished.get(section, 0) + 1
        if self._progress is not None:
            self._progress(section, self._finished[section], len(self.plan.blocks))
        return result

    async def _each_block(self, work: Callable[[Block], Awaitable[R]]) -> list[R]:
        """Do something for every block, a few at a time, and return the results in order."""
        slots = asyncio.Semaphore(BLOCKS_IN_FLIGHT)
        results: dict[int, R] = {}

        async def one(block: Block) -> None:
            async with slots:
                results[block.number] = await work(block)

        try:
            async with asyncio.TaskGroup() as tasks:
                for block in self.plan.blocks:
                    tasks.create_task(one(block))
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        return [results[block.number] for block in self.plan.blocks]


def _checked(counts: NDArray[np.int64] | None, plan: Plan, me: int) -> NDArray[np.int64] | None:
    """Return a silo's counts if they are what the plan says. Raises DataError; no message tells a count."""
    if (counts is not None) != plan.members[me - 1].silo:
        raise DataError("a silo brings counts, and nobody else does")
    if counts is None:
        return None
    if not np.issubdtype(counts.dtype, np.integer):
        raise DataError("counts are whole numbers")
    if counts.ndim != 2 or counts.shape[0] < plan.input_rows or counts.shape[1] != plan.grid.cells:
        raise DataError("the counts do not have the shape of the plan's grid")
    used = counts[: plan.input_rows]
    if used.min(initial=0) < 0 or used.max(initial=0) > plan.members[me - 1].count_bound:
        raise DataError("a count is negative or above this silo's public bound")
    if plan.input_rows == 2 and (used[PATIENTS] > used[RECORDS]).any():
        raise DataError("a cell counts more patients than records")
    return used


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first failure of a group: the others are its consequences."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
