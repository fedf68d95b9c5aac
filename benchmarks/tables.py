"""What the benchmarks print."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.table import Table

from benchmarks.kernels import KernelRow
from benchmarks.results import Ratio, Row, Target

NOT_MEASURED = "–"


def machine() -> str:
    """Return one line on what this was run with."""
    versions = []
    for package in ("numpy", "grpcio", "cryptography", "mpyc", "gmpy2"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"no {package}")
    python = f"Python {platform.python_version()}"
    return f"{_processor()}, {os.cpu_count()} cores; {python}; {', '.join(versions)}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def number(value: float | None) -> str:
    """Return a figure with three significant digits, or a dash."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, int):
        return f"{value:,}"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def _table(title: str, names: Sequence[str], columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def results_table(rows: Sequence[Row]) -> Table:
    """Return the table of all jobs."""
    table = _table(
        "The release job, per cell and party",
        ["engine"],
        ["n", "cells", "CPU µs", "least–most", "payload B", "rounds", "online", "wall s", "RSS MiB"],
    )
    for row in rows:
        table.add_row(
            row.engine,
            str(row.n),
            f"{row.cells:,}",
            number(row.cpu_us_per_cell_party),
            f"{number(row.cpu_us_least)}–{number(row.cpu_us_most)}",
            number(row.payload_bytes_per_cell_party),
            number(row.rounds),
            number(row.rounds_online),
            number(row.wall_s),
            number(row.rss_mib),
        )
    return table


def ratios_table(ratios: Sequence[Ratio]) -> Table:
    """Return the table of comparisons with MPyC; sizes stand in it because they differ."""
    table = _table(
        "CPU per cell and party, MPyC ÷ mpc_engine",
        ["row"],
        ["at cells", "engine at", "times", "both at equal cells"],
    )
    for ratio in ratios:
        other = ratio.other
        sizes = f"{other.cells:,}", f"{ratio.engine.cells:,}"
        table.add_row(other.engine, *sizes, number(ratio.times), number(ratio.times_at_equal_cells))
    return table


def targets_table(targets: Sequence[Target]) -> Table:
    """Return the table of targets."""
    table = _table("Targets", ["", "what"], ["measured", "bound"])
    for target in targets:
        mark = {True: "[green]✓", False: "[red]✗", None: NOT_MEASURED}[target.reached]
        bound = f"{'≥' if target.at_least else '≤'} {target.bound:,g}"
        table.add_row(mark, target.what, number(target.value), bound)
    return table


def kernels_table(rows: Sequence[KernelRow]) -> Table:
    """Return the table of kernels."""
    table = _table("Kernels, one thread", ["kernel", "field", "per"], ["ns", "least ns"])
    for row in rows:
        table.add_row(row.kernel, row.field, row.unit, f"{row.ns:,.3g}", f"{row.ns_least:,.3g}")
    return table


def markdown(table: Table) -> str:
    """Return a table in Markdown, as `docs/benchmarks.md` shows it."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    rules = ["---:" if column.justify == "right" else "---" for column in table.columns]
    lines = [[str(column.header) for column in table.columns], rules, *zip(*columns, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
