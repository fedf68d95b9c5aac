"""One MPyC party of the oracle: the release job as an MPyC program over secure arrays.

Two styles, which share neither their field nor their way of comparing:

``operators``  secure integers; a coin is ``U < numerator`` and the guard ``v < threshold``, both by
               MPyC's own comparison.
``circuit``    a prime field of 31 bits; a coin is one product per bit of its constant, the guard a
               product over all values below the threshold that v can take. By far the faster one.

MPyC reads the program's arguments when it is imported and listens on every interface, so it is
imported here behind an argument list of its own and inside an event loop that listens on loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.oracle.mpyc_release import STYLES, Job

MERSENNE_31 = 2**31 - 1


class LoopbackLoop(asyncio.SelectorEventLoop):
    """An event loop whose servers listen on loopback, on a socket opened beforehand where one is given."""

    listener: socket.socket | None = None

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        """Serve as asked, but never on another interface than loopback."""
        if self.listener is None:
            return await super().create_server(*args, **{**kwargs, "host": "127.0.0.1"})
        kwargs.pop("port", None)
        return await super().create_server(*args, **kwargs, sock=self.listener)


def import_mpyc(addresses: Sequence[str], index: int, options: Sequence[str]) -> Any:
    """Return MPyC's runtime for party `index`; MPyC sees these arguments instead of the program's."""
    hidden = sys.argv
    parties = [word for address in addresses for word in ("-P", address)]
    # uvloop would replace the loopback-only loop; for this job it was measured to gain nothing.
    sys.argv = [hidden[0], *parties, "-I", str(index), "--no-log", "--no-uvloop", *options]
    try:
        from mpyc.runtime import mpc
    finally:
        sys.argv = hidden
    return mpc


class Release:
    """The job as one MPyC party runs it; arrays have one column per cell."""

    def __init__(self, mpc: Any, job: Job, style: str) -> None:
        import numpy

        self.np = numpy
        self.mpc = mpc
        self.job = job
        self.cells = len(job.counts[0])
        if style == "operators":
            widest = max(bits for _, bits in job.coins.all)
            self.value_bits = max(job.count_bits, len(job.coins.magnitude)) + 2
            self.sectype = mpc.SecInt(max(widest + 1, self.value_bits))
            self.coins, self.is_small = self.coins_by_comparison, self.is_small_by_comparison
        else:
            self.sectype = mpc.SecFld(MERSENNE_31)
            self.coins, self.is_small = self.coins_by_products, self.is_small_by_product

    async def run(self) -> tuple[list[int | None], list[bool]]:
        """Return the values, None where suppressed, and the pattern of suppression."""
        guarded = self.pooled() + self.noise()
        suppressed = [bool(s) for s in await self.is_small(guarded)]
        shown = self.np.array([i for i, s in enumerate(suppressed) if not s], dtype=int)
        values: list[int | None] = [None] * self.cells
        if len(shown):
            for i, value in zip(shown, await self.mpc.output(guarded[shown]), strict=True):
                values[i] = self.centred(int(value))
        return values, suppressed

    def centred(self, value: int) -> int:
        """Return the integer that an element opened as a residue stands for."""
        modulus = int(self.sectype.field.modulus)
        return value - modulus if value > modulus // 2 else value

    def secret(self, values: Any) -> Any:
        """Return a secure array of plain integers, before it is shared."""
        return self.sectype.array(self.np.array(values, dtype=object))

    def pooled(self) -> Any:
        """Return the sum of the silos' counts; silo i is party i."""
        silos = len(self.job.counts)
        mine = self.job.counts[self.mpc.pid] if self.mpc.pid < silos else [0] * self.cells
        return sum(self.mpc.input(self.secret(mine), senders=list(range(silos))))

    def noise(self) -> Any:
        """Return X = sign * nonzero * (1 + G)."""
        if self.job.words is None:
            signs = self.mpc.np_random_bits(self.sectype, self.cells, signed=True)
        else:
            signs = self.mpc.input(self.secret([1 - 2 * s for s in self.job.words.signs]), senders=0)
        *magnitude, nonzero = self.coins()
        size = 1 + sum(bit * (1 << i) for i, bit in enumerate(magnitude))
        return signs * nonzero * size

    def random_bits(self, rows: Sequence[tuple[int, int, int]]) -> Any:
        """Return jointly random bits, one row of cells per entry of `rows`, back to back.

        An entry is (coin, place, flip): with fixed words the row holds that coin's bit of value
        2^place, negated where flip is 1; a random bit is as random negated.
        """
        words = self.job.words
        if words is None:
            return self.mpc.np_random_bits(self.sectype, len(rows) * self.cells)
        bits = [(word >> place & 1) ^ flip for coin, place, flip in rows for word in words.coins[coin]]
        return self.mpc.input(self.secret(bits), senders=0)

    # Style "operators".

    def coins_by_comparison(self) -> list[Any]:
        """Return the coins, each a word of random bits compared with its constant by MPyC."""
        constants = self.job.coins.all
        bits = self.random_bits([(j, i, 0) for j, (_, width) in enumerate(constants) for i in range(width)])
        coins, start = [], 0
        for numerator, width in constants:
            block = bits[start : start + width * self.cells].reshape(width, self.cells)
            word = self.mpc.np_from_bits(block.T)
            coins.append(self.mpc.np_sgn(word - numerator, l=width + 1, LT=True))
            start += width * self.cells
        return coins

    async def is_small_by_comparison(self, guarded: Any) -> Any:
        """Open v < threshold and nothing else."""
        below = self.mpc.np_sgn(guarded - self.job.threshold, l=self.value_bits, LT=True)
        return await self.mpc.output(below)

    # Style "circuit".

    def coins_by_products(self) -> list[Any]:
        """Return the coins, all of them stepping through their constants from the lowest bit up.

        With L_i = [bit i of U equals bit i of c]: U >= c holds on the lowest i+1 bits where bit i of c
        is 1 iff L_i and U >= c on the bits below; where it is 0, the same is true of U < c. So each bit
        costs one product, and a change between the two forms is free. The lowest bit of an odd c is 1.
        A chain has more rounds than a tree; it is taken because it needs fewer products and far fewer
        array operations, and the baseline is judged by its CPU time.
        """
        constants = self.job.coins.all
        order = sorted(range(len(constants)), key=lambda j: -constants[j][1])
        active = [[j for j in order if constants[j][1] > i] for i in range(constants[order[0]][1])]

        def digit(coin: int, place: int) -> int:
            return constants[coin][0] >> place & 1

        bits = self.random_bits([(j, i, 1 - digit(j, i)) for i, row in enumerate(active) for j in row])
        state, start = (
            bits[: len(order) * self.cells].reshape(len(order), self.cells),
            len(order) * self.cells,
        )
        finished: list[Any] = []
        for i in range(1, len(active)):
            count = len(active[i])
            if count < len(active[i - 1]):
                finished.insert(0, self.flip(state[count:], [digit(j, i - 1) for j in active[i - 1][count:]]))
                state = state[:count]
            state = self.flip(state, [digit(j, i) ^ digit(j, i - 1) for j in active[i]])
            state = bits[start : start + count * self.cells].reshape(count, self.cells) * state
            start += count * self.cells
        finished.insert(0, self.flip(state, [digit(j, len(active) - 1) for j in active[-1]]))
        rows = self.mpc.np_concatenate(finished) if len(finished) > 1 else finished[0]
        return [rows[order.index(j)] for j in range(len(constants))]

    def flip(self, state: Any, where: Sequence[int]) -> Any:
        """Return 1 - state in the rows where `where` is 1, state in the others."""
        if not any(where):
            return state
        column = self.np.array(where, dtype=object).reshape(-1, 1)
        return state * (1 - 2 * column) + column

    async def is_small_by_product(self, guarded: Any) -> Any:
        """Open whether v is one of -limit .. threshold - 1, the values below the threshold it can take.

        The values lie in pairs about their centre, so their product is a polynomial in the square of
        the distance from it; that is evaluated by factors of degree four on common powers.
        """
        lowest, highest = -self.job.coins.limit, self.job.threshold - 1
        distance = guarded * 2 - (lowest + highest)
        squares = {(2 * value - lowest - highest) ** 2 for value in range(lowest, highest + 1)}
        roots = sorted(squares - {0})
        first = distance * distance
        second = first * first
        upper = self.mpc.np_stack([second, second]) * self.mpc.np_stack([first, second])
        powers = self.mpc.np_stack([first, second, upper[0], upper[1]])
        polynomials = [expanded(roots[i : i + 4]) for i in range(0, len(roots), 4)]
        constants = self.np.array([[c[0]] for c in polynomials], dtype=object)
        coefficients = self.np.array([c[1:] for c in polynomials], dtype=object)
        factors = coefficients @ powers + constants
        if 0 in squares:
            factors = self.mpc.np_vstack((factors, distance.reshape(1, self.cells)))
        return await self.mpc.np_is_zero_public(self.mpc.np_prod(factors, axis=0))


