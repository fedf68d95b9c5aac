"""Publishing what was computed: which groups are shown, then the values of those groups and of no others.

Both run only after every party has committed, and open nothing but what each party stored when it did. They
may therefore run again, after a crash or a lost connection, and send the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mpc_engine.errors import IntegrityError
from mpc_engine.release.blocks import BlockRunner
from mpc_engine.release.declassify import declassify_pattern, declassify_values
from mpc_engine.release.execute import Computed
from mpc_engine.release.plan import Block
from mpc_engine.runtime.link import Section

A = TypeVar("A", np.bool_, np.int64)
Pattern = tuple[NDArray[np.bool_], ...]
"""For each kind of groups of a plan, in order, which of the groups are shown."""


@dataclass(frozen=True)
class Published:
    """The outcome of `publish_values`: which groups are shown, and each line's noisy values (0 where not)."""

    pattern: Pattern = field(repr=False)
    values: tuple[NDArray[np.int64], ...] = field(repr=False)


class Publication(BlockRunner):
    """One party's part in publishing one release."""

    async def publish_pattern(self, computed: Computed) -> Pattern:
        """Open which groups are shown. Call only after every party has committed."""

        async def one(block: Block) -> NDArray[np.bool_]:
            if not self.plan.lines[block.line].guard:
                return np.zeros(0, np.bool_)
            mine = computed.outputs[block.number].product
            return await self.run(
                declassify_pattern(self.me, self.plan.computing, len(self.plan.members), block.cells, mine),
                block,
                Section.PATTERN,
            )

        opened = self._by_line(await self.each_block(one))
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
            return await self.run(
                declassify_values(
                    lines[block.line].field, self.me, self.plan.computing, len(self.plan.members), here, mine
                ),
                block,
                Section.VALUES,
            )

        values = []
        for line, visible, opened in zip(
            lines, shown, self._by_line(await self.each_block(one)), strict=True
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
