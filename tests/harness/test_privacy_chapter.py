"""The chapter on privacy: every table is of the run, and what was not looked at is not in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc_engine.harness.blocks import Block, Figure, Table
from mpc_engine.harness.chapters.privacy import privacy
from mpc_engine.harness.play import play
from mpc_engine.harness.record import Usage
from mpc_engine.scenario.document import load_scenario
from tests.harness.privacy_runs import drawn, made_up
from tests.world import TABLE

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def table(blocks: list[Block], words: str) -> Table:
    (found,) = [block for block in blocks if isinstance(block, Table) and words in block.caption]
    assert all(len(row) == len(found.columns) for row in found.rows)
    assert set(found.digits) <= set(found.columns)
    for row in found.rows:  # every format fits what stands under it
        for column, cell in zip(found.columns, row, strict=True):
            if column in found.digits and cell is not None and not isinstance(cell, str):
                format(cell, found.digits[column])
    return found


def test_a_scenario_with_everything() -> None:
    with play(load_scenario(SCENARIOS / "coalition.toml"), "memory") as run:
        blocks = privacy(run)
        received = sum(len(each.content) for each in run.parties["helper"].seen if each.what == "received")
    assert table(blocks, "Parameters").rows[0][:5] == ["table", "noisy", 5, 1, 1.0]
    (bounds,) = table(blocks, "exact arithmetic").rows
    assert 0.999 < bounds[2] <= 1  # type: ignore[operator]
    (audit,) = table(blocks, "Audit").rows
    assert 0.5 < max(audit[3], audit[5]) <= 1  # type: ignore[type-var, operator]
    (attack,) = table(blocks, "Attacks on the releases").rows
    assert attack[0] == "membership"
    assert len([block for block in blocks if isinstance(block, Figure)]) == 1
    assert len(table(blocks, "Looked for").rows) == 6
    seen = table(blocks, "received, by section")
    assert [row[0] for row in seen.rows] == ["north", "south", "helper"]
    assert sum(seen.rows[2][2:]) == pytest.approx(received / 1000)  # type: ignore[arg-type]
    opened = table(blocks, "All that was opened")
    assert [row[0] for row in opened.rows] == ["PREPARE", "PREPARE", "PATTERN", "VALUES"]
    assert opened.rows[2][2] == 2_000


def test_what_was_not_asked_for_is_not_there(tmp_path: Path) -> None:
    counts = {name: np.full(50, 9) for name in ("one", "two")}
    run = made_up(tmp_path, [counts, counts], drawn(TABLE, 1))
    captions = [block.caption for block in privacy(run) if isinstance(block, Table)]
    assert len(captions) == 3
    assert len(table(privacy(run), "exact arithmetic").rows) == 1  # one table for both questions
    run.parties["one"].usage = Usage(sent_bytes=2_000, received_bytes=1_000)
    assert table(privacy(run), "What travelled").rows[0][2:] == [1.0, 2.0]


def test_nothing_released_is_no_chapter(tmp_path: Path) -> None:
    run = made_up(tmp_path, [{"one": np.ones(3, np.int64), "two": np.ones(3, np.int64)}], drawn(TABLE, 1))
    run.asked.clear()
    assert privacy(run) == []
