"""Opened values in the shape of their grids, from a session, a document or true sums; and the document."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

from mpc_engine.dp.accounting import Rule
from mpc_engine.errors import DocumentError
from mpc_engine.release.groups import Groups
from mpc_engine.release.opened import Opened, arrange, read_opened, true_groups
from mpc_engine.release.publication import Published
from mpc_engine.release.table import Release, promise
from tests.world import axis, proposal, tally

GROUPS = (
    Groups("strata", tally("n", 2, 2, weight=3), (tally("sum", 2, 2, 3, step=14400, signed=True),)),
    Groups("total", tally("n")),
)
PATTERN = np.array([[True, False], [True, True]])
SUMS = np.arange(12).reshape(2, 2, 3) - (1 << 55)  # more than a float could hold, were they far apart


def release(rule: Rule = Rule.NOISY, total: bool = True) -> Release:
    made = proposal(GROUPS, [True, True, False], 3, rule=rule).plan()
    hidden = np.where(PATTERN[..., None], SUMS, 0)
    published = Published(
        (PATTERN.reshape(-1), np.array([total])),
        (np.array([7, 0, -9, 12]), hidden.reshape(-1), np.array([40 * total])),
    )
    return Release(made, {"preset": "made-up"}, published, {"session_id": "ab"})


def same(one: Opened, other: Opened) -> None:
    assert one.threshold == other.threshold and list(one.groups) == list(other.groups)
    for name, groups in one.groups.items():
        theirs = other.groups[name]
        np.testing.assert_array_equal(groups.shown, theirs.shown)
        assert list(groups.members) == list(theirs.members)
        pairs = [(groups.guard, theirs.guard)]
        pairs += [(groups.members[each], theirs.members[each]) for each in groups.members]
        for mine, given in pairs:
            assert mine.grid == given.grid and mine.variance == given.variance
            np.testing.assert_array_equal(mine.values, given.values)


def test_values_have_the_shape_of_their_grids_and_nan_where_suppressed() -> None:
    made = release()
    opened = made.opened()
    strata = opened.groups["strata"]
    np.testing.assert_array_equal(strata.shown, PATTERN)
    np.testing.assert_array_equal(strata.guard.values, [[7, np.nan], [-9, 12]])
    member = strata.members["sum"]
    assert member.values.shape == (2, 2, 3)
    np.testing.assert_array_equal(member.values, np.where(PATTERN[..., None], SUMS.astype(float), np.nan))
    tables = [allotment.table for allotment in made.plan.guarantee.allotments]
    assert [strata.guard.variance, member.variance] == [float(table.variance) for table in tables[:2]]
    assert opened.groups["total"].shown.shape == opened.groups["total"].guard.values.shape == ()
    assert opened.groups["total"].guard.values == 40 and opened.threshold == 5


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("total", [True, False])
def test_a_document_gives_what_the_session_gave(rule: Rule, total: bool) -> None:
    made = release(rule, total)
    fields = json.loads(json.dumps(made.as_fields()))
    same(read_opened(fields), made.opened())
    (listed, *_) = fields["groups"][0]["tallies"]
    assert listed["values"] == [7, None, -9, 12]
    assert fields["groups"][0]["tallies"][1]["values"][3:6] == [None] * 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda fields: fields.pop("groups"),
        lambda fields: fields.pop("parameters"),
        lambda fields: fields["parameters"].pop("k"),
        lambda fields: fields["parameters"]["split"].pop(),
        lambda fields: fields["groups"][0]["tallies"][0]["values"].pop(),
        lambda fields: fields["groups"][0]["tallies"][1]["values"].append(1),
        lambda fields: fields["groups"][0]["tallies"][1].update(values=[["x"]] * 12),
        lambda fields: fields["groups"][0]["tallies"].clear(),
        lambda fields: fields["groups"][0]["tallies"][0].pop("grid"),
        lambda fields: fields["groups"][0]["tallies"][1].update(grid=[]),
        lambda fields: fields["groups"][0].update(tallies=None),
        lambda fields: fields.update(groups=3),
    ],
)
def test_another_document_is_refused(spoil: Any) -> None:
    fields = json.loads(json.dumps(release().as_fields()))
    spoil(fields)
    with pytest.raises(DocumentError):
        read_opened(fields)


def test_true_sums_are_shown_whole_and_without_noise() -> None:
    sums = [np.array([[1, 0, 3, 4]]), SUMS.reshape(1, -1) // (1 << 40), np.array([[8]])]
    opened = true_groups(GROUPS, sums)
    assert opened.threshold == 0
    assert all(groups.shown.all() for groups in opened.groups.values())
    np.testing.assert_array_equal(opened.groups["strata"].guard.values, [[1, 0], [3, 4]])
    assert opened.groups["strata"].members["sum"].variance == opened.groups["total"].guard.variance == 0
    noisy = arrange(
        GROUPS, [PATTERN.reshape(-1), np.array([True])], [s[0].astype(float) for s in sums], [1, 2, 3], 9
    )
    assert noisy.groups["strata"].members["sum"].variance == 2 and noisy.threshold == 9


def test_every_cell_of_every_tally_has_a_row() -> None:
    rows = list(csv.DictReader(io.StringIO(release().as_csv())))
    assert list(rows[0]) == ["group", "tally", "a", "b", "c", "value", "flag"]
    assert [(row["group"], row["tally"]) for row in rows] == [("strata", "n")] * 4 + [
        ("strata", "sum")
    ] * 12 + [("total", "n")]
    assert rows[1] == {"group": "strata", "tally": "n", "a": "0", "b": "1", "c": "", "value": "", "flag": "c"}
    assert [row["value"] for row in rows[4:7]] == [str(v) for v in SUMS[0, 0]]  # exact, unlike a float
    assert [(row["a"], row["b"], row["c"], row["flag"]) for row in rows[7:10]] == [
        ("0", "1", str(c), "c") for c in range(3)
    ]
    assert rows[-1] == {
        "group": "total",
        "tally": "n",
        "a": "",
        "b": "",
        "c": "",
        "value": "40",
        "flag": "ok",
    }


def test_the_log_counts_what_was_opened_of_each_tally() -> None:
    for total in (True, False):
        log = release(total=total).openings()
        assert [each["opened"] for each in log if each["section"] == "VALUES"] == [3, 9, int(total)]
        assert [each["opened"] for each in log if each["section"] == "PATTERN"] == [5]


@pytest.mark.parametrize("rule", list(Rule))
def test_the_promise_says_that_members_are_shown_with_their_guard(rule: Rule) -> None:
    made = proposal(GROUPS, [True, True, False], 3, rule=rule).plan()
    words = " ".join(promise(made))
    assert "When a group is shown, all its members are, with their own noise, those below 5 too." in words
    assert "A group of cells is shown" in words
    assert "epsilon = 1 (n 0.6, sum 0.2, total 0.2)" in words
    if rule is Rule.STRICT:
        least = [line.allotment.least_shown for line in made.lines if line.guard]
        assert f"its noisy count is at least {least[0]} / {least[1]}." in words


def test_an_axis_without_categories_has_no_cells() -> None:
    groups = (Groups("g", tally("n", 0), (tally("m", 0, 3),)),)
    opened = true_groups(groups, [np.zeros(0), np.zeros(0)])
    assert opened.groups["g"].guard.values.shape == (0,)
    assert opened.groups["g"].members["m"].values.shape == (0, 3)
    assert axis("a", 0).categories == ()
