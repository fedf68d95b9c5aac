"""The plan of a release: everything public about it, agreed by all parties before any share is sent.

A plan fixes the cells, the noise, the small-cell tests, every opening and the size of every message. It
is pure: the same inputs give the same plan everywhere, and its digest is what the parties compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mpc_engine.documents import digest
from mpc_engine.dp.accounting import Allotment, Guarantee, Rule
from mpc_engine.errors import DocumentError
from mpc_engine.field.binary import smallest_field
from mpc_engine.field.mersenne import COUNTS, WIDE, MersenneField
from mpc_engine.protocols.checks import REPETITIONS
from mpc_engine.protocols.dealing import cost_of_dealing
from mpc_engine.protocols.noise import cost_of_finishing, cost_of_preparing
from mpc_engine.protocols.opening import cost_of_opening
from mpc_engine.protocols.threshold import Range, cost_of_range_test
from mpc_engine.release.groups import Groups, Tally
from mpc_engine.release.smallcells import check, ranges
from mpc_engine.runtime.cost import Cost
from mpc_engine.runtime.link import Section

BLOCK_CELLS = 1 << 16
"""Most cells of a block: large enough to make messages of about a mebibyte, small enough for the cache."""

RECORDS, PATIENTS = 0, 1
"""Rows of what a silo shares for a guard: records per cell and, where they may differ, patients."""

_ROOM = {COUNTS: 1 << 29, WIDE: 1 << 59}
"""What sums and noise together must stay below in each field, so that nothing wraps round."""


@dataclass(frozen=True)
class Member:
    """A party as all others know it: name, whether it computes, whether it is a silo, its certificate."""

    name: str
    computing: bool
    silo: bool
    fingerprint: str
    count_bound: int

    def as_fields(self) -> dict[str, object]:
        """Return the member as plain fields."""
        return {
            "name": self.name,
            "computing": self.computing,
            "silo": self.silo,
            "fingerprint": self.fingerprint,
            "count_bound": self.count_bound,
        }


@dataclass(frozen=True)
class Line:
    """One tally in a plan.

    Attributes:
        tally: the cells and what a record may add to one.
        allotment: its ε and noise.
        group: the number of its `Groups`; `guard` tells whether it is their guard.
        per_group: its cells in each group.
        field: the field in which it is summed.
        bound: the largest size of its true sums, from the silos' public bounds.
    """

    tally: Tally
    allotment: Allotment
    group: int
    guard: bool
    per_group: int
    field: MersenneField
    bound: int

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.tally.grid.cells


@dataclass(frozen=True)
class Block:
    """A run of cells of one line that goes through the protocols together."""

    number: int
    line: int
    start: int
    cells: int


@dataclass(frozen=True)
class Plan:
    """One release, before anything is spent.

    Attributes:
        groups: what is released.
        guarantee: rule, threshold k, cap and privacy parameters; its allotments are in the order of the
            tallies.
        members: all parties in order of their numbers 1..m; the computing ones come first.
        digests: digests of the documents behind the plan, by name.
    """

    groups: tuple[Groups, ...]
    guarantee: Guarantee
    members: tuple[Member, ...]
    digests: Mapping[str, str]

    def __post_init__(self) -> None:
        computing = [member.computing for member in self.members]
        if computing != sorted(computing, reverse=True):
            raise DocumentError("computing parties must come before input-only ones")
        if len({groups.name for groups in self.groups}) != len(self.groups):
            raise DocumentError("two kinds of groups have the same name")
        names = [allotment.part.name for allotment in self.guarantee.allotments]
        if len(set(names)) != len(names):
            raise DocumentError("two parts of the release have the same name")
        self.lines  # noqa: B018  # refuses sums that are too large
        check(self.guarantee)  # refuses tests that are too wide

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """All tallies in order: of each kind of groups the guard, then the members."""
        lines = []
        allotments = iter(self.guarantee.allotments)
        counted = sum(member.count_bound for member in self.members if member.silo)
        for number, groups in enumerate(self.groups):
            for tally in groups.tallies:
                allotment = next(allotments)
                bound = counted * tally.step
                lines.append(
                    Line(
                        tally,
                        allotment,
                        number,
                        tally is groups.guard,
                        tally.grid.cells // groups.guard.grid.cells,
                        _field(tally, bound, allotment, tally is groups.guard),
                        bound,
                    )
                )
        return tuple(lines)

    @property
    def computing(self) -> int:
        """Number n of computing parties."""
        return sum(member.computing for member in self.members)

    @property
    def silos(self) -> list[int]:
        """Numbers of the parties that bring counts."""
        return [number for number, member in enumerate(self.members, start=1) if member.silo]

    @property
    def input_only(self) -> list[int]:
        """Numbers of the silos that hold no shares."""
        return list(range(self.computing + 1, len(self.members) + 1))

    def input_rows(self, line: Line) -> int:
        """Rows that a silo shares: one, or records and patients where the rule needs both and they differ."""
        return 2 if line.guard and self.guarantee.cap > 1 and self.guarantee.rule is not Rule.NOISY else 1

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Every line in blocks of about equal size, multiples of 64 cells except for the last."""
        blocks: list[Block] = []
        for index, line in enumerate(self.lines):
            count = -(-line.cells // BLOCK_CELLS)
            size = -(-line.cells // (64 * count)) * 64
            blocks += [
                Block(len(blocks) + i, index, start, min(size, line.cells - start))
                for i, start in enumerate(range(0, line.cells, size))
            ]
        return tuple(blocks)

    def possible(self, line: Line) -> tuple[int, int]:
        """Return the least and greatest value that a shown cell can have when all parties are in order."""
        limit, least = line.allotment.table.limit, line.allotment.least_shown
        if least is None:
            least = self.guarantee.threshold if line.guard else -line.bound * line.tally.signed
            least -= limit
        return least, line.bound + limit

    def tests(self, line: Line) -> list[tuple[str, Range]]:
        """Return what is tested in every cell of a guard, see `ranges`; nothing for a member."""
        return ranges(self.guarantee, line.allotment) if line.guard else []

    @cached_property
    def costs(self) -> dict[Section, Cost]:
        """Declared rounds and bytes sent by all parties together, by section, as if all cells were shown."""
        costs = dict.fromkeys(
            (Section.PREPARE, Section.INPUT, Section.TEST, Section.PATTERN, Section.VALUES), Cost()
        )
        for block in self.blocks:
            for section, cost in self.block_costs(block).items():
                costs[section] = costs[section].beside(cost)  # blocks overlap: their rounds do not add up
        return costs

    def block_costs(self, block: Block) -> dict[Section, Cost]:
        """Return the declared cost of one block by section."""
        n, c, line = self.computing, block.cells, self.lines[block.line]
        coins, outside = smallest_field(n), n * len(self.input_only)

        def published(field: MersenneField) -> Cost:
            return cost_of_opening(field, n, 1, c).beside(Cost(1, outside * field.wire_bytes(1, c)))

        shared = cost_of_dealing(line.field, n, self.silos, self.input_rows(line), c)
        costs = {
            Section.PREPARE: cost_of_preparing(line.field, coins, n, line.allotment.table, c),
            Section.INPUT: shared.beside(cost_of_finishing(line.field, n, c)),
            Section.VALUES: published(line.field),
        }
        if line.guard:
            costs[Section.TEST] = cost_of_range_test(n, [test for _, test in self.tests(line)], c)
            costs[Section.PATTERN] = published(COUNTS)
        return costs

    @property
    def rounds(self) -> int:
        """Protocol rounds, one after the other."""
        return sum(cost.rounds for cost in self.costs.values())

    @property
    def rounds_online(self) -> int:
        """Rounds from the moment the silos share their counts."""
        return self.rounds - self.costs[Section.PREPARE].rounds

    @property
    def sent_bytes(self) -> int:
        """Most bytes that all parties together send, control messages and framing apart."""
        return sum(cost.sent_bytes for cost in self.costs.values())

    @property
    def cells(self) -> int:
        """Number of cells that may be opened."""
        return sum(line.cells for line in self.lines)

    def openings(self) -> list[dict[str, object]]:
        """Return every opening of the plan: what is opened, how many values, how it is protected."""
        coins = sum(line.cells * (line.allotment.table.K + 1) for line in self.lines)
        log: list[dict[str, object]] = [
            {"section": "PREPARE", "what": "coins, each masked by a uniform bit", "values": coins},
            {
                "section": "PREPARE",
                "what": "checks of dealt signs: zeros, and sums under a uniform mask",
                "values": 2 * REPETITIONS * len(self.blocks),
            },
            {
                "section": "PATTERN",
                "what": "whether each group is suppressed, as zero or a uniform non-zero element",
                "values": sum(line.cells for line in self.lines if line.guard),
            },
        ]
        for line in self.lines:
            groups = self.groups[line.group]
            what = "noisy values" if line.guard else f"noisy {line.tally.name}"
            log.append(
                {
                    "section": "VALUES",
                    "what": f"{what} of the {groups.name} that are not suppressed",
                    "values": line.cells,
                }
            )
        return log

    def as_fields(self) -> dict[str, object]:
        """Return the plan as plain fields, the form that is hashed."""
        return {
            "groups": [groups.as_fields() for groups in self.groups],
            "guarantee": self.guarantee.as_fields(),
            "members": [member.as_fields() for member in self.members],
            "digests": dict(self.digests),
            "lines": [
                {
                    "tests": [[what, test.low, test.high] for what, test in self.tests(line)],
                    "field": line.field.p.bit_length(),
                    "rows": self.input_rows(line),
                }
                for line in self.lines
            ],
            "blocks": len(self.blocks),
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan's fields, in hexadecimal."""
        return digest(self.as_fields())


def _field(tally: Tally, bound: int, allotment: Allotment, guard: bool) -> MersenneField:
    """Return the smallest field in which a tally cannot wrap round; guards are compared, so in COUNTS."""
    field = COUNTS
    if not guard and bound >= _room(COUNTS, allotment):
        field = WIDE
    limit = _room(field, allotment)
    if bound >= limit:
        raise DocumentError(
            f"the silos' bounds on {tally.name} add up to {bound}; with this noise they must stay "
            f"below {limit}"
        )
    return field


def _room(field: MersenneField, allotment: Allotment) -> int:
    return _ROOM[field] - max(allotment.table.limit, allotment.least_shown or 0)
