"""Noise from given coins: the value is exactly sign · nonzero · (1 + G), and openings hide the coins."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mpc_engine.dp.noise_table import NoiseTable, generate
from mpc_engine.errors import StreamReuseError
from mpc_engine.field.binary import smallest_field, unpack
from mpc_engine.field.mersenne import COUNTS, WIDE, MersenneField
from mpc_engine.protocols import noise as module
from mpc_engine.protocols.noise import (
    cost_of_finishing,
    cost_of_preparing,
    finish_noise,
    prepare_noise,
)
from mpc_engine.runtime.context import Context, gather
from mpc_engine.sharing.shamir import SUPPORTED
from tests.world import TABLE, World, reveal, share_bits

PARTIES = pytest.mark.parametrize("n", SUPPORTED)
FIELDS = pytest.mark.parametrize("field", [COUNTS, WIDE], ids=str)
DAYS = generate(Fraction(1, 43200), 14400)
"""Noise on sums of days: 21 magnitude bits, mantissas of 28 bits."""


def noise_of(
    table: NoiseTable, n: int, cells: int, chunk: int = 0, field: MersenneField = COUNTS
) -> tuple[np.ndarray, list[bytes], World]:
    async def protocol(ctx: Context) -> Any:
        factors = await prepare_noise(ctx.step("noise"), field, table)
        return await finish_noise(ctx.step("finish"), factors), factors.opened

    world = World(n, seed=n + chunk)
    results = world.run(protocol, cells, chunk)
    return reveal([x for x, _ in results])[0], [opened for _, opened in results], world


@PARTIES
@pytest.mark.parametrize("epsilon", ["1", "3", "0.25", "days"])
@FIELDS
def test_every_setting_of_the_coins(
    monkeypatch: pytest.MonkeyPatch, n: int, epsilon: str, field: MersenneField
) -> None:
    """All 2^(K+1) coin outcomes at once, one to a cell; the sign alone stays random.

    Of the longest table: both ends, each coin by itself, and some hundred others.
    """
    table = DAYS if epsilon == "days" else generate(Fraction(epsilon))
    outcomes = np.arange(2 << table.K)
    if table is DAYS:
        single = 1 << np.arange(table.K + 1)
        others = np.random.default_rng(n).choice(outcomes, 200)
        outcomes = np.unique(np.concatenate([[0, outcomes[-1]], single, outcomes[-1] - single, others]))
    bits = (outcomes >> np.arange(table.K + 1)[:, None] & 1).astype(np.uint8)
    shares = share_bits(smallest_field(n), bits, n, np.random.default_rng(n))

    async def coins(ctx: Context, circuit: Any) -> Any:
        return shares[ctx.me - 1]

    monkeypatch.setattr(module, "coins", coins)
    magnitude = np.where(bits[table.K], 1 + outcomes % table.limit, 0)
    assert magnitude.max() == table.limit
    total = np.zeros(outcomes.size)
    chunks = range(n) if field is COUNTS and table is not DAYS else (0, n - 1)  # dealers move with the block
    for chunk in chunks:
        x, opened, _ = noise_of(table, n, outcomes.size, chunk, field)
        np.testing.assert_array_equal(np.abs(x), magnitude)
        assert len(set(opened)) == 1 and opened[0]
        total += np.sign(x)
    assert abs(total.sum()) < 5 * (len(chunks) * outcomes.size) ** 0.5


@PARTIES
@pytest.mark.parametrize("cells", [1, 63, 64, 65, 1000])
@FIELDS
def test_cost(n: int, cells: int, field: MersenneField) -> None:
    x, _, world = noise_of(TABLE, n, cells, field=field)
    prepared = cost_of_preparing(field, smallest_field(n), n, TABLE, cells)
    cost = prepared.then(cost_of_finishing(field, n, cells))
    assert world.spent() == (cost.rounds, cost.sent_bytes) and cost.rounds == 9
    assert abs(x).max() <= TABLE.limit


@PARTIES
def test_the_field_changes_the_noise_in_no_cell(n: int) -> None:
    """From equal keys come equal bits, coins and signs: the two fields check each other, at their price."""
    cells = 1000
    for table in (TABLE, DAYS):
        narrow, opened, few = noise_of(table, n, cells)
        wide, again, more = noise_of(table, n, cells, field=WIDE)
        np.testing.assert_array_equal(narrow, wide)
        assert opened == again and few.spent()[0] == more.spent()[0]
        costs = [cost_of_preparing(field, smallest_field(n), n, table, cells) for field in (COUNTS, WIDE)]
        assert costs[1].rounds == costs[0].rounds
        parties = n * (n - 1) // 2  # elements per cell of n dealings of t
        dealt = (n // 2) ** 2 * (table.K + 2)
        products = (n // 2 - 1) * parties * (table.K + 2)
        check = 2 * 2 * n * (n - 1)  # two openings, twice
        wide_elements = (dealt + products + 2 * parties) * cells + check
        assert costs[1].sent_bytes - costs[0].sent_bytes == 4 * wide_elements


def test_two_fields_in_one_block_draw_apart() -> None:
    """Under two steps side by side: their rounds are shared, their noise is independent."""
    cells = 1 << 14

    async def protocol(ctx: Context) -> Any:
        steps = [(ctx.step(str(field)), field) for field in (COUNTS, WIDE)]
        factors = await gather(*(prepare_noise(step, field, TABLE) for step, field in steps))
        done = zip(steps, factors, strict=True)
        return await gather(*(finish_noise(step.step("finish"), f) for (step, _), f in done))

    world = World(3, seed=3)
    results = world.run(protocol, cells)
    x, y = (reveal([r[k] for r in results])[0] for k in (0, 1))
    assert world.spent()[0] == 9
    for view in (np.sign, np.abs, np.array):
        assert abs(stats.pearsonr(view(x), view(y)).statistic) < 5 / cells**0.5


def test_one_step_for_two_fields_is_refused() -> None:
    async def protocol(ctx: Context) -> Any:
        return await gather(*(prepare_noise(ctx, field, TABLE) for field in (COUNTS, WIDE)))

    with pytest.raises(StreamReuseError):
        World(3, seed=1).run(protocol, 64)


def test_opened_bits_are_uniform_and_do_not_follow_the_noise() -> None:
    cells = 1 << 16
    x, opened, _ = noise_of(TABLE, 3, cells)
    rows = unpack(np.frombuffer(opened[0], np.uint64).reshape(TABLE.K + 1, -1), cells)
    for row in rows:
        assert abs(int(row.sum()) - cells / 2) < 5 * cells**0.5 / 2
        for view in (x, np.abs(x), x == 0):
            assert abs(stats.pearsonr(row, view).statistic) < 5 / cells**0.5
