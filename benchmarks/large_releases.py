"""`python -m benchmarks.large_releases`: tables of 100,000 cells and more through the whole path.

Two silos of made-up childhood tumours and a helper run as processes over gRPC, from the registered file to
the finished statistics: a crosstab of 101,520 cells and survival of 226,070 (47 subgroups, both sexes, five
age groups, each by month over 20 years; the strata's guards come on top).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.tabulation import QUERIES, codebook
from mpc_engine.result import Result
from mpc_engine.scenario.document import load_scenario
from mpc_engine.scenario.simulate import simulate
from mpc_engine.silo.dummy import write_records

LARGE = ("crosstab", "survival")
SCENARIO = """title = "{name}"
query = "{name}.json"
codebook = "codebook.json"
policy = {{ greatest_epsilon = "1", least_threshold = 5 }}
[[party]]
name = "a"
mapping = "a.mapping.toml"
[[party]]
name = "b"
mapping = "b.mapping.toml"
[[party]]
name = "helper"
"""


def releases(rows: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run each large query and yield its name and figures."""
    with tempfile.TemporaryDirectory(prefix="mpc-engine-") as name:
        folder = Path(name)
        book = codebook(folder / "codebook.json")
        Path(book.origin).write_text(book.model_dump_json(), encoding="utf-8")
        for number, silo in enumerate("ab"):
            write_records(book, folder / f"{silo}.parquet", rows, seed + number)
        for query in LARGE:
            fields = QUERIES[query] | {"privacy": {"epsilon": "1"}}
            (folder / f"{query}.json").write_text(json.dumps(fields), encoding="utf-8")
            scenario = folder / f"{query}.scenario.toml"
            scenario.write_text(SCENARIO.format(name=query), encoding="utf-8")
            begun = time.monotonic()
            made = asyncio.run(simulate(load_scenario(scenario)))
            wall = time.monotonic() - begun
            begun = time.process_time()
            result = Result(made.release, book)
            finishing = time.process_time() - begun
            lines = [tally for groups in made.release["groups"] for tally in groups["tallies"]]
            yield (
                query,
                {
                    "cells": sum(len(tally["values"]) for tally in lines),
                    "shown": sum(value is not None for tally in lines for value in tally["values"]),
                    "rows": len(result.table),
                    "session_s": max(usage["wall_s"] for usage in made.usage.values()),
                    "cpu_s": sum(usage["cpu_s"] for usage in made.usage.values()) / len(made.usage),
                    "payload_mb": sum(usage["payload_bytes"] for usage in made.usage.values()) / 1e6,
                    "rss_mib": max(usage["rss_mib"] for usage in made.usage.values()),
                    "whole_s": wall,
                    "finish_cpu_s": finishing,
                },
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_releases", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="records of each silo")
    parser.add_argument("--seed", type=int, default=2024)
    options = parser.parse_args(arguments)
    console = Console(width=140)
    table = Table(title=f"{options.rows:,} made-up records at each of two silos, seed {options.seed}")
    heads = (
        "release", "cells", "shown", "statistics", "session s", "CPU s a party", "MB, all", "RSS MiB",
        "with set-up s", "finish CPU s",
    )  # fmt: skip
    for head in heads:
        table.add_column(head, justify="left" if head == "release" else "right")
    for name, found in releases(options.rows, options.seed):
        table.add_row(
            name,
            f"{found['cells']:,}",
            f"{found['shown']:,}",
            f"{found['rows']:,}",
            f"{found['session_s']:.2f}",
            f"{found['cpu_s']:.2f}",
            f"{found['payload_mb']:.0f}",
            f"{found['rss_mib']:.0f}",
            f"{found['whole_s']:.1f}",
            f"{found['finish_cpu_s']:.1f}",
        )
    console.print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
