"""F_p for the Mersenne primes p = 2^31 − 1 and p = 2^61 − 1, on numpy uint64 vectors.

Vectors are *loose*: every entry lies in 0..p+15 and stands for its residue mod p. All functions take
loose vectors and return loose vectors; `canonical` and `encode` give the one representative in
0..p−1, and nothing leaves a party in any other form, because a loose form would tell how it was
computed. Kernels walk their operands in pieces that stay in cache.

The bound that makes this work: folding x to (x mod 2^e) + (x div 2^e) keeps the residue, and takes
anything below 2^64 in two steps to at most p + 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc_engine.errors import InvalidShareError
from mpc_engine.field.algebra import ScalarField, prime_scalars

Vector = NDArray[np.uint64]

PIECE = 1 << 14
"""Elements that a kernel handles at a time, so that its temporaries stay in cache."""

_U = np.uint64
_ROOM = 1 << 64
_SMALL = 3
_LOW30, _LOW31 = _U((1 << 30) - 1), _U((1 << 31) - 1)


def pieces(size: int) -> Iterator[slice]:
    """Yield slices of at most `PIECE` elements, in order; a multiple of 64 but for the last."""
    for start in range(0, size, PIECE):
        yield slice(start, min(start + PIECE, size))


class _Batch(NamedTuple):
    """Terms first..last−1 of a sum (the first of all terms is there already), then offset and folds."""

    first: int
    last: int
    offset: int
    folds: int


class MersenneField:
    """Arithmetic mod p = 2^exponent − 1.

    Args:
        exponent: 31 (counts; 4 bytes on the wire) or 61 (wide sums; 8 bytes).
    """

    def __init__(self, exponent: int) -> None:
        if exponent not in (31, 61):
            raise ValueError("the exponent must be 31 or 61")
        self.exponent = exponent
        self.p = (1 << exponent) - 1
        self.wire = np.dtype("<u4" if exponent == 31 else "<u8")
        self.element_bytes = self.wire.itemsize
        self._p = _U(self.p)
        self._e = _U(exponent)
        self._loose = self.p + 15

    def __repr__(self) -> str:
        return f"F(2^{self.exponent}-1)"

    @property
    def scalars(self) -> ScalarField:
        """Scalar algebra of the same field."""
        return prime_scalars(self.p)

    # --- representation ---------------------------------------------------------------------------

    def vector(self, integers: NDArray[np.int64]) -> Vector:
        """Return signed integers of absolute value below p as field elements."""
        found: Vector = np.where(integers < 0, integers + self.p, integers).astype(np.uint64)
        return found

    def canonical(self, a: Vector) -> Vector:
        """Return the representatives in 0..p−1 of a loose vector."""
        found: Vector = np.minimum(a, a - self._p)  # below p, the difference wraps round to a huge number
        return found

    def centred(self, a: Vector) -> NDArray[np.int64]:
        """Return the representatives in −(p−1)/2..(p−1)/2: above p/2 means negative."""
        values = self.canonical(a).astype(np.int64)
        return np.where(values > self.p // 2, values - self.p, values)

    def encode(self, a: Vector) -> NDArray[np.unsignedinteger]:
        """Return a loose vector in canonical wire form, contiguous."""
        if self.exponent == 61:
            return self.canonical(a).astype(self.wire, copy=False)
        wire = a.astype(self.wire)  # p + 15 < 2^32
        return np.minimum(wire, wire - np.uint32(self.p), out=wire)

    def decode(self, data: memoryview | bytes, rows: int, cells: int) -> Vector:
        """Return a vector of shape (rows, cells) from wire form.

        Raises InvalidShareError when an element is not canonical.
        """
        wire = np.frombuffer(data, self.wire).reshape(rows, cells)
        if wire.size and int(wire.max()) >= self.p:
            raise InvalidShareError("a received share is outside the field: some party's message is wrong")
        return wire.astype(np.uint64)

    def wire_bytes(self, rows: int, cells: int) -> int:
        """Return how many bytes a vector of shape (rows, cells) takes on the wire."""
        return rows * cells * self.element_bytes

    # --- arithmetic -------------------------------------------------------------------------------

    def _fold(self, x: Vector, scratch: Vector) -> None:
        """Replace x by (x mod 2^e) + (x div 2^e), in place."""
        np.right_shift(x, self._e, out=scratch)
        np.bitwise_and(x, self._p, out=x)
        np.add(x, scratch, out=x)

    def _product(self, a: Vector, b: Vector, out: Vector, scratch: Vector) -> None:
        """Set out to a value below 2^64 that is congruent to a·b."""
        if self.exponent == 31:
            np.multiply(a, b, out=out)
            return
        # a = a1·2^31 + a0: a·b = a1·b1·2^62 + mid·2^31 + a0·b0, with 2^62 = 2 and mid·2^31 split at bit 30.
        a1, a0, b1, b0 = a >> _U(31), a & _LOW31, b >> _U(31), b & _LOW31
        np.multiply(a1, b1, out=out)
        np.left_shift(out, _U(1), out=out)
        np.multiply(a1, b0, out=scratch)
        scratch += a0 * b1
        out += scratch >> _U(30)
        np.bitwise_and(scratch, _LOW30, out=scratch)
        np.left_shift(scratch, _U(31), out=scratch)
        out += scratch
        np.multiply(a0, b0, out=scratch)
        self._fold(scratch, a0)
        out += scratch

    def multiply(self, a: Vector, b: Vector) -> Vector:
        """Return a·b entry by entry, for vectors of equal shape."""
        return self.inner([a], [b])

    def inner(self, a: Sequence[Vector], b: Sequence[Vector]) -> Vector:
        """Return Σ_k a_k·b_k entry by entry, for equally long sequences of vectors of equal shape."""
        shape = a[0].shape
        rows = [(x.reshape(-1), y.reshape(-1)) for x, y in zip(a, b, strict=True)]
        out = np.empty(shape, np.uint64)
        flat = out.reshape(-1)
        term, scratch = np.empty(PIECE, np.uint64), np.empty(PIECE, np.uint64)
        for piece in pieces(flat.size):
            total = flat[piece]
            one, two = term[: total.size], scratch[: total.size]
            for k, (x, y) in enumerate(rows):
                if k == 0:
                    self._product(x[piece], y[piece], total, two)
                    continue
                self._product(x[piece], y[piece], one, two)
                if len(rows) > 3 or self.exponent == 61:
                    self._fold(one, two)
                    self._fold(total, two)
                np.add(total, one, out=total)
            self._fold(total, two)
            self._fold(total, two)
        return out

    def combine(self, coefficients: Sequence[int], vectors: Sequence[Vector], constant: int = 0) -> Vector:
        """Return constant + Σ c_k·v_k for public scalars c_k and vectors of equal shape."""
        out = np.empty(vectors[0].shape, np.uint64)
        flat = out.reshape(-1)
        terms = [
            (self._signed(c), v.reshape(-1)) for c, v in zip(coefficients, vectors, strict=True) if c % self.p
        ]
        batches = self._batches([c for c, _ in terms], constant % self.p)
        term, scratch = np.empty(PIECE, np.uint64), np.empty(PIECE, np.uint64)
        for piece in pieces(flat.size):
            total = flat[piece]
            one, two = term[: total.size], scratch[: total.size]
            total.fill(0) if not terms else self._scale(*terms[0], piece, total, two)
            for batch in batches:
                for c, v in terms[batch.first : batch.last]:
                    if c in (1, -1):
                        (np.add if c == 1 else np.subtract)(total, v[piece], out=total)
                    else:
                        self._scale(c, v, piece, one, two)
                        np.add(total, one, out=total)
                if batch.offset:
                    np.add(total, _U(batch.offset), out=total)
                for _ in range(batch.folds):
                    self._fold(total, two)
        return out

    def _signed(self, c: int) -> int:
        """Return the representative of a scalar that is small in absolute value if it is negative."""
        c %= self.p
        return c - self.p if self.p - c <= _SMALL else c

    def _batches(self, coefficients: Sequence[int], constant: int) -> list[_Batch]:
        """Cut a sum of terms into runs that fit below 2^64, with the folds that follow each.

        A negative term −c·v is computed modulo 2^64, and the run's offset of c·2p makes it c·(2p − v).
        """
        batches: list[_Batch] = []
        first, bound, offset = 1, constant, constant
        for k, c in enumerate(coefficients):
            if c < 0:
                size = -c * 2 * self.p
            elif self.exponent == 31 or c <= _SMALL:
                size = c * self._loose
            else:
                size = self.p + 8  # the product is folded
            if bound + size >= _ROOM:
                batches.append(_Batch(first, k, offset, 2))
                first, bound, offset = k, self.p + 8, 0  # two folds leave at most that
            bound += size
            offset += -c * 2 * self.p if c < 0 else 0
        last = max(len(coefficients), 1)
        return [*batches, _Batch(first, last, offset, 1 if bound < 16 * self.p else 2)]

    def _scale(self, c: int, v: Vector, piece: slice, out: Vector, scratch: Vector) -> None:
        """Set out to c·v modulo 2^64, or to a folded product where that would not fit."""
        if c == 1:
            np.copyto(out, v[piece])
        elif self.exponent == 31 or c <= _SMALL:
            np.multiply(v[piece], _U(c % _ROOM), out=out)
        else:
            self._product(v[piece], np.full_like(out, c), out, scratch)
            self._fold(out, scratch)

    def add(self, *vectors: Vector) -> Vector:
        """Return the sum of vectors of equal shape."""
        out = np.empty(vectors[0].shape, np.uint64)
        flat = out.reshape(-1)
        rows = [vector.reshape(-1) for vector in vectors]
        scratch = np.empty(PIECE, np.uint64)
        for piece in pieces(flat.size):
            total = flat[piece]
            two = scratch[: total.size]
            if len(rows) == 1:
                np.copyto(total, rows[0][piece])
            else:
                np.add(rows[0][piece], rows[1][piece], out=total)
            for count, row in enumerate(rows[2:], start=3):
                np.add(total, row[piece], out=total)
                if count % 4 == 0:  # four vectors below 2^61 + 16 and a folded sum stay below 2^64
                    self._fold(total, two)
            self._fold(total, two)
        return out

    def subtract(self, a: Vector, b: Vector) -> Vector:
        """Return a − b."""
        total = a + (_U(2 * self.p) - b)
        self._fold(total, np.empty_like(total))
        return total

    def total(self, a: Vector) -> int:
        """Return Σ a over all entries, as a canonical scalar."""
        low = int(np.sum(a & _LOW31, dtype=np.uint64))
        high = int(np.sum(a >> _U(31), dtype=np.uint64))
        return (low + (high << 31)) % self.p


COUNTS = MersenneField(31)
"""The field of counts."""

WIDE = MersenneField(61)
"""The field of wide sums."""
