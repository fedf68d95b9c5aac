"""GF(2^d) for d = 2, 3, 4, bit-sliced: a vector is d planes of uint64 words, 64 cells to a word.

Arrays have shape (d, rows, words): plane k holds the coefficient of x^k of every element, row by row.
The bits behind the last cell of a row are padding; they carry random or zero bits and mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mpc_engine.field.algebra import IRREDUCIBLE, ScalarField, binary_scalars

Planes = NDArray[np.uint64]

PIECE = 1 << 13
"""Words that a kernel handles at a time, so that its temporaries stay in cache."""


def words_for(cells: int) -> int:
    """Return how many words hold one bit for each of so many cells."""
    return -(-cells // 64)


def unpack(bits: NDArray[np.uint64], cells: int) -> NDArray[np.uint8]:
    """Return packed bits (rows, words) as 0/1 bytes (rows, cells)."""
    return np.unpackbits(bits.astype("<u8", copy=False).view(np.uint8), axis=-1, bitorder="little")[
        ..., :cells
    ]


def pack(bits: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return 0/1 bytes (rows, cells) as packed bits (rows, words); padding is zero."""
    *rows, cells = bits.shape
    padded = np.zeros((*rows, words_for(cells) * 64), np.uint8)
    padded[..., :cells] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


class BinaryField:
    """Arithmetic in GF(2^d) on planes.

    Args:
        d: 2, 3 or 4.
    """

    def __init__(self, d: int) -> None:
        if d not in IRREDUCIBLE:
            raise ValueError("d must be 2, 3 or 4")
        self.d = d
        # x^m for m < 2d − 1, as the set of planes it falls on after reduction.
        self._powers = [self._planes_of(self._power(m)) for m in range(2 * d - 1)]
        # The planes on which c·x^k falls, for every scalar c and plane k.
        self._scaled = [
            [self._planes_of(self.scalars.multiply(c, 1 << k)) for k in range(d)] for c in range(1 << d)
        ]

    def __repr__(self) -> str:
        return f"GF(2^{self.d})"

    @property
    def scalars(self) -> ScalarField:
        """Scalar algebra of the same field."""
        return binary_scalars(self.d)

    def _power(self, m: int) -> int:
        value = 1
        for _ in range(m):
            value = self.scalars.multiply(value, 0b10)
        return value

    def _planes_of(self, element: int) -> list[int]:
        return [k for k in range(self.d) if element >> k & 1]

    def encode(self, a: Planes) -> NDArray[np.uint64]:
        """Return planes in wire form, contiguous."""
        return np.ascontiguousarray(a, "<u8")

    def decode(self, data: memoryview | bytes, rows: int, cells: int) -> Planes:
        """Return planes of shape (d, rows, words) from wire form; every bit pattern is an element."""
        return np.frombuffer(data, "<u8").reshape(self.d, rows, words_for(cells))

    def wire_bytes(self, rows: int, cells: int) -> int:
        """Return how many bytes planes of so many rows and cells take on the wire."""
        return self.d * rows * words_for(cells) * 8

    def multiply(self, a: Planes, b: Planes) -> Planes:
        """Return a·b, element by element."""
        d, shape = self.d, a.shape
        x, y = a.reshape(d, -1), b.reshape(d, -1)
        out = np.empty((d, x.shape[1]), np.uint64)
        carry, term = np.empty(PIECE, np.uint64), np.empty(PIECE, np.uint64)
        for start in range(0, x.shape[1], PIECE):
            piece = slice(start, min(start + PIECE, x.shape[1]))
            size = piece.stop - piece.start
            c, s = carry[:size], term[:size]
            for m in range(2 * d - 1):
                target = out[m, piece] if m < d else c
                pairs = [(i, m - i) for i in range(max(0, m - d + 1), min(d, m + 1))]
                for first, (i, j) in enumerate(pairs):
                    np.bitwise_and(x[i, piece], y[j, piece], out=s if first else target)
                    if first:
                        np.bitwise_xor(target, s, out=target)
                if m >= d:
                    for k in self._powers[m]:
                        np.bitwise_xor(out[k, piece], c, out=out[k, piece])
        return out.reshape(shape)

    def combine(self, coefficients: Sequence[int], vectors: Sequence[Planes]) -> Planes:
        """Return Σ c_k·v_k for public scalars (bit patterns) c_k and planes of equal shape.

        A vector that lies in GF(2) may be given by its single plane, shape (1, rows, words).
        """
        shape = vectors[0].shape[1:]
        flat = [v.reshape(v.shape[0], -1) for v in vectors]
        sources: list[list[Planes]] = [[] for _ in range(self.d)]
        for c, v in zip(coefficients, flat, strict=True):
            for plane in range(v.shape[0]):
                for k in self._scaled[c][plane]:
                    sources[k].append(v[plane])
        out = np.empty((self.d, flat[0].shape[1]), np.uint64)
        for k, terms in enumerate(sources):
            if not terms:
                out[k].fill(0)
            elif len(terms) == 1:
                np.copyto(out[k], terms[0])
            else:
                np.bitwise_xor(terms[0], terms[1], out=out[k])
                for term in terms[2:]:
                    np.bitwise_xor(out[k], term, out=out[k])
        return out.reshape(self.d, *shape)

    def add(self, *vectors: Planes) -> Planes:
        """Return the sum of planes of equal shape."""
        total = vectors[0] ^ vectors[1] if len(vectors) > 1 else vectors[0].copy()
        for vector in vectors[2:]:
            total ^= vector
        return total


@cache
def smallest_field(parties: int) -> BinaryField:
    """Return GF(2^d) with the smallest d such that 2^d > parties (3..15)."""
    return BinaryField(max(2, parties.bit_length()))
