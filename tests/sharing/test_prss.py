"""Pseudorandom sharing: shares without messages, of values that any t parties know nothing about."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from mpc_engine.field.binary import smallest_field, unpack
from mpc_engine.field.mersenne import COUNTS, WIDE, MersenneField
from mpc_engine.sharing.keys import SessionKeys
from mpc_engine.sharing.prss import random_bits, random_elements, set_weight
from mpc_engine.sharing.shamir import SUPPORTED, degree_for
from mpc_engine.sharing.shared import Shared, SharedBits
from tests.world import reveal, reveal_bits, seeded, session_keys

PARTIES = pytest.mark.parametrize("n", SUPPORTED)


def keys(n: int, seed: int = 1) -> list[SessionKeys]:
    with seeded(seed):
        return session_keys(n)


@PARTIES
@pytest.mark.parametrize("field", [COUNTS, WIDE], ids=str)
def test_elements_are_shared_at_degree_t_and_uniform(n: int, field: MersenneField) -> None:
    shares = [Shared(field, random_elements(k, n, "mask", field, (1, 20000))) for k in keys(n)]
    values = reveal(shares)[0] % field.p
    buckets = (values.astype(object) * 64 // field.p).astype(int)
    assert stats.chisquare(np.bincount(buckets, minlength=64)).pvalue > 1e-4
    assert len(set(values.tolist())) > 19990


@PARTIES
def test_bits_are_shared_at_degree_t_and_are_the_sum_of_their_parts(n: int) -> None:
    field = smallest_field(n)
    drawn = [random_bits(k, n, "bits", field, 2, 3) for k in keys(n)]
    bits = reveal_bits([SharedBits(field, shares) for shares, _ in drawn], 192)
    parts: dict[tuple[int, ...], np.ndarray] = {}
    for me, (_, mine) in enumerate(drawn, start=1):
        assert all(me in members for members in mine)
        for members, part in mine.items():
            np.testing.assert_array_equal(parts.setdefault(members, part), part)
    assert set(parts) == set(combinations(range(1, n + 1), degree_for(n) + 1))
    np.testing.assert_array_equal(bits, unpack(np.bitwise_xor.reduce(list(parts.values())), 192))
    assert abs(int(bits.sum()) - bits.size / 2) < 5 * (bits.size / 4) ** 0.5


@pytest.mark.parametrize("n", [3, 5])
def test_polynomials_of_bits_are_uniform(n: int) -> None:
    """The bit together with the shares of any t parties takes every combination equally often."""
    field, t, cells = smallest_field(n), degree_for(n), 1 << 16
    shares = [random_bits(k, n, "bits", field, 1, cells // 64)[0] for k in keys(n)]
    secret = reveal_bits([SharedBits(field, s) for s in shares], cells)[0].astype(int)
    values = [sum(unpack(s[k], cells)[0].astype(int) << k for k in range(field.d)) for s in shares]
    for coalition in combinations(range(n), t):
        view = secret
        for i in coalition:
            view = (view << field.d) + values[i]
        counts = np.bincount(view, minlength=2 << field.d * t)
        assert stats.chisquare(counts).pvalue > 1e-5, coalition


@PARTIES
def test_any_t_parties_miss_the_key_of_exactly_one_set(n: int) -> None:
    held = [{members for members, _ in k.sets()} for k in keys(n)]
    everything = set.union(*held)
    for coalition in combinations(range(n), degree_for(n)):
        missing = everything - set.union(*(held[i] for i in coalition))
        assert missing == {tuple(j + 1 for j in range(n) if j not in coalition)}


@PARTIES
def test_weights_are_one_at_the_secret_and_zero_outside_the_set(n: int) -> None:
    for field in (COUNTS, WIDE, smallest_field(n)):
        for members in combinations(range(1, n + 1), degree_for(n) + 1):
            assert set_weight(field, n, members, 0) == 1
            assert all(bool(set_weight(field, n, members, j)) == (j in members) for j in range(1, n + 1))
