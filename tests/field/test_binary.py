"""GF(2^d) on bit planes against MPyC's scalars, and the scalar algebra itself."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.field.algebra import ScalarField, binary_scalars, prime_scalars
from mpc_engine.field.binary import PIECE, BinaryField, pack, smallest_field, unpack, words_for

DEGREES = pytest.mark.parametrize("d", [2, 3, 4])


def to_planes(field: BinaryField, elements: np.ndarray) -> np.ndarray:
    """Elements as bit patterns, (rows, cells), to planes."""
    return np.stack([pack((elements >> k & 1).astype(np.uint8)) for k in range(field.d)])


def from_planes(field: BinaryField, planes: np.ndarray, cells: int) -> np.ndarray:
    return sum(unpack(planes[k], cells).astype(int) << k for k in range(field.d))


@DEGREES
def test_all_products_and_sums(d: int) -> None:
    field, scalars, q = BinaryField(d), binary_scalars(d), 1 << d
    x, y = (grid.reshape(1, -1) for grid in np.meshgrid(range(q), range(q)))
    a, b = to_planes(field, x), to_planes(field, y)
    products = [scalars.multiply(int(i), int(j)) for i, j in zip(x[0], y[0], strict=True)]
    assert from_planes(field, field.multiply(a, b), q * q)[0].tolist() == products
    assert from_planes(field, field.add(a, b), q * q)[0].tolist() == (x ^ y)[0].tolist()
    assert from_planes(field, field.add(a), q * q).tolist() == x.tolist()


@DEGREES
@given(data=st.data(), terms=st.integers(1, 9), cells=st.integers(1, 130), rows=st.integers(1, 3))
@settings(deadline=None, max_examples=25)
def test_linear_combinations(d: int, data: st.DataObject, terms: int, cells: int, rows: int) -> None:
    field, scalars, q = BinaryField(d), binary_scalars(d), 1 << d
    coefficients = data.draw(st.lists(st.integers(0, q - 1), min_size=terms, max_size=terms))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    bits = data.draw(st.lists(st.booleans(), min_size=terms, max_size=terms))
    values = [rng.integers(0, 2 if bit else q, (rows, cells)) for bit in bits]
    planes = [
        pack(v.astype(np.uint8))[None] if bit else to_planes(field, v)
        for v, bit in zip(values, bits, strict=True)
    ]
    expected = np.zeros((rows, cells), int)
    for c, v in zip(coefficients, values, strict=True):
        expected ^= np.array([scalars.multiply(c, x) for x in range(q)])[v]
    got = field.combine(coefficients, planes)
    assert got.shape == (d, rows, words_for(cells))
    np.testing.assert_array_equal(from_planes(field, got, cells), expected)


@DEGREES
def test_products_of_more_than_one_piece(d: int) -> None:
    field, cells = BinaryField(d), 64 * (PIECE + 3)
    rng = np.random.default_rng(d)
    a, b = (rng.integers(0, 1 << 63, (d, 2, words_for(cells)), dtype=np.uint64) for _ in range(2))
    table = np.array([[field.scalars.multiply(x, y) for y in range(1 << d)] for x in range(1 << d)])
    x, y = from_planes(field, a, cells), from_planes(field, b, cells)
    np.testing.assert_array_equal(from_planes(field, field.multiply(a, b), cells), table[x, y])


@given(cells=st.integers(1, 200), rows=st.integers(1, 3), seed=st.integers(0, 1 << 32))
def test_packing_keeps_tails(cells: int, rows: int, seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2, (rows, cells), dtype=np.uint8)
    packed = pack(bits)
    assert packed.shape == (rows, words_for(cells)) and packed.dtype == np.uint64
    np.testing.assert_array_equal(unpack(packed, cells), bits)
    assert int(np.bitwise_count(packed).sum()) == int(bits.sum())  # padding is zero
    place = seed % cells
    assert int(packed[0, place // 64]) >> place % 64 & 1 == bits[0, place]


@DEGREES
@pytest.mark.parametrize("cells", [1, 63, 64, 65, 1000])
def test_wire_form(d: int, cells: int) -> None:
    field = BinaryField(d)
    planes = np.random.default_rng(cells).integers(0, 1 << 63, (d, 2, words_for(cells)), dtype=np.uint64)
    wire = field.encode(planes)
    assert wire.nbytes == field.wire_bytes(2, cells)
    np.testing.assert_array_equal(field.decode(wire.tobytes(), 2, cells), planes)


def test_the_smallest_field_has_a_point_for_every_party() -> None:
    assert {n: smallest_field(n).d for n in (3, 5, 7, 9)} == {3: 2, 5: 3, 7: 3, 9: 4}
    with pytest.raises(ValueError, match="2, 3 or 4"):
        BinaryField(5)


@pytest.mark.parametrize(
    "scalars",
    [prime_scalars(2**31 - 1), prime_scalars(2**61 - 1), binary_scalars(4)],
    ids=lambda scalars: str(scalars.order),
)
def test_interpolation_is_exact_below_its_degree_and_wrong_above(scalars: ScalarField) -> None:
    def at(polynomial: list[int], x: int) -> int:
        value = scalars.element(0)
        for c in reversed(polynomial):
            value = value * scalars.element(x) + scalars.element(c)
        return scalars.integer(value)

    def interpolated(polynomial: list[int]) -> int:
        terms = zip(scalars.interpolation_weights(points, at=0), points, strict=True)
        return scalars.integer(
            sum((scalars.element(w) * at(polynomial, x) for w, x in terms), scalars.element(0))
        )

    points = [1, 2, 5, 9]
    assert interpolated([7, 3, 0, 11]) == 7
    assert interpolated([7, 3, 0, 11, 1]) != 7
    assert scalars.multiply(9, scalars.inverse(9)) == 1
    with pytest.raises(ZeroDivisionError):
        scalars.inverse(0)
    with pytest.raises(ValueError, match="distinct"):
        scalars.interpolation_weights([1, 2, 1], at=0)


def test_mpyc_leaves_the_host_program_alone() -> None:
    """Importing it reads no command line, prints nothing and configures no logging."""
    code = (
        "import sys, logging; sys.argv = ['x', '-M3', '--help']; import mpc_engine.field.mersenne;"
        "assert sys.argv == ['x', '-M3', '--help'] and not logging.root.handlers"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
