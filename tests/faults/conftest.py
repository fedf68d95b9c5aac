"""Parties as processes, made once for all faults that a test process looks at.

Every place, party and sync call takes minutes of waiting: `make faults` plays them all, `make test` every
sixth case of the tests in `LONG`. The simulator's thousand seeds go through the same places in one process.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.parties import Parties

HERE = Path(__file__).resolve().parent

LONG = ("test_clients", "test_counting", "test_disks", "test_killed", "test_signals")
ONE_IN = 6
WHOLE = ("test_a_kill_at_every_sync_call_of_a_release", "test_a_frozen_party_is_noticed_in_time")
"""Those that wait longest; tests of the ledger and the transport go through the same in `make test`."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only the whole matrix holds, unless `--whole-matrix`."""
    if config.getoption("--whole-matrix", default=False):
        return
    seen: Counter[str] = Counter()
    left_out = []
    for item in items:
        if item.path.parent == HERE and item.path.stem in LONG:
            name = getattr(item, "originalname", item.name)
            test = f"{item.path.stem}::{name}"
            case = seen[test]
            seen[test] += 1
            # Another party or place each time round.
            if case % ONE_IN != case // ONE_IN % ONE_IN or name in WHOLE:
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def standing() -> Iterator[Parties]:
    """Three parties; `parties` is what tests use."""
    with tempfile.TemporaryDirectory() as folder:
        made = Parties(Path(folder))
        try:
            made.start()
            made.holds()
            yield made
        finally:
            made.kill()


@pytest.fixture
def parties(standing: Parties) -> Iterator[Parties]:
    """Three parties that are ready before a fault, and in whom the universal outcome holds after it."""
    standing.mend()
    yield standing
    standing.holds()
