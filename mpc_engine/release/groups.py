"""Groups: what is shown together. Each has one guard, a count, and members that are opened only with it.

A *tally* is one vector of sums, filled by every silo from its records: counts, or sums of bounded values.
`Groups` lays out many groups of one kind: one for every cell of the guard's grid. The grid of a member
begins with the guard's axes, so each group has the same number of member cells. A cell that is its own
guard is a group without members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpc_engine.dp.accounting import Part
from mpc_engine.errors import DocumentError
from mpc_engine.release.grid import Grid


@dataclass(frozen=True)
class Tally:
    """One vector of whole numbers that every silo brings and the release sums and perturbs.

    Attributes:
        name: what people call it.
        grid: its cells.
        weight: its share of ε relative to the other tallies of the release.
        step: the most by which one record changes the vector, all of it in a single cell.
        signed: whether a record may take away as well as add.
    """

    name: str
    grid: Grid
    weight: int = 1
    step: int = 1
    signed: bool = False

    def as_fields(self) -> dict[str, object]:
        """Return the tally as plain fields."""
        return {
            "name": self.name,
            "grid": self.grid.as_fields(),
            "weight": self.weight,
            "step": self.step,
            "signed": self.signed,
        }


@dataclass(frozen=True)
class Groups:
    """One group for every cell of the guard's grid; the guard counts records.

    Raises DocumentError for a guard that does not count, or a member whose grid does not begin with the
    guard's axes.
    """

    name: str
    guard: Tally
    members: tuple[Tally, ...] = ()

    def __post_init__(self) -> None:
        if self.guard.step != 1 or self.guard.signed:
            raise DocumentError(f"{self.name}: the guard of a group counts records, one step each")
        axes = self.guard.grid.axes
        for member in self.members:
            if member.grid.axes[: len(axes)] != axes:
                raise DocumentError(f"{self.name}: {member.name} is not laid out by the guard's axes")

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """The guard, then the members."""
        return (self.guard, *self.members)

    def as_fields(self) -> dict[str, object]:
        """Return the groups as plain fields."""
        return {"name": self.name, "tallies": [tally.as_fields() for tally in self.tallies]}


def parts_of(groups: Sequence[Groups]) -> list[Part]:
    """Return the parts among which a release splits its ε: the tallies in order.

    A part is called after its groups where they have no members, and else after its tally; after both where
    several kinds of groups have members.
    """
    several = sum(bool(each.members) for each in groups) > 1
    return [
        Part(_name(each, tally, several), tally.weight, tally.step, tally is each.guard)
        for each in groups
        for tally in each.tallies
    ]


def _name(groups: Groups, tally: Tally, several: bool) -> str:
    if not groups.members:
        return groups.name
    return f"{groups.name}: {tally.name}" if several else tally.name
