"""The parts that the job is made of, each alone in one thread: field products, streams, a session.

Vectors have the length of one block of the engine's, so that what is measured is what a release does.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from statistics import median

import numpy as np

from benchmarks.job import POLICY, SILOS, check_release, counts_of, credentials_of, proposal_for
from mpc_engine.field.binary import BinaryField, Planes, words_for
from mpc_engine.field.mersenne import COUNTS, WIDE, MersenneField, Vector
from mpc_engine.party.session import Session
from mpc_engine.release.plan import BLOCK_CELLS
from mpc_engine.runtime.memory import MemoryNetwork
from mpc_engine.sharing.streams import KEY_BYTES, StreamKey

TERMS = 3
BIT_ROWS = 32
"""Rows of bits that are handled at a time; the coins of one block have more than a hundred in all."""
BATCHES = 7
BATCH_S = 0.02


@dataclass(frozen=True)
class Kernel:
    """One thing to measure: `call` does it once, for `size` units."""

    kernel: str
    field: str
    unit: str
    size: int
    call: Callable[[], object]


@dataclass(frozen=True)
class KernelRow:
    """What one unit costs in nanoseconds of CPU: median and least over the batches."""

    kernel: str
    field: str
    unit: str
    size: int
    ns: float
    ns_least: float


def kernels(rng: np.random.Generator, cells: int = BLOCK_CELLS) -> Iterator[Kernel]:
    """Yield the kernels of fields and streams, on vectors of so many elements."""
    for field in (COUNTS, WIDE):
        yield from _products(field, cells, rng)
    for d in (2, 3, 4):
        yield from _bit_planes(BinaryField(d), cells, rng)
    yield from _streams(cells)


def _products(field: MersenneField, cells: int, rng: np.random.Generator) -> Iterator[Kernel]:
    def draw() -> Vector:
        return rng.integers(0, field.p, (1, cells), dtype=np.uint64)

    a, b = [draw() for _ in range(TERMS)], [draw() for _ in range(TERMS)]
    weights = [int(weight) for weight in rng.integers(2, field.p, TERMS)]
    name = str(field)
    yield Kernel("multiply", name, "element", cells, lambda: field.multiply(a[0], b[0]))
    yield Kernel(f"inner, {TERMS} terms", name, "element", cells, lambda: field.inner(a, b))
    yield Kernel(f"combine, {TERMS} terms", name, "element", cells, lambda: field.combine(weights, a))


def _bit_planes(field: BinaryField, cells: int, rng: np.random.Generator) -> Iterator[Kernel]:
    def draw() -> Planes:
        shape = (field.d, BIT_ROWS, words_for(cells))
        return rng.integers(0, 1 << 64, shape, dtype=np.uint64)

    vectors = [draw() for _ in range(TERMS)]
    weights = [1, 2, 3]
    name, size = str(field), BIT_ROWS * cells
    yield Kernel("multiply", name, "element", size, lambda: field.multiply(vectors[0], vectors[1]))
    yield Kernel(f"combine, {TERMS} terms", name, "element", size, lambda: field.combine(weights, vectors))


def _streams(cells: int) -> Iterator[Kernel]:
    key = StreamKey(os.urandom(KEY_BYTES), "benchmark")
    names = (f"benchmark/{number}" for number in count())
    words = words_for(cells)
    size = BIT_ROWS * words * 8
    yield Kernel("stream of bits", "-", "byte", size, lambda: key.bits(next(names), BIT_ROWS, words))
    for field in (COUNTS, WIDE):
        size = field.wire_bytes(1, cells)
        yield Kernel(
            "stream of elements",
            str(field),
            "byte",
            size,
            lambda field=field: key.uniform(next(names), field, 1, cells),  # type: ignore[misc]
        )


def measure(kernel: Kernel, batches: int = BATCHES) -> KernelRow:
    """Return what a kernel costs, after a first call that is not counted."""
    kernel.call()
    start = time.perf_counter()
    kernel.call()
    calls = max(1, int(BATCH_S / max(time.perf_counter() - start, 1e-6)))
    spent = []
    for _ in range(batches):
        start = time.process_time()
        for _ in range(calls):
            kernel.call()
        spent.append((time.process_time() - start) / calls / kernel.size * 1e9)
    return KernelRow(kernel.kernel, kernel.field, kernel.unit, kernel.size, median(spent), min(spent))


def session_in_memory(parties: int, cells: int, seed: int, repeats: int) -> KernelRow:
    """Return what a whole session costs without a transport, all parties in this process."""
    spent = [asyncio.run(_session(parties, cells, seed)) / parties / cells * 1e9 for _ in range(repeats)]
    name = f"session in memory, n = {parties}"
    return KernelRow(name, "-", "cell and party", cells, median(spent), min(spent))


async def _session(parties: int, cells: int, seed: int) -> float:
    """Run the release job once over a memory network; return the CPU seconds that all parties used."""
    everyone = range(1, parties + 1)
    proposal = proposal_for(cells, [(f"party-{number}", f"sha256:{number}") for number in everyone])
    network, sides = MemoryNetwork(parties), credentials_of(parties)
    sessions = [
        Session(
            me,
            proposal,
            POLICY,
            network.link(me),
            "",
            [counts_of(me, cells, seed)] if me <= SILOS else None,
            sides[me],
        )
        for me in everyone
    ]
    start = time.process_time()
    releases = await asyncio.gather(*(session.run() for session in sessions))
    used = time.process_time() - start
    for each in releases:
        check_release(each.release.published, each.release.plan, seed)
    return used
