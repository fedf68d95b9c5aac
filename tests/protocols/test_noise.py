"""Noise from given coins: the value is exactly sign · nonzero · (1 + G), and openings hide the coins."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mpc_engine.dp.noise_table import NoiseTable, generate
from mpc_engine.field.binary import smallest_field, unpack
from mpc_engine.protocols import noise as module
from mpc_engine.protocols.noise import (
    cost_of_finishing,
    cost_of_preparing,
    finish_noise,
    prepare_noise,
)
from mpc_engine.runtime.context import Context
from mpc_engine.sharing.shamir import SUPPORTED
from tests.world import TABLE, World, reveal, share_bits

PARTIES = pytest.mark.parametrize("n", SUPPORTED)


def noise_of(table: NoiseTable, n: int, cells: int, chunk: int = 0) -> tuple[np.ndarray, list[bytes], World]:
    async def protocol(ctx: Context) -> Any:
        factors = await prepare_noise(ctx.step("noise"), table)
        return await finish_noise(ctx.step("finish"), factors), factors.opened

    world = World(n, seed=n + chunk)
    results = world.run(protocol, cells, chunk)
    return reveal([x for x, _ in results])[0], [opened for _, opened in results], world


@PARTIES
@pytest.mark.parametrize("epsilon", ["1", "3", "0.25"])
def test_every_setting_of_the_coins(monkeypatch: pytest.MonkeyPatch, n: int, epsilon: str) -> None:
    """All 2^(K+1) coin outcomes at once, one to a cell; the sign alone stays random."""
    table = generate(Fraction(epsilon))
    outcomes = np.arange(2 << table.K)
    bits = (outcomes >> np.arange(table.K + 1)[:, None] & 1).astype(np.uint8)
    shares = share_bits(smallest_field(n), bits, n, np.random.default_rng(n))

    async def coins(ctx: Context, circuit: Any) -> Any:
        return shares[ctx.me - 1]

    monkeypatch.setattr(module, "coins", coins)
    magnitude = np.where(bits[table.K], 1 + outcomes % table.limit, 0)
    total = np.zeros(outcomes.size)
    for chunk in range(n):
        x, opened, _ = noise_of(table, n, outcomes.size, chunk)
        np.testing.assert_array_equal(np.abs(x), magnitude)
        assert len(set(opened)) == 1 and opened[0]
        total += np.sign(x)
    assert abs(total.sum()) < 5 * (n * outcomes.size) ** 0.5


@PARTIES
@pytest.mark.parametrize("cells", [1, 63, 64, 65, 1000])
def test_cost(n: int, cells: int) -> None:
    x, _, world = noise_of(TABLE, n, cells)
    cost = cost_of_preparing(smallest_field(n), n, TABLE, cells).then(cost_of_finishing(n, cells))
    assert world.spent() == (cost.rounds, cost.sent_bytes) and cost.rounds == 9
    assert abs(x).max() <= TABLE.limit


def test_opened_bits_are_uniform_and_do_not_follow_the_noise() -> None:
    cells = 1 << 16
    x, opened, _ = noise_of(TABLE, 3, cells)
    rows = unpack(np.frombuffer(opened[0], np.uint64).reshape(TABLE.K + 1, -1), cells)
    for row in rows:
        assert abs(int(row.sum()) - cells / 2) < 5 * cells**0.5 / 2
        for view in (x, np.abs(x), x == 0):
            assert abs(stats.pearsonr(row, view).statistic) < 5 / cells**0.5
