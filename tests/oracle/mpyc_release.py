"""One noised, suppressed release computed by MPyC: the engine's independent oracle and its baseline.

The job is the engine's: silos share their counts, the counts are added, noise
X = sign * nonzero * (1 + G) is drawn jointly from the public constants of a noise table, cells with
v = c + X below the threshold are suppressed inside the computation, and only the others are opened.
It is written as an MPyC program would be, over MPyC's secure arrays, and shares no code with the engine.

``mpyc_party`` is the program of one party, in two styles; this module states the job and starts the
parties as processes on loopback, on ports that the system chooses. It imports no MPyC itself.

    python tests/oracle/mpyc_release.py -M3 --counts counts.json     prints one JSON object
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Constant = tuple[int, int]
"""A coin: (numerator, bits), showing 1 with probability numerator / 2^bits; the numerator is odd."""

STYLES = ("circuit", "operators")
"""How a party goes about it, fastest first; see ``mpyc_party``."""

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Coins:
    """The public constants of the noise: one coin per bit of G, least significant first, and X != 0."""

    magnitude: tuple[Constant, ...]
    nonzero: Constant

    @property
    def all(self) -> tuple[Constant, ...]:
        """The bits of G in order, then the coin of X != 0."""
        return (*self.magnitude, self.nonzero)

    @property
    def limit(self) -> int:
        """The largest value of X."""
        return 1 << len(self.magnitude)


TABLE_A = Coins(
    magnitude=((551, 11), (977, 13), (2361, 17), (353, 20), (61, 29), (29, 51)),
    nonzero=(551, 10),
)
"""epsilon = 1 with constants of up to 12 significant bits."""


@dataclass(frozen=True)
class Words:
    """Fixed randomness, for exact comparisons only: a uniform word per coin and cell, a sign per cell.

    ``coins[j][i]`` is the word of coin j (order of ``Coins.all``) in cell i; the coin shows 1 when the
    word is below its numerator. ``signs[i]`` is 1 for minus.
    """

    coins: tuple[tuple[int, ...], ...]
    signs: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """What is computed: counts per silo, noise, threshold, and the widest value that may occur.

    ``count_bits`` bounds every pooled count: 0 <= c < 2^count_bits.
    """

    counts: tuple[tuple[int, ...], ...]
    coins: Coins = TABLE_A
    threshold: int = 5
    count_bits: int = 20
    words: Words | None = None

    def to_json(self) -> str:
        """Return the job as the text that ``from_json`` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Return the job that ``to_json`` wrote."""
        fields = json.loads(text)
        words = fields["words"]
        return cls(
            counts=tuple(tuple(silo) for silo in fields["counts"]),
            coins=coins_of(fields["coins"]),
            threshold=fields["threshold"],
            count_bits=fields["count_bits"],
            words=words and words_of(words),
        )


@dataclass(frozen=True)
class Outcome:
    """What the parties obtained and what it cost them; lists run over the parties.

    ``values`` holds None where ``suppressed``. CPU is each whole process from the moment all parties
    are connected to the last opening. ``messages`` counts what a party sent to one peer: at least the
    number of rounds. ``rss_mib`` is the peak.
    """

    values: list[int | None]
    suppressed: list[bool]
    style: str
    gmpy2: bool
    cpu_s: list[float]
    wall_s: list[float]
    bytes_sent: list[int]
    messages: list[int]
    rss_mib: list[float]

    @property
    def cpu_us_per_cell_party(self) -> float:
        """Mean CPU time of a party per cell, in microseconds."""
        return sum(self.cpu_s) / len(self.cpu_s) / len(self.values) * 1e6

    @property
    def bytes_per_cell_party(self) -> float:
        """Mean bytes that a party sends per cell, MPyC's own framing and pickling included."""
        return sum(self.bytes_sent) / len(self.bytes_sent) / len(self.values)


def coins_of(fields: Mapping[str, Any]) -> Coins:
    """Return the coins of {"magnitude": [[numerator, bits], ...], "nonzero": [numerator, bits]}."""
    numerator, bits = fields["nonzero"]
    return Coins(tuple((c, b) for c, b in fields["magnitude"]), (numerator, bits))


def words_of(fields: Mapping[str, Any]) -> Words:
    """Return the words of {"coins": [[word, ...], ...], "signs": [0 or 1, ...]}."""
    return Words(tuple(tuple(row) for row in fields["coins"]), tuple(fields["signs"]))


