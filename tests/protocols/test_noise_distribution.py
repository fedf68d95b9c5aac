"""A million cells of noise through the real protocol, and planted bugs that the same checks catch."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mpc_engine.dp.noise_table import Coin, generate
from mpc_engine.errors import StreamReuseError
from mpc_engine.field.binary import unpack
from mpc_engine.field.mersenne import COUNTS, WIDE, MersenneField
from mpc_engine.protocols import signs
from mpc_engine.sharing.prss import random_bits
from tests.sampling import (
    ALPHA,
    BLOCK,
    Sample,
    chi_square,
    clipped,
    contingency,
    correlation,
    draw,
    epsilon_lower_bound,
    failures,
    symmetry,
    variance,
)
from tests.world import TABLE, seeded, session_keys

MILLION = 16 * BLOCK
FEWER = 4 * BLOCK


@pytest.fixture(scope="module")
def sample() -> Sample:
    return draw(TABLE, MILLION, seed=20)


def test_a_million_cells_match_the_exact_table(sample: Sample) -> None:
    assert sample.noise.size >= 10**6
    assert chi_square(sample.noise, TABLE) > ALPHA
    assert symmetry(sample.noise, TABLE) > ALPHA
    assert variance(sample.noise, TABLE) > ALPHA
    assert failures(sample.noise, TABLE, 1.0) == set()


def test_each_coin_has_its_probability(sample: Sample) -> None:
    magnitude = np.abs(sample.noise[sample.noise != 0]) - 1
    for i, coin in enumerate(TABLE.magnitude):
        ones = int((magnitude >> i & 1).sum())
        assert stats.binomtest(ones, magnitude.size, float(coin.probability)).pvalue > ALPHA, i
    assert stats.binomtest(magnitude.size, MILLION, float(TABLE.nonzero.probability)).pvalue > ALPHA


def test_neighbouring_cells_are_independent(sample: Sample) -> None:
    """Within a word, across words, across blocks with other dealers; and pairs as a whole."""
    x = sample.noise
    for lag in (1, 2, 3, 8, 32, 63, 64, 65, 128, 1000, BLOCK, 3 * BLOCK):
        assert correlation(x[:-lag], x[lag:]) > ALPHA, lag
    for lag in (1, 64, BLOCK):
        assert contingency(clipped(x[:-lag]), clipped(x[lag:])) > ALPHA, lag
    magnitude = np.abs(x[x != 0]) - 1
    assert contingency(magnitude & 1, magnitude >> 1 & 1) > ALPHA


def shares_that_follow_the_noise(sample: Sample, field: MersenneField) -> list[tuple[str, int]]:
    """Return whose shares of what are not uniform, or not independent of the noise, by their first bits."""
    x, found = clipped(sample.noise), []
    for name, blocks in sample.shares.items():
        for party, shares in enumerate(np.concatenate(blocks, axis=1), start=1):
            buckets = (field.canonical(shares) >> np.uint64(field.exponent - 4)).astype(np.int64)
            if min(stats.chisquare(np.bincount(buckets)).pvalue, contingency(buckets, x)) < ALPHA:
                found.append((name, party))
    return found


def test_a_partys_shares_tell_nothing_about_the_noise(sample: Sample) -> None:
    assert shares_that_follow_the_noise(sample, COUNTS) == []


def test_what_is_opened_tells_nothing_about_the_noise(sample: Sample) -> None:
    rows = np.concatenate(
        [unpack(np.frombuffer(o, np.uint64).reshape(TABLE.K + 1, -1), BLOCK) for o in sample.opened], axis=1
    )
    for i, row in enumerate(rows):
        assert stats.binomtest(int(row.sum()), MILLION).pvalue > ALPHA, i
        assert contingency(row.astype(np.int64), clipped(sample.noise)) > ALPHA, i


def test_sessions_are_independent(sample: Sample) -> None:
    other = draw(TABLE, FEWER, seed=21).noise
    assert correlation(sample.noise[:FEWER], other) > ALPHA
    assert contingency(clipped(sample.noise[:FEWER]), clipped(other)) > ALPHA


@pytest.mark.parametrize(("n", "cells"), [(5, 2 * BLOCK), (7, BLOCK), (9, BLOCK // 4)])
def test_more_parties(n: int, cells: int) -> None:
    x = draw(TABLE, cells, n, seed=n).noise
    assert min(chi_square(x, TABLE), symmetry(x, TABLE), variance(x, TABLE)) > ALPHA
    assert correlation(x[:-1], x[1:]) > ALPHA


@pytest.mark.parametrize(("epsilon", "cap"), [("0.25", 1), ("2.5", 1), ("1", 3)])
def test_other_tables(epsilon: str, cap: int) -> None:
    table = generate(Fraction(epsilon) / cap, cap)
    x = draw(table, 2 * BLOCK, seed=5).noise
    assert min(chi_square(x, table), symmetry(x, table), variance(x, table)) > ALPHA


def test_the_wide_field() -> None:
    table = generate(Fraction(1, 4))
    sample = draw(table, 2 * BLOCK, seed=6, field=WIDE)
    x = sample.noise
    assert min(chi_square(x, table), symmetry(x, table), variance(x, table)) > ALPHA
    assert shares_that_follow_the_noise(sample, WIDE) == []
    sample.shares["x"][0][1] = WIDE.vector(x[:BLOCK])  # in place of the second party's shares of a block
    assert shares_that_follow_the_noise(sample, WIDE) == [("x", 2)]


def test_each_of_many_coins_has_its_probability() -> None:
    """Noise on sums of days: its 22 coins one by one, and the independence of neighbours."""
    table = generate(Fraction(1, 43200), 14400)
    x = draw(table, 2 * BLOCK, seed=7, field=WIDE).noise
    magnitude = np.abs(x[x != 0]) - 1
    assert table.K == 21 and magnitude.max() < table.limit
    bits = magnitude >> np.arange(table.K)[:, None] & 1
    for i, (coin, row) in enumerate(zip(table.magnitude, bits, strict=True)):
        assert stats.binomtest(int(row.sum()), row.size, float(coin.probability)).pvalue > ALPHA, i
    for i in range(16):  # the rarest never occur
        assert contingency(bits[i], bits[i + 1]) > ALPHA, i
    assert stats.binomtest(magnitude.size, x.size, float(table.nonzero.probability)).pvalue > ALPHA
    assert symmetry(x, table) > ALPHA
    assert correlation(x[:-1], x[1:]) > ALPHA


def test_audit_of_event_sets(sample: Sample) -> None:
    """Cells at c and c + 1, half a million each: ε is shown to be at least 0.9 and not shown to exceed 1."""
    half = MILLION // 2
    for count in (3, 4, 5, 8, 100):
        bound = epsilon_lower_bound(sample.noise[:half], sample.noise[half:], count, 5)
        print(f"count {count}: ε >= {bound:.4f}")
        assert bound <= 1
        assert bound >= 0.9 or count < 4  # at 3 nothing but rare events tells


# --- planted bugs: every one is caught by the checks that the true protocol passes ------------------


def test_bug_half_the_scale() -> None:
    x = draw(generate(Fraction(2)), FEWER, seed=30).noise
    assert failures(x, TABLE, 1.0) >= {"chi-square", "variance", "audit too high"}


def test_bug_sign_always_plus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random bit behind the sign is zero in all its parts."""

    def without_sign(keys: Any, n: int, name: str, field: Any, rows: int, words: int) -> Any:
        shares, parts = random_bits(keys, n, name, field, rows, words)
        shares[:, rows - 1] = 0
        for part in parts.values():
            part[rows - 1] = 0
        return shares, parts

    monkeypatch.setattr(signs, "random_bits", without_sign)
    x = draw(TABLE, FEWER, seed=31).noise
    assert (x >= 0).all()
    assert failures(x, TABLE, 1.0) >= {"chi-square", "symmetry", "audit too high"}
    assert variance(x, TABLE) > ALPHA  # sizes alone would not tell


