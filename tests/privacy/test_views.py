"""What one party sees in a real session does not follow the others' data; χ² on the real field."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mpc_engine.field.mersenne import COUNTS
from mpc_engine.runtime.link import Section
from mpc_engine.sharing.streams import StreamKey
from tests.sampling import contingency
from tests.world import Outcome, release

CELLS = 1 << 14
ALPHA = 1e-7
"""Some thousand comparisons in every session, at fixed seeds."""


def counts_of_others(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, CELLS)


def session(n: int, seed: int, theirs: np.ndarray) -> Outcome:
    """A session in which party 2 and an input-only silo hold the same `theirs`, and all others nothing."""
    counts: list[np.ndarray | None] = [np.zeros(CELLS) if i == 1 else None for i in range(1, n + 1)]
    counts[1] = theirs
    return release([*counts, theirs], n, seed=seed, network={"record_payloads": True}, threshold=1000)


def seen(outcome: Outcome, party: int) -> Iterator[tuple[str, np.ndarray]]:
    """Field elements that a party received or kept, one vector of a value per cell at a time."""
    for sent in outcome.network.transcript:
        if sent.receiver == party and sent.key.section in (Section.INPUT, Section.TEST):
            assert sent.payload is not None
            for row, values in enumerate(np.frombuffer(sent.payload, "<u4").reshape(-1, CELLS)):
                yield f"{sent.sender}>{party} {sent.key} row {row}", values.astype(np.uint64)
    kept = outcome.computed[party].outputs[0]
    for name, shares in (("value", kept.values), ("product", kept.product)):
        if shares is not None:
            yield name, COUNTS.canonical(shares[0])


def bucket(values: np.ndarray, count: int) -> np.ndarray:
    return (values * np.uint64(count) // np.uint64(COUNTS.p)).astype(np.int64)


def suspicious(outcome: Outcome, party: int, theirs: np.ndarray) -> list[str]:
    """Return what a party saw that is not uniform, or follows the others' counts, alone or with the next."""
    vectors = list(seen(outcome, party))
    views = [(name, bucket(values, 16)) for name, values in vectors]
    for (one, a), (two, b) in pairwise(vectors):
        views.append((f"{one} less {two}", bucket(COUNTS.canonical(COUNTS.subtract(a, b)), 16)))
    return [
        name
        for name, values in views
        if stats.chisquare(np.bincount(values, minlength=16)).pvalue < ALPHA
        or contingency(values, theirs) < ALPHA
    ]


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("theirs", [counts_of_others(1), counts_of_others(2) * 300], ids=["small", "large"])
def test_views_are_uniform_and_do_not_follow_the_data(n: int, theirs: np.ndarray) -> None:
    outcome = session(n, 50 + n, theirs)
    ranks = theirs // max(1, int(theirs.max()) // 3)
    for party in range(1, n + 1):
        if party != 2:
            assert len(list(seen(outcome, party))) > 10
            assert suspicious(outcome, party, ranks) == []


def test_a_view_that_follows_the_data_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: pads that are not uniform, but take one of eight values."""
    true_uniform = StreamKey.uniform

    def coarse(self: StreamKey, *arguments: Any) -> Any:
        return true_uniform(self, *arguments) & np.uint64(7)

    monkeypatch.setattr(StreamKey, "uniform", coarse)
    theirs = counts_of_others(3) * (1 << 18)
    assert suspicious(session(3, 60, theirs), 1, theirs >> 18)
