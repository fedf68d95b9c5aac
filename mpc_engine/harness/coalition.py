"""What a coalition of parties can make of all it saw: tests for anything but uniform, independent numbers.

To parties that follow the protocol, everything that arrives is uniform and independent of the other silos'
counts and of the noise of published cells, whatever they combine. So whatever the tests find beyond chance
is a leak. The truth is used as only an auditor could: to look for its trace.

* *uniformity* of every row of elements or bits, and of what openings open (masked coins, masked products);
* *independence* of each of them from the others' true sums, and from the noise of the published cells;
* *drawn*: what the coalition drew itself must not tell the noise either;
* *streams*: pads that are used twice show as differences of rows that repeat or are not uniform, and as
  blocks of bytes that occur twice;
* *discriminant*, at n = 3: the points that the parties send to open a product lie on a polynomial of degree
  2. Without a sharing of zero it is the product of two linear ones, whose discriminant is always a square in
  F_p; with one, it is a square in half of the cells.

Every family of tests is corrected for its size by Bonferroni's inequality, so that `Finding.p` is the chance
that a right engine would show something so unlikely in that family.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mpc_engine.field.binary import pack, smallest_field, unpack
from mpc_engine.field.mersenne import COUNTS, WIDE, Vector
from mpc_engine.harness.transcripts import Row, View
from mpc_engine.release.plan import Plan
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.sharing.shamir import degree_for, opening_weights, reconstruct_bits

LEAST_CELLS: Final = 256
"""Rows shorter than this are not tested by themselves."""
_BUCKETS: Final = 8
_IN_A_CLASS: Final = 32 * _BUCKETS
"""Fewest cells of a class that is told apart: so many are in each field of a table that χ² holds far out."""
_BLOCK: Final = 16
"""Bytes of the blocks that must not repeat; by chance 10^6 of them do so with probability 10^−25."""

Classes = NDArray[np.int64]
Test = tuple[str, float]


@dataclass(frozen=True)
class Secret:
    """Numbers, one per cell of a line, that a coalition must not learn; −2^63 where there is none."""

    name: str
    line: int
    values: NDArray[np.int64]


NOTHING: Final = -(1 << 63)


@dataclass(frozen=True)
class Finding:
    """One family of tests: how many there were, the least p-value times that number, and where it was."""

    family: str
    tests: int
    p: float
    worst: str


def findings(views: Sequence[View], secrets: Sequence[Secret]) -> list[Finding]:
    """Return what a coalition's views of one session show; `secrets` are of that session.

    What one member sent another is no news to the coalition and left out; what all were told counts once.
    """
    members = {view.me for view in views}
    plan = views[0].plan
    rows = [
        row
        for number, view in enumerate(views)
        for row in view.rows
        if row.what == "received"
        and row.peer not in members
        and row.values.size >= LEAST_CELLS
        and not (number and row.told_to_all)
    ]
    drawn = [row for view in views for row in view.rows if row.what == "drawn"]
    opened = list(_openings(views[0]))
    found = [
        _finding("uniformity", (test for row in (*rows, *opened) for test in _uniform(row))),
        _finding("independence", _independence((*rows, *opened), secrets, plan)),
        _finding("streams", _differences(rows)),
        _finding("repeats", _repeats(views, members)),
    ]
    if min(members) > plan.computing:  # who brings counts only draws no noise and opens nothing
        return found
    found.append(_finding("drawn", _independence(drawn, [s for s in secrets if s.name == "noise"], plan)))
    if plan.computing == 3:  # with more parties the test does not apply, and nothing is said of it
        found.append(_finding("discriminant", _discriminants(views[0])))
    return found


def across(views: Sequence[Sequence[View]]) -> Finding:
    """Return whether blocks of bytes repeat between sessions; `views` are those of each session."""
    tests: list[Test] = []
    for of_one in zip(*views, strict=True):
        contents = [content for view in of_one for content in _contents(view, set())]
        tests += ((f"between sessions: {name}", p) for name, p in _repeated(contents))
    return _finding("repeats", tests)


def together(found: Iterable[Finding]) -> list[Finding]:
    """Return findings of several sessions or coalitions as one of each family."""
    families: dict[str, list[Finding]] = defaultdict(list)
    for each in found:
        families[each.family].append(each)
    joined = []
    for family, members in families.items():
        tested = [each for each in members if each.tests]
        worst = min(tested, key=lambda each: each.p, default=members[0])
        tests, p = sum(each.tests for each in members), min(1.0, worst.p * max(1, len(tested)))
        joined.append(Finding(family, tests, p, worst.worst))
    return joined


def _finding(family: str, tests: Iterable[Test]) -> Finding:
    found = list(tests)
    name, p = min(found, key=lambda test: test[1], default=("", 1.0))
    return Finding(family, len(found), min(1.0, p * max(1, len(found))), name)


# --- one row ----------------------------------------------------------------------------------------


def _places(values: NDArray[np.unsignedinteger], order: int) -> Classes:
    """Return each number's place among a few equal parts of its range: the bit itself, else one of 8."""
    return (values >> values.dtype.type(max(0, order.bit_length() - 3) * (order > 2))).astype(np.int64)


