"""What parties saw, read as the protocols wrote it: which rows of which message are elements, which bits.

A message is raw bytes; what stands in it follows from the plan alone. `pieces_of` gives the rows of every
message that carries one number per cell, and `read_view` turns a party's log into such rows. What is not read
– seeds of public coins, sums of checks – is too short for any test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import comb
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mpc_engine.field.binary import smallest_field, unpack, words_for
from mpc_engine.field.mersenne import MersenneField, Vector
from mpc_engine.harness.record import Seen
from mpc_engine.protocols.checks import REPETITIONS
from mpc_engine.protocols.noise import circuit_for
from mpc_engine.protocols.signs import roles
from mpc_engine.release.plan import Block, Plan
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.sharing.shamir import dealing, degree_for

_SEED_BYTES: Final = 32

Bits = NDArray[np.uint8]


@dataclass(frozen=True)
class Piece:
    """Part of a message: `rows` of elements of F_p, or with `bits` of GF(2^d), or `other` bytes."""

    what: str
    rows: int = 0
    bits: bool = False
    other: int = 0


@dataclass(frozen=True)
class Row:
    """One number per cell that a party saw: field elements, or bits.

    `what` is ``received``, ``sent`` or ``drawn``, `peer` the other end, `name` the step and the row in it;
    numbers are uniform in 0..`order` − 1 if all is well, and `order` is 2 for bits.
    """

    what: str
    peer: int
    key: MessageKey
    name: str
    values: Vector | Bits = field(repr=False)
    order: int

    @property
    def bits(self) -> bool:
        """Whether the numbers are bits."""
        return self.order == 2

    @property
    def told_to_all(self) -> bool:
        """Whether it is part of an opening, of which everybody gets the same."""
        return self.name.startswith(("flips", "product", "values"))

    @property
    def title(self) -> str:
        """What it is, for people."""
        whose = {"received": f"from {self.peer}", "sent": f"to {self.peer}", "drawn": "drawn"}[self.what]
        return f"{self.key.section.name} {self.name}, block {self.key.chunk}, {whose}"


@dataclass
class View:
    """What one party saw in one session; `unread` counts messages that were not as the plan says."""

    me: int
    plan: Plan
    rows: list[Row] = field(default_factory=list)
    contents: list[tuple[str, int, MessageKey, bytes]] = field(default_factory=list, repr=False)
    unread: int = 0


def pieces_of(plan: Plan, key: MessageKey, sender: int, receiver: int, shown: int) -> list[Piece]:
    """Return what a message from `sender` to `receiver` holds; `shown` cells of its block are published."""
    block, n = plan.blocks[key.chunk], plan.computing
    line = plan.lines[block.line]
    dealt = sender > n or receiver in dealing(line.field, n, sender).computed
    if key.section is Section.INPUT:
        pieces = [Piece("counts", plan.input_rows(line))] if dealt and sender in plan.silos else []
        return [*pieces, *([Piece("noise", 1)] if dealt and sender <= n else [])]
    if key.section is Section.PATTERN:
        return [Piece("product", 1)]
    if key.section is Section.VALUES:
        return [Piece("values", 1)] if shown else []
    if key.section is Section.PREPARE:
        return list(_preparing(plan, block, key.round, sender, dealt))
    return []


def _preparing(plan: Plan, block: Block, at: int, sender: int, dealt: bool) -> Iterator[Piece]:
    """Yield what a message of a round of `protocols.noise.prepare_noise` holds: coins beside signs first."""
    n, line = plan.computing, plan.lines[block.line]
    k, t = line.allotment.table.K, degree_for(n)
    levels = circuit_for(line.allotment.table).levels
    products = _tree(t)
    flips = max(len(levels), 1 + max(len(products), 2))
    if at < len(levels) and dealt:
        yield Piece(f"coins, level {at}", levels[at].products, bits=True)
    if at == 0 and dealt and sender in roles(n, block.number).dealers:
        yield Piece("signs", k + 2)
    if 1 <= at <= len(products) and dealt:
        yield Piece(f"signs, level {at - 1}", products[at - 1] * (k + 2))
    if at == 1:
        yield Piece("public coins", other=_SEED_BYTES)
    if at == 2:
        yield Piece("checks", other=2 * REPETITIONS * line.field.element_bytes)
    if at == flips:
        yield Piece("flips", k + 1, bits=True)
    if at == flips + 1 and dealt:
        yield Piece("factors", 2)


def _tree(factors: int) -> list[int]:
    """Return how many products each level of a product of so many factors has."""
    found = []
    while factors > 1:
        found.append(factors // 2)
        factors -= factors // 2
    return found


def read_view(plan: Plan, me: int, seen: Sequence[Seen], pattern: Sequence[NDArray[np.bool_]]) -> View:
    """Return what a party saw in one session; `pattern` tells for each kind of groups which were shown."""
    view = View(me, plan)
    once: set[tuple[str, int, MessageKey]] = set()
    drawings: dict[MessageKey, int] = {}
    for each in seen:
        if each.key.section is Section.CONTROL:
            continue
        if each.what == "drawn":
            number = drawings[each.key] = drawings.get(each.key, 0) + 1
            view.rows += _drawn(plan, me, each, number)
            continue
        place = (each.what, each.peer, each.key)
        if place in once:  # what was published is sent again to a party that was away
            continue
        once.add(place)
        view.contents.append((*place, each.content))
        rows = _read(plan, me, each, pattern)
        view.rows += rows or []
        view.unread += rows is None
    return view


def _read(plan: Plan, me: int, seen: Seen, pattern: Sequence[NDArray[np.bool_]]) -> list[Row] | None:
    if not 0 <= seen.key.chunk < len(plan.blocks):
        return None
    block = plan.blocks[seen.key.chunk]
    line = plan.lines[block.line]
    visible = np.repeat(pattern[line.group], line.per_group)[block.start : block.start + block.cells]
    cells = int(visible.sum()) if seen.key.section is Section.VALUES else block.cells
    ends = (seen.peer, me) if seen.what == "received" else (me, seen.peer)
    pieces = pieces_of(plan, seen.key, *ends, cells)
    if seen.key.section is Section.TEST:
        pieces = [Piece("test", len(seen.content) // line.field.wire_bytes(1, cells))]
    rows: list[Row] = []
    at = 0
    for piece in pieces:
        size = _size(plan, piece, line.field, cells)
        if at + size > len(seen.content):
            return None
        content = seen.content[at : at + size]
        at += size
        name = f"{piece.what}, round {seen.key.round}" if piece.what == "test" else piece.what
        if piece.bits:
            rows += _bits(seen, name, content, piece.rows, cells)
        elif piece.rows:
            rows += _elements(seen, name, content, line.field, cells)
    return rows if at == len(seen.content) else None


def _size(plan: Plan, piece: Piece, of: MersenneField, cells: int) -> int:
    if piece.bits:
        return piece.rows * smallest_field(plan.computing).d * words_for(cells) * 8
    return piece.other + of.wire_bytes(piece.rows, cells)


def _elements(seen: Seen, name: str, content: bytes, of: MersenneField, cells: int) -> Iterator[Row]:
    for number, values in enumerate(np.frombuffer(content, of.wire).reshape(-1, cells)):
        whole = f"{name}, row {number}"
        yield Row(seen.what, seen.peer, seen.key, whole, values.astype(np.uint64), of.p)


def _bits(seen: Seen, name: str, content: bytes, rows: int, cells: int) -> Iterator[Row]:
    """Yield the planes of bits of a message of shape (planes, rows, words), or of one plane per set."""
    words = np.frombuffer(content, "<u8").reshape(-1, rows, words_for(cells))
    for plane, packed in enumerate(words):
        for number, values in enumerate(unpack(packed, cells)):
            whole = f"{name}, row {number}, plane {plane}"
            yield Row(seen.what, seen.peer, seen.key, whole, values, 2)


def _drawn(plan: Plan, me: int, seen: Seen, number: int) -> list[Row]:
    """Return what a party drew: the signs that it deals, and its parts of the random bits.

    Parts of all sets that it is in are also added up: what the bit would be if the sets without it brought
    nothing. A silo's own counts, which are drawn by nobody, are left out.
    """
    if seen.key.section is not Section.PREPARE:
        return []
    block = plan.blocks[seen.key.chunk]
    line = plan.lines[block.line]
    k, cells = line.allotment.table.K, block.cells
    sets = comb(plan.computing - 1, degree_for(plan.computing))
    deals = me in roles(plan.computing, block.number).dealers
    if deals and len(seen.content) == line.field.wire_bytes(k + 2, cells):
        negative = [
            (values == line.field.p - 1).astype(np.uint8)
            for values in np.frombuffer(seen.content, line.field.wire).reshape(k + 2, cells)
        ]
        return [
            Row("drawn", 0, seen.key, f"dealt signs, row {row}", values, 2)
            for row, values in enumerate(negative)
        ]
    rows, left = divmod(len(seen.content), sets * words_for(cells) * 8)
    if left:
        return []
    name = f"bits {number}"
    found = list(_bits(seen, name, seen.content, rows, cells))
    whole = np.bitwise_xor.reduce(np.stack([row.values for row in found]).reshape(sets, rows, cells), axis=0)
    found += [
        Row("drawn", 0, seen.key, f"{name}, all parts, row {row}", whole[row], 2) for row in range(rows)
    ]
    return found
