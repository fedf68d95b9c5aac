"""Plans of groups: what they are made of, what their digest covers, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.dp.accounting import Rule
from mpc_engine.errors import DocumentError
from mpc_engine.field.mersenne import COUNTS, WIDE
from mpc_engine.party.proposal import Proposal
from mpc_engine.release.grid import Axis, Grid
from mpc_engine.release.groups import Groups, Tally, parts_of
from mpc_engine.release.plan import BLOCK_CELLS
from tests.world import proposal, tally

GUARD = tally("records", 3, 4, weight=2)
MEMBER = tally("months", 3, 4, 5, weight=3, step=120, signed=True)
GROUPS = (Groups("strata", GUARD, (MEMBER,)), Groups("total", tally("records")))
PARTIES = [True, True, False]


def proposed(groups: tuple[Groups, ...] = GROUPS, rule: Rule = Rule.STRICT, cap: int = 2) -> Proposal:
    return proposal(groups, PARTIES, 3, rule=rule, cap=cap)


def guarded(**changes: object) -> tuple[Groups, ...]:
    """Return the groups with a changed guard, and a member whose grid fits it."""
    guard = replace(GUARD, **changes)  # type: ignore[arg-type]
    member = replace(MEMBER, grid=Grid((*guard.grid.axes, *MEMBER.grid.axes[2:])))
    return (Groups("strata", guard, (member,)), GROUPS[1])


def with_member(**changes: object) -> tuple[Groups, ...]:
    return (Groups("strata", GUARD, (replace(MEMBER, **changes),)), GROUPS[1])  # type: ignore[arg-type]


def axes(*changed: Axis) -> Grid:
    return Grid((*changed, *GUARD.grid.axes[len(changed) :]))


FIRST = GUARD.grid.axes[0]
CHANGES: dict[str, Callable[[], Proposal]] = {
    "name of groups": lambda: proposed((replace(GROUPS[0], name="others"), GROUPS[1])),
    "name of a guard": lambda: proposed(guarded(name="patients")),
    "weight of a guard": lambda: proposed(guarded(weight=3)),
    "variable": lambda: proposed(guarded(grid=axes(Axis("sex", FIRST.categories)))),
    "category": lambda: proposed(guarded(grid=axes(Axis("a", ("0", "1", "x"))))),
    "order of categories": lambda: proposed(guarded(grid=axes(Axis("a", FIRST.categories[::-1])))),
    "one category more": lambda: proposed(guarded(grid=axes(Axis("a", (*FIRST.categories, "3"))))),
    "name of a member": lambda: proposed(with_member(name="days")),
    "weight of a member": lambda: proposed(with_member(weight=4)),
    "step": lambda: proposed(with_member(step=121)),
    "sign": lambda: proposed(with_member(signed=False)),
    "grid of a member": lambda: proposed(with_member(grid=tally("", 3, 4, 6).grid)),
    "no axis of its own": lambda: proposed(with_member(grid=GUARD.grid)),
    "another member": lambda: proposed(
        (replace(GROUPS[0], members=(MEMBER, replace(GUARD, name="others"))), GROUPS[1])
    ),
    "no member": lambda: proposed((Groups("strata", GUARD), GROUPS[1])),
    "fewer groups": lambda: proposed(GROUPS[:1]),
    "order of groups": lambda: proposed(GROUPS[::-1]),
    "rule": lambda: proposed(rule=Rule.EXACT),
    "other rule": lambda: proposed(rule=Rule.NOISY),
    "cap": lambda: proposed(cap=1),
    "epsilon": lambda: replace(proposed(), epsilon=Fraction(2)),
    "delta": lambda: replace(proposed(), delta=Fraction(1, 10**7)),
    "threshold": lambda: replace(proposed(), threshold=6),
    "digests": lambda: replace(proposed(), digests={"query": "00" * 32, "codebook": "c0" * 32}),
    "bound": lambda: replace(
        proposed(), members=tuple(replace(m, count_bound=m.count_bound + 1) for m in proposed().members)
    ),
    "silos": lambda: replace(proposed(), members=tuple(replace(m, silo=True) for m in proposed().members)),
}


def test_the_digest_covers_everything() -> None:
    digests = {"": proposed().plan().digest} | {name: made().plan().digest for name, made in CHANGES.items()}
    assert digests[""] == proposed().plan().digest
    same = [name for name in digests if list(digests.values()).count(digests[name]) > 1]
    assert not same


def test_parts_have_names_of_their_own() -> None:
    def names(groups: tuple[Groups, ...]) -> list[str]:
        return [each.part.name for each in proposed(groups).plan().guarantee.allotments]

    assert names(GROUPS) == ["records", "months", "total"]
    both = (GROUPS[0], replace(GROUPS[0], name="others"), GROUPS[1])
    assert names(both) == ["strata: records", "strata: months", "others: records", "others: months", "total"]
    for same in (
        (replace(GROUPS[0], members=(MEMBER, MEMBER)),),
        (GROUPS[0], Groups("months", GROUPS[1].guard)),
    ):
        with pytest.raises(DocumentError, match="two parts of the release have the same name"):
            proposed(same).plan()
    with pytest.raises(DocumentError, match="two kinds of groups have the same name"):
        proposed((GROUPS[1], GROUPS[1])).plan()


def test_lines_are_the_tallies_in_order() -> None:
    plan = proposed().plan()
    assert [(line.group, line.guard, line.cells, line.per_group) for line in plan.lines] == [
        (0, True, 12, 1),
        (0, False, 60, 5),
        (1, True, 1, 1),
    ]
    assert [line.tally for line in plan.lines] == [GUARD, MEMBER, GROUPS[1].guard]
    assert [line.allotment for line in plan.lines] == list(plan.guarantee.allotments)
    assert [line.allotment.epsilon for line in plan.lines] == [Fraction(w, 6) for w in (2, 3, 1)]
    assert [line.allotment.table.epsilon for line in plan.lines] == [
        Fraction(2, 6 * 2),
        Fraction(3, 6 * 2 * 120),
        Fraction(1, 6 * 2),
    ]
    assert [line.bound for line in plan.lines] == [2 << 20, 120 * 2 << 20, 2 << 20]
    assert [plan.input_rows(line) for line in plan.lines] == [2, 1, 2]
    assert [len(plan.tests(line)) for line in plan.lines] == [2, 0, 2]


@pytest.mark.parametrize(
    ("rule", "cap", "rows"), [(Rule.NOISY, 2, 1), (Rule.EXACT, 2, 2), (Rule.STRICT, 1, 1)]
)
def test_patients_are_brought_where_the_rule_needs_them(rule: Rule, cap: int, rows: int) -> None:
    plan = proposed(rule=rule, cap=cap).plan()
    assert [plan.input_rows(line) for line in plan.lines] == [rows, 1, rows]


def test_what_a_shown_value_can_be() -> None:
    for rule in Rule:
        plan = proposed(rule=rule).plan()
        guard, member, _ = plan.lines
        limit = guard.allotment.table.limit
        least = {Rule.NOISY: 5, Rule.STRICT: guard.allotment.least_shown, Rule.EXACT: 5 - limit}[rule]
        assert plan.possible(guard) == (least, guard.bound + limit)
        top = member.bound + member.allotment.table.limit
        assert plan.possible(member) == (-top, top)
    unsigned = proposed(with_member(signed=False)).plan()
    line = unsigned.lines[1]
    assert unsigned.possible(line) == (-line.allotment.table.limit, line.bound + line.allotment.table.limit)


def test_openings_are_of_every_line_and_of_nothing_else() -> None:
    plan = proposed().plan()
    found = [(o["section"], o["what"], o["values"]) for o in plan.openings()]
    assert [each for each in found if each[0] == "VALUES"] == [
        ("VALUES", "noisy values of the strata that are not suppressed", 12),
        ("VALUES", "noisy months of the strata that are not suppressed", 60),
        ("VALUES", "noisy values of the total that are not suppressed", 1),
    ]
    assert [each[2] for each in found if each[0] == "PATTERN"] == [13]


@given(st.integers(1, 5 * BLOCK_CELLS))
def test_blocks_cover_a_line_once(cells: int) -> None:
    plan = proposal((Groups("g", Tally("records", Grid(()))),), PARTIES, 3).plan()
    object.__setattr__(plan.groups[0].guard, "grid", Sized(cells))
    blocks = plan.blocks
    assert [b.number for b in blocks] == list(range(len(blocks)))
    assert blocks[0].start == 0 and sum(b.cells for b in blocks) == cells
    assert all(one.start + one.cells == two.start for one, two in pairwise(blocks))
    assert all(b.cells % 64 == 0 and b.cells <= BLOCK_CELLS for b in blocks[:-1])
    assert 0 < blocks[-1].cells <= BLOCK_CELLS
    assert max(b.cells for b in blocks) <= -(-cells // len(blocks)) + 63


class Sized(Grid):
    """A grid of so many cells that lays out none."""

    def __init__(self, cells: int) -> None:
        super().__init__(())
        object.__setattr__(self, "_cells", cells)

    @property
    def cells(self) -> int:
        return self._cells  # type: ignore[attr-defined, no-any-return]


def test_fields_are_chosen_by_bound_and_noise() -> None:
    def field(step: int, bound: int, epsilon: str = "1") -> object:
        groups = (Groups("g", tally("n", 2), (tally("s", 2, step=step),)),)
        return proposal(groups, PARTIES, 3, count_bound=bound, epsilon=epsilon).plan().lines[1].field

    assert field(1, 1 << 20) == COUNTS
    assert field(255, 1 << 20) == COUNTS
    assert field(256, 1 << 20) == WIDE
    # Noise needs room too: the same bound fits with little and not with much.
    edge = (1 << 29) // (2 * 120) - 50
    assert field(120, edge, "10") == COUNTS
    assert field(120, edge, "0.5") == WIDE


def test_refusals() -> None:
    one = tally("n", 3)
    with pytest.raises(DocumentError, match="counts records"):
        Groups("g", tally("n", 3, step=2))
    with pytest.raises(DocumentError, match="counts records"):
        Groups("g", tally("n", 3, signed=True))
    for grid in (tally("m"), tally("m", 4), tally("m", 2, 3)):
        with pytest.raises(DocumentError, match="m is not laid out"):
            Groups("g", one, (grid,))
    with pytest.raises(DocumentError, match="same name"):
        proposed((Groups("g", one), Groups("g", one))).plan()
    with pytest.raises(DocumentError, match="bounds on n add up to"):
        proposal((Groups("g", one),), PARTIES, 3, count_bound=1 << 28).plan()
    wide = Groups("g", one, (tally("m", 3, step=1 << 40),))
    with pytest.raises(DocumentError):
        proposal((wide,), PARTIES, 3).plan()
    with pytest.raises(DocumentError, match="computing parties must come"):
        made = proposed()
        replace(made, members=tuple(replace(m, computing=m.name == "party3") for m in made.members)).plan()
    with pytest.raises(DocumentError):
        proposed(with_member(weight=0)).plan()
    with pytest.raises(DocumentError):
        proposed(with_member(step=0)).plan()


def test_parts_are_called_after_cells_or_tallies() -> None:
    parts = parts_of((*GROUPS, Groups("cells", tally("records", 2), ())))
    assert [part.name for part in parts] == ["records", "months", "total", "cells"]
    assert [part.guard for part in parts] == [True, False, True, True]
    assert [(part.weight, part.step) for part in parts] == [(2, 1), (3, 120), (1, 1), (1, 1)]
