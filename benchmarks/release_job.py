"""The release job at all parties of the engine: one process each, on loopback, with mutual TLS."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks.party import READY, Task, Used
from benchmarks.results import Row
from mpc_engine.identity import create_identity
from mpc_engine.scenario.simulate import free_addresses

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S = 600.0


def run_release(parties: int, cells: int, seed: int) -> Row:
    """Run the release job once and return what it took.

    Raises RuntimeError, with the party's error output, when one fails or has not finished in time; no
    process is left behind.
    """
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mpc-bench-")))
        for number, address in enumerate(free_addresses(parties), start=1):
            create_identity(f"party-{number}", work / str(number), address=address, dev=True)
        task = Task(cells, seed, parties)
        (work / "task.json").write_text(json.dumps(asdict(task)), encoding="utf-8")
        processes = [_start(work, number, stack) for number in range(1, parties + 1)]
        for number, process in enumerate(processes, start=1):
            if process.stdout is None or process.stdout.readline().strip() != READY:
                raise RuntimeError(_failure(work, number, "did not start"))
        for process in processes:
            if process.stdin is not None:
                process.stdin.write("go\n")
                process.stdin.flush()
        used = [_result(work, number, process) for number, process in enumerate(processes, start=1)]
    return Row(
        engine="mpc_engine",
        n=parties,
        cells=cells,
        cpu_us_per_cell_party=sum(each.cpu_s for each in used) / parties / cells * 1e6,
        payload_bytes_per_cell_party=sum(each.payload_bytes for each in used) / parties / cells,
        rounds=max(each.rounds for each in used),
        rounds_online=max(each.rounds_online for each in used),
        wall_s=max(each.wall_s for each in used),
        rss_mib=max(each.rss_mib for each in used),
        control_rounds=max(each.control_rounds for each in used),
        messages_per_peer=max(each.messages_per_peer for each in used),
    )


def _start(work: Path, number: int, stack: ExitStack) -> subprocess.Popen[str]:
    """Start one party; it is ended with the stack at the latest."""
    errors = stack.enter_context((work / f"{number}.err").open("w", encoding="utf-8"))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.party", str(work / "task.json"), str(number)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    stack.callback(process.wait)
    stack.callback(process.kill)  # called first; harmless when the party has ended
    return process


def _result(work: Path, number: int, process: subprocess.Popen[str]) -> Used:
    """Return what one party used, once it has ended."""
    try:
        output, _ = process.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        raise RuntimeError(_failure(work, number, f"had not finished after {LONGEST_S} s")) from None
    if process.returncode:
        raise RuntimeError(_failure(work, number, f"ended with code {process.returncode}"))
    return Used(**json.loads(output))


def _failure(work: Path, number: int, what: str) -> str:
    text = (work / f"{number}.err").read_text(encoding="utf-8", errors="replace")
    return f"party {number} {what}\n{text[-4000:]}"
