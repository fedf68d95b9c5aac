"""The published result: its document, its words and its files."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from mpc_engine.dp import NOT_PRIVATE, Rule
from mpc_engine.errors import PublicationError
from mpc_engine.release.files import write_release
from mpc_engine.release.plan import Plan
from mpc_engine.release.publication import Published
from mpc_engine.release.table import Release, promise
from tests.world import proposal

SHOWN = np.array([True, False, True])
VALUES = np.array([7, 0, -2])


def plan(rule: Rule = Rule.NOISY, cap: int = 1) -> Plan:
    return proposal(3, [True, True, False], 3, rule=rule, cap=cap).plan()


def release() -> Release:
    return Release(plan(), {"preset": "count"}, Published((SHOWN,), (VALUES,)), {"session_id": "ab"})


def test_every_cell_has_a_line_and_a_suppressed_one_no_value() -> None:
    assert list(release().tallies()) == [("cells", "records", [7, None, -2])]
    rows = list(csv.DictReader(io.StringIO(release().as_csv())))
    assert [row["value"] for row in rows] == ["7", "", "-2"]
    assert [row["flag"] for row in rows] == ["ok", "c", "ok"]
    assert [(row["group"], row["tally"], row["cell"]) for row in rows] == [
        ("cells", "records", str(cell)) for cell in range(3)
    ]


def test_the_log_counts_what_was_opened() -> None:
    log = {str(entry["section"]) + str(entry["what"])[:5]: entry["opened"] for entry in release().openings()}
    assert log["VALUESnoisy"] == 2
    assert log["PATTERNwheth"] == 3


def test_a_release_and_its_parts_do_not_print_values() -> None:
    assert "-2" not in repr(release())


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("cap", [1, 3])
def test_the_promise_names_the_rule_and_its_limits(rule: Rule, cap: int) -> None:
    words = " ".join(promise(plan(rule, cap)))
    assert "any 2 together could learn everything" in words
    assert "not security against a party that deviates on purpose" in words
    assert f"Rule {rule.value}, k = 5" in words
    assert (NOT_PRIVATE in words) == (rule is Rule.EXACT)
    # With a cap of 3, two patients can have the five records that the noisy rule asks for.
    assert ("2 patients can have 5 records" in words) == (rule is Rule.NOISY and cap == 3)


def test_files_appear_whole(tmp_path: Path) -> None:
    paths = write_release(release(), {"format": "receipt"}, tmp_path / "new" / "folder")
    assert sorted(path.name for path in paths) == [
        "cells.csv",
        "openings.json",
        "receipt.json",
        "release.json",
    ]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(
        p.name for p in paths
    )


def test_a_release_that_cannot_be_written_says_that_it_was_made(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(PublicationError, match="the release was made, but") as caught:
        write_release(release(), {}, tmp_path / "taken")
    assert caught.value.budget == "spent"
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_file_that_cannot_be_replaced_leaves_no_parts(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").mkdir()
    with pytest.raises(PublicationError):
        write_release(release(), {}, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
