"""All randomness of a protocol at once, on a field small enough for that: every cell is one outcome.

The protocols run unchanged; only their keys are replaced. In cell c a stream element is a digit of c in
base p, so the cells together are the whole probability space and counting cells is computing
probabilities. What a coalition sees is then a function of the cell, and its distribution is exact.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np

from mpc_engine.field.mersenne import MersenneField, Vector
from mpc_engine.runtime.context import Context, Protocol
from mpc_engine.sharing.shared import Shared
from tests.world import World


class TinyField(MersenneField):
    """F_p for a small prime p, with the plainest arithmetic."""

    def __init__(self, p: int) -> None:
        super().__init__(31)
        self.p = p
        self._p = np.uint64(p)
        self._residues = np.arange(1 << 12, dtype=np.uint64) % self._p

    def canonical(self, a: Vector) -> Vector:
        # Looking residues up is far faster than dividing; a number beyond the table is an IndexError.
        return self._residues.take(a)

    def encode(self, a: Vector) -> Any:
        return self.canonical(a).astype(self.wire)

    def multiply(self, a: Vector, b: Vector) -> Vector:
        return self.canonical(a * b)

    def inner(self, a: Sequence[Vector], b: Sequence[Vector]) -> Vector:
        return self.canonical(sum((x * y for x, y in zip(a, b, strict=True)), np.zeros_like(a[0])))

    def combine(self, coefficients: Sequence[int], vectors: Sequence[Vector], constant: int = 0) -> Vector:
        total = np.full(vectors[0].shape, constant % self.p, np.uint64)
        for c, v in zip(coefficients, vectors, strict=True):
            factor = np.uint64(c % self.p)
            total += v if factor == 1 else factor * v
        return self.canonical(total)

    def add(self, *vectors: Vector) -> Vector:
        return self.canonical(sum(vectors[1:], vectors[0]))

    def subtract(self, a: Vector, b: Vector) -> Vector:
        return self.canonical(a + self._p - self.canonical(b))


class _Stream:
    def __init__(self, universe: Universe, kind: str, members: tuple[int, ...]) -> None:
        self.universe, self.kind, self.members = universe, kind, members

    def elements(self, name: str, field: MersenneField, shape: tuple[int, ...]) -> Vector:
        rows = int(np.prod(shape[:-1], dtype=int))
        drawn = [
            self.universe.symbol((self.kind, *self.members, name, row), self.members) for row in range(rows)
        ]
        return np.stack(drawn).reshape(shape)

    def uniform(self, name: str, field: MersenneField, rows: int, cells: int) -> Vector:
        return self.elements(name, field, (rows, cells))


class _Keys:
    """In place of `SessionKeys`."""

    def __init__(self, universe: Universe, me: int) -> None:
        self.universe, self.me = universe, me

    def pair(self, other: int) -> _Stream:
        return _Stream(self.universe, "pair", (min(self.me, other), max(self.me, other)))

    def sets(self) -> list[tuple[tuple[int, ...], _Stream]]:
        n = self.universe.n
        return [
            (members, _Stream(self.universe, "set", members))
            for members in combinations(range(1, n + 1), (n + 1) // 2)
            if self.me in members
        ]


@lru_cache(maxsize=64)
def _digits(numbers: range, each: int, cells: int, p: int, place: int) -> np.ndarray:
    """Return a digit in base p of every number, `each` cells of it in turn, over and over.

    Kept between runs, as bytes: every secret is walked with the same digits.
    """
    digits = (np.array(numbers) // p**place % p).astype(np.uint8)
    return np.resize(np.repeat(digits, each), cells)


class Universe:
    """The probability space of one protocol run against one coalition.

    With `settings` = None the coalition's own streams are enumerated like all others and are part of its
    view. With a number they take so many random settings, and the view's distribution is found given each;
    with a range they take those settings of all there are, so that a large space can be walked in parts.
    """

    def __init__(
        self, field: TinyField, n: int, parties: int, coalition: Iterable[int], settings: int | range | None
    ) -> None:
        self.field, self.n, self.parties = field, n, parties
        self.coalition, self.settings = frozenset(coalition), settings
        self.symbols: dict[Any, int] = {}
        self.cells = 1
        self.counting = True
        self.known: dict[Any, Vector] = {}
        self.given: dict[Any, int] = {}

    def symbol(self, key: Any, holders: Iterable[int]) -> Vector:
        """Return one random element for every cell: the same for the same key."""
        known, p = bool(self.coalition & set(holders)), self.field.p
        if known and self.settings is not None:
            place = self.given.setdefault(key, len(self.given))
            each = p ** len(self.symbols)
            if isinstance(self.settings, range):
                return _digits(self.settings, each, self.cells, p, place).astype(np.uint64)
            rng = np.random.default_rng(zlib.crc32(repr(key).encode()))
            values = rng.integers(0, p, self.settings)
            return values.astype(np.uint64)[np.arange(self.cells) // each]
        if self.counting:
            self.symbols.setdefault(key, len(self.symbols))
            return np.zeros(self.cells, np.uint64)
        column = _digits(range(p), p ** self.symbols[key], self.cells, p, 0).astype(np.uint64)
        if known:
            self.known[key] = column
        return column

    def shares(self, number: int, secret: int) -> list[Shared]:
        """Return all parties' shares of a secret by a polynomial whose coefficients are enumerated too."""
        t = (self.n - 1) // 2
        drawn = [self.symbol(("input", number, k), ()) for k in range(t)]
        secrets = np.full(self.cells, secret, np.uint64)
        return [
            Shared(self.field, self.field.combine([i**k for k in range(t + 1)], [secrets, *drawn])[None])
            for i in range(1, self.n + 1)
        ]


