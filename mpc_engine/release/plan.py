"""The plan: the public program that a query becomes, agreed by all parties before any share is sent.

A plan fixes the cells, the noise, the small-cell test, every opening and the size of every message. It
is pure: the same inputs give the same plan everywhere, and its digest is what the parties compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mpc_engine.documents import digest
from mpc_engine.dp.accounting import Guarantee, Rule
from mpc_engine.dp.noise_table import NoiseTable
from mpc_engine.errors import DocumentError
from mpc_engine.field.binary import smallest_field
from mpc_engine.field.mersenne import COUNTS
from mpc_engine.protocols.checks import REPETITIONS
from mpc_engine.protocols.dealing import cost_of_dealing
from mpc_engine.protocols.noise import cost_of_finishing, cost_of_preparing
from mpc_engine.protocols.opening import cost_of_opening
from mpc_engine.protocols.threshold import Range, cost_of_range_test
from mpc_engine.release.grid import Grid
from mpc_engine.runtime.cost import Cost
from mpc_engine.runtime.link import Section

BLOCK_CELLS = 1 << 16
"""Most cells of a block: large enough to make messages of about a mebibyte, small enough for the cache."""

RECORDS, PATIENTS = 0, 1
"""Rows of what a silo shares: records per cell and, where a patient may have several, patients."""


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
class Block:
    """A run of cells that goes through the protocols together."""

    number: int
    start: int
    cells: int


@dataclass(frozen=True)
class Plan:
    """One release, before anything is spent.

    Attributes:
        grid: the cells.
        guarantee: rule, threshold k, cap and privacy parameters.
        table: the noise of every cell.
        members: all parties in order of their numbers 1..m; the computing ones come first.
        digests: digests of the documents behind the plan, by name.
    """

    grid: Grid
    guarantee: Guarantee
    table: NoiseTable
    members: tuple[Member, ...]
    digests: Mapping[str, str]

    def __post_init__(self) -> None:
        computing = [member.computing for member in self.members]
        if computing != sorted(computing, reverse=True):
            raise DocumentError("computing parties must come before input-only ones")
        bound = sum(member.count_bound for member in self.members if member.silo)
        limit = (1 << 29) - max(self.table.limit, self.guarantee.least_shown or 0)
        if bound >= limit:
            raise DocumentError(
                f"the silos' bounds on their counts add up to {bound}; with this noise they must stay "
                f"below {limit}"
            )
        self.tests  # noqa: B018 - refuses tests that are too wide

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

    @property
    def input_rows(self) -> int:
        """Rows that a silo shares: records, and patients where the rule needs them and they may differ."""
        return 2 if self.guarantee.cap > 1 and self.guarantee.rule is not Rule.NOISY else 1

    @property
    def blocks(self) -> list[Block]:
        """The grid in blocks of about equal size, multiples of 64 cells except for the last."""
        cells = self.grid.cells
        count = -(-cells // BLOCK_CELLS)
        size = -(-cells // (64 * count)) * 64
        return [
            Block(number, start, min(size, cells - start))
            for number, start in enumerate(range(0, cells, size))
        ]

    @property
    def possible(self) -> tuple[int, int]:
        """The least and greatest value that a shown cell can have when all parties are in order."""
        bound = sum(member.count_bound for member in self.members if member.silo)
        least = self.guarantee.least_shown
        return (
            self.guarantee.threshold - self.table.limit if least is None else least
        ), bound + self.table.limit

    @cached_property
    def tests(self) -> list[tuple[str, Range]]:
        """What is tested in every cell: "noisy" for records plus noise, "patients" for the true count.

        A cell is suppressed if any of its values lies in its range. The ranges start at the lowest
        value that can occur (for the noisy value under `strict`: in a cell that passes the other test).
        """
        rule, k, limit = self.guarantee.rule, self.guarantee.threshold, self.table.limit
        patients = ("patients", Range(0, k - 1))
        if rule is Rule.EXACT:
            return [patients]
        if rule is Rule.NOISY:
            return [("noisy", Range(-limit, k - 1))]
        shown_from = self.guarantee.least_shown
        if shown_from is None:
            raise DocumentError("rule strict needs the least value shown")
        return [patients, ("noisy", Range(k - limit, shown_from - 1))]

    @cached_property
    def costs(self) -> dict[Section, Cost]:
        """Declared rounds and bytes sent by all parties together, by section, as if all cells were shown."""
        n, field = self.computing, smallest_field(self.computing)
        outside = len(self.input_only)
        ranges = [test for _, test in self.tests]
        costs = dict.fromkeys(
            (Section.PREPARE, Section.INPUT, Section.TEST, Section.PATTERN, Section.VALUES), Cost()
        )
        for block in self.blocks:
            c = block.cells
            opening = cost_of_opening(COUNTS, n, 1, c).beside(Cost(1, n * outside * COUNTS.wire_bytes(1, c)))
            shared = cost_of_dealing(COUNTS, n, self.silos, self.input_rows, c)
            for section, cost in (
                (Section.PREPARE, cost_of_preparing(field, n, self.table, c)),
                (Section.INPUT, shared.beside(cost_of_finishing(n, c))),
                (Section.TEST, cost_of_range_test(n, ranges, c)),
                (Section.PATTERN, opening),
                (Section.VALUES, opening),
            ):
                costs[section] = costs[section].beside(cost)  # blocks overlap: their rounds do not add up
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

    def openings(self) -> list[dict[str, object]]:
        """Return every opening of the plan: what is opened, how many values, how it is protected."""
        cells, coins = self.grid.cells, len(self.table.magnitude) + 1
        checks = len(self.blocks)
        return [
            {"section": "PREPARE", "what": "coins, each masked by a uniform bit", "values": cells * coins},
            {
                "section": "PREPARE",
                "what": "checks of dealt signs: zeros, and sums under a uniform mask",
                "values": 2 * REPETITIONS * checks,
            },
            {
                "section": "PATTERN",
                "what": "whether each cell is suppressed, as zero or a uniform non-zero element",
                "values": cells,
            },
            {
                "section": "VALUES",
                "what": "noisy values of the cells that are not suppressed",
                "values": cells,
            },
        ]

    def as_fields(self) -> dict[str, object]:
        """Return the plan as plain fields, the form that is hashed."""
        return {
            "grid": self.grid.as_fields(),
            "guarantee": self.guarantee.as_fields(),
            "noise_table": self.table.digest(),
            "members": [member.as_fields() for member in self.members],
            "digests": dict(self.digests),
            "tests": [[what, test.low, test.high] for what, test in self.tests],
            "blocks": len(self.blocks),
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan's fields, in hexadecimal."""
        return digest(self.as_fields())
