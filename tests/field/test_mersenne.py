"""F_p on vectors against Python's integers, at the edges of the loose representation above all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.errors import InvalidShareError
from mpc_engine.field.mersenne import COUNTS, PIECE, WIDE, MersenneField

FIELDS = pytest.mark.parametrize("field", [COUNTS, WIDE], ids=str)


def edges(field: MersenneField) -> list[int]:
    """Values where carries and wraps happen; p..p+15 are loose forms of 0..15."""
    p, half = field.p, 1 << (field.exponent // 2)
    near = [0, half, 1 << 30, 1 << 31, p // 2, p]
    return sorted({v for x in near for d in range(-3, 16) if 0 <= (v := x + d) <= p + 15})


def vector(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint64)


def residues(field: MersenneField, a: np.ndarray) -> list[int]:
    """The represented residues, after checking that the vector is loose."""
    values = [int(x) for x in a.reshape(-1)]
    assert all(0 <= v <= field.p + 15 for v in values)
    return [v % field.p for v in values]


def loose(field: MersenneField) -> st.SearchStrategy[int]:
    return st.one_of(st.integers(0, field.p + 15), st.sampled_from(edges(field)))


@FIELDS
def test_arithmetic_of_all_pairs_of_edges(field: MersenneField) -> None:
    points = edges(field)
    pairs = [(x, y) for x in points for y in points]
    a, b = vector([x for x, _ in pairs]), vector([y for _, y in pairs])
    p = field.p
    assert residues(field, field.multiply(a, b)) == [x * y % p for x, y in pairs]
    assert residues(field, field.add(a, b)) == [(x + y) % p for x, y in pairs]
    assert residues(field, field.subtract(a, b)) == [(x - y) % p for x, y in pairs]


@FIELDS
@given(data=st.data(), terms=st.integers(1, 24), size=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_sums_with_many_terms(field: MersenneField, data: st.DataObject, terms: int, size: int) -> None:
    p, one = field.p, st.lists(loose(field), min_size=size, max_size=size)
    xs, ys = (data.draw(st.lists(one, min_size=terms, max_size=terms)) for _ in range(2))
    scalars = data.draw(st.lists(st.integers(-p, 2 * p), min_size=terms, max_size=terms))
    constant = data.draw(st.integers(-p, 2 * p))
    a, b = [vector(x) for x in xs], [vector(y) for y in ys]
    columns = range(size)
    assert residues(field, field.inner(a, b)) == [
        sum(x[i] * y[i] for x, y in zip(xs, ys, strict=True)) % p for i in columns
    ]
    assert residues(field, field.combine(scalars, a, constant)) == [
        (constant + sum(c * x[i] for c, x in zip(scalars, xs, strict=True))) % p for i in columns
    ]
    assert residues(field, field.add(*a)) == [sum(x[i] for x in xs) % p for i in columns]
    assert field.total(a[0]) == sum(xs[0]) % p


@FIELDS
@pytest.mark.parametrize("terms", [1, 2, 3, 4, 5, 6, 7, 8, 13, 63])
def test_the_largest_values_never_pass_64_bits(field: MersenneField, terms: int) -> None:
    """Every operand at its upper end, with coefficient p − 1: where a missing fold would overflow."""
    top = field.p + 15
    a = [vector([top, top, 0])] * terms
    assert residues(field, field.inner(a, a))[:2] == [terms * 15 * 15 % field.p] * 2
    assert (
        residues(field, field.combine([field.p - 1] * terms, a, -1))[:2] == [(-15 * terms - 1) % field.p] * 2
    )
    assert residues(field, field.add(*a))[:2] == [15 * terms] * 2


@FIELDS
@pytest.mark.parametrize("weight", [2, 5, 15, 16, 17, 18, 31, 33, 64, 65, 200, 1 << 15])
def test_the_sums_that_one_fold_leaves_largest(field: MersenneField, weight: int) -> None:
    """weight·2^e − 1 folds to p + weight − 1: loose only while the weight is small."""
    p = field.p
    more, less = vector([p + 1]), vector([p])
    assert residues(field, field.combine([weight - 1, 1], [more, less])) == [weight - 1]
    assert residues(field, field.combine([1 - weight, -1], [more, less])) == [(1 - weight) % p]
    assert residues(field, field.inner([vector([weight - 1]), vector([1])], [more, less])) == [weight - 1]
    assert residues(field, field.add(*[more] * min(weight - 1, 300), less)) == [min(weight - 1, 300)]


@FIELDS
@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_small_and_large_coefficients_of_both_signs(field: MersenneField, data: st.DataObject) -> None:
    """Coefficients near 0, powers of two and p/2, on operands at both ends: where sums may wrap."""
    p, top = field.p, field.p + 15
    base = st.sampled_from([0, *(1 << k for k in range(field.exponent)), p // 2, p - 1])
    one = st.builds(lambda c, d, sign: sign * (c + d), base, st.integers(-2, 2), st.sampled_from([1, -1]))
    scalars = data.draw(st.lists(one, min_size=1, max_size=12))
    ends = data.draw(st.lists(st.sampled_from([0, 1, p, top]), min_size=len(scalars), max_size=len(scalars)))
    constant = data.draw(st.sampled_from([0, 1, -1, p - 1, p // 2]))
    got = field.combine(scalars, [vector([x]) for x in ends], constant)
    expected = constant + sum(c * x for c, x in zip(scalars, ends, strict=True))
    assert residues(field, got) == [expected % p]


@FIELDS
@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 7])
def test_sizes_around_a_piece(field: MersenneField, size: int) -> None:
    rng = np.random.default_rng(size)
    a, b, c = (rng.integers(0, field.p + 16, size, dtype=np.uint64) for _ in range(3))
    wide = [x.astype(object) for x in (a, b, c)]
    assert residues(field, field.inner([a, b], [b, c])) == [
        x % field.p for x in wide[0] * wide[1] + wide[1] * wide[2]
    ]
    assert residues(field, field.combine([3, -1, field.p - 2], [a, b, c])) == [
        x % field.p for x in 3 * wide[0] - wide[1] - 2 * wide[2]
    ]
    assert field.total(a) == sum(wide[0]) % field.p


@FIELDS
def test_operands_are_left_alone_and_shapes_kept(field: MersenneField) -> None:
    rng = np.random.default_rng(5)
    a, b = (rng.integers(0, field.p + 16, (3, 70), dtype=np.uint64) for _ in range(2))
    before = a.copy(), b.copy()
    results = [
        field.multiply(a, b),
        field.inner([a, b], [b, a]),
        field.combine([1, 2], [a, b]),
        field.combine([1], [a]),
        field.add(a),
        field.add(a, b, a),
        field.subtract(a, b),
    ]
    field.encode(a), field.canonical(a), field.centred(a)
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(b, before[1])
    assert {r.shape for r in results} == {(3, 70)}
    assert not any(np.shares_memory(r, x) for r in results for x in (a, b))


@FIELDS
def test_what_leaves_a_party_is_canonical(field: MersenneField) -> None:
    points = edges(field)
    wire = field.encode(vector(points))
    assert wire.dtype == field.wire and wire.flags.c_contiguous
    assert wire.tolist() == [x % field.p for x in points]
    assert field.canonical(vector(points)).tolist() == [x % field.p for x in points]
    assert len(wire.tobytes()) == field.wire_bytes(1, len(points))
    back = field.decode(wire.tobytes(), 1, len(points))
    assert back.shape == (1, len(points)) and back[0].tolist() == wire.tolist()


@FIELDS
@pytest.mark.parametrize("excess", [0, 1, 15])
@pytest.mark.parametrize("place", [0, 63, 99])
def test_a_received_element_outside_the_field_is_refused(
    field: MersenneField, excess: int, place: int
) -> None:
    wire = np.full(100, field.p - 1, field.wire)
    field.decode(wire.tobytes(), 4, 25)
    wire[place] = field.p + excess
    with pytest.raises(InvalidShareError, match="outside the field"):
        field.decode(wire.tobytes(), 4, 25)


@FIELDS
def test_signed_numbers(field: MersenneField) -> None:
    half = (field.p - 1) // 2
    numbers = np.array([0, 1, -1, 5, -64, half, -half], np.int64)
    encoded = field.vector(numbers)
    assert encoded.tolist() == [int(x) % field.p for x in numbers]
    assert field.centred(encoded).tolist() == numbers.tolist()
    assert field.centred(vector([field.p, field.p + 15])).tolist() == [0, 15]


@FIELDS
@pytest.mark.parametrize("operation", ["multiply", "inner", "combine", "add", "subtract", "canonical"])
def test_nothing_is_ever_a_float(field: MersenneField, operation: str) -> None:
    a = vector([field.p - 1, 7, 1 << 30])
    arguments: dict[str, tuple] = {"inner": ([a], [a]), "combine": ([3], [a]), "canonical": (a,)}
    result = getattr(field, operation)(*arguments.get(operation, (a, a)))
    assert result.dtype == np.uint64
    assert field.encode(result).dtype.kind == "u" and field.centred(result).dtype == np.int64
    assert isinstance(field.total(result), int)


def test_the_primes() -> None:
    for field in (COUNTS, WIDE):
        assert all(field.p % q for q in range(2, 1000)) and pow(3, field.p - 1, field.p) == 1
    assert math.log2(COUNTS.p + 1) == 31 and (COUNTS.element_bytes, WIDE.element_bytes) == (4, 8)
    with pytest.raises(ValueError, match="31 or 61"):
        MersenneField(32)