def _elements(row: Row) -> Vector:
    return np.asarray(row.values, np.uint64)


def _uniform(row: Row) -> Iterator[Test]:
    if row.values.size >= LEAST_CELLS:
        yield row.title, _even(_places(row.values, row.order), 2 if row.bits else _BUCKETS)


def _even(places: Classes, kinds: int) -> float:
    """Return the p-value of all places being equally likely."""
    seen = np.bincount(places, minlength=kinds)
    if kinds == 2:
        return _fair(int(seen[1]), places.size)
    expected = places.size / kinds
    return float(special.chdtrc(kinds - 1, ((seen - expected) ** 2).sum() / expected))


def _fair(hits: int, tried: int) -> float:
    """Return the exact two-sided p-value of so many heads of a fair coin."""
    return min(1.0, 2 * float(special.bdtr(min(hits, tried - hits), tried, 0.5)))


def _independence(rows: Iterable[Row], secrets: Sequence[Secret], plan: Plan) -> Iterator[Test]:
    classes: dict[tuple[str, MessageKey, int], tuple[NDArray[np.bool_], Classes]] = {}
    for row in rows:
        block = plan.blocks[row.key.chunk]
        for secret in secrets:
            if secret.line != block.line:
                continue
            place = (secret.name, row.key, row.values.size)
            if place not in classes:
                values = secret.values[block.start : block.start + block.cells]
                if row.key.section is Section.VALUES and secret.name == "noise":
                    values = values[values != NOTHING]
                classes[place] = _classes(values) if values.size == row.values.size else _classes(values[:0])
            known, ranks = classes[place]
            if ranks.size and ranks.max() > 0:
                yield (
                    f"{row.title}, with {secret.name}",
                    _contingency(_places(row.values, row.order)[known], ranks),
                )


def _classes(values: NDArray[np.int64]) -> tuple[NDArray[np.bool_], Classes]:
    """Return where there is a value, and the values there in ascending classes of enough cells each."""
    known = values != NOTHING
    there = values[known]
    kinds, places, often = np.unique(there, return_inverse=True, return_counts=True)
    number, held = np.zeros(kinds.size, np.int64), 0
    current = 0
    for place, count in enumerate(often.tolist()):
        number[place] = current
        held += count
        if held >= _IN_A_CLASS:
            current, held = current + 1, 0
    if held and current:  # too few are left for a class of their own
        number[number == current] = current - 1
    return known, number[places] if there.size else np.zeros(0, np.int64)


def _contingency(x: Classes, y: Classes) -> float:
    """Return the p-value of independence of two sequences of small numbers."""
    wide = int(y.max()) + 1
    table = np.bincount(x * wide + y, minlength=(int(x.max()) + 1) * wide).reshape(-1, wide)
    table = table[table.sum(axis=1) > 0].astype(np.float64)
    freedom = (table.shape[0] - 1) * (wide - 1)
    if not freedom:
        return 1.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(special.chdtrc(freedom, ((table - expected) ** 2 / expected).sum()))


# --- pads used twice --------------------------------------------------------------------------------


def _differences(rows: Sequence[Row]) -> Iterator[Test]:
    """Yield tests of the differences of rows that came from one party: within a block, and between blocks."""
    near: dict[tuple[int, int], list[Row]] = defaultdict(list)
    far: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if not row.bits:
            if row.key.section is not Section.VALUES:
                near[row.peer, row.key.chunk].append(row)
            far[row.peer, row.key.section, row.name].append(row)
    pairs = [pair for of in near.values() for pair in combinations(of, 2)]
    pairs += [pair for of in far.values() for pair in combinations(of, 2)]
    for one, two in pairs:
        size = min(one.values.size, two.values.size)
        if one.order == two.order and size >= LEAST_CELLS:
            field = next(each for each in (COUNTS, WIDE) if each.p == one.order)
            gap = field.canonical(field.subtract(_elements(one)[:size], _elements(two)[:size]))
            name = f"{one.title} less {two.title}"
            again = size - np.unique(gap).size
            yield f"{name}: {again} repeat", _rare(again, size**2 / (2 * field.p))
            yield name, _even(_places(gap, field.p), _BUCKETS)
    bits: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row.bits:
            bits[row.peer, row.key].append(row)
            bits[row.peer, row.key.section, row.name].append(row)
    for one, two in (pair for of in bits.values() for pair in pairwise(of)):
        size = min(one.values.size, two.values.size)
        name = f"{one.title} and {two.title} together"
        yield name, _even((one.values[:size] ^ two.values[:size]).astype(np.int64), 2)


def _repeats(views: Sequence[View], members: set[int]) -> Iterator[Test]:
    for view in views:  # one by one, for an opening is told to all of them alike
        yield from _repeated(list(_contents(view, members)))


