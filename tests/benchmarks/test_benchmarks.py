"""The benchmarks: the smallest real job, what is written, and how a failed run shows."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks import run
from benchmarks.baseline import VARIANTS, run_mpyc
from benchmarks.job import check, counts_of
from benchmarks.kernels import kernels, measure, session_in_memory
from benchmarks.release_job import run_release
from benchmarks.results import Row, Target, median, ratios, targets, write
from benchmarks.schedule import FULL, QUICK, Extent, Measurement, interleaved, measurements

KEYS = {
    "engine": str,
    "n": int,
    "cells": int,
    "cpu_us_per_cell_party": float,
    "payload_bytes_per_cell_party": float,
    "rounds": int,
    "rounds_online": int,
    "wall_s": float,
    "rss_mib": float,
}


def row(engine: str = "mpc_engine", n: int = 3, cells: int = 100_000, cpu: float = 2.0) -> Row:
    return Row(engine, n, cells, cpu, 120.0, 17, 9, 0.4, 140.0, control_rounds=5)


def test_the_smallest_job_gives_a_row_of_the_agreed_form(tmp_path: Path) -> None:
    write(tmp_path / "out" / "bench.json", [run_release(3, 64, 7)])
    (written,) = json.loads((tmp_path / "out" / "bench.json").read_text(encoding="utf-8"))
    assert {key: type(written[key]) for key in KEYS} == KEYS
    assert (written["engine"], written["n"], written["cells"]) == ("mpc_engine", 3, 64)
    assert written["rounds"] > written["rounds_online"] > 0
    assert written["control_rounds"] == 5
    assert written["cpu_us_per_cell_party"] > 0 and written["rss_mib"] > 10
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bench.json"]


def test_mpyc_runs_the_same_job_beside_it() -> None:
    measured = asdict(run_mpyc(VARIANTS[0], 3, 5, 7))
    assert set(KEYS) <= set(measured)
    assert measured["engine"] == "mpyc" and measured["rounds"] is None and measured["messages_per_peer"] > 17


def test_a_party_that_fails_fails_the_run_with_its_own_words() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)party 1 .*TooFewPartiesError"):
        run_release(2, 64, 7)


def test_kernels_and_a_session_in_memory_are_measured() -> None:
    rows = [measure(kernel, batches=1) for kernel in kernels(np.random.default_rng(1), cells=64)]
    rows.append(session_in_memory(3, 64, 1, 1))
    assert all(row.ns >= row.ns_least > 0 for row in rows)
    assert len({(row.kernel, row.field) for row in rows}) == len(rows)
    assert {row.field for row in rows if row.kernel == "multiply"} >= {"GF(2^2)", "GF(2^3)", "GF(2^4)"}


@pytest.mark.parametrize(
    ("noise", "hidden", "message"),
    [
        (65, False, "does not fit"),
        (0, False, "no noise"),
        (-30, False, "below the threshold"),
        (1, True, "fit"),
    ],
)
def test_a_wrong_release_is_noticed(noise: int, hidden: bool, message: str) -> None:
    counts = sum(counts_of(silo, 300, 3)[0] for silo in (1, 2))
    shown = np.full(300, not hidden)
    if noise == 0:
        shown = counts >= 5
    with pytest.raises(RuntimeError, match=message):
        check(shown, counts + noise, 64 if not hidden else 10, 3)


@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=9))
def test_the_median_is_one_of_the_runs_and_lies_in_the_middle(costs: list[float]) -> None:
    middle = median([row(cpu=cost) for cost in costs])
    assert sum(cost < middle.cpu_us_per_cell_party for cost in costs) <= len(costs) / 2
    assert sum(cost > middle.cpu_us_per_cell_party for cost in costs) <= len(costs) / 2
    assert (middle.repeats, middle.cpu_us_least, middle.cpu_us_most) == (len(costs), min(costs), max(costs))


def test_ratios_refer_to_100_000_cells_and_keep_the_variants_apart() -> None:
    rows = [row(cells=1000, cpu=90.0), row(), row(cells=10**6, cpu=1.0), row("mpyc", 3, 1000, 6000.0)]
    rows.append(row("mpyc-gmpy2", 3, 1000, 2000.0))
    found = [(ratio.other.engine, ratio.times, ratio.times_at_equal_cells) for ratio in ratios(rows)]
    assert found == [("mpyc", 3000.0, 6000.0 / 90), ("mpyc-gmpy2", 1000.0, 2000.0 / 90)]
    assert ratios(rows[3:]) == []


def test_targets_tell_reached_missed_and_not_measured_apart() -> None:
    judged = {target.what: target.reached for target in targets([row(), row("mpyc", 3, 1000, 3999.0)])}
    assert judged.pop("times less CPU than row mpyc") is False
    assert judged.pop("CPU µs per cell and party, n = 3, 100,000 cells") is True
    assert judged.pop("wall s, n = 3, 1,000,000 cells") is None
    # The ratio is promised at 100,000 cells, so a small run does not judge it.
    small = targets([row(cells=1000), row("mpyc", 3, 1000, 9e9)])
    assert {target.reached for target in small} == {None}
    assert Target("x", 2.0, 2.0).reached and Target("x", 2.0, 2.0, at_least=True).reached


@pytest.mark.parametrize("extent", [FULL, QUICK])
def test_runs_are_interleaved_and_complete(extent: Extent) -> None:
    jobs = measurements(extent)
    order = [job.label for job in interleaved(jobs)]
    assert Counter(order) == {job.label: job.repeats for job in jobs}
    if extent is FULL:
        mpyc = [i for i, label in enumerate(order) if label.startswith("mpyc,")]
        assert all(any(order[i].startswith("mpc_engine") for i in range(*pair)) for pair in pairwise(mpyc))


@pytest.mark.parametrize("fails", [False, True])
def test_a_failed_run_ends_with_code_1_and_keeps_the_others(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def second(seed: int) -> Row:
        if fails:
            raise RuntimeError("party 2 ended [early]")
        return row("mpyc", 3, 1000, 9000.0)

    jobs = [Measurement("one", 2, lambda seed: row(cpu=float(seed))), Measurement("two", 1, second)]
    monkeypatch.setattr(run, "measurements", lambda extent: jobs)
    monkeypatch.setattr(run, "run_kernels", lambda *_: [])
    out = tmp_path / "bench.json"
    assert run.main(["--out", str(out), "--seed", "5"]) == int(fails)
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert [each["engine"] for each in rows] == ["mpc_engine", "mpyc"][: 2 - fails]
    assert rows[0]["repeats"] == 2
    assert json.loads((tmp_path / "kernels.json").read_text(encoding="utf-8")) == []
    assert "| mpc_engine | 3 | 100,000 |" in (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert ("party 2 ended [early]" in capsys.readouterr().out) is fails


def test_the_report_says_when_gmpy2_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.baseline.find_spec", lambda name: None)
    console = Console(width=120, record=True, file=None, quiet=False)
    run.report([row()], console)
    assert console.export_text().count("gmpy2 is not installed") == 2
    assert not [job for job in measurements(FULL) if "gmpy2" in job.label]
