"""Blocks: cells of one line that travel together, as many at a time as there is room for."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.dp.accounting import Rule
from mpc_engine.release import blocks as runner
from mpc_engine.release import plan
from mpc_engine.release.blocks import _Room
from mpc_engine.release.execute import Execution
from mpc_engine.release.groups import Groups
from mpc_engine.release.plan import Block
from mpc_engine.runtime.link import Section
from tests.release.truth import KINDS, check, session, sums_of, whole
from tests.world import release, tally


@pytest.mark.parametrize("in_flight", [1, 64, 200, 1 << 17])
def test_lines_of_many_blocks(monkeypatch: pytest.MonkeyPatch, in_flight: int) -> None:
    """Blocks of 64 cells, of which as many are under way as there is room for, and one at the least."""
    monkeypatch.setattr(plan, "BLOCK_CELLS", 64)
    monkeypatch.setattr(runner, "CELLS_IN_FLIGHT", in_flight)
    under_way: dict[int, int] = {}
    started: dict[int, list[int]] = {}
    most = [0]
    true_block = Execution._compute_block

    async def watched(self: Execution, block: Block) -> Any:
        started.setdefault(self.me, []).append(block.number)
        under_way[self.me] = under_way.get(self.me, 0) + block.cells
        most[0] = max(most[0], under_way[self.me])
        try:
            return await true_block(self, block)
        finally:
            under_way[self.me] -= block.cells

    monkeypatch.setattr(Execution, "_compute_block", watched)
    groups = (
        Groups("g", tally("records", 5, 31), (tally("m", 5, 31, 2), tally("s", 5, 31, step=14400))),
        Groups("total", tally("records")),
    )
    outcome, _ = session(groups, n=3, outside=1, epsilon="9", rule=Rule.STRICT, threshold=4)
    blocks = outcome.releases[0].plan.blocks
    assert [sum(b.line == index for b in blocks) for index in range(4)] == [3, 5, 3, 1]
    assert all(b.number == index for index, b in enumerate(blocks))
    assert all(b.start % 64 == 0 for b in blocks)
    assert list(started.values()) == [list(range(12))] * 4  # at every party in the order of the plan
    assert most[0] <= max(in_flight, 64)
    assert most[0] > 64 or in_flight <= 64


@settings(max_examples=60, deadline=None)
@given(
    room=st.integers(1, 20),
    asked=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 6)), max_size=25),
)
def test_room_is_given_in_the_order_of_asking_and_never_too_much(
    room: int, asked: list[tuple[int, int]]
) -> None:
    """Sizes and how long each is kept; what is larger than the whole has it to itself."""
    given_: list[int] = []
    used: dict[int, int] = {}

    async def one(shared: Any, number: int, size: int, turns: int) -> None:
        async with shared.taken(size):
            given_.append(number)
            used[number] = size
            assert sum(used.values()) <= room or len(used) == 1
            for _ in range(turns):
                await asyncio.sleep(0)
            del used[number]

    async def everyone() -> None:
        shared = _Room(room)
        await asyncio.gather(*(one(shared, n, size, turns) for n, (size, turns) in enumerate(asked)))

    asyncio.run(everyone())
    assert given_ == list(range(len(asked)))


def test_room_comes_back_after_a_failure() -> None:
    async def everyone() -> None:
        shared = _Room(4)
        with pytest.raises(ValueError, match="broken"):
            async with shared.taken(4):
                raise ValueError("broken")
        async with asyncio.timeout(20), shared.taken(4):
            waiting = asyncio.ensure_future(shared.taken(1).__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()  # who gives up waiting does not stand in the others' way
            await asyncio.sleep(0)
        async with asyncio.timeout(20), shared.taken(4):
            pass

    asyncio.run(everyone())


def test_a_hundred_kinds_of_groups_travel_together() -> None:
    groups = tuple(Groups(f"g{i}", tally("records", 1 + i % 3)) for i in range(100))
    held = sums_of(groups, 2, 5)
    outcome = release([*held, None], groups=groups, epsilon="10", count_bound=1 << 16)
    check(outcome, *whole(groups, held))
    assert outcome.plan is not None
    sections = [m.key.section for m in outcome.network.transcript if m.sender == 1]
    first, last = (
        sections.index(Section.INPUT),
        max(i for i, s in enumerate(sections) if s is Section.PREPARE),
    )
    assert first > last - 200  # nearly in step: no block waits for the end of another


def test_declared_costs_are_met_by_lines_of_both_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is shown: rounds and bytes of every section are those that the plan declares."""
    monkeypatch.setattr(plan, "BLOCK_CELLS", 64)
    for n, outside, rule, cap in ((3, 0, Rule.NOISY, 1), (3, 2, Rule.STRICT, 2), (5, 1, Rule.EXACT, 2)):
        held = sums_of(KINDS, n + outside, 3)
        for mine in held:
            for index in (0, 4, 5):
                mine[index][:] = 5000
        outcome = release(held, n, groups=KINDS, rule=rule, cap=cap)
        declared = outcome.releases[0].plan
        assert all(shown.all() for shown in outcome.releases[0].published.pattern)
        for section, cost in declared.costs.items():
            assert outcome.rounds(section) == cost.rounds, section
            assert outcome.sent_bytes(section) == cost.sent_bytes, section
        assert sum(s.meter.total_bytes for s in outcome.sessions) == declared.sent_bytes


@pytest.mark.parametrize("seed", [1, 2])
def test_parties_of_uneven_pace_finish_all_the_same(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Every party dawdles in every block as long as it likes, with little room and blocks of all sizes."""
    monkeypatch.setattr(plan, "BLOCK_CELLS", 64)
    monkeypatch.setattr(runner, "CELLS_IN_FLIGHT", 150)
    true_block, draw = Execution._compute_block, np.random.default_rng(seed)

    async def dawdling(self: Execution, block: Block) -> Any:
        for _ in range(int(draw.integers(0, 300))):
            await asyncio.sleep(0)
        return await true_block(self, block)

    monkeypatch.setattr(Execution, "_compute_block", dawdling)
    groups = tuple(
        Groups(f"g{i}", tally("n", 1 + 37 * i % 90), (tally("m", 1 + 37 * i % 90, step=14400),))
        for i in range(6)
    )
    session(groups, outside=1, epsilon="9")