def _contents(view: View, members: set[int]) -> Iterator[bytes]:
    """Yield the messages from outside, and of each round the longest sent: others repeat parts of it."""
    sent: dict[MessageKey, bytes] = {}
    for what, peer, key, content in view.contents:
        if what == "received" and peer not in members:
            yield content
        elif what == "sent" and len(content) > len(sent.get(key, b"")):
            sent[key] = content
    yield from sent.values()


def _repeated(contents: Sequence[bytes]) -> Iterator[Test]:
    blocks = [
        np.frombuffer(content[: len(content) // _BLOCK * _BLOCK], "<u8").reshape(-1, _BLOCK // 8)
        for content in contents
        if len(content) >= _BLOCK
    ]
    if blocks:
        whole = np.concatenate(blocks)
        ordered = whole[np.lexsort(whole.T)]
        again = int((ordered[1:] == ordered[:-1]).all(axis=1).sum())
        # A block holds four elements of 31 bits, or more.
        yield f"{again} blocks of {_BLOCK} bytes occur twice", _rare(again, len(whole) ** 2 / 2 / 2.0**122)


def _rare(times: int, expected: float) -> float:
    """Return the chance that something rare happens so often, or more often."""
    return float(special.pdtrc(times - 1, expected)) if times else 1.0


# --- openings ---------------------------------------------------------------------------------------


def _openings(view: View) -> Iterator[Row]:
    """Yield what this computing party's openings opened: masked coins, and masked products of cells shown."""
    n = view.plan.computing
    if view.me > n:
        return
    for block in view.plan.blocks:
        flips = _shares(view, block.number, Section.PREPARE, "flips")
        if flips:
            yield from _opened_bits(view, flips, block.cells)
        points = _shares(view, block.number, Section.PATTERN, "product")
        if points:
            opened = COUNTS.canonical(COUNTS.add(*(_elements(rows[0]) for rows in points)))
            row = points[0][0]
            shown = opened[opened != 0]
            yield Row("received", 0, row.key, "opened products of cells shown", shown, COUNTS.p)


def _opened_bits(view: View, flips: list[list[Row]], cells: int) -> Iterator[Row]:
    field = smallest_field(view.plan.computing)
    shares = [
        pack(np.stack([row.values for row in rows])).reshape(field.d, -1, -(-cells // 64)) for rows in flips
    ]
    opened = reconstruct_bits(field, shares, degree_for(view.plan.computing))
    for number, values in enumerate(unpack(opened, cells)):
        yield Row("received", 0, flips[0][0].key, f"opened coins under masks, row {number}", values, 2)


def _shares(view: View, chunk: int, section: Section, name: str) -> list[list[Row]]:
    """Return all computing parties' rows of one opening in order; nothing unless all are there."""
    found: dict[int, list[Row]] = defaultdict(list)
    sent_to: int | None = None
    for row in view.rows:
        if row.key.chunk != chunk or row.key.section is not section or not row.name.startswith(name):
            continue
        if row.what == "received":
            found[row.peer].append(row)
        elif row.what == "sent" and sent_to in (None, row.peer):
            sent_to = row.peer
            found[view.me].append(row)
    parties = range(1, view.plan.computing + 1)
    return [found[party] for party in parties] if all(found[party] for party in parties) else []


def _discriminants(view: View) -> Iterator[Test]:
    """Yield for each block in how many of the cells shown the opened product's polynomial splits."""
    for block in view.plan.blocks:
        points = _shares(view, block.number, Section.PATTERN, "product")
        if not points:
            continue
        weights = opening_weights(COUNTS, (1, 2, 3))
        z = [
            COUNTS.combine([COUNTS.scalars.inverse(weight)], [_elements(rows[0])])
            for weight, rows in zip(weights, points, strict=True)
        ]
        shown = COUNTS.canonical(COUNTS.add(*(_elements(rows[0]) for rows in points))) != 0
        tried = int(shown.sum())
        if tried:
            squares = int(splits([each[shown] for each in z]).sum())
            name = f"block {block.number}: {squares} of {tried} split"
            yield name, _fair(squares, tried)


def splits(points: Sequence[Vector]) -> NDArray[np.bool_]:
    """Return where the polynomial of degree 2 through (1, z₁), (2, z₂), (3, z₃) has its roots in F_p."""
    one, two, three = points
    p, half = COUNTS.p, COUNTS.scalars.inverse(2)
    a = COUNTS.combine([half, p - 1, half], [one, two, three])
    five, three_halves = (p - COUNTS.scalars.multiply(each, half) for each in (5, 3))
    b = COUNTS.combine([five, 4, three_halves], list(points))
    c = COUNTS.combine([3, p - 3, 1], list(points))
    square = COUNTS.multiply(b, b)
    discriminant = COUNTS.combine([1, p - 4], [square, COUNTS.multiply(a, c)])
    # Euler's criterion: d^((p − 1)/2) is 1 for squares, and 0 for 0.
    power = np.ones_like(discriminant)
    for bit in bin((p - 1) // 2)[2:]:
        power = COUNTS.multiply(power, power)
        if bit == "1":
            power = COUNTS.multiply(power, discriminant)
    found: NDArray[np.bool_] = COUNTS.canonical(power) <= 1
    return found
