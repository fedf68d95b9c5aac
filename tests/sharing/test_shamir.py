"""Shamir's sharing: reconstruction from all shares, the degree check, and compressed dealings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import combinations
from operator import xor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.errors import IntegrityError, TooFewPartiesError
from mpc_engine.field.binary import BinaryField, pack, smallest_field
from mpc_engine.field.mersenne import COUNTS, WIDE, MersenneField
from mpc_engine.sharing.shamir import (
    SUPPORTED,
    dealing,
    degree_for,
    opening_weights,
    reconstruct_bits,
    reconstruct_counts,
)
from tests.world import share_bits, share_vector

PARTIES = pytest.mark.parametrize("n", SUPPORTED)
CELLS = 70


def inner(a: Sequence[int], b: Sequence[int]) -> int:
    return sum(x * y for x, y in zip(a, b, strict=True))


def planes_of(field: BinaryField, bits: np.ndarray, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    return [share.planes for share in share_bits(field, bits, n, rng)]


@PARTIES
@pytest.mark.parametrize("field", [COUNTS, WIDE], ids=str)
def test_all_shares_give_the_value_and_any_one_wrong_is_noticed(n: int, field: MersenneField) -> None:
    rng, t = np.random.default_rng(n), degree_for(n)
    values = rng.integers(-(1 << 29), 1 << 29, (1, CELLS))
    shares = [share.values for share in share_vector(field, values, n, rng)]
    np.testing.assert_array_equal(field.centred(reconstruct_counts(field, shares, t)), values)
    for wrong in range(n):
        for delta in (1, field.p - 1, int(rng.integers(1, field.p))):
            spoiled = list(shares)
            spoiled[wrong] = shares[wrong].copy()
            cell = rng.integers(CELLS)
            spoiled[wrong][0, cell] = (int(spoiled[wrong][0, cell]) + delta) % field.p
            with pytest.raises(IntegrityError, match=f"degree {t}"):
                reconstruct_counts(field, spoiled, t)


@PARTIES
def test_up_to_t_wrong_shares_are_noticed(n: int) -> None:
    """n shares of degree t are a code of distance t + 1."""
    rng, t = np.random.default_rng(n), degree_for(n)
    shares = [share.values for share in share_vector(COUNTS, np.arange(CELLS), n, rng)]
    for wrong in combinations(range(n), t):
        spoiled = [
            COUNTS.add(s, rng.integers(1, COUNTS.p, s.shape, dtype=np.uint64)) if i in wrong else s
            for i, s in enumerate(shares)
        ]
        with pytest.raises(IntegrityError):
            reconstruct_counts(COUNTS, spoiled, t)


@PARTIES
def test_loose_forms_of_the_same_shares_are_no_fault(n: int) -> None:
    """p stands for 0, at whichever party it arises."""
    zero, loose = np.zeros((1, CELLS), np.uint64), np.full((1, CELLS), COUNTS.p, np.uint64)
    for k in range(n):
        shares = [loose if i == k else zero for i in range(n)]
        assert not reconstruct_counts(COUNTS, shares, degree_for(n)).any()


@PARTIES
def test_bits_any_one_wrong_share_is_noticed(n: int) -> None:
    rng, t, field = np.random.default_rng(n), degree_for(n), smallest_field(n)
    bits = rng.integers(0, 2, (2, CELLS), dtype=np.uint8)
    shares = planes_of(field, bits, n, rng)
    np.testing.assert_array_equal(reconstruct_bits(field, shares, t), pack(bits))
    for wrong in range(n):
        for plane in range(field.d):
            spoiled = [share.copy() for share in shares]
            spoiled[wrong][plane, 1, 0] ^= np.uint64(1 << int(rng.integers(64)))
            with pytest.raises(IntegrityError, match="degree"):
                reconstruct_bits(field, spoiled, t)


@PARTIES
def test_a_value_that_is_not_a_bit_is_noticed(n: int) -> None:
    rng, field = np.random.default_rng(n), smallest_field(n)
    shares = planes_of(field, np.zeros((1, CELLS)), n, rng)
    for plane in range(1, field.d):
        constant = np.zeros((field.d, 1, 2), np.uint64)
        constant[plane, 0, 0] = 1 << 17
        with pytest.raises(IntegrityError, match="not one"):
            reconstruct_bits(field, [share ^ constant for share in shares], degree_for(n))


@PARTIES
@pytest.mark.parametrize("field", [COUNTS, WIDE], ids=str)
@given(secret=st.integers(0, 1 << 31), seed=st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=10)
def test_compressed_dealings_lie_on_one_polynomial(
    n: int, field: MersenneField, secret: int, seed: int
) -> None:
    """From every dealer, computing or not: streamed and computed shares have degree t and the secret."""
    p, t, rng = field.p, degree_for(n), np.random.default_rng(seed)
    secret %= p
    for dealer in (*range(1, n + 1), n + 1, n + 17):
        how = dealing(field, n, dealer)
        assert len(how.streamed) == t and dealer not in how.streamed
        assert sorted(how.streamed + how.computed) == list(range(1, n + 1))
        assert how.first == dealer or dealer > n  # a dealer that computes keeps its share
        stream = [int(u) for u in rng.integers(0, p, t)]
        shares = dict(zip(how.streamed, stream, strict=True))
        shares[how.first] = inner(how.first_weights, [secret, *stream]) % p
        for j, weights in how.rest.items():
            shares[j] = inner(weights, [shares[how.first], *stream]) % p
        for points in combinations(range(1, n + 1), t + 1):
            assert inner(opening_weights(field, points), [shares[j] for j in points]) % p == secret


@PARTIES
def test_dealing_in_the_field_of_coins(n: int) -> None:
    field, t = smallest_field(n), degree_for(n)
    rng = np.random.default_rng(n)

    def total(weights: Sequence[int], values: Sequence[int]) -> int:
        products = (field.scalars.multiply(w, v) for w, v in zip(weights, values, strict=True))
        return reduce(xor, products)

    for dealer in range(1, n + 1):
        how = dealing(field, n, dealer)
        secret, *stream = (int(x) for x in rng.integers(0, 1 << field.d, t + 1))
        shares = dict(zip(how.streamed, stream, strict=True))
        shares[how.first] = total(how.first_weights, [secret, *stream])
        for j, weights in how.rest.items():
            shares[j] = total(weights, [shares[how.first], *stream])
        for points in combinations(range(1, n + 1), t + 1):
            assert total(opening_weights(field, points), [shares[j] for j in points]) == secret


@PARTIES
def test_load_is_spread(n: int) -> None:
    """Every computing party deals t elements, and every party gets as many streams as any other."""
    streamed = [j for dealer in range(1, n + 1) for j in dealing(COUNTS, n, dealer).streamed]
    assert {streamed.count(j) for j in range(1, n + 1)} == {degree_for(n)}


@pytest.mark.parametrize("n", [-1, 0, 1, 2])
def test_two_parties_are_told_why(n: int) -> None:
    with pytest.raises(TooFewPartiesError, match="helper"):
        degree_for(n)


@pytest.mark.parametrize("n", [4, 6, 8, 10, 11, 20])
def test_other_numbers_are_refused(n: int) -> None:
    with pytest.raises(TooFewPartiesError, match="3, 5, 7 or 9"):
        degree_for(n)