def run(
    job: Job,
    *,
    parties: int = 3,
    style: str = STYLES[0],
    options: Sequence[str] = (),
    timeout_s: float = 120.0,
) -> Outcome:
    """Run the job as `parties` processes on loopback and return what all of them agree on.

    ``options`` go to MPyC, e.g. ``--no-gmpy2``. Raises RuntimeError, with the parties' error output, when
    one fails, when they disagree, or when they have not finished in time, and ValueError for a job that
    does not fit the parties; no process is left behind.
    """
    if not 0 < len(job.counts) <= parties or len({len(silo) for silo in job.counts}) > 1:
        raise ValueError("each silo is a party and gives one count per cell")
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(parties)]
    addresses = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "job.json")
        path.write_text(job.to_json(), encoding="utf-8")
        command = [sys.executable, "-m", "tests.oracle.mpyc_party", "--job", str(path), "--style", style]
        command += [f"-P{address}" for address in addresses] + [f"--mpyc={option}" for option in options]
        try:
            for index, listener in enumerate(listeners):
                with (
                    open(Path(folder, f"{index}.out"), "wb") as out,
                    open(Path(folder, f"{index}.err"), "wb") as err,
                ):
                    running.append(
                        subprocess.Popen(
                            [*command, f"-I{index}", f"--listener={listener.fileno()}"],
                            cwd=ROOT,
                            stdin=subprocess.DEVNULL,
                            stdout=out,
                            stderr=err,
                            pass_fds=[listener.fileno()],
                        )
                    )
            wait_for(running, Path(folder), timeout_s)
        finally:
            for process in running:
                process.kill()
                process.wait()
            for listener in listeners:
                listener.close()
        results = [json.loads(Path(folder, f"{i}.out").read_text(encoding="utf-8")) for i in range(parties)]
    first, *others = results
    if any(other[key] != first[key] for other in others for key in ("values", "suppressed")):
        raise RuntimeError("MPyC's parties ended with different results")
    return Outcome(
        values=first["values"],
        suppressed=first["suppressed"],
        style=style,
        gmpy2=first["gmpy2"],
        cpu_s=[result["cpu_s"] for result in results],
        wall_s=[result["wall_s"] for result in results],
        bytes_sent=[result["bytes_sent"] for result in results],
        messages=[result["messages"] for result in results],
        rss_mib=[result["rss_mib"] for result in results],
    )


def wait_for(running: Sequence[subprocess.Popen[bytes]], folder: Path, timeout_s: float) -> None:
    """Return when all have ended well; raise RuntimeError as soon as one has failed or time is up.

    All are watched at once, because MPyC's parties wait for ever for one that has died.
    """
    deadline = time.monotonic() + timeout_s
    waiting = dict(enumerate(running))
    while waiting:
        for index, process in list(waiting.items()):
            with suppress(subprocess.TimeoutExpired):
                if process.wait(timeout=0.02):
                    text = (folder / f"{index}.err").read_text(encoding="utf-8", errors="replace")
                    raise RuntimeError(f"MPyC's party {index} failed:\n{text}")
                del waiting[index]
        if waiting and time.monotonic() > deadline:
            raise RuntimeError(f"MPyC's parties {sorted(waiting)} had not finished after {timeout_s} s")


def main() -> None:
    """Run the job that the command line describes; print what came out as one JSON object."""
    parser = argparse.ArgumentParser(description="one noised, suppressed release, computed by MPyC")
    parser.add_argument("-M", type=int, default=3, metavar="m", help="number of parties (3)")
    parser.add_argument("--counts", type=Path, required=True, metavar="FILE", help="JSON: a list per silo")
    parser.add_argument(
        "--coins", type=Path, metavar="FILE", help="JSON: the noise's constants (epsilon = 1)"
    )
    parser.add_argument("--coin-bits", type=Path, metavar="FILE", help="JSON: fixed words, for comparisons")
    parser.add_argument("--threshold", type=int, default=5, metavar="k", help="smallest value shown (5)")
    parser.add_argument("--count-bits", type=int, default=20, metavar="b", help="pooled counts < 2^b (20)")
    parser.add_argument("--style", choices=STYLES, default=STYLES[0])
    parser.add_argument("--mpyc", action="append", default=[], metavar="OPTION", help="for MPyC: --mpyc=-x")
    chosen = parser.parse_args()

    def read(path: Path) -> Any:
        return json.loads(path.read_text(encoding="utf-8"))

    job = Job(
        counts=tuple(tuple(silo) for silo in read(chosen.counts)),
        coins=coins_of(read(chosen.coins)) if chosen.coins else TABLE_A,
        threshold=chosen.threshold,
        count_bits=chosen.count_bits,
        words=words_of(read(chosen.coin_bits)) if chosen.coin_bits else None,
    )
    print(json.dumps(asdict(run(job, parties=chosen.M, style=chosen.style, options=chosen.mpyc))))


if __name__ == "__main__":
    main()
