"""Parties as processes, made once for all faults that a test process looks at."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.parties import Nursery, Parties


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """The process that parties are forked from."""
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="session")
def standing(nursery: Nursery) -> Iterator[Parties]:
    """Three parties; `parties` is what tests use."""
    with tempfile.TemporaryDirectory() as folder:
        made = Parties(Path(folder), nursery)
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