def expanded(roots: Sequence[int]) -> list[int]:
    """Return the coefficients, constant first, of the product of (y - root), filled up to degree four."""
    coefficients = [1]
    for root in roots:
        shifted = [0, *coefficients]
        coefficients = [s - root * c for s, c in zip(shifted, [*coefficients, 0], strict=True)]
    return coefficients + [0] * (5 - len(coefficients))


def run_party(
    job: Job, style: str, addresses: Sequence[str], index: int, listener: int | None, options: Sequence[str]
) -> dict[str, Any]:
    """Take part in the release as party `index`; return its results and what they cost it.

    ``listener`` is the descriptor of a listening socket to use instead of opening the party's own port.
    """
    loop = LoopbackLoop()
    if listener is not None:
        loop.listener = socket.socket(fileno=listener)
    asyncio.set_event_loop(loop)
    mpc = import_mpyc(addresses, index, options)
    from mpyc.asyncoro import MessageExchanger

    sent = [0] * len(addresses)
    plain_send = MessageExchanger.send

    def counted_send(exchanger: Any, label: int, payload: bytes) -> None:
        sent[exchanger.peer_pid] += 1
        plain_send(exchanger, label, payload)

    MessageExchanger.send = counted_send

    async def main() -> dict[str, Any]:
        async with mpc:
            cpu, wall = time.process_time(), time.perf_counter()
            values, suppressed = await Release(mpc, job, style).run()
            return {
                "values": values,
                "suppressed": suppressed,
                "cpu_s": time.process_time() - cpu,
                "wall_s": time.perf_counter() - wall,
                "bytes_sent": sum(peer.protocol.nbytes_sent for peer in mpc.parties if peer.pid != mpc.pid),
                "messages": max(sent),
                "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "gmpy2": "gmpy2" in sys.modules,
            }

    return dict(mpc.run(main()))


def main() -> None:
    """Be the party that the command line names; print its result as one JSON object."""
    parser = argparse.ArgumentParser(description="one MPyC party of a noised, suppressed release")
    parser.add_argument("-P", action="append", required=True, metavar="host:port", help="once per party")
    parser.add_argument("-I", type=int, required=True, metavar="index", help="be this party, from 0")
    parser.add_argument("--job", type=Path, required=True, metavar="FILE", help="the job as JSON")
    parser.add_argument("--style", choices=STYLES, default=STYLES[0])
    parser.add_argument(
        "--listener", type=int, metavar="FD", help="a listening socket to use instead of a port"
    )
    parser.add_argument(
        "--mpyc", action="append", default=[], metavar="OPTION", help="option for MPyC itself"
    )
    chosen = parser.parse_args()
    job = Job.from_json(chosen.job.read_text(encoding="utf-8"))
    print(json.dumps(run_party(job, chosen.style, chosen.P, chosen.I, chosen.listener, chosen.mpyc)))


if __name__ == "__main__":
    main()
