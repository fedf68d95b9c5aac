"""Tabulation of any layout against an oracle that goes through the records one by one and day by day."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import rows as made_up
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows import BOOK, Asked, Row, expected, layout, registration

from mpc_engine.errors import DataError
from mpc_engine.silo.tabulate import tabulate
from mpc_engine.statistics.layout import (
    Amount,
    AxisRule,
    EntryRule,
    ExitRule,
    FollowUp,
    Layout,
    Place,
    Recipe,
    Selection,
    Window,
)

DEAD = Selection("status", ((1, 1),))
ALL_TIME = FollowUp("days", DEAD)


def unknown(values: st.SearchStrategy[int]) -> st.SearchStrategy[int | None]:
    return st.one_of(values, st.none())


ROWS = st.lists(
    st.builds(
        Row,
        patient=st.integers(1, 6),
        sex=st.integers(0, 1),
        stage=unknown(st.integers(0, 2)),
        age=unknown(st.integers(0, 99)),
        days=st.integers(0, 40),
        status=unknown(st.integers(0, 1)),
        diagnosed=unknown(st.integers(0, 60)),
        primary=st.booleans(),
    ),
    max_size=30,
)
CUTS = st.lists(st.integers(1, 45), min_size=1, max_size=5, unique=True).map(lambda cuts: tuple(sorted(cuts)))
AXES: st.SearchStrategy[Place] = st.one_of(
    st.just(AxisRule("sex")),
    st.just(AxisRule("stage", unknown=3)),
    CUTS.map(lambda cuts: AxisRule("age", cuts=cuts, unknown=len(cuts) + 1)),
    CUTS.map(lambda cuts: AxisRule("days", cuts=cuts)),
)
WHERE = st.one_of(
    st.builds(Selection, st.just("stage"), st.just(((0, 0), (2, 2))), st.booleans()),
    st.builds(Selection, st.just("age"), st.just(((10, 19), (40, 99))), st.booleans()),
    st.builds(Selection, st.just("age"), st.just(()), st.just(True)),
    st.builds(Selection, st.just("diagnosed"), st.just(((5, 30),)), st.booleans()),
    st.just(Selection("sex", ((1, 1),))),
)
EVENTS = st.builds(Selection, st.just("status"), st.just(((1, 1),)), st.booleans())


def window_of(cuts: tuple[int, ...]) -> st.SearchStrategy[Window | None]:
    """Return windows for intervals with these cuts: whoever enters at the last or later takes no part."""
    ends = st.tuples(st.integers(0, 60), st.integers(0, 40))
    windows = ends.map(lambda drawn: Window("diagnosed", drawn[0], drawn[0] + drawn[1], cuts[-1]))
    return st.one_of(st.none(), windows)


AMOUNTS = st.one_of(
    st.none(),
    st.builds(
        Amount,
        st.sampled_from(["age", "days"]),
        st.integers(0, 20),
        st.integers(21, 60),
        st.integers(0, 60),
        st.booleans(),
    ),
)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Groups whose members add axes of follow-up or others, or sums, to those of their guard."""
    cuts = draw(CUTS)
    follow_up = FollowUp("days", draw(EVENTS), draw(window_of(cuts)))
    places = st.one_of(AXES, st.just(ExitRule(follow_up, cuts)), st.just(EntryRule(follow_up, cuts)))
    kinds = []
    for _ in range(draw(st.integers(1, 2))):
        guard = tuple(draw(st.lists(places, max_size=2)))
        members = [
            Recipe((*guard, *draw(st.lists(places, max_size=2))), draw(AMOUNTS))
            for _ in range(draw(st.integers(0, 2)))
        ]
        kinds.append((Recipe(guard), members))
    return layout(
        kinds,
        draw(st.lists(WHERE, max_size=2)),
        draw(st.integers(1, 3)),
        draw(st.sampled_from(["all", "first", "iarc"])),
        None if follow_up.window is None else follow_up,
    )


def counted(rows: list[Row], made: Layout, **facts: int) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        registered = registration(Path(folder), rows, primaries=made.primaries == "iarc", **facts)
        return list(tabulate(Asked(made), BOOK, registered).take())  # type: ignore[arg-type]


def agrees(rows: list[Row], made: Layout) -> list[np.ndarray]:
    """Check every tally against the oracle and return them."""
    found, wanted = counted(rows, made, count_bound=5000), expected(rows, made)
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == np.int64
        np.testing.assert_array_equal(mine, theirs)
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=ROWS, made=layouts())
def test_every_layout_is_what_the_records_say(rows: list[Row], made: Layout) -> None:
    agrees(rows, made)


@pytest.mark.parametrize("cuts", [(1,), (10,), (5, 10, 20), (1, 2, 3, 4, 5, 6, 7)])
def test_follow_up_at_every_day_around_the_edges_of_window_and_intervals(cuts: tuple[int, ...]) -> None:
    """Everyone diagnosed on each of 40 days and followed for each of 0 to 25, dead or not."""
    rows = [
        Row(patient=number, diagnosed=day, days=days, status=status)
        for number, (day, days, status) in enumerate(np.ndindex(40, 26, 2))
    ]
    for ends in (None, (12, 24), (20, 20), (99, 99)):
        window = None if ends is None else Window("diagnosed", *ends, cuts[-1])
        follow_up = FollowUp("days", DEAD, window)
        entry, end = EntryRule(follow_up, cuts), ExitRule(follow_up, cuts)
        made = layout(
            [(Recipe(()), [Recipe((entry,)), Recipe((end,)), Recipe((entry, end))])],
            follow_up=None if window is None else follow_up,
        )
        total, *others = agrees(rows, made)
        assert all(other.sum() == total[0, 0] for other in others)