@pytest.mark.parametrize("wrong", [Coin(551, 11), Coin(1, 1), Coin(535, 10)], ids=["half", "fair", "nearly"])
def test_bug_wrong_nonzero_coin(wrong: Coin) -> None:
    x = draw(dataclasses.replace(TABLE, nonzero=wrong), FEWER, seed=32).noise
    assert failures(x, TABLE, 1.0) >= {"chi-square", "variance", "audit too high"}


def test_bug_wrong_magnitude_coin() -> None:
    """An eighth in place of 0.119: far too little for an audit, enough for χ² at a million cells."""
    coins = (TABLE.magnitude[0], Coin(1, 3), *TABLE.magnitude[2:])
    x = draw(dataclasses.replace(TABLE, magnitude=coins), MILLION, seed=33).noise
    assert chi_square(x, TABLE) < ALPHA


def test_bug_a_block_drawn_twice_is_stopped() -> None:
    with pytest.raises(StreamReuseError):
        draw(TABLE, 2 * BLOCK, seed=34, chunks=lambda block: 0)


def test_bug_keys_used_in_two_sessions_are_told_by_the_independence_test() -> None:
    """As after a restart from a cloned disk, were keys stored: names cannot show it, statistics do."""

    def same_keys() -> Any:
        with seeded(99):
            return session_keys(3)

    first, second = (draw(TABLE, BLOCK, seed=seed, keys=same_keys).noise for seed in (35, 36))
    assert correlation(first, second) < ALPHA and contingency(clipped(first), clipped(second)) < ALPHA
    assert chi_square(first, TABLE) > ALPHA  # nothing else would tell


def test_bug_neighbours_share_their_noise() -> None:
    x = np.repeat(draw(TABLE, FEWER, seed=37).noise[: FEWER // 2], 2)
    assert "neighbours" in failures(x, TABLE, 1.0)
