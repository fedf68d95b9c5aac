"""The engine and MPyC compute the same release from the same random words: exactly, cell by cell."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
import pytest

from mpc_engine.dp import Rule, table_for_counts
from mpc_engine.field.binary import unpack
from mpc_engine.party.policy import Policy
from mpc_engine.party.proposal import Proposal
from mpc_engine.party.session import Session
from mpc_engine.protocols import coins, signs
from mpc_engine.release.plan import Member
from mpc_engine.runtime.memory import MemoryNetwork
from mpc_engine.sharing import prss
from tests.oracle.mpyc_release import Coins, Job, Words, run
from tests.world import counted, credentials

CELLS = 70
SEED = 20260


class Recorder:
    """Remembers the parts of every pseudorandomly shared bit, from all parties, by stream name."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[tuple[int, ...], np.ndarray]] = {}

    def random_bits(self, keys: Any, parties: int, name: str, *rest: Any) -> Any:
        shares, parts = prss.random_bits(keys, parties, name, *rest)
        self.parts.setdefault(name, {}).update(parts)
        return shares, parts

    def bits(self, ending: str) -> np.ndarray:
        """Return the secret bits, shape (rows, cells), that no party of the session knew."""
        (name,) = [each for each in self.parts if each.endswith(ending)]
        return unpack(reduce(np.bitwise_xor, self.parts[name].values()), CELLS)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    record = Recorder()
    monkeypatch.setattr(coins, "random_bits", record.random_bits)
    monkeypatch.setattr(signs, "random_bits", record.random_bits)
    yield record


def engine_release(counts: np.ndarray, parties: int) -> tuple[list[int | None], Proposal]:
    """Run the engine on counts of shape (silos, cells) and return its values, None where suppressed."""
    silos = len(counts)
    members = tuple(Member(f"p{i}", True, i <= silos, f"sha256:{i}", 1 << 24) for i in range(1, parties + 1))
    proposal = Proposal((counted(CELLS),), {}, Fraction(1), "1", None, Rule.NOISY, 5, 1, members, {})

    async def everyone() -> list[Any]:
        network = MemoryNetwork(parties)
        sides = credentials(parties)
        sessions = [
            Session(i, proposal, Policy("1", 5), network.link(i), "", mine, sides[i])
            for i, mine in enumerate([*([row[None]] for row in counts), *[None] * (parties - silos)], start=1)
        ]
        return await asyncio.gather(*(session.run() for session in sessions))

    releases = asyncio.run(everyone())
    ((_, _, values),) = releases[0].release.tallies()
    return values, proposal


def words_of(recorder: Recorder) -> Words:
    """Return the uniform word behind every coin, and every sign, of the session just run."""
    table = table_for_counts(Fraction(1))
    literals = recorder.bits("/coins:literals")
    sign = recorder.bits("/signs:bits")[-1]
    words, row = [], 0
    for coin in (*table.magnitude, table.nonzero):
        word = np.zeros(CELLS, np.int64)
        for digit in format(coin.numerator, f"0{coin.bits}b"):
            # A literal says whether the word's bit equals the constant's.
            word = 2 * word + (literals[row] ^ (digit == "0"))
            row += 1
        words.append(tuple(int(x) for x in word))
    return Words(tuple(words), tuple(int(x) for x in sign))


@pytest.mark.parametrize("parties", [3, 5])
def test_same_words_same_release(recorder: Recorder, parties: int) -> None:
    print(f"seed {SEED}")
    counts = np.random.default_rng(SEED).integers(0, 8, (2, CELLS))
    published, _ = engine_release(counts, parties)
    table = table_for_counts(Fraction(1))
    job = Job(
        counts=tuple(tuple(int(x) for x in silo) for silo in counts),
        coins=Coins(
            tuple((coin.numerator, coin.bits) for coin in table.magnitude),
            (table.nonzero.numerator, table.nonzero.bits),
        ),
        words=words_of(recorder),
    )
    oracle = run(job, parties=parties)
    assert published == oracle.values
    assert any(value is None for value in published) and any(value is not None for value in published)
