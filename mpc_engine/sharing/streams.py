"""Keyed randomness: AES-128 in counter mode, one key per group of parties, one name per stream.

A stream is named by what it is for: block of cells, step path, purpose. Each name is drawn once in a
session; a second draw raises. All holders of a key draw the same stream for the same name, in any
order. Keys are fresh for every session (see `keys`), so nothing needs to be remembered between
sessions and a machine restored from a backup cannot repeat a stream.

Field elements are uniform by rejection, never by reduction: a word equal to p is redrawn, at all
holders alike, from an overflow stream of its own name.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from mpc_engine.errors import StreamReuseError
from mpc_engine.field.binary import BinaryField, words_for
from mpc_engine.field.mersenne import MersenneField, Vector

Uniform = NDArray[np.uint64]

KEY_BYTES = 16

_PIECE = 1 << 16
_ZEROS = memoryview(bytes(_PIECE))


class StreamKey:
    """One shared key and the names already drawn from it. Shows and stores nothing of the key."""

    __slots__ = ("_cipher", "_drawn", "_label")

    def __init__(self, key: bytes, label: str) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a stream key has {KEY_BYTES} bytes")
        self._cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self._drawn: set[bytes] = set()
        self._label = label

    def __repr__(self) -> str:
        return f"<StreamKey {self._label}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a stream key is never stored")

    def _fill(self, name: str, out: NDArray[np.uint8]) -> None:
        # 96 bits of the name's hash and a 32-bit block counter; two names that collide would be refused
        # like one name drawn twice.
        nonce = sha256(name.encode()).digest()[:12]
        if nonce in self._drawn:
            raise StreamReuseError(f"the randomness stream {name!r} of {self._label} would be drawn twice")
        self._drawn.add(nonce)
        self._cipher.reset_nonce(nonce + bytes(4))
        view = out.data.cast("B")
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            self._cipher.update_into(_ZEROS[: len(piece)], piece)

    def bits(self, name: str, rows: int, words: int) -> NDArray[np.uint64]:
        """Return uniform packed bits, shape (rows, words). Raises StreamReuseError."""
        out = np.empty((rows, words), np.uint64)
        if out.size:
            self._fill(name, out.reshape(-1).view(np.uint8))
        return out

    def elements(self, name: str, field: MersenneField, shape: tuple[int, ...]) -> Vector:
        """Return uniform field elements in canonical form. Raises StreamReuseError."""
        words = np.empty(shape, field.wire)
        flat = words.reshape(-1)
        if flat.size:
            self._fill(name, flat.view(np.uint8))
        np.bitwise_and(flat, field.wire.type(field.p), out=flat)
        if flat.size and int(flat.max()) == field.p:
            self._redraw(name, field, flat)
        return words.astype(np.uint64)

    def uniform(self, name: str, field: MersenneField | BinaryField, rows: int, cells: int) -> Uniform:
        """Return uniform elements of either field: shape (rows, cells), or planes (d, rows, words)."""
        if isinstance(field, MersenneField):
            return self.elements(name, field, (rows, cells))
        words = words_for(cells)
        return self.bits(name, field.d * rows, words).reshape(field.d, rows, words)

    def _redraw(self, name: str, field: MersenneField, flat: NDArray[np.unsignedinteger]) -> None:
        """Replace words equal to p from overflow streams until none is left."""
        attempt = 0
        while (rejected := np.flatnonzero(flat == field.p)).size:
            attempt += 1
            more = np.empty(rejected.size, field.wire)
            self._fill(f"{name}/overflow{attempt}", more.view(np.uint8))
            flat[rejected] = more & field.wire.type(field.p)
