"""MPyC on the same job: same counts, same noise constants, same threshold, its own processes.

Four ways of running it are measured, because one could be chosen to flatter the engine:

    mpyc                MPyC's own idiom, secure integers and its comparison, as `pip install mpyc` runs it
    mpyc-gmpy2          the same with gmpy2, an optional extra of MPyC
    mpyc-circuit        a circuit close to the engine's, written by hand on MPyC's arrays over a 31-bit prime
    mpyc-circuit-gmpy2  the same with gmpy2, the fastest MPyC that we know how to write

MPyC's clock starts when its parties are connected and its traffic is not encrypted; the engine's clock
includes connecting, and its traffic TLS. Both differences favour MPyC.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec

import numpy as np

from benchmarks.job import EPSILON, SILOS, THRESHOLD, check, counts_of
from benchmarks.results import Row
from mpc_engine.dp.noise_table import generate
from tests.oracle.mpyc_release import Coins, Job, run

LONGEST_S = 600.0
NO_GMPY2 = "--no-gmpy2"


@dataclass(frozen=True)
class Variant:
    """One way of running MPyC: the row's name, the program's style, whether gmpy2 is used."""

    name: str
    style: str
    gmpy2: bool


VARIANTS = (
    Variant("mpyc", "operators", False),
    Variant("mpyc-gmpy2", "operators", True),
    Variant("mpyc-circuit", "circuit", False),
    Variant("mpyc-circuit-gmpy2", "circuit", True),
)


def is_runnable(variant: Variant) -> bool:
    """Return whether what the variant needs is installed."""
    return not variant.gmpy2 or find_spec("gmpy2") is not None


def run_mpyc(variant: Variant, parties: int, cells: int, seed: int) -> Row:
    """Run the release job once in MPyC and return what it took.

    Rounds are None: MPyC does not count them; the messages to one peer bound them from above.
    Raises RuntimeError when a party fails, when time is up, or when the release does not fit the counts.
    """
    table = generate(Fraction(EPSILON))
    coins = Coins(
        magnitude=tuple((coin.numerator, coin.bits) for coin in table.magnitude),
        nonzero=(table.nonzero.numerator, table.nonzero.bits),
    )
    counts = tuple(tuple(map(int, counts_of(silo, cells, seed)[0])) for silo in range(1, SILOS + 1))
    options = () if variant.gmpy2 else (NO_GMPY2,)
    job = Job(counts, coins, THRESHOLD)
    outcome = run(job, parties=parties, style=variant.style, options=options, timeout_s=LONGEST_S)
    if outcome.gmpy2 is not variant.gmpy2:
        raise RuntimeError(f"{variant.name}: MPyC ran {'with' if outcome.gmpy2 else 'without'} gmpy2")
    shown = ~np.array(outcome.suppressed)
    values = np.array([0 if value is None else value for value in outcome.values])
    check(shown, values, table.limit, seed)
    return Row(
        engine=variant.name,
        n=parties,
        cells=cells,
        cpu_us_per_cell_party=outcome.cpu_us_per_cell_party,
        payload_bytes_per_cell_party=outcome.bytes_per_cell_party,
        rounds=None,
        rounds_online=None,
        wall_s=max(outcome.wall_s),
        rss_mib=max(outcome.rss_mib),
        messages_per_peer=max(outcome.messages),
    )
