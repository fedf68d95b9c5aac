"""Rows of results: what a run took, the median of several, and how they compare."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ENGINE = "mpc_engine"


@dataclass(frozen=True)
class Row:
    """One measured job: means over the parties for CPU and bytes, the most of any party for the rest.

    `rounds` are protocol rounds, `rounds_online` those after the inputs exist, `control_rounds` come on
    top. None where not measured. `repeats` runs were made; the row is the one with the median CPU, whose
    range over all runs is `cpu_us_least` to `cpu_us_most`.
    """

    engine: str
    n: int
    cells: int
    cpu_us_per_cell_party: float
    payload_bytes_per_cell_party: float
    rounds: int | None
    rounds_online: int | None
    wall_s: float
    rss_mib: float | None
    control_rounds: int | None = None
    messages_per_peer: int | None = None
    repeats: int = 1
    cpu_us_least: float | None = None
    cpu_us_most: float | None = None


@dataclass(frozen=True)
class Ratio:
    """How many times the CPU per cell and party of the engine another row takes.

    `times_at_equal_cells` compares it with the engine at the other row's own number of cells, where
    that was run: there, setting up the connections is most of what the engine does.
    """

    engine: Row
    other: Row
    times: float
    times_at_equal_cells: float | None


@dataclass(frozen=True)
class Target:
    """One thing that must be reached: value against bound; no value where it was not measured."""

    what: str
    value: float | None
    bound: float
    at_least: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether it is reached, None where it was not measured."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def median(rows: Sequence[Row]) -> Row:
    """Return the row with the median CPU, the lower of two, with the range over all. Rows: same job."""
    ordered = sorted(rows, key=lambda row: row.cpu_us_per_cell_party)
    return replace(
        ordered[(len(ordered) - 1) // 2],
        repeats=len(ordered),
        cpu_us_least=ordered[0].cpu_us_per_cell_party,
        cpu_us_most=ordered[-1].cpu_us_per_cell_party,
    )


def find(rows: Sequence[Row], engine: str, n: int, cells: int | None = None) -> Row | None:
    """Return the row of this job, or None; without `cells`, of the largest up to 100,000 cells."""
    found = [row for row in rows if (row.engine, row.n) == (engine, n)]
    found = [row for row in found if (row.cells <= 100_000 if cells is None else row.cells == cells)]
    return max(found, key=lambda row: row.cells, default=None)


def ratios(rows: Sequence[Row]) -> list[Ratio]:
    """Return how the engine at n = 3, at 100,000 cells if it was run, compares with every row of MPyC."""
    engine = find(rows, ENGINE, 3)
    if engine is None:
        return []
    found = []
    for row in rows:
        if row.engine != ENGINE:
            equal = find(rows, ENGINE, row.n, row.cells)
            found.append(
                Ratio(
                    engine,
                    row,
                    row.cpu_us_per_cell_party / engine.cpu_us_per_cell_party,
                    row.cpu_us_per_cell_party / equal.cpu_us_per_cell_party if equal else None,
                )
            )
    return found


def targets(rows: Sequence[Row]) -> list[Target]:
    """Return what must be reached, with what was measured."""
    main = find(rows, ENGINE, 3, 100_000)
    large = find(rows, ENGINE, 3, 1_000_000)
    five = find(rows, ENGINE, 5, 100_000)
    mpyc = {ratio.other.engine: ratio for ratio in ratios(rows) if ratio.engine == main}.get("mpyc")

    def of(row: Row | None, figure: str) -> float | None:
        return None if row is None else getattr(row, figure)

    cpu = "cpu_us_per_cell_party"
    return [
        Target("protocol rounds, n = 3", of(main, "rounds"), 17),
        Target("of which after the inputs exist", of(main, "rounds_online"), 9),
        Target("control rounds on top, the receipt's included", of(main, "control_rounds"), 5),
        Target("payload bytes per cell and party, n = 3", of(main, "payload_bytes_per_cell_party"), 200),
        Target("CPU µs per cell and party, n = 3, 100,000 cells", of(main, cpu), 2.5),
        Target("wall s, n = 3, 100,000 cells", of(main, "wall_s"), 0.6),
        Target("wall s, n = 3, 1,000,000 cells", of(large, "wall_s"), 4),
        Target("resident MiB per party, n = 3, 1,000,000 cells", of(large, "rss_mib"), 512),
        Target("CPU µs per cell and party, n = 5, 100,000 cells", of(five, cpu), 6),
        Target("times less CPU than row mpyc", None if mpyc is None else mpyc.times, 2000, at_least=True),
    ]


def write(path: Path, rows: Sequence[object]) -> None:
    """Write dataclass instances as a JSON list, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.tmp")
    content = [asdict(row) for row in rows]  # type: ignore[call-overload]
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