def view(
    protocol: Callable[[Context, list[Shared]], Protocol[Any]],
    secrets: Sequence[int],
    field: TinyField,
    coalition: Sequence[int],
    n: int = 3,
    parties: int | None = None,
    settings: int | range | None = None,
    given: int | None = None,
) -> np.ndarray:
    """Return the distribution of a coalition's view: its sorted distinct views, each with its count.

    `given` is how many elements the coalition is expected to know, checked: a walk over ranges of
    settings is whole only if their number is p^given.

    A view is the coalition's shares of the inputs, its streams, the messages it received, and its results.
    """
    universe = Universe(field, n, parties or n, coalition, settings)
    for counting in (True, False):
        if not counting:
            count = len(settings) if isinstance(settings, range) else settings or 1
            universe.cells = field.p ** len(universe.symbols) * count
            assert given is None or len(universe.given) == given
        universe.counting = counting
        inputs = [universe.shares(number, secret) for number, secret in enumerate(secrets)]
        world = World(n, parties, seed=0, record_payloads=True)
        keys: Any = [_Keys(universe, i + 1) for i in range(universe.parties)]

        def whole(ctx: Context, inputs: list[list[Shared]] = inputs) -> Protocol[Any]:
            return protocol(ctx, [shares[ctx.me - 1] for shares in inputs] if ctx.me <= n else [])

        results = world.run(whole, universe.cells, keys=keys)
    columns = [shares[i - 1].values[0] for i in coalition for shares in inputs]
    columns += list(universe.known.values())
    if settings is not None:
        columns.append(
            np.arange(universe.cells, dtype=np.uint64) // np.uint64(field.p ** len(universe.symbols))
        )
    for sent in world.network.transcript:
        if sent.receiver in coalition:
            assert sent.payload is not None
            columns += list(np.frombuffer(sent.payload, "<u4").reshape(-1, universe.cells))
    for i in coalition:
        result = results[i - 1]
        if result is not None:
            columns += list(np.asarray(result).reshape(-1, universe.cells))
    code, room = np.zeros(universe.cells, np.uint64), 1 << 64
    for column in columns:
        width = int(column.max()) + 1
        room //= width
        assert room, "too many columns for one code"
        code = code * np.uint64(width) + column
    return np.stack(np.unique(code, return_counts=True))