def test_a_period_by_hand() -> None:
    """A window of days 100 to 199, intervals of 50 days."""
    follow_up = FollowUp("days", DEAD, Window("diagnosed", 100, 199, 100))
    rows = [
        Row(1, diagnosed=100, days=99, status=1),  # diagnosed as it opens, dies on its last day: interval 1
        Row(2, diagnosed=100, days=100, status=1),  # dies a day after it: censored in interval 1
        Row(3, diagnosed=99, days=1, status=1),  # dies on the first day: entered on day 1, interval 0
        Row(4, diagnosed=99, days=0, status=1),  # died the day before it opened
        Row(5, diagnosed=50, days=300, status=0),  # enters on day 50, leaves on day 149: interval 2
        Row(6, diagnosed=199, days=5, status=1),  # diagnosed on its last day, censored in interval 0
        Row(7, diagnosed=200, days=5, status=1),  # after it
        Row(8, diagnosed=None, days=500, status=1),  # nobody knows when
        Row(9, diagnosed=0, days=150, status=None),  # would enter on day 100, beyond the intervals
        Row(10, diagnosed=1, days=150, status=1),  # enters on day 99, dies on day 150: beyond
    ]
    entry, end = EntryRule(follow_up, (50, 100)), ExitRule(follow_up, (50, 100))
    made = layout([(Recipe(()), [Recipe((entry,)), Recipe((end,))])], follow_up=follow_up)
    total, entries, exits = agrees(rows, made)
    assert total.tolist() == [[6], [6]]
    assert entries.tolist() == [[3, 1, 2]]
    assert exits.tolist() == [[1, 1, 1, 1, 2]]


def test_sums_are_clipped_centred_and_leave_out_what_is_unknown() -> None:
    rows = [Row(1, age=20), Row(2, age=99), Row(3, age=None), Row(4, age=3), Row(5, sex=1, age=50)]
    by = (AxisRule("sex"),)
    whole, squared = Amount("age", 10, 60, 50), Amount("age", 10, 60, 50, squared=True)
    made = layout([(Recipe(by), [Recipe(by, whole), Recipe(by, squared), Recipe(())][:2])])
    guard, sums, squares = agrees(rows, made)
    assert guard.tolist() == [[4, 1], [4, 1]]
    assert sums.tolist() == [[-30 + 10 - 40, 0]]
    assert squares.tolist() == [[900 + 100 + 1600, 0]]


def test_only_the_first_tumour_and_then_the_filters() -> None:
    """A patient whose first tumour does not match is not counted with the second."""
    rows = [Row(1, stage=0), Row(1, stage=1), Row(2, stage=1), Row(2, stage=1), Row(3, stage=None)]
    second = [Selection("stage", ((1, 1),))]
    kinds = [(Recipe(()), [])]
    assert agrees(rows, layout(kinds, second, cap=3))[0].tolist() == [[3], [2]]
    assert agrees(rows, layout(kinds, second, cap=3, primaries="first"))[0].tolist() == [[1], [1]]
    assert agrees(rows, layout(kinds, cap=3, primaries="first"))[0].tolist() == [[3], [3]]


def test_only_primaries_and_then_the_cap() -> None:
    rows = [Row(1, primary=False), Row(1, stage=1), Row(1, stage=2), Row(2, primary=False)]
    kinds = [(Recipe((AxisRule("stage", unknown=3),)), [])]
    found = agrees(rows, layout(kinds, cap=1, primaries="iarc"))
    assert found[0].tolist() == [[0, 1, 0, 0]] * 2
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.raises(DataError, match=r"multiple_primaries.*\[icdo3\]"),
    ):
        tabulate(Asked(layout(kinds, primaries="iarc")), BOOK, registration(Path(folder), rows))  # type: ignore[arg-type]


def test_a_sum_beyond_the_bound_is_refused() -> None:
    rows = [Row(1, age=99), Row(2, age=98), Row(3, age=97)]
    made = layout([(Recipe(()), [Recipe((), Amount("age", 0, 99, 0))])])
    member = made.groups[0].members[0]
    for step, fits in ((99, True), (98, True), (97, False)):
        object.__setattr__(member, "step", step)
        if fits:
            counted(rows, made, count_bound=3)
        else:
            with pytest.raises(DataError, match="public bound"):
                counted(rows, made, count_bound=3)
    with pytest.raises(DataError, match="public bound"):
        counted(rows, made, count_bound=2)


def test_records_without_an_end_have_an_exit_all_the_same() -> None:
    """The oracle itself: intervals are half-open, events and censorings apart, and beyond is the last."""
    end = ExitRule(ALL_TIME, (10, 20))
    ends = [(0, 1), (9, 1), (9, 0), (10, 1), (19, 0), (20, 1), (40, 0)]
    assert [made_up.place_of(Row(1, days=days, status=status), end) for days, status in ends] == [
        *(0, 0, 1, 2, 3, 4, 4),
    ]


@pytest.mark.parametrize("row", [Row(1, stage=3), Row(1, stage=-1), Row(1, stage=None), Row(1, stage=2**40)])
def test_values_that_the_codebook_does_not_know_are_refused(row: Row) -> None:
    """They cannot be registered; a snapshot that holds one all the same is not counted."""
    rows, axis = [Row(number + 2, stage=number % 3) for number in range(6)], AxisRule("stage")
    made = layout([(Recipe((axis,)), [])])
    assert counted(rows, made)[0].tolist() == [[2, 2, 2]] * 2
    with pytest.raises(DataError, match="values that the codebook does not know; register again"):
        counted([*rows, row], made)
