"""Executing a plan: blocks through the protocols up to the commit point.

`compute` does everything that needs no publication: prepare noise, share sums, test guards up to, not
including, the last opening. What it returns is all that a party needs in order to publish later, and
nothing that depends on data unmasked has left the party by then. The commit belongs to the party; what
follows it is in :mod:`mpc_engine.release.publication`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from mpc_engine.errors import DataError
from mpc_engine.field.mersenne import COUNTS, Vector
from mpc_engine.protocols.dealing import share_sum
from mpc_engine.protocols.noise import NoiseFactors, finish_noise, prepare_noise
from mpc_engine.protocols.threshold import prepare_range_test
from mpc_engine.release.blocks import BlockRunner, Progress
from mpc_engine.release.plan import PATIENTS, RECORDS, Block, Line, Plan
from mpc_engine.runtime.context import Context, gather
from mpc_engine.runtime.cost import Meter
from mpc_engine.runtime.link import Link, Section
from mpc_engine.sharing.keys import SessionKeys
from mpc_engine.sharing.shared import Shared


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


class Execution(BlockRunner):
    """One party's part in one release, up to the commit point.

    Noise is prepared at once; nothing that depends on records is sent before `admitted` has returned.

    Args:
        plan: the agreed plan.
        me: this party's number.
        keys: its session keys.
        link: its connections.
        sums: a silo's sums, for each line of the plan int64 of shape (rows, cells); None at a helper.
        progress: told as blocks finish sections.
        meter: counts what the protocols cost, by default a new one.
        admitted: returns when counts may be shared, and raises if they must not.
    """

    def __init__(
        self,
        plan: Plan,
        me: int,
        keys: SessionKeys,
        link: Link,
        sums: Sequence[NDArray[np.int64]] | None,
        progress: Progress | None = None,
        meter: Meter | None = None,
        admitted: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(plan, me, link, progress, meter)
        self._admitted = admitted
        self.keys = keys
        self._sums = _checked(sums, plan, me)

    async def compute(self) -> Computed:
        """Run all blocks up to the commit point. Raises EngineError; nothing is released then."""
        results = await self.each_block(self._compute_block)
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
            await self._admit()
            await self.run(
                share_sum(ctx.step("input"), line.field, plan.silos, rows, mine), block, Section.INPUT
            )
            return Outputs(None, None), b""
        factors: NoiseFactors = await self.run(
            prepare_noise(ctx.step("noise"), line.field, line.allotment.table), block, Section.PREPARE
        )
        await self._admit()
        sums, noise = await self.run(
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
        product = await self.run(
            prepare_range_test(ctx.step("test"), [(tested[what], test) for what, test in plan.tests(line)]),
            block,
            Section.TEST,
        )
        return Outputs(values, COUNTS.canonical(product)), factors.opened

    async def _admit(self) -> None:
        if self._admitted is not None:
            await self._admitted()


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
