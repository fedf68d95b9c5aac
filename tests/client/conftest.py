"""A party with a fake desk for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.fakes import Study, running


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    """A running party and an analyst's profile for it."""
    with running(tmp_path) as made:
        yield made
